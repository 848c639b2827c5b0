"""Batch models: fit on a window of the past, predict frames.

Pure computation: it reads no disk, and no clock but the one it is given. `models.core.metrics`
scores models, `models.batch.evaluation` compares them. The newest row of a frame is the last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.batch.fit_guard import FitCheckpoint, Guard
from models.batch.recipe_config import BatchRecipe
from models.core.metrics import Measure
from models.core.prediction import BatchPrediction
from models.core.record_schema import Label, Schema, Task
from observability.core.errors import BadConfiguration, ThermodriftError

if TYPE_CHECKING:
    import pandas as pd

HUGE = 1e30
"""Numbers are clipped here: beyond, float32 and sums of squares overflow in estimators."""
PREDICTION = "prediction"
"""The column of a reference with the model's predictions for the hold-out rows."""


class TooLittleToLearn(ThermodriftError, ValueError):
    """Nothing can be learned from this window: it has too few rows, or a single class."""


class BatchCannotLearn(ThermodriftError, RuntimeError):
    """The estimator failed while it was fitted."""


class BatchAnswersNothing(ThermodriftError, ValueError):
    """A model failed to predict, or its prediction is no finite number or probability."""


@dataclass(frozen=True, eq=False)
class BatchModel:
    """A fitted model, which can be pickled.

    `labels` are its classes in the order of its probabilities, and empty in regression.
    """

    task: Task
    labels: tuple[Label, ...]
    schema: Schema | None
    preparation: Any
    estimator: Any

    def predict(self, frame: pd.DataFrame) -> BatchPrediction:
        """Predict `frame`, which has the schema's columns in any order; extra ones are ignored.

        Predictions are finite; probabilities are float64 and sum to 1 in every row. A class is the
        most probable one. If the estimator has no probabilities, they come from its decision
        function (logistic or softmax), or else are 1 for the class that it predicts.
        Raises BatchAnswersNothing.
        """
        if len(frame) == 0:
            empty = np.empty((0, len(self.labels))) if self.task == "classification" else None
            return BatchPrediction([], empty, self.labels)
        from models.batch import recipes

        try:
            with recipes.working(frame.size):
                matrix = self.preparation.transform(sanitized(frame, self.schema))
                raw = self._raw_prediction(matrix)
        except (Exception, SystemExit) as error:
            raise BatchAnswersNothing(
                f"the batch model failed on {len(frame)} rows: {type(error).__name__}: {error}; "
                f"check that the frame has the columns it was trained on"
            ) from error
        classifies, shape, rows = self.task == "classification", raw.shape, len(frame)
        expected = (rows, len(self.labels)) if classifies else (rows,)
        raw = raw if classifies else raw.reshape(-1)
        if raw.shape != expected:
            raise BatchAnswersNothing(
                f"the batch model ({type(self.estimator).__name__}) must answer in the shape "
                f"{expected}; came: {shape}; correct its factory"
            )
        finite = np.isfinite(raw)
        if classifies:
            probabilities = np.clip(raw, 0.0, 1.0)
            totals = probabilities.sum(axis=1, keepdims=True)
            finite = finite.all(axis=1) & (totals[:, 0] > 0)
        if not finite.all():
            raise BatchAnswersNothing(
                f"the batch model ({type(self.estimator).__name__}) gave no finite answer for "
                f"{int((~finite).sum())} of {len(finite)} rows; it diverged: train it with another "
                f"recipe or other [batch.params]"
            )
        if not classifies:
            return BatchPrediction(list(raw.tolist()), None)
        probabilities = probabilities / totals
        best = probabilities.argmax(axis=1)
        return BatchPrediction([self.labels[each] for each in best], probabilities, self.labels)

    def _raw_prediction(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.task == "regression":
            return np.asarray(self.estimator.predict(matrix), dtype=np.float64)
        if hasattr(self.estimator, "predict_proba"):
            return np.asarray(self.estimator.predict_proba(matrix), dtype=np.float64)
        if hasattr(self.estimator, "decision_function"):
            from scipy import special

            scores = np.asarray(self.estimator.decision_function(matrix), dtype=np.float64)
            if scores.ndim == 1:
                scores = np.stack([-scores / 2, scores / 2], axis=1)
            return np.asarray(special.softmax(scores, axis=1), dtype=np.float64)
        codes = np.asarray(self.estimator.predict(matrix)).astype(np.intp).ravel()
        return np.eye(len(self.labels))[codes]


def fit(
    frame: pd.DataFrame,
    labels: Sequence[Label],
    recipe: BatchRecipe,
    schema: Schema,
    beside: Path | None = None,
    *,
    guard: Guard | None = None,
    clock: Callable[[], float] | None = None,
    partial: FitCheckpoint | None = None,
    device: str | None = None,
    measure: Measure | None = None,
) -> BatchModel:
    """Fit a model of `recipe` on all rows of `frame`, reproducibly by its seed.

    Of `recipe.recipes`, it is `recipe.recipe`. `measure` is the metric that the model shall be good
    at; without one, squared errors are fitted in regression.

    `guard` is called before, during and after the estimator's fit (see
    `models.batch.interruptible_fit`) and does not change the model; its exceptions pass through.
    `clock` counts seconds, for the size of the rounds. `partial` is the checkpoint of an earlier
    `Preempted` of the same fit on the same rows.

    Raises TooLittleToLearn (fewer rows than the training part of `min_rows`, or one class only),
    BadConfiguration (an unknown recipe or parameter) and BatchCannotLearn.
    """
    fewest = split(recipe.min_rows, recipe)[0].stop
    if len(frame) < fewest:
        raise TooLittleToLearn(
            f"{len(frame)} rows are too few to fit a batch model: {fewest} are needed "
            f"(batch.min_rows without the hold-out); wait for more, or lower min_rows"
        )
    if len(frame) != len(labels):
        raise ValueError(f"{len(frame)} rows came with {len(labels)} labels")
    from sklearn.utils._param_validation import InvalidParameterError

    from models.batch import interruptible_fit, recipes

    classes, targets = _encoded(labels, schema.task)
    # A column without any value is left out: there is nothing to learn from it.
    filled = tuple(column for column in schema.columns if frame[column.name].notna().any())
    if not filled:
        raise TooLittleToLearn(
            f"no feature has a value in any of {len(frame)} rows; check the stream's columns: "
            f"{', '.join(schema.names) or 'there are none'}"
        )
    schema, name = schema.model_copy(update={"columns": filled}), recipe.recipe
    made = recipes.build(
        name, recipe.params, schema.task, recipe.seed, schema, beside, device, measure
    )
    if recipe.class_weight == "balanced":
        recipes.weigh(made.estimator, name, schema.task, targets)
    asked = interruptible_fit.GuardProbe(guard or (lambda _: None), clock)
    try:
        with recipes.working(frame.size):
            matrix = made.preparation.fit_transform(sanitized(frame, schema))
            estimator = made.estimator
            if guard is None and partial is None:
                estimator.fit(matrix, targets)
            else:
                estimator = interruptible_fit.fit(
                    estimator, matrix, targets, asked, clock=clock, partial=partial
                )
    except InvalidParameterError as error:
        raise BadConfiguration(f"[batch.params] does not suit {name!r}: {error}") from error
    except (Exception, SystemExit) as error:
        if error is asked.failure:
            raise
        raise BatchCannotLearn(
            f"fitting {name!r} on {len(frame)} rows failed with {type(error).__name__}: {error}; "
            f"change batch.recipe or batch.params"
        ) from error
    return BatchModel(schema.task, classes, schema, made.preparation, estimator)


def _encoded(labels: Sequence[Label], task: Task) -> tuple[tuple[Label, ...], NDArray[Any]]:
    """Classes and codes 0..k-1 (some libraries require these), or () and the values."""
    if task == "regression":
        values = np.asarray(labels, dtype=np.float64)
        if not np.isfinite(values).all():
            raise TooLittleToLearn(
                f"{int((~np.isfinite(values)).sum())} of {len(values)} targets are not finite "
                f"numbers; leave those rows out"
            )
        return (), values
    # All labels of a stream have one type (Schema.label_kind), so they can be sorted.
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise TooLittleToLearn(
            f"all {len(labels)} rows are of one class ({classes[0]!r}), and at least 2 are "
            f"needed: wait for more rows, or widen batch.window"
        )
    codes = {label: code for code, label in enumerate(classes)}
    return classes, np.array([codes[label] for label in labels], dtype=np.int64)


def baseline(labels: Sequence[Label], task: Task, measure: Measure | None = None) -> BatchModel:
    """The baseline that every model must beat: class shares, or the best constant by `measure`.

    That is the median of `labels` by MAE and without a measure, the mean by RMSE and R2, and the
    quantile by pinball loss.
    """
    from models.batch import recipes

    if not labels:
        raise TooLittleToLearn("a baseline needs at least one label; none came")
    made = recipes.dummy(task, measure)
    classes = () if task == "regression" else tuple(sorted(set(labels)))
    codes = {label: code for code, label in enumerate(classes)}
    targets = [codes[label] if codes else label for label in labels]
    made.estimator.fit(np.zeros((len(labels), 1)), np.asarray(targets))
    return BatchModel(task, classes, None, made.preparation, made.estimator)


def sanitized(frame: pd.DataFrame, schema: Schema | None) -> pd.DataFrame:
    """The schema's columns: numbers are float64 within ±1e30 or NaN, categories text or None."""
    import pandas as pd

    if schema is None:
        return frame
    columns: dict[str, Any] = {}
    for column in schema.columns:
        values = frame[column.name]
        if column.kind == "number":
            columns[column.name] = np.clip(
                values.to_numpy(np.float64, na_value=np.nan), -HUGE, HUGE
            )
        else:
            cells = zip(values, values.isna(), strict=True)
            texts = [None if missing else str(value) for value, missing in cells]
            columns[column.name] = pd.Series(texts, dtype=object)
    return pd.DataFrame(columns, columns=schema.names)


def split(rows: int, recipe: BatchRecipe) -> tuple[slice, slice]:
    """The rows to fit on, and the newest rows, held out; at least one of each if rows > 1."""
    held_out = min(max(round(rows * recipe.holdout), 1), max(rows - 1, 0))
    return slice(0, rows - held_out), slice(rows - held_out, rows)


def typed_reference(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """A reference with the types that it has in memory, after it was read from a file.

    Numbers are float64 with NaN for missing, categories object with None; the target is object
    (int or str), or float64 in regression; so is the prediction, None or NaN where there is none.
    """
    import pandas as pd

    kinds: dict[str, Callable[[Any], Label]] = {"int": int, "str": str, "float": float}
    cast = kinds[schema.label_kind]
    typed = sanitized(frame, schema)
    for name in (schema.target, PREDICTION):
        labels = [
            None if missing else cast(value)
            for value, missing in zip(frame[name], frame[name].isna(), strict=True)
        ]
        typed[name] = pd.Series(labels, dtype=float if schema.task == "regression" else object)
    return typed
