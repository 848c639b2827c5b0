"""The inbox as it is read: beside the process that writes it, or without one.

A reader sees what was committed, and keeps nobody from writing.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from models.inbox import json_content, sqlite_file
from models.inbox.errors import InboxClosed, PositionsForgotten
from models.inbox.label_latency import QUANTILES, WITHIN_S, LabelLatency, Survival, shares
from models.inbox.records import Answered, Examples, InboxCounts, Joined
from models.inbox.tables import Totals

_WAITS = """
    SELECT labelled_at - predicted_at, 1 FROM joined WHERE predicted_at > :after
    UNION ALL
    SELECT ended_at - predicted_at, label IS NOT NULL FROM ended WHERE predicted_at > :after
    UNION ALL
    SELECT :at - predicted_at, 0 FROM waiting WHERE predicted_at > :after
"""


LARGEST_READ = 64 << 20
"""Bytes of examples after which a read ends."""
_FIND = """
    SELECT id, predicted_at, features, answers, versions FROM waiting WHERE id = :id
    UNION ALL
    SELECT id, predicted_at, features, answers, versions FROM joined WHERE id = :id
"""


class InboxReader:
    """Joined examples, counts and latency, for many threads. `open_reader` opens one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reading = threading.Lock()
        self._reader: sqlite3.Connection | None = sqlite_file.open_to_read(path)

    @property
    def identity(self) -> str:
        """A text that another inbox has not: positions of one mean nothing in another."""
        with self._snapshot() as connection:
            return Totals.read(connection).identity

    def joined(self, first: int, count: int) -> list[Joined]:
        """Return the joined examples at the positions first … first + count - 1.

        There are fewer where the last position is reached, or after 64 MiB. Raises
        PositionsForgotten for positions that `forget` has dropped, and ValueError for negative
        numbers.
        """
        return self.examples(first, count).joined

    def examples(self, first: int, count: int) -> Examples:
        """Return the same, with the identity and the number of examples of that moment."""
        if first < 0 or count < 0:
            raise ValueError(f"first and count are 0 or more; came: {first} and {count}")
        with self._snapshot() as connection:
            totals = Totals.read(connection)
            rows = _bounded(
                connection.execute(
                    "SELECT * FROM joined WHERE position >= ? ORDER BY position LIMIT ?",
                    (first, count),
                ),
                plain=4,
            )
        if first < totals.first_position:
            raise PositionsForgotten(
                f"{self.path} has joined examples from position {totals.first_position} on, and "
                f"{first} was asked for: earlier ones were dropped by `forget`. Read from there on"
            )
        with sqlite_file.explained(self.path):
            joined = [
                Joined(*row[:4], *(json_content.decode(text) for text in row[4:])) for row in rows
            ]
        return Examples(totals.identity, totals.next_position, joined)

    def newest_waiting(self, count: int) -> list[Answered]:
        """Return the newest predictions that wait for their labels, the newest first.

        There are fewer than `count` where fewer wait, or after 64 MiB.
        """
        with self._snapshot() as connection:
            rows = _bounded(
                connection.execute(
                    "SELECT id, predicted_at, features, answers, versions FROM waiting "
                    "ORDER BY predicted_at DESC, number DESC LIMIT ?",
                    (count,),
                ),
                plain=2,
            )
        with sqlite_file.explained(self.path):
            return [
                Answered(*row[:2], *(json_content.decode(text) for text in row[2:])) for row in rows
            ]

    def find(self, ids: Sequence[str]) -> dict[str, Answered]:
        """Return the predictions of these ids that wait or have joined; others are left out."""
        with self._snapshot() as connection:
            rows = [row for id_ in ids for row in connection.execute(_FIND, {"id": id_})]
        with sqlite_file.explained(self.path):
            return {
                id_: Answered(id_, at, *(json_content.decode(text) for text in texts))
                for id_, at, *texts in rows
            }

    def counts(self) -> InboxCounts:
        """Return how many predictions there are in each state."""
        with self._snapshot() as connection:
            totals = Totals.read(connection)
        return InboxCounts(
            recorded=totals.recorded,
            waiting=totals.waiting,
            joined=totals.next_position,
            first_position=totals.first_position,
            expired=totals.expired,
            remembered=totals.ended_next - totals.ended_first,
        )

    def latency(
        self,
        at: float | None = None,
        since: float = float("-inf"),
        within_s: Sequence[float] = WITHIN_S,
    ) -> LabelLatency:
        """Return how long labels took, and what still waits.

        Args:
            at: now, in seconds since 1970; None: the newest moment that the inbox was told.
            since: only predictions made after this moment count.
            within_s: times for which the share of labelled predictions is estimated.

        It reads the times of all predictions that count: some two seconds for a million.
        """
        import numpy as np

        with self._snapshot() as connection:
            totals = Totals.read(connection)
            now = max(totals.newest_at, float("-inf") if at is None else at)
            after = max(totals.complete_after, since)
            found = connection.execute(_WAITS, {"after": after, "at": now}).fetchall()
            (expired,) = connection.execute(
                "SELECT count(*) FROM ended WHERE label IS NULL AND predicted_at > ?", (after,)
            ).fetchone()
            (oldest,) = connection.execute("SELECT min(predicted_at) FROM waiting").fetchone()
        waits = np.array(found, dtype=np.float64).reshape(-1, 2)
        survival = Survival(waits[:, 0], waits[:, 1] > 0)
        return LabelLatency(
            at=now if np.isfinite(now) else None,
            made_after=after if np.isfinite(after) else None,
            predictions=len(waits),
            labelled=int(waits[:, 1].sum()),
            expired=expired,
            waiting=totals.waiting,
            waiting_since=oldest,
            quantiles=tuple(survival.quantile(each) for each in QUANTILES),
            shares=shares(survival, within_s),
        )

    def close(self) -> None:
        """Close the file. It may be called twice."""
        with self._reading:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """One state of the file for several questions."""
        with self._reading, sqlite_file.explained(self.path):
            if self._reader is None:
                raise InboxClosed(f"{self.path} is closed: open it again to read it")
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                if self._reader.in_transaction:
                    self._reader.execute("ROLLBACK")


def _bounded(rows: Iterable[tuple[Any, ...]], plain: int) -> list[tuple[Any, ...]]:
    """Return rows, at least one where there is any, until they are large.

    Their first columns, so many, are `plain`; the others are texts of any length.
    """
    found: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        found.append(row)
        size += sum(map(len, row[plain:]))
        if size > LARGEST_READ:
            break
    return found
