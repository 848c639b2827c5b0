"""Door to the stream: labelled records in arrival order, from a file that may grow.

A stream has positions (0, 1, 2, ... of its records, rejects included) and is read from a cursor
in batches. Every record is either a row that is fit to learn from or a reject with its reason;
reading never stops at a bad one. It decides nothing and learns nothing.

The parts: `intake` (options, cursors, batches, errors), `cells` and `columns` (what a cell may
be), `survey` (which schema a file has), `charset` and `unpacking` (from bytes to characters),
`formats`, `text` and `text_file` (CSV and JSON lines), `parquet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.core.record_schema import Schema, Task
from models.stream import decompression, schema_inference
from models.stream.batches import (
    BadStream,
    Batch,
    BatchBuilder,
    Cursor,
    Format,
    Notice,
    Records,
    Reject,
    StreamChanged,
    StreamOptions,
    StreamUnreadable,
    downsample,
)
from models.stream.parsing.columns import Plan
from models.stream.text_source import TextFile

if TYPE_CHECKING:
    from models.stream.parquet_source import ParquetFile

__all__ = [
    "BadStream",
    "Batch",
    "Cursor",
    "Notice",
    "Records",
    "Reject",
    "Stream",
    "StreamChanged",
    "StreamOptions",
    "StreamUnreadable",
    "downsample",
]

_ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
"""After these a text file may have one of `unpacking.ENDINGS`, as in d.csv.gz."""
_SKIPPED = 10_000
"""Records that are read at a time to get to a position."""


class Stream:
    """The records of one file.

    The schema is inferred from the head of the file when it is first needed, or pinned by giving
    the one that a pipeline began with. Memory is bounded by the batch, whatever the file's size.
    """

    def __init__(
        self, path: Path, task: Task, options: StreamOptions, schema: Schema | None = None
    ) -> None:
        """Touches the file's name alone. Raises BadStream, and StreamChanged if the pinned schema
        has another target or task than is asked for."""
        self.path = path
        self.task = task
        self.options = options
        if schema is not None and (schema.target, schema.task) != (options.target, task):
            raise StreamChanged(
                f"{path}: this pipeline began with {schema.task} of {schema.target!r}, and "
                f"{task} of {options.target!r} is asked for: go back to that, or start a pipeline "
                "under another name"
            )
        self._schema = schema
        self._plan: Plan | None = None
        self._source = _source(path, options)

    @property
    def schema(self) -> Schema:
        """The pinned schema, or the inferred one. Raises BadStream, StreamUnreadable."""
        return self._known_plan().schema

    def read(self, cursor: Cursor, size: int | None = None) -> Batch:
        """Up to `size` records from the cursor on, rejects counted (default: options.batch).

        However reading is cut, the records are the same. Fewer than `size` come where there are no
        more right now, or where 64 MiB of text are reached. Raises StreamChanged if the file is no
        longer the one of the cursor, StreamUnreadable if it cannot be read, BadStream.
        """
        self._check_path()
        size = self.options.batch if size is None else size
        if size < 1:
            raise ValueError(f"a batch has at least one record; came: {size}")
        return self._source.read(self._known_plan(), cursor, size)

    def between(self, first: int, last: int, marks: Sequence[Cursor] = ()) -> Batch:
        """The records first..last-1 again, as they were read the first time.

        `marks` are earlier `Batch.after`s in their order (see `downsample`), the newest last:
        reading starts at the nearest one before `first`, or at the beginning. Parquet needs the
        newest, up to which the past is held against what was read. Fewer records come if there are
        fewer. Raises as `read` does.
        """
        if not 0 <= first <= last:
            raise ValueError(f"a range of positions has 0 <= first <= last; came: {first}, {last}")
        self._check_path()
        plan = self._known_plan()
        if not isinstance(self._source, TextFile):
            return self._source.between(plan, first, last, marks[-1] if marks else None)
        cursor = _nearest(marks, first)
        while cursor.position < first:
            skipped = self.read(cursor, min(_SKIPPED, first - cursor.position))
            cursor = skipped.after
            if skipped.ended:
                break
        return self._gather(cursor, max(last, cursor.position))

    def done_fraction(self, cursor: Cursor) -> float | None:
        """How much of the file lies before the cursor, 0 to 1; None where that is not known."""
        return self._source.done_fraction(cursor)

    @property
    def total_hint(self) -> int | None:
        """How many records there are: exact for Parquet, about for text, None if unknown."""
        return self._source.total_hint()

    def _gather(self, cursor: Cursor, last: int) -> Batch:
        builder = BatchBuilder(self.schema, cursor.position)
        after, ended, unfinished = cursor, False, 0
        while builder.position < last and not ended:
            part = self.read(after, last - builder.position)
            builder.extend(part)
            after, ended, unfinished = part.after, part.ended, part.unfinished
        return builder.batch(after, ended=ended, unfinished=unfinished)

    def _known_plan(self) -> Plan:
        if self._plan is None:
            self._check_path()
            schema = self._schema
            if schema is None:
                found = self._source.survey()
                schema = schema_inference.schema_of(self.path, found, self.task, self.options)
            schema_inference.check_knobs(self.path, schema, self.options)
            self._plan = Plan(
                schema_inference.with_number_formats(schema, self.options),
                self.options.largest,
                free=frozenset([*self.options.numbers, *self.options.categories]),
                ignored=frozenset(self.options.ignore),
                unfit_is_missing=self.options.unfit_cells == "missing",
            )
        return self._plan

    def _check_path(self) -> None:
        try:
            is_file = self.path.is_file()
            exists = is_file or self.path.exists()
        except OSError as error:
            raise StreamUnreadable(
                f"{self.path} cannot be looked at ({error.strerror or error}): check the "
                "permissions of its folder"
            ) from error
        if not is_file:
            what = "is not a plain file" if exists else "is not there"
            raise BadStream(
                f"stream.path: {self.path} {what}; it must name a CSV, Parquet or JSON lines file "
                "(a relative path starts at the pipeline file)"
            )


def _source(path: Path, options: StreamOptions) -> TextFile | ParquetFile:
    ending = decompression.inner_ending(path)
    kind = _ENDINGS.get(ending) if options.format == "auto" else options.format
    if kind is None:
        raise BadStream(
            f"stream.path: {path} ends in none of {', '.join(_ENDINGS)} (a text file may have "
            f"{', '.join(decompression.ENDINGS)} after that): rename it, or say its "
            'stream.format: "csv", "parquet" or "jsonl"'
        )
    if kind == "parquet":
        if path.suffix.lower() in decompression.ENDINGS:
            raise BadStream(
                f"stream.path: {path} is a compressed Parquet file: unpack it (Parquet compresses "
                "its columns itself)"
            )
        from models.stream.parquet_source import ParquetFile  # pyarrow takes a while to import

        return ParquetFile(path, options)
    return TextFile(path, options, kind)


def _nearest(marks: Sequence[Cursor], first: int) -> Cursor:
    """The last mark at or before `first`, knowing every cut that the newest mark knows."""
    before = [mark for mark in marks if mark.position <= first]
    start = max(before, key=lambda mark: mark.position, default=Cursor())
    return start.model_copy(update={"cuts": marks[-1].cuts}) if marks else start
