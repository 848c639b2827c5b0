"""The served prediction: an online model over its members' predictions.

Pure computation: no disk, no clock. For classes it is a softmax over the members'
log-probabilities with one weight a member and one bias a class; for two classes this is logistic
regression over log-odds. For values it is a linear model over the members' values, in units of the
target's own spread. Both are learned prequentially by gradient steps of a constant rate, so that
recently good members get larger weights. A member without a finite prediction contributes nothing;
one that is added later starts at weight 0. Without any member the prediction is None.

Source: D. H. Wolpert, "Stacked generalization", Neural Networks 5 (1992), learned online.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from models.core.prediction import Answer
from models.core.record_schema import Label, Task

_FLOOR = 1e-3
_LOG_FLOOR = math.log(_FLOOR)
_CEILING = 1.0 + 1e-9
_WEIGHT_BOUND = 10.0


class BlendConfig(BaseModel):
    """The configuration of the blend: the table [blend] of a pipeline file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    learning_rate: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="Step of the weights per record: larger follows faster, and forgets faster.",
    )


class Blend(Protocol):
    """The interface of both blends: predict a record first, then learn it."""

    weights: list[float]

    def predict(self, answers: Sequence[Answer]) -> Answer:
        """Blend one prediction per member, in the members' order; keeps them for `learn`."""

    def learn(self, label: Label) -> None:
        """Learn the label of the record that was predicted last."""


def start(task: Task, first_weights: Sequence[float], rules: BlendConfig) -> Blend:
    """A new blend: `first_weights` has one weight per member."""
    if task == "classification":
        return ClassBlend(first_weights, rules.learning_rate)
    return ValueBlend(first_weights, rules.learning_rate)


class ClassBlend:
    """Softmax over the members' log-probabilities.

    The first class is the reference: a row holds, for each further class, the logarithm of its
    probability relative to the first one. Two classes make one log-odds. Classes are added in the
    order of the stream, as labels or members have them, which is the same in a replay.
    """

    def __init__(self, first_weights: Sequence[float], learning_rate: float) -> None:
        self.weights = list(first_weights)
        self.learning_rate = learning_rate
        self.classes: list[Label] = []
        self.biases: list[float] = []
        """One per class but the first."""
        self._known: set[Label] = set()
        self._rows: list[tuple[int, list[float]]] = []
        self._probabilities: list[float] = []

    def predict(self, answers: Sequence[Answer]) -> dict[Label, float] | None:
        """Probabilities by class, summing to 1; None without any member's prediction."""
        self._rows = rows = []
        for member, answer in enumerate(answers):
            if isinstance(answer, dict) and answer:
                row = self._row(answer)
                if row is not None:
                    rows.append((member, row))
        if not rows:
            self._probabilities = []
            return None
        scores = self.biases.copy()
        for member, row in rows:
            weight = self.weights[member]
            # This row may be older than a class that a later member has added.
            row.extend([_LOG_FLOOR] * (len(scores) - len(row)))
            for index, log in enumerate(row):
                scores[index] += weight * log
        # A softmax in which the score of the first class is 0.
        top = max(0.0, *scores) if scores else 0.0
        powers = [math.exp(-top), *(math.exp(score - top) for score in scores)]
        total = sum(powers)
        self._probabilities = [power / total for power in powers]
        return dict(zip(self.classes, self._probabilities, strict=True))

    def learn(self, label: Label) -> None:
        """One step down the gradient of the log loss."""
        if label not in self._known:
            self._add_class(label)
        if not self._rows:
            return
        rate = self.learning_rate
        steps = [-rate * probability for probability in self._probabilities]
        position = self.classes.index(label)
        if position < len(steps):
            steps[position] += rate
        first = steps.pop(0)
        for index, step in enumerate(steps):
            self.biases[index] += step - first
        for member, row in self._rows:
            gain = self.weights[member]
            for step, log in zip(steps, row, strict=True):
                gain += step * log
            self.weights[member] = max(-_WEIGHT_BOUND, min(_WEIGHT_BOUND, gain))

    def _row(self, answer: Mapping[Label, float]) -> list[float] | None:
        """Log-ratios to the first class; None if a value is no probability."""
        if not answer.keys() <= self._known:
            # Classes that only a member knows, in an order that does not depend on a set.
            new = [each for each in answer if each not in self._known]
            for each in sorted(new, key=lambda each: (str(type(each)), each)):
                self._add_class(each)
        logs = []
        for each in self.classes:
            probability = answer.get(each, 0.0)
            if not 0.0 <= probability <= _CEILING:
                return None
            logs.append(
                _LOG_FLOOR if probability <= _FLOOR else math.log(min(probability, 1.0 - _FLOOR))
            )
        first = logs.pop(0)
        return [log - first for log in logs]

    def _add_class(self, label: Label) -> None:
        self._known.add(label)
        self.classes.append(label)
        if len(self.classes) > 1:
            self.biases.append(0.0)


class ValueBlend:
    """Linear over the members' values, by normalised least mean squares.

    Values are measured from the target's running mean in units of its running deviation, both
    bounded, so that one extreme value cannot spoil the weights.
    Source: S. Haykin, "Adaptive Filter Theory", normalised LMS.
    """

    _BOUND = 10.0
    _MEMORY = 1_000

    def __init__(self, first_weights: Sequence[float], learning_rate: float) -> None:
        self.weights = list(first_weights)
        self.learning_rate = learning_rate
        self.bias = 0.0
        self._seen = 0
        self._mean = 0.0
        self._variance = 0.0
        self._inputs: list[tuple[int, float]] = []
        self._output = 0.0

    def predict(self, answers: Sequence[Answer]) -> float | None:
        """The blended value; None without any member's prediction."""
        present = [
            (member, float(answer))
            for member, answer in enumerate(answers)
            if isinstance(answer, (int, float)) and math.isfinite(answer)
        ]
        if not present:
            self._inputs = []
            return None
        if self._variance <= 0.0:
            # The deviation is unknown yet: the plain mean does not need it.
            self._inputs = []
            return math.fsum(value / len(present) for _, value in present)
        self._inputs = [(member, self._scaled(value)) for member, value in present]
        self._output = self.bias + sum(self.weights[m] * value for m, value in self._inputs)
        blended = self._mean + math.sqrt(self._variance) * self._output
        return blended if math.isfinite(blended) else present[0][1]

    def learn(self, label: Label) -> None:
        """One normalised step towards the label; then update mean and deviation."""
        value = float(label)
        if self._inputs:
            error = self._scaled(value) - max(-self._BOUND, min(self._BOUND, self._output))
            power = 1.0 + sum(each * each for _, each in self._inputs)
            step = self.learning_rate * error / power
            self.bias = _bounded(self.bias + step)
            for member, each in self._inputs:
                self.weights[member] = _bounded(self.weights[member] + step * each)
        self._seen += 1
        share = 1.0 / min(self._seen, self._MEMORY)
        gap = value - self._mean
        self._mean += share * gap
        self._variance = (1.0 - share) * (self._variance + share * gap * gap)

    def _scaled(self, value: float) -> float:
        scaled = (value - self._mean) / math.sqrt(self._variance)
        return max(-self._BOUND, min(self._BOUND, scaled))


def _bounded(weight: float) -> float:
    return max(-_WEIGHT_BOUND, min(_WEIGHT_BOUND, weight))
