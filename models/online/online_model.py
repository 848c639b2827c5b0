"""The online member: a river model that predicts each record before it learns it.

Pure computation: no disk, no clock. A recipe is a name from `RECIPES`, or ``module:factory`` for a
user's own model. In every recipe, missing numbers are imputed by their running mean and missing
categories are a category of their own, so that a blank cell never reaches a model. A prediction
that is not finite is dropped, and counted in `non_finite_count`.
"""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from models.core import user_code
from models.core.prediction import Answer
from models.core.record_schema import Features, Label, LabelKind, Schema, Task
from models.persistence import serialization
from observability.core.errors import BadConfiguration

MISSING = "(missing)"
"""The category that stands for a blank cell."""

# river's binary models answer True and False for 1 and 0, which are whole numbers to Python.
_CLASSES: Mapping[LabelKind, tuple[type, ...]] = {
    "str": (str,),
    "int": (int, numbers.Integral),
    "float": (float, numbers.Real),
}


class OnlineRecipe(BaseModel):
    """The knobs of the online member, TOML table ``[online]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    recipe: str = Field(
        default="hoeffding_adaptive_tree",
        description="linear, hoeffding_adaptive_tree, adaptive_random_forest, or module:factory "
        "(a module beside the pipeline file or installed).",
    )
    seed: int = Field(default=0, ge=0, description="Seed of whatever is random in the recipe.")
    params: dict[str, Any] = Field(
        default_factory=dict, description="Parameters handed to the recipe's river model."
    )


class OnlineMember:
    """A river model with one interface for classes and values: `predict`, then `learn`."""

    def __init__(self, model: Any, task: Task, label_kind: LabelKind | None = None) -> None:
        self.model = model
        self.task = task
        self.label_kind = label_kind
        """The type of the classes in this stream; None: the model's answers are not checked."""
        self.non_finite_count = 0
        """Records for which the model's prediction was not finite."""
        self._lowest, self._highest = math.inf, -math.inf
        """The range of the values learned, in regression."""

    def predict(self, record: Features) -> Answer:
        """Probabilities by class (summing to 1) or a value; None before anything is known.

        A value is clipped to the range of those learned: a linear model of few records, also in the
        leaves of trees, can be wrong by a factor of 10,000 if a feature is larger than before.
        Raises TypeError if the model answers a class that this stream cannot have.
        """
        if self.task == "regression":
            value: float | None = self.model.predict_one(record)
            if value is not None and not math.isfinite(value):
                self.non_finite_count += 1
                return None
            if value is None or self._lowest > self._highest:
                return value
            return min(max(value, self._lowest), self._highest)
        masses = self.model.predict_proba_one(record)
        if self.label_kind is not None:
            for label in masses:
                if not isinstance(label, _CLASSES[self.label_kind]):
                    here = "text" if self.label_kind == "str" else "whole numbers"
                    raise TypeError(
                        f"the model answered the class {label!r} ({type(label).__name__}), and the "
                        f"classes of this stream are {here}. It must answer the labels that it was "
                        "given; a binary model of river's answers True and False, which suits the "
                        "labels 1 and 0 alone"
                    )
        # Trees answer masses: all zeros in a new leaf. The exact sum is the same in whatever order
        # river's sets give the classes.
        total = math.fsum(masses.values())
        if masses and min(masses.values()) < 0.0:
            total = math.nan
        if 0.999999 < total < 1.000001:
            return masses  # type: ignore[no-any-return]  # river is untyped
        if 0.0 < total < math.inf:
            return {label: mass / total for label, mass in masses.items()}
        if total != 0.0:
            self.non_finite_count += 1
        return None

    def learn(self, record: Features, label: Label) -> None:
        """Learn one record."""
        self.model.learn_one(record, label)
        if self.task == "regression":
            value = float(label)
            self._lowest, self._highest = min(self._lowest, value), max(self._highest, value)


def build(recipe: OnlineRecipe, schema: Schema, beside: Path | None = None) -> OnlineMember:
    """A new member. Raises BadConfiguration if it cannot be built."""
    from river import preprocessing, stats

    if ":" in recipe.recipe:
        model = _user_model(recipe, schema, beside)
    elif recipe.recipe not in RECIPES:
        raise BadConfiguration(
            f"online.recipe: {recipe.recipe!r} is no recipe; choose one of "
            f"{', '.join(sorted(RECIPES))}, or name your own as module:factory"
        )
    else:
        try:
            model = RECIPES[recipe.recipe](schema, recipe.seed, recipe.params)
        except (TypeError, ValueError) as error:
            raise BadConfiguration(
                f"online.params: {recipe.recipe} refuses them: {error}"
            ) from error
    imputer = preprocessing.StatImputer(
        *[(name, stats.Mean()) for name in schema.numbers],
        *[(name, MISSING) for name in schema.categories],
    )
    return OnlineMember(imputer | model, schema.task, schema.label_kind)


def _user_model(recipe: OnlineRecipe, schema: Schema, beside: Path | None) -> Any:
    from river import base

    make = user_code.find(recipe.recipe, beside)
    offered = {"task": schema.task, "seed": recipe.seed, **recipe.params}
    takes = inspect.signature(make).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in takes.values()):
        offered = {
            key: value for key, value in offered.items() if key in takes or key in recipe.params
        }
    try:
        model = make(**offered)
    except (TypeError, ValueError) as error:
        raise BadConfiguration(f"online.recipe: {recipe.recipe} failed: {error}") from error
    asked = "predict_one" if schema.task == "regression" else "predict_proba_one"
    fits = isinstance(model, base.Estimator) and hasattr(model, "learn_one")
    if not (fits and hasattr(model, asked)):
        kind = "Regressor" if schema.task == "regression" else "Classifier"
        raise BadConfiguration(
            f"online.recipe: {recipe.recipe} answered a {type(model).__name__}; a river model "
            f"(a class of your own derives from river.base.{kind}) with learn_one and {asked} was "
            "expected"
        )
    try:
        serialization.loads(serialization.dumps(model))
    except (serialization.CannotPickle, serialization.CannotLoad) as error:
        raise BadConfiguration(
            f"online.recipe: {recipe.recipe} made a model that no checkpoint can keep: {error}"
        ) from error
    return model


def one_hot(record: Features) -> dict[str, float]:
    """Text features as ``name=value: 1.0``, in the record's order.

    river's own encoder keeps values in sets, whose order differs from process to process, and with
    it the last bit of every sum: a resumed run would differ from an uninterrupted one. For the same
    reason columns are selected by type and not by `Select`, which uses a set too.
    """
    return {f"{name}={value}": 1.0 for name, value in record.items()}


def _linear(schema: Schema, seed: int, params: Mapping[str, Any]) -> Any:
    from river import compose, linear_model, preprocessing

    features = _joined(
        schema,
        numbers=preprocessing.StandardScaler(),
        categories=compose.FuncTransformer(one_hot),
    )
    if schema.task == "classification":
        return features | linear_model.SoftmaxRegression(**params)
    return features | preprocessing.TargetStandardScaler(
        regressor=linear_model.LinearRegression(**params)
    )


class InOrder(dict[Label, None]):
    """The classes that a tree has learned, in the order of the stream.

    river's adaptive tree keeps a set and sums its votes in the set's order, which differs from
    process to process, and with it the last bit of its probabilities.
    """

    def add(self, label: Label) -> None:
        """Add a class, as to a set."""
        self[label] = None


def _hoeffding_adaptive_tree(schema: Schema, seed: int, params: Mapping[str, Any]) -> Any:
    from river import tree

    if schema.task == "regression":
        return _for_trees(schema, tree.HoeffdingAdaptiveTreeRegressor(**{"seed": seed, **params}))
    model = tree.HoeffdingAdaptiveTreeClassifier(**{"seed": seed, **params})
    model.classes = InOrder()
    return _for_trees(schema, model)


def _adaptive_random_forest(schema: Schema, seed: int, params: Mapping[str, Any]) -> Any:
    from river import forest

    kind = forest.ARFClassifier if schema.task == "classification" else forest.ARFRegressor
    return _for_trees(schema, kind(**{"seed": seed, **params}))


def _for_trees(schema: Schema, model: Any) -> Any:
    """Categories as whole numbers in order of appearance.

    river's trees accept text too, but keep it in sets, and their linear leaves fail on it.
    """
    from river import compose, preprocessing

    if not schema.categories:
        return model
    numbers = compose.FuncTransformer(as_it_is)
    return _joined(schema, numbers, preprocessing.OrdinalEncoder()) | model


def as_it_is(record: Features) -> Features:
    """The record, unchanged."""
    return record


def _joined(schema: Schema, numbers: Any, categories: Any) -> Any:
    """Numbers through one transformer and categories through another, side by side."""
    from river import compose

    if not schema.categories:
        return numbers
    if not schema.numbers:
        return categories
    return (compose.SelectType(float) | numbers) + (compose.SelectType(str) | categories)


RECIPES: Mapping[str, Callable[[Schema, int, Mapping[str, Any]], Any]] = {
    "linear": _linear,
    "hoeffding_adaptive_tree": _hoeffding_adaptive_tree,
    "adaptive_random_forest": _adaptive_random_forest,
}
