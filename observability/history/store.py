"""Door to the history: the one spine. Commit rows, fold them in, ask.

    commit ─▶ HOME/history.spool/NAME.json ─▶ fold ─▶ HOME/history.duckdb ─▶ ask, export

A commit is durable as a small file of its own before it is in DuckDB, because only one process at
a time may have a DuckDB file open: an analyst's session must neither stop a pipeline nor lose its
rows. Whoever next gets the file folds in what waits, each commit once. No connection is kept open
between calls. Nothing here decides anything.

From a notebook::

    from observability.history import store as history

    history.open(".thermodrift").scores(pipeline="elec2").to_pandas()
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from observability.core import atomic_file, failpoints
from observability.core.decision import Decision
from observability.core.errors import BadConfiguration, ThermodriftError, TryAgainLater
from observability.core.paths import Places
from observability.history import home_config, retention, schema
from observability.history.backends.duckdb_connection import Duck
from observability.history.backends.duckdb_file import LedgerFile, Loss
from observability.history.backends.ducklake import LedgerLake
from observability.history.errors import (
    BadQuestion,
    HistoryBusy,
    HistoryDamaged,
    HistoryForked,
    HistoryTooNew,
    HistoryUnreachable,
    HistoryUnwritable,
)
from observability.history.home_config import HistoryPlace
from observability.history.outbox import Logged, Spool, Spooled, SpoolTooNew, SpoolTorn
from observability.history.records import DecisionRecord, Record

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "BadQuestion",
    "ExportFormat",
    "Folded",
    "History",
    "HistoryBusy",
    "HistoryDamaged",
    "HistoryForked",
    "HistoryTooNew",
    "HistoryUnreachable",
    "HistoryUnwritable",
    "Logged",
    "ViewShape",
    "open",
]

ExportFormat = Literal["parquet", "csv"]

_FILES_AT_ONCE = 1000
"""Spool files in one transaction: bounds the memory after a long wait."""


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
    loss: str = ""
    """What the history had lost when it was opened, and how much of that was brought back."""
    trouble: str = ""
    """What stood in the way of all being folded; what came meanwhile does not."""


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
        patience_s: seconds that `ask` and `export` wait for another thermodrift that is folding
            or asking. An analyst's own DuckDB session is never waited for.
        now_ns: clock that orders commits, in nanoseconds since 1970.
        steps: the history's shape; tests make older and newer ones.

    Raises BadConfiguration for a home where DuckDB cannot write, or whose own file is wrong.
    """

    def __init__(
        self,
        home: Path,
        patience_s: float = 10.0,
        now_ns: Callable[[], int] = time.time_ns,
        steps: Sequence[schema.Migration] = schema.MIGRATIONS,
    ) -> None:
        self._places = Places(home.absolute())
        _check_path(self._places.home)
        settings = home_config.read(self._places)
        self.upkeep = settings.upkeep
        self.rates = settings.energy
        self._patience_s = patience_s
        self._now_ns = now_ns
        self._spool = Spool(self._places.spool, steps[-1].number)
        self._ledger = _ledger(self._places, settings.history, steps, self._spool)
        self._pid = os.getpid()

    @property
    def where(self) -> str:
        """Where the rows are: the file's path, or the lake's address without a password."""
        return self._ledger.where

    def commit(self, records: Sequence[Record], name: str, logged: Logged | None = None) -> None:
        """Keep `records`: durable when this returns, whoever has the DuckDB file open.

        `name` is an idempotency key, 1 to 200 of a-z, 0-9, ``.``, ``_`` and ``-``: a commit that
        is repeated under its name, before or after a fold, lands once. Two writers must not share
        one. `logged` names the predictions that belong to it, for a history that does not lie
        beside their log. Nothing is written for nothing.

        Raises HistoryUnwritable where the disk refuses, ValueError for a bad name.
        """
        self._stay_home()
        if not records and logged is None:
            return
        try:
            failpoints.point("history.before_spool")
            self._spool.write(records, name, self._now_ns(), logged)
        except OSError as cause:
            raise HistoryUnwritable(
                f"the rows of {name} could not be kept in {self._spool.folder}: {cause}; "
                f"{atomic_file.remedy(cause)}, then run again: nothing committed is lost"
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
            with self._ledger.locked(wait_s=0):
                return self._fold()
        except TryAgainLater as later:
            left, why = len(self._spool.waiting()), str(later)
            return Folded(files=0, rows=0, left=left, because=why, trouble=why)

    def ask(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """The answer to one question in SQL, over all that was committed.

        The file is opened read-only and the question reaches no other file but the pipelines' and
        no network. Times come in UTC.

        Raises BadQuestion for SQL that cannot be answered or that is no question, HistoryBusy
        while another process has the file open, HistoryDamaged, HistoryTooNew.
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
        with self._reading() as duck, self._disk():
            folder.mkdir(parents=True, exist_ok=True)
            return [
                _export_view(duck, view, folder.absolute(), format) for view in schema.PUBLIC_VIEWS
            ]

    def views(self) -> list[ViewShape]:
        """The public views: their columns and how many rows they have. Raises as `ask` does."""
        with self._reading() as duck:
            return [_shape(duck, view) for view in schema.PUBLIC_VIEWS]

    def forget(self, rules: retention.UpkeepRules, now: datetime) -> dict[str, int]:
        """Remove what `rules` no longer keep at `now`; rows removed by their table.

        Folds first. Raises as `ask` does, and HistoryUnwritable.
        """
        self._stay_home()
        with self._ledger.locked(self._patience_s):
            self._fold()
            with self._disk(), self._ledger.writing() as (duck, _), duck.transaction():
                removed = {
                    each.table: int(duck.one(each.sql, [each.before]) or 0)
                    for each in retention.removals(rules, now)
                }
                removed["prediction_rows"] = self._ledger.tidy(duck, rules)
                failpoints.point("upkeep.inside_forget")
        return {table: rows for table, rows in removed.items() if rows}

    def maintain(self) -> str:
        """Tidy up where the rows are; what was done, in a sentence, empty where nothing was.

        Raises as `forget` does.
        """
        self._stay_home()
        with (
            self._ledger.locked(self._patience_s),
            self._disk(),
            self._ledger.writing() as (duck, _),
        ):
            return self._ledger.maintain(duck)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Keep thermodrift's questions and folds away, while files that they read are replaced.

        Raises HistoryBusy where another holds them for longer than this handle's patience.
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
        self._stay_home()
        with self._ledger.locked(self._patience_s), ExitStack() as stack:
            if self._spool.waiting():
                self._fold()
            duck = stack.enter_context(self._ledger.reading())
            if duck is None:
                stack.close()
                self._fold()
                duck = stack.enter_context(self._ledger.reading())
            if duck is None:
                raise HistoryDamaged(
                    f"the history in {self._places.home} cannot be brought up to date; "
                    f"bring a copy back: the rows in {self._spool.folder} are whole"
                )
            yield duck

    def _fold(self) -> Folded:
        """Fold all that waits, and bring the file up to date. Call it under the lock."""
        with self._disk():
            failpoints.point("history.before_fold")
            self._spool.sweep()
            with self._ledger.writing() as (duck, loss):
                done = _Tally()
                if loss is not None:
                    self._make_up_for(duck, loss, done)
                paths = self._spool.waiting()
                for start in range(0, len(paths), _FILES_AT_ONCE):
                    commits = self._read_spool(paths[start : start + _FILES_AT_ONCE], done)
                    fresh = _fresh(duck, commits)
                    if fresh:
                        with duck.transaction():
                            _insert(duck, fresh)
                            self._publish(duck, fresh, done)
                            self._ledger.finish(duck, len(fresh))
                            failpoints.point("history.inside_fold")
                    self._put_away(duck, commits)
                    done.took(fresh)
            self._spool.prune()
            return done.folded(left=len(self._spool.waiting()))

    def _publish(self, duck: Duck, commits: Sequence[Spooled], done: _Tally) -> None:
        for commit in commits:
            if commit.logged is not None:
                missing = self._ledger.publish(duck, commit.logged)
                done.troubles += filter(None, [missing])

    def _put_away(self, duck: Duck, commits: Sequence[Spooled]) -> None:
        """Make sure of what was folded, and only then take its files out of the spool."""
        self._ledger.settle(duck, [commit.name for commit in commits])
        failpoints.point("history.after_fold")
        self._spool.keep([commit.path for commit in commits])

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

    def _make_up_for(self, duck: Duck, loss: Loss, done: _Tally) -> None:
        """Fold again what the spool still has of a loss, and tell of it, in one transaction.

        The commits that were folded last may still wait: they are of the loss, all others are new.
        """
        waiting = [path for path in self._spool.waiting() if path.stem in loss.latest]
        # A resumed run may have committed again, under its name, what is kept as well.
        again = {
            each.name: each for each in self._read_spool([*self._spool.kept(), *waiting], done)
        }
        fresh = _fresh(duck, list(again.values()))
        lost = max(0, loss.count - len(fresh))
        done.loss = (
            f"{loss.because}; {len(fresh)} of the {loss.count} missing were folded in again "
            f"from kept spool files, {lost} are lost"
        )
        facts = {"missing": loss.count, "refolded": len(fresh), "lost": lost}
        told = Decision(question="history", yes=False, because=done.loss, facts=facts)
        now_ns = self._now_ns()
        row = DecisionRecord.of(
            told,
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
            failpoints.point("history.inside_fold")
        self._put_away(duck, fresh)
        done.took(fresh)


def _check_path(home: Path) -> None:
    """Raise BadConfiguration where DuckDB would not find its way under `home`."""
    path = str(home)
    wrong = None
    if "?" in path:
        wrong = "a question mark"  # what follows is options to it: it misplaces its log
    elif "\\" in path:
        wrong = "a backslash"  # to its patterns it is no letter: they find no predictions
    elif os.fsencode(path) != path.encode(errors="replace"):
        wrong = "a letter that is no UTF-8"
    if wrong:
        raise BadConfiguration(
            f"the home must not have {wrong} in its path, DuckDB cannot work there; "
            f"came: {path!r}; set another home"
        )


def _ledger(
    places: Places,
    place: HistoryPlace,
    steps: Sequence[schema.Migration],
    spool: Spool,
) -> LedgerFile | LedgerLake:
    """Where the rows are: in the lake that the home's file names, or else in a file."""

    if place.url is None:
        return LedgerFile(places, steps, spool.told)
    return LedgerLake(places, place, steps, spool.told)


class _Tally:
    """What a fold has done so far."""

    def __init__(self) -> None:
        self.files = 0
        self.rows = 0
        self.loss = ""
        self.torn: list[str] = []
        self.troubles: list[str] = []

    def took(self, commits: Sequence[Spooled]) -> None:
        self.files += len(commits)
        self.rows += sum(commit.count for commit in commits)

    def folded(self, left: int) -> Folded:
        done = f"folded {_counted(self.files, 'commit')} of {_counted(self.rows, 'row')}"
        because = "; ".join([done, *filter(None, [self.loss]), *self.troubles])
        trouble = "; ".join(self.troubles)
        return Folded(self.files, self.rows, left, because, tuple(self.torn), self.loss, trouble)


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _fresh(duck: Duck, commits: Sequence[Spooled]) -> list[Spooled]:
    """Those of `commits` that are not folded yet."""
    found = duck.execute(
        "SELECT name FROM folded WHERE name IN (SELECT unnest(?::VARCHAR[]))",
        [[commit.name for commit in commits]],
    )
    known = {name for (name,) in found}
    return [commit for commit in commits if commit.name not in known]


def _insert(duck: Duck, commits: Sequence[Spooled]) -> None:
    """Insert the rows of `commits`, and their names, by which they are known ever after."""
    for table in dict.fromkeys(table for commit in commits for table in commit.tables):
        duck.append(table, [row for each in commits for row in each.tables.get(table, ())])
    names = [commit.name for commit in commits]
    duck.execute("INSERT INTO folded SELECT unnest(?::VARCHAR[]), now()", [names])


def _shape(duck: Duck, view: str) -> ViewShape:
    columns = duck.execute(f"DESCRIBE {view}")
    return ViewShape(
        name=view,
        columns={column[0]: column[1] for column in columns},
        rows=int(duck.one(f"SELECT count(*) FROM {view}")),
    )


def _export_view(
    duck: Duck,
    view: str,
    folder: Path,
    format: ExportFormat,  # noqa: A002 - as in export
) -> Path:
    path = folder / f"{view}.{format}"
    aside = folder / f".{path.name}.aside"
    options = "FORMAT parquet" if format == "parquet" else "FORMAT csv, HEADER"
    duck.execute(f"COPY (SELECT * FROM {view}) TO {schema.quoted(str(aside))} ({options})")
    aside.replace(path)
    return path
