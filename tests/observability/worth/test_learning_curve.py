"""The learning curve: what more rows would save, from challengers of several sizes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.worth import learning_curve
from observability.worth.learning_curve import LearningCurve, SizeScore


def test_without_a_challenger_there_is_no_curve() -> None:
    """Nor with one whose loss is unknown."""
    assert learning_curve.fit([]) is None
    assert learning_curve.fit([SizeScore(100, math.nan), SizeScore(0, 0.5)]) is None


def test_with_too_few_sizes_the_exponent_is_the_stated_one() -> None:
    """The curve goes through the newest challenger; twice the rows save 7 % of its loss."""
    curve = learning_curve.fit([SizeScore(800, 0.6)])
    assert curve is not None
    assert (0.0, 0.1, 0) == (curve.floor, curve.exponent, curve.sizes)
    assert curve.loss(800) == pytest.approx(0.6)
    assert curve.saved(800, 1600) == pytest.approx(0.6 * (1 - 2**-0.1))


def test_few_sizes_move_the_exponent_away_from_the_stated_one() -> None:
    """Towards theirs, and the further the more they differ in size."""
    exponents = []
    for rows in (100, 200, 400, 6400):
        truth = LearningCurve(0.0, 5.0, 0.5, 0)
        curve = learning_curve.fit([SizeScore(each, truth.loss(each)) for each in (100, rows)])
        assert curve is not None
        assert curve.loss(rows) == pytest.approx(truth.loss(rows))
        exponents.append(curve.exponent)
    assert exponents == sorted(exponents)
    assert 0.1 == exponents[0]
    assert exponents[-1] == pytest.approx(0.5, abs=0.05)


def test_sizes_that_are_close_do_not_make_a_curve() -> None:
    """Four sizes within a factor of four say nothing of the floor."""
    curve = learning_curve.fit([SizeScore(rows, 0.5) for rows in (1000, 1500, 2000, 3999)])
    assert curve is not None
    assert 0 == curve.sizes


def test_a_curve_is_found_again() -> None:
    """Its floor, scale and exponent, from losses without noise."""
    truth = LearningCurve(0.2, 3.0, 0.5, 5)
    sizes = [SizeScore(rows, truth.loss(rows)) for rows in (100, 400, 1600, 3200, 6400)]
    found = learning_curve.fit(sizes)
    assert found is not None
    assert tuple(found) == pytest.approx(truth)


def test_more_rows_that_do_worse_make_a_flat_curve() -> None:
    """The later concept was harder: more rows do not save anything, and never cost."""
    rising = [SizeScore(rows, rows / 1e4) for rows in (100, 400, 1600, 3200, 6400)]
    curve = learning_curve.fit(rising)
    assert curve is not None
    assert 0 == curve.saved(100, 6400)


@given(
    st.lists(st.builds(SizeScore, st.integers(1, 10**6), st.floats(0, 10)), min_size=1),
    st.integers(1, 10**6),
    st.integers(1, 10**6),
)
def test_more_rows_never_cost_and_never_save_more_than_all(
    sizes: list[SizeScore], one: int, other: int
) -> None:
    """Whatever the challengers lost."""
    curve = learning_curve.fit(sizes)
    assert curve is not None
    fewer, more = sorted((one, other))
    saved = curve.saved(fewer, more)
    assert -1e-9 <= saved <= curve.loss(fewer) + 1e-9
    assert 0 <= curve.floor
    assert 0 <= curve.exponent <= 1
