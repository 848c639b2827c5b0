"""A season is called so where concepts come back regularly, and hardly ever where they do not."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from observability.worth import season


def turns(lengths: list[int], concepts: int = 2) -> list[tuple[str, int]]:
    """Concepts that take turns, each of which is served by a version of its own."""
    starts = [0, *np.cumsum(lengths).tolist()]
    return [(f"v{index % concepts}", start) for index, start in enumerate(starts)]


def test_concepts_that_come_back_regularly_are_a_season() -> None:
    """After four returns, and with the records that they took."""
    assert season.of(turns([1_000] * 4)) is None
    found = season.of(turns([1_000, 1_100, 1_000, 1_000, 1_000]))
    assert found == (2_000, 2_100, 4)
    assert "4 times before" in found.describe()
    assert "2000 to 2100 records" in found.describe()


def test_one_return_that_is_late_is_no_season() -> None:
    """Only while it is among the newest four."""
    late = [1_000, 1_000, 1_000, 1_000, 3_000]
    assert season.of(turns(late)) is None
    assert season.of(turns([*late, *[1_000] * 5])) is not None


def test_concepts_that_never_come_back_are_no_season() -> None:
    """However regular the changes are."""
    assert season.of((f"v{index}", index * 1_000) for index in range(50)) is None
    assert season.of([]) is None


def test_turns_without_memory_are_rarely_a_season() -> None:
    """In about 1 of 100 cases, as the docstring says."""
    chance = np.random.default_rng(4)
    found = [
        season.of(turns(np.ceil(chance.exponential(5_000, 5)).astype(int).tolist()))
        for _ in range(4_000)
    ]
    share = np.mean([each is not None for each in found])
    assert 0.005 < share < 0.02


@given(st.lists(st.integers(0, 10**6), max_size=30), st.integers(1, 4))
def test_the_returns_of_a_season_are_alike(lengths: list[int], concepts: int) -> None:
    """Whatever came, and however often."""
    found = season.of(turns(lengths, concepts))
    if found is not None:
        assert 0 < found.shortest <= found.longest <= season.SPREAD * found.shortest
        assert found.returns >= season.FEWEST
