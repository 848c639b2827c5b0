"""Alarms against the truth, and detectors over errors."""

from __future__ import annotations

import numpy as np
import pytest

from flows.laboratory import drift_trial
from flows.laboratory.streams import Drift


@pytest.mark.parametrize(
    ("alarms", "drifts", "expected"),
    [
        ([], [], ([], 0, 10_000)),
        ([500], [], ([], 1, 10_000)),
        ([], [Drift(5_000)], ([None], 0, 9_000)),
        ([5_000], [Drift(5_000)], ([None], 1, 9_000)),
        ([5_001], [Drift(5_000)], ([1], 0, 9_000)),
        ([6_000, 6_001], [Drift(5_000)], ([1_000], 1, 9_000)),
        ([5_200, 5_900], [Drift(5_000)], ([200], 0, 9_000)),
        ([6_700], [Drift(5_000, 1_000)], ([1_700], 0, 8_000)),
        ([5_700], [Drift(5_000), Drift(5_500)], ([None, 200], 0, 8_500)),
        ([9_900], [Drift(9_500)], ([400], 0, 9_500)),
    ],
)
def test_an_alarm_is_about_a_change_or_false(
    alarms: list[int], drifts: list[Drift], expected: tuple[list[int | None], int, int]
) -> None:
    """The first one in time tells the delay; later ones of the same change are not false."""
    assert expected == drift_trial.against_truth(alarms, drifts, 10_000)


def test_an_alarm_that_goes_on_is_one() -> None:
    """A champion that still does not know the change is no second false alarm; a new one is."""
    alarms = [2_100, 3_100, 4_100, 6_100, 7_100]
    drifts = [Drift(2_000, 0)]
    assert ([100], 1, 9_000) == drift_trial.against_truth(alarms, drifts, 10_000, lasts=1_000)
    assert ([100], 4, 9_000) == drift_trial.against_truth(alarms, drifts, 10_000)


def test_rates_and_delays_are_over_all_trials() -> None:
    """Two seeds of a stream are one row for each method."""
    trials = [
        {
            "stream": "s",
            "kind": "abrupt",
            "records": 5_000,
            "drifts": [[2_000, 0]],
            "checked_every": 1_000,
            "alarms": {"drift.judge": alarms, "ADWIN": []},
        }
        for alarms in ([2_100], [2_300, 4_500])
    ]
    ours, other = drift_trial.judged(trials)
    assert (2, 2, 0, 200.0, 1) == tuple(
        ours[name] for name in ("changes", "seen", "missed", "median_delay", "false_alarms")
    )
    assert ours["false_per_20000"] == pytest.approx(20_000 / 8_000)
    assert (0, 2, None) == (other["seen"], other["missed"], other["median_delay"])


@pytest.mark.parametrize("name", list(drift_trial.detectors()))
def test_a_detector_hears_an_error_that_rises_and_none_that_falls(name: str) -> None:
    """A learner that improves is no alarm."""
    chance = np.random.default_rng(0)
    low, high = (chance.random(2_000) < 0.1) * 1.0, (chance.random(2_000) < 0.6) * 1.0

    def fires(first: object, then: object) -> list[int]:
        detector, yes_or_no = drift_trial.detectors()[name]
        return drift_trial.heard(detector, np.concatenate([first, then]).tolist(), yes_or_no)

    rising = fires(low, high)
    assert any(2_000 < place < 2_500 for place in rising)
    assert not any(2_100 < place for place in fires(high, low))
