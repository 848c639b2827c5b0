"""Door to the history of a home: commit rows, flush them into the backend, ask questions.

    commit ─▶ HOME/history.outbox/NAME.json ─▶ flush ─▶ HOME/history.duckdb ─▶ ask, export

A commit is durable as a small file of its own before it is in DuckDB, because only one process at
a time may have a DuckDB file open: an analyst's session must neither stop a pipeline nor lose its
rows. Whichever process next gets the file flushes what waits, each commit once. No connection is
kept open between calls. Nothing here decides anything.

From a notebook::

    from observability.history import store as history

    history.open(".thermodrift").scores(pipeline="elec2").to_pandas()
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from observability.core import atomic_file, failpoints
from observability.core.errors import BadConfiguration, ThermodriftError, TryAgainLater
from observability.core.paths import Places
from observability.history import home_config, retention, schema
from observability.history import loss as history_loss
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
from observability.history.loss import Loss
from observability.history.outbox import (
    Logged,
    Outbox,
    OutboxCommit,
    OutboxCorrupt,
    SpoolOfOtherSchema,
)
from observability.history.records import DecisionRecord, Record

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
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
"""Outbox files in one transaction: bounds the memory after a long wait."""


@dataclass(frozen=True)
class FlushResult:
    """What a flush did."""

    files: int
    """Commits that are in the history now and were not before."""
    rows: int
    """Rows of these commits."""
    left: int
    """Commits that still wait in the outbox."""
    because: str
    """One sentence: what was done, or why not."""
    torn: tuple[str, ...] = ()
    """Outbox files that cannot be read and were renamed to these names."""
    loss: str = ""
    """What the history had lost when it was opened, and how much of that was brought back."""
    trouble: str = ""
    """Why not all was flushed; commits that came meanwhile do not count."""


@dataclass(frozen=True)
class ViewShape:
    """A public view as it is now."""

    name: str
    columns: Mapping[str, str]
    """DuckDB's type by the column's name, in order."""
    rows: int


def open(home: Path | str = Path(".thermodrift")) -> History:  # noqa: A001 - as a user says it
    """The history under `home`, for notebooks: nothing is opened or locked between questions.

    Raises BadConfiguration where `home` is no folder: a typing error must not make a new home.
    """
    place = Path(home)
    if not place.is_dir():
        raise BadConfiguration(f"there is no home at {place.absolute()}; name one with a history")
    return History(place)


class History:
    """The history under one home. Use a handle in the process that made it, from any thread.

    Args:
        home: folder of the installation; it need not exist yet.
        patience_s: seconds that `ask` and `export` wait for another thermodrift that is flushing
            or asking. An analyst's own DuckDB session is never waited for.
        now_ns: clock that orders commits, in nanoseconds since 1970.

    Raises BadConfiguration for a home where DuckDB cannot write, or whose own file is wrong, and
    HistorySchemaMismatch for a home of another thermodrift.
    """

    def __init__(
        self,
        home: Path,
        patience_s: float = 10.0,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._places = Places(home.absolute())
        _check_path(self._places.home)
        settings = home_config.read(self._places)
        self.upkeep = settings.upkeep
        self.rates = settings.energy
        self._patience_s = patience_s
        self._now_ns = now_ns
        self._spool = Outbox(self._places.outbox, schema.SCHEMA_VERSION)
        self._ledger = (
            DuckDbFile(self._places, self._spool.describe)
            if settings.history.url is None
            else DuckLake(self._places, settings.history, self._spool.describe)
        )
        self._pid = os.getpid()

    @property
    def where(self) -> str:
        """Where the rows are: the file's path, or the lake's address without a password."""
        return self._ledger.where

    def commit(self, records: Sequence[Record], name: str, logged: Logged | None = None) -> None:
        """Keep `records`: durable when this returns, whoever has the DuckDB file open.

        `name` is an idempotency key, 1 to 200 of a-z, 0-9, ``.``, ``_`` and ``-``: a commit that
        is repeated under its name, before or after a flush, counts once. Two writers must not share
        one. `logged` names the predictions that belong to it, for a history that does not lie
        beside their log. Nothing is written for nothing.

        Raises HistoryUnwritable where the disk refuses, ValueError for a bad name.
        """
        self._stay_home()
        if not records and logged is None:
            return
        try:
            failpoints.point("history.before_outbox")
            self._spool.write(records, name, self._now_ns(), logged)
        except OSError as cause:
            raise HistoryUnwritable(
                f"the rows of {name} could not be kept in {self._spool.folder}: {cause}; "
                f"{atomic_file.remedy(cause)}, then run again: nothing committed is lost"
            ) from cause

    def flush(self) -> FlushResult:
        """Put what waits in the outbox into DuckDB, each commit once, without waiting.

        Where another process has the file, all stays in the outbox and the answer says who.
        Raises HistoryDamaged, HistorySchemaMismatch, HistoryUnwritable; the outbox is whole then
        too.
        """
        self._stay_home()
        if not self._spool.waiting():
            return FlushResult(files=0, rows=0, left=0, because="the outbox was empty")
        try:
            with self._ledger.locked(wait_s=0):
                return self._flush()
        except TryAgainLater as later:
            left, why = len(self._spool.waiting()), str(later)
            return FlushResult(files=0, rows=0, left=left, because=why, trouble=why)

    def ask(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """The answer to one question in SQL, over all that was committed.

        The file is opened read-only and the question reaches no other file but the pipelines' and
        no network. Times come in UTC.

        Raises BadQuestion for SQL that cannot be answered or that is no question, HistoryBusy
        while another process has the file open, HistoryDamaged, HistorySchemaMismatch.
        """
        with self._reading() as duck:
            self._ledger.fence(duck)
            return duck.answer(sql, parameters)

    def runs(self, pipeline: str | None = None) -> pa.Table:
        """The view `runs`, of one pipeline or of all, in the order of their starts."""
        return self._table("runs", pipeline, "started_at")

    def decisions(self, pipeline: str | None = None) -> pa.Table:
        """The view `decisions`, in the order of time."""
        return self._table("decisions", pipeline, "decided_at")

    def models(self, pipeline: str | None = None) -> pa.Table:
        """The view `models`, in the order in which they were stored."""
        return self._table("models", pipeline, "stored_at")

    def scores(self, pipeline: str | None = None) -> pa.Table:
        """The view `scores`, by position."""
        return self._table("scores", pipeline, "position_from, position_to, member")

    def predictions(
        self, pipeline: str | None = None, first: int = 0, last: int | None = None
    ) -> pa.Table:
        """The view `predictions` from position `first` to `last` (exclusive), by position."""
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

    def export(self, folder: Path, format: ExportFormat = "parquet") -> list[Path]:  # noqa: A002 - the word that users know
        """Write every public view into `folder`, one file each, all of the same moment.

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
        """The public views: their columns and how many rows they have. Raises as `ask` does."""
        with self._reading() as duck:
            return [
                ViewShape(
                    name=view,
                    columns={column[0]: column[1] for column in duck.execute(f"DESCRIBE {view}")},
                    rows=int(duck.one(f"SELECT count(*) FROM {view}")),
                )
                for view in schema.PUBLIC_VIEWS
            ]

    def remove_expired(self, rules: retention.RetentionConfig, now: datetime) -> dict[str, int]:
        """Remove what `rules` no longer keep at `now`; rows removed by their table.

        Flushes first. Raises as `ask` does, and HistoryUnwritable.
        """
        with self.exclusive():
            self._flush()
            with self._disk(), self._ledger.writing() as (duck, _), duck.transaction():
                removed = {
                    each.table: int(duck.one(each.sql, [each.before]) or 0)
                    for each in retention.removals(rules, now)
                }
                removed["prediction_rows"] = self._ledger.vacuum_flushed(duck, rules)
                failpoints.point("upkeep.inside_removal")
        return {table: rows for table, rows in removed.items() if rows}

    def vacuum(self) -> str:
        """Free space in the backend; a sentence about what was done, empty where nothing was.

        Raises as `forget` does.
        """
        with self.exclusive(), self._disk(), self._ledger.writing() as (duck, _):
            return self._ledger.vacuum(duck)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Exclude thermodrift's questions and flushes while files that they read are replaced.

        Raises HistoryBusy where another process has the history for longer than `patience_s`.
        """
        self._stay_home()
        with self._ledger.locked(self._patience_s):
            yield

    def _stay_home(self) -> None:
        if os.getpid() != self._pid:
            raise HistoryForked(
                f"this History was made in process {self._pid} and is used in {os.getpid()}: "
                f"a handle does not survive a fork; make a new History in this process"
            )

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Turn a refusal of the disk into an error that says what is safe."""
        try:
            yield
        except ThermodriftError:
            raise
        except OSError as cause:
            raise HistoryUnwritable(
                f"the disk refused while the history in {self._places.home} was at work: {cause}; "
                f"{atomic_file.remedy(cause)}, then run again: what was committed is safe in "
                f"{self._spool.folder} or in the history"
            ) from cause

    @contextmanager
    def _reading(self) -> Iterator[Duck]:
        """The history, open to read, with all that was committed in it."""
        with self.exclusive():
            for must_flush in (bool(self._spool.waiting()), True):
                if must_flush:
                    self._flush()
                with self._ledger.reading() as duck:
                    if duck is not None:
                        yield duck
                        return
            raise HistoryDamaged(
                f"the history in {self._places.home} cannot be brought up to date; "
                f"bring a copy back: the rows in {self._spool.folder} are whole"
            )

    def _flush(self) -> FlushResult:
        """Flush all that waits, and create the schema if need be. Call it under the lock."""
        with self._disk():
            failpoints.point("history.before_flush")
            self._spool.sweep()
            with self._ledger.writing() as (duck, loss):
                done = _Tally()
                if loss is not None:
                    self._recover_lost_commits(duck, loss, done)
                paths = self._spool.waiting()
                for start in range(0, len(paths), _FILES_AT_ONCE):
                    commits = self._read_outbox(paths[start : start + _FILES_AT_ONCE], done)
                    fresh = _fresh(duck, commits)
                    if fresh:
                        with duck.transaction():
                            _insert(duck, fresh)
                            for logged in filter(None, (commit.logged for commit in fresh)):
                                if missing := self._ledger.ingest_predictions(duck, logged):
                                    done.troubles.append(missing)
                            self._ledger.finish(duck, len(fresh))
                            failpoints.point("history.inside_flush")
                    self._archive_flushed(duck, commits)
                    done.took(fresh)
            self._spool.prune()
            return done.folded(left=len(self._spool.waiting()))

    def _archive_flushed(self, duck: Duck, commits: Sequence[OutboxCommit]) -> None:
        """Make what was flushed durable, and only then take its files out of the outbox."""
        self._ledger.discard_flushed(duck, [commit.name for commit in commits])
        failpoints.point("history.after_flush")
        self._spool.archive([commit.path for commit in commits])

    def _read_outbox(self, paths: list[Path], done: _Tally) -> list[OutboxCommit]:
        """The commits that can be read, in the order in which they were made."""
        commits = []
        for path in paths:
            try:
                commits.append(self._spool.read(path))
            except OutboxCorrupt as torn:
                done.torn.append(self._spool.quarantine(path).name)
                done.troubles.append(f"{torn} (renamed to {done.torn[-1]})")
            except (SpoolOfOtherSchema, OSError) as trouble:
                done.troubles.append(f"{trouble} (left)")
        return sorted(commits, key=lambda commit: (commit.committed_at_ns, commit.name))

    def _recover_lost_commits(self, duck: Duck, loss: Loss, done: _Tally) -> None:
        """Flush again what the outbox still has of a loss, and record it, in one transaction.

        The commits that were flushed last may still wait: they belong to the loss, all others are
        new.
        """
        waiting = [path for path in self._spool.waiting() if path.stem in loss.latest]
        # A resumed run may have repeated a commit that is kept as well.
        again = self._read_outbox([*self._spool.flushed(), *waiting], done)
        fresh = _fresh(duck, list({each.name: each for each in again}.values()))
        decision = history_loss.judge(loss, recovered=len(fresh))
        done.loss = decision.because
        now_ns = self._now_ns()
        row = DecisionRecord.of(
            decision,
            decided_at=datetime.fromtimestamp(now_ns / 1e9, UTC),
            pipeline="",
            run_id="",
            position=0,
        )
        path = self._spool.write([row], f"history.loss.{loss.number}", now_ns)
        fresh.append(self._spool.read(path))
        with duck.transaction():
            _insert(duck, fresh)
            self._ledger.recover(duck)
            failpoints.point("history.inside_flush")
        self._archive_flushed(duck, fresh)
        done.took(fresh)


def _check_path(home: Path) -> None:
    """Raise BadConfiguration where DuckDB would not find the files under `home`."""
    path = str(home)
    if "?" in path:
        wrong = "a question mark"  # DuckDB takes what follows for options and misplaces its log
    elif "\\" in path:
        wrong = "a backslash"  # it is an escape in patterns of files: they find no predictions
    elif os.fsencode(path) != path.encode(errors="replace"):
        wrong = "a letter that is no UTF-8"
    else:
        return
    raise BadConfiguration(
        f"the home must not have {wrong} in its path, DuckDB cannot work there; "
        f"came: {path!r}; set another home"
    )


class _Tally:
    """What a flush has done so far."""

    def __init__(self) -> None:
        self.files = 0
        self.rows = 0
        self.loss = ""
        self.torn: list[str] = []
        self.troubles: list[str] = []

    def took(self, commits: Sequence[OutboxCommit]) -> None:
        self.files += len(commits)
        self.rows += sum(commit.count for commit in commits)

    def folded(self, left: int) -> FlushResult:
        done = f"flushed {_counted(self.files, 'commit')} of {_counted(self.rows, 'row')}"
        because = "; ".join([done, *filter(None, [self.loss]), *self.troubles])
        trouble = "; ".join(self.troubles)
        return FlushResult(
            self.files, self.rows, left, because, tuple(self.torn), self.loss, trouble
        )


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _fresh(duck: Duck, commits: Sequence[OutboxCommit]) -> list[OutboxCommit]:
    """Those of `commits` that are not flushed yet."""
    found = duck.execute(
        "SELECT name FROM flushed_commits WHERE name IN (SELECT unnest(?::VARCHAR[]))",
        [[commit.name for commit in commits]],
    )
    known = {name for (name,) in found}
    return [commit for commit in commits if commit.name not in known]


def _insert(duck: Duck, commits: Sequence[OutboxCommit]) -> None:
    """Insert the rows of `commits`, and their names, by which a repeated commit is known."""
    for table in dict.fromkeys(table for commit in commits for table in commit.tables):
        duck.append(table, [row for each in commits for row in each.tables.get(table, ())])
    names = [commit.name for commit in commits]
    duck.execute("INSERT INTO flushed_commits SELECT unnest(?::VARCHAR[]), now()", [names])
