"""The metrics that models are judged by: those of scikit-learn, by name.

Pure computation: no disk, no clock. Every number comes from `sklearn.metrics`; this file says which
task a metric suits, whether larger is better, which class is the positive one, and when rows do not
define a score: it is NaN then, which means "unknown" and never 0. scikit-learn is slow to import,
so it is imported when something is scored.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from models.core.record_schema import Label, Task
from observability.core.errors import BadConfiguration

if TYPE_CHECKING:
    from models.core.prediction import BatchPrediction

Name = Literal[
    "log_loss",
    "brier",
    "accuracy",
    "balanced_accuracy",
    "f1",
    "roc_auc",
    "average_precision",
    "mae",
    "rmse",
    "pinball",
    "r2",
]
Unit = Literal["points", "baseline", "own"]


class MetricInfo(NamedTuple):
    """Properties of a metric."""

    task: Task
    larger_is_better: bool
    unit: Unit
    """The unit of a loss in drift checks: points; the loss of the baseline; a share of itself."""
    needs: Literal["labels", "probabilities"]


METRICS: Mapping[Name, MetricInfo] = {
    "log_loss": MetricInfo("classification", False, "baseline", "probabilities"),
    "brier": MetricInfo("classification", False, "baseline", "probabilities"),
    "accuracy": MetricInfo("classification", True, "points", "labels"),
    "balanced_accuracy": MetricInfo("classification", True, "points", "labels"),
    "f1": MetricInfo("classification", True, "points", "labels"),
    "roc_auc": MetricInfo("classification", True, "points", "probabilities"),
    "average_precision": MetricInfo("classification", True, "points", "probabilities"),
    "mae": MetricInfo("regression", False, "own", "labels"),
    "rmse": MetricInfo("regression", False, "own", "labels"),
    "pinball": MetricInfo("regression", False, "own", "labels"),
    "r2": MetricInfo("regression", True, "points", "labels"),
}
AUTO: Mapping[Task, Name] = {"classification": "brier", "regression": "mae"}
"""The metric of each task if the configuration names none."""
CUT: frozenset[Name] = frozenset({"f1", "balanced_accuracy"})
"""Metrics that depend on the probability from which the rarer of two classes is predicted."""


@dataclass(frozen=True)
class Measure:
    """How a pipeline is judged: a metric, its quantile, and the threshold of its predictions."""

    name: Name
    quantile: float = 0.5
    """Of pinball: the share of targets that should lie below the prediction."""
    threshold: float | None = None
    """Probability from which the rarer of two classes is predicted; None: chosen from the data."""

    @property
    def task(self) -> Task:
        """The task of the metric."""
        return METRICS[self.name].task

    @property
    def larger_is_better(self) -> bool:
        """True for a score such as accuracy, false for an error such as MAE."""
        return METRICS[self.name].larger_is_better

    def loss(self, value: float) -> float:
        """The one number that models are compared by, lower is better: 1 - score, or the error."""
        return 1.0 - value if self.larger_is_better else value

    @property
    def cuts(self) -> bool:
        """Whether the predicted class depends on a threshold, instead of being the likeliest."""
        return self.name in CUT or self.threshold is not None


def names(task: Task) -> list[Name]:
    """The metrics of a task."""
    return [name for name in get_args(Name) if METRICS[name].task == task]


def measure(
    name: str, task: Task, quantile: float = 0.5, threshold: float | None = None
) -> Measure:
    """The measure by name; ``auto`` is the default of the task. Raises BadConfiguration."""
    if name == "auto":
        return Measure(AUTO[task], quantile, threshold)
    for each in names(task):
        if each == name:
            return Measure(each, quantile, threshold)
    raise BadConfiguration(unfit(name, task))


def unfit(name: str, task: Task) -> str:
    """The error message for a metric that does not suit the task."""
    return (
        f"{name!r} is no metric of {task}; there are: auto ({AUTO[task]}), {', '.join(names(task))}"
    )


def positive(counts: Mapping[Label, int]) -> Label | None:
    """The positive class: the rarer of two classes; None if there are not exactly two.

    If both are equally frequent, it is the last one in sorted order.
    """
    if len(counts) != 2:
        return None
    # A stream's labels are all of one kind, so they can be ordered.
    return min(sorted(counts, reverse=True), key=lambda label: counts[label])


def score(
    labels: Sequence[Label],
    prediction: BatchPrediction,
    measure: Measure,
    rarer: Label | None = None,
) -> dict[str, float]:
    """Every metric of the measure's task over these rows; NaN where the rows do not define it.

    `rarer` is the positive class (see `positive`) of F1, ROC AUC and average precision. F1 and
    balanced accuracy use the threshold that is best on these rows, or that of the measure. If
    `rarer` is None, they are means over the classes (macro), and the likeliest class is predicted.
    """
    return {
        name: value(labels, prediction, Measure(name, measure.quantile, measure.threshold), rarer)
        for name in names(measure.task)
    }


def value(
    labels: Sequence[Label],
    prediction: BatchPrediction,
    measure: Measure,
    rarer: Label | None = None,
) -> float:
    """The measure's metric over these rows; NaN where they do not define it."""
    if len(labels) != len(prediction.values):
        raise ValueError(f"{len(labels)} labels came with {len(prediction.values)} predictions")
    if not labels:
        return math.nan
    with _quiet():
        if measure.task == "regression":
            return _of_values(labels, prediction.values, measure)
        if METRICS[measure.name].needs == "probabilities":
            return _of_probabilities(labels, prediction, measure, rarer)
        return _of_classes(
            labels, _predicted_classes(labels, prediction, measure, rarer), measure, rarer
        )


def of_answers(
    labels: Sequence[Label],
    answered: Sequence[Label | None],
    whole: BatchPrediction,
    measure: Measure,
    rarer: Label | None = None,
) -> float:
    """The metric of predictions that were made record by record, with the classes as `answered`.

    `whole` has the same records, with all probabilities of each. Records without a prediction are
    left out; NaN where the rest does not define the metric.
    """
    from models.core.prediction import BatchPrediction

    scored = [index for index, each in enumerate(answered) if each is not None]
    truth = [labels[index] for index in scored]
    values = [each for each in answered if each is not None]
    shares = whole.probabilities
    if METRICS[measure.name].needs == "labels" or shares is None:
        return value(truth, BatchPrediction(values, None), measure, rarer)
    return value(truth, BatchPrediction(values, shares[scored], whole.labels), measure, rarer)


def of_counts(
    counts: Mapping[tuple[Label, Label], int], measure: Measure, rarer: Label | None
) -> float:
    """The metric of predicted classes, from the count of each pair (label, prediction)."""
    pairs = [pair for pair in counts if counts[pair]]
    if not pairs:
        return math.nan
    weights = [counts[pair] for pair in pairs]
    truth, values = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    with _quiet():
        return _of_classes(truth, values, measure, rarer, weights)


class ThresholdResult(NamedTuple):
    """A threshold, and the metric that it gives."""

    at: float
    gain: float
    """The metric with it."""
    alike: float
    """The metric if every row is predicted as positive."""

    @property
    def skill(self) -> float:
        """The gain on a scale from predicting all rows as positive (0) to no mistake (1)."""
        return (self.gain - self.alike) / (1.0 - self.alike)


def best_threshold(
    truth: Sequence[bool] | NDArray[np.bool_],
    probabilities: Sequence[float] | NDArray[np.float64],
    name: Name,
) -> ThresholdResult | None:
    """The threshold on the probability of the positive class that maximises the metric `name`.

    None where all rows are of one class. Of equally good thresholds, the one nearest to 0.5 wins.
    It lies midway between two observed probabilities, so that no prediction is equal to it.
    """
    from sklearn import metrics

    positives = np.asarray(truth, dtype=bool)
    if not positives.any() or positives.all():
        return None
    shares = np.asarray(probabilities, dtype=np.float64)
    if name == "f1":
        precision, recall, cuts = metrics.precision_recall_curve(positives, shares)
        total = precision[:-1] + recall[:-1]
        gains = np.divide(2 * precision[:-1] * recall[:-1], total, where=total > 0, out=total * 0)
    else:
        false, true, cuts = metrics.roc_curve(positives, shares, drop_intermediate=False)
        # Its first threshold is infinite: nothing is predicted as positive.
        gains, cuts = ((true + 1.0 - false) / 2.0)[1:], cuts[1:]
    ordered = np.unique(shares)
    below = np.concatenate([[0.0], ordered[:-1]])
    middles = (ordered + below) / 2.0
    cuts = middles[np.searchsorted(ordered, cuts)]
    best = np.flatnonzero(gains >= gains.max() - 1e-12)
    chosen = best[np.abs(cuts[best] - 0.5).argmin()]
    # From the lowest probability on, every row is predicted as positive.
    share = float(positives.mean())
    alike = 2.0 * share / (1.0 + share) if name == "f1" else 0.5
    return ThresholdResult(float(cuts[chosen]), float(gains[chosen]), alike)


def _predicted_classes(
    labels: Sequence[Label], prediction: BatchPrediction, measure: Measure, rarer: Label | None
) -> Sequence[Label]:
    """The likeliest classes; or the rarer of two classes wherever it reaches the threshold."""
    shares, classes = prediction.probabilities, prediction.labels
    if not measure.cuts or shares is None or len(classes) != 2 or rarer not in classes:
        return prediction.values
    at, threshold = classes.index(rarer), measure.threshold
    if threshold is None:
        best = best_threshold([label == rarer for label in labels], shares[:, at], measure.name)
        if best is None:
            return prediction.values
        threshold = best.at
    return [rarer if share >= threshold else classes[1 - at] for share in shares[:, at]]


def _of_values(labels: Sequence[Label], values: Sequence[Label], measure: Measure) -> float:
    from sklearn import metrics

    truth = np.asarray(labels, dtype=np.float64)
    answers = np.asarray(values, dtype=np.float64)
    if measure.name == "mae":
        return float(metrics.mean_absolute_error(truth, answers))
    if measure.name == "rmse":
        return float(metrics.root_mean_squared_error(truth, answers))
    if measure.name == "pinball":
        return float(metrics.mean_pinball_loss(truth, answers, alpha=measure.quantile))
    return float(metrics.r2_score(truth, answers)) if len(truth) > 1 else math.nan


def _of_classes(
    labels: Sequence[Label],
    values: Sequence[Label],
    measure: Measure,
    rarer: Label | None,
    weights: Sequence[int] | None = None,
) -> float:
    from sklearn import metrics

    classes = _ordered({*labels, *values})
    codes = {label: code for code, label in enumerate(classes)}
    truth = [codes[label] for label in labels]
    answers = [codes[label] for label in values]
    if measure.name == "accuracy":
        return float(metrics.accuracy_score(truth, answers, sample_weight=weights))
    if len(set(truth)) < 2:
        # With one class alone, the separation of two classes is undefined.
        return math.nan
    if measure.name == "balanced_accuracy":
        return float(metrics.balanced_accuracy_score(truth, answers, sample_weight=weights))
    positive: dict[str, Any] = {"average": "macro"}
    if rarer in codes and len(classes) == 2:
        positive = {"pos_label": codes[rarer]}
    return float(
        metrics.f1_score(truth, answers, sample_weight=weights, zero_division=0.0, **positive)
    )


def _of_probabilities(
    labels: Sequence[Label], prediction: BatchPrediction, measure: Measure, rarer: Label | None
) -> float:
    from sklearn import metrics

    if prediction.probabilities is None:
        return math.nan
    # A class that the model does not know gets a column of zeros. scikit-learn needs at least two
    # classes: where there is one, None stands for a second class that never occurs.
    unknown: list[Label | None] = list(_ordered(set(labels) - set(prediction.labels)))
    if len(prediction.labels) + len(unknown) < 2:
        unknown.append(None)
    classes = (*prediction.labels, *unknown)
    zeros = np.zeros((len(labels), len(unknown)))
    shares = np.hstack([prediction.probabilities, zeros])
    codes = {label: code for code, label in enumerate(classes)}
    truth = np.array([codes[label] for label in labels], dtype=np.intp)
    known = np.arange(len(classes))
    if measure.name == "log_loss":
        return float(metrics.log_loss(truth, shares, labels=known))
    if measure.name == "brier":
        return float(metrics.brier_score_loss(truth, shares, labels=known, scale_by_half=True))
    hits = truth[:, None] == known[None, :]
    scored = [codes[rarer]] if rarer in codes and len(classes) == 2 else list(range(len(classes)))
    scored = [code for code in scored if hits[:, code].any() and not hits[:, code].all()]
    if not scored:
        return math.nan
    curve: Any = (
        metrics.roc_auc_score if measure.name == "roc_auc" else metrics.average_precision_score
    )
    return float(np.mean([curve(hits[:, code], shares[:, code]) for code in scored]))


def _ordered(labels: set[Label]) -> tuple[Label, ...]:
    return tuple(sorted(labels, key=lambda label: (str(type(label)), label)))


def counted(labels: Sequence[Label]) -> Label | None:
    """The positive class among these labels; None if there are not exactly two classes."""
    return positive(Counter(labels))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings: undefined cases are checked before; an overflow is an infinite score."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        for category in (UserWarning, RuntimeWarning):
            warnings.simplefilter("ignore", category)
        yield
