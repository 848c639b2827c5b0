"""The configuration of the batch model: the table [batch] of a pipeline file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PLAIN = ("hist_gradient_boosting", "random_forest", "linear", "sgd")
"""The recipes by name; each can be built without parameters for any schema."""
BOOSTING = "hist_gradient_boosting"


class BatchRecipe(BaseModel):
    """The configuration of batch models: the table [batch]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = Field(
        default=BOOSTING,
        description="hist_gradient_boosting, random_forest, linear, sgd, or 'module:factory'. "
        "Named without recipes, it is the only one; params are its own.",
    )
    recipes: tuple[str, ...] = Field(
        default=("linear", BOOSTING),
        min_length=1,
        description="Recipes that compete in every retrain, the simplest first: of those that the "
        "hold-out cannot tell from the best one, the first is taken.",
    )
    window: int = Field(
        default=5_000,
        ge=20,
        description="Newest labelled rows used, hold-out included; they are held in memory.",
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
        description="The best recipe is also fitted on this newest share of the training rows, and "
        "on that share of these, as long as it gets better; 1: on all of them alone.",
    )
    refit: bool = Field(
        default=True,
        description="A challenger that is promoted is fitted again, on the hold-out too; its "
        "scores are those of before.",
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Makes a fit repeatable.")
    older_rows: int = Field(
        default=1000,
        ge=0,
        description="Rows of an older window scored too, against forgetting; none from before "
        "a change of the data.",
    )
    class_weight: Literal["none", "balanced"] = Field(
        default="none",
        description="balanced: in a fit each class counts as much as any other, however rare. It "
        "finds more of what is rare, and makes probabilities too large for log_loss and brier. The "
        "online member learns every record alike.",
    )
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="Parameters of the estimator of recipe, passed on to it.",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        """A recipe that is named alone is the only one; of several, the last one is `recipe`."""
        if not isinstance(given, Mapping):
            return given
        if "recipe" in given and "recipes" not in given:
            return {**given, "recipes": (given["recipe"],)}
        several = given.get("recipes")
        if "recipe" not in given and isinstance(several, list | tuple) and several:
            return {**given, "recipe": several[-1]}
        return given

    @model_validator(mode="after")
    def _named_once(self) -> BatchRecipe:
        if len(set(self.recipes)) < len(self.recipes):
            raise ValueError(f"recipes must name each recipe once; came: {list(self.recipes)}")
        if self.recipe not in self.recipes:
            raise ValueError(
                f"recipe, which params belong to, must be one of recipes {list(self.recipes)}; "
                f"came: {self.recipe!r}"
            )
        return self

    def alone(self, name: str) -> BatchRecipe:
        """The configuration with the recipe `name` alone, which has `params` if they are its."""
        params = self.params if name == self.recipe else {}
        return self.model_copy(update={"recipe": name, "recipes": (name,), "params": {**params}})
