"""The margin over a fit, as people are shown it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flows.config import pipeline
from flows.deployed import retrain_run
from flows.deployed.flow_run import DeployedRun
from flows.deployed.retrain_run import AttemptResult
from flows.run.progress import Display
from flows.run.shutdown import Stop
from flows.stack import prefect_client
from power.core.device_readings import DeviceReading
from power.core.gate_config import GateConfig
from power.monitoring.device_monitor import MonitorView
from power.monitoring.thermal_trace import ThermalTrace
from power.policy import gate
from power.policy.gate import GateState
from tests.flows.makers import make_pipeline
from tests.power.makers import make_reading, make_survey


def heard(*readings: DeviceReading, uuid: str = "GPU-a") -> ThermalTrace:
    """A course of a fit that was admitted at 100 s, and what it heard."""
    course = ThermalTrace(uuid, GateConfig(max_temperature_c=85.0), 100.0)
    for reading in readings:
        survey = make_survey(reading)
        judged = gate.judge(survey, GateState(), GateConfig(), reading.read_at_s)
        course.on_snapshot(MonitorView(survey, judged, {}, reading.read_at_s))
    return course


def test_a_reading_that_is_told_again_and_another_device_are_no_moments() -> None:
    """One moment for each reading of the device that the fit runs on."""
    first, later = make_reading(read_at_s=101.0), make_reading(read_at_s=103.0, margin_c=30.0)
    other = make_reading(uuid="GPU-b", read_at_s=102.0)
    moments = heard(first, first, other, later, first).samples()
    assert [(1.0, 40.0), (3.0, 30.0)] == [(each.seconds, each.margin_c) for each in moments]


def test_the_margin_is_the_one_that_the_gate_goes_by_and_unknown_stays_unknown() -> None:
    """Counted from the configured maximum where the device tells none."""
    counted = make_reading(read_at_s=101.0, margin_c=None, temperature_c=60.0)
    unknown = make_reading(read_at_s=102.0, margin_c=None, temperature_c=None, power_w=None)
    moments = heard(counted, unknown).samples()
    assert [(25.0, 60.0), (None, None)] == [(m.margin_c, m.temperature_c) for m in moments]


def test_a_long_course_is_thinned_and_keeps_its_ends_and_its_lowest_margin() -> None:
    """However long it was, it fits on a page, and the worst moment is on it."""
    readings = [
        make_reading(read_at_s=100.0 + second, margin_c=3.0 if second == 777 else 40.0)
        for second in range(1_000)
    ]
    moments = heard(*readings).samples(most=60)
    assert len(moments) <= 60
    assert (0.0, 999.0) == (moments[0].seconds, moments[-1].seconds)
    assert 3.0 == min(each.margin_c or 0.0 for each in moments)
    assert sorted(moments) == list(moments)


def test_the_margin_over_a_run_is_shown_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of moments, the lowest margin above it; a fit on no device shows nothing."""
    shown: list[tuple[object, ...]] = []
    monkeypatch.setattr(prefect_client, "show", lambda *told: shown.append(told))
    file = pipeline.read(make_pipeline(tmp_path, 10, name="two_words"))
    job = DeployedRun(file, tmp_path, "run-1", Stop(), Display(file.name))
    course = heard(make_reading(read_at_s=101.0), make_reading(read_at_s=105.0, margin_c=12.5))
    tried = AttemptResult(
        "request-1", "Promoted", "better", overdue=False, samples=course.samples()
    )
    retrain_run.show_thermal_trace(job, tried)
    retrain_run.show_thermal_trace(job, replace(tried, samples=()))
    ((run_id, key, kind, table, told),) = shown
    assert ("run-1", "margin-two-words", "table") == (run_id, key, kind)
    assert [1.0, 5.0] == [row["seconds"] for row in json.loads(str(table))]
    assert "12.5 °C at the lowest" in str(told)


def test_nothing_heard_is_nothing_told() -> None:
    """A fit on no device has no course."""
    assert () == heard().samples()
