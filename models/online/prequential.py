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

from models.core import metrics
from models.core.metrics import Measure
from models.core.prediction import BatchPrediction
from models.core.record_schema import Label
from models.online.prediction_rows import MemberRows

RECENT = 5_000
"""Predictions that a ranking metric covers."""
LEAST = 2.0**-52
"""Least probability in the log loss, the same as that of scikit-learn for float64."""


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
        whole = rows.whole
        if whole is None or whole.probabilities is None:
            raise ValueError(f"{measure.name} needs the probabilities of every class")
        codes = {label: code for code, label in enumerate(whole.labels)}
        places = np.array([codes.get(label, -1) for label in labels], dtype=np.intp)
        shares = whole.probabilities
        share = np.where(places >= 0, shares[np.arange(len(shares)), places], 0.0)
        if measure.name == "log_loss":
            return np.asarray(-np.log(np.clip(share, LEAST, 1.0)))
        # Half the squared distance to the label: from 0 to 1 for any number of classes.
        squares = np.square(shares).sum(axis=1)
        return np.asarray((squares - share * share + (1.0 - share) ** 2) / 2.0)
    gaps = np.array(labels, dtype=np.float64) - np.array(rows.predicted, dtype=np.float64)
    with np.errstate(over="ignore"):
        if measure.name == "mae":
            return np.abs(gaps)
        if measure.name == "rmse":
            return gaps * gaps
        return np.maximum(measure.quantile * gaps, (measure.quantile - 1.0) * gaps)
