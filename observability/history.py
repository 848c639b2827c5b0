"""Door to DuckDB: the one spine. Commit rows, fold them in, ask.

    commit ─▶ HOME/history.spool/NAME.json ─▶ fold ─▶ HOME/history.duckdb ─▶ ask, export

A commit is durable as a small file of its own before it is in DuckDB, because only one process at
a time may have a DuckDB file open: an analyst's session must neither stop a pipeline nor lose its
rows. Whoever next gets the file folds in what waits, each commit once. No connection is kept open
between calls. Nothing here decides anything, and no other file imports duckdb.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import duckdb
from filelock import FileLock, Timeout

from observability import durable, faults, migrations
from observability.errors import BadConfiguration, ThermodriftError, TryAgainLater
from observability.places import Places
from observability.records import Record
from observability.spool import Cell, Spool, Spooled, SpoolTooNew, SpoolTorn

if TYPE_CHECKING:
    import pyarrow as pa

ExportFormat = Literal["parquet", "csv"]

_FILES_AT_ONCE = 1000
"""Spool files in one transaction: bounds the memory after a long wait."""
_CONFIG: Mapping[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
}
_ASKING = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
_DISK_REFUSES = re.compile(
    r"No space left|Permission denied|Read-only file system|Cannot open file|Could not write|"
    r"Disk quota|Input/output error",
    re.IGNORECASE,
)


class HistoryBusy(TryAgainLater, BlockingIOError):
    """Another process has the history open. What was committed waits safely in the spool."""


class HistoryDamaged(ThermodriftError, OSError):
    """The history's file cannot be read as the DuckDB file that thermodrift wrote."""


class HistoryUnwritable(ThermodriftError, OSError):
    """The disk refused: no space, no permission. What was committed before is safe."""


class HistoryTooNew(ThermodriftError, ValueError):
    """The history was written by a newer thermodrift."""


class HistoryForked(ThermodriftError, RuntimeError):
    """A handle was used in another process than the one that made it."""


class BadQuestion(ThermodriftError, ValueError):
    """DuckDB cannot answer the SQL, or it is more than a question."""

    exit_code = 2


@dataclass(frozen=True)
class Folded:
    """What a fold did."""

    files: int
    """Commits that are in the history now and were not before."""
    rows: int
    """Rows of these commits."""
    left: int
    """Commits that still wait in the spool."""
    because: str
    """One sentence: what was done, or why not."""
    torn: tuple[str, ...] = ()
    """Spool files that cannot be read and were set aside under these names."""


@dataclass(frozen=True)
class ViewShape:
    """A public view as it is now."""

    name: str
    columns: Mapping[str, str]
    """DuckDB's type by the column's name, in order."""
    rows: int


class History:
    """The history under one home. Use a handle in the process that made it, from any thread.

    Args:
        home: folder of the installation; it need not exist yet.
        patience_s: seconds that `ask` and `export` wait for another thermodrift that is folding
            or asking. An analyst's own DuckDB session is never waited for.
        now_ns: clock that orders commits, in nanoseconds since 1970.
        steps: the history's shape; tests make older and newer ones.

    Raises BadConfiguration for a home where DuckDB cannot write.
    """

    def __init__(
        self,
        home: Path,
        patience_s: float = 10.0,
        now_ns: Callable[[], int] = time.time_ns,
        steps: Sequence[migrations.Migration] = migrations.MIGRATIONS,
    ) -> None:
        self._places = Places(home.absolute())
        if "?" in str(self._places.home):
            # DuckDB takes what follows for options, and misplaces its write-ahead log.
            raise BadConfiguration(
                f"the home must not have a question mark in its path, DuckDB cannot write there; "
                f"came: {self._places.home}; set another home"
            )
        self._file = self._places.history
        self._patience_s = patience_s
        self._now_ns = now_ns
        self._steps = steps
        self._latest = steps[-1].number
        self._spool = Spool(self._places.spool, self._latest)
        self._pid = os.getpid()

    def commit(self, records: Sequence[Record], name: str) -> None:
        """Keep `records`: durable when this returns, whoever has the DuckDB file open.

        `name` is an idempotency key, 1 to 200 of a-z, 0-9, ``.``, ``_`` and ``-``: a commit that
        is repeated under its name, before or after a fold, lands once. Two writers must not share
        one. Nothing is written for no records.

        Raises HistoryUnwritable where the disk refuses, ValueError for a bad name.
        """
        self._stay_home()
        if not records:
            return
        try:
            faults.point("history.before_spool")
            self._spool.write(records, name, self._now_ns())
        except OSError as cause:
            raise HistoryUnwritable(
                f"the rows of {name} could not be kept in {self._spool.folder}: {cause}; "
                f"make space or give write permission, then run again: nothing committed is lost"
            ) from cause

    def fold(self) -> Folded:
        """Put what waits in the spool into DuckDB, each commit once; wait for nobody.

        Where another process has the file, all stays spooled and the answer says who.
        Raises HistoryDamaged, HistoryTooNew, HistoryUnwritable; the spool is whole then too.
        """
        self._stay_home()
        if not self._spool.waiting():
            return Folded(files=0, rows=0, left=0, because="nothing was spooled")
        try:
            with self._locked(wait_s=0):
                return self._fold()
        except HistoryBusy as busy:
            return Folded(files=0, rows=0, left=len(self._spool.waiting()), because=str(busy))

    def ask(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """The answer to one question in SQL, over all that was committed.

        The file is opened read-only and the question reaches no other file but the pipelines' and
        no network. Times come in UTC.

        Raises BadQuestion for SQL that cannot be answered or that is no question, HistoryBusy
        while another process has the file open, HistoryDamaged, HistoryTooNew.
        """
        self._stay_home()
        with self._locked(self._patience_s), self._reading() as connection:
            self._fence(connection)
            return self._answer(connection, sql, parameters)

    def export(self, folder: Path, format: ExportFormat = "parquet") -> list[Path]:  # noqa: A002 - the word that users know
        """Write every public view into `folder`, one file each, all of the same moment.

        Returns the files' paths. Raises as `ask` does, and HistoryUnwritable.
        """
        self._stay_home()
        if format not in ("parquet", "csv"):
            raise BadQuestion(f"history is exported as parquet or csv; came: {format!r}")
        with self._locked(self._patience_s), self._reading() as connection, self._disk():
            folder.mkdir(parents=True, exist_ok=True)
            return [
                self._export_view(connection, view, folder.absolute(), format)
                for view in migrations.PUBLIC_VIEWS
            ]

    def views(self) -> list[ViewShape]:
        """The public views: their columns and how many rows they have. Raises as `ask` does."""
        self._stay_home()
        with self._locked(self._patience_s), self._reading() as connection:
            return [_shape(connection, view) for view in migrations.PUBLIC_VIEWS]

    def _stay_home(self) -> None:
        if os.getpid() != self._pid:
            raise HistoryForked(
                f"this History was made in process {self._pid} and is used in {os.getpid()}: "
                f"a handle does not survive a fork; make a new History in this process"
            )

    # A lock of our own keeps thermodrift's processes apart: without it, processes that took turns
    # at one file lost committed rows with some releases of DuckDB.
    @contextmanager
    def _locked(self, wait_s: float) -> Iterator[None]:
        lock = self._file.with_name(f"{self._file.name}.lock")
        with ExitStack() as stack:
            try:
                self._places.home.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(lock, timeout=wait_s))
                lock.write_text(str(os.getpid()))
            except Timeout as cause:
                raise HistoryBusy(self._held_by(_pid_in(lock), "")) from cause
            except OSError as cause:
                raise HistoryUnwritable(
                    f"{lock} cannot be locked: {cause}; give write permission to the home"
                ) from cause
            yield

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Turn a refusal of the disk into an error that says what is safe."""
        try:
            yield
        except ThermodriftError:
            raise
        except OSError as cause:
            raise HistoryUnwritable(
                f"the disk refused while {self._file} was at work: {cause}; make space, then run "
                f"again: what was committed is safe in {self._spool.folder} or in the file"
            ) from cause

    def _fold(self) -> Folded:
        """Fold all that waits, and bring the file up to date. Call it under the lock."""
        with self._disk():
            faults.point("history.before_fold")
            self._spool.sweep()
            paths = self._spool.waiting()
            done = _Tally()
            with self._writing() as connection:
                for start in range(0, len(paths), _FILES_AT_ONCE):
                    self._fold_some(connection, paths[start : start + _FILES_AT_ONCE], done)
                connection.execute("CHECKPOINT")
            faults.point("history.after_fold")
            self._spool.remove(done.paths)
            return done.folded(left=len(self._spool.waiting()))

    def _fold_some(
        self, connection: duckdb.DuckDBPyConnection, paths: list[Path], done: _Tally
    ) -> None:
        """Insert the rows of the commits in `paths` and their names, in one transaction."""
        commits = self._read_spool(paths, done)
        known = _known(connection, [commit.name for commit in commits])
        fresh = [commit for commit in commits if commit.name not in known]
        if fresh:
            connection.execute("BEGIN")
            for table in dict.fromkeys(table for commit in fresh for table in commit.tables):
                _append(connection, table, [r for c in fresh for r in c.tables.get(table, ())])
            _remember(connection, [commit.name for commit in fresh])
            faults.point("history.inside_fold")
            connection.execute("COMMIT")
        done.files += len(fresh)
        done.rows += sum(commit.count for commit in fresh)
        done.paths += [commit.path for commit in commits]

    def _read_spool(self, paths: list[Path], done: _Tally) -> list[Spooled]:
        """The commits that can be read, in the order in which they were made."""
        commits = []
        for path in paths:
            try:
                commits.append(self._spool.read(path))
            except SpoolTorn as torn:
                done.torn.append(self._spool.set_aside(path).name)
                done.troubles.append(f"{torn} (set aside)")
            except (SpoolTooNew, OSError) as trouble:
                done.troubles.append(f"{trouble} (left)")
        return sorted(commits, key=lambda commit: (commit.spooled_at_ns, commit.name))

    @contextmanager
    def _writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The file, open for writing and up to date. Call it under the lock."""
        if not self._file.exists():
            self._create()
        # Closing any handle of the file frees DuckDB's lock on it. So a copy is made from a handle
        # that is opened once the file is ours, and closed only after the connection.
        with ExitStack() as afterwards, self._connected(self._file, "READ_WRITE") as connection:
            version = self._version(connection)
            if 0 < version < self._latest:
                connection.execute("CHECKPOINT")
                raw = afterwards.enter_context(self._file.open("rb"))
                self._keep_copy(raw, before=version + 1)
            self._migrate(connection, version)
            self._renew_predictions(connection)
            yield connection

    def _create(self) -> None:
        """Make the file aside, so that nobody ever finds half of one."""
        aside = self._file.with_name(f".{self._file.name}.new")
        aside.unlink(missing_ok=True)
        aside.with_name(f"{aside.name}.wal").unlink(missing_ok=True)
        with self._connected(aside, "READ_WRITE") as connection:
            self._migrate(connection, 0)
            connection.execute("CHECKPOINT")
        aside.replace(self._file)
        durable.sync_folder(self._file.parent)

    def _migrate(self, connection: duckdb.DuckDBPyConnection, version: int) -> None:
        steps = migrations.pending(self._steps, version)
        if not steps:
            return
        connection.execute("BEGIN")
        for step in steps:
            for statement in step.statements:
                connection.execute(statement)
            connection.execute(
                "INSERT INTO migrations VALUES (?, ?, now())", [step.number, step.name]
            )
        connection.execute("COMMIT")

    def _keep_copy(self, raw: BinaryIO, before: int) -> None:
        """Copy the file beside itself, as it is before step `before`."""
        copy = self._file.with_name(f"{self._file.stem}.before-{before}{self._file.suffix}")
        aside = copy.with_name(f".{copy.name}.new")
        with aside.open("wb") as target:
            shutil.copyfileobj(raw, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
        aside.replace(copy)
        durable.sync_folder(copy.parent)

    def _version(self, connection: duckdb.DuckDBPyConnection) -> int:
        """The last step that the file has had; 0 for an empty file."""
        tables = {name for (name,) in connection.execute(_TABLES).fetchall()}
        if "migrations" not in tables:
            if tables:
                raise HistoryDamaged(
                    f"{self._file} holds other tables and no history: move it away, "
                    f"or set another home"
                )
            return 0
        found = connection.execute("SELECT max(number) FROM migrations").fetchone()
        version = int(found[0]) if found and found[0] is not None else 0
        if version > self._latest:
            raise HistoryTooNew(
                f"{self._file} is of version {version} and this thermodrift knows up to "
                f"{self._latest}: use the newer thermodrift, or set another home"
            )
        return version

    def _renew_predictions(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make the stored view fit the files, for those who open the history by themselves."""
        query = self._predictions_query(connection)
        if query == _stored_query(connection):
            return
        connection.execute("BEGIN")
        connection.execute(f"CREATE OR REPLACE VIEW predictions AS {query}")
        connection.execute(f"COMMENT ON VIEW predictions IS {migrations.quoted(query)}")
        connection.execute("COMMIT")

    def _predictions_query(self, connection: duckdb.DuckDBPyConnection) -> str:
        folders = sorted(self._places.pipelines.glob("*/predictions"))
        samples = [path for folder in folders if (path := _any_parquet(folder))]
        pattern = f"{glob.escape(str(self._places.pipelines))}/*/predictions/*.parquet"
        kinds = [kind for path in samples for kind in _label_kinds(connection, path)]
        return migrations.predictions_query(pattern if samples else None, migrations.widest(kinds))

    @contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The file, open to read and up to date. Call it under the lock."""
        if self._spool.waiting() or not self._file.exists():
            self._fold()
        with ExitStack() as stack:
            connection = stack.enter_context(self._connected(self._file, "READ_ONLY"))
            if self._version(connection) < self._latest:
                stack.close()
                self._fold()
                connection = stack.enter_context(self._connected(self._file, "READ_ONLY"))
            query = self._predictions_query(connection)
            if query != _stored_query(connection):
                connection.execute(f"CREATE TEMP VIEW predictions AS {query}")
            yield connection

    @contextmanager
    def _connected(
        self, path: Path, mode: Literal["READ_ONLY", "READ_WRITE"]
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that is closed on every way out; DuckDB's errors become our own."""
        try:
            connection = duckdb.connect(str(path), config={**_CONFIG, "access_mode": mode})
            try:
                connection.execute("SET TimeZone = 'UTC'")
                yield connection
            finally:
                connection.close()
        except duckdb.Error as cause:
            raise self._named(cause) from cause

    def _named(self, error: duckdb.Error) -> ThermodriftError:
        """Our error for one of DuckDB's."""
        text = _short(error)
        if "Could not set lock" in text:
            found = re.search(r"lock is held in (.*?) ?\(PID (\d+)\)", text)
            return HistoryBusy(
                self._held_by(found[2], found[1]) if found else self._held_by("", "")
            )
        if "different configuration than existing" in text:
            return HistoryBusy(self._held_by(str(os.getpid()), "this very process"))
        if _DISK_REFUSES.search(text):
            return HistoryUnwritable(
                f"the disk refused {self._file}: {text}; make space or give permission, then run "
                f"again: what was committed is safe"
            )
        return HistoryDamaged(
            f"{self._file} cannot be used: {text}; move it aside or bring a copy back: "
            f"the rows in {self._spool.folder} are whole and will be folded in"
        )

    def _held_by(self, pid: str, program: str) -> str:
        who = f"process {pid}" if pid else "another process"
        what = f" ({program})" if program else ""
        waiting = _counted(len(self._spool.waiting()), "spooled commit")
        return (
            f"{self._file} is open in {who}{what}: close it there, then try again; "
            f"nothing is lost, {waiting} in {self._spool.folder}"
        )

    def _fence(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Leave a question nothing to reach but the history and the pipelines' files.

        Without external access it does not see the variables of the program that asks, either.
        """
        pipelines = str(self._places.pipelines)
        allowed = ", ".join(
            migrations.quoted(f"{folder}/")
            for folder in dict.fromkeys([pipelines, glob.escape(pipelines)])
        )
        connection.execute(f"SET allowed_directories = [{allowed}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")

    def _answer(
        self, connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object]
    ) -> pa.Table:
        try:
            _check_is_question(connection, sql)
            return connection.execute(sql, list(parameters)).to_arrow_table()
        except duckdb.Error as cause:
            if "Corrupt database file" in str(cause) or isinstance(
                cause, (duckdb.FatalException, duckdb.InternalException)
            ):
                raise
            raise BadQuestion(_short(cause)) from cause

    def _export_view(
        self,
        connection: duckdb.DuckDBPyConnection,
        view: str,
        folder: Path,
        format: ExportFormat,  # noqa: A002 - as in export
    ) -> Path:
        path = folder / f"{view}.{format}"
        aside = folder / f".{path.name}.aside"
        options = "FORMAT parquet" if format == "parquet" else "FORMAT csv, HEADER"
        connection.execute(
            f"COPY (SELECT * FROM {view}) TO {migrations.quoted(str(aside))} ({options})"
        )
        aside.replace(path)
        return path


class _Tally:
    """What a fold has done so far."""

    def __init__(self) -> None:
        self.files = 0
        self.rows = 0
        self.paths: list[Path] = []
        self.torn: list[str] = []
        self.troubles: list[str] = []

    def folded(self, left: int) -> Folded:
        done = f"folded {_counted(self.files, 'commit')} of {_counted(self.rows, 'row')}"
        because = "; ".join([done, *self.troubles])
        return Folded(self.files, self.rows, left, because, tuple(self.torn))


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


_TABLES = "SELECT table_name FROM duckdb_tables() WHERE NOT internal AND NOT temporary"


def _known(connection: duckdb.DuckDBPyConnection, names: list[str]) -> set[str]:
    """Those of `names` that are folded already."""
    found = connection.execute(
        "SELECT name FROM folded WHERE name IN (SELECT unnest(?::VARCHAR[]))", [names]
    )
    return {name for (name,) in found.fetchall()}


def _remember(connection: duckdb.DuckDBPyConnection, names: list[str]) -> None:
    connection.execute("INSERT INTO folded SELECT unnest(?::VARCHAR[]), now()", [names])


def _append(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Mapping[str, Cell]]
) -> None:
    """Insert `rows` in bulk; a column that none of them has is NULL."""
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    incoming = pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
    connection.register("incoming", incoming)
    connection.execute(f'INSERT INTO "{table}" BY NAME SELECT * FROM incoming')
    connection.unregister("incoming")


def _stored_query(connection: duckdb.DuckDBPyConnection) -> str | None:
    """The query that the stored view `predictions` was made from: it is the view's comment."""
    found = connection.execute(
        "SELECT comment FROM duckdb_views() WHERE view_name = 'predictions' AND NOT temporary"
    ).fetchone()
    return found[0] if found else None


def _any_parquet(folder: Path) -> Path | None:
    """One Parquet file of `folder`, without listing thousands."""
    try:
        with os.scandir(folder) as entries:
            return next((Path(e.path) for e in entries if e.name.endswith(".parquet")), None)
    except OSError:  # a pipeline that is being removed
        return None


def _label_kinds(connection: duckdb.DuckDBPyConnection, path: Path) -> list[str]:
    """DuckDB's types of the labels and predictions in one file; text for one it cannot read."""
    try:
        described = connection.execute(
            "DESCRIBE SELECT * FROM read_parquet(?)", [glob.escape(str(path))]
        ).fetchall()
    except duckdb.Error:  # a question of the predictions will say so; others need not suffer
        return ["VARCHAR"]
    return [row[1] for row in described if row[0] in migrations.LABEL_COLUMNS]


def _shape(connection: duckdb.DuckDBPyConnection, view: str) -> ViewShape:
    columns = connection.execute(f"DESCRIBE {view}").fetchall()
    counted = connection.execute(f"SELECT count(*) FROM {view}").fetchone()
    return ViewShape(
        name=view,
        columns={column[0]: column[1] for column in columns},
        rows=int(counted[0]) if counted else 0,
    )


def _check_is_question(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raise BadQuestion unless `sql` is one statement that only reads."""
    # PIVOT is parsed into a helper without a text of its own and the question.
    statements = [each for each in connection.extract_statements(sql) if each.query.strip()]
    asked = statements or connection.extract_statements(sql)[-1:]
    if len(asked) != 1:
        raise BadQuestion(f"ask one question at a time; came: {len(asked)} statements")
    if asked[0].type not in _ASKING:
        raise BadQuestion(
            f"the history is only ever appended to, by thermodrift: ask with SELECT; "
            f"came: {asked[0].type.name}"
        )


def _short(error: duckdb.Error) -> str:
    """DuckDB's text on one line, without its drawing of the place."""
    text = str(error).split("\n\nLINE ")[0].split(". See also https")[0]
    return " ".join(text.split())[:500]


def _pid_in(lock: Path) -> str:
    """The process that wrote its id into the lock's file, or nothing."""
    try:
        return lock.read_text().strip()
    except OSError:
        return ""
