"""The sequential test of one series: its false alarms, its delay, and where it sees a change."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observability.drift import error_test
from observability.drift.error_test import Moments, RiseTest

MOST = 1e9


def coins(share: float, count: int, seed: int = 0) -> np.ndarray:
    """Independent losses of 0 and 1."""
    return (np.random.default_rng(seed).random(count) < share).astype(np.float64)


def reached(test: RiseTest, losses: np.ndarray, threshold: float) -> int | None:
    """The record at which the evidence reaches a threshold."""
    course = error_test.observe([test], np.arange(len(losses)), losses[:, None], MOST)
    places = np.flatnonzero(course[:, 0] >= threshold)
    return int(places[0]) if len(places) else None


@pytest.mark.parametrize("share", [0.02, 0.15, 0.5])
def test_an_error_that_has_not_risen_reaches_a_threshold_as_seldom_as_promised(
    share: float,
) -> None:
    """Of 100 series of 2,000 losses, whose reference is one of 600, few reach 20,000.

    A tenth would be the promise itself; what the bound of the reference forgoes makes it less.
    """
    alarms = 0
    for seed in range(100):
        test = RiseTest(Moments.of(coins(share, 600, seed)), 0)
        alarms += reached(test, coins(share, 2_000, 1_000 + seed), 20_000.0) is not None
    assert alarms <= 5


def test_a_mean_at_the_bound_reaches_a_threshold_no_sooner_than_the_threshold() -> None:
    """The e-detector's promise, where it is tight: 300 records in the mean for a threshold of 300.

    A series that did not reach it within 2,000 counts as 2,000, which makes the mean smaller.
    """
    known = Moments.of(coins(0.2, 100_000))
    times = []
    for seed in range(150):
        test = RiseTest(known, 0, floor=0.2)
        test.bound = 0.2
        at = reached(test, coins(0.2, 2_000, seed), 300.0)
        times.append(2_000 if at is None else at + 1)
    assert np.mean(times) >= 300.0


@pytest.mark.parametrize(
    ("before", "after", "within"), [(0.1, 0.2, 600), (0.1, 0.4, 150), (0.01, 0.1, 300)]
)
def test_a_rise_is_seen_soon_and_its_beginning_is_found(
    before: float, after: float, within: int
) -> None:
    """The larger the rise, the sooner; in the median the beginning is off by less than a delay."""
    delays, offs = [], []
    for seed in range(40):
        test = RiseTest(Moments.of(coins(before, 1_000, seed)), 0)
        losses = np.concatenate([coins(before, 1_000, 100 + seed), coins(after, 3_000, 200 + seed)])
        at = reached(test, losses, 20_000.0)
        assert at is not None
        delays.append(at - 1_000)
        offs.append(abs(test.change - 1_000))
        assert after == pytest.approx(test.mean_since or 0.0, rel=0.3)
    assert np.median(delays) < within
    assert np.median(offs) < within / 3


def test_losses_in_runs_are_no_rise() -> None:
    """Runs of 20 equal losses: as many count as one, and the test stays silent."""
    alarms = 0
    for seed in range(40):
        reference = np.repeat(coins(0.2, 50, seed), 20)
        test = RiseTest(Moments.of(reference), 0)
        alarms += reached(test, np.repeat(coins(0.2, 100, 500 + seed), 20), 20_000.0) is not None
    assert alarms <= 2


def test_a_learner_whose_errors_fall_is_independent_all_the_same() -> None:
    """A trend is no dependence, so it costs no evidence."""
    chance = np.random.default_rng(4)
    falling = np.linspace(0.8, 0.1, 1_000) + 0.05 * chance.normal(size=1_000)
    assert 1.5 > Moments.of(falling).time


def test_the_bound_of_a_reference_covers_its_mean_as_often_as_it_says() -> None:
    """95 of 100 references, give or take what 400 of them can tell; of rare errors too."""
    for share, size in ((0.01, 1_000), (0.15, 300), (0.5, 100)):
        covered = [
            Moments.of(coins(share, size, seed)).upper_bound() >= share for seed in range(400)
        ]
        assert np.mean(covered) > 0.92


@given(st.lists(st.floats(0, 1), min_size=100, max_size=200))
def test_a_bound_is_between_the_mean_and_one(losses: list[float]) -> None:
    """Whatever the losses are; and never zero, since a reference without an error is no proof."""
    known = Moments.of(np.array(losses))
    assert known.mean - 1e-9 <= known.upper_bound() <= 1.0
    assert known.upper_bound() > 0.0


def test_an_older_reference_counts_less_once_there_is_enough_of_the_new() -> None:
    """A member that learns is compared with what it lost lately."""
    old, new = Moments.of(np.full(1_000, 0.4)), Moments.of(np.full(1_000, 0.1))
    assert 0.25 == pytest.approx(old.plus(new).mean)
    assert 0.1 == pytest.approx(old.plus(new, most=1_000).mean)
    assert 0.2 == pytest.approx(old.plus(new, most=1_500).mean)


losses_or_none = st.one_of(st.floats(0, 1), st.just(math.nan))


@given(
    st.lists(st.tuples(losses_or_none, losses_or_none), min_size=1, max_size=80),
    st.lists(st.integers(1, 79), max_size=4),
)
@settings(max_examples=50)
def test_the_result_does_not_depend_on_how_records_are_batched(
    losses: list[tuple[float, float]], cuts: list[int]
) -> None:
    """To the last bit, so that a run that was cut decides as one that was not."""
    table = np.array(losses)
    positions = np.arange(len(table))
    reference = Moments.of(coins(0.1, 200))
    whole, parts = ([RiseTest(reference, 0) for _ in range(2)] for _ in range(2))
    expected = error_test.observe(whole, positions, table, MOST)
    edges = [0, *sorted({cut for cut in cuts if cut < len(table)}), len(table)]
    courses = [
        error_test.observe(parts, positions[first:last], table[first:last], MOST)
        for first, last in itertools.pairwise(edges)
    ]
    assert (expected == np.concatenate(courses)).all()
    for one, other in zip(whole, parts, strict=True):
        assert (one.change, one.mean_since, one.evidence) == (
            other.change,
            other.mean_since,
            other.evidence,
        )


@given(st.lists(losses_or_none, min_size=1, max_size=200))
def test_a_loss_that_is_not_known_changes_nothing(losses: list[float]) -> None:
    """The evidence is that of the known ones alone."""
    known = [loss for loss in losses if not math.isnan(loss)]
    reference = Moments.of(coins(0.1, 200))
    holed, dense = RiseTest(reference, 0), RiseTest(reference, 0)
    error_test.observe([holed], np.arange(len(losses)), np.array(losses)[:, None], MOST)
    if known:
        error_test.observe([dense], np.arange(len(known)), np.array(known)[:, None], MOST)
    assert dense.evidence == holed.evidence
    assert dense.count_since == holed.count_since


@given(st.lists(st.floats(0, 1), min_size=1, max_size=300))
def test_evidence_is_finite_and_not_larger_than_asked(losses: list[float]) -> None:
    """So that it fades when a rise is over."""
    test = RiseTest(Moments.of(np.zeros(100)), 0)
    error_test.observe([test], np.arange(len(losses)), np.array(losses)[:, None], 1e6)
    assert 0.0 <= test.evidence <= 1e6


def test_evidence_fades_when_a_rise_is_over() -> None:
    """A world that comes back is no alarm for ever."""
    test = RiseTest(Moments.of(coins(0.1, 1_000)), 0)
    error_test.observe([test], np.arange(500), coins(0.6, 500)[:, None], 2e6)
    assert test.evidence > 20_000.0
    error_test.observe([test], np.arange(500, 2_500), coins(0.08, 2_000)[:, None], 2e6)
    assert test.evidence < 20_000.0
