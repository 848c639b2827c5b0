"""A person's override of the gate, for a limited time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from observability.core.decision import Decision, Fact

LONGEST_OVERRIDE: Final = timedelta(days=7)
"""A person who forgets an override must not have switched the gate off for good."""


class Override(BaseModel):
    """A person's word that stands in place of the gate's answer, for a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    open: bool = Field(description="What the gate shall answer.")
    set_at: AwareDatetime
    until: AwareDatetime = Field(description="When it expires, a week after it was set at most.")
    because: str = Field(min_length=1, max_length=500, description="Why, in the person's words.")

    @model_validator(mode="after")
    def _expires(self) -> Self:
        if not self.set_at < self.until <= self.set_at + LONGEST_OVERRIDE:
            raise ValueError(
                f"until must be after set_at and at most {LONGEST_OVERRIDE.days} days later; came "
                f"{self.until.isoformat()} for one set at {self.set_at.isoformat()}"
            )
        return self


def overridden(decision: Decision, override: Override | None, now: datetime) -> Decision:
    """The gate's answer, or a person's where an override of `now` stands in its place."""
    if override is None or not override.set_at <= now < override.until:
        return decision
    said = "open" if override.open else "closed"
    because = (
        f"a person keeps the gate {said} until {override.until.isoformat(timespec='seconds')} "
        f"({override.because}); by itself it would say: {decision.because}"
    )
    facts: dict[str, Fact] = {
        **decision.facts,
        "cause": None if override.open else "override",
        "override": said,
        "override_until": override.until.isoformat(),
        "gate_without_override": decision.yes,
    }
    return decision.model_copy(update={"yes": override.open, "because": because, "facts": facts})
