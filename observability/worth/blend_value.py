"""What a champion adds to the blend, by how much it is ahead of the blend without it.

Pure. Losses are shares of the baseline's loss. A champion that loses much more than the blend of
all others adds nothing: the blend does not listen to it. One that loses much less adds all of the
difference. In between it adds something even where it is a little worse, since its errors are
others: by how much is one number, `width`, which is taken from what was measured. So

    adds = width * log(1 + exp(ahead / width)),

the softplus of the difference: it is never below zero, nor below the difference itself, and grows
with it. With a width of zero it is the larger of both.
"""

from __future__ import annotations

import math
from typing import NamedTuple

MOST_WIDTH = 1.0
USUAL_ADDS = 0.05
"""Standard deviation of what champions add: what was measured is drawn to zero by as much as it is
noisier than this."""
_STEPS = 40


class BlendValue(NamedTuple):
    """What the champion that serves adds to the blend, and what a better one would."""

    ahead: float
    """How much less it loses than the blend without it; negative where it loses more."""
    width: float

    def adds(self, better: float = 0.0) -> float:
        """What a champion adds that loses so much less than the one that serves."""
        ahead = self.ahead + better
        if self.width <= 0.0 or abs(ahead) > 30.0 * self.width:
            return max(ahead, 0.0)
        return self.width * math.log1p(math.exp(ahead / self.width))

    def gain(self, better: float) -> float:
        """What is served gains by a champion that loses so much less than the one that serves."""
        return self.adds(better) - self.adds()


def of(ahead: float, measured: float, error: float = 0.0) -> BlendValue:
    """The value by which a champion that is so far ahead was measured to add so much.

    `error` is the standard error of that. The width is found by bisection: what is added grows
    with it.
    """
    adds = max(measured * USUAL_ADDS**2 / (USUAL_ADDS**2 + error**2), 0.0)
    low, high = 0.0, MOST_WIDTH
    if BlendValue(ahead, low).adds() >= adds:
        return BlendValue(ahead, low)
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        if BlendValue(ahead, middle).adds() < adds:
            low = middle
        else:
            high = middle
    return BlendValue(ahead, low)
