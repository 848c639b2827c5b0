"""What a service needs of an inbox. Pure: a protocol alone.

The inbox of a pipeline keeps each prediction until its label comes (`models.inbox.inbox`). A
service depends on nothing more of it than this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from models.core.record_schema import Label
from models.inbox.records import Answered, LabelResult


class PredictionInbox(Protocol):
    """Keeps predictions until their labels come; safe for use by several threads."""

    def record(self, given: Sequence[Answered]) -> None:
        """Keep these predictions; they are durable when this returns.

        All of them are kept, or none. Raises RecordConflict, another ValueError for what cannot be
        kept, and OSError where the disk refuses.
        """

    def label(self, truths: Sequence[tuple[str, Label]], at: float) -> Sequence[LabelResult]:
        """Join labels by id with their predictions, durably; `at` is in seconds since 1970."""

    def close(self) -> None:
        """Release the inbox's file."""
