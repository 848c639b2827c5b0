"""The DuckDB file under a home, as a backend of the history: created, opened, watched for loss.

A part of the door `history`. Only one process at a time may have a DuckDB file open, so a lock of
our own keeps thermodrift's processes apart, and an analyst's session is named, never waited for.
DuckDB opens a file whose write-ahead log was emptied, cut or changed without an error, and without
the rows in it; so a watermark beside the file says how many commits it has had.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from observability.core import atomic_file, failpoints
from observability.core.errors import ThermodriftError
from observability.core.paths import Places
from observability.history import schema as migrations
from observability.history.backends import predictions_view
from observability.history.backends.backend import Backend
from observability.history.backends.duckdb_connection import Duck, Mode, opened
from observability.history.errors import HistoryBusy, HistoryDamaged, HistoryUnwritable
from observability.history.loss import Loss
from observability.history.retention import RetentionConfig

_NUMBER = "SELECT coalesce(max(number), 0) FROM flush_counts"
_NO_COUNT = 2**62
"""A watermark with so many commits is damaged itself."""
_LOG_IS_DAMAGED = re.compile(r"\bWAL\b|write-ahead log|[Rr]eplay")
_DISK_REFUSES = re.compile(
    r"No space left|Permission denied|Read-only file system|Cannot open file|Could not write|"
    r"Disk quota|Input/output error",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Log:
    """A write-ahead log that a killed process left: a copy from before the file was opened."""

    copy: Path
    is_readable: bool


@dataclass(frozen=True)
class _Watermark:
    """How many commits the file has had, the newest of them, and the file's schema."""

    number: int = 0
    latest: tuple[str, ...] = ()
    schema: int = migrations.SCHEMA_VERSION


class DuckDbFile(Backend):
    """The file; see `Backend`.

    Closing any handle of the file frees DuckDB's lock on it, so DuckDB alone opens it.

    Raises HistorySchemaMismatch where the watermark is of another schema: it can be read while
    another process has the file open, so a run on such a home ends before it begins.
    """

    def __init__(self, places: Places, waiting: Callable[[], str]) -> None:
        self._file = places.history
        # Without this lock, processes that took turns at one file lost committed rows with some
        # releases of DuckDB.
        lock = self._file.with_name(f"{self._file.name}.lock")
        super().__init__(places, str(self._file), lock, waiting)
        self._check_version(self._watermark().schema)
        # Homes from before the first release had their watermark under this name.
        if (places.home / "history.mark").exists():
            self._check_version(None)

    @contextmanager
    def writing(self) -> Iterator[tuple[Duck, Loss | None]]:
        """The file, open to write, and what it has lost since it was last open."""
        is_new = not self._file.exists()
        if is_new:
            self._create()
        with self._log_copied() as log, self._opened("READ_WRITE") as duck:
            if not self._has_schema(duck):
                with duck.transaction():
                    self._create_schema(duck)
            predictions_view.renew(duck, self._places.pipelines)
            yield duck, self._loss(duck, log, is_new=is_new)

    @contextmanager
    def reading(self) -> Iterator[Duck | None]:
        """The file, open to read; None where it is absent, empty or at a loss: write it first."""
        if not self._file.exists():
            yield None
            return
        with self._opened("READ_ONLY") as duck:
            if not self._has_schema(duck) or duck.one(_NUMBER) < self._watermark().number:
                yield None
                return
            predictions_view.overlay(duck, self._places.pipelines)
            yield duck

    def fence(self, duck: Duck) -> None:
        """Restrict a question to the history and the pipelines' files."""
        pipelines = str(self._places.pipelines)
        duck.fence([f"{pipelines}/", f"{glob.escape(pipelines)}/"])

    def finish(self, duck: Duck, commits: int) -> None:
        """Count `commits` more: the last thing in the transaction that has their rows."""
        duck.execute(
            "INSERT INTO flush_counts SELECT coalesce(max(number), 0) + ?, now() FROM flush_counts",
            [commits],
        )

    def vacuum_flushed(self, duck: Duck, rules: RetentionConfig) -> int:
        """Remove counts that are not the newest; returns how many predictions: none."""
        duck.execute("DELETE FROM flush_counts WHERE number < ?", [duck.one(_NUMBER)])
        return 0

    def vacuum(self, duck: Duck) -> str:
        """Free the space of removed rows for new ones."""
        duck.execute("CHECKPOINT")
        return ""

    def discard_flushed(self, duck: Duck, names: Sequence[str]) -> None:
        """Write what was flushed last out of the write-ahead log into the file.

        The watermark goes first: until the checkpoint is done, what it counts is in that log alone.
        """
        watermark = {
            "schema": migrations.SCHEMA_VERSION,
            "number": duck.one(_NUMBER),
            "latest": list(names),
        }
        atomic_file.write(self._places.watermark, json.dumps(watermark).encode())
        failpoints.point("history.before_checkpoint")
        duck.execute("CHECKPOINT")

    def recover(self, duck: Duck) -> None:
        """See `Backend`."""
        number = self._watermark().number + 1
        duck.execute("INSERT INTO flush_counts VALUES (?, now())", [number])

    @contextmanager
    def _log_copied(self) -> Iterator[_Log | None]:
        """A copy of the write-ahead log, if a process left one: DuckDB consumes it on opening.

        The copy is kept only where something was lost, under the name that the loss reports. A log
        that DuckDB cannot replay is moved away.
        """
        log = self._file.with_name(f"{self._file.name}.wal")
        if not log.exists():
            yield None
            return
        try:
            with self._opened("READ_ONLY") as duck:
                self._has_schema(duck)  # nothing of another schema's file is changed
        except HistoryDamaged as damaged:
            # A file that is damaged itself, or too little memory, is not the log's fault.
            if _LOG_IS_DAMAGED.search(str(damaged)) is None:
                raise
            moved = self._damaged_name(log)
            log.replace(moved)
            yield _Log(moved, is_readable=False)
            return
        copy = self._file.with_name(f".{log.name}.copy")
        shutil.copyfile(log, copy)
        try:
            yield _Log(copy, is_readable=True)
        finally:
            copy.unlink(missing_ok=True)

    def _damaged_name(self, log: Path) -> Path:
        """A name for a damaged log that no earlier one has."""
        name = f"{log.name}.damaged-{self._watermark().number}"
        taken = len(list(log.parent.glob(f"{glob.escape(name)}*")))
        return log.with_name(f"{name}.{taken + 1}" if taken else name)

    def _loss(self, duck: Duck, log: _Log | None, *, is_new: bool) -> Loss | None:
        watermark, number = self._watermark(), duck.one(_NUMBER)
        if number >= watermark.number and (log is None or log.is_readable):
            return None
        why = "the file was gone" if is_new else "it is an older copy, or its log was lost"
        if log is not None:
            moved = log.copy
            if log.is_readable:
                moved = self._damaged_name(self._file.with_name(f"{self._file.name}.wal"))
                log.copy.replace(moved)
            why = f"its write-ahead log was damaged or emptied, and is kept as {moved.name}"
        return Loss(
            watermark.number,
            max(0, watermark.number - number),
            frozenset(watermark.latest),
            f"{self._file} had {watermark.number} commits and has {number} of them: {why}",
        )

    def _watermark(self) -> _Watermark:
        try:
            known = json.loads(self._places.watermark.read_bytes())
            number, latest = int(known["number"]), tuple(map(str, known["latest"]))
            schema = int(known["schema"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return _Watermark()  # before the first flush, or a home that was copied without it
        return _Watermark(number, latest, schema) if number < _NO_COUNT else _Watermark()

    def _create(self) -> None:
        """Create the file under a temporary name, so that nobody ever finds half of one."""
        temporary = self._file.with_name(f".{self._file.name}.new")
        for each in (
            temporary,
            temporary.with_name(f"{temporary.name}.wal"),
            # A log without its file belongs to nothing, and would be taken for the new file's.
            self._file.with_name(f"{self._file.name}.wal"),
        ):
            each.unlink(missing_ok=True)
        with opened(temporary, "READ_WRITE", self._told) as duck:
            with duck.transaction():
                self._create_schema(duck)
            duck.execute("CHECKPOINT")
        temporary.replace(self._file)
        atomic_file.sync_folder(self._file.parent)

    @contextmanager
    def _opened(self, mode: Mode) -> Iterator[Duck]:
        with opened(self._file, mode, self._told) as duck:
            yield duck

    def _told(self, text: str) -> ThermodriftError:
        """Our error for one of DuckDB's."""
        if "Could not set lock" in text:
            found = re.search(r"lock is held in (.*?) ?\(PID (\d+)\)", text)
            return HistoryBusy(self._busy(found[2], found[1]) if found else self._busy(""))
        if "different configuration than existing" in text:
            return HistoryBusy(self._busy(str(os.getpid()), "this very process"))
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
            f"the rows in {self._places.outbox} are whole and will be flushed into it"
        )

    def _busy(self, pid: str, program: str = "") -> str:
        who = f"process {pid}" if pid else "another process"
        what = f" ({program})" if program else ""
        return (
            f"{self._file} is open in {who}{what}: close it there, then try again; "
            f"{self._waiting()}"
        )
