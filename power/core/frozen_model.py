"""The base classes of this package's pydantic models: they are frozen and refuse unknown fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """A value that cannot be changed and has no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with changed fields. Raises TypeError for names that pydantic 2 would ignore."""
        unknown = (update or {}).keys() - type(self).model_fields.keys()
        if unknown:
            raise TypeError(f"{type(self).__name__} has no fields {sorted(unknown)}")
        return super().model_copy(update=update, deep=deep)


class FiniteModel(FrozenModel):
    """A frozen value whose numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)
