"""The labelled predictions of a service as a stream, in the order in which their labels came.

Part of the stream adapter. Each joined example of an inbox is a record: the cells that were asked
about and the label, read by the rules of a JSON line, with what was answered then beside it. The
inbox is opened for each reading and closed again. This only reads, and delays nobody who writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.core.prediction import GivenAnswers, given_answers
from models.inbox.errors import (
    InboxBusy,
    InboxDamaged,
    InboxMissing,
    InboxUnwritable,
    InboxVersionUnknown,
    PositionsForgotten,
)
from models.inbox.reader import InboxReader
from models.inbox.records import Examples, Joined
from models.stream import schema_inference
from models.stream.batches import (
    LONGEST_RAW,
    BadStream,
    Batch,
    BatchBuilder,
    Cursor,
    Fault,
    InboxPlace,
    NothingToBeginWith,
    Records,
    StreamChanged,
    StreamOptions,
    StreamUnreadable,
)
from models.stream.parsing import record_formats
from models.stream.parsing.cells import InvalidCell
from models.stream.parsing.columns import Plan
from models.stream.parsing.record_formats import JsonFormat
from models.stream.schema_inference import SchemaSample

_UNREADABLE = (InboxDamaged, InboxUnwritable, InboxVersionUnknown)
_UNKNOWN = (InboxMissing, InboxBusy, *_UNREADABLE)


class InboxSource:
    """The joined examples of one inbox, which may not be there yet."""

    def __init__(self, path: Path, options: StreamOptions) -> None:
        self._path = path
        self._options = options

    def schema_sample(self) -> SchemaSample:
        """Read the first examples. Raises NothingToBeginWith, BadStream, StreamUnreadable."""
        read = self._examples(Cursor(), 0, self._options.sample)
        if read is None or not read.joined:
            raise NothingToBeginWith(
                f"{self._path}: no prediction of the service has a label yet, so that nothing is "
                f"known of its columns. Run again when labels have come to {self._options.path}"
            )
        records = [_record(each, self._options.target) for each in read.joined]
        return schema_inference.sample_of_objects(self._path, records, self._options)

    def read(self, plan: Plan, cursor: Cursor, size: int) -> Batch:
        """The next `size` examples at most. Raises StreamChanged, StreamUnreadable."""
        builder = BatchBuilder(plan.schema, cursor.position)
        after, ended = self._add(builder, plan, cursor, size)
        return builder.batch(after, ended=ended)

    def between(self, plan: Plan, first: int, last: int, cursors: Sequence[Cursor]) -> Batch:
        """The records first..last-1 that are examples, or as many of them as there are.

        The newest of `cursors` says at which position the examples begin. Raises as `read` does.
        """
        newest = cursors[-1] if cursors else Cursor()
        first = max(first, _begins(newest))
        builder, ended = BatchBuilder(plan.schema, first), False
        while builder.position < last and not ended:
            newest, ended = self._add(builder, plan, newest, last - builder.position)
        after = newest.model_copy(update={"position": builder.position})
        return builder.batch(after, ended=ended)

    def waiting(self, plan: Plan, count: int) -> Records:
        """The newest predictions without a label, at most `count`; positions are mere numbers.

        What does not fit is left out. Raises StreamUnreadable.
        """
        try:
            with InboxReader(self._path) as reader:
                found = reader.newest_waiting(count)
        except InboxMissing:
            found = []
        except _UNREADABLE as error:
            raise StreamUnreadable(str(error)) from error
        builder = BatchBuilder(plan.schema, 0)
        self._add_rows(
            builder,
            plan,
            [dict(each.features) for each in found],
            [given_answers(each.answers, each.versions, plan.schema.label_kind) for each in found],
        )
        return builder.batch(Cursor(), ended=True)

    def counts(self) -> tuple[int, int] | None:
        """How many predictions were recorded, and how many wait; None: it cannot be known now."""
        try:
            with InboxReader(self._path) as reader:
                counts = reader.counts()
        except _UNKNOWN:
            return None
        return counts.recorded, counts.waiting

    def done_fraction(self, cursor: Cursor) -> float | None:
        """The share of the examples before the cursor; None if unknown."""
        total = self.total_hint()
        return min(1.0, (cursor.position - _begins(cursor)) / total) if total else None

    def total_hint(self) -> int | None:
        """The number of examples; None if the inbox cannot be read."""
        try:
            with InboxReader(self._path) as reader:
                return reader.counts().joined
        except _UNKNOWN:
            return None

    def _add(
        self, builder: BatchBuilder, plan: Plan, cursor: Cursor, most: int
    ) -> tuple[Cursor, bool]:
        """Add the next `most` examples at most.

        Returns the cursor after them, and whether none follows now.
        """
        begins = _begins(cursor)
        read = self._examples(cursor, builder.position - begins, most)
        if read is None or not read.joined:
            return cursor, True
        target, kind = plan.schema.target, plan.schema.label_kind
        if target in read.joined[0].features:
            raise BadStream(
                f"stream.target: {target!r} is a feature of what the service of {self._path} was "
                "asked, and its labels are of another column: name that one"
            )
        self._add_rows(
            builder,
            plan,
            [_record(each, target) for each in read.joined],
            [given_answers(each.answers, each.versions, kind) for each in read.joined],
        )
        place = InboxPlace(
            identity=read.identity,
            begins=begins,
            read=builder.position - begins,
            size=read.total,
            last=_digest(read.joined[-1]),
        )
        after = cursor.model_copy(update={"position": builder.position, "inbox": place})
        return after, place.read >= read.total

    def _add_rows(
        self,
        builder: BatchBuilder,
        plan: Plan,
        rows: Sequence[dict[str, Any]],
        given: Sequence[GivenAnswers],
    ) -> None:
        """Add records of JSON values, by the rules of a stream of JSON lines."""
        ignored = frozenset(self._options.ignore) | plan.schema.known
        required = frozenset([*plan.schema.sources, plan.schema.target])
        form = JsonFormat(required, ignored, self._options.new_columns)
        fitted: list[dict[str, Any]] = []
        broken: dict[int, Fault] = {}
        for index, row in enumerate(rows):
            try:
                fitted.append(form.fitted({**row}))
            except InvalidCell as error:
                broken[index] = error.fault
        parsed = record_formats.parsed(plan, form, fitted)
        builder.add(parsed, len(rows), lambda index: _raw(rows[index]), broken, given)

    def _examples(self, cursor: Cursor, first: int, count: int) -> Examples | None:
        """The examples from `first` on; None where nothing was recorded yet.

        Raises StreamChanged where it is not the inbox of the cursor, StreamUnreadable.
        """
        known = cursor.inbox
        try:
            with InboxReader(self._path) as reader:
                read = reader.examples(first, count)
                if known is not None:
                    self._verify(reader, read, known, cursor.position)
                return read
        except InboxMissing as error:
            if known is None:
                return None
            raise self._changed("it is gone", cursor.position) from error
        except PositionsForgotten as error:
            raise StreamChanged(
                f"{error}. What was forgotten cannot be learned: start a pipeline under another "
                "name with a file of what is there"
            ) from error
        except _UNREADABLE as error:
            raise StreamUnreadable(str(error)) from error

    def _verify(
        self, reader: InboxReader, read: Examples, known: InboxPlace, position: int
    ) -> None:
        """Verify that the inbox is still the one that was read. Raises StreamChanged."""
        if read.identity != known.identity:
            raise self._changed("it is another inbox than the one that was read", position)
        if read.total < known.size:
            raise self._changed(f"it had {known.size} examples and has {read.total}", position)
        try:
            last = reader.joined(known.read - 1, 1)
        except PositionsForgotten:
            return
        if _digest(last[0]) != known.last:
            raise self._changed("the last example that was read is another one now", position)

    def _changed(self, what: str, position: int) -> StreamChanged:
        return StreamChanged(
            f"{self._path} was rewritten: {what} (at record {position}). An inbox may only grow: "
            "bring the old file back, or start a pipeline under another name"
        )


def _begins(cursor: Cursor) -> int:
    """The position in the stream of the first example."""
    return cursor.position if cursor.inbox is None else cursor.inbox.begins


def _record(example: Joined, target: str) -> dict[str, Any]:
    return {**example.features, target: example.label}


def _raw(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)[:LONGEST_RAW]


def _digest(example: Joined) -> str:
    text = json.dumps([example.id, example.label, example.predicted_at, example.labelled_at])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
