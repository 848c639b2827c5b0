"""The learning curve: what more rows would save, from fits on windows of several sizes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.worth import learning_curve
from observability.worth.learning_curve import PRIOR_ERROR, LearningCurve, SizeScore

TRUTH = LearningCurve(scale=5.0, exponent=0.5)


def challenge(number: int, *rows: int, truth: LearningCurve = TRUTH) -> list[SizeScore]:
    """Fits on windows of these sizes, without noise."""
    return [SizeScore(each, truth.loss(each), number) for each in rows]


def test_without_a_challenger_there_is_no_curve() -> None:
    """Nor with one whose loss is unknown."""
    assert learning_curve.fit([]) is None
    assert learning_curve.fit([SizeScore(100, math.nan), SizeScore(0, 0.5)]) is None


def test_of_one_size_the_exponent_is_the_stated_one() -> None:
    """The curve goes through the newest challenger; twice the rows save 7 % of its loss."""
    curve = learning_curve.fit([SizeScore(800, 0.6)])
    assert curve is not None
    assert (0.1, PRIOR_ERROR, 0) == (curve.exponent, curve.error, curve.sizes)
    assert curve.loss(800) == pytest.approx(0.6)
    assert curve.saved(800, 1600) == pytest.approx(0.6 * (1 - 2**-0.1))


def test_windows_of_one_challenge_move_the_exponent() -> None:
    """Towards theirs, the further the more they differ in size; and it becomes more certain."""
    curves = []
    for fewer in (800, 400, 200, 25):
        curve = learning_curve.fit(challenge(0, fewer, 800))
        assert curve is not None
        assert curve.loss(800) == pytest.approx(TRUTH.loss(800))
        curves.append(curve)
    exponents = [curve.exponent for curve in curves]
    assert exponents == sorted(exponents)
    assert 0.1 == exponents[0]
    assert exponents[-1] == pytest.approx(0.5, abs=0.05)
    assert [curve.error for curve in curves] == sorted((c.error for c in curves), reverse=True)


def test_two_challenges_are_not_compared_with_each_other() -> None:
    """The world was easier when the second one came, which says nothing of its rows."""
    curve = learning_curve.fit([SizeScore(400, 0.9, 0), SizeScore(6400, 0.1, 1)])
    assert curve is not None
    assert 0.1 == curve.exponent
    assert curve.loss(6400) == pytest.approx(0.1)


def test_newer_challenges_count_for_more() -> None:
    """A curve that has become flat is flat, whatever it was when there were few rows."""
    steep = challenge(0, 200, 400)
    flat = challenge(1, 2000, 4000, truth=LearningCurve(0.3, 0.0))
    first, last = learning_curve.fit([*flat, *steep]), learning_curve.fit([*steep, *flat])
    assert first is not None
    assert last is not None
    assert last.exponent < first.exponent


def test_challenges_of_a_concept_that_is_gone_say_nothing_of_its_exponent() -> None:
    """After a change it is the stated one again, and the curve goes through the newest model."""
    sizes = [*challenge(100, 200, 800), SizeScore(50, 0.7, 900)]
    old, new = learning_curve.fit(sizes), learning_curve.fit(sizes, began=500)
    assert old is not None
    assert new is not None
    assert old.exponent > 0.3
    assert (0.1, PRIOR_ERROR) == (new.exponent, new.error)
    assert new.loss(50) == pytest.approx(0.7)


def test_more_rows_that_do_worse_make_a_flat_curve() -> None:
    """The older rows were of another world: more of them save nothing, and never cost."""
    curve = learning_curve.fit([SizeScore(rows, rows / 1e4) for rows in (100, 400, 1600)])
    assert curve is not None
    assert 0 == curve.saved(100, 6400)


def test_a_turned_curve_goes_through_the_same_point() -> None:
    """Only its exponent is another one, between 0 and 1."""
    turned = TRUTH.turned(400, 0.2)
    assert turned.loss(400) == pytest.approx(TRUTH.loss(400))
    assert 0.2 == turned.exponent
    assert (0.0, 1.0) == (TRUTH.turned(400, -1).exponent, TRUTH.turned(400, 2).exponent)


@given(
    st.lists(
        st.builds(SizeScore, st.integers(1, 10**6), st.floats(0, 10), st.integers(0, 3)), min_size=1
    ),
    st.integers(1, 10**6),
    st.integers(1, 10**6),
)
def test_more_rows_never_cost_and_never_save_more_than_all(
    sizes: list[SizeScore], one: int, other: int
) -> None:
    """Whatever the models lost."""
    curve = learning_curve.fit(sizes)
    assert curve is not None
    fewer, more = sorted((one, other))
    saved = curve.saved(fewer, more)
    assert -1e-9 <= saved <= curve.loss(fewer) + 1e-9
    assert 0 <= curve.exponent <= 1
