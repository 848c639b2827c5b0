"""How long labels take. Pure.

What is labelled already is not the whole: while labels are on their way, those that are there are
the quick ones. A prediction that still waits, or expired, says that its label took longer than it
was waited for. The Kaplan-Meier estimate takes both into account: at each wait at which a label
came, the share of those without a label is multiplied by 1 - labels / predictions that were waited
for so long. It assumes that young predictions are labelled as fast as old ones were, and that a
prediction does not expire because of its label.

Source: E. L. Kaplan and P. Meier, "Nonparametric estimation from incomplete observations", Journal
of the American Statistical Association 53 (1958); its standard error is M. Greenwood's (1926).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

QUANTILES = (0.5, 0.9, 0.99)
WITHIN_S = (1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0, 2_592_000.0)


class WaitQuantile(NamedTuple):
    """A wait that a share of predictions did not exceed."""

    share: float
    of_labelled_s: float | None
    """Of those that have a label: too short while slow labels are on their way. None: no label."""
    of_all_s: float | None
    """Of all predictions, estimated; None: fewer than this share are known to be labelled."""


class LabelledShare(NamedTuple):
    """The share of all predictions that is labelled within a time, estimated."""

    within_s: float
    share: float | None
    """None: no prediction was waited for so long."""
    standard_error: float | None
    waited_for: int
    """Predictions that waited at least so long, with or without a label: where they are few, the
    share is uncertain, whatever its standard error says."""


@dataclass(frozen=True)
class LabelLatency:
    """How long labels took until a moment, and what still waits."""

    at: float | None
    """The moment in seconds since 1970; None: nothing was recorded yet."""
    made_after: float | None
    """Only predictions that were made after this moment count, since earlier ones are not all
    remembered; None: all count."""
    predictions: int
    labelled: int
    expired: int
    waiting: int
    """All that wait."""
    waiting_since: float | None
    """When the oldest of those was made; None: none waits."""
    quantiles: tuple[WaitQuantile, ...]
    shares: tuple[LabelledShare, ...]


class Survival:
    """The Kaplan-Meier estimate of n predictions.

    Args:
        waited_s: shape (n,), seconds until the label came, or until now, or until it expired.
        labelled: shape (n,), whether the label came then.
    """

    def __init__(self, waited_s: NDArray[np.float64], labelled: NDArray[np.bool_]) -> None:
        import numpy as np

        # Clocks are set back at times, and no label came before its prediction.
        order = np.argsort(np.maximum(waited_s, 0.0), kind="stable")
        self._waited_s = np.maximum(waited_s, 0.0)[order]
        came = labelled[order]
        self._labelled_s = self._waited_s[came]
        self._times_s, first = np.unique(self._waited_s, return_index=True)
        at_risk = len(came) - first
        labels = np.add.reduceat(came.astype(np.int64), first) if len(came) else at_risk
        self._unlabelled = np.cumprod(1.0 - labels / at_risk)
        left = np.maximum(at_risk - labels, 1)  # Where none is left, the share is 1 for certain.
        self._relative_variance = np.cumsum(labels / (at_risk * left))

    def share(self, within_s: float) -> LabelledShare:
        """Return the share that is labelled within so many seconds."""
        times = self._times_s
        waited_for = len(self._waited_s) - int(self._waited_s.searchsorted(within_s))
        if not len(times) or (within_s > times[-1] and self._unlabelled[-1] > 0.0):
            return LabelledShare(within_s, None, None, waited_for)
        index = int(times.searchsorted(within_s, side="right")) - 1
        if index < 0:
            return LabelledShare(within_s, 0.0, 0.0, waited_for)
        unlabelled = float(self._unlabelled[index])
        error = unlabelled * math.sqrt(self._relative_variance[index])
        return LabelledShare(within_s, 1.0 - unlabelled, error, waited_for)

    def quantile(self, share: float) -> WaitQuantile:
        """Return the wait within which this share is labelled."""
        count = len(self._labelled_s)
        rank = max(math.ceil(share * count), 1) - 1
        # The tolerance is for the rounding of the product.
        reached = (1.0 - self._unlabelled >= share - 1e-12).nonzero()[0]
        return WaitQuantile(
            share,
            float(self._labelled_s[rank]) if count else None,
            float(self._times_s[reached[0]]) if len(reached) else None,
        )


def shares(survival: Survival, within_s: Sequence[float]) -> tuple[LabelledShare, ...]:
    """Return the share for each of the times."""
    return tuple(survival.share(each) for each in within_s)
