"""Calibration: what was served with a probability is held against the share of hits."""

from __future__ import annotations

import pytest

from models.core.record_schema import Label
from models.online.calibration import Reliability
from models.online.prediction_rows import MemberRows


def rows(probability: float, count: int, answered: Label = "yes") -> MemberRows:
    """So many predictions of one class with one probability."""
    return MemberRows([answered] * count, [probability] * count)


def test_probabilities_that_keep_their_promise_have_no_error() -> None:
    """Of ten served with 0.8, eight are hits."""
    known = Reliability()
    known.add(rows(0.8, 10), [*["yes"] * 8, "no", "no"])
    assert 0.0 == pytest.approx(known.error)
    (found,) = known.ranges
    assert 10 == found.records
    assert 0.8 == pytest.approx(found.hit_share)
    assert found.probability_from <= 0.8 < found.probability_to


def test_the_error_is_the_mean_distance_weighted_by_records() -> None:
    """Thirty that are too sure by 0.4, and ten that are right."""
    known = Reliability()
    known.add(rows(0.9, 30), [*["yes"] * 15, *["no"] * 15])
    known.add(rows(0.5, 10), [*["yes"] * 5, *["no"] * 5])
    assert 0.75 * 0.4 == pytest.approx(known.error)
    assert [10, 30] == [each.records for each in known.ranges]


def test_a_certainty_and_a_record_without_a_prediction_are_counted_rightly() -> None:
    """1.0 belongs to the last range, and no prediction to none."""
    known = Reliability()
    assert known.error is None
    known.add(MemberRows(["yes", None], [1.0, None]), ["yes", "yes"])
    assert [(1, 1.0)] == [(each.records, each.probability_to) for each in known.ranges]


def test_batches_of_any_size_lead_to_the_same_error() -> None:
    """A resumed run tells what an undisturbed one does."""
    labels: list[Label] = ["yes", "no", "yes", "yes", "no", "yes"]
    shares: list[float | None] = [0.9, 0.6, 0.7, 0.55, 0.8, 0.95]
    whole, parts = Reliability(), Reliability()
    whole.add(MemberRows(["yes"] * 6, shares), labels)
    for index, label in enumerate(labels):
        parts.add(MemberRows(["yes"], shares[index : index + 1]), [label])
    assert whole.error == parts.error
    assert whole.ranges == parts.ranges
