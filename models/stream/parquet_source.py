"""One Parquet file of a stream, read by row groups.

Part of the stream adapter. A Parquet file grows when it is rewritten with more rows. It stays open
between consecutive readings, and is opened again when its inode, size or time of change differs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
    ParsedRows,
    StreamChanged,
    StreamOptions,
    StreamUnreadable,
)
from models.stream.parsing import cells, columns
from models.stream.parsing.columns import Plan, Read
from models.stream.parsing.timestamps import UNITS
from models.stream.row_digest import RowDigest
from models.stream.schema_inference import SchemaSample

_MOST_ROWS = 10_000
"""Rows that are decoded at once; fewer if they are wide."""
_DECODED_BYTES = 16 << 20
_BUFFER_BYTES = 1 << 16


@dataclass
class _Held:
    """The open file, and the position of the next row. `rows` are decoded and not yet returned."""

    stamp: tuple[int, ...]
    file: pq.ParquetFile
    checked: Plan | None = None
    new_columns: tuple[str, ...] = ()
    """Columns that the schema does not have."""
    position: int = 0
    rows: pa.RecordBatch | None = None
    slices: Iterator[pa.RecordBatch] | None = None
    same_until: dict[int, str] = field(default_factory=dict)
    """Positions before which the rows are verified to be unchanged, and the digest of these."""

    @property
    def stamped(self) -> str:
        """The stamp as text, for a cursor."""
        return "-".join(map(str, self.stamp))


class ParquetFile:
    """A Parquet file of flat columns."""

    def __init__(self, path: Path, options: StreamOptions) -> None:
        self._path = path
        self._options = options
        self._held: _Held | None = None

    def schema_sample(self) -> SchemaSample:
        """Read the types and the first rows. Raises BadStream, StreamUnreadable."""
        with self._reading():
            file = self._open().file
            schema = file.schema_arrow
            names = schema_inference.named(self._path, schema.names, self._options)
            schema_inference.check_names(self._path, names, self._options)
            wanted = [*schema_inference.features_of(names, self._options), self._options.target]
            types = {name: _kind(schema.field(name).type) for name in wanted}
            usual = [name for name in wanted if types[name] in USUAL]
            pieces, left = [], self._options.sample
            slices = file.iter_batches(
                batch_size=min(left, _MOST_ROWS), columns=usual, use_threads=False
            )
            while left > 0 and (piece := next(slices, None)) is not None:
                pieces.append(piece.slice(0, left).select(usual))
                left -= piece.num_rows
            head = pa.Table.from_batches(pieces, pa.schema([schema.field(name) for name in usual]))
        if file.metadata.num_rows == 0:
            raise BadStream(f"{self._path}: there is no row to begin with; stream.path names it")
        values = {name: _cells(head.column(name).combine_chunks()) for name in usual}
        return SchemaSample(names, {name: values.get(name, []) for name in wanted}, types=types)

    def read(self, plan: Plan, cursor: Cursor, size: int) -> Batch:
        """The next `size` records at most. Raises StreamChanged, StreamUnreadable."""
        with self._reading():
            held = self._open_for(plan)
            rows = held.file.metadata.num_rows
            if rows < max(cursor.size, cursor.position):
                most = max(cursor.size, cursor.position)
                raise self._changed(f"it had {most} rows and has {rows}")
            if held.stamped != cursor.stamp and cursor.position and cursor.digest:
                self._verify(held, plan, cursor)
            self._seek(held, plan, cursor.position)
            known = cursor.digest or not cursor.position
            return self._batch(held, plan, size, RowDigest.read(cursor.digest) if known else None)

    def between(self, plan: Plan, first: int, last: int, cursors: Sequence[Cursor]) -> Batch:
        """The records first..last-1, or as many of them as there are.

        The rows before the newest of `cursors` must be unchanged. Raises StreamChanged.
        """
        newest = cursors[-1] if cursors else None
        with self._reading():
            held = self._open_for(plan)
            if newest is not None and newest.digest and held.stamped != newest.stamp:
                self._verify(held, plan, newest)
            self._seek(held, plan, min(first, held.file.metadata.num_rows))
            return self._batch(held, plan, last - held.position)

    def done_fraction(self, cursor: Cursor) -> float | None:
        """The share of rows before the cursor; None if unknown."""
        total = self.total_hint()
        return min(1.0, cursor.position / total) if total else None

    def total_hint(self) -> int | None:
        """The number of rows; None if the file cannot be read."""
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
                "again when it is whole (write another file, then rename it); otherwise restore it"
            ) from error

    def _open(self) -> _Held:
        status = self._path.stat()
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._held is None or self._held.stamp != stamp:
            file = pq.ParquetFile(self._path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            self._held = _Held(stamp, file)
        return self._held

    def _open_for(self, plan: Plan) -> _Held:
        """The open file, after a check of its columns against the plan. Raises StreamChanged."""
        held = self._open()
        if held.checked is not plan:
            arrow = held.file.schema_arrow
            names = schema_inference.named(self._path, arrow.names, self._options)
            new = schema_inference.check_pinned(self._path, names, plan.schema, self._options)
            gone = [name for name in plan.schema.sources if name not in names]
            if gone:
                # The digest of the earlier rows contains these values.
                raise self._changed(
                    f"column {gone[0]!r} is gone, and with it values that were read (write it "
                    "further on, blank in new rows, and name it in stream.ignore)"
                )
            for column in plan.schema.columns:
                kind = _kind(arrow.field(column.source).type)
                if column.part is not None:
                    fits = kind in {"time", "category" if column.time == "iso" else "number"}
                else:
                    is_free = kind in {"number", "category"} and column.source in plan.free
                    fits = kind == column.kind or is_free
                if column.source not in plan.ignored and not fits:
                    raise self._changed(
                        f"column {column.source!r} was a {'time' if column.part else column.kind} "
                        f"and holds {arrow.field(column.source).type} now (if it was empty so far, "
                        "stream.ignore goes on with it as missing)"
                    )
            held.checked, held.new_columns = plan, tuple(new)
        return held

    def _verify(self, held: _Held, plan: Plan, cursor: Cursor) -> None:
        """Verify that the values before the cursor are unchanged. Raises StreamChanged.

        They are read again each time the file was rewritten with more rows.
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
        """Make `position` the next row; at most one row group is decoded for that."""
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
        groups = map(metadata.row_group, range(metadata.num_row_groups))
        widest = max((each.total_byte_size / max(1, each.num_rows) for each in groups), default=1)
        held.slices = held.file.iter_batches(
            batch_size=int(max(1, min(_MOST_ROWS, _DECODED_BYTES / max(1, widest)))),
            row_groups=range(group, metadata.num_row_groups),
            columns=[*plan.schema.sources, plan.schema.target],
            use_threads=False,
        )
        for _ in self._rows(held, position - start):
            pass

    def _rows(self, held: _Held, size: int) -> Iterator[pa.RecordBatch]:
        """The next `size` rows at most, in pieces; advances after each piece."""
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
            builder.add(_parsed(plan, piece), piece.num_rows, partial(_raw, piece))
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


USUAL = frozenset({"number", "category", "time"})
"""Kinds that can be features; for any other type, `_kind` returns its name."""


def _kind(of: pa.DataType) -> str:
    """The kind of a column of this type; the name of the type if it can be no feature."""
    if pa.types.is_dictionary(of):
        return _kind(of.value_type)
    types = pa.types
    if types.is_integer(of) or types.is_floating(of) or types.is_decimal(of) or types.is_null(of):
        return "number"
    is_text = types.is_string(of) or types.is_large_string(of) or types.is_string_view(of)
    if types.is_boolean(of) or is_text:
        return "category"
    if pa.types.is_timestamp(of) or pa.types.is_date(of):
        return "time"
    return str(of)


def _parsed(plan: Plan, rows: pa.RecordBatch) -> ParsedRows:
    arrays = {name: _plain(rows.column(name)) for name in rows.schema.names}
    target = plan.schema.target
    if plan.schema.label_kind == "float" and _kind(arrays[target].type) == "number":
        labels = columns.numbers_from_floats(_floats(arrays[target]), plan.target, plan.largest)
    else:
        labels = _each_distinct(rows.column(target), partial(columns.labels_from_values, plan))

    def feature(column: Column) -> Read:
        array = arrays[column.source]
        if column.kind == "number" and _kind(array.type) == "number":
            where = f"column {column.source!r}"
            return columns.numbers_from_floats(_floats(array), where, plan.largest)
        return _each_distinct(array, partial(columns.feature_from_values, plan, column))

    def moments(source: str, form: TimeForm) -> Read:
        array = arrays[source]
        if _kind(array.type) == "time":
            return Read(pa.array(_seconds(array), from_pandas=True), {})
        where, read = f"column {source!r}", cells.moment_from_value
        return _each_distinct(
            array, lambda values: columns.moments(values, where, form, plan.largest, read)
        )

    return columns.assemble(plan, columns.features(plan, rows.num_rows, feature, moments), labels)


def _each_distinct(array: pa.Array, read: Callable[[list[Any]], Read]) -> Read:
    """Read a column, each distinct value once."""
    coded = array.dictionary_encode()
    if pa.types.is_decimal(coded.dictionary.type):
        # A decimal without a fraction is a whole number, however large.
        exact = [
            None if cell is None else int(cell) if cell == cell.to_integral_value() else float(cell)
            for cell in coded.dictionary.to_pylist()
        ]
    else:
        exact = _values(coded.dictionary)
    once = read(exact)
    faults = {}
    if once.faults:
        codes = enumerate(coded.indices.to_pylist())
        faults = {index: once.faults[code] for index, code in codes if code in once.faults}
    return Read(once.values.take(coded.indices), faults)


def _seconds(array: pa.Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Seconds since 1970 of a timestamp or a date, shape (records,), NaN for null.

    A time with a zone is stored in UTC; one without is read as UTC. In any unit, the same moment is
    the same number, down to a microsecond.
    """
    if pa.types.is_date32(array.type):
        return _floats(pc.cast(array, pa.int32())) * 86_400.0
    unit: TimeForm = "ms" if pa.types.is_date64(array.type) else array.type.unit
    whole = pc.cast(array, pa.int64())
    if unit == "ns":
        whole, unit = pc.divide(whole, 1000), "us"
    seconds: np.ndarray[Any, np.dtype[np.float64]] = _floats(whole) / UNITS[unit]
    return seconds


def _cells(array: pa.Array) -> list[Any]:
    """Cells as Python values; times are seconds since 1970, since datetime has not every time."""
    plain = _plain(array)
    if _kind(plain.type) != "time":
        return _values(plain)
    return [None if moment != moment else moment for moment in _seconds(plain).tolist()]


def _with_rows(digest: RowDigest, first: int, rows: pa.RecordBatch) -> RowDigest:
    """Add these rows to the digest; `first` is the position of the first one."""
    for name, array in zip(rows.schema.names, rows.columns, strict=True):
        plain = _plain(array)
        kind = _kind(plain.type)
        if kind == "number":
            floats = _floats(plain)
            digest = digest.with_numbers(name, first, floats)
            # As floats, neighbours of this size are equal.
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
    """The array without a dictionary; decimals become floats, by way of their text."""
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
        values = array.cast(pa.binary()).to_pylist()
        for index, cell in enumerate(values):
            with suppress(UnicodeDecodeError):
                values[index] = None if cell is None else cell.decode()
    return values


def _raw(rows: pa.RecordBatch, index: int) -> str:
    row = rows.slice(index, 1)
    values = {
        name: _cells(array)[0] for name, array in zip(row.schema.names, row.columns, strict=True)
    }
    return json.dumps(values, ensure_ascii=False, default=repr)
