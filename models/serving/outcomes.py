"""What a service keeps of its predictions, and how labels find them. Pure: types alone.

The inbox of a pipeline keeps each prediction until its label comes. A service depends on nothing
more of it than the protocol here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from models.core.record_schema import Label
from observability.core.errors import ThermodriftError

LabelOutcome = Literal["joined", "duplicate", "conflicting", "expired", "unknown"]
"""The label found its prediction; the same label came again; another label came before, and stays;
the prediction was dropped because there were too many; there was no prediction of that id."""


class RecordConflict(ThermodriftError, ValueError):
    """A prediction of this id was recorded before, with another content."""


class Answered(NamedTuple):
    """One prediction that was given."""

    id: str
    predicted_at: float
    """Seconds since 1970."""
    features: Mapping[str, Any]
    """JSON values by column, as they came."""
    answers: Mapping[str, Any]
    """By member, "served" among them: its value, and its probabilities or None."""
    versions: Mapping[str, Any]
    """The champion's version or None, and the position of the checkpoint."""


class LabelResult(NamedTuple):
    """What became of one label."""

    id: str
    outcome: LabelOutcome
    position: int | None = None
    """Of the joined example; None where there is none."""


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
