"""What models are judged by: scikit-learn's metrics by name, and what each of them means here.

Maths: no disk, no clock. Every number comes from `sklearn.metrics`; this file says which task a
metric suits, which way it points, what is rare enough to be the positive class, and when a window
cannot tell: then the score is NaN, which is "unknown" and never 0. scikit-learn is slow to import,
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
    from models.core.prediction import Answer, BatchPrediction

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
    """What a metric is."""

    task: Task
    larger_is_better: bool
    unit: Unit
    """How drift counts a loss: in points; in what the baseline loses; as a share of itself."""
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
"""What is judged by where nobody names a metric."""
CUT: frozenset[Name] = frozenset({"f1", "balanced_accuracy"})
"""Metrics that depend on the probability from which the rarer of two classes is answered."""


@dataclass(frozen=True)
class Measure:
    """What a pipeline is judged by: a metric, its quantile, and the threshold of its answers."""

    name: Name
    quantile: float = 0.5
    """Of pinball: the share of targets that should lie below the prediction."""
    threshold: float | None = None
    """A probability of the rarer of two classes from which it is answered; None: chosen."""

    @property
    def task(self) -> Task:
        """The task that it suits."""
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
        """Whether the answered class depends on a threshold that is not simply the likeliest."""
        return self.name in CUT or self.threshold is not None


def names(task: Task) -> list[Name]:
    """The metrics that suit a task."""
    return [name for name in get_args(Name) if METRICS[name].task == task]


def measure(
    name: str, task: Task, quantile: float = 0.5, threshold: float | None = None
) -> Measure:
    """The measure that a person named, or the task's own for ``auto``. Raises BadConfiguration."""
    if name == "auto":
        return Measure(AUTO[task], quantile, threshold)
    for each in names(task):
        if each == name:
            return Measure(each, quantile, threshold)
    raise BadConfiguration(unfit(name, task))


def unfit(name: str, task: Task) -> str:
    """What is said of a metric that does not suit the task."""
    return (
        f"{name!r} is no metric of {task}; there are: auto ({AUTO[task]}), {', '.join(names(task))}"
    )


def positive(counts: Mapping[Label, int]) -> Label | None:
    """The rarer of two classes, which F1 and the others are about; None where there are not two.

    Of two that are equally frequent it is the last in their order.
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
    """Every metric of the measure's task over these rows; NaN where they cannot tell one.

    `rarer` is the positive class of two (see `positive`): F1, ROC AUC and average precision are
    about it, and F1 and balanced accuracy are taken at the threshold that is best on these rows, or
    at the measure's own. Without it they are means over the classes (macro), at the likeliest.
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
    """The measure's metric over these rows; NaN where they cannot tell it."""
    if len(labels) != len(prediction.values):
        raise ValueError(f"{len(labels)} labels came with {len(prediction.values)} predictions")
    if not labels:
        return math.nan
    with _quiet():
        if measure.task == "regression":
            return _of_values(labels, prediction.values, measure)
        if METRICS[measure.name].needs == "probabilities":
            return _of_probabilities(labels, prediction, measure, rarer)
        return _of_classes(labels, _cut(labels, prediction, measure, rarer), measure, rarer)


def of_answers(
    labels: Sequence[Label],
    answers: Sequence[Answer],
    answered: Sequence[Label | None],
    measure: Measure,
    rarer: Label | None = None,
) -> float:
    """The metric of what was answered record by record, at the classes that were answered.

    Records without an answer are left out; NaN where nothing can be told.
    """
    from models.core.prediction import BatchPrediction

    kept = [index for index, each in enumerate(answered) if each is not None]
    truth = [labels[index] for index in kept]
    values = [each for each in answered if each is not None]
    if METRICS[measure.name].needs == "labels":
        return _plain(truth, values, measure, rarer)
    shares = [answers[index] for index in kept]
    classes = _ordered({label for each in shares if isinstance(each, Mapping) for label in each})
    table = np.array(
        [
            [each.get(label, 0.0) for label in classes]
            for each in shares
            if isinstance(each, Mapping)
        ]
    ).reshape(-1, len(classes))
    if len(table) != len(truth):
        return math.nan
    return value(truth, BatchPrediction(values, table, classes), measure, rarer)


def of_counts(
    counts: Mapping[tuple[Label, Label], int], measure: Measure, rarer: Label | None
) -> float:
    """The metric of answered classes from how often each (label, answer) came."""
    pairs = [pair for pair in counts if counts[pair]]
    if not pairs:
        return math.nan
    weights = [counts[pair] for pair in pairs]
    truth, values = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    with _quiet():
        return _of_classes(truth, values, measure, rarer, weights)


def _plain(
    truth: Sequence[Label], values: Sequence[Label], measure: Measure, rarer: Label | None
) -> float:
    if not truth:
        return math.nan
    with _quiet():
        if measure.task == "regression":
            return _of_values(truth, values, measure)
        return _of_classes(truth, values, measure, rarer)


def standard_error(
    labels: Sequence[Label],
    prediction: BatchPrediction,
    measure: Measure,
    rarer: Label | None = None,
    draws: int = 30,
) -> float | None:
    """How far chance moves the metric over these rows: its spread over windows drawn from them.

    Always the same for the same rows. None where too few of the draws can be told.
    Source: B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7
    (1979).
    """
    from models.core.prediction import BatchPrediction

    chance = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        rows = chance.integers(len(labels), size=len(labels))
        shares = prediction.probabilities
        drawn = BatchPrediction(
            [prediction.values[row] for row in rows],
            None if shares is None else shares[rows],
            prediction.labels,
        )
        found.append(value([labels[row] for row in rows], drawn, measure, rarer))
    known = [each for each in found if math.isfinite(each)]
    return float(np.std(known, ddof=1)) if len(known) > draws // 2 else None


class ThresholdResult(NamedTuple):
    """A threshold, and what it brings."""

    at: float
    gain: float
    """The metric with it."""
    alike: float
    """The metric where every row is answered as positive."""

    @property
    def skill(self) -> float:
        """How far it is on the way from answering all alike (0) to no mistake (1)."""
        return (self.gain - self.alike) / (1.0 - self.alike)


def best_threshold(
    truth: Sequence[bool] | NDArray[np.bool_],
    probabilities: Sequence[float] | NDArray[np.float64],
    name: Name,
) -> ThresholdResult | None:
    """The probability from which `name` is largest when it counts as the positive class.

    None where the rows hold one class only. Of thresholds that do equally well it is the one
    nearest to a half. It lies midway between two probabilities that came, so that it is no
    prediction's own.
    """
    from sklearn import metrics

    came = np.asarray(truth, dtype=bool)
    if not came.any() or came.all():
        return None
    shares = np.asarray(probabilities, dtype=np.float64)
    if name == "f1":
        precision, recall, cuts = metrics.precision_recall_curve(came, shares)
        total = precision[:-1] + recall[:-1]
        gains = np.divide(2 * precision[:-1] * recall[:-1], total, where=total > 0, out=total * 0)
    else:
        false, true, cuts = metrics.roc_curve(came, shares, drop_intermediate=False)
        # Its first threshold is infinite: nothing is answered as positive.
        gains, cuts = ((true + 1.0 - false) / 2.0)[1:], cuts[1:]
    ordered = np.unique(shares)
    below = np.concatenate([[0.0], ordered[:-1]])
    middles = (ordered + below) / 2.0
    cuts = middles[np.searchsorted(ordered, cuts)]
    best = np.flatnonzero(gains >= gains.max() - 1e-12)
    chosen = best[np.abs(cuts[best] - 0.5).argmin()]
    # Everything is answered as positive from the lowest probability on.
    share = float(came.mean())
    alike = 2.0 * share / (1.0 + share) if name == "f1" else 0.5
    return ThresholdResult(float(cuts[chosen]), float(gains[chosen]), alike)


def _cut(
    labels: Sequence[Label], prediction: BatchPrediction, measure: Measure, rarer: Label | None
) -> Sequence[Label]:
    """The classes that are answered: the likeliest, or of two the rarer from the threshold on."""
    shares = prediction.probabilities
    if not measure.cuts or rarer is None or shares is None or len(prediction.labels) != 2:
        return prediction.values
    if rarer not in prediction.labels:
        return prediction.values
    at = prediction.labels.index(rarer)
    other = prediction.labels[1 - at]
    threshold = measure.threshold
    if threshold is None:
        best = best_threshold([label == rarer for label in labels], shares[:, at], measure.name)
        threshold = None if best is None else best.at
    if threshold is None:
        return prediction.values
    return [rarer if share >= threshold else other for share in shares[:, at]]


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
        # Of one class alone nobody can say how well two are told apart.
        return math.nan
    if measure.name == "balanced_accuracy":
        return float(metrics.balanced_accuracy_score(truth, answers, sample_weight=weights))
    if rarer in codes and len(classes) == 2:
        return float(
            metrics.f1_score(
                truth,
                answers,
                pos_label=codes[rarer],
                sample_weight=weights,
                zero_division=0.0,
            )
        )
    return float(
        metrics.f1_score(truth, answers, average="macro", sample_weight=weights, zero_division=0.0)
    )


def _of_probabilities(
    labels: Sequence[Label], prediction: BatchPrediction, measure: Measure, rarer: Label | None
) -> float:
    from sklearn import metrics

    if prediction.probabilities is None:
        return math.nan
    classes, shares = _widened(labels, prediction.labels, prediction.probabilities)
    codes = {label: code for code, label in enumerate(classes)}
    truth = np.array([codes[label] for label in labels], dtype=np.intp)
    known = np.arange(len(classes))
    if measure.name == "log_loss":
        return float(metrics.log_loss(truth, shares, labels=known))
    if measure.name == "brier":
        return float(metrics.brier_score_loss(truth, shares, labels=known, scale_by_half=True))
    hits = truth[:, None] == known[None, :]
    told = [codes[rarer]] if rarer in codes and len(classes) == 2 else list(range(len(classes)))
    told = [code for code in told if hits[:, code].any() and not hits[:, code].all()]
    if not told:
        return math.nan
    curve: Any = (
        metrics.roc_auc_score if measure.name == "roc_auc" else metrics.average_precision_score
    )
    return float(np.mean([curve(hits[:, code], shares[:, code]) for code in told]))


def _widened(
    labels: Sequence[Label], known: Sequence[Label], shares: NDArray[np.float64]
) -> tuple[tuple[Label | None, ...], NDArray[np.float64]]:
    """Probabilities with a column of zeros for each class that the model does not know.

    scikit-learn wants two classes at least: where there is one, a class that never comes stands in.
    """
    strangers: list[Label | None] = list(_ordered(set(labels) - set(known)))
    if len(known) + len(strangers) < 2:
        strangers.append(None)
    zeros = np.zeros((len(shares), len(strangers)))
    return (*known, *strangers), np.hstack([shares, zeros])


def _ordered(labels: set[Label]) -> tuple[Label, ...]:
    return tuple(sorted(labels, key=lambda label: (str(type(label)), label)))


def counted(labels: Sequence[Label]) -> Label | None:
    """The rarer of two classes among these labels; None where there are not two."""
    return positive(Counter(labels))


@contextmanager
def _quiet() -> Iterator[None]:
    """Undefined cases are looked for before, and an overflow is an infinite score."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        yield
