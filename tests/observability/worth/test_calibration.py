"""Calibration: what was expected, held against what came."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.worth import calibration
from observability.worth.calibration import Calibration, Pair


def test_without_pairs_nothing_is_known() -> None:
    """Nor of expectations of nothing, nor of what is not finite."""
    assert Calibration(0) == calibration.of([])
    assert Calibration(1) == calibration.of([Pair(0.0, 1.0), Pair(math.nan, 1.0)])
    assert Calibration(1, 0.5) == calibration.of([Pair(2.0, 1.0)])


def test_the_ratio_is_that_of_the_sums() -> None:
    """An expectation near zero does not move it."""
    found = calibration.of([Pair(1.0, 0.5), Pair(1e-9, 1.0), Pair(2.0, 0.5)])
    assert found.ratio == pytest.approx(2 / 3)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 2 / 3 < found.high


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Ten noisy pairs with a true ratio of 0.8, two thousand times."""
    chance = random.Random(0)
    held = 0
    for _ in range(2000):
        expected = [chance.uniform(0.05, 0.15) for _ in range(10)]
        found = calibration.of(
            [Pair(each, 0.8 * each + chance.gauss(0, 0.03)) for each in expected]
        )
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.8 <= found.high
    assert 0.92 <= held / 2000 <= 0.98


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Calibration(0), True),
        (Calibration(7, 0.1, 0.0, 0.2), True),
        (Calibration(8, 0.1, 0.0, 0.49), False),
        (Calibration(8, 0.1, 0.0, 0.5), True),
        (Calibration(8, 3.0, 2.01, 4.0), False),
        (Calibration(8, 3.0, 2.0, 4.0), True),
        (Calibration(8, 0.9, 0.7, 1.1), True),
    ],
)
def test_expectations_are_bad_where_even_the_interval_is_wrong_by_a_factor_of_two(
    found: Calibration, expected: bool
) -> None:
    """From eight of them on; fewer are no reason against."""
    decision = calibration.judge(found)
    assert (expected, "calibration") == (decision.yes, decision.question)
    assert str(found.checked) in decision.because


def test_the_share_that_comes_moves_from_its_prior_to_what_came() -> None:
    """After rejected challengers it falls: the next one is expected to bring less."""
    rejected = [Pair(0.1, 0.0)]
    shares = [calibration.share_that_comes(rejected * times, 0.7, 2.0) for times in (0, 1, 2, 8)]
    assert shares == pytest.approx([0.7, 0.7 * 2 / 3, 0.35, 0.14])
    assert 1.0 == calibration.share_that_comes([Pair(0.1, 9.0)], 0.7, 2.0)


def test_one_retrain_alone_does_not_decide_for_all_later_ones() -> None:
    """Great harm counts as a rejected challenger, and great luck as twice the expectation."""
    harmful, rejected = [Pair(0.1, -9.0)], [Pair(0.1, 0.0)]
    assert calibration.share_that_comes(rejected, 0.7, 2.0) == calibration.share_that_comes(
        harmful, 0.7, 2.0
    )
    lucky, double = [Pair(0.1, 9.0), *rejected * 4], [Pair(0.1, 0.2), *rejected * 4]
    share = calibration.share_that_comes(lucky, 0.7, 2.0)
    assert share == calibration.share_that_comes(double, 0.7, 2.0) < 0.7


@given(st.lists(st.builds(Pair, st.floats(0, 1), st.floats(-1, 1))), st.floats(0, 1))
def test_a_share_is_between_nothing_and_all(pairs: list[Pair], prior: float) -> None:
    """Whatever came."""
    assert 0 <= calibration.share_that_comes(pairs, prior, 2.0) <= 1
