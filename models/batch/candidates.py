"""The candidates of a challenge: which recipes and windows compete, and which one is chosen.

Pure computation. Recipes are compared on one window, then windows with the best recipe: so a
retrain fits their sum and not their product. The choice is made on the hold-out, and the best of
several is partly the luckiest. So the least loss does not decide alone: the simplest candidate
whose loss is within one standard error of it is chosen.

Source of that rule: L. Breiman, J. Friedman, R. Olshen and C. Stone, "Classification and Regression
Trees" (1984), 3.4.3. Here the error is that of the paired difference on the same rows. Windows that
are chosen by their loss on the newest rows: R. Klinkenberg and T. Joachims, "Detecting concept
drift with support vector machines" (ICML 2000).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.batch.holdout import FEWEST_AFTER_CHANGE, HoldoutSplit, Rows
from models.batch.recipe_config import BOOSTING, BatchRecipe
from models.core import metrics, row_losses
from models.core.metrics import Measure
from models.core.prediction import BatchPrediction
from models.core.record_schema import Label

DRAWS = 30
"""Bootstrap samples, for a metric that is no mean over rows."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One recipe and the rows that it is fitted on."""

    recipe: BatchRecipe
    """With a single recipe."""
    rows: Rows


@dataclass(frozen=True, eq=False)
class Trial:
    """A candidate, and what it lost on the hold-out."""

    candidate: Candidate
    loss: float
    """NaN if it is unknown, or the candidate has failed."""
    answers: BatchPrediction | None = None
    """None if it has failed."""
    failure: str = ""
    """Why there is no model, or no answer."""


def recipes(recipe: BatchRecipe, measure: Measure) -> tuple[BatchRecipe, ...]:
    """A configuration for each estimator that competes, the simplest first.

    Where MAE counts, boosting fits absolute errors, and squared ones too: absolute errors resist
    heavy tails, but their gradients are signs alone, and where the noise is light the same number
    of trees learns less. Neither is better on all streams.
    """
    found = []
    for name in recipe.recipes:
        one = recipe.alone(name)
        if name == BOOSTING and measure.name == "mae" and "loss" not in one.params:
            squared = {**one.params, "loss": "squared_error"}
            found.append(one.model_copy(update={"params": squared}))
        found.append(one)
    return tuple(found)


def windows(
    parts: HoldoutSplit, changed: int | None, recipe: BatchRecipe
) -> tuple[tuple[Rows, ...], tuple[Rows, ...]]:
    """The windows that are tried, and those of which each is tried if the one before was better.

    The first window is the one that the recipes are compared on: the rows since a change of the
    data if enough are known, and else all training rows. The second tuple has ever newer shares of
    that one.
    """
    first: tuple[Rows, ...] = (parts.train,)
    if changed is not None:
        since = parts.train[parts.train >= changed]
        if FEWEST_AFTER_CHANGE // 2 <= len(since) < len(parts.train):
            first = (since, parts.train)
    shorter: list[Rows] = []
    rows = first[0]
    while True:
        recent = rows[len(rows) - int(len(rows) * recipe.recent_share) :]
        if len(recent) == len(rows) or len(recent) < recipe.min_rows:
            return first, tuple(shorter)
        shorter.append(recent)
        rows = recent


def choose(trials: Sequence[Trial], labels: Sequence[Label], measure: Measure) -> int:
    """The index of the chosen trial; `trials` are in order, the simplest first.

    It is the first one whose loss on the hold-out, of which `labels` are the truth, is at most one
    standard error above the least. A failed trial is never chosen if another one is there.
    """
    known = [index for index, each in enumerate(trials) if math.isfinite(each.loss)]
    if not known:
        answered = [index for index, each in enumerate(trials) if each.answers is not None]
        return (answered or [0])[0]
    best = min(known, key=lambda index: trials[index].loss)
    rarer = metrics.counted(labels) if measure.task == "classification" else None
    for index in known:
        if index == best:
            return index
        gap = _gap(labels, trials[index], trials[best], measure, rarer)
        if gap.mean() <= gap.standard_error:
            return index
    return best


@dataclass(frozen=True)
class _Gap:
    """What one trial lost more than another."""

    losses: NDArray[np.float64]
    samples: bool
    """Whether these are of bootstrap samples, and not of rows."""

    def mean(self) -> float:
        return float(self.losses.mean())

    @property
    def standard_error(self) -> float:
        if len(self.losses) < 2:
            return 0.0
        deviation = float(self.losses.std(ddof=1))
        return deviation if self.samples else deviation / math.sqrt(len(self.losses))


def _gap(
    labels: Sequence[Label], one: Trial, other: Trial, measure: Measure, rarer: Label | None
) -> _Gap:
    """The paired difference, row by row, or on the same bootstrap samples."""
    assert one.answers is not None
    assert other.answers is not None
    losses = [_row_losses(labels, each, measure) for each in (one.answers, other.answers)]
    if losses[0] is not None and losses[1] is not None:
        return _Gap(losses[0] - losses[1], samples=False)
    chance = np.random.default_rng(0)
    found = []
    for _ in range(DRAWS):
        drawn = chance.integers(len(labels), size=len(labels)).tolist()
        truth = [labels[row] for row in drawn]
        pair = [
            measure.loss(metrics.value(truth, _taken(each, drawn), measure, rarer))
            for each in (one.answers, other.answers)
        ]
        found.append(pair[0] - pair[1])
    defined = np.array([each for each in found if math.isfinite(each)])
    # Where chance alone leaves the metric undefined, nothing is known against the simpler one.
    return _Gap(defined if len(defined) > DRAWS // 2 else np.zeros(1), samples=True)


def _row_losses(
    labels: Sequence[Label], answers: BatchPrediction, measure: Measure
) -> NDArray[np.float64] | None:
    """The loss of each row, the mean of which orders models as the metric does; None if none does.

    RMSE and R2 order models by their squared errors.
    """
    if measure.task != "regression":
        return row_losses.of(labels, answers, measure)
    truth = np.asarray(labels, dtype=np.float64)
    # In units of the largest target, the same for all models, so that no square overflows.
    unit = np.abs(truth).max(initial=0.0) or 1.0
    errors = truth / unit - np.asarray(answers.values, dtype=np.float64) / unit
    if measure.name == "pinball":
        return np.maximum(measure.quantile * errors, (measure.quantile - 1) * errors)
    return np.abs(errors) if measure.name == "mae" else errors**2


def _taken(answers: BatchPrediction, rows: Sequence[int]) -> BatchPrediction:
    shares = answers.probabilities
    return BatchPrediction(
        [answers.values[row] for row in rows],
        None if shares is None else shares[list(rows)],
        answers.labels,
    )
