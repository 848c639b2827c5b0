"""What a member answers: for one record, and for a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.core.record_schema import Label

if TYPE_CHECKING:
    pass
from collections.abc import Mapping


@dataclass(frozen=True)
class BatchPrediction:
    """Answers for n rows: n values, and in classification probabilities of shape (n, classes)."""

    values: list[Label]
    probabilities: NDArray[np.float64] | None
    labels: tuple[Label, ...] = ()


Answer = Mapping[Label, float] | float | None
"""What a member says: probabilities by class, a value in regression, or nothing."""
