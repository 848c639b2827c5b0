"""Drift of unlabelled rows: a decision of its own, which claims nothing about errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from observability.drift import drift, evidently_adapter, unlabelled
from observability.drift.drift import ColumnDrift, DriftConfig, DriftReading, Kind


def make_column(score: float | None, name: str = "load", **changes: object) -> ColumnDrift:
    """A feature of numbers whose threshold is 0.1."""
    given = {
        "name": name,
        "role": "feature",
        "kind": "number",
        "method": "wasserstein",
        "score": score,
        "larger_is_drift": True,
        "threshold": 0.1,
        "enough": score is not None,
    }
    return ColumnDrift.model_validate({**given, **changes})


def make_reading(*columns: ColumnDrift, rows: int = 500) -> DriftReading:
    """A reading of these columns."""
    return DriftReading(reference_rows=1_000, current_rows=rows, columns=columns)


def test_columns_that_moved_are_a_yes_of_unknown_nature() -> None:
    """Whether errors rose needs labels; the rate of false alarms is beside it."""
    told = unlabelled.judge(make_reading(make_column(0.5)), 800, DriftConfig())
    assert ("unlabelled drift", True) == (told.question, told.yes)
    assert "of the 500 newest of 800 unlabelled rows: 1 of 1 features drifted" in told.because
    assert "chance alone says yes in 0.01 of such looks" in told.because
    assert "whether errors rose is not known without labels" in told.because
    assert ("unknown", 0.01, 800) == tuple(
        told.facts[key] for key in ("nature", "false_alarm_share", "waiting")
    )
    assert [] == [key for key in told.facts if key.startswith(("error_", "performance_"))]


def test_columns_that_stayed_are_a_no() -> None:
    """With the same words."""
    told = unlabelled.judge(make_reading(make_column(0.05)), 500, DriftConfig())
    assert (False, "no_drift", "none") == (told.yes, told.facts["outcome"], told.facts["nature"])


def test_what_is_unknown_is_no_sign_of_rest() -> None:
    """As in a drift check: a no that says so."""
    told = unlabelled.judge(make_reading(make_column(None)), 500, DriftConfig())
    assert (False, "not_enough_data") == (told.yes, told.facts["outcome"])
    few = unlabelled.judge(make_reading(make_column(0.5), rows=20), 20, DriftConfig())
    assert (False, "not_enough_data") == (few.yes, few.facts["outcome"])


def test_a_persons_threshold_has_no_known_rate() -> None:
    """It is not claimed for it."""
    config = DriftConfig(number_threshold=0.3)
    told = unlabelled.judge(make_reading(make_column(0.5)), 500, config)
    assert None is told.facts["false_alarm_share"]
    assert "is not known, with thresholds that a person named" in told.because


@pytest.mark.parametrize(
    ("recorded", "checked_at", "waiting", "expected"),
    [
        (1_000, 0, 200, True),
        (999, 0, 999, False),
        (1_000, 0, 199, False),
        (2_500, 1_600, 900, False),
    ],
)
def test_it_looks_after_so_many_predictions(
    recorded: int, checked_at: int, waiting: int, expected: bool
) -> None:
    """Every 1,000 by default, where enough of them wait."""
    assert expected == unlabelled.due(recorded, checked_at, waiting, DriftConfig())


def test_it_votes_as_a_drift_check_does() -> None:
    """The columns are judged by the same policy."""
    reading, config = make_reading(make_column(0.5), make_column(0.01, "other")), DriftConfig()
    assert drift.judge(reading, config).yes == unlabelled.judge(reading, 500, config).yes
    strict = DriftConfig(drifted_share=0.9)
    assert not unlabelled.judge(reading, 500, strict).yes


@pytest.mark.slow
def test_a_world_that_stays_is_a_yes_about_as_seldom_as_it_says() -> None:
    """Five hundred looks at four columns of chance, twenty from each of 25 references."""
    config, chance = DriftConfig(), np.random.default_rng(3)
    columns: dict[str, Kind] = {"a": "number", "b": "number", "c": "category"}
    watched = drift.watched(columns, label_kind="category", prediction="prediction")

    def frame(rows: int) -> pd.DataFrame:
        load = chance.normal(size=rows)
        said = np.where(load + chance.normal(size=rows) > 0, "up", "down")
        return pd.DataFrame(
            {
                "a": load,
                "b": chance.exponential(size=rows),
                "c": chance.choice(list("xyz"), rows, p=[0.6, 0.3, 0.1]).astype(object),
                "prediction": said.astype(object),
            }
        )

    found = 0
    for _ in range(25):
        reference = frame(1_000)
        limits = evidently_adapter.noise_thresholds(reference, frame(500), watched, config)
        for _ in range(20):
            reading = evidently_adapter.measure(reference, frame(500), watched, config, limits)
            found += unlabelled.judge(reading, 500, config).yes
    assert 0 < found <= 3 * config.column_false_alarms * 500
