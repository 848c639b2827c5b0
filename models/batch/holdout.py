"""Splits a window into rows to fit on and rows to score on.

Pure. The newest share of a window is held out, so that no model is scored on rows that are older
than its training data. Three rules modify that, each as little as possible:

*Rare rows are held out too.* A comparison on at most one row of a class says nothing about it. So
of a class with fewer than `HANDFUL` rows in the newest share, the newest rows from before it are
held out as well, up to `HANDFUL`, while training keeps at least as many. Single rows are taken
instead of a longer share: for 5,000 rows with ten positives, that would cost 1,500 training rows,
and this costs three. No row is on both sides. A row that the champion was trained on is never held
out, since it would favour the champion.

*New rows are trained on too.* If training would have fewer than `HANDFUL` rows of a class, the
older half of its rows in the newest share are trained on: a model that never saw a class cannot
predict it, and would be promoted or rejected for the wrong reason.

*A change is on both sides.* If the data changed within the window, and the newest share would
contain most rows since then, only the newer half of these is held out.

*What is new is on both sides.* A champion that was fitted on all rows of its window has seen all
but the rows since then. None that it has seen is held out, and of the new ones the newer half at
most: a challenger that is to be better for knowing newer rows must have been trained on some.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.core.record_schema import Label, Task

HANDFUL = 5
"""Rows of a class that a comparison should have."""
FEWEST_AFTER_CHANGE = 60
"""Fewest rows since a change that move the split: half of them are held out."""
MOST_APART = 0.25
"""Most rare rows that are held out besides the newest share, as a share of it."""

Rows = NDArray[np.intp]


class HoldoutSplit(NamedTuple):
    """Indexes in a window, ascending."""

    train: Rows
    held: Rows
    newest: int
    """Index at which the newest share begins."""

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
    """Split a window, in time order, whose newest share begins at the index `newest`.

    `seen` says of each row whether the champion was trained on it; `changed` is the index of the
    first row since a change of the data, None if none is known.
    """
    rows = len(labels)
    if changed is not None and rows - changed >= FEWEST_AFTER_CHANGE:
        newest = max(newest, changed + (rows - changed) // 2)
    if seen is not None:
        known_to = rows if seen.all() else int(seen.argmin())
        newest = max(newest, known_to + (rows - known_to) // 2)
    held = np.arange(rows) >= newest
    known = np.zeros(rows, dtype=bool) if seen is None else seen
    # A row that the champion was trained on must not compare it with others.
    held &= ~known
    if task == "classification":
        counts = Counter(labels)
        ranked = sorted(counts, key=lambda label: (counts[label], str(type(label)), label))
        codes = {label: code for code, label in enumerate(ranked)}
        _balance(np.array([codes[label] for label in labels], dtype=np.intp), held, known, newest)
    return HoldoutSplit(np.flatnonzero(~held), np.flatnonzero(held), newest)


def older(until: int, rows: int, began: int) -> tuple[int, int]:
    """From and to (exclusive) of the window on which forgetting is measured: `rows` before `until`.

    It begins where the present concept `began`, if that was later: rows of a concept that is gone
    are no reason against a challenger that knows the present one.
    """
    return min(max(until - rows, began, 0), until), until


def latest_change(positions: Sequence[int], changes: Sequence[int | None]) -> int | None:
    """The row of a window with which the last known change of the data begins; None without one.

    `positions` are of the window's rows, ascending, and `changes` are positions, None where nothing
    is known. A change before the window, or with too few rows since, does not count.
    """
    rows = [bisect.bisect_left(positions, each) for each in changes if each is not None]
    known = [row for row in rows if 0 < row <= len(positions) - FEWEST_AFTER_CHANGE]
    return max(known, default=None)


def _balance(codes: Rows, held: NDArray[np.bool_], known: NDArray[np.bool_], newest: int) -> None:
    """Move rows between the parts, class by class; `codes` begin with the rarest class."""
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
