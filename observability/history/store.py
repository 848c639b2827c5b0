"""The history of a home: commit rows, flush them into the backend, ask questions in SQL.

    commit ─▶ HOME/history.outbox/NAME.json ─▶ flush ─▶ HOME/history.duckdb ─▶ ask, export

A commit is first durable as a small file of its own, because only one process at a time can have a
DuckDB file open, and an analyst's session must neither stop a pipeline nor lose its rows. The next
process that gets the DuckDB file flushes all waiting commits, each one once. No connection stays
open between calls. Nothing here decides anything.

From a notebook::

    from observability.history import store as history

    history.open(".thermodrift").scores(pipeline="elec2").to_pandas()
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from observability.core import atomic_file, failpoints
from observability.core.errors import BadConfiguration, ThermodriftError, TryAgainLater
from observability.core.paths import Places
from observability.history import home_config, loss, notebook, retention, schema
from observability.history.backends.duckdb_connection import Duck
from observability.history.backends.duckdb_file import DuckDbFile
from observability.history.backends.ducklake import DuckLake
from observability.history.errors import (
    BadQuestion,
    HistoryBusy,
    HistoryDamaged,
    HistoryForked,
    HistorySchemaMismatch,
    HistoryUnreachable,
    HistoryUnwritable,
)
from observability.history.outbox import (
    Logged,
    Outbox,
    OutboxCommit,
    OutboxCorrupt,
    OutboxSchemaMismatch,
)
from observability.history.records import DecisionRecord, Record
from observability.metrics import definitions, samples

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Asking",
    "BadQuestion",
    "ExportFormat",
    "FlushResult",
    "History",
    "HistoryBusy",
    "HistoryDamaged",
    "HistoryForked",
    "HistorySchemaMismatch",
    "HistoryUnreachable",
    "HistoryUnwritable",
    "Logged",
    "ViewShape",
    "open",
]

ExportFormat = Literal["parquet", "csv"]

_FILES_AT_ONCE = 1000
"""Outbox files in one transaction, which bounds the memory after a long wait."""


Asking = Callable[..., "pa.Table"]
"""Answers one question: SQL, and its parameters if it has any."""


@dataclass(frozen=True)
class FlushResult:
    """The result of a flush."""

    files: int
    """Commits that it added to the history."""
    rows: int
    """Rows of these commits."""
    left: int
    """Commits that still wait in the outbox."""
    because: str
    """One sentence: what it did, or why it did nothing."""
    corrupt: tuple[str, ...] = ()
    """New names of outbox files that could not be read."""
    loss: str = ""
    """What the history had lost when it was opened, and how much was recovered; empty: nothing."""
    trouble: str = ""
    """Why not all commits were flushed; empty: all were, except those that came meanwhile."""


@dataclass(frozen=True)
class ViewShape:
    """The columns and rows of a public view."""

    name: str
    columns: Mapping[str, str]
    """DuckDB's type by the column's name, in order."""
    rows: int


def open(home: Path | str = Path(".thermodrift")) -> History:  # noqa: A001 - the user's word
    """Return the history under `home`, for notebooks; it opens and locks nothing between calls.

    In a notebook Arrow tables show themselves as tables from then on.

    Raises BadConfiguration where `home` is no folder: a typing error must not create a new home.
    """
    place = Path(home)
    if not place.is_dir():
        raise BadConfiguration(f"there is no home at {place.absolute()}; name one with a history")
    notebook.show_tables()
    return History(place)


class History:
    """The history under one home. A handle belongs to the process that made it, in any thread.

    Args:
        home: folder of the installation; it need not exist yet.
        timeout_s: seconds to wait while another process of thermodrift flushes or asks. There is
            no wait for an analyst's own DuckDB session.
        now_ns: clock that orders commits, in nanoseconds since 1970.

    Raises BadConfiguration for a home where DuckDB cannot work, or whose own file is wrong, and
    HistorySchemaMismatch for a home of another thermodrift.
    """

    def __init__(
        self,
        home: Path,
        timeout_s: float = 10.0,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._places = Places(home.absolute())
        _check_path(self._places.home)
        settings = home_config.read(self._places)
        self.upkeep = settings.upkeep
        self.rates = settings.energy
        self._timeout_s = timeout_s
        self._now_ns = now_ns
        self._outbox = Outbox(self._places.outbox, schema.SCHEMA_VERSION)
        self._backend = (
            DuckDbFile(self._places, self._outbox.describe)
            if settings.history.url is None
            else DuckLake(self._places, settings.history, self._outbox.describe)
        )
        self._pid = os.getpid()

    @property
    def where(self) -> str:
        """The place of the rows: the file's path, or the lake's address without a password."""
        return self._backend.where

    def commit(self, records: Sequence[Record], name: str, logged: Logged | None = None) -> None:
        """Store `records`, durable on return, even while another process has the file open.

        `name` is an idempotency key, 1 to 200 of a-z, 0-9, ``.``, ``_`` and ``-``: a commit that
        is repeated under its name, before or after a flush, counts once. Two writers must not use
        the same name. `logged` names the predictions of the commit, for a history that is not on
        the same disk as the prediction log. Without either, nothing is written.

        Raises HistoryUnwritable where the disk refuses, ValueError for a bad name.
        """
        self._check_process()
        if not records and logged is None:
            return
        try:
            failpoints.point("history.before_outbox")
            self._outbox.write(records, name, self._now_ns(), logged)
        except OSError as cause:
            raise HistoryUnwritable(
                f"the rows of {name} could not be stored in {self._outbox.folder}: {cause}; "
                f"{atomic_file.remedy(cause)}, then run again: nothing committed is lost"
            ) from cause

    def flush(self) -> FlushResult:
        """Move the outbox's commits into DuckDB, each one once, without waiting for the file.

        Where another process has the file open, all commits stay in the outbox, and the result
        names that process. Raises HistoryDamaged, HistorySchemaMismatch, HistoryUnwritable; the
        outbox is whole after each of them.
        """
        self._check_process()
        if not self._outbox.waiting():
            return FlushResult(files=0, rows=0, left=0, because="the outbox was empty")
        try:
            with self._backend.locked(wait_s=0):
                return self._flush()
        except TryAgainLater as later:
            left, why = len(self._outbox.waiting()), str(later)
            return FlushResult(files=0, rows=0, left=left, because=why, trouble=why)

    def ask(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Answer one question in SQL, over all committed rows.

        The file is opened read-only. The question can read no files but the pipelines', and cannot
        reach the network. Times are in UTC.

        Raises BadQuestion for SQL that cannot be answered or is not a question, HistoryBusy
        while another process has the file open, HistoryDamaged, HistorySchemaMismatch.
        """
        with self.asking() as ask:
            return ask(sql, parameters)

    @contextmanager
    def asking(self) -> Iterator[Asking]:
        """Yield what answers questions as `ask` does, all from one moment, opening the file once.

        Inside the block no other process can use the history, and commits wait in the outbox: ask
        what is needed, and leave. Raises as `ask` does.
        """
        with self._reading() as duck:
            self._backend.restrict(duck)
            yield duck.answer

    def runs(self, pipeline: str | None = None) -> pa.Table:
        """Return the view `runs`, of one pipeline or of all, by start."""
        return self._table("runs", pipeline, "started_at")

    def decisions(self, pipeline: str | None = None) -> pa.Table:
        """Return the view `decisions`, by time."""
        return self._table("decisions", pipeline, "decided_at")

    def models(self, pipeline: str | None = None) -> pa.Table:
        """Return the view `models`, in the order in which they were stored."""
        return self._table("models", pipeline, "stored_at")

    def scores(self, pipeline: str | None = None) -> pa.Table:
        """Return the view `scores`, by position."""
        return self._table("scores", pipeline, "position_from, position_to, member")

    def predictions(
        self, pipeline: str | None = None, first: int = 0, last: int | None = None
    ) -> pa.Table:
        """Return the view `predictions` from `first` to `last` (exclusive), by position."""
        return self._table(
            "predictions",
            pipeline,
            "position",
            ' AND "position" >= ? AND (?::BIGINT IS NULL OR "position" < ?)',
            [first, last, last],
        )

    def _table(
        self,
        view: str,
        pipeline: str | None,
        order: str,
        condition: str = "",
        parameters: Sequence[object] = (),
    ) -> pa.Table:
        return self.ask(
            f"SELECT * FROM {view} WHERE (?::VARCHAR IS NULL OR pipeline = ?){condition} "
            f"ORDER BY pipeline, {order}",
            [pipeline, pipeline, *parameters],
        )

    def export(self, folder: Path, format: ExportFormat = "parquet") -> list[Path]:  # noqa: A002 - the user's word
        """Write every public view into a file in `folder`, all from the same moment.

        Returns the files' paths. Raises as `ask` does, and HistoryUnwritable.
        """
        if format not in ("parquet", "csv"):
            raise BadQuestion(f"history is exported as parquet or csv; came: {format!r}")
        options = "FORMAT parquet" if format == "parquet" else "FORMAT csv, HEADER"
        paths = [folder.absolute() / f"{view}.{format}" for view in schema.PUBLIC_VIEWS]
        with self._reading() as duck, self._disk():
            folder.mkdir(parents=True, exist_ok=True)
            for path in paths:
                temporary = path.with_name(f".{path.name}.tmp")
                target = schema.quoted(str(temporary))
                duck.execute(f"COPY (SELECT * FROM {path.stem}) TO {target} ({options})")
                temporary.replace(path)
        return paths

    def views(self) -> list[ViewShape]:
        """Return the columns and row counts of the public views. Raises as `ask` does."""
        with self._reading() as duck:
            return [
                ViewShape(
                    name=view,
                    columns={column[0]: column[1] for column in duck.execute(f"DESCRIBE {view}")},
                    rows=int(duck.one(f"SELECT count(*) FROM {view}")),
                )
                for view in schema.PUBLIC_VIEWS
            ]

    def _repr_html_(self) -> str:
        """The public views as a table, for notebooks."""
        try:
            rows = [(each.name, each.rows, ", ".join(each.columns)) for each in self.views()]
        except TryAgainLater as later:
            return notebook.table_html(["the history cannot be read now"], [[later]], self.where)
        return notebook.table_html(
            ["view", "rows", "columns"], rows, f"The history in {self.where}"
        )

    def remove_expired(self, config: retention.RetentionConfig, now: datetime) -> dict[str, int]:
        """Remove what `config` does not keep at `now`; return the removed rows by table.

        Flushes first. Raises as `ask` does, and HistoryUnwritable.
        """
        with self.exclusive():
            self._flush()
            with self._disk(), self._backend.writing() as (duck, _), duck.transaction():
                removed = {
                    each.table: int(duck.one(each.sql, [each.before]) or 0)
                    for each in retention.removals(config, now)
                }
                removed["prediction_rows"] = self._backend.vacuum_flushed(duck, config)
                failpoints.point("upkeep.inside_removal")
        return {table: rows for table, rows in removed.items() if rows}

    def vacuum(self) -> str:
        """Free space in the backend; return a sentence about what was done, or an empty text.

        Raises as `remove_expired` does.
        """
        with self.exclusive(), self._disk(), self._backend.writing() as (duck, _):
            return self._backend.vacuum(duck)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Exclude other questions and flushes of thermodrift, while files that they read change.

        Raises HistoryBusy where another process has the history for longer than `timeout_s`.
        """
        self._check_process()
        with self._backend.locked(self._timeout_s):
            yield

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise HistoryForked(
                f"this History was made in process {self._pid} and is used in {os.getpid()}: "
                "a handle does not survive a fork; make a new History in this process"
            )

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Raise HistoryUnwritable, which says what is safe, for errors of the disk."""
        try:
            yield
        except ThermodriftError:
            raise
        except OSError as cause:
            raise HistoryUnwritable(
                f"the disk refused the history in {self._places.home}: {cause}; "
                f"{atomic_file.remedy(cause)}, then run again: committed rows are safe in "
                f"{self._outbox.folder} or in the history"
            ) from cause

    @contextmanager
    def _reading(self) -> Iterator[Duck]:
        """Open the history to read, with all committed rows in it."""
        with self.exclusive():
            for must_flush in (bool(self._outbox.waiting()), True):
                if must_flush:
                    self._flush()
                with self._backend.reading() as duck:
                    if duck is not None:
                        yield duck
                        return
            raise HistoryDamaged(
                f"the history in {self._places.home} cannot be brought up to date; "
                f"bring a copy back: the rows in {self._outbox.folder} are whole"
            )

    def _flush(self) -> FlushResult:
        """Flush all that waits; create the schema if it is missing. The caller holds the lock."""
        with self._disk():
            failpoints.point("history.before_flush")
            self._outbox.sweep()
            with self._backend.writing() as (duck, lost):
                done = _Tally()
                if lost is not None:
                    self._recover_lost_commits(duck, lost, done)
                paths = self._outbox.waiting()
                for start in range(0, len(paths), _FILES_AT_ONCE):
                    commits = self._read_outbox(paths[start : start + _FILES_AT_ONCE], done)
                    fresh = _fresh(duck, commits)
                    if fresh:
                        with duck.transaction():
                            _insert(duck, fresh)
                            for logged in filter(None, (commit.logged for commit in fresh)):
                                if missing := self._backend.ingest_predictions(duck, logged):
                                    done.troubles.append(missing)
                            self._backend.finish(duck, len(fresh))
                            failpoints.point("history.inside_flush")
                    self._archive_flushed(duck, commits)
                    done.add(fresh)
                counts = self._backend.row_counts(duck)
            self._leave_figures(counts)
            self._outbox.prune()
            return done.result(left=len(self._outbox.waiting()))

    def _leave_figures(self, counts: Mapping[str, int]) -> None:
        """Leave the figures of the history in the home, for whoever shows them."""
        now_s = time.time()
        found = [
            *samples.sample(definitions.FLUSHED_AT, now_s),
            *(
                each
                for row in counts.items()
                for each in samples.sample(definitions.ROWS, row[1], row[0])
            ),
        ]
        # A disk that refuses figures must not fail a flush that is done.
        with suppress(OSError):
            samples.write(self._places.metrics / "history.json", found, now_s)

    def _archive_flushed(self, duck: Duck, commits: Sequence[OutboxCommit]) -> None:
        """Make flushed commits durable, and only then move their files out of the outbox."""
        self._backend.discard_flushed(duck, [commit.name for commit in commits])
        failpoints.point("history.after_flush")
        self._outbox.archive([commit.path for commit in commits])

    def _read_outbox(self, paths: list[Path], done: _Tally) -> list[OutboxCommit]:
        """Read commits, and return those that can be read in the order in which they were made."""
        commits = []
        for path in paths:
            try:
                commits.append(self._outbox.read(path))
            except OutboxCorrupt as error:
                done.corrupt.append(self._outbox.quarantine(path).name)
                done.troubles.append(f"{error} (renamed to {done.corrupt[-1]})")
            except (OutboxSchemaMismatch, OSError) as trouble:
                done.troubles.append(f"{trouble} (left)")
        return sorted(commits, key=lambda commit: (commit.committed_at_ns, commit.name))

    def _recover_lost_commits(self, duck: Duck, lost: loss.Loss, done: _Tally) -> None:
        """Flush lost commits again that the outbox has, and record the loss, in one transaction.

        Of the waiting commits only those that were flushed last belong to the loss; others are new.
        """
        waiting = [path for path in self._outbox.waiting() if path.stem in lost.latest]
        # A resumed run may have repeated a commit whose flushed file is kept as well.
        again = self._read_outbox([*self._outbox.flushed(), *waiting], done)
        fresh = _fresh(duck, list({each.name: each for each in again}.values()))
        decision = loss.judge(lost, recovered=len(fresh))
        done.loss = decision.because
        now_ns = self._now_ns()
        row = DecisionRecord.of(
            decision,
            decided_at=datetime.fromtimestamp(now_ns / 1e9, UTC),
            pipeline="",
            run_id="",
            position=0,
        )
        path = self._outbox.write([row], f"history.loss.{lost.number}", now_ns)
        fresh.append(self._outbox.read(path))
        with duck.transaction():
            _insert(duck, fresh)
            self._backend.recover(duck)
            failpoints.point("history.inside_flush")
        self._archive_flushed(duck, fresh)
        done.add(fresh)


def _check_path(home: Path) -> None:
    """Raise BadConfiguration where DuckDB would not find the files under `home`."""
    path = str(home)
    if "?" in path:
        wrong = "a question mark"  # DuckDB parses the rest as options and misplaces its log
    elif "\\" in path:
        wrong = "a backslash"  # it is an escape in file patterns, so they match no predictions
    elif os.fsencode(path) != path.encode(errors="replace"):
        wrong = "a letter that is no UTF-8"
    else:
        return
    raise BadConfiguration(
        f"the home must not have {wrong} in its path, because DuckDB cannot work there; "
        f"came: {path!r}; set another home"
    )


class _Tally:
    """What a flush has done so far."""

    def __init__(self) -> None:
        self.files = 0
        self.rows = 0
        self.loss = ""
        self.corrupt: list[str] = []
        self.troubles: list[str] = []

    def add(self, commits: Sequence[OutboxCommit]) -> None:
        self.files += len(commits)
        self.rows += sum(commit.count for commit in commits)

    def result(self, left: int) -> FlushResult:
        done = f"flushed {_counted(self.files, 'commit')} of {_counted(self.rows, 'row')}"
        because = "; ".join([done, *filter(None, [self.loss]), *self.troubles])
        return FlushResult(
            files=self.files,
            rows=self.rows,
            left=left,
            because=because,
            corrupt=tuple(self.corrupt),
            loss=self.loss,
            trouble="; ".join(self.troubles),
        )


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _fresh(duck: Duck, commits: Sequence[OutboxCommit]) -> list[OutboxCommit]:
    """Return those of `commits` that are not flushed yet."""
    found = duck.execute(
        "SELECT name FROM flushed_commits WHERE name IN (SELECT unnest(?::VARCHAR[]))",
        [[commit.name for commit in commits]],
    )
    known = {name for (name,) in found}
    return [commit for commit in commits if commit.name not in known]


def _insert(duck: Duck, commits: Sequence[OutboxCommit]) -> None:
    """Insert the rows of `commits`, and their names, which identify a repeated commit."""
    for table in dict.fromkeys(table for commit in commits for table in commit.tables):
        duck.append(table, [row for each in commits for row in each.tables.get(table, ())])
    names = [commit.name for commit in commits]
    duck.execute("INSERT INTO flushed_commits SELECT unnest(?::VARCHAR[]), now()", [names])
