"""The backend that is a DuckDB file in the home. It also detects lost commits.

Only one process at a time can have a DuckDB file open. So thermodrift's processes share a lock, and
while an analyst has the file open they do not wait but name that session. DuckDB opens a file whose
write-ahead log was emptied, cut or changed without an error, and without the rows in the log. So a
watermark beside the file says how many commits it has had.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from observability.core import atomic_file, failpoints
from observability.core.errors import ThermodriftError
from observability.core.paths import Places
from observability.history import schema
from observability.history.backends import predictions_view
from observability.history.backends.backend import Backend
from observability.history.backends.duckdb_connection import Duck, Mode, opened
from observability.history.errors import HistoryDamaged, HistoryUnwritable
from observability.history.loss import Loss
from observability.history.retention import RetentionConfig

_COUNT = "SELECT coalesce(max(number), 0) FROM flush_counts"
_TABLES_OF_ROWS = (
    "SELECT table_name FROM duckdb_tables() WHERE table_name LIKE '%\\_rows' ESCAPE '\\'"
)
_MOST = 2**62
"""A watermark with this many commits or more is damaged itself."""
_LOG_IS_DAMAGED = re.compile(r"\bWAL\b|write-ahead log|[Rr]eplay")
_DISK_REFUSES = re.compile(
    r"No space left|Permission denied|Read-only file system|Cannot open file|Could not write|"
    r"Disk quota|Input/output error",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Log:
    """The write-ahead log of a killed process, copied before the file was opened."""

    copy: Path
    is_readable: bool


@dataclass(frozen=True)
class _Watermark:
    """How many commits the file has had, the names of the newest, and its schema number."""

    number: int = 0
    latest: tuple[str, ...] = ()
    schema: int = schema.SCHEMA_VERSION


class DuckDbFile(Backend):
    """The file; see `Backend`.

    Closing any handle of the file frees DuckDB's lock on it, so only DuckDB opens it.

    Raises HistorySchemaMismatch where the watermark has another schema. The watermark can be read
    while another process has the file open, so a run on such a home ends before it begins.
    """

    def __init__(self, places: Places, waiting: Callable[[], str]) -> None:
        self._file = places.history
        # With some releases of DuckDB, processes that opened one file in turn lost committed rows
        # without this lock.
        lock = self._file.with_name(f"{self._file.name}.lock")
        super().__init__(places, str(self._file), lock, waiting)
        self._check_version(self._watermark().schema)
        # Homes from before the first release have their watermark under this name.
        if (places.home / "history.mark").exists():
            self._check_version(None)

    @contextmanager
    def writing(self) -> Iterator[tuple[Duck, Loss | None]]:
        """Open the file to write; also yield what it has lost since it was last open."""
        is_new = not self._file.exists()
        if is_new:
            self._create()
        with self._log_copied() as log, self._open("READ_WRITE") as duck:
            if not self._has_schema(duck):
                with duck.transaction():
                    self._create_schema(duck)
            predictions_view.renew(duck, self._places.pipelines)
            yield duck, self._loss(duck, log, is_new=is_new)

    @contextmanager
    def reading(self) -> Iterator[Duck | None]:
        """Open the file to read; None where it must be written first: absent, empty, or a loss."""
        if not self._file.exists():
            yield None
            return
        with self._open("READ_ONLY") as duck:
            if not self._has_schema(duck) or duck.one(_COUNT) < self._watermark().number:
                yield None
                return
            predictions_view.overlay(duck, self._places.pipelines)
            yield duck

    def restrict(self, duck: Duck) -> None:
        """Restrict a question to the history and the pipelines' files."""
        pipelines = str(self._places.pipelines)
        duck.restrict([f"{pipelines}/", f"{glob.escape(pipelines)}/"])

    def finish(self, duck: Duck, commits: int) -> None:
        """Count `commits` more, as the last step of the transaction that inserts their rows."""
        duck.execute(
            "INSERT INTO flush_counts SELECT coalesce(max(number), 0) + ?, now() FROM flush_counts",
            [commits],
        )

    def vacuum_flushed(self, duck: Duck, config: RetentionConfig) -> int:
        """Remove all counts but the newest; return how many predictions were removed: none."""
        duck.execute("DELETE FROM flush_counts WHERE number < ?", [duck.one(_COUNT)])
        return 0

    def vacuum(self, duck: Duck) -> str:
        """Free the space of removed rows for new rows."""
        duck.execute("CHECKPOINT")
        return ""

    def row_counts(self, duck: Duck) -> Mapping[str, int]:
        """Return the rows of each table that has records: DuckDB knows them without a scan."""
        names = [name for (name,) in duck.execute(_TABLES_OF_ROWS)]
        # Subqueries of one SELECT would take 27 ms to plan, and this one takes one.
        counts = (f"SELECT '{name}', count(*) FROM {name}" for name in names)
        return {str(name): int(count) for name, count in duck.execute(" UNION ALL ".join(counts))}

    def discard_flushed(self, duck: Duck, names: Sequence[str]) -> None:
        """Write the last flushed commits from the write-ahead log into the file.

        The watermark is written first: until the checkpoint, the commits are in that log alone.
        """
        watermark = {
            "schema": schema.SCHEMA_VERSION,
            "number": duck.one(_COUNT),
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
        """Copy the write-ahead log, if a process left one, because DuckDB consumes it on opening.

        The copy is kept only after a loss, under the name that the loss reports. A log that DuckDB
        cannot replay is moved away.
        """
        log = self._file.with_name(f"{self._file.name}.wal")
        if not log.exists():
            yield None
            return
        try:
            with self._open("READ_ONLY") as duck:
                self._has_schema(duck)  # raises, so that a file of another schema is not changed
        except HistoryDamaged as damaged:
            # A damaged file, or too little memory, is not caused by the log.
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
        """Return a new name for a damaged log."""
        name = f"{log.name}.damaged-{self._watermark().number}"
        taken = len(list(log.parent.glob(f"{glob.escape(name)}*")))
        return log.with_name(f"{name}.{taken + 1}" if taken else name)

    def _loss(self, duck: Duck, log: _Log | None, *, is_new: bool) -> Loss | None:
        watermark, number = self._watermark(), duck.one(_COUNT)
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
            document = json.loads(self._places.watermark.read_bytes())
            number, latest = int(document["number"]), tuple(map(str, document["latest"]))
            version = int(document["schema"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return _Watermark()  # before the first flush, or a home that was copied without it
        return _Watermark(number, latest, version) if number < _MOST else _Watermark()

    def _create(self) -> None:
        """Create the file under a temporary name, so that no process finds half of it."""
        temporary = self._file.with_name(f".{self._file.name}.new")
        for each in (
            temporary,
            temporary.with_name(f"{temporary.name}.wal"),
            # A log without its file would be replayed into the new file.
            self._file.with_name(f"{self._file.name}.wal"),
        ):
            each.unlink(missing_ok=True)
        with opened(temporary, "READ_WRITE", self._error_for) as duck:
            with duck.transaction():
                self._create_schema(duck)
            duck.execute("CHECKPOINT")
        temporary.replace(self._file)
        atomic_file.sync_folder(self._file.parent)

    def _open(self, mode: Mode) -> AbstractContextManager[Duck]:
        return opened(self._file, mode, self._error_for)

    def _error_for(self, text: str) -> ThermodriftError:
        """Return thermodrift's error for the text of one of DuckDB's."""
        if "Could not set lock" in text:
            found = re.search(r"lock is held in (.*?) ?\(PID (\d+)\)", text)
            return self._busy(found[2], found[1]) if found else self._busy("")
        if "different configuration than existing" in text:
            return self._busy(str(os.getpid()), "this very process")
        if f"{self._places.pipelines}{os.sep}" in text:
            return HistoryDamaged(
                f"a prediction log cannot be read: {text}; restore that file from a backup, or "
                f"move it away: its positions are then missing. The history's own rows are whole"
            )
        if _DISK_REFUSES.search(text):
            return HistoryUnwritable(
                f"the disk refused {self._file}: {text}; make space or give permission, then run "
                "again: committed rows are safe"
            )
        return HistoryDamaged(
            f"{self._file} cannot be used: {text}; move it away or restore a copy: "
            f"the rows in {self._places.outbox} are whole and will be flushed into it"
        )
