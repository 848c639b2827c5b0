"""The loss of predictions with its standard error, alone and paired."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from models.core import metrics, paired_loss
from models.core.metrics import Measure
from models.core.prediction import BatchPrediction
from models.core.record_schema import Label

ROWS = 400
LABELS: tuple[Label, ...] = ("a", "b", "c")


def make_classes(seed: int = 0, skill: float = 1.0) -> tuple[list[Label], BatchPrediction]:
    """Labels of three classes, and probabilities that know something of them."""
    chance = np.random.default_rng(seed)
    codes = np.random.default_rng(9).integers(3, size=ROWS)
    scores = chance.normal(size=(ROWS, 3)) + skill * 2 * np.eye(3)[codes]
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    values: list[Label] = [LABELS[each] for each in shares.argmax(axis=1)]
    return [LABELS[each] for each in codes], BatchPrediction(values, shares, LABELS)


def make_values(noise: float, seed: int = 0) -> tuple[list[Label], BatchPrediction]:
    """Targets, and predictions that are off by so much noise."""
    targets = np.random.default_rng(9).normal(size=ROWS)
    answers = targets + np.random.default_rng(seed).normal(0, noise, size=ROWS)
    return list(targets.tolist()), BatchPrediction(list(answers.tolist()), None)


@pytest.mark.parametrize("name", metrics.names("classification"))
def test_the_loss_of_classes_is_that_of_the_metric(name: metrics.Name) -> None:
    """Of every metric, and of a class that the model does not know."""
    labels, prediction = make_classes()
    labels[7] = "d"
    measure = Measure(name)
    expected = measure.loss(metrics.value(labels, prediction, measure))
    found = paired_loss.of(labels, prediction, measure)
    assert found.mean == pytest.approx(expected)
    assert found.error > 0


@pytest.mark.parametrize("name", metrics.names("regression"))
def test_the_loss_of_values_is_that_of_the_metric(name: metrics.Name) -> None:
    """Of every metric."""
    labels, prediction = make_values(0.5)
    measure = Measure(name, quantile=0.8)
    expected = measure.loss(metrics.value(labels, prediction, measure))
    found = paired_loss.of(labels, prediction, measure)
    assert found.mean == pytest.approx(expected)
    assert 0 < found.error < found.mean


@pytest.mark.parametrize("name", ["brier", "log_loss", "accuracy", "roc_auc", "f1"])
def test_what_a_better_model_saves_is_paired_by_row(name: metrics.Name) -> None:
    """The difference of the losses, with a smaller error than two unpaired ones would have."""
    labels, better = make_classes(skill=1.5)
    _, worse = make_classes(skill=0.5)
    measure = Measure(name)
    found = paired_loss.saved(labels, worse, better, measure)
    losses = [paired_loss.of(labels, each, measure) for each in (worse, better)]
    assert found.mean == pytest.approx(losses[0].mean - losses[1].mean)
    assert found.mean > 2 * found.error > 0
    if name in ("brier", "log_loss"):
        assert found.error < math.hypot(losses[0].error, losses[1].error)


def test_a_model_saves_nothing_against_itself() -> None:
    """And that is certain."""
    labels, prediction = make_values(0.5)
    assert (0.0, 0.0) == paired_loss.saved(labels, prediction, prediction, Measure("mae"))


def runs(mean: NDArray[np.float64], length: int) -> Sequence[Label]:
    """Values that stay for so many rows."""
    return list(np.repeat(mean, length).tolist())


def test_errors_that_come_in_runs_have_a_larger_standard_error() -> None:
    """Fifty rows alike are no fifty measurements."""
    chance = np.random.default_rng(1)
    rows = 1000
    none: list[Label] = [0.0] * rows
    apart = BatchPrediction(list(chance.normal(size=rows).tolist()), None)
    together = BatchPrediction(list(runs(chance.normal(size=rows // 50), 50)), None)
    alone = paired_loss.of(none, apart, Measure("mae")).error
    in_runs = paired_loss.of(none, together, Measure("mae")).error
    assert in_runs > 3 * alone


@pytest.mark.parametrize("name", ["brier", "roc_auc"])
def test_without_rows_nothing_is_known(name: metrics.Name) -> None:
    """Nor is the error of a single row."""
    nothing = BatchPrediction([], np.empty((0, 3)), LABELS)
    assert all(map(math.isnan, paired_loss.of([], nothing, Measure(name))))
    labels, prediction = make_classes()
    assert prediction.probabilities is not None
    one = BatchPrediction(prediction.values[:1], prediction.probabilities[:1], LABELS)
    assert math.isnan(paired_loss.of(labels[:1], one, Measure(name)).error)
