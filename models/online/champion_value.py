"""What the champion adds: the loss of the blend without it, less that with it.

Pure computation. It is over the newest records since this champion serves, by the pipeline's own
metric where that is a mean over records. A champion that is good by itself may add nothing, where
the online members and their stacks predict as well without it, and a better one may add as little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from models.core import row_losses
from models.core.metrics import Measure
from models.core.record_schema import Label
from models.online.prediction_rows import MemberRows
from models.online.tracking import Floats

BLOCK = 100
"""Records of a block. Errors come in runs: the standard error is that of the means of blocks."""
BLOCKS = 20
"""Newest blocks that are kept."""
FEWEST = 3
"""Blocks without which nothing is known."""
PARTS = ("served", "rest", "champion")


class Valued(NamedTuple):
    """Mean losses over the same records; lower is better."""

    served: float
    rest: float
    """What would have been served without the champion."""
    champion: float
    """The champion's own."""
    error: float
    """Standard error of `adds`."""
    records: int

    @property
    def adds(self) -> float:
        """What the blend would lose more without the champion."""
        return self.rest - self.served


class ChampionValue:
    """The losses of what is served, of the blend without the champion, and of the champion."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Another champion serves, or losses are measured in another way."""
        self._blocks: list[Floats] = []
        """The mean losses of a block by `PARTS`; the newest last."""
        self._newest = np.empty((0, len(PARTS)))
        """The losses of records that fill no block yet."""

    def learn(
        self, labels: Sequence[Label | None], by: Mapping[str, MemberRows], measure: Measure
    ) -> None:
        """Hear the predictions of these records by `PARTS`; only records that all predict count."""
        rows = [by[part] for part in PARTS]
        known = [
            index
            for index, label in enumerate(labels)
            if label is not None and all(each.predicted[index] is not None for each in rows)
        ]
        if not known:
            return
        truth = [label for index in known if (label := labels[index]) is not None]
        columns = []
        for each in rows:
            whole = each.at(known).whole
            found = None if whole is None else row_losses.of(truth, whole, measure)
            if found is None:
                return
            columns.append(found)
        losses = np.concatenate([self._newest, np.stack(columns, axis=1)])
        full = len(losses) // BLOCK
        for block in losses[: full * BLOCK].reshape(full, BLOCK, len(PARTS)):
            self._blocks.append(block.mean(axis=0))
        self._blocks = self._blocks[-BLOCKS:]
        self._newest = losses[full * BLOCK :]

    def value(self) -> Valued | None:
        """What is known; None: the metric is no mean over records, or too few were predicted."""
        if len(self._blocks) < FEWEST:
            return None
        means = np.array(self._blocks)
        served, rest, champion = means.mean(axis=0).tolist()
        error = float((means[:, 1] - means[:, 0]).std(ddof=1)) / math.sqrt(len(means))
        return Valued(served, rest, champion, error, BLOCK * len(means))
