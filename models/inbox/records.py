"""What goes into the inbox and what comes out of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from models.core.record_schema import Label

Outcome = Literal["joined", "duplicate", "conflicting", "expired", "unknown"]
"""What became of a label.

joined: it found its prediction. duplicate: the same label had come before. conflicting: another
label had come before, which stays. expired: the bounds had dropped its prediction. unknown: no
prediction of this id is known.
"""


class Answered(NamedTuple):
    """One prediction that was given."""

    id: str
    """Chosen by the caller of the service, or made by it; unique, 1 to 256 characters."""
    predicted_at: float
    """Seconds since 1970."""
    features: Mapping[str, Any]
    """JSON values by column, as they came."""
    answers: Mapping[str, Any]
    """JSON values by member; "served" is among them."""
    versions: Mapping[str, Any]
    """JSON values: of which model, and of which checkpoint, the answers are."""


class LabelResult(NamedTuple):
    """What became of one label."""

    id: str
    outcome: Outcome
    position: int | None
    """Of the joined example, with joined, duplicate and conflicting; else None."""


class Joined(NamedTuple):
    """A prediction with its label. It never changes."""

    position: int
    """0, 1, 2 … in the order of joining, without a gap."""
    id: str
    predicted_at: float
    labelled_at: float
    label: Label
    features: dict[str, Any]
    answers: dict[str, Any]
    versions: dict[str, Any]


class Examples(NamedTuple):
    """Joined examples, and what the inbox had when they were read."""

    identity: str
    total: int
    """Examples that ever joined: the position of the next one."""
    joined: list[Joined]


@dataclass(frozen=True)
class InboxCounts:
    """How many predictions there are, in each state."""

    recorded: int
    """All predictions that were ever recorded: waiting, joined and expired ones."""
    waiting: int
    joined: int
    """All that ever joined, forgotten ones included: the position of the next one."""
    first_position: int
    """The first position that `forget` has not dropped."""
    expired: int
    """All that ever expired."""
    remembered: int
    """Ids of expired and forgotten ones that are still known."""
