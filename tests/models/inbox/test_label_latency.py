"""How long labels take: an estimate that does not forget those that are on their way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.inbox.label_latency import Survival
from tests.models.inbox.makers import make_answered, make_many, new, outcomes

REMISSION = (
    [(6, True)] * 3
    + [(6, False), (7, True), (9, False), (10, True), (10, False), (11, False), (13, True)]
    + [(16, True), (17, False), (19, False), (20, False), (22, True), (23, True), (25, False)]
    + [(32, False), (32, False), (34, False), (35, False)]
)
"""Weeks of remission with 6-MP, and whether they ended: E. J. Freireich and others, Blood 21
(1963), the usual example of the estimate (D. R. Cox, D. Oakes, Analysis of Survival Data, 1984)."""


def survival(waits: Sequence[tuple[float, bool]]) -> Survival:
    """The estimate of these waits."""
    return Survival(
        np.array([each for each, _ in waits], dtype=np.float64),
        np.array([came for _, came in waits], dtype=np.bool_),
    )


@pytest.mark.parametrize(
    ("within", "unlabelled", "error", "waited_for"),
    [
        (5, 1.0, 0.0, 21),
        (6, 0.857, 0.0764, 21),
        (7, 0.807, 0.0869, 17),
        (10, 0.753, 0.0963, 15),
        (13, 0.690, 0.1068, 12),
        (16, 0.627, 0.1141, 11),
        (22, 0.538, 0.1282, 7),
        (23, 0.448, 0.1346, 6),
        (35, 0.448, 0.1346, 1),
    ],
)
def test_the_estimate_is_that_of_the_textbook(
    within: float, unlabelled: float, error: float, waited_for: int
) -> None:
    """Shares, Greenwood's standard errors and numbers at risk, as they are printed."""
    found = survival(REMISSION).share(within)
    assert found.share is not None
    assert found.standard_error is not None
    assert unlabelled == pytest.approx(1.0 - found.share, abs=5e-4)
    assert error == pytest.approx(found.standard_error, abs=5e-5)
    assert waited_for == found.waited_for


def test_what_nobody_was_waited_for_is_unknown() -> None:
    """Past the longest wait there is no estimate, unless every label had come before."""
    assert (36, None, None, 0) == survival(REMISSION).share(36)
    assert (36, 1.0, 0.0, 0) == survival([(1, True), (2, True)]).share(36)
    assert (36, None, None, 0) == survival([]).share(36)


def test_quantiles_of_what_is_labelled_are_too_short() -> None:
    """The estimate for all is longer, and unknown where too few are known to be labelled."""
    middle = survival(REMISSION).quantile(0.5)
    assert (0.5, 10.0, 23.0) == middle
    assert (0.9, 23.0, None) == survival(REMISSION).quantile(0.9)
    assert (0.5, None, None) == survival([]).quantile(0.5)


@given(st.lists(st.integers(-3, 20), min_size=1, max_size=30), st.integers(0, 25))
def test_where_every_label_came_the_estimate_is_the_share(waits: list[int], within: int) -> None:
    """Nothing is on its way, so nothing has to be estimated; a negative wait is none."""
    found = survival([(wait, True) for wait in waits])
    share = sum(max(wait, 0) <= within for wait in waits) / len(waits)
    assert share == pytest.approx(found.share(within).share)
    assert sorted(max(wait, 0) for wait in waits)[(len(waits) + 1) // 2 - 1] == (
        found.quantile(0.5).of_labelled_s
    )
    assert found.quantile(0.5).of_labelled_s == found.quantile(0.5).of_all_s


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=30))
def test_the_estimate_is_the_product_of_its_definition(waits: list[tuple[int, bool]]) -> None:
    """Computed once more, wait by wait, in the plainest way."""
    found, unlabelled = survival([(float(wait), came) for wait, came in waits]), 1.0
    for within in range(max(wait for wait, _ in waits) + 1):
        at_risk = sum(wait >= within for wait, _ in waits)
        labels = sum(came for wait, came in waits if wait == within)
        unlabelled *= 1.0 - labels / at_risk
        assert unlabelled == pytest.approx(1.0 - (found.share(within).share or 0.0), abs=1e-12)


def test_labels_that_are_on_their_way_do_not_bias_it() -> None:
    """Waits of an hour in the mean, over predictions of the last hour: half an hour is known."""
    chance = np.random.default_rng(1)
    waits, ages = chance.exponential(3_600.0, 20_000), chance.uniform(0, 3_600.0, 20_000)
    found = Survival(np.minimum(waits, ages), waits <= ages)
    expected = 1.0 - math.exp(-0.5)
    share = found.share(1_800.0)
    assert share.share is not None
    assert share.standard_error is not None
    assert expected == pytest.approx(share.share, abs=4 * share.standard_error)
    naive = float(np.mean(waits[waits <= ages] <= 1_800.0))
    assert naive > expected + 0.3


def test_the_inbox_counts_what_waits_and_what_expired(tmp_path: Path) -> None:
    """A prediction without a label says how long it was waited for, whatever became of it."""
    with new(tmp_path, longest_wait_s=60) as inbox:
        inbox.record([make_answered(each, 100.0) for each in ("quick", "slow", "expires")])
        outcomes(inbox, ("quick", 1), at=105.0)
        outcomes(inbox, ("slow", 1), at=150.0)
        inbox.record([make_answered("waits", 170.0)])
        found = inbox.latency(180.0, within_s=[5.0, 10.0, 50.0, 71.0])
    assert (180.0, None, 4, 2, 1, 1, 170.0) == (
        found.at,
        found.made_after,
        found.predictions,
        found.labelled,
        found.expired,
        found.waiting,
        found.waiting_since,
    )
    shares = [(each.share, each.waited_for) for each in found.shares]
    # One of four at 5 s; then one of the two that are waited for longer than the one that waits.
    assert [(0.25, 4), (0.25, 3), (pytest.approx(0.625), 2), (None, 0)] == shares


def test_an_empty_inbox_knows_nothing_of_latency(tmp_path: Path) -> None:
    """No moment, no share, no quantile."""
    with new(tmp_path) as inbox:
        found = inbox.latency()
    assert (None, None, 0, 0, None) == (
        found.at,
        found.made_after,
        found.predictions,
        found.waiting,
        found.waiting_since,
    )
    assert {None} == {each.share for each in found.shares}
    assert {None} == {each.of_all_s for each in found.quantiles}


def test_forgotten_examples_count_as_long_as_they_are_remembered(tmp_path: Path) -> None:
    """After that, only predictions count that were made later than every one that is lost."""
    with new(tmp_path, most_remembered=2) as inbox:
        inbox.record(make_many(0, 6))
        outcomes(inbox, *((f"p{index}", 1) for index in range(4)))
        before = inbox.latency(300.0)
        inbox.forget(2)
        assert before == inbox.latency(300.0)
        inbox.forget(4)
        found = inbox.latency(300.0)
    assert (6, 4, None) == (before.predictions, before.labelled, before.made_after)
    assert (4, 2, 101.0) == (found.predictions, found.labelled, found.made_after)


def test_a_moment_leaves_earlier_predictions_out(tmp_path: Path) -> None:
    """What is asked for since then is what was made since then, labelled or not."""
    with new(tmp_path) as inbox:
        inbox.record(make_many(0, 4))
        outcomes(inbox, ("p0", 1), ("p3", 1))
        found = inbox.latency(300.0, since=101.0)
    assert (2, 1, 3 - 1) == (found.predictions, found.labelled, found.waiting)
