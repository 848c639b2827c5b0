"""A set of positions, stored as ranges: small if most positions are consecutive.

Pure and immutable: every operation returns a new set.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Range = tuple[int, int]
"""First position and end; the end is exclusive."""


@dataclass(frozen=True)
class PositionRanges:
    """Positions as sorted ranges that do not touch each other."""

    spans: tuple[Range, ...] = ()

    def __len__(self) -> int:
        """How many positions there are."""
        return sum(last - first for first, last in self.spans)

    def __iter__(self) -> Iterator[int]:
        """The positions, in order."""
        for first, last in self.spans:
            yield from range(first, last)

    def __contains__(self, position: object) -> bool:
        """Whether a position is among them."""
        if not isinstance(position, int):
            return False
        index = bisect_right(self.spans, (position, _BEYOND)) - 1
        return index >= 0 and self.spans[index][0] <= position < self.spans[index][1]

    def plus(self, positions: Iterable[int]) -> PositionRanges:
        """The union with `positions`."""
        added = _spans(positions)
        if not added:
            return self
        if not self.spans or added[0][0] > self.spans[-1][1]:
            return PositionRanges((*self.spans, *added))
        return PositionRanges(tuple(_joined(sorted([*self.spans, *added]))))

    def minus(self, positions: Iterable[int]) -> PositionRanges:
        """The difference: all but `positions`."""
        holes = _spans(positions)
        ends = [end for _, end in holes]
        left: list[Range] = []
        for first, last in self.spans:
            at, index = first, bisect_right(ends, first)
            while index < len(holes) and holes[index][0] < last:
                if at < holes[index][0]:
                    left.append((at, holes[index][0]))
                at, index = holes[index][1], index + 1
            if at < last:
                left.append((at, last))
        return PositionRanges(tuple(left))

    def between(self, first: int, last: int) -> PositionRanges:
        """The positions from `first` to `last` (exclusive)."""
        cut = ((max(begin, first), min(end, last)) for begin, end in self.spans)
        return PositionRanges(tuple((begin, end) for begin, end in cut if begin < end))

    def newest(self, most: int) -> PositionRanges:
        """The last `most` ranges: this bounds the memory of a widely scattered set."""
        return PositionRanges(self.spans[max(len(self.spans) - most, 0) :])


_BEYOND = 2**63


def _spans(positions: Iterable[int]) -> list[Range]:
    return list(_joined((place, place + 1) for place in sorted(set(positions))))


def _joined(spans: Iterable[Range]) -> Iterator[Range]:
    """Merge sorted ranges that touch or overlap."""
    at: Range | None = None
    for first, last in spans:
        if at is not None and first <= at[1]:
            at = (at[0], max(at[1], last))
            continue
        if at is not None:
            yield at
        at = (first, last)
    if at is not None:
        yield at
