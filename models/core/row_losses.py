"""The loss of each record by a metric that is a mean over records.

Pure computation. The mean of these losses is the loss that scikit-learn computes of all records at
once, of which it takes some milliseconds to check its arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.core.metrics import Measure
from models.core.record_schema import Label

if TYPE_CHECKING:
    from models.core.prediction import BatchPrediction

SMALLEST = 2.220446049250313e-16
"""Probabilities are clipped here for the logarithmic loss, as scikit-learn does."""


def of(
    labels: Sequence[Label], prediction: BatchPrediction, measure: Measure
) -> NDArray[np.float64] | None:
    """The losses by `measure`, shape (n,); None where the metric is no mean over records."""
    if measure.name in ("mae", "pinball"):
        missed = np.asarray(labels, dtype=np.float64) - np.asarray(
            prediction.values, dtype=np.float64
        )
        if measure.name == "mae":
            return np.abs(missed)
        return np.maximum(measure.quantile * missed, (measure.quantile - 1.0) * missed)
    if measure.name == "accuracy" and not measure.cuts:
        pairs = zip(labels, prediction.values, strict=True)
        return np.array([float(label != answer) for label, answer in pairs])
    shares = prediction.probabilities
    if measure.name not in ("brier", "log_loss") or shares is None:
        return None
    places = {label: place for place, label in enumerate(prediction.labels)}
    # A class that the model does not know has no share.
    known = np.array([places.get(label, -1) for label in labels], dtype=np.intp)
    of_label = np.where(known >= 0, shares[np.arange(len(known)), known], 0.0)
    if measure.name == "log_loss":
        losses: NDArray[np.float64] = -np.log(np.clip(of_label, SMALLEST, 1.0))
        return losses
    squares: NDArray[np.float64] = (shares**2).sum(axis=1) - of_label**2 + (1.0 - of_label) ** 2
    return squares / 2.0
