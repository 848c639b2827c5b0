"""Fixed share: weights that track the best of several experts, and of several ways to track it.

Pure computation over blocks of records with numpy: the state after a block does not depend on how
the records were divided into blocks. An *expert* is anything that predicts: a member, or a stack.

After each labelled record the weight of an expert is multiplied by exp(-rate * loss), the weights
are scaled to the sum 1, and a `share` of them is spread evenly over all experts. So an expert that
was bad for long regains weight soon after it becomes good. An expert that does not predict a record
*sleeps*: its weight relative to the rest stays. Several *groups* of the same experts can be weighed
side by side: each as if there were no other experts than its own.

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
    """Weights of the experts of each group, once for each pair of a rate and a share.

    `groups` has the shape (groups, experts) and says who belongs to which. A *row* is one group at
    one pair, group by group: `weights` has the shape (experts, rows), and each column the sum 1.

    A step is a few operations on arrays of some hundred numbers, of which numpy does one in 0.2 us
    where all have the same shape, and in 0.9 us where one has to be broadcast or summed along an
    axis. So all constants are kept in the shape of the weights, and a matrix of ones sums them.
    """

    def __init__(self, rates: Sequence[float], shares: Sequence[float], groups: Flags) -> None:
        self.groups = groups
        self.rates, self.shares = np.array(rates), np.array(shares)
        even = self._rows(groups / groups.sum(axis=1, keepdims=True))
        shared = np.tile(self.shares, len(groups) * len(rates))
        self.kept, self.floor = np.broadcast_to(1.0 - shared, even.shape).copy(), shared * even
        self.weights = even

    def _rows(self, by_group: NDArray[Any]) -> Floats:
        """What is known of each group's experts, shape (groups, experts), in the weights' shape."""
        pairs = len(self.rates) * len(self.shares)
        return np.repeat(np.asarray(by_group, dtype=np.float64).T, pairs, axis=1)

    def run(
        self, losses: Floats, awake: Flags, learned: Flags, scale: Floats | None = None
    ) -> Floats:
        """The weights before each of n records, shape (n, experts, rows); then learn.

        `losses` and `awake` have the shape (n, experts), `learned` and `scale` (n,). A loss counts
        where its expert is awake and the record is learned; there it must be finite.
        """
        before = np.empty((len(losses) + 1, *self.weights.shape))
        before[0] = self.weights
        # The records that change weights, in stretches of which the same experts are awake.
        changing = np.flatnonzero(learned & awake.any(axis=1))
        turns = np.flatnonzero((awake[changing[1:]] != awake[changing[:-1]]).any(axis=1)) + 1
        end = 0
        for rows in np.split(changing, turns):
            if len(rows):
                before[end + 1 : rows[0] + 1] = before[end]
                here, units = awake[rows[0]], None if scale is None else scale[rows]
                end = int(rows[-1]) + 1
                found = before[rows[0] : end + 1]
                if len(rows) == end - rows[0]:
                    self._stretch(found, losses[rows], here, units)
                    continue
                # Records between them leave the weights as they are.
                packed = found[: len(rows) + 1].copy()
                self._stretch(packed, losses[rows], here, units)
                found[1:] = np.repeat(packed[1:], np.diff([*rows, end]), axis=0)
        before[end + 1 :] = before[end]
        self.weights = before[-1].copy()
        return before[:-1]

    def _stretch(self, found: Floats, losses: Floats, here: Flags, scale: Floats | None) -> None:
        """Find the weights after each of n learned records at which the experts `here` are awake.

        `found` has the shape (n + 1, experts, rows), and begins with the weights before. A group
        that sleeps as a whole is compared as if nobody had lost anything.
        """
        heard = self.groups & here
        sleeps: Flags = np.logical_not(heard.any(axis=1))
        heard = np.where(sleeps[:, None], self.groups, heard)
        # A loss that a whole group shares does not change its weights, and must not underflow them.
        counted = np.where((heard & ~sleeps[:, None]).T, losses[:, :, None], np.inf)
        lowest = np.min(counted, axis=1, keepdims=True)
        counted = np.where(np.isfinite(counted), counted - np.where(sleeps, 0.0, lowest), 0.0)
        if scale is not None:
            with np.errstate(over="ignore"):
                counted = counted / scale[:, None, None]
        awake = self._rows(heard)
        # Of one rate, all shares have the same factor.
        decays = np.exp(-self.rates * counted[:, :, :, None])[:, :, :, :, None]
        factors = decays * awake.reshape(*decays.shape[1:4], len(self.shares))
        factors = factors.reshape(len(losses), *awake.shape)
        kept, floor, ones = self.kept, self.floor, np.ones((len(awake), len(awake)))
        total = np.empty_like(awake)
        if heard.sum() == self.groups.sum():
            for factor, weights, grown in zip(factors, found, found[1:], strict=False):
                np.multiply(weights, factor, out=grown)
                np.dot(ones, grown, out=total)
                np.divide(kept, total, out=total)
                np.multiply(grown, total, out=grown)
                np.add(grown, floor, out=grown)
            return
        part, mass = np.empty_like(awake), np.empty_like(awake)
        for factor, weights, grown in zip(factors, found, found[1:], strict=False):
            # Who is awake keeps its part of the whole, and so does who sleeps.
            np.multiply(weights, awake, out=part)
            np.dot(ones, part, out=mass)
            np.multiply(weights, factor, out=grown)
            np.dot(ones, grown, out=total)
            np.divide(mass, total, out=total)
            np.multiply(grown, total, out=grown)
            np.subtract(weights, part, out=part)
            np.add(grown, part, out=grown)
            np.multiply(grown, kept, out=grown)
            np.add(grown, floor, out=grown)


class Mixture:
    """The weighted mean prediction of each group, at the rate and share that suit the stream.

    A `FixedShare` of every rate and share mixes the experts, and another one mixes these mixtures.
    """

    def __init__(self, groups: Flags, rates: Sequence[float], last_rate: float) -> None:
        self.lower = FixedShare(rates, SHARES, groups)
        mixtures = np.repeat(np.eye(len(groups), dtype=bool), len(rates) * len(SHARES), axis=1)
        self.upper = FixedShare((last_rate,), (LAST_SHARE,), mixtures)

    @property
    def weights(self) -> Floats:
        """The present weight of each expert in each group, shape (groups, experts)."""
        return np.asarray((self.lower.weights @ self.upper.weights).T)

    def run(
        self,
        answers: Floats,
        awake: Flags,
        learned: Flags,
        loss: Callable[[Floats], Floats],
        scale: Floats | None = None,
    ) -> Floats:
        """The mean prediction of n records, shape (n, groups, d); NaN where no expert predicts.

        `answers` has the shape (n, experts, d), and is finite where the expert is `awake`. `loss`
        turns predictions of the shape (n, m, d) into losses of the shape (n, m).
        """
        known = np.where(awake[:, :, None], answers, 0.0)
        weights = self.lower.run(loss(known), awake, learned, scale)
        weights *= awake[:, :, None]
        total = weights.sum(axis=1)
        present = total > 0.0
        weights /= np.where(present, total, 1.0)[:, None, :]
        mixed = weights.transpose(0, 2, 1) @ known
        upper = self.upper.run(loss(mixed), present, learned, scale)
        served = upper.transpose(0, 2, 1) @ mixed
        served[~(self.upper.groups & present[:, None, :]).any(axis=2)] = np.nan
        return served
