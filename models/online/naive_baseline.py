"""The naive baselines of a stream: the last label again, and in regression the recent median.

Pure computation. On a stream with persistent labels (prices, weather) they are hard to beat. So
they are members of the blend, and the summary shows their scores: a model with a worse score has no
use.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.core.prediction import Answer
from models.core.record_schema import Label, Task
from models.online.tracking import Floats

RECENT = 1_000
"""Labels that the recent median is of."""


class NoChange:
    """Predicts the last label, with the probability at which labels have repeated so far."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._last: Label | None = None
        self._classes: dict[Label, None] = {}
        self._pairs = 0
        self._repeats = 0

    def run(self, labels: Sequence[Label | None]) -> list[Answer]:
        """Predict and then learn each record; a label of None is not learned."""
        answers = []
        for label in labels:
            answers.append(self.predict())
            if label is not None:
                self.learn(label)
        return answers

    def predict(self) -> Answer:
        """Probabilities by class met so far (Laplace's rule), or the last value; None at first."""
        last = self._last
        if last is None or self.task == "regression":
            return float(last) if last is not None else None
        if len(self._classes) == 1:
            return {last: 1.0}
        stays = (self._repeats + 1) / (self._pairs + 2)
        share = (1.0 - stays) / (len(self._classes) - 1)
        return {label: stays if label == last else share for label in self._classes}

    def learn(self, label: Label) -> None:
        """The label becomes the last one."""
        if self._last is not None:
            self._pairs += 1
            self._repeats += label == self._last
        self._last = label
        if self.task == "classification":
            self._classes[label] = None


class RecentMedian:
    """Predicts the median of the newest `RECENT` labels, or another quantile of them."""

    def __init__(self, quantile: float = 0.5) -> None:
        from river import stats

        self._quantile = stats.RollingQuantile(quantile, window_size=RECENT)

    def run(self, labels: Floats) -> Floats:
        """Predict and then learn each record, shape (n,); NaN is a label that is unknown."""
        answers = np.full(len(labels), np.nan)
        for index, label in enumerate(labels.tolist()):
            value = self._quantile.get()
            if value is not None:
                answers[index] = value
            if label == label:
                self._quantile.update(label)
        return answers
