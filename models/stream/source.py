"""The adapter of streams: labelled records in order of arrival, from a file or a service's inbox.

A stream has positions (0, 1, 2, ... of its records, rejects included), and is read in batches from
a cursor. Every record is either valid or a reject with a reason; reading never stops at a bad one.
It decides nothing and learns nothing.

The parts: `batches` (options, cursors, batches, errors), `schema_inference`, `decompression` and
`parsing.charset` (from bytes to characters), `text_source` and `text_records` (CSV, JSON lines),
`parquet_source`, `inbox_source`, `file_then_inbox`, and `parsing` (cells and columns).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.core.record_schema import Schema, Task
from models.stream import decompression, schema_inference
from models.stream.batches import (
    SERVICE,
    BadStream,
    Batch,
    BatchBuilder,
    Cursor,
    Format,
    NothingToBeginWith,
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
    from models.stream.file_then_inbox import FileSource
    from models.stream.inbox_source import InboxSource

__all__ = [
    "BadStream",
    "Batch",
    "Cursor",
    "NothingToBeginWith",
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
"""A text file may have one of `decompression.ENDINGS` after these, as in d.csv.gz."""


class Stream:
    """The records of one file, of one inbox, or of a file and then an inbox.

    The schema is inferred from the first records when it is first needed, unless the schema that a
    pipeline began with is given. Memory is bounded by the batch, whatever the file's size.
    """

    def __init__(
        self,
        path: Path,
        task: Task,
        options: StreamOptions,
        schema: Schema | None = None,
        inbox: Path | None = None,
        *,
        whole_lines: bool = False,
    ) -> None:
        """Does not open the file. `inbox` is that of the service that the options name.

        With `whole_lines` the last line of a text file is not read before its end is there; without
        it, it is once it looks complete.
        Raises BadStream, and StreamChanged if `schema` has another target or task.
        """
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
        self._examples = _examples(options, inbox)
        self._source = _source(path, options, self._examples, whole_lines)

    @property
    def schema(self) -> Schema:
        """The given schema, or the inferred one. Raises BadStream, StreamUnreadable."""
        return self._known_plan().schema

    def read(self, cursor: Cursor, size: int | None = None) -> Batch:
        """Up to `size` records from the cursor on, including rejects (default: options.batch).

        The records do not depend on how reading is divided. There are fewer than `size` at the end
        of the file, where an inbox follows it, or after 64 MiB of text. Raises StreamChanged if the
        file is not that of the cursor, StreamUnreadable if it cannot be read, BadStream.
        """
        self._check_path()
        if cursor.inbox is not None and self.options.service is None:
            raise StreamChanged(
                f"{self.path}: {cursor.inbox.read} labelled predictions of a service were read "
                "after the file, and the pipeline file names that service no more: write "
                f'then = "{SERVICE}NAME" under [stream] again, or start a pipeline under another '
                "name"
            )
        size = self.options.batch if size is None else size
        if size < 1:
            raise ValueError(f"a batch has at least one record; came: {size}")
        return self._source.read(self._known_plan(), cursor, size)

    def between(self, first: int, last: int, cursors: Sequence[Cursor] = ()) -> Batch:
        """The records first..last-1 again, as they were read the first time.

        `cursors` are earlier values of `Batch.after` in order (see `downsample`). Text is read from
        the last one before `first`, or from the beginning. The newest one says of Parquet that the
        rows before it must be unchanged, and where the examples of an inbox begin: so it must be
        that of the present position. Raises as `read` does.
        """
        if not 0 <= first <= last:
            raise ValueError(f"a range of positions has 0 <= first <= last; came: {first}, {last}")
        self._check_path()
        return self._source.between(self._known_plan(), first, last, cursors)

    def waiting(self, count: int) -> Records:
        """The newest predictions of the service that have no label, at most `count`.

        Their positions are mere numbers. None of them where there is no service. Raises as `read`.
        """
        if self._examples is None:
            return BatchBuilder(self.schema, 0).batch(Cursor(), ended=True)
        return self._examples.waiting(self._known_plan(), count)

    def counts(self) -> tuple[int, int] | None:
        """How many predictions the service recorded, and how many of them have no label.

        None where there is no service, or where that cannot be known now.
        """
        return None if self._examples is None else self._examples.counts()

    def done_fraction(self, cursor: Cursor) -> float | None:
        """The share of the file before the cursor, 0 to 1; None if unknown."""
        return self._source.done_fraction(cursor)

    @property
    def total_hint(self) -> int | None:
        """The number of records: exact for Parquet, an estimate for text, None if unknown."""
        return self._source.total_hint()

    def _known_plan(self) -> Plan:
        if self._plan is None:
            self._check_path()
            schema = self._schema
            if schema is None:
                found = self._source.schema_sample()
                schema = schema_inference.schema_of(self.path, found, self.task, self.options)
            self._plan = plan(self.path, schema, self.options)
        return self._plan

    def _check_path(self) -> None:
        if not self.options.has_file:
            return
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


def plan(path: Path, schema: Schema, options: StreamOptions) -> Plan:
    """How the cells of a stream of this schema are parsed; `path` is for messages alone.

    Raises BadStream if an option does not fit the schema.
    """
    schema_inference.check_options(path, schema, options)
    return Plan(
        schema_inference.with_number_formats(schema, options),
        options.largest,
        free=frozenset([*options.numbers, *options.categories]),
        ignored=frozenset(options.ignore),
        unfit_is_missing=options.unfit_cells == "missing",
    )


def _examples(options: StreamOptions, inbox: Path | None) -> InboxSource | None:
    """The inbox of the service that the options name; None: they name none."""
    if options.service is None:
        return None
    if inbox is None:
        raise BadStream(
            f"{SERVICE}{options.service} cannot be read here, where there is no home with its "
            "inbox: name a file as stream.path, and take out stream.then"
        )
    # Only pipelines that learn from a service need SQLite.
    from models.stream.inbox_source import InboxSource

    return InboxSource(inbox, options)


def _source(
    path: Path, options: StreamOptions, examples: InboxSource | None, whole_lines: bool
) -> FileSource:
    if examples is None:
        return _file_source(path, options, whole_lines)
    if not options.has_file:
        return examples
    from models.stream.file_then_inbox import FileThenInbox

    return FileThenInbox(path, _file_source(path, options, whole_lines), examples)


def _file_source(path: Path, options: StreamOptions, whole_lines: bool) -> FileSource:
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
    return TextFile(path, options, kind, whole_lines=whole_lines)
