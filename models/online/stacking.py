"""The served prediction: an online model over its members' predictions.

Maths: no disk, no clock. For classes it is a softmax over the members' log-probabilities with one
weight a member and one bias a class; for two classes this is logistic regression over log-odds.
For values it is a linear model over the members' values, in units of the target's own spread. Both
are learned prequentially by gradient steps of a constant rate, so that they lean on whoever is
right lately. A member that is absent (or that answered something not finite) contributes nothing;
one that comes later starts at weight 0 and earns its say. With no member at all there is no
prediction: None.

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
    """The knobs of the blend, TOML table ``[blend]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    learning_rate: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="Step of the weights per record: larger follows faster, and forgets faster.",
    )


class Blend(Protocol):
    """What both blends do: predict first, then learn the same record."""

    weights: list[float]

    def predict(self, answers: Sequence[Answer]) -> Answer:
        """Blend one answer per member, in the members' order; remembers them for `learn`."""

    def learn(self, label: Label) -> None:
        """Learn the label of the record that was predicted last."""


def start(task: Task, first_weights: Sequence[float], rules: BlendConfig) -> Blend:
    """A blend that has learned nothing: `first_weights` has one weight per member."""
    if task == "classification":
        return ClassBlend(first_weights, rules.learning_rate)
    return ValueBlend(first_weights, rules.learning_rate)


class ClassBlend:
    """Softmax over the members' log-probabilities.

    Everything is measured from the first class: a row holds, for each further class, how much
    likelier than the first one it is, as a logarithm. Two classes make one log-odds. Classes join
    as labels or members name them, in that order, which is the stream's: a replay meets them in
    the same order.
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
        """Probabilities by class, shape (classes,), summing to 1; None where nobody answers."""
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
            # A member that was asked before another one named a new class knows nothing of it.
            row.extend([_LOG_FLOOR] * (len(scores) - len(row)))
            for index, log in enumerate(row):
                scores[index] += weight * log
        self._probabilities = _softmax(scores)
        return dict(zip(self.classes, self._probabilities, strict=True))

    def learn(self, label: Label) -> None:
        """One step down the gradient of the log loss."""
        if label not in self._known:
            self._join(label)
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
        """Log-ratios to the first class; None where something is no probability."""
        if not answer.keys() <= self._known:
            self._meet(answer)
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

    def _meet(self, answer: Mapping[Label, float]) -> None:
        """Classes that only a member knows, in an order that is no set's."""
        strangers = [each for each in answer if each not in self._known]
        for each in sorted(strangers, key=lambda each: (str(type(each)), each)):
            self._join(each)

    def _join(self, label: Label) -> None:
        self._known.add(label)
        self.classes.append(label)
        if len(self.classes) > 1:
            self.biases.append(0.0)


class ValueBlend:
    """Linear over the members' values, by normalised least mean squares.

    Values are measured from the target's running mean in units of its running deviation, both
    bounded, so that one wild value cannot throw the weights.
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
        """The blended value; None where nobody answers."""
        present = [
            (member, float(answer))
            for member, answer in enumerate(answers)
            if isinstance(answer, (int, float)) and math.isfinite(answer)
        ]
        if not present:
            self._inputs = []
            return None
        if self._variance <= 0.0:
            # No spread is known yet: the plain mean needs none.
            self._inputs = []
            return math.fsum(value / len(present) for _, value in present)
        self._inputs = [(member, self._scaled(value)) for member, value in present]
        self._output = self.bias + sum(self.weights[m] * value for m, value in self._inputs)
        blended = self._mean + math.sqrt(self._variance) * self._output
        return blended if math.isfinite(blended) else present[0][1]

    def learn(self, label: Label) -> None:
        """One normalised step towards the label, then the label joins mean and deviation."""
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


def _softmax(scores: Sequence[float]) -> list[float]:
    """Probabilities of all classes, from the scores of all but the first, whose score is 0."""
    top = max(0.0, *scores) if scores else 0.0
    powers = [math.exp(-top), *(math.exp(score - top) for score in scores)]
    total = sum(powers)
    return [power / total for power in powers]
