"""Which rows of a window are fitted on, and which are only scored on.

Pure. The newest share of a window is held out, so that no model is scored on what is older than
what it learned from. Three rules bend that, each as little as it can:

*What is rare is held out too.* A comparison on no row of a class, or on one, tells nothing of it.
So of a class with fewer than `HANDFUL` rows in the newest share, the newest rows from before it are
held out as well, up to a handful, while training keeps at least as many. Single rows are taken, and
the newest share is not made longer: of 5,000 rows with ten positives that would take 1,500 rows
from training, and this takes three. No row is on both sides; a row that the champion was trained on
is never taken, since it would flatter the champion.

*What is new is trained on too.* Of a class that training would hold fewer than `HANDFUL` rows of,
the older half of the rows in the newest share are trained on: a model that never saw a class cannot
answer it, and would be promoted or kept for reasons that do not matter.

*A change is on both sides.* Where the world is known to have changed within the window, and the
newest share would swallow most of what came since, the newer half of that is held out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.core.record_schema import Label, Task

HANDFUL = 5
"""Rows of a class that a comparison should hold."""
FEWEST_AFTER_CHANGE = 60
"""Rows since a change below which it does not move the split: half of them are held out."""
MOST_APART = 0.25
"""Rows that are held out beside the newest share, as a share of it: with very many rare classes."""

Rows = NDArray[np.intp]


class HoldoutSplit(NamedTuple):
    """Places in a window, each ascending."""

    train: Rows
    held: Rows
    newest: int
    """Where the newest share begins."""

    @property
    def apart(self) -> Rows:
        """Rows from before the newest share that are held out."""
        return self.held[self.held < self.newest]

    @property
    def joined(self) -> Rows:
        """Rows of the newest share that are trained on."""
        return self.train[self.train >= self.newest]


def split(
    labels: Sequence[Label],
    task: Task,
    newest: int,
    seen: NDArray[np.bool_] | None = None,
    changed: int | None = None,
) -> HoldoutSplit:
    """Split a window, in time order, whose newest share begins at the place `newest`.

    `seen` says of each row whether the champion was trained on it; `changed` is the place of the
    first row since a change of the world, None where none is known.
    """
    rows = len(labels)
    if changed is not None and rows - changed >= FEWEST_AFTER_CHANGE:
        newest = max(newest, changed + (rows - changed) // 2)
    held = np.arange(rows) >= newest
    known = np.zeros(rows, dtype=bool) if seen is None else seen
    # What the champion has learned from says nothing about who is better.
    held &= ~known
    if task == "classification":
        _balance(np.array(_codes(labels), dtype=np.intp), held, known, newest)
    return HoldoutSplit(np.flatnonzero(~held), np.flatnonzero(held), newest)


def _codes(labels: Sequence[Label]) -> list[int]:
    """Classes as numbers in their order, the rarest first."""
    counts = Counter(labels)
    ranked = sorted(counts, key=lambda label: (counts[label], str(type(label)), label))
    codes = {label: code for code, label in enumerate(ranked)}
    return [codes[label] for label in labels]


def _balance(codes: Rows, held: NDArray[np.bool_], known: NDArray[np.bool_], newest: int) -> None:
    """Move rows between the parts, class by class, the rarest first."""
    room = max(HANDFUL, int(held.sum() * MOST_APART))
    for code in range(int(codes.max()) + 1 if len(codes) else 0):
        places = np.flatnonzero(codes == code)
        there, here = places[~held[places]], places[held[places]]
        wanted = min(HANDFUL, len(places) // 2) - len(here)
        if wanted > 0 and room > 0:
            free = there[~known[there] & (there < newest)]
            taken = free[len(free) - min(wanted, room, len(free)) :]
            held[taken] = True
            room -= len(taken)
        elif len(there) < HANDFUL and len(here) > len(there):
            spare = (len(here) - len(there)) // 2 + (len(here) - len(there)) % 2
            held[here[:spare]] = False
