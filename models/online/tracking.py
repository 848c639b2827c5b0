"""Fixed share: weights that track the best of several experts, and of several ways to track it.

Pure computation over blocks of records with numpy: the state after a block does not depend on how
the records were divided into blocks. An *expert* is anything that predicts: a member, or a stack.

After each labelled record the weight of an expert is multiplied by exp(-rate * loss), the weights
are scaled to the sum 1, and a `share` of them is spread evenly over all experts. So an expert that
was bad for long regains weight soon after it becomes good. An expert that does not predict a record
*sleeps*: its weight relative to the rest stays.

With losses in units of a scale s(t) that is known before record t, the weighted mean loss of any T
records exceeds that of any sequence of experts with k switches by at most

    ln(K / share) * (s(1) + rises of s + s at the switches) / rate
    + ln(1 / (1 - share)) * (sum of s) / rate + rate / 8 * sum(r(t)^2 / s(t)),

where K is the number of experts and r(t) the difference between the largest and the smallest loss.
If the loss is exp-concave at the rate, as half the Brier score is up to 1/2, the last term is zero
for the loss of the weighted mean prediction. docs/guarantees.md says what follows for what is
served.

Source: M. Herbster and M. K. Warmuth, "Tracking the best expert", Machine Learning 32 (1998); the
changing scale by the argument of N. Cesa-Bianchi, P. Gaillard, G. Lugosi and G. Stoltz, "Mirror
descent meets fixed share (and feels no regret)", NeurIPS (2012); sleeping experts as in A. Chernov
and V. Vovk, "Prediction with expert evaluators' advice", ALT (2009).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[Any]
"""Of booleans."""

SHARES = (1e-2, 1e-3, 1e-4)
"""Shares that are tried side by side: a switch in about 100, 1,000 and 10,000 records."""
LAST_SHARE = 1e-4
"""The share of the upper level, which chooses between rates and shares."""


class FixedShare:
    """Weights of `experts`, once for each pair of a rate and a share.

    `weights` has the shape (pairs, experts), and each row the sum 1.
    """

    def __init__(self, rates: Sequence[float], shares: Sequence[float], experts: int) -> None:
        pairs = [(rate, share) for rate in rates for share in shares]
        self.rates = np.array([rate for rate, _ in pairs])
        shared = np.array([[share] for _, share in pairs])
        self.kept, self.floor = 1.0 - shared, shared / experts
        self.weights = np.full((len(pairs), experts), 1.0 / experts)

    def run(
        self, losses: Floats, awake: Flags, learned: Flags, scale: Floats | None = None
    ) -> Floats:
        """The weights before each of n records, shape (n, pairs, experts); then learn the records.

        `losses` and `awake` have the shape (n, experts), `learned` and `scale` (n,). A loss counts
        where its expert is awake and the record is learned; there it must be finite.
        """
        counted = np.where(awake & learned[:, None], losses, 0.0)
        # A loss that all experts share does not change the weights, and must not underflow them.
        lowest = np.min(np.where(awake, counted, np.inf), axis=1, keepdims=True, initial=np.inf)
        # Who sleeps has no loss: less the lowest one, it would be a gain without bound.
        counted = np.where(awake, counted - np.where(np.isfinite(lowest), lowest, 0.0), 0.0)
        if scale is not None:
            with np.errstate(over="ignore"):
                counted = counted / scale[:, None]
        factors = np.exp(-self.rates[None, :, None] * counted[:, None, :])
        everybody = np.asarray(awake.all(axis=1))
        before = np.empty((len(losses) + 1, *self.weights.shape))
        before[0] = self.weights
        kept, floor, scaled = self.kept, self.floor, np.empty_like(self.kept)
        steps = zip(learned.tolist(), everybody.tolist(), factors, before, before[1:], strict=False)
        for index, (counts, all_awake, factor, weights, grown) in enumerate(steps):
            if not counts:
                grown[:] = weights
                continue
            np.multiply(weights, factor, out=grown)
            if not all_awake:
                here = awake[index]
                if not here.any():
                    grown[:] = weights
                    continue
                mean = grown[:, here].sum(axis=1) / weights[:, here].sum(axis=1)
                grown[:, ~here] = weights[:, ~here] * mean[:, None]
            np.add.reduce(grown, axis=1, keepdims=True, out=scaled)
            np.divide(kept, scaled, out=scaled)
            np.multiply(grown, scaled, out=grown)
            np.add(grown, floor, out=grown)
        self.weights = before[-1].copy()
        return before[:-1]


class Mixture:
    """The experts' weighted mean prediction, at the rate and share that suit the stream.

    A `FixedShare` of every rate and share mixes the experts, and another one mixes these mixtures.
    """

    def __init__(self, experts: int, rates: Sequence[float], last_rate: float) -> None:
        self.lower = FixedShare(rates, SHARES, experts)
        self.upper = FixedShare((last_rate,), (LAST_SHARE,), len(self.lower.weights))

    def run(
        self,
        answers: Floats,
        awake: Flags,
        learned: Flags,
        loss: Callable[[Floats], Floats],
        scale: Floats | None = None,
    ) -> Floats:
        """The mean prediction of n records, shape (n, d); NaN where no expert predicts.

        `answers` has the shape (n, experts, d), and is finite where the expert is `awake`. `loss`
        turns predictions of the shape (n, m, d) into losses of the shape (n, m).
        """
        known = np.where(awake[:, :, None], answers, 0.0)
        weights = self.lower.run(loss(known), awake, learned, scale)
        weights *= awake[:, None, :]
        somebody = np.asarray(awake.any(axis=1))
        total = weights.sum(axis=2, keepdims=True)
        weights /= np.where(somebody[:, None, None], total, 1.0)
        mixed = weights @ known
        all_awake = np.repeat(somebody[:, None], mixed.shape[1], axis=1)
        upper = self.upper.run(loss(mixed), all_awake, learned & somebody, scale)
        served = (upper @ mixed)[:, 0]
        served[~somebody] = np.nan
        return served
