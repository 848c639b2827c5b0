"""The DuckDB file under a home: taken, opened, brought up to date, and watched for loss.

A part of the door `history`. Only one process at a time may have a DuckDB file open, so a lock of
our own keeps thermodrift's processes apart, and an analyst's session is named, never waited for.
DuckDB opens a file whose write-ahead log was emptied, cut or changed without a word, and without
the rows in it; so a mark beside the file says how many commits it has had.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from observability.core import atomic_file, failpoints
from observability.core.errors import ThermodriftError
from observability.core.paths import Places
from observability.history import schema
from observability.history.backends import predictions_view
from observability.history.backends.duckdb_connection import Duck, Mode, opened
from observability.history.backends.lock import held
from observability.history.backends.migrator import Steps
from observability.history.errors import HistoryBusy, HistoryDamaged, HistoryUnwritable
from observability.history.outbox import Logged
from observability.history.retention import UpkeepRules

_NUMBER = "SELECT coalesce(max(number), 0) FROM fold_marks"
_NO_COUNT = 2**62
"""What is no count of commits: a mark that says so is damaged itself."""
_LOG_IS_ILL = re.compile(r"\bWAL\b|write-ahead log|[Rr]eplay")
_DISK_REFUSES = re.compile(
    r"No space left|Permission denied|Read-only file system|Cannot open file|Could not write|"
    r"Disk quota|Input/output error",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Loss:
    """Commits that the file has had and has no more."""

    number: int
    """How many commits it has had, which names this loss."""
    count: int
    latest: frozenset[str]
    """Names of those that were folded last: they may still wait in the spool as well."""
    because: str


@dataclass(frozen=True)
class _Log:
    """A write-ahead log that was left: a copy of it, as it was before the file was opened."""

    copy: Path
    is_readable: bool


@dataclass(frozen=True)
class _Mark:
    """How far the file had come."""

    number: int = 0
    latest: tuple[str, ...] = ()


class LedgerFile:
    """The file, by its places. Every method but `locked` wants the lock held.

    `spooled` says what is in the spool, so that whoever is told to wait knows what waits.
    """

    def __init__(
        self, places: Places, steps: Sequence[schema.Migration], spooled: Callable[[], str]
    ) -> None:
        self._places = places
        self._file = places.history
        self._steps = Steps(steps)
        self._spooled = spooled

    @property
    def where(self) -> str:
        """The file's path."""
        return str(self._file)

    # Without this lock, processes that took turns at one file lost committed rows with some
    # releases of DuckDB.
    @contextmanager
    def locked(self, wait_s: float) -> Iterator[None]:
        """Hold the file among thermodrift's processes. Raises HistoryBusy, HistoryUnwritable."""
        lock = self._file.with_name(f"{self._file.name}.lock")
        with held(lock, wait_s, lambda pid: HistoryBusy(self._held_by(pid, ""))):
            yield

    @contextmanager
    def writing(self) -> Iterator[tuple[Duck, Loss | None]]:
        """The file, open to write and up to date, and what it has lost since it was last here."""
        is_new = not self._file.exists()
        if is_new:
            self._create()
        # Closing any handle of the file frees DuckDB's lock on it. So a copy is made from a handle
        # that is opened once the file is ours, and closed only after the connection.
        with (
            self._log_copied() as log,
            ExitStack() as afterwards,
            self._opened("READ_WRITE") as duck,
        ):
            version = self._steps.version(duck, self.where)
            if 0 < version < self._steps.latest:
                duck.execute("CHECKPOINT")
                raw = afterwards.enter_context(self._file.open("rb"))
                self._keep_copy(raw, before=version + 1)
            self._migrate(duck, version)
            predictions_view.renew(duck, self._places.pipelines)
            yield duck, self._loss(duck, log, is_new=is_new)

    @contextmanager
    def reading(self) -> Iterator[Duck | None]:
        """The file, open to read; None where it is absent, old or at a loss: write it first."""
        if not self._file.exists():
            yield None
            return
        with self._opened("READ_ONLY") as duck:
            version = self._steps.version(duck, self.where)
            if version < self._steps.latest or duck.one(_NUMBER) < self._mark().number:
                yield None
                return
            predictions_view.overlay(duck, self._places.pipelines)
            yield duck

    def fence(self, duck: Duck) -> None:
        """Leave a question nothing to reach but the history and the pipelines' files."""
        pipelines = str(self._places.pipelines)
        duck.fence([f"{pipelines}/", f"{glob.escape(pipelines)}/"])

    def finish(self, duck: Duck, commits: int) -> None:
        """Count `commits` more: the last thing in the transaction that has their rows."""
        duck.execute(
            "INSERT INTO fold_marks SELECT coalesce(max(number), 0) + ?, now() FROM fold_marks",
            [commits],
        )

    def publish(self, duck: Duck, logged: Logged) -> str:
        """The view `predictions` reads the log itself: nothing is to be brought."""
        return ""

    def tidy(self, duck: Duck, rules: UpkeepRules) -> int:
        """Forget counts that later ones have overtaken; the log is not the file's to remove."""
        duck.execute("DELETE FROM fold_marks WHERE number < ?", [duck.one(_NUMBER)])
        return 0

    def maintain(self, duck: Duck) -> str:
        """Give the space of removed rows back to those to come."""
        duck.execute("CHECKPOINT")
        return ""

    def settle(self, duck: Duck, names: Sequence[str]) -> None:
        """Make what was folded last independent of the write-ahead log.

        The mark goes first: until the checkpoint is done, what it counts is in that log alone.
        """
        mark = {"number": duck.one(_NUMBER), "latest": list(names)}
        atomic_file.write(self._places.mark, json.dumps(mark).encode())
        failpoints.point("history.before_checkpoint")
        duck.execute("CHECKPOINT")

    def recover(self, duck: Duck) -> None:
        """Count what was lost as counted, and the commit that tells of it as one more."""
        duck.execute("INSERT INTO fold_marks VALUES (?, now())", [self._mark().number + 1])

    @contextmanager
    def _log_copied(self) -> Iterator[_Log | None]:
        """A copy of the write-ahead log, if one was left: to open the file uses it up.

        It is kept, under the name that the loss tells, only where something was lost. One that
        DuckDB cannot get past is moved out of its way.
        """
        log = self._file.with_name(f"{self._file.name}.wal")
        if not log.exists():
            yield None
            return
        if not self._opens():
            aside = self._aside_of(log)
            log.replace(aside)
            yield _Log(aside, is_readable=False)
            return
        copy = self._file.with_name(f".{log.name}.copy")
        shutil.copyfile(log, copy)
        try:
            yield _Log(copy, is_readable=True)
        finally:
            copy.unlink(missing_ok=True)

    def _aside_of(self, log: Path) -> Path:
        """A name for a damaged log that no earlier one has."""
        name = f"{log.name}.damaged-{self._mark().number}"
        taken = len(list(log.parent.glob(f"{glob.escape(name)}*")))
        return log.with_name(f"{name}.{taken + 1}" if taken else name)

    def _opens(self) -> bool:
        """Whether DuckDB gets past the write-ahead log. Raises HistoryBusy, HistoryDamaged."""
        try:
            with self._opened("READ_ONLY"):
                return True
        except HistoryDamaged as damaged:
            # A file that is damaged itself, or too little memory, is not the log's fault.
            if _LOG_IS_ILL.search(str(damaged)) is None:
                raise
            return False

    def _loss(self, duck: Duck, log: _Log | None, *, is_new: bool) -> Loss | None:
        mark, number = self._mark(), duck.one(_NUMBER)
        if number >= mark.number and (log is None or log.is_readable):
            return None
        why = "the file was gone" if is_new else "it is an older copy, or its log was lost"
        if log is not None:
            aside = log.copy
            if log.is_readable:
                aside = self._aside_of(self._file.with_name(f"{self._file.name}.wal"))
                log.copy.replace(aside)
            why = f"its write-ahead log was damaged or emptied, and is kept as {aside.name}"
        because = f"{self._file} had {mark.number} commits and has {number} of them: {why}"
        return Loss(mark.number, max(0, mark.number - number), frozenset(mark.latest), because)

    def _mark(self) -> _Mark:
        try:
            known = json.loads(self._places.mark.read_bytes())
            number, latest = int(known["number"]), tuple(map(str, known["latest"]))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return _Mark()  # a first fold, or a home that was copied without it
        return _Mark(number, latest) if number < _NO_COUNT else _Mark()

    def _create(self) -> None:
        """Make the file aside, so that nobody ever finds half of one."""
        aside = self._file.with_name(f".{self._file.name}.new")
        aside.unlink(missing_ok=True)
        aside.with_name(f"{aside.name}.wal").unlink(missing_ok=True)
        # A log without its file belongs to nothing, and would be taken for the new file's.
        self._file.with_name(f"{self._file.name}.wal").unlink(missing_ok=True)
        with opened(aside, "READ_WRITE", self._told) as duck:
            self._migrate(duck, 0)
            duck.execute("CHECKPOINT")
        aside.replace(self._file)
        atomic_file.sync_folder(self._file.parent)

    def _migrate(self, duck: Duck, version: int) -> None:
        if version < self._steps.latest:
            with duck.transaction():
                self._steps.take(duck, version)

    def _keep_copy(self, raw: BinaryIO, before: int) -> None:
        """Copy the file beside itself, as it is before step `before`."""
        copy = self._file.with_name(f"{self._file.stem}.before-{before}{self._file.suffix}")
        aside = copy.with_name(f".{copy.name}.new")
        with aside.open("wb") as target:
            shutil.copyfileobj(raw, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
        aside.replace(copy)
        atomic_file.sync_folder(copy.parent)

    @contextmanager
    def _opened(self, mode: Mode) -> Iterator[Duck]:
        with opened(self._file, mode, self._told) as duck:
            yield duck

    def _told(self, text: str) -> ThermodriftError:
        """Our error for one of DuckDB's."""
        if "Could not set lock" in text:
            found = re.search(r"lock is held in (.*?) ?\(PID (\d+)\)", text)
            return HistoryBusy(
                self._held_by(found[2], found[1]) if found else self._held_by("", "")
            )
        if "different configuration than existing" in text:
            return HistoryBusy(self._held_by(str(os.getpid()), "this very process"))
        if f"{self._places.pipelines}{os.sep}" in text:
            return HistoryDamaged(
                f"a prediction log cannot be read: {text}; restore that file from a backup, or "
                f"move it away: its positions are then missing. The history's own rows are whole"
            )
        if _DISK_REFUSES.search(text):
            return HistoryUnwritable(
                f"the disk refused {self._file}: {text}; make space or give permission, then run "
                f"again: what was committed is safe"
            )
        return HistoryDamaged(
            f"{self._file} cannot be used: {text}; move it aside or bring a copy back: "
            f"the rows in {self._places.spool} are whole and will be folded in"
        )

    def _held_by(self, pid: str, program: str) -> str:
        who = f"process {pid}" if pid else "another process"
        what = f" ({program})" if program else ""
        return (
            f"{self._file} is open in {who}{what}: close it there, then try again; "
            f"{self._spooled()}"
        )
