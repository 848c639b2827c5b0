"""Sets of positions as ranges: the same set, however it came about."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from models.core.position_ranges import PositionRanges

PLACES = st.sets(st.integers(0, 40))


def sound(ranges: PositionRanges) -> bool:
    """In order, none empty, and none touches the next."""
    whole = all(first < last for first, last in ranges.spans)
    return whole and all(left[1] < right[0] for left, right in pairwise(ranges.spans))


@given(PLACES, PLACES)
def test_ranges_are_a_set(some: set[int], others: set[int]) -> None:
    """What is added is in it, what is taken out is not, and neighbours are one range."""
    ranges = PositionRanges().plus(some)
    assert ranges.spans == PositionRanges().plus(sorted(some, reverse=True)).spans
    for found, expected in (
        (ranges, some),
        (ranges.plus(others), some | others),
        (ranges.minus(others), some - others),
    ):
        assert sound(found)
        assert sorted(expected) == list(found)
        assert len(expected) == len(found)
        assert expected == {place for place in range(-2, 43) if place in found}


@given(PLACES, st.integers(0, 40), st.integers(0, 40))
def test_a_part_of_ranges_is_a_set_too(some: set[int], first: int, last: int) -> None:
    """Cut at two positions, whatever lies there."""
    found = PositionRanges().plus(some).between(first, last)
    assert sound(found)
    assert [place for place in sorted(some) if first <= place < last] == list(found)


def test_a_range_of_a_million_is_as_small_as_one_position() -> None:
    """A stream that was rejected for a day costs the checkpoint nothing."""
    ranges = PositionRanges().plus(range(1_000_000)).plus([5_000_000])
    assert ((0, 1_000_000), (5_000_000, 5_000_001)) == ranges.spans


def test_the_newest_ranges_are_those_that_stay() -> None:
    """A set that is scattered widely is cut at its old end."""
    ranges = PositionRanges().plus(range(0, 20, 2))
    assert [16, 18] == list(ranges.newest(2))
    assert ranges == ranges.newest(10)


def test_what_is_no_position_is_in_no_range() -> None:
    """A set of positions can be asked anything."""
    assert "1" not in PositionRanges().plus([1])
