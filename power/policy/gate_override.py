"""A person's override of the gate, for a limited time, and the decisions that record it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Self

from pydantic import AwareDatetime, Field, model_validator

from observability.core.decision import Decision, Fact
from power.core.frozen_model import FrozenModel

LONGEST_OVERRIDE: Final = timedelta(days=7)
"""A forgotten override must not switch the gate off for good."""


class Override(FrozenModel):
    """An answer that a person gives in place of the gate, for a limited time."""

    open: bool = Field(description="What the gate shall answer.")
    set_at: AwareDatetime
    until: AwareDatetime = Field(description="When it expires, a week after it was set at most.")
    because: str = Field(min_length=1, max_length=500, description="Why, as the person wrote it.")

    @model_validator(mode="after")
    def _expires(self) -> Self:
        if not self.set_at < self.until <= self.set_at + LONGEST_OVERRIDE:
            raise ValueError(
                f"until must be after set_at and at most {LONGEST_OVERRIDE.days} days later; came "
                f"{self.until.isoformat()} for one set at {self.set_at.isoformat()}"
            )
        return self

    @property
    def answer(self) -> str:
        """The answer that it gives: "open" or "closed"."""
        return "open" if self.open else "closed"

    @property
    def until_text(self) -> str:
        """When it expires, to the second, as ISO 8601."""
        return self.until.isoformat(timespec="seconds")


def in_force(override: Override | None, now: datetime) -> bool:
    """Whether there is an override and it counts at `now`."""
    return override is not None and override.set_at <= now < override.until


def overridden(decision: Decision, override: Override | None, now: datetime) -> Decision:
    """Return the gate's decision, replaced by the override where one is in force."""
    if override is None or not in_force(override, now):
        return decision
    because = (
        f"a person keeps the gate {override.answer} until {override.until_text} "
        f"({override.because}); by itself it would say: {decision.because}"
    )
    facts: dict[str, Fact] = {
        **decision.facts,
        "cause": None if override.open else "override",
        "override": override.answer,
        "override_until": override.until.isoformat(),
        "gate_without_override": decision.yes,
    }
    return decision.model_copy(update={"yes": override.open, "because": because, "facts": facts})


def was_set(override: Override) -> Decision:
    """Return the record that a person set `override`."""
    because = f"the gate is {override.answer} until {override.until_text}: {override.because}"
    facts: dict[str, Fact] = {
        "override": override.answer,
        "override_until": override.until.isoformat(),
        "given_because": override.because,
    }
    return Decision(question="override", yes=override.open, because=because, facts=facts)


def was_cleared() -> Decision:
    """Return the record that a person cleared the override."""
    because = "the override was taken back: the gate answers by itself"
    return Decision(question="override", yes=False, because=because, facts={"override": "cleared"})
