"""Recipes of online members: a name becomes a river model for the stream's features.

Pure computation. Each recipe gives its model only features of the kind that it can learn from, in
bounded memory: numbers reach a linear model scaled and bounded, categories hashed; a tree gets
categories as whole numbers, and a target in units of its own spread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from models.core.metrics import Measure
from models.core.record_schema import Features, Label, Schema

FAR_SD = 10.0
"""Scaled numbers are cut at this many standard deviations, so that one outlier moves no weight far.
Half of it loses 1 % on a target with heavy tails, and without any cut such a model diverges."""
BUCKETS = 1_024
"""Weights per class for all categories of a linear model. Of a hundred thousand categories some
share a weight, and a record costs as much as with three."""
RATE, FAST_RATE = 0.01, 0.05


def _linear(schema: Schema, seed: int, params: Mapping[str, Any], measure: Measure) -> Any:
    return _linear_at(RATE, schema, params, measure)


def _linear_fast(schema: Schema, seed: int, params: Mapping[str, Any], measure: Measure) -> Any:
    return _linear_at(FAST_RATE, schema, params, measure)


def _linear_at(rate: float, schema: Schema, params: Mapping[str, Any], measure: Measure) -> Any:
    """A linear model by gradient steps of a constant rate, which follow a change.

    `params` may hold another ``rate``, and the parameters of river's model.
    """
    from river import compose, linear_model, optim, preprocessing

    own = {**params}
    optimizer = optim.SGD(float(own.pop("rate", rate)))
    features = compose.FuncTransformer(constant)
    if schema.numbers:
        numbers = compose.SelectType(float) | preprocessing.StandardScaler()
        features += numbers | compose.FuncTransformer(within_reach)
    if schema.categories:
        hasher = preprocessing.FeatureHasher(n_features=BUCKETS, seed=0)
        features += compose.SelectType(str) | hasher
    if schema.task == "classification":
        return features | linear_model.SoftmaxRegression(optimizer=optimizer, **own)
    own.setdefault("loss", _loss(measure))
    return features | preprocessing.TargetStandardScaler(
        regressor=linear_model.LinearRegression(optimizer=optimizer, **own)
    )


def _loss(measure: Measure) -> Any:
    """The loss that the pipeline's metric is the mean of."""
    from river import optim

    if measure.name in ("rmse", "r2"):
        return optim.losses.Squared()
    return optim.losses.Quantile(measure.quantile if measure.name == "pinball" else 0.5)


def constant(record: Features) -> dict[str, float]:
    """A feature that is always 1: river's softmax regression has no intercept."""
    return {"(constant)": 1.0}


def within_reach(record: Mapping[str, float]) -> dict[str, float]:
    """Scaled numbers, cut at `FAR_SD`."""
    return {name: min(max(value, -FAR_SD), FAR_SD) for name, value in record.items()}


class InOrder(dict[Label, None]):
    """The classes that a tree has learned, in the order of the stream.

    river's adaptive tree keeps a set and sums its votes in the set's order, which differs from
    process to process, and with it the last bit of its probabilities.
    """

    def add(self, label: Label) -> None:
        """Add a class, as to a set."""
        self[label] = None


def _hoeffding_adaptive_tree(
    schema: Schema, seed: int, params: Mapping[str, Any], measure: Measure
) -> Any:
    from river import preprocessing, tree

    if schema.task == "regression":
        model = tree.HoeffdingAdaptiveTreeRegressor(**{"seed": seed, **params})
        return _for_trees(schema, preprocessing.TargetStandardScaler(regressor=model))
    model = tree.HoeffdingAdaptiveTreeClassifier(**{"seed": seed, **params})
    model.classes = InOrder()
    return _for_trees(schema, model)


def _adaptive_random_forest(
    schema: Schema, seed: int, params: Mapping[str, Any], measure: Measure
) -> Any:
    from river import forest, preprocessing

    if schema.task == "classification":
        return _for_trees(schema, forest.ARFClassifier(**{"seed": seed, **params}))
    model = forest.ARFRegressor(**{"seed": seed, **params})
    return _for_trees(schema, preprocessing.TargetStandardScaler(regressor=model))


def _for_trees(schema: Schema, model: Any) -> Any:
    """Categories as whole numbers in order of appearance.

    river's trees accept text too, but keep it in sets, and their linear leaves fail on it.
    """
    if not schema.categories:
        return model
    from models.core.ordinals import Ordinals

    return Ordinals() | model


Recipe = Callable[[Schema, int, Mapping[str, Any], Measure], Any]

RECIPES: Mapping[str, Recipe] = {
    "linear": _linear,
    "linear_fast": _linear_fast,
    "hoeffding_adaptive_tree": _hoeffding_adaptive_tree,
    "adaptive_random_forest": _adaptive_random_forest,
}
