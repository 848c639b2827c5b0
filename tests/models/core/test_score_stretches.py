"""The last labelled score goes on: an estimate with its own past error beside it."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from models.core.score_stretches import KEPT, RECORDS, ScoreStretches


def test_the_estimate_is_the_last_stretch_and_its_error_that_of_the_past() -> None:
    """Accuracies .8, .9, .6: off by .1 and then by .3."""
    stretches = ScoreStretches()
    count, total = 0, 0.0
    for accuracy in (0.8, 0.9, 0.6):
        count, total = count + RECORDS, total + accuracy * RECORDS
        stretches.add(count, total)
    estimate = stretches.estimate()
    assert estimate is not None
    assert (pytest.approx(0.6), pytest.approx(0.2), 2) == astuple(estimate)


def test_without_two_stretches_nothing_is_claimed() -> None:
    """An estimate whose error is not known is none."""
    stretches = ScoreStretches()
    assert None is stretches.estimate()
    stretches.add(RECORDS - 1, 10.0)
    assert [] == stretches.means
    stretches.add(RECORDS, 250.0)
    assert [0.5] == stretches.means
    assert None is stretches.estimate()


def test_only_the_newest_stretches_are_kept() -> None:
    """Memory is bounded, and a year ago says little."""
    stretches = ScoreStretches()
    for index in range(1, 3 * KEPT):
        stretches.add(index * RECORDS, float(index**2))
    assert KEPT == len(stretches.means)
    estimate = stretches.estimate()
    assert estimate is not None
    assert KEPT - 1 == estimate.stretches
