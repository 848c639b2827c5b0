"""One Parquet file of a stream, read row group by row group.

Part of the stream's door, and the one file of it that knows pyarrow. A Parquet file grows by being
rewritten with more rows. It stays open between readings that follow one another, and is opened
again when its inode, its size or its time of change is another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.core.record_schema import Column, TimeForm
from models.stream import schema_inference
from models.stream.batches import (
    BadStream,
    Batch,
    BatchBuilder,
    Cursor,
    Notice,
    StreamChanged,
    StreamOptions,
    StreamUnreadable,
    Taken,
)
from models.stream.parsing import cells, columns
from models.stream.parsing.columns import Plan, Read
from models.stream.parsing.timestamps import UNITS
from models.stream.row_digest import RowDigest
from models.stream.schema_inference import SchemaSample

_MOST_ROWS = 10_000
"""Rows that are decoded in one go, fewer where they are wide."""
_DECODED_BYTES = 16 << 20
_BUFFER_BYTES = 1 << 16


@dataclass
class _Held:
    """The open file, and where in it the next row is. `rows` are decoded and not yet given."""

    stamp: tuple[int, ...]
    file: pq.ParquetFile
    checked: Plan | None = None
    new_columns: tuple[str, ...] = ()
    """Columns that the schema does not have."""
    position: int = 0
    rows: pa.RecordBatch | None = None
    slices: Iterator[pa.RecordBatch] | None = None
    same_until: dict[int, str] = field(default_factory=dict)
    """Positions up to which the past is known to be as it was read, and its digest there."""

    @property
    def stamped(self) -> str:
        """The stamp as a cursor keeps it."""
        return "-".join(map(str, self.stamp))


class ParquetFile:
    """A Parquet file of flat columns."""

    def __init__(self, path: Path, options: StreamOptions) -> None:
        self._path = path
        self._options = options
        self._held: _Held | None = None

    def survey(self) -> SchemaSample:
        """Look at the types and the first rows. Raises BadStream, StreamUnreadable."""
        with self._reading():
            file = self._open().file
            schema = file.schema_arrow
            names = schema_inference.named(self._path, schema.names, self._options)
            schema_inference.check_names(self._path, names, self._options)
            wanted = [*schema_inference.features_of(names, self._options), self._options.target]
            types = {name: _kind(schema.field(name).type) for name in wanted}
            usual = [name for name in wanted if types[name] in USUAL]
            head = self._head(file, usual)
        if file.metadata.num_rows == 0:
            raise BadStream(f"{self._path}: there is no row to begin with; stream.path names it")
        values = {name: _told(head.column(name).combine_chunks()) for name in usual}
        return SchemaSample(names, {name: values.get(name, []) for name in wanted}, types=types)

    def read(self, plan: Plan, cursor: Cursor, size: int) -> Batch:
        """The next `size` records at most. Raises StreamChanged, StreamUnreadable."""
        with self._reading():
            held = self._open_for(plan)
            self._check(held, plan, cursor)
            known = cursor.digest or not cursor.position
            return self._batch(held, plan, size, RowDigest.read(cursor.digest) if known else None)

    def between(self, plan: Plan, first: int, last: int, newest: Cursor | None = None) -> Batch:
        """The records first..last-1, or as many of them as there are.

        `newest` is a cursor up to which the past must be as it was read. Raises StreamChanged.
        """
        with self._reading():
            held = self._open_for(plan)
            if newest is not None and newest.digest and held.stamped != newest.stamp:
                self._verify(held, plan, newest)
            self._seek(held, plan, min(first, held.file.metadata.num_rows))
            return self._batch(held, plan, last - held.position)

    def done_fraction(self, cursor: Cursor) -> float | None:
        """Rows gone through, of those there are; None where that is not known."""
        total = self.total_hint()
        return min(1.0, cursor.position / total) if total else None

    def total_hint(self) -> int | None:
        """How many rows there are, exactly; None while the file cannot be read."""
        try:
            with self._reading():
                rows: int = self._open().file.metadata.num_rows
        except StreamUnreadable:
            return None
        return rows

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            self._held = None
            raise StreamUnreadable(
                f"{self._path} cannot be read as Parquet ({error}): if it is being written, try "
                "again when it is whole (write aside and rename); otherwise restore it"
            ) from error

    def _open(self) -> _Held:
        status = self._path.stat()
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._held is None or self._held.stamp != stamp:
            file = pq.ParquetFile(self._path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            self._held = _Held(stamp, file)
        return self._held

    def _open_for(self, plan: Plan) -> _Held:
        """The open file, whose columns are those of the plan. Raises StreamChanged."""
        held = self._open()
        if held.checked is not plan:
            arrow = held.file.schema_arrow
            names = schema_inference.named(self._path, arrow.names, self._options)
            new = schema_inference.check_pinned(self._path, names, plan.schema, self._options)
            gone = [name for name in plan.schema.sources if name not in names]
            if gone:
                # The digest of the past has them in it.
                raise self._changed(
                    f"column {gone[0]!r} is gone, and with it values that were read (write it "
                    "further on, blank in new rows, and name it in stream.ignore)"
                )
            for column in plan.schema.columns:
                if column.source not in plan.ignored and not _suits(column, arrow, plan):
                    raise self._changed(
                        f"column {column.source!r} was a {'time' if column.part else column.kind} "
                        f"and holds {arrow.field(column.source).type} now (if it was empty so far, "
                        "stream.ignore goes on with it as missing)"
                    )
            held.checked, held.new_columns = plan, tuple(new)
        return held

    def _check(self, held: _Held, plan: Plan, cursor: Cursor) -> None:
        """Stand at the cursor, behind a past that is as it was read. Raises StreamChanged."""
        rows = held.file.metadata.num_rows
        if rows < max(cursor.size, cursor.position):
            raise self._changed(f"it had {max(cursor.size, cursor.position)} rows and has {rows}")
        if cursor.position == 0:
            self._seek(held, plan, 0)
            return
        if held.stamped != cursor.stamp and cursor.digest:
            self._verify(held, plan, cursor)
        self._seek(held, plan, cursor.position)

    def _verify(self, held: _Held, plan: Plan, cursor: Cursor) -> None:
        """The values before the cursor are those that were read. Raises StreamChanged.

        They are read once more, each time that the file was rewritten with more rows.
        """
        if held.same_until.get(cursor.position) == cursor.digest:
            return
        self._seek(held, plan, 0)
        digest = RowDigest()
        for piece in self._rows(held, cursor.position):
            digest = _with_rows(digest, held.position - piece.num_rows, piece)
        if digest.text != cursor.digest:
            raise self._changed(
                f"some of the {cursor.position} rows that were read hold other values now"
            )
        held.same_until[cursor.position] = cursor.digest

    def _changed(self, what: str) -> StreamChanged:
        return StreamChanged(
            f"{self._path} was rewritten: {what}. A stream may only grow: bring the old file back, "
            "or start a pipeline under another name"
        )

    def _seek(self, held: _Held, plan: Plan, position: int) -> None:
        """Make `position` the next row: at most one row group is decoded to get there."""
        if held.position == position and held.slices is not None:
            return
        metadata = held.file.metadata
        group = start = 0
        while group < metadata.num_row_groups:
            rows = metadata.row_group(group).num_rows
            if position < start + rows:
                break
            start, group = start + rows, group + 1
        held.rows, held.position = None, start
        held.slices = held.file.iter_batches(
            batch_size=_rows_at_once(metadata),
            row_groups=range(group, metadata.num_row_groups),
            columns=[*plan.schema.sources, plan.schema.target],
            use_threads=False,
        )
        for _ in self._rows(held, position - start):
            pass

    def _rows(self, held: _Held, size: int) -> Iterator[pa.RecordBatch]:
        """The next `size` rows at most, in pieces; moves on behind each."""
        assert held.slices is not None
        while size > 0:
            if held.rows is None or held.rows.num_rows == 0:
                held.rows = next(held.slices, None)
                if held.rows is None:
                    return
            piece = held.rows.slice(0, size)
            held.rows = held.rows.slice(piece.num_rows)
            held.position += piece.num_rows
            size -= piece.num_rows
            if piece.num_rows:
                yield piece

    def _batch(self, held: _Held, plan: Plan, size: int, digest: RowDigest | None = None) -> Batch:
        first = held.position
        builder = BatchBuilder(plan.schema, first)
        for piece in self._rows(held, size):
            if digest is not None:
                digest = _with_rows(digest, builder.position, piece)
            builder.add(_take(plan, piece), piece.num_rows, partial(_raw, piece))
        count = builder.position - first
        if count:
            builder.notices += [
                Notice("new column", name, first, count, "") for name in held.new_columns
            ]
        total = held.file.metadata.num_rows
        after = Cursor(
            position=builder.position,
            size=total,
            digest="" if digest is None else digest.text,
            stamp=held.stamped,
        )
        return builder.batch(after, ended=builder.position >= total)

    def _head(self, file: pq.ParquetFile, names: list[str]) -> pa.Table:
        """The first rows of these columns, as many as the sample has."""
        wanted = self._options.sample
        slices = file.iter_batches(
            batch_size=min(wanted, _MOST_ROWS), columns=names, use_threads=False
        )
        pieces = []
        while wanted > 0 and (piece := next(slices, None)) is not None:
            pieces.append(piece.slice(0, wanted))
            wanted -= piece.num_rows
        schema = pa.schema([file.schema_arrow.field(name) for name in names])
        return pa.Table.from_batches([piece.select(names) for piece in pieces], schema)


USUAL = frozenset({"number", "category", "time"})
"""Types that can be features; of any other, `_kind` gives its own name."""


def _kind(of: pa.DataType) -> str:
    """What a column of this type is; its own name where it can be no feature."""
    if pa.types.is_dictionary(of):
        return _kind(of.value_type)
    if pa.types.is_integer(of) or pa.types.is_floating(of) or pa.types.is_decimal(of):
        return "number"
    if pa.types.is_null(of):
        return "number"
    if pa.types.is_boolean(of) or _is_text(of):
        return "category"
    if pa.types.is_timestamp(of) or pa.types.is_date(of):
        return "time"
    return str(of)


def _suits(column: Column, arrow: pa.Schema, plan: Plan) -> bool:
    """Whether a column still holds what the pipeline began with."""
    kind = _kind(arrow.field(column.source).type)
    if column.part is not None:
        return kind == "time" or kind == ("category" if column.time == "iso" else "number")
    return kind == column.kind or (kind in {"number", "category"} and column.source in plan.free)


def _is_text(of: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(of) or pa.types.is_large_string(of) or pa.types.is_string_view(of)
    )


def _rows_at_once(metadata: pq.FileMetaData) -> int:
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    widest = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=1)
    return int(max(1, min(_MOST_ROWS, _DECODED_BYTES / max(1, widest))))


def _take(plan: Plan, rows: pa.RecordBatch) -> Taken:
    arrays = {name: _plain(rows.column(name)) for name in rows.schema.names}
    target = plan.schema.target
    if plan.schema.label_kind == "float" and _kind(arrays[target].type) == "number":
        labels = columns.numbers_from_floats(_floats(arrays[target]), plan.target, plan.largest)
    else:
        labels = _each_distinct(rows.column(target), partial(columns.labels_from_values, plan))
    features = columns.features(
        plan,
        rows.num_rows,
        lambda column: _feature(plan, column, arrays[column.source]),
        lambda source, form: _moments(plan, source, form, arrays[source]),
    )
    return columns.assemble(plan, features, labels)


def _feature(plan: Plan, column: Column, array: pa.Array) -> Read:
    if column.kind == "number" and _kind(array.type) == "number":
        where = f"column {column.source!r}"
        return columns.numbers_from_floats(_floats(array), where, plan.largest)
    return _each_distinct(array, partial(columns.feature_from_values, plan, column))


def _moments(plan: Plan, source: str, form: TimeForm, array: pa.Array) -> Read:
    """A column of times in seconds since 1970."""
    if _kind(array.type) == "time":
        return Read(pa.array(_seconds(array), from_pandas=True), {})
    where, read = f"column {source!r}", cells.moment_from_value
    return _each_distinct(
        array, lambda values: columns.moments(values, where, form, plan.largest, read)
    )


def _each_distinct(array: pa.Array, read: Callable[[list[Any]], Read]) -> Read:
    """A column of which every distinct value is read once."""
    coded = array.dictionary_encode()
    once = read(_exact(coded.dictionary))
    faults = {}
    if once.faults:
        codes = enumerate(coded.indices.to_pylist())
        faults = {index: once.faults[code] for index, code in codes if code in once.faults}
    return Read(once.values.take(coded.indices), faults)


def _seconds(array: pa.Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Seconds since 1970 of a timestamp or a date, shape (records,), NaN for null.

    A time with a zone is kept in UTC; one without is taken as it stands. Whatever the unit, the
    same moment is the same number, down to a microsecond.
    """
    if pa.types.is_date32(array.type):
        return _floats(pc.cast(array, pa.int32())) * 86_400.0
    unit: TimeForm = "ms" if pa.types.is_date64(array.type) else array.type.unit
    whole = pc.cast(array, pa.int64())
    if unit == "ns":
        whole, unit = pc.divide(whole, 1000), "us"
    seconds: np.ndarray[Any, np.dtype[np.float64]] = _floats(whole) / UNITS[unit]
    return seconds


def _told(array: pa.Array) -> list[Any]:
    """Cells as Python values, times in seconds since 1970: no calendar has every moment."""
    plain = _plain(array)
    if _kind(plain.type) != "time":
        return _values(plain)
    return [None if moment != moment else moment for moment in _seconds(plain).tolist()]


def _exact(array: pa.Array) -> list[Any]:
    """Cells as Python values; a decimal that is whole is a whole number, however large."""
    if not pa.types.is_decimal(array.type):
        return _values(array)
    return [
        None if cell is None else int(cell) if cell == cell.to_integral_value() else float(cell)
        for cell in array.to_pylist()
    ]


def _with_rows(digest: RowDigest, first: int, rows: pa.RecordBatch) -> RowDigest:
    """The digest with these rows, the first of which is at position `first`."""
    for name, array in zip(rows.schema.names, rows.columns, strict=True):
        plain = _plain(array)
        kind = _kind(plain.type)
        if kind == "number":
            floats = _floats(plain)
            digest = digest.with_numbers(name, first, floats)
            # A float does not tell neighbours of this size apart.
            large = np.flatnonzero(np.abs(floats) > cells.LARGEST_CLASS)
            if len(large) and pa.types.is_integer(plain.type):
                exact = _values(plain.take(pa.array(large)))
                digest = digest.with_some(name, first + large, exact)
        elif kind == "time":
            digest = digest.with_numbers(name, first, _seconds(plain))
        else:
            coded = plain.dictionary_encode()
            codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.intp)
            digest = digest.with_texts(name, first, _values(coded.dictionary), codes)
    return digest


def _plain(array: pa.Array) -> pa.Array:
    """The array without a dictionary, and decimals as the floats that their texts spell."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not pa.types.is_decimal(array.type):
        return array
    return pc.cast(pc.cast(array, pa.string()), pa.float64())


def _floats(array: pa.Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Shape (records,), NaN for null. Whole numbers beyond 2^53 lose their last digits."""
    floats = pc.cast(array, pa.float64(), safe=False)
    return np.asarray(floats.to_numpy(zero_copy_only=False), dtype=np.float64)


def _values(array: pa.Array) -> list[Any]:
    """Python values, None for null; bytes where a text is not valid UTF-8."""
    try:
        values: list[Any] = array.to_pylist()
    except UnicodeDecodeError:
        return [_text_or_bytes(cell) for cell in array.cast(pa.binary()).to_pylist()]
    return values


def _text_or_bytes(cell: bytes | None) -> str | bytes | None:
    try:
        return None if cell is None else cell.decode()
    except UnicodeDecodeError:
        return cell


def _raw(rows: pa.RecordBatch, index: int) -> str:
    row = rows.slice(index, 1)
    values = {
        name: _told(array)[0] for name, array in zip(row.schema.names, row.columns, strict=True)
    }
    return json.dumps(values, ensure_ascii=False, default=repr)
