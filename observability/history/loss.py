"""What the history had lost when it was opened, and how much of that came back. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from observability.core.decision import Decision


@dataclass(frozen=True)
class Loss:
    """Commits that the DuckDB file had and has no more."""

    number: int
    """How many commits the file has had; no other loss has this number."""
    count: int
    latest: frozenset[str]
    """Names of the commits that were flushed last: they may still be in the outbox as well."""
    because: str


def judge(loss: Loss, recovered: int) -> Decision:
    """Whether the history is whole, after `recovered` commits were flushed again: always a no."""
    lost = max(0, loss.count - recovered)
    because = (
        f"{loss.because}; {recovered} of the {loss.count} missing were flushed again from kept "
        f"outbox files, {lost} are lost"
    )
    facts = {"missing": loss.count, "recovered": recovered, "lost": lost}
    return Decision(question="history", yes=False, because=because, facts=facts)
