"""The files of one prediction log: which are there, what is in them, and a new one written aside.

Part of the door `predictions`. Another process may merge files while this one looks at them: what
is listed here may be gone when it is opened. Which files are merged, cut or removed is decided
elsewhere.
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
"""Rows in one piece of a large file; DuckDB's own number, so that its threads share a file well."""


class LogDamaged(ThermodriftError, OSError):
    """A file of the log is not what was written."""


def names(folder: Path) -> list[str]:
    """Everything that lies in the folder, the log's or not; nothing where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except FileNotFoundError:
        return []


def listed(
    folder: Path, wanted: Callable[[Span], bool] = lambda _: True
) -> list[tuple[Path, Span]]:
    """The files of the log whose span is `wanted`, in order. What is superseded is among them."""
    spans = ((name, log_segments.parse(name)) for name in names(folder))
    found = [(folder / name, span) for name, span in spans if span is not None and wanted(span)]
    return sorted(found, key=lambda file: file[1])


def replaced(folder: Path) -> list[tuple[Path, Span]]:
    """The files of the log that are superseded."""
    left_out = set(log_segments.superseded(names(folder)))
    return listed(folder, lambda span: log_segments.name(span) in left_out) if left_out else []


def current(files: list[tuple[Path, Span]]) -> list[tuple[Path, Span]]:
    """The same files without those that another one among them supersedes."""
    left_out = set(log_segments.superseded(path.name for path, _ in files))
    return [(path, span) for path, span in files if path.name not in left_out]


def holding(folder: Path, first: int, last: int) -> list[tuple[Path, Span]]:
    """The current files that hold positions from `first` to `last` (exclusive), as of one moment.

    A folder is listed entry by entry. Files that are merged meanwhile may so be missed, and the
    merged one as well: a hole. Where there is one, the folder is listed until nothing changes.
    """

    def look() -> list[tuple[Path, Span]]:
        # What supersedes one of these files holds a position of the range too, and is among them.
        return current(listed(folder, lambda span: span.first < last and span.last > first))

    files = look()
    while _has_hole([span for _, span in files], first, last):
        again = look()
        if again == files:
            break
        files = again
    return files


def _has_hole(spans: list[Span], first: int, last: int) -> bool:
    if not spans or spans[0].first > first or spans[-1].last < last:
        return True
    return any(left.last < right.first for left, right in pairwise(spans))


@contextmanager
def opened(path: Path) -> Iterator[parquet.ParquetFile]:
    """A file of the log, its checksums verified as it is read.

    Raises FileNotFoundError, and LogDamaged for what else cannot be read.
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
    """The rows of one file from position `first` to `last` (exclusive), in pieces; at least one.

    Pieces that lie outside are not read. Raises FileNotFoundError, LogDamaged.
    """
    import pyarrow.compute as pc

    with opened(path) as file:
        yield file.schema_arrow.empty_table()
        for group in range(file.metadata.num_row_groups):
            if _may_hold(file, group, first, last):
                table = file.read_row_group(group)
                place = table["position"]
                yield table.filter(pc.and_(pc.greater_equal(place, first), pc.less(place, last)))


def _may_hold(file: parquet.ParquetFile, group: int, first: int, last: int) -> bool:
    column = file.metadata.row_group(group).column(file.schema_arrow.get_field_index("position"))
    known = column.statistics
    return known is None or not known.has_min_max or (known.min < last and known.max >= first)


def amended(path: Path, rows: pa.Table) -> Iterator[pa.Table]:
    """The rows of one file in pieces, with `rows` in place of what is there of their positions.

    `rows` are in the order of their positions; a column that the file does not have is left out.
    Raises FileNotFoundError, LogDamaged.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    with opened(path) as file:
        schema = file.schema_arrow
        waiting = pa.table({field.name: _as(rows, field) for field in schema}, schema=schema)
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


def _as(rows: pa.Table, field: pa.Field) -> pa.Array:
    import pyarrow as pa

    if field.name not in rows.column_names:
        return pa.nulls(rows.num_rows, field.type)
    return rows[field.name].cast(field.type)


def write_aside(aside: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write `tables` to a new file, durably, a row group at a time; answers the number of rows.

    What was written is read back. Raises OSError where the disk refuses, LogDamaged where it does
    not give back what it was given; whatever is raised, nothing is left aside.
    """
    from pyarrow import parquet

    rows = 0
    try:
        with aside.open("wb") as file:
            with parquet.ParquetWriter(file, schema, **_written(schema)) as writer:
                for table in _in_groups(tables):
                    writer.write_table(table, row_group_size=GROUP_ROWS)
                    rows += table.num_rows
            file.flush()
            os.fsync(file.fileno())
        _check(aside, rows)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return rows


def _written(schema: pa.Schema) -> dict[str, Any]:
    """How a large file is written: a third smaller, and read faster, than with the defaults.

    Positions are kept as differences, fractions byte by byte; labels and versions repeat.
    """
    import pyarrow as pa

    fractions = [field.name for field in schema if pa.types.is_float64(field.type)]
    encoded = {"position": "DELTA_BINARY_PACKED"} | dict.fromkeys(fractions, "BYTE_STREAM_SPLIT")
    return {
        "compression": "zstd",
        "write_page_checksum": True,
        "use_dictionary": [name for name in schema.names if name not in encoded],
        "column_encoding": encoded,
    }


def _in_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of GROUP_ROWS, the last one shorter."""
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


def _check(aside: Path, rows: int) -> None:
    found, reached = 0, -1
    with opened(aside) as file:
        for group in range(file.metadata.num_row_groups):
            table = file.read_row_group(group)
            found += table.num_rows
            reached = last_of(table, reached, aside)
    if found != rows:
        raise LogDamaged(
            f"{rows} rows were written to {aside}, and {found} are read back: the disk does not "
            "keep what it is given. Check it; the log is what it was"
        )


def last_of(table: pa.Table, reached: int, path: Path) -> int:
    """The last position in `table`. Raises LogDamaged unless all increase, from above `reached`."""
    import numpy as np

    places = table["position"].to_numpy()
    # A position that is NULL reads as NaN, and no difference to it is above nothing.
    if not (np.diff(places, prepend=reached) > 0).all():
        raise LogDamaged(
            f"{path} does not hold positions in order, each once, after {reached}: it is no file "
            "that was logged here. Move it away: its positions are then missing from the log"
        )
    return int(places[-1]) if len(places) else reached


def remove(folder: Path, paths: Iterable[Path]) -> None:
    """Remove files, durably; one that is gone already is no matter.

    What replaces them has its name for good first.
    """
    atomic_file.sync_folder(folder)
    for path in paths:
        path.unlink(missing_ok=True)
    atomic_file.sync_folder(folder)
