"""What a champion adds to the blend, by what it loses itself.

Pure. Losses are shares of the baseline's loss. The blend without a champion loses `rest`. A
champion that loses much more adds nothing: the blend does not listen to it. One that loses much
less adds all of the difference. In between it adds something even where it is a little worse, since
its errors are others: by how much is one number, `width`, which is taken from what was measured. So

    adds(loss) = width * log(1 + exp((rest - loss) / width)),

the softplus of the difference: it is never below zero, nor below the difference itself, and falls
in the champion's loss. With a width of zero it is the larger of both.
"""

from __future__ import annotations

import math
from typing import NamedTuple

MOST_WIDTH = 1.0
_STEPS = 40


class BlendValue(NamedTuple):
    """What champions add to a blend."""

    rest: float
    """What the blend loses without a champion."""
    width: float

    def adds(self, loss: float) -> float:
        """What a champion with this loss of its own adds."""
        ahead = self.rest - loss
        if self.width <= 0.0 or abs(ahead) > 30.0 * self.width:
            return max(ahead, 0.0)
        return self.width * math.log1p(math.exp(ahead / self.width))

    def gain(self, before: float, after: float) -> float:
        """What is gained where a champion that loses `after` comes for one that loses `before`."""
        return self.adds(after) - self.adds(before)


def of(rest: float, loss: float, adds: float) -> BlendValue:
    """The value by which a champion with this loss was measured to add so much.

    The width is found by bisection: what is added grows with it.
    """
    low, high = 0.0, MOST_WIDTH
    if BlendValue(rest, low).adds(loss) >= adds:
        return BlendValue(rest, low)
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        if BlendValue(rest, middle).adds(loss) < adds:
            low = middle
        else:
            high = middle
    return BlendValue(rest, low)
