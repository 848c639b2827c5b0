"""Recipes: a name in the pipeline file becomes a preparation and an estimator of scikit-learn.

Pure computation: it fits nothing and reads nothing. Every estimator can rely on the same input:
finite numbers, with categories as numbers, also for missing, constant or new values. scikit-learn
is slow to import, so `models.batch.batch_model` imports this file only when it fits a model.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier, SGDRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.utils import compute_class_weight
from threadpoolctl import ThreadpoolController

from models.batch.recipe_config import PLAIN
from models.core import library_warnings, user_code
from models.core.metrics import Measure
from models.core.record_schema import Schema, Task
from observability.core.errors import BadConfiguration

ONE_HOT_CATEGORIES = 50
"""Categories that get a column each; the rarer ones share one."""
LEAVES = 15
"""Leaves of a boosted tree: half of scikit-learn's default take half of its time, and on streams
with noise, windows of some thousand rows have no more to tell."""
FAR_SD = 30.0
"""Scaled numbers are clipped at this many standard deviations, against outliers."""
CELLS_WORTH_THREADS = 2_000_000
"""Below, OpenMP's threads spend more time waiting for each other than working: on a busy machine a
fit of 8,000 rows took 3 to 9 s in two threads, and 0.1 s in one."""

# After the import of scikit-learn, so that its OpenMP is among the libraries that are found.
_threads = ThreadpoolController()

RESERVED = {
    "random_state": "set batch.seed instead",
    "categorical_features": "they follow from the stream's schema",
    "n_jobs": "one thread fits, so that results do not depend on the number of cores",
}


@dataclass(frozen=True)
class Build:
    """An unfitted model: the preparation (frame to matrix), and the estimator of that matrix."""

    preparation: Any
    estimator: Any


def build(
    recipe: str,
    params: Mapping[str, Any],
    task: Task,
    seed: int,
    schema: Schema,
    beside: Path | None,
    device: str | None = None,
    measure: Measure | None = None,
) -> Build:
    """Preparation and estimator of `recipe`, unfitted. Raises BadConfiguration.

    In regression, the loss that is fitted follows from `measure` where an estimator of scikit-learn
    has it at a bounded cost; `params` come first.
    """
    if ":" in recipe:
        own = _user_model(recipe, {"task": task, "seed": seed, "device": device}, beside)
        _set(own, params, recipe)
        return Build(_scaled(schema), own)
    if recipe not in PLAIN:
        raise BadConfiguration(
            f"batch.recipe must be one of {', '.join(PLAIN)}, or 'module:factory' for a model "
            f"of your own; came: {recipe!r}"
        )
    classifies = task == "classification"
    estimator: Any
    if recipe == "hist_gradient_boosting":
        boosting = HistGradientBoostingClassifier if classifies else HistGradientBoostingRegressor
        # Early stopping splits at random, and fails on a class with one row; users may enable it.
        estimator = boosting(random_state=seed, early_stopping=False, max_leaf_nodes=LEAVES)
        if measure is not None and measure.name == "mae":
            estimator.set_params(loss="absolute_error")
        elif measure is not None and measure.name == "pinball":
            estimator.set_params(loss="quantile", quantile=measure.quantile)
    elif recipe == "random_forest":
        forest = RandomForestClassifier if classifies else RandomForestRegressor
        estimator = forest(random_state=seed, min_samples_leaf=2, n_jobs=1)
    elif recipe == "linear":
        estimator = Ridge(random_state=seed)
        if classifies:
            estimator = LogisticRegression(random_state=seed, max_iter=500)
        elif measure is not None and measure.name == "mae" and not params:
            # Least absolute errors, on which far targets have no more pull than others. As a linear
            # program (QuantileRegressor) they would take minutes, and by SGD as long as Ridge.
            far = SGDRegressor("epsilon_insensitive", epsilon=0.0, random_state=seed)
            estimator = TransformedTargetRegressor(far, transformer=RobustScaler())
    else:
        estimator = SGDRegressor(random_state=seed)
        if classifies:
            estimator = SGDClassifier(loss="log_loss", random_state=seed, n_jobs=1)
    _set(estimator, params, recipe)
    if recipe == "hist_gradient_boosting":
        # This estimator splits on codes of categories and on NaN as they are.
        encoder = OrdinalEncoder(
            handle_unknown="use_encoded_value",
            unknown_value=np.nan,
            encoded_missing_value=np.nan,
            # One code fewer than bins: the estimator needs one bin for missing values.
            max_categories=max(2, estimator.max_bins - 1),
        )
        mask = [True] * len(schema.categories) + [False] * len(schema.numbers)
        estimator.set_params(categorical_features=mask)
        parts = [
            ("categories", encoder, schema.categories),
            ("numbers", "passthrough", schema.numbers),
        ]
        return Build(ColumnTransformer(parts), estimator)
    if recipe == "sgd" and task == "regression":
        # Its steps are in units of the target: unscaled targets make it diverge.
        estimator = TransformedTargetRegressor(estimator, transformer=StandardScaler())
    return Build(_scaled(schema), estimator)


def weigh(estimator: Any, recipe: str, task: Task, targets: NDArray[Any] | None) -> None:
    """Set balanced class weights, by scikit-learn's rule, as a parameter of the estimator.

    Weights in a parameter are the same in all rounds of a fit. Without `targets`, this only checks
    that the estimator has that parameter. Raises BadConfiguration.
    """
    if task == "regression":
        raise BadConfiguration(
            'batch.class_weight: "none" was allowed in regression, which has no classes; '
            'came: "balanced"'
        )
    takes = hasattr(estimator, "get_params") and "class_weight" in estimator.get_params()
    if not takes:
        raise BadConfiguration(
            f'batch.class_weight: "balanced" was asked, but the model of {recipe!r} takes no '
            "class_weight; choose another recipe, or weigh the classes inside the factory"
        )
    if estimator.get_params()["class_weight"] is not None:
        raise BadConfiguration(
            'batch.class_weight: "balanced" was asked, and [batch.params] sets class_weight too; '
            "keep one of them"
        )
    if targets is not None:
        classes = np.unique(targets)
        weights = compute_class_weight("balanced", classes=classes, y=targets)
        weighed = zip(classes.tolist(), weights.tolist(), strict=True)
        estimator.set_params(class_weight=dict(weighed))


def dummy(task: Task, measure: Measure | None = None) -> Build:
    """The baseline: class shares, or the constant that is best by `measure`, the median by MAE."""
    estimator: Any = DummyRegressor(strategy="median")
    if task == "classification":
        estimator = DummyClassifier(strategy="prior")
    elif measure is not None and measure.name == "pinball":
        estimator = DummyRegressor(strategy="quantile", quantile=measure.quantile)
    elif measure is not None and measure.name != "mae":
        estimator = DummyRegressor(strategy="mean")
    return Build(FunctionTransformer(_no_features), estimator)


@contextmanager
def working(cells: int) -> Iterator[None]:
    """Fit or predict a matrix of `cells` in this block, with a suitable number of threads.

    An unfinished fit and an overflow do not raise: the result is scored or rejected later. Warnings
    are collected by `models.core.library_warnings`. The results do not depend on the number of
    threads.
    """
    limits = 1 if cells < CELLS_WORTH_THREADS else None
    with (
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
        _threads.limit(limits=limits, user_api="openmp"),
    ):
        warnings.simplefilter("ignore", ConvergenceWarning)
        with library_warnings.during_model_calls():
            yield


def _set(estimator: Any, params: Mapping[str, Any], recipe: str) -> None:
    """Set `params` on `estimator`. Raises BadConfiguration, which names the allowed ones."""
    if not params:
        return
    if not hasattr(estimator, "get_params") or not hasattr(estimator, "set_params"):
        raise BadConfiguration(
            f"[batch.params]: the model of {recipe!r} takes no parameters (it has no set_params); "
            f"set them inside the factory, and remove: {', '.join(params)}"
        )
    allowed = sorted(set(estimator.get_params()) - set(RESERVED))
    for name in params:
        if name in RESERVED:
            raise BadConfiguration(f"[batch.params] {name} cannot be set: {RESERVED[name]}")
        if name not in allowed:
            raise BadConfiguration(
                f"[batch.params] {name} is not a parameter of {recipe!r}; "
                f"there are: {', '.join(allowed)}"
            )
    estimator.set_params(**params)


def _user_model(recipe: str, offered: Mapping[str, Any], beside: Path | None) -> Any:
    make = user_code.find(recipe, beside)
    try:
        parameters = inspect.signature(make).parameters
    except ValueError:
        parameters = {}  # type: ignore[assignment]  # a mapping without entries
    by_name = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    accepted = {name for name, each in parameters.items() if each.kind in by_name}
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        # A factory with **kwargs may pass them on to a model without a device parameter.
        accepted |= offered.keys() - {"device"}
    try:
        estimator = make(**{name: value for name, value in offered.items() if name in accepted})
    except Exception as error:
        raise BadConfiguration(
            f"batch.recipe {recipe!r} failed to make a model: {type(error).__name__}: {error}; "
            f"it is called with task=, seed= and device= where it takes them, else with nothing"
        ) from error
    missing = [name for name in ("fit", "predict") if not callable(getattr(estimator, name, None))]
    if missing:
        raise BadConfiguration(
            f"batch.recipe {recipe!r} must return a model with fit and predict, as "
            f"scikit-learn's have; came: {type(estimator).__name__} without {', '.join(missing)}"
        )
    return estimator


def _scaled(schema: Schema) -> Any:
    """Numbers imputed (with a flag), scaled, clipped; categories one-hot, the rare ones shared."""
    numbers = Pipeline(
        [
            ("impute", SimpleImputer(strategy="median", add_indicator=True)),
            ("scale", StandardScaler()),
            ("cut", FunctionTransformer(_clip)),
        ]
    )
    categories = OneHotEncoder(
        handle_unknown="infrequent_if_exist",
        max_categories=ONE_HOT_CATEGORIES,
        sparse_output=False,
    )
    return ColumnTransformer(
        [("numbers", numbers, schema.numbers), ("categories", categories, schema.categories)],
        sparse_threshold=0,
    )


def _clip(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(matrix, -FAR_SD, FAR_SD)


def _no_features(frame: Any) -> NDArray[np.float64]:
    return np.zeros((len(frame), 1))
