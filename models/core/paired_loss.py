"""The loss of predictions with its standard error, alone or paired with that of another model.

Pure computation. Errors of a stream come in runs, so rows are not independent: the standard error
is that of the means of consecutive blocks. A metric that is no mean over rows (F1, ROC AUC, ...)
has an error by the bootstrap of such blocks, with a fixed seed.

Sources: G. S. Fishman, "Grouping Observations in Digital Simulation", Management Science 24 (1978),
for the means of blocks; H. R. Kuensch, "The Jackknife and the Bootstrap for General Stationary
Observations", Annals of Statistics 17 (1989), for the bootstrap of blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.core import metrics, row_losses
from models.core.metrics import Measure
from models.core.record_schema import Label

if TYPE_CHECKING:
    from models.core.prediction import BatchPrediction

BLOCKS = 20
"""Blocks of consecutive rows: with fewer, the error of the error is large."""
_DRAWS = 30


class Loss(NamedTuple):
    """A loss, or a difference of two; lower is better. NaN is unknown."""

    mean: float
    error: float
    """Its standard error."""


def of(
    labels: Sequence[Label],
    prediction: BatchPrediction,
    measure: Measure,
    rarer: Label | None = None,
) -> Loss:
    """The loss over these rows, in time order; `rarer` is as in `metrics.value`."""
    rows = row_losses.of(labels, prediction, measure)
    if rows is not None:
        return _mean(rows)
    return _bootstrap(labels, (prediction,), measure, rarer)


def saved(
    labels: Sequence[Label],
    before: BatchPrediction,
    after: BatchPrediction,
    measure: Measure,
    rarer: Label | None = None,
) -> Loss:
    """How much less `after` loses than `before` on the same rows; positive is better."""
    old, new = row_losses.of(labels, before, measure), row_losses.of(labels, after, measure)
    if old is not None and new is not None:
        return _mean(old - new)
    return _bootstrap(labels, (before, after), measure, rarer)


def _mean(rows: NDArray[np.float64]) -> Loss:
    if not len(rows):
        return Loss(math.nan, math.nan)
    mean, blocks = float(rows.mean()), min(BLOCKS, len(rows))
    if blocks < 2:
        return Loss(mean, math.nan)
    means = np.array([block.mean() for block in np.array_split(rows, blocks)])
    return Loss(mean, float(means.std(ddof=1)) / math.sqrt(blocks))


def _bootstrap(
    labels: Sequence[Label],
    predictions: Sequence[BatchPrediction],
    measure: Measure,
    rarer: Label | None,
) -> Loss:
    """The loss of the only prediction, or of the first less that of the second."""
    if not labels:
        return Loss(math.nan, math.nan)
    chance = np.random.default_rng(0)
    blocks = np.array_split(np.arange(len(labels)), min(BLOCKS, len(labels)))
    drawn = [
        np.concatenate([blocks[each] for each in chance.integers(len(blocks), size=len(blocks))])
        for _ in range(_DRAWS)
    ]
    found = [_loss(labels, predictions, measure, rarer, rows) for rows in drawn]
    known = [each for each in found if math.isfinite(each)]
    error = float(np.std(known, ddof=1)) if len(known) > _DRAWS // 2 else math.nan
    return Loss(_loss(labels, predictions, measure, rarer, np.arange(len(labels))), error)


def _loss(
    labels: Sequence[Label],
    predictions: Sequence[BatchPrediction],
    measure: Measure,
    rarer: Label | None,
    rows: NDArray[np.intp],
) -> float:
    from models.core.prediction import BatchPrediction

    chosen = [labels[row] for row in rows.tolist()]
    losses = []
    for each in predictions:
        shares = each.probabilities
        part = BatchPrediction(
            [each.values[row] for row in rows.tolist()],
            None if shares is None else shares[rows],
            each.labels,
        )
        losses.append(measure.loss(metrics.value(chosen, part, measure, rarer)))
    return losses[0] if len(losses) == 1 else losses[0] - losses[1]
