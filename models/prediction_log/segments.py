"""The files of a prediction log: lists them, reads them, and writes new ones.

Part of the adapter `prediction_log`. Another process may merge files meanwhile: a listed file may
be gone when it is opened. Which files are merged, truncated or removed is decided elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from observability.core import atomic_file, log_segments
from observability.core.errors import ThermodriftError
from observability.core.log_segments import Span

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

GROUP_ROWS = 122_880
"""Rows in a row group; DuckDB's own number, so that its threads can share a file."""


class LogDamaged(ThermodriftError, OSError):
    """A file of the log is damaged."""


def names(folder: Path) -> list[str]:
    """All names in the folder, of the log or not; empty if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except FileNotFoundError:
        return []


def listed(
    folder: Path, wanted: Callable[[Span], bool] = lambda _: True
) -> list[tuple[Path, Span]]:
    """The files of the log whose span is `wanted`, in order, including superseded ones."""
    spans = ((name, log_segments.parse(name)) for name in names(folder))
    found = [(folder / name, span) for name, span in spans if span is not None and wanted(span)]
    return sorted(found, key=lambda file: file[1])


def replaced(folder: Path) -> list[tuple[Path, Span]]:
    """The superseded files of the log."""
    left_out = set(log_segments.superseded(names(folder)))
    return listed(folder, lambda span: log_segments.name(span) in left_out) if left_out else []


def current(files: list[tuple[Path, Span]]) -> list[tuple[Path, Span]]:
    """These files without those that another one of them supersedes."""
    left_out = set(log_segments.superseded(path.name for path, _ in files))
    return [(path, span) for path, span in files if path.name not in left_out]


def holding(folder: Path, first: int, last: int) -> list[tuple[Path, Span]]:
    """The current files with positions from `first` to `last` (exclusive), as of one moment.

    A folder is listed entry by entry. So files that are merged meanwhile may be missed, and the
    merged file as well, which leaves a gap. Then the folder is listed again until nothing changes.
    """
    before = None
    while True:
        # A file that supersedes one of these has positions of the range too, so it is listed.
        files = current(listed(folder, lambda span: span.first < last and span.last > first))
        spans = [span for _, span in files]
        complete = bool(spans) and spans[0].first <= first and spans[-1].last >= last
        gap = any(left.last < right.first for left, right in pairwise(spans))
        if (complete and not gap) or files == before:
            return files
        before = files


@contextmanager
def opened(path: Path) -> Iterator[parquet.ParquetFile]:
    """Open a file of the log; its checksums are verified while it is read.

    Raises FileNotFoundError, and LogDamaged for any other error.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (FileNotFoundError, LogDamaged):
        raise
    except (pa.ArrowException, OSError) as error:
        raise LogDamaged(
            f"{path} cannot be read ({error}): it is damaged, or this user may not read it. "
            "Restore it from a backup, or move it away: its positions are then missing from the log"
        ) from error


def between(path: Path, first: int, last: int) -> Iterator[pa.Table]:
    """The rows of one file from position `first` to `last` (exclusive), in at least one piece.

    Row groups outside of the range are not read. Raises FileNotFoundError, LogDamaged.
    """
    import pyarrow.compute as pc

    with opened(path) as file:
        yield file.schema_arrow.empty_table()
        column = file.schema_arrow.get_field_index("position")
        for group in range(file.metadata.num_row_groups):
            known = file.metadata.row_group(group).column(column).statistics
            has_bounds = known is not None and known.has_min_max
            if not has_bounds or (known.min < last and known.max >= first):
                table = file.read_row_group(group)
                place = table["position"]
                yield table.filter(pc.and_(pc.greater_equal(place, first), pc.less(place, last)))


def amended(path: Path, rows: pa.Table) -> Iterator[pa.Table]:
    """The rows of one file in pieces; `rows` replace those with the same positions.

    `rows` are ordered by position; a column that the file does not have is left out.
    Raises FileNotFoundError, LogDamaged.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    with opened(path) as file:
        schema = file.schema_arrow
        columns = {
            field.name: rows[field.name].cast(field.type)
            if field.name in rows.column_names
            else pa.nulls(rows.num_rows, field.type)
            for field in schema
        }
        waiting = pa.table(columns, schema=schema)
        for group in range(file.metadata.num_row_groups):
            table = file.read_row_group(group)
            if not table.num_rows:
                continue
            reached = table["position"][-1]
            ours = pc.is_in(table["position"], value_set=rows["position"].combine_chunks())
            due = pc.less_equal(waiting["position"], reached)
            merged = pa.concat_tables([table.filter(pc.invert(ours)), waiting.filter(due)])
            waiting = waiting.filter(pc.invert(due))
            yield merged.sort_by("position")
        yield waiting


def write_temporary(temporary: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write `tables` to a new file, durably, by row groups; returns the number of rows.

    The file is read back for verification. Raises OSError, and LogDamaged if the disk does not
    return what was written; then the file is removed.
    """
    import pyarrow as pa
    from pyarrow import parquet

    # A third smaller, and faster to read, than with the defaults: positions are stored as
    # differences, fractions byte by byte; labels and versions repeat.
    fractions = [field.name for field in schema if pa.types.is_float64(field.type)]
    encoded = {"position": "DELTA_BINARY_PACKED"} | dict.fromkeys(fractions, "BYTE_STREAM_SPLIT")
    options: dict[str, Any] = {
        "compression": "zstd",
        "write_page_checksum": True,
        "use_dictionary": [name for name in schema.names if name not in encoded],
        "column_encoding": encoded,
    }
    rows = 0
    try:
        with temporary.open("wb") as file:
            with parquet.ParquetWriter(file, schema, **options) as writer:
                for table in _in_groups(tables):
                    writer.write_table(table, row_group_size=GROUP_ROWS)
                    rows += table.num_rows
            file.flush()
            os.fsync(file.fileno())
        _verify(temporary, rows)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return rows


def _in_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows in tables of GROUP_ROWS; the last one may be shorter."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        while rows >= GROUP_ROWS:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, GROUP_ROWS)
            waiting = [whole.slice(GROUP_ROWS)]
            rows -= GROUP_ROWS
    if rows:
        yield pa.concat_tables(waiting)


def _verify(temporary: Path, rows: int) -> None:
    found, reached = 0, -1
    with opened(temporary) as file:
        for group in range(file.metadata.num_row_groups):
            table = file.read_row_group(group)
            found += table.num_rows
            reached = last_of(table, reached, temporary)
    if found != rows:
        raise LogDamaged(
            f"{rows} rows were written to {temporary}, and {found} are read back: the disk does "
            "not return what was written. Check it; the log is unchanged"
        )


def last_of(table: pa.Table, reached: int, path: Path) -> int:
    """The last position in `table`. Raises LogDamaged unless all increase from `reached`."""
    import numpy as np

    places = table["position"].to_numpy()
    # A NULL position reads as NaN, and no difference to it is positive.
    if not (np.diff(places, prepend=reached) > 0).all():
        raise LogDamaged(
            f"{path} does not hold positions in order, each once, after {reached}: it is no file "
            "that was logged here. Move it away: its positions are then missing from the log"
        )
    return int(places[-1]) if len(places) else reached


def remove(folder: Path, paths: Iterable[Path]) -> None:
    """Remove files, durably; a missing file is no error.

    The new names in the folder are made durable before.
    """
    atomic_file.sync_folder(folder)
    for path in paths:
        path.unlink(missing_ok=True)
    atomic_file.sync_folder(folder)
