"""Do concepts come back at regular intervals? Then the change is a season, and is called so.

Pure. A concept has come back where a version of the past serves again. A *return* is the number of
records between two beginnings of the same version. Returns are a season where there are at least
`FEWEST` of them and the longest exceeds the shortest by at most `SPREAD`. Where two concepts take
turns without any memory, the last four returns look like a season in 1 of 100 cases
(`tests/observability/worth/test_season.py` simulates it).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

FEWEST = 4
"""Returns before which nothing is called a season."""
SPREAD = 1.25
"""The longest of them over the shortest, at most."""


class Season(NamedTuple):
    """Concepts that come back after about the same number of records."""

    shortest: int
    """Records, of the newest `FEWEST` returns."""
    longest: int
    returns: int
    """All that are known."""

    def describe(self) -> str:
        """As part of a sentence."""
        return (
            f"this is a season: {self.returns} times before, a concept has come back, "
            f"of late after {self.shortest} to {self.longest} records"
        )


def of(served: Iterable[tuple[str, int]]) -> Season | None:
    """Return the season of versions that began to serve at positions, which ascend.

    None where there is none, or none yet.
    """
    began: dict[str, int] = {}
    returns: list[int] = []
    for version, position in served:
        if version in began:
            returns.append(position - began[version])
        began[version] = position
    newest = returns[-FEWEST:]
    if len(newest) < FEWEST or min(newest) <= 0 or max(newest) > SPREAD * min(newest):
        return None
    return Season(min(newest), max(newest), len(returns))
