"""The decision about commits that the history has lost. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from observability.core.decision import Decision


@dataclass(frozen=True)
class Loss:
    """Commits that the DuckDB file no longer has, as found when it is opened."""

    number: int
    """How many commits the file has had; unique to this loss."""
    count: int
    latest: frozenset[str]
    """Names of the last flushed commits, which may still be in the outbox."""
    because: str


def judge(loss: Loss, recovered: int) -> Decision:
    """Record the loss, after `recovered` commits were flushed again: the answer is always no."""
    lost = max(0, loss.count - recovered)
    because = (
        f"{loss.because}; {recovered} of the {loss.count} missing were flushed again from kept "
        f"outbox files, {lost} are lost"
    )
    facts = {"missing": loss.count, "recovered": recovered, "lost": lost}
    return Decision(question="history", yes=False, because=because, facts=facts)
