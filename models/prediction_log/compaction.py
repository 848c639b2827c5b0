"""Compaction of the prediction log: merges neighbouring files, removes old ones, truncates one.

Part of the adapter `prediction_log`. A learner may run in another process: it writes and sweeps at
or beyond its checkpoint, and only files that lie wholly before it are merged or removed here. There
is no journal. A merged file gets its name before its parts are removed, and from then on the parts
are superseded: a reader finds each position once, also after an interruption.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from models.prediction_log import segments
from models.prediction_log.segments import LogDamaged
from observability.core import atomic_file, failpoints, file_lock, log_segments
from observability.core.errors import TryAgainLater
from observability.core.log_segments import Span

if TYPE_CHECKING:
    import pyarrow as pa

AMEND_WAIT_S = 60.0
"""Seconds that `amend` waits for a merge by another process."""
Swap = Callable[[], AbstractContextManager[object]]
"""A context that is entered while files are replaced or removed."""


class LogBusy(TryAgainLater):
    """Another process merges or removes files of the log."""


@dataclass(frozen=True)
class CompactResult:
    """The result of a compaction; files and bytes are those wholly before the checkpoint."""

    files_before: int
    bytes_before: int
    files_after: int
    bytes_after: int
    merged: int = 0
    """Files that were merged into others and removed."""
    rows: int = 0
    """Rows in them."""
    damaged: tuple[str, ...] = ()
    """A message for each file that could not be merged."""
    busy: bool = False
    """Whether nothing was done because another process holds the lock."""
    because: str = ""


@dataclass(frozen=True)
class RemovalResult:
    """The result of removing old files."""

    files: int = 0
    rows: int = 0
    bytes: int = 0
    unreadable: int = 0
    """Files among them whose rows could not be counted."""
    busy: bool = False
    """Whether nothing was done because another process holds the lock."""
    because: str = ""


def compact(
    folder: Path, before: int, *, swap: Swap = nullcontext, target_rows: int = 1_000_000
) -> CompactResult:
    """Merge neighbouring files that lie wholly before position `before`, that of the checkpoint.

    Positions are divided into stretches of `target_rows`; a merged file lies within one, so that a
    full stretch is never written again. Files are merged if each begins where the one before it
    ends. A file that cannot be read, or has other columns, stays as it is and is not merged over.
    Raises OSError, and what `swap` raises: what was merged by then stays merged, and the rest is
    unchanged.
    """
    if target_rows < 1:
        raise ValueError(f"a merged file covers at least one position; came: {target_rows}")
    was = _size(folder, before)
    if not folder.is_dir():
        return CompactResult(*was, *was, because=f"there is no log yet: {folder} is not there")
    with _locked(folder) as is_locked:
        if not is_locked:
            return CompactResult(*was, *was, busy=True, because=_busy(folder))
        _clean(folder, before, swap)
        work = _Work(folder, swap)
        files = segments.current(segments.listed(folder))
        for run in _runs((each for each in files if each[1].last <= before), target_rows):
            work.merge(run)
    now = _size(folder, before)
    because = "nothing to merge"
    if work.merged:
        because = f"merged {work.merged} files with {work.rows} predictions into {work.made}"
    because += f"; files of the log before position {before}: {now[0]} ({_mb(now[1])})"
    if now != was:
        because += f", were {was[0]} ({_mb(was[1])})"
    if work.damaged:
        because += f"; cannot be merged, and stay as they are: {len(work.damaged)}"
    return CompactResult(*was, *now, work.merged, work.rows, tuple(work.damaged), because=because)


def remove_before(
    folder: Path, keep_records: int, before: int, *, swap: Swap = nullcontext
) -> RemovalResult:
    """Remove whole files that lie more than `keep_records` positions before `before`.

    `before` is the position of the checkpoint. A file that is only partly old stays whole.
    """
    if keep_records < 0:
        raise ValueError(f"no fewer than 0 records can be kept; came: {keep_records}")
    if not folder.is_dir():
        return RemovalResult(because=f"there is no log yet: {folder} is not there")
    horizon = before - keep_records
    with _locked(folder) as is_locked:
        if not is_locked:
            return RemovalResult(busy=True, because=_busy(folder))
        _clean(folder, before, swap)
        old = [path for path, span in segments.listed(folder) if span.last <= horizon]
        counts: list[int | None] = []
        for path in old:
            try:
                with segments.opened(path) as file:
                    counts.append(file.metadata.num_rows)
            except OSError:
                counts.append(None)
        size = sum(path.stat().st_size for path in old)
        if old:
            with swap():
                segments.remove(folder, old)
    rows = sum(each or 0 for each in counts)
    because = (
        f"removed {len(old)} files with {rows} predictions ({_mb(size)}): they lay more than "
        f"{keep_records} positions before {before}"
        if old
        else f"nothing to remove: no file lies more than {keep_records} positions before {before}"
    )
    return RemovalResult(len(old), rows, size, counts.count(None), because=because)


def truncate(path: Path, span: Span, beyond: int) -> None:
    """Remove the rows of a file from position `beyond` on, which is within it.

    A checkpoint that was restored from a backup may lie within a file that was merged later.
    Raises LogDamaged, OSError.
    """
    rest = path.with_name(log_segments.name(Span(span.first, beyond)))
    if not rest.exists():
        with segments.opened(path) as file:
            schema = file.schema_arrow
        temporary = rest.with_name(f".{rest.name}.{os.getpid()}.tmp")
        segments.write_temporary(temporary, schema, segments.between(path, span.first, beyond))
        temporary.replace(rest)
    segments.remove(path.parent, [path])


def amend(folder: Path, rows: pa.Table, *, wait_s: float = AMEND_WAIT_S) -> int:
    """Put `rows` into the files that cover their positions, and replace rows of the same position.

    `rows` are ordered by position. Each file is rewritten under its own name, so that a reader
    finds the old one or the new one; the operation is idempotent. Returns how many of the rows are
    covered by no readable file: those are not logged. Waits up to `wait_s` seconds for another
    process that merges or removes. Raises LogBusy, OSError.
    """
    import pyarrow.compute as pc

    positions = rows["position"]
    if not rows.num_rows or not folder.is_dir():
        return int(rows.num_rows)
    with _locked(folder, wait_s) as is_locked:
        if not is_locked:
            raise LogBusy(f"{_busy(folder)} within {wait_s:g} s; run again")
        first, last = positions[0].as_py(), positions[-1].as_py() + 1
        put = 0
        for path, span in segments.holding(folder, first, last):
            within = pc.and_(pc.greater_equal(positions, span.first), pc.less(positions, span.last))
            part = rows.filter(within)
            if not part.num_rows:
                continue
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            try:
                with segments.opened(path) as file:
                    schema = file.schema_arrow
                segments.write_temporary(temporary, schema, segments.amended(path, part))
            except LogDamaged:
                continue
            failpoints.point("replay.before_swap")
            temporary.replace(path)
            atomic_file.sync_folder(path.parent)
            failpoints.point("replay.after_swap")
            put += part.num_rows
    return int(rows.num_rows) - put


@contextmanager
def _locked(folder: Path, wait_s: float = 0) -> Iterator[bool]:
    """Hold the lock for merging and removing; yields whether it was free within `wait_s`."""
    try:
        lock = file_lock.acquire(folder / ".compaction.lock", wait_s)
    except file_lock.LockBusy:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _busy(folder: Path) -> str:
    return f"another process is merging or removing files of {folder}: nothing was done"


def _clean(folder: Path, before: int, swap: Swap) -> None:
    """Remove what a killed compaction left: its temporary file, or superseded parts.

    The caller holds the lock.
    """
    for temporary in folder.glob(".*.merging"):
        temporary.unlink(missing_ok=True)
    gone = [path for path, span in segments.replaced(folder) if span.last <= before]
    if gone:
        with swap():
            segments.remove(folder, gone)


def _runs(
    files: Iterable[tuple[Path, Span]], target_rows: int
) -> Iterator[list[tuple[Path, Span]]]:
    """Two or more files, each beginning where the last one ended, within one stretch.

    A gap is not merged over: the name of the merged file would cover it, and a file that is
    restored there from a backup would count as superseded.
    """
    run: list[tuple[Path, Span]] = []
    for path, span in files:
        follows = run and run[-1][1].last == span.first
        if not follows or run[0][1].first // target_rows != (span.last - 1) // target_rows:
            if len(run) > 1:
                yield run
            run = []
        run.append((path, span))
    if len(run) > 1:
        yield run


@dataclass(frozen=True)
class _Part:
    """A file to be merged, and its metadata when it was opened first."""

    path: Path
    span: Span
    rows: int
    schema: pa.Schema
    stamp: tuple[int, int, int]

    def tables(self) -> Iterator[pa.Table]:
        """Its rows by row groups. Raises _Unsound unless they agree with its name and footer."""
        rows, reached = 0, self.span.first - 1
        try:
            with segments.opened(self.path) as file:
                for group in range(file.metadata.num_row_groups):
                    table = file.read_row_group(group)
                    reached = segments.last_of(table, reached, self.path)
                    rows += table.num_rows
                    yield table
        except OSError as error:
            raise _Unsound(self, str(error)) from error
        if reached >= self.span.last or rows != self.rows:
            raise _Unsound(
                self,
                f"{self.path} holds {rows} rows up to position {reached}, which is not what its "
                "name and its footer say. Restore it from a backup, or move it away",
            )


class _Unsound(Exception):
    """A part cannot be merged: it stays as it is, and is not merged over."""

    def __init__(self, part: _Part, why: str) -> None:
        super().__init__(why)
        self.part = part


@dataclass
class _Work:
    """A compaction in progress."""

    folder: Path
    swap: Swap
    merged: int = 0
    made: int = 0
    rows: int = 0
    damaged: list[str] = field(default_factory=list)

    def merge(self, run: Sequence[tuple[Path, Span]]) -> None:
        """Merge a run, or its pieces on both sides of files that cannot be merged."""
        waiting: list[list[_Part]] = [[]]
        for path, span in run:
            try:
                part = _part(path, span)
            except OSError as error:
                self.damaged.append(str(error))
                waiting.append([])
                continue
            if waiting[-1] and not waiting[-1][-1].schema.equals(part.schema):
                waiting.append([])
            waiting[-1].append(part)
        while waiting:
            parts = waiting.pop()
            if len(parts) < 2:
                continue
            try:
                self._replace(parts)
            except _Unsound as unsound:
                self.damaged.append(str(unsound))
                at = parts.index(unsound.part)
                waiting += [parts[at + 1 :], parts[:at]]

    def _replace(self, parts: Sequence[_Part]) -> None:
        """Merge `parts` into one file, which replaces them."""
        span = Span(parts[0].span.first, parts[-1].span.last)
        target = self.folder / log_segments.name(span)
        # Not *.tmp: a learner removes those when it begins.
        temporary = target.with_name(f".{target.name}.{os.getpid()}.merging")
        tables = (table for part in parts for table in part.tables())
        rows = segments.write_temporary(temporary, parts[0].schema, tables)
        try:
            failpoints.point("upkeep.before_swap")
            with self.swap():
                for part in parts:
                    _check_unchanged(part)
                temporary.replace(target)
                atomic_file.sync_folder(self.folder)
                failpoints.point("upkeep.inside_swap")
                segments.remove(self.folder, [part.path for part in parts])
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self.merged += len(parts)
        self.made += 1
        self.rows += rows


def _part(path: Path, span: Span) -> _Part:
    """Read the metadata of a file. Raises FileNotFoundError, LogDamaged."""
    import pyarrow as pa

    stamp = _stamp(path)
    with segments.opened(path) as file:
        schema = file.schema_arrow
        if pa.field("position", pa.int64()) not in list(schema):
            raise LogDamaged(
                f"{path} has no column of positions: it is no file that was logged here. "
                "Move it away: its positions are then missing from the log"
            )
        return _Part(path, span, file.metadata.num_rows, schema, stamp)


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _check_unchanged(part: _Part) -> None:
    with suppress(FileNotFoundError):
        if _stamp(part.path) == part.stamp:
            return
    raise _Unsound(
        part,
        f"{part.path} was changed or removed while it was merged, though it lies before the "
        "checkpoint: it is left as it is. Merge again after the pipeline is restored",
    )


def _size(folder: Path, before: int) -> tuple[int, int]:
    """Number and bytes of the files that lie wholly before `before`."""
    sizes = []
    for path, span in segments.listed(folder):
        with suppress(FileNotFoundError):  # removed meanwhile, because it is superseded
            if span.last <= before:
                sizes.append(path.stat().st_size)
    return len(sizes), sum(sizes)


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
