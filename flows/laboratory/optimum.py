"""The cheapest schedule of retrains that hindsight knows, by dynamic programming.

Pure. Candidates are fitted models, each with the record from which it serves. A schedule says which
of them are fitted; each serves until the next one does. Its cost is the loss of what served, summed
over all records, plus a price for each fit. Before the first one a stand-in without price serves.

The formulation is the offline problem of Mahadevan and Mathioudakis, "Cost-Aware Retraining for
Machine Learning", Knowledge-Based Systems 293 (2024), and of Yang and Mathioudakis, "Automated
Retraining for Cost-Optimal ML", ECML PKDD 2026 (the distribution retrainopt): at every step a model
is kept or trained. Here a model besides takes time until it serves, and no fit begins before the
one before it serves. A schedule never goes back to an older model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model that could be fitted: where its fit begins, where it serves, what it loses."""

    begins: int
    """The row at which its fit begins."""
    serves: int
    """The first row that it predicts, at or behind `begins`."""
    losses: NDArray[np.float64]
    """Its loss in each row from `serves` on, to the end of the stream."""


@dataclass(frozen=True)
class Schedule:
    """Which candidates are fitted, in order, and what that costs."""

    chosen: tuple[int, ...]
    loss: float
    """The loss of what serves, summed over all records."""
    price: float
    """Of one fit."""

    @property
    def cost(self) -> float:
        """The loss, and the price of all fits."""
        return self.loss + self.price * len(self.chosen)


def front(stand_in: NDArray[np.float64], candidates: Sequence[Candidate]) -> list[Schedule]:
    """The schedule of least loss with exactly m fits, for each m that is possible, from 0 on.

    `stand_in` is the loss of each row of what serves without a model: n rows. The price is 0. Takes
    time in proportion to m times the candidates squared.
    """
    rows, count = len(stand_in), len(candidates)
    before = np.concatenate([[0.0], np.cumsum(stand_in)])
    sums = [np.concatenate([[0.0], np.cumsum(each.losses)]) for each in candidates]
    # The loss of candidate i from where it serves to where candidate j does; infinite where j may
    # not follow i.
    between = np.full((count, count), np.inf)
    for i, first in enumerate(candidates):
        for j, then in enumerate(candidates):
            if then.begins >= first.serves and then.serves > first.serves:
                between[i, j] = sums[i][then.serves - first.serves]
    to_end = np.array([sums[i][rows - each.serves] for i, each in enumerate(candidates)])
    found = [Schedule((), float(before[rows]), 0.0)]
    reached = np.array([before[each.serves] for each in candidates])
    came_from: list[NDArray[np.intp]] = []
    while count and np.isfinite(reached).any():
        last = int(np.argmin(reached + to_end))
        chosen = [last]
        for table in reversed(came_from):
            chosen.append(int(table[chosen[-1]]))
        found.append(Schedule(tuple(reversed(chosen)), float(reached[last] + to_end[last]), 0.0))
        steps = reached[:, None] + between
        came_from.append(np.argmin(steps, axis=0))
        reached = steps.min(axis=0)
    return found


def cheapest(
    stand_in: NDArray[np.float64], candidates: Sequence[Candidate], price: float
) -> Schedule:
    """The schedule of least cost at a price per fit; of equal ones that with fewer fits."""
    priced = [Schedule(each.chosen, each.loss, price) for each in front(stand_in, candidates)]
    return min(priced, key=lambda each: each.cost)
