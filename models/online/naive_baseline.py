"""The naive baseline of a stream, which predicts the last label again.

Pure computation. On a stream with persistent labels (prices, weather) it is hard to beat. So it is
a member of the blend, and the summary shows its score: a model with a worse score has no use.
"""

from __future__ import annotations

from models.core.prediction import Answer
from models.core.record_schema import Label, Task


class NoChange:
    """Predicts the last label, with the probability at which labels have repeated so far."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._last: Label | None = None
        self._classes: dict[Label, None] = {}
        self._pairs = 0
        self._repeats = 0

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
