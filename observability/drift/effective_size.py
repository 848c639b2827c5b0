"""How many independent values a series of dependent ones is worth.

Pure. Errors and features of a stream come in runs: the mean of a thousand such values varies as
that of far fewer. The *autocorrelation time* says how many values in a row count as one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TIMES_SUMMED = 5.0
"""Autocorrelations are summed up to this many autocorrelation times.

Beyond that they are noise alone, whose sum would not converge (Sokal's window).
"""


def autocorrelation_time(values: NDArray[np.float64]) -> float:
    """Return 1 plus twice the sum of the autocorrelations, at least 1 and at most the length.

    `values` has the shape (n,), in time order and without NaN. The variance of their mean is the
    variance of one value, times this, divided by n. Values that alternate count as independent.

    Source: A. Sokal, "Monte Carlo methods in statistical mechanics" (1997), section 3.
    """
    count = len(values)
    centred = values - values.mean() if count else values
    variance = float(centred @ centred)
    if count < 2 or not variance > 0.0:
        return 1.0
    spectrum = np.fft.rfft(centred, 2 * count)
    correlations = np.fft.irfft(spectrum * np.conj(spectrum))[1:count] / variance
    times = 1.0 + 2.0 * np.cumsum(correlations)
    far_enough = np.flatnonzero(np.arange(1, count) >= TIMES_SUMMED * times)
    summed = times[far_enough[0]] if len(far_enough) else times.max()
    return float(min(max(summed, 1.0), count))
