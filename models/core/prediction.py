"""The predictions of a member: for one record, and for a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.core.record_schema import Label


@dataclass(frozen=True)
class BatchPrediction:
    """Predictions for n rows: n values, and for classes probabilities of shape (n, classes)."""

    values: list[Label]
    probabilities: NDArray[np.float64] | None
    labels: tuple[Label, ...] = ()

    def answers(self, count: int | None = None) -> list[Answer]:
        """The predictions of the first `count` rows, record by record; None: of all."""
        if self.probabilities is None:
            return [float(value) for value in self.values[:count]]
        shares = self.probabilities[:count].tolist()
        return [dict(zip(self.labels, row, strict=True)) for row in shares]


Answer = Mapping[Label, float] | float | None
"""Prediction for one record: probabilities by class, a value in regression, or None."""
