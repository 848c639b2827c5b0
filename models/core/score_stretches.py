"""An estimate of the score that is not known yet: the last labelled one goes on.

Pure computation. Labelled records are divided into stretches, and the score of the last whole one
is the estimate for what has no label. How far off it is was measured on the same stream: the mean
distance of each stretch's score from that of the stretch before it. Nothing is decided by it.

Estimates from the models' own confidence were farther off here: a model that is wrong is sure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

RECORDS = 500
"""Scored records of a stretch, at least."""
KEPT = 50
"""Newest stretches that are kept."""


@dataclass(frozen=True)
class ScoreEstimate:
    """The score that is expected of records without a label."""

    score: float
    off_by: float
    """How far off such an estimate was in the mean, from one stretch to the next."""
    stretches: int
    """Over how many stretches that was measured."""


@dataclass
class ScoreStretches:
    """The mean scores of stretches, from a count and a total that only grow."""

    means: list[float] = field(default_factory=list)
    count: int = 0
    """Scored records until the end of the last stretch."""
    total: float = 0.0

    def add(self, count: int, total: float) -> None:
        """Hear the count and the total of all scores so far; a stretch may end here."""
        records = count - self.count
        if records < RECORDS:
            return
        self.means = [*self.means, (total - self.total) / records][-KEPT:]
        self.count, self.total = count, total

    def estimate(self) -> ScoreEstimate | None:
        """The estimate; None before there are two stretches, since its error is not known."""
        distances = [abs(after - before) for before, after in pairwise(self.means)]
        if not distances:
            return None
        return ScoreEstimate(self.means[-1], sum(distances) / len(distances), len(distances))
