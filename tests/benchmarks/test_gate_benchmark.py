"""The closed loop's benchmark, at a tiny size: its line is whole, and its figures make sense."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import gate as benchmark

THROTTLING = (1, 22)


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """The figures of two plants whose jobs are dense and heavy enough to throttle."""
    runs = [benchmark.one_plant(seed, 8) for seed in THROTTLING]
    return benchmark.closed_loop(runs) | benchmark.forecast_errors(THROTTLING)


def test_it_prints_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With what was asked, and every figure of the page."""
    benchmark.main(["--plants", "1", "--jobs", "1"])
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert ("gate", 1, 1, 0) == (told["benchmark"], told["plants"], told["jobs"], told["first"])
    assert {"policies", "forecast_rmse_60_s_c", "forecast_rmse_300_s_c", "learn_us"} <= set(told)


def test_each_policy_is_held_against_no_gate_and_the_oracle(figures: dict[str, Any]) -> None:
    """The two yardsticks are 1 against themselves, and the oracle never throttles."""
    told = figures["policies"]
    assert (1.0, 1.0) == (
        told["no gate"]["energy_over_no_gate"],
        told["oracle"]["makespan_over_oracle"],
    )
    assert (0.0, 0.0) == (told["no gate"]["throttled_less"], told["oracle"]["throttled_s"])
    assert 2 == figures["plants_that_throttle"]
    assert told["forecast"]["throttled_s"] < told["hysteresis"]["throttled_s"]
    assert told["cap only"]["energy_over_no_gate"] < 1


def test_the_forecast_is_good_where_sensors_are_a_degree_off(figures: dict[str, Any]) -> None:
    """Below the aim of 1.5 degrees at both horizons, over enough checks."""
    assert 0.3 < figures["forecast_rmse_60_s_c"] < 1.5
    assert 0.3 < figures["forecast_rmse_300_s_c"] < 1.5
    assert figures["forecast_checks_300_s"] > 300
    assert figures["job_margin_rmse_c"] < 2
