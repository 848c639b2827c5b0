"""Prequential evaluation: the metric of a member over all its predictions, batch by batch.

Pure computation. Log loss, Brier score and errors of values are running means; F1 and balanced
accuracy come from running counts of label and prediction; ROC AUC and average precision need the
predictions themselves, so they cover the newest `RECENT` ones, for two classes only. R2 comes from
running sums.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.core import metrics, row_losses
from models.core.metrics import Measure
from models.core.prediction import BatchPrediction
from models.core.record_schema import Label
from models.online.prediction_rows import MemberRows

RECENT = 5_000
"""Predictions that a ranking metric covers."""


class RunningMetric(Protocol):
    """The running value of one metric for one member."""

    @property
    def count(self) -> int:
        """Predictions that the metric covers."""

    def add(self, rows: MemberRows, labels: Sequence[Label]) -> None:
        """Add predictions, with the true label of each. None of them is missing."""

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

    def add(self, rows: MemberRows, labels: Sequence[Label]) -> None:
        """Add records."""
        self.count += len(labels)
        # Summed one by one, so that the total does not depend on how records came in batches.
        for cost in costs(self.measure, rows, labels).tolist():
            self._total += cost

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

    def add(self, rows: MemberRows, labels: Sequence[Label]) -> None:
        """Add records."""
        self.count += len(labels)
        for label, answered in zip(labels, rows.predicted, strict=True):
            if answered is not None:
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

    def add(self, rows: MemberRows, labels: Sequence[Label]) -> None:
        """Add records."""
        for label in labels:
            if label not in self.classes:
                self.classes.append(label)
        if not labels or rows.whole is None or rows.whole.probabilities is None:
            return
        first, known = self.classes[0], rows.whole.labels
        shares = rows.whole.probabilities
        of_first = shares[:, known.index(first)].tolist() if first in known else [0.0] * len(labels)
        for share, label in zip(of_first, labels, strict=True):
            self._recent.append((share, label == first))

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

    def add(self, rows: MemberRows, labels: Sequence[Label]) -> None:
        """Add records; the variance is updated by Welford's method."""
        for label, answered in zip(labels, rows.predicted, strict=True):
            if answered is None:
                continue
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


def costs(measure: Measure, rows: MemberRows, labels: Sequence[Label]) -> NDArray[np.float64]:
    """The cost of each record in a metric that is a mean of such costs, shape (n,)."""
    if measure.name == "accuracy":
        hits = zip(rows.predicted, labels, strict=True)
        return np.array([float(answered == label) for answered, label in hits])
    if measure.name in ("log_loss", "brier"):
        if rows.whole is None or rows.whole.probabilities is None:
            raise ValueError(f"{measure.name} needs the probabilities of every class")
        found = row_losses.of(labels, rows.whole, measure)
    else:
        values = [math.nan if each is None else each for each in rows.predicted]
        counted = Measure("mae") if measure.name == "rmse" else measure
        found = row_losses.of(labels, BatchPrediction(values, None), counted)
    assert found is not None
    with np.errstate(over="ignore"):
        return found * found if measure.name == "rmse" else found


def score(labels: Sequence[Label], rows: MemberRows, measure: Measure) -> float:
    """The metric of these predictions alone; NaN where they do not define it.

    Records without a prediction are left out.
    """
    metric = start(measure)
    if not isinstance(metric, Mean):
        rarer = metrics.counted(labels) if measure.task == "classification" else None
        assert rows.whole is not None
        return metrics.of_answers(labels, rows.predicted, rows.whole, measure, rarer)
    known = [index for index, each in enumerate(rows.predicted) if each is not None]
    metric.add(rows.at(known), [labels[index] for index in known])
    value = metric.value()
    return math.nan if value is None else value
