"""The learning curve: what a model of more rows would lose, from fits on windows of several sizes.

Pure. A loss is a share of the baseline's loss on the same rows. The curve is a power law through
the newest challenger, loss(n) = scale * n^-exponent. Its exponent is learned within challenges
alone: each fits its best recipe on windows of several sizes and scores all on the same rows, where
two challenges differ by what came between them besides the rows that each had. So a shorter window,
which costs a fit of its own, is the probe of a size. Newer challenges count for more, since the
curve flattens as it nears what cannot be learned. Ridge regression in logarithms draws the exponent
to a stated one, and says how uncertain it is.

Source: J. Hestness et al., "Deep Learning Scaling is Predictable, Empirically" (2017), found
exponents between 0.07 and 0.35 over four kinds of data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

PRIOR_EXPONENT = 0.1
"""Near the low end of what was found: twice the rows save 7 % of the loss."""
PRIOR_ERROR = 0.1
"""Standard deviation of the stated exponent: most of what was found is within two of them."""
NOISE = 0.05
"""Standard deviation of the logarithm of a loss on a hold-out, against another one on it."""
PRIOR_WEIGHT = (NOISE / PRIOR_ERROR) ** 2
"""What the stated exponent counts for, in squares of the logarithm of the rows: as half a challenge
whose windows differ by a factor of two."""
FORGOTTEN = 0.2
"""Share of the weight of each challenge that a newer one takes away."""
_LEAST_LOSS = 1e-3


class SizeScore(NamedTuple):
    """What a model lost that was fitted on so many rows."""

    rows: int
    loss: float
    """As a share of the baseline's loss on the same rows."""
    challenge: int = 0
    """Position of its challenge, whose models are of one recipe and scored on the same rows."""


class LearningCurve(NamedTuple):
    """loss(n) = scale * n^-exponent."""

    scale: float
    exponent: float
    error: float = 0.0
    """Standard error of the exponent."""
    sizes: int = 0
    """Models that it was learned from beyond the first of each challenge."""

    def loss(self, rows: float) -> float:
        """The expected loss of a model of so many rows; of at least one."""
        return self.scale * math.pow(max(rows, 1.0), -self.exponent)

    def saved(self, fewer: float, more: float) -> float:
        """What `more` rows save against `fewer`; negative where they are fewer."""
        return self.loss(fewer) - self.loss(more)

    def turned(self, rows: float, exponent: float) -> LearningCurve:
        """The curve with another exponent that has the same loss at so many rows."""
        other = min(max(exponent, 0.0), 1.0)
        scale = self.scale * math.pow(max(rows, 1.0), other - self.exponent)
        return self._replace(scale=scale, exponent=other)


def fit(scores: Sequence[SizeScore], began: int = 0) -> LearningCurve | None:
    """The curve of these models, the newest challenge last and its challenger last of all.

    Challenges before the present concept `began` say nothing of its exponent. None without any
    model that has a known loss.
    """
    known = [each for each in scores if each.rows > 0 and 0 <= each.loss < math.inf]
    if not known:
        return None
    challenges: dict[int, list[SizeScore]] = {}
    for each in [each for each in known if each.challenge >= began]:
        challenges.setdefault(each.challenge, []).append(each)
    spread = fall = 0.0
    for age, parts in enumerate(reversed(challenges.values())):
        logs = [(math.log(each.rows), math.log(max(each.loss, _LEAST_LOSS))) for each in parts]
        mean_x = sum(x for x, _ in logs) / len(logs)
        mean_y = sum(y for _, y in logs) / len(logs)
        weight = (1.0 - FORGOTTEN) ** age
        spread += weight * sum((x - mean_x) ** 2 for x, _ in logs)
        fall -= weight * sum((x - mean_x) * (y - mean_y) for x, y in logs)
    exponent = (fall + PRIOR_WEIGHT * PRIOR_EXPONENT) / (spread + PRIOR_WEIGHT)
    exponent, newest = min(max(exponent, 0.0), 1.0), known[-1]
    return LearningCurve(
        scale=newest.loss * math.pow(newest.rows, exponent),
        exponent=exponent,
        error=PRIOR_ERROR * math.sqrt(PRIOR_WEIGHT / (PRIOR_WEIGHT + spread)),
        sizes=sum(len(parts) - 1 for parts in challenges.values()),
    )
