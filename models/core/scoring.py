"""Scores predictions against labels: hits for classes, absolute errors for values.

Pure computation. It defines the basic metric of each task, for tallies, history and drift checks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from models.core.prediction import Answer
from models.core.record_schema import Label, Task


def metric_name(task: Task) -> str:
    """The metric's name: accuracy (larger is better) or mae (smaller is better)."""
    return "accuracy" if task == "classification" else "mae"


def point(task: Task, predicted: Label, label: Label) -> float:
    """One prediction: 1 or 0 for a class, the absolute error for a value."""
    if task == "classification":
        return float(predicted == label)
    return abs(float(predicted) - float(label))


def mean(
    task: Task, predicted: Sequence[Label | None], labels: Sequence[Label | None]
) -> float | None:
    """The metric over the records that have a prediction and a label; None if there are none."""
    points = [
        point(task, answer, label)
        for answer, label in zip(predicted, labels, strict=True)
        if answer is not None and label is not None
    ]
    return sum(points) / len(points) if points else None


def count(predicted: Sequence[Label | None], labels: Sequence[Label | None]) -> int:
    """How many records `mean` is over."""
    pairs = zip(predicted, labels, strict=True)
    return sum(answer is not None and label is not None for answer, label in pairs)


def loss(task: Task, answer: Answer, label: Label) -> float:
    """What one answer costs: half of the Brier score, from 0 to 1, or the absolute error.

    Probabilities say more of an error than the likeliest class alone, above all of rare classes.
    An answer of None, or one that is not finite, is NaN: it is not known what it would have cost.
    """
    if answer is None or answer == {}:
        return math.nan
    if not isinstance(answer, Mapping):
        return abs(float(answer) - float(label))
    squares = sum(share * share for share in answer.values())
    return 0.5 * (1.0 + squares) - answer.get(label, 0.0)
