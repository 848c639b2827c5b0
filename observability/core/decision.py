"""The record that every policy returns: a question, yes or no, the reason, and the numbers.

Pure. A decision is a value: it is returned, stored, printed and replayed, a "no" like a "yes".
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, field_validator

Fact = bool | int | float | str | None


class Decision(BaseModel):
    """An answer to one question, with the reason and the numbers that it rests on.

    `facts` are flat and can be written as JSON: a number that is not finite is None (unknown).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str = Field(description="What was asked: drift, worth, gate, promotion, ...")
    yes: bool = Field(description="The answer.")
    because: str = Field(description="One sentence with the numbers that decided it.")
    facts: Mapping[str, Fact] = Field(
        default_factory=dict,
        description="Every number that was considered, by its name with its unit.",
    )

    @field_validator("facts")
    @classmethod
    def _unknown_rather_than_nan(cls, facts: Mapping[str, Fact]) -> Mapping[str, Fact]:
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in facts.items()
        }

    def __bool__(self) -> bool:
        """True for a yes, so that `if gate.judge(...)` reads as a sentence."""
        return self.yes
