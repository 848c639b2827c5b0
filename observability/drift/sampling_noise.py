"""How large a drift score gets by chance: thresholds from the reference's own sampling noise.

Pure; the chance that it needs is an argument. Two windows of the same world never have equal
values. How far apart they are depends on how many they are, on how the values are distributed, and
on how long they come in runs. So the reference is resampled: pairs of windows of the sizes at hand
are drawn from it in blocks, which keep its runs, and each pair is scored as the real ones are. The
largest of all columns' scores, each in units of its own noise, has a Gumbel distribution; the
quantile of that is what at least one column reaches by chance in a stated share of looks.

What a reference cannot tell is how its world varies over times longer than itself, such as a
season: that is a change of the columns, and is found as one.

Sources: H. R. Künsch, "The jackknife and the bootstrap for general stationary observations"
(1989), for blocks; P. H. Westfall, S. S. Young, "Resampling-based multiple testing" (1993), for the
maximum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from observability.drift.effective_size import autocorrelation_time

Floats = NDArray[np.float64]

PAIRS = 40
"""Pairs of windows that are drawn: with 20 columns they take less than a second."""
FEWEST_BLOCKS = 8
"""A window is drawn from so many blocks at least, or its noise could not be seen."""
SMALLEST = 1e-300
"""A p-value below this is this."""
SMALLEST_STEP = 1e-5
"""A column without any noise has drifted with a score that is larger than usual by this."""
_FIT_ERROR = 3.5
"""The Gumbel distribution is fitted to a few maxima; this over their number raises its quantile.

So a further maximum exceeds it as often as asked (the quantile within 3 %, simulated for 40 to 100
maxima and chances of 0.2 to 0.002).
"""
_EULER = 0.5772156649015329


def block_length(values: Floats, window: int) -> int:
    """Return how many values in a row are drawn together: four autocorrelation times.

    With so many, windows that are drawn vary nearly as much as windows of the stream.

    `values` has the shape (n,), in time order and without NaN; `window` is the size of the smaller
    window that is drawn.
    """
    # Less than one half more than a single value is the noise of the estimate itself.
    time = autocorrelation_time(values)
    wanted = 1 if time < 1.5 else math.ceil(4.0 * time)
    return max(1, min(wanted, window // FEWEST_BLOCKS))


def draw(chance: np.random.Generator, count: int, size: int, block: int) -> NDArray[np.intp]:
    """Return `size` indexes below `count`, in blocks that go around the end."""
    starts = chance.integers(count, size=-(-size // block))
    return ((starts[:, None] + np.arange(block)) % count).ravel()[:size].astype(np.intp)


def thresholds(
    scores: Mapping[str, Floats], larger_is_drift: Mapping[str, bool], false_alarms: float
) -> dict[str, float]:
    """Return from which score each column has drifted.

    `scores` are those of each column's pairs, of the shape (pairs,); all columns have equally many.
    With a chance of `false_alarms` at least one column of an unchanged world is over its threshold.
    A p-value counts by the root of its logarithm, which is what a distance is of values in a row.
    """
    if not scores:
        return {}
    distances = {
        name: each if larger_is_drift[name] else np.sqrt(-np.log(np.maximum(each, SMALLEST)))
        for name, each in scores.items()
    }
    usual = {name: float(each.mean()) for name, each in distances.items()}
    noise = {name: float(each.std(ddof=1)) for name, each in distances.items()}
    varied = [(distances[name] - usual[name]) / noise[name] for name in scores if noise[name] > 0.0]
    reach = _gumbel_quantile(np.max(varied, axis=0), 1.0 - false_alarms) if varied else 0.0
    found = {}
    for name in scores:
        limit = usual[name] + max(reach * noise[name], SMALLEST_STEP)
        found[name] = limit if larger_is_drift[name] else math.exp(-limit * limit)
    return found


def _gumbel_quantile(maxima: Floats, share: float) -> float:
    """Return what a further maximum like `maxima` stays below in this share of cases."""
    scale = float(maxima.std(ddof=1)) * math.sqrt(6.0) / math.pi
    reach = scale * (-math.log(-math.log(share)) - _EULER)
    return float(maxima.mean()) + reach * (1.0 + _FIT_ERROR / len(maxima))
