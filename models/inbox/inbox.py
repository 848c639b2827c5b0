"""The inbox: predictions of a service wait here for their labels.

A prediction is recorded with its features and with what each member answered. When its label comes,
the two are joined to an example with a dense position (0, 1, 2 …), which a stream reads in that
order. What a call has acknowledged is on disk.

    with Inbox.open(Places(home).pipeline("prices").inbox, InboxConfig()) as inbox:
        inbox.record([Answered("a1", 1764457200.0, {"price": 3}, {"served": …}, {"champion": …})])
        inbox.label([("a1", 1)], at=1764457260.0)

It reads no clock: moments are arguments.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

from models.core.record_schema import Label
from models.inbox import json_content, sqlite_file, tables
from models.inbox.config import InboxConfig
from models.inbox.group_writer import GroupWriter
from models.inbox.label_latency import LabelLatency
from models.inbox.reader import InboxReader
from models.inbox.records import Answered, InboxCounts, Joined, LabelResult, Outcome
from models.inbox.tables import EncodedLabel, InboxTables
from observability.core.file_lock import Lock

__all__ = [
    "Answered",
    "Inbox",
    "InboxConfig",
    "InboxCounts",
    "InboxReader",
    "Joined",
    "LabelLatency",
    "LabelResult",
    "Outcome",
    "open_reader",
]

Answer = TypeVar("Answer")
_FORGET_AT_ONCE = 1_000
"""Joined examples that `forget` drops in one commit, for which the calls of others wait."""


def open_reader(path: Path) -> InboxReader:
    """Open an inbox to read, beside the process that writes it or without one.

    Raises InboxMissing where nothing was recorded yet, InboxDamaged, InboxVersionUnknown, and
    InboxUnwritable where the disk refuses.
    """
    return InboxReader(path)


class Inbox(InboxReader):
    """The inbox as its one writing process has it. Any thread may call it."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, lock: Lock, config: InboxConfig
    ) -> None:
        super().__init__(path)
        self._connection = connection
        self._lock = lock
        self._tables = InboxTables(connection, path, config)
        self._writer = GroupWriter(self._tables, config.most_in_group)

    @classmethod
    def open(cls, path: Path, config: InboxConfig | None = None) -> Self:
        """Open the inbox `path` to write, and make it if it is missing.

        Raises InboxBusy where another process, or another object of this one, writes it;
        InboxDamaged and InboxVersionUnknown, with nothing changed; InboxUnwritable.
        """
        config = config or InboxConfig()
        connection, lock = sqlite_file.open_to_write(path, config)
        try:
            return cls(path, connection, lock, config)
        except BaseException:
            connection.close()
            lock.release()
            raise

    @property
    def commits(self) -> int:
        """How many commits have changed the file since it was opened."""
        return self._tables.commits

    def record(self, given: Sequence[Answered]) -> None:
        """Let predictions wait for their labels. They are durable when it returns.

        All of a call are recorded, or none. An id that is known already, with equal content, is
        ignored, so that a call may be repeated. Predictions beyond the bounds expire, the oldest
        first. Raises RecordConflict for an id with other content, InvalidContent for a value that
        is no JSON, InboxUnwritable where the disk refuses, InboxClosed.
        """
        encoded = [tables.encode(each) for each in given]
        if encoded:
            self._write(lambda: self._tables.record(encoded))

    def label(self, truths: Sequence[tuple[str, Label]], at: float) -> list[LabelResult]:
        """Join labels that came at the moment `at`, each with its prediction.

        Returns the result of each, in order, after the commit. Raises InvalidContent for a label
        that is no text and no finite number, and then joins none; InboxUnwritable, InboxClosed.
        """
        json_content.check_moment(at, "the moment of labels")
        encoded = [EncodedLabel(*each) for each in _encoded(truths)]
        return self._write(lambda: self._tables.label(encoded, at)) if encoded else []

    def expire(self, at: float) -> int:
        """Let predictions expire that have waited too long at the moment `at`; returns how many.

        Calls of `record` and `label` do this as well, for at most 10,000 each: it is for times
        without any, and for the first moment after an outage.
        """
        json_content.check_moment(at, "the moment")
        return self._in_pieces(lambda: self._tables.expire(at))

    def forget(self, before_position: int) -> int:
        """Drop the joined examples before a position; returns how many.

        Their ids and labels are remembered like those of expired predictions. It is done in
        commits of 1,000 rows, between which others write.
        """
        return self._in_pieces(lambda: self._tables.forget(before_position, _FORGET_AT_ONCE))

    def close(self) -> None:
        """Finish the calls that wait, close the file and release its lock."""
        self._writer.close()
        super().close()
        self._connection.close()
        self._lock.release()

    def _in_pieces(self, work: Callable[[], int]) -> int:
        """Do the work until nothing is left, and let others write in between; returns the sum."""
        total = 0
        while count := self._write(work):
            total += count
        return total

    def _write(self, work: Callable[[], Answer]) -> Answer:
        return self._writer.run(work)


def _encoded(truths: Sequence[tuple[str, Label]]) -> list[tuple[str, str]]:
    for id_, _ in truths:
        json_content.check_id(id_)
    return [(id_, json_content.encode_label(label, id_)) for id_, label in truths]
