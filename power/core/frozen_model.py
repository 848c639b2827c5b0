"""The base classes of this package's pydantic models: they are frozen and refuse unknown fields."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """A value that cannot be changed and has no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FiniteModel(FrozenModel):
    """A frozen value whose numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)
