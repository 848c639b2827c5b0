"""The learning curve: what a model of more rows would lose, from challengers of several sizes.

Pure. A loss is a share of the baseline's loss on the same rows. The curve is loss(n) = a + b * n^-c
with a, b and c not below zero, so more rows never make it worse. While there are too few sizes to
tell a, b and c apart, the curve is a power law through the newest challenger, whose exponent moves
from a stated one to that of the challengers so far (ridge regression in logarithms).

Source: J. Hestness et al., "Deep Learning Scaling is Predictable, Empirically" (2017), found
exponents between 0.07 and 0.35 over four kinds of data; C. Perlich et al., "Tree Induction vs.
Logistic Regression: A Learning-Curve Analysis", JMLR 4 (2003), has the curve with its floor a.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

PRIOR_EXPONENT = 0.1
"""Near the low end of what was found: twice the rows save 7 % of the loss."""
PRIOR_WEIGHT = 1.0
"""What the stated exponent counts for, in squares of the logarithm of the rows: as two challengers,
of which one has four times the rows of the other."""
PRIOR_ERROR = 0.1
"""Standard deviation of the stated exponent: most of what was found is within two of them."""
FEWEST_SIZES = 4
"""Challengers of different sizes without which the curve is not fitted."""
LEAST_SPAN = 4.0
"""How many times larger the largest of them must be than the smallest."""
_LEAST_LOSS = 1e-3
_EXPONENTS = tuple(each / 20 for each in range(1, 21))


class SizeScore(NamedTuple):
    """What a challenger lost that was fitted on so many rows."""

    rows: int
    loss: float
    """As a share of the baseline's loss on the same rows."""


class LearningCurve(NamedTuple):
    """loss(n) = floor + scale * n^-exponent."""

    floor: float
    scale: float
    exponent: float
    sizes: int
    """Challengers that it was fitted on; 0: it is the prior's."""
    exponent_error: float = 0.0
    """Standard error of the exponent; of a curve that was fitted it is not known, and 0."""

    def loss(self, rows: float) -> float:
        """The expected loss of a model of so many rows; of at least one."""
        return self.floor + self.scale * math.pow(max(rows, 1.0), -self.exponent)

    def saved(self, fewer: float, more: float) -> float:
        """What `more` rows save against `fewer`; negative where they are fewer."""
        return self.loss(fewer) - self.loss(more)


def fit(scores: Sequence[SizeScore]) -> LearningCurve | None:
    """The curve of these challengers, the newest last; None without any that has a known loss."""
    known = [each for each in scores if each.rows > 0 and 0 <= each.loss < math.inf]
    if not known:
        return None
    rows = sorted({each.rows for each in known})
    if len(rows) < FEWEST_SIZES or rows[-1] < LEAST_SPAN * rows[0]:
        return _power_law(known)
    best: tuple[float, LearningCurve] | None = None
    for exponent in _EXPONENTS:
        floor, scale = _line([(each.rows**-exponent, each.loss) for each in known])
        curve = LearningCurve(floor, scale, exponent, len(known))
        squares = sum((each.loss - curve.loss(each.rows)) ** 2 for each in known)
        # Of exponents that fit alike, the smallest: it promises the least of many more rows.
        if best is None or squares < best[0] * (1 - 1e-9):
            best = squares, curve
    assert best is not None
    return best[1]


def _power_law(scores: Sequence[SizeScore]) -> LearningCurve:
    """Through the newest, with an exponent between the stated one and that of all."""
    logs = [(math.log(each.rows), math.log(max(each.loss, _LEAST_LOSS))) for each in scores]
    mean_x = sum(x for x, _ in logs) / len(logs)
    mean_y = sum(y for _, y in logs) / len(logs)
    spread = sum((x - mean_x) ** 2 for x, _ in logs)
    fall = -sum((x - mean_x) * (y - mean_y) for x, y in logs)
    exponent = (fall + PRIOR_WEIGHT * PRIOR_EXPONENT) / (spread + PRIOR_WEIGHT)
    exponent, newest = min(max(exponent, 0.0), 1.0), scores[-1]
    error = PRIOR_ERROR / math.sqrt(1.0 + spread / PRIOR_WEIGHT)
    return LearningCurve(0.0, newest.loss * math.pow(newest.rows, exponent), exponent, 0, error)


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Least squares of y = floor + scale * x, neither below zero."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    scale = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    if scale <= 0:
        return mean_y, 0.0
    floor = mean_y - scale * mean_x
    if floor >= 0:
        return floor, scale
    return 0.0, sum(x * y for x, y in points) / sum(x * x for x, _ in points)
