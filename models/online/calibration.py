"""How far the served probabilities are from the shares of hits that they promise.

Pure computation. Of all records that were served with a probability of about 0.8, 80 % should be
hits. Records are counted by the probability of the served class, in ten ranges of equal width; the
calibration error is the mean distance of the probability to the share of hits, weighted by records.
Every prediction was made before its label was known.

Source: M. P. Naeini, G. F. Cooper and M. Hauskrecht, "Obtaining well calibrated probabilities using
Bayesian binning", AAAI (2015), for the expected calibration error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.core.record_schema import Label
from models.online.prediction_rows import MemberRows

RANGES = 10


@dataclass(frozen=True)
class ReliabilityRange:
    """The records that were served with a probability in one range."""

    probability_from: float
    probability_to: float
    records: int
    mean_probability: float
    hit_share: float


class Reliability:
    """Counts what was served by its probability."""

    def __init__(self) -> None:
        self._records = np.zeros(RANGES)
        self._probabilities = np.zeros(RANGES)
        self._hits = np.zeros(RANGES)

    def add(self, rows: MemberRows, labels: Sequence[Label]) -> None:
        """Add predictions, with the true label of each; one without a probability counts not."""
        for answered, probability, label in zip(
            rows.predicted, rows.probabilities, labels, strict=True
        ):
            if probability is not None:
                place = min(int(probability * RANGES), RANGES - 1)
                self._records[place] += 1.0
                self._probabilities[place] += probability
                self._hits[place] += answered == label

    @property
    def ranges(self) -> list[ReliabilityRange]:
        """The ranges that have records, by probability."""
        return [
            ReliabilityRange(
                place / RANGES,
                (place + 1) / RANGES,
                int(count),
                float(self._probabilities[place] / count),
                float(self._hits[place] / count),
            )
            for place, count in enumerate(self._records)
            if count
        ]

    @property
    def error(self) -> float | None:
        """The calibration error, from 0 to 1; None before the first record."""
        total = float(self._records.sum())
        if not total:
            return None
        return float(np.abs(self._probabilities - self._hits).sum() / total)
