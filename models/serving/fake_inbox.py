"""An inbox in memory, for tests and demonstrations: it is bounded, and nothing of it is durable."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from models.core.record_schema import Label
from models.inbox.errors import RecordConflict
from models.inbox.records import Answered, LabelResult, Outcome

MOST_WAITING = 10_000


class FakeInbox:
    """Keeps the newest `most` predictions, in the order in which they came."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self.given: dict[str, Answered] = {}
        self.labels: dict[str, Label] = {}
        self._positions: dict[str, int] = {}
        self._dropped: set[str] = set()
        self._most = most
        self._lock = threading.Lock()

    def record(self, given: Sequence[Answered]) -> None:
        """Keep these predictions; the oldest ones are dropped where there are too many.

        Raises RecordConflict for an id that is known with another content.
        """
        with self._lock:
            new: dict[str, Answered] = {}
            for each in given:
                if self.given.get(each.id, new.setdefault(each.id, each)) != each:
                    raise RecordConflict(each.id)
            self.given.update(new)
            while len(self.given) > self._most:
                oldest = next(iter(self.given))
                del self.given[oldest]
                self._dropped.add(oldest)

    def find(self, ids: Sequence[str]) -> dict[str, Answered]:
        """The predictions of these ids that are kept."""
        with self._lock:
            return {id_: self.given[id_] for id_ in ids if id_ in self.given}

    def label(self, truths: Sequence[tuple[str, Label]], at: float) -> list[LabelResult]:
        """Join labels with their predictions."""
        with self._lock:
            return [
                LabelResult(id_, self._label(id_, label), self._positions.get(id_))
                for id_, label in truths
            ]

    def _label(self, id_: str, label: Label) -> Outcome:
        if id_ in self.labels:
            return "duplicate" if self.labels[id_] == label else "conflicting"
        if id_ not in self.given:
            return "expired" if id_ in self._dropped else "unknown"
        self.labels[id_] = label
        self._positions[id_] = len(self._positions)
        return "joined"

    def close(self) -> None:
        """Do nothing: there is no file."""
