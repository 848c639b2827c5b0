"""A file of the past, and after its last record the labelled predictions of a service.

Part of the stream adapter. The file's records come first, and it may grow until the first example
of the service was read. From then on it may not: its further records would have the positions of
examples that are learned already. Such a file is refused, and nothing is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from models.stream.batches import Batch, BatchBuilder, Cursor, StreamChanged
from models.stream.inbox_source import InboxSource
from models.stream.parsing.columns import Plan
from models.stream.schema_inference import SchemaSample


class FileSource(Protocol):
    """What is needed of the file."""

    def schema_sample(self) -> SchemaSample:
        """Read the first records."""

    def read(self, plan: Plan, cursor: Cursor, size: int) -> Batch:
        """The next `size` records at most."""

    def between(self, plan: Plan, first: int, last: int, cursors: Sequence[Cursor]) -> Batch:
        """The records first..last-1 again."""

    def done_fraction(self, cursor: Cursor) -> float | None:
        """The share of the file before the cursor."""

    def total_hint(self) -> int | None:
        """The number of records."""


class FileThenInbox:
    """The records of a file, then those of an inbox."""

    def __init__(self, path: Path, file: FileSource, inbox: InboxSource) -> None:
        self._path = path
        self._file = file
        self._inbox = inbox
        self._settled: tuple[int, ...] | None = None
        """The stamp of the file that was found not to have grown."""

    def schema_sample(self) -> SchemaSample:
        """Read the first records of the file."""
        return self._file.schema_sample()

    def read(self, plan: Plan, cursor: Cursor, size: int) -> Batch:
        """The next `size` records at most, of the file and then of the inbox."""
        if cursor.inbox is not None:
            self._refuse_growth(plan, cursor)
            return self._inbox.read(plan, cursor, size)
        batch = self._file.read(plan, cursor, size)
        if not batch.ended or batch.unfinished:
            return batch
        left = size - (batch.last - batch.first)
        if not left:
            return replace(batch, ended=not self._inbox.total_hint())
        return self._joined(plan, batch, self._inbox.read(plan, batch.after, left))

    def between(self, plan: Plan, first: int, last: int, cursors: Sequence[Cursor]) -> Batch:
        """The records first..last-1 again, of either or of both."""
        newest = cursors[-1] if cursors else Cursor()
        of_file = [each for each in cursors if each.inbox is None]
        if newest.inbox is not None:
            of_file.append(newest.of_file)
            if first >= newest.inbox.begins:
                # Where no record of the file is asked for, it may be gone.
                return self._inbox.between(plan, first, last, cursors)
        until = last if newest.inbox is None else min(last, newest.inbox.begins)
        part = self._file.between(plan, first, until, of_file)
        if part.last >= last or not part.ended or part.unfinished:
            return part
        if newest.inbox is None:
            newest = part.after
        rest = self._inbox.between(plan, max(first, part.last), last, [newest])
        return self._joined(plan, part, rest)

    def done_fraction(self, cursor: Cursor) -> float | None:
        """The share of all records before the cursor; None if unknown."""
        examples = self._inbox.total_hint() or 0
        if cursor.inbox is not None:
            return cursor.position / (cursor.inbox.begins + examples)
        fraction, records = self._file.done_fraction(cursor), self._file.total_hint()
        if fraction is None or not records:
            return fraction
        return fraction * records / (records + examples)

    def total_hint(self) -> int | None:
        """The number of records of both; None if that of the file is unknown."""
        records = self._file.total_hint()
        return None if records is None else records + (self._inbox.total_hint() or 0)

    @staticmethod
    def _joined(plan: Plan, of_file: Batch, of_inbox: Batch) -> Batch:
        if of_inbox.last == of_inbox.first:
            return of_file
        if of_file.last == of_file.first:
            return of_inbox
        builder = BatchBuilder(plan.schema, of_file.first)
        builder.extend(of_file)
        builder.extend(of_inbox)
        return builder.batch(of_inbox.after, ended=of_inbox.ended)

    def _refuse_growth(self, plan: Plan, cursor: Cursor) -> None:
        """Raise StreamChanged where the file has further records since its end was passed."""
        status = self._path.stat()
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        if stamp == self._settled:
            return
        more = self._file.read(plan, cursor.of_file, 1)
        if more.last > more.first or more.unfinished:
            raise StreamChanged(
                f"{self._path} has grown after its end was passed at record {more.first}, and "
                f"labelled predictions were learned from there on (now at record "
                f"{cursor.position}): its further records have no place any more. Take them out of "
                "it again; to learn from them too, start a pipeline under another name"
            )
        self._settled = stamp
