"""The configuration of the batch model: the table [batch] of a pipeline file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

PLAIN = ("hist_gradient_boosting", "random_forest", "linear", "sgd")
"""The recipes by name; each can be built without parameters for any schema."""


class BatchRecipe(BaseModel):
    """The configuration of batch models: the table [batch]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = Field(
        default="hist_gradient_boosting",
        description="hist_gradient_boosting, random_forest, linear, sgd, or 'module:factory'.",
    )
    window: int = Field(
        default=5_000,
        ge=20,
        description="Newest labelled rows used, hold-out included; they are held in memory. After "
        "an abrupt change a retrain is good once most of them are from after it.",
    )
    holdout: float = Field(
        default=0.2, gt=0, le=0.9, description="Share of the window, the newest, only scored on."
    )
    min_rows: int = Field(
        default=200, ge=20, description="Fewest rows of a window, hold-out included, to learn from."
    )
    recent_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="A second model is fitted on this newest share of the training rows, and the "
        "better of the two is the challenger; 1: only one is fitted.",
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Makes a fit repeatable.")
    older_rows: int = Field(
        default=1000, ge=0, description="Rows of an older window scored too, against forgetting."
    )
    class_weight: Literal["none", "balanced"] = Field(
        default="none",
        description="balanced: in a fit each class counts as much as any other, however rare. It "
        "finds more of what is rare, and makes probabilities too large for log_loss and brier. The "
        "online member learns every record alike.",
    )
    params: dict[str, Any] = Field(
        default_factory=dict, description="The estimator's own parameters, passed on to it."
    )
