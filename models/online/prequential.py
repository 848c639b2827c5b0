"""Prequential evaluation: the metric of a member over all its predictions, record by record.

Pure computation. Log loss, Brier score and errors of values are running means; F1 and balanced
accuracy come from running counts of label and prediction; ROC AUC and average precision need the
predictions themselves, so they cover the newest `RECENT` ones, for two classes only. R2 comes from
running sums.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from models.core import metrics
from models.core.metrics import Measure
from models.core.prediction import Answer, BatchPrediction
from models.core.record_schema import Label

RECENT = 5_000
"""Predictions that a ranking metric covers."""
LEAST = 2.0**-52
"""Least probability in the log loss, the same as that of scikit-learn for float64."""


class RunningMetric(Protocol):
    """The running value of one metric for one member."""

    @property
    def count(self) -> int:
        """Predictions that the metric covers."""

    def add(self, answer: Answer, answered: Label, label: Label) -> None:
        """Add a prediction, its predicted label, and the true label."""

    def value(self) -> float | None:
        """The metric so far; None while it is undefined."""


def start(measure: Measure) -> RunningMetric:
    """A new running metric for this measure."""
    if measure.name in ("f1", "balanced_accuracy"):
        return Counts(measure)
    if measure.name in ("roc_auc", "average_precision"):
        return Ranks(measure)
    return Explained() if measure.name == "r2" else Mean(measure)


class Mean:
    """A mean of the cost of each record; for RMSE its square root."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.count = 0
        self._total = 0.0

    def add(self, answer: Answer, answered: Label, label: Label) -> None:
        """Add a record."""
        self.count += 1
        self._total += _cost(self.measure, answer, answered, label)

    def value(self) -> float | None:
        """The mean; None before the first record."""
        if not self.count:
            return None
        mean = self._total / self.count
        return math.sqrt(mean) if self.measure.name == "rmse" else mean


class Counts:
    """Counts of each pair of label and predicted class."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.count = 0
        self._pairs: dict[tuple[Label, Label], int] = {}

    def add(self, answer: Answer, answered: Label, label: Label) -> None:
        """Add a pair."""
        self.count += 1
        pair = (label, answered)
        self._pairs[pair] = self._pairs.get(pair, 0) + 1

    def value(self) -> float | None:
        """The metric of all pairs; the rarer of two classes is the positive one."""
        counts: dict[Label, int] = {}
        for (label, _), count in self._pairs.items():
            counts[label] = counts.get(label, 0) + count
        return _known(metrics.of_counts(self._pairs, self.measure, metrics.positive(counts)))


class Ranks:
    """The newest predictions for two classes, as the probability of the first class."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.classes: list[Label] = []
        self._recent: deque[tuple[float, bool]] = deque(maxlen=RECENT)

    @property
    def count(self) -> int:
        """Predictions that the metric covers."""
        return len(self._recent)

    def add(self, answer: Answer, answered: Label, label: Label) -> None:
        """Add a prediction."""
        if label not in self.classes:
            self.classes.append(label)
        if isinstance(answer, Mapping):
            first = self.classes[0]
            self._recent.append((float(answer.get(first, 0.0)), label == first))

    def value(self) -> float | None:
        """The metric over the newest predictions; None unless there are exactly two classes."""
        if len(self.classes) != 2 or not self._recent:
            return None
        first, second = self.classes
        labels = [first if is_first else second for _, is_first in self._recent]
        shares = np.array([share for share, _ in self._recent])
        answers = BatchPrediction(labels, np.stack([shares, 1.0 - shares], axis=1), (first, second))
        return _known(metrics.value(labels, answers, self.measure, metrics.counted(labels)))


class Explained:
    """R2: the share of the target's variance that the predictions explain."""

    def __init__(self) -> None:
        self.count = 0
        self._errors = 0.0
        self._mean = 0.0
        self._spread = 0.0

    def add(self, answer: Answer, answered: Label, label: Label) -> None:
        """Add a record; the variance is updated by Welford's method."""
        value = float(label)
        error = float(answered) - value
        self.count += 1
        # `error**2` would raise an OverflowError.
        self._errors += error * error
        gap = value - self._mean
        self._mean += gap / self.count
        self._spread += gap * (value - self._mean)

    def value(self) -> float | None:
        """1 - errors / variance; None if there is no variance."""
        if self.count < 2 or not 0.0 < self._spread < math.inf:
            return None
        return _known(1.0 - self._errors / self._spread)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cost(measure: Measure, answer: Answer, answered: Label, label: Label) -> float:
    """The cost of one record in a metric that is a mean of such costs."""
    if measure.name == "accuracy":
        return float(answered == label)
    if measure.name in ("log_loss", "brier"):
        shares = answer if isinstance(answer, Mapping) else {}
        share = float(shares.get(label, 0.0))
        if measure.name == "log_loss":
            return -math.log(min(max(share, LEAST), 1.0))
        # Half the squared distance to the label: from 0 to 1 for any number of classes.
        squares = sum(each * each for each in shares.values())
        return (squares - share * share + (1.0 - share) ** 2) / 2.0
    gap = float(label) - float(answered)
    if measure.name == "mae":
        return abs(gap)
    if measure.name == "rmse":
        return gap * gap
    return max(measure.quantile * gap, (measure.quantile - 1.0) * gap)
