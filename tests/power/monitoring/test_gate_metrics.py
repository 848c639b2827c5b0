"""The figures of the gate: what is unknown is absent, and its `_readable` is 0."""

from __future__ import annotations

import pytest

from observability.metrics.samples import Sample
from power.core.device_readings import DeviceReading, DeviceSnapshot
from power.core.gate_config import GateConfig
from power.forecast.forecast import ForecastErrors, ThermalState
from power.monitoring import gate_metrics
from power.monitoring.device_monitor import MonitorView
from power.policy import gate
from power.policy.gate import GateState
from tests.power.makers import COOL_C, HOT_C, make_reading, make_survey

NOW_S = 1_700_000_000.0


def figures(
    *readings: DeviceReading,
    survey: DeviceSnapshot | None = None,
    known: dict[str, ThermalState] | None = None,
    **knobs: object,
) -> dict[str, float]:
    """The values by name and the last label, of a view at 10 s on the gate's clock."""
    config = GateConfig.model_validate(knobs)
    seen = survey or make_survey(*readings)
    judged = gate.judge(seen, GateState(), config, 10.0)
    view = MonitorView(seen, judged, known or {}, 10.0)
    return {name(each): each.value for each in gate_metrics.collect("small", view, config, NOW_S)}


def name(sample: Sample) -> str:
    """A short name of a sample, for tests of one device."""
    return f"{sample.metric.name.removeprefix('thermodrift_')}:{sample.labels[-1]}"


def test_a_cool_device_is_told_with_all_that_it_reports() -> None:
    """Margin, temperatures, power and its limit, energy, when it was read, and that it is open."""
    found = figures(make_reading(read_at_s=8.0, energy_j=5e6))
    assert {
        "driver_readable:nvml": 1.0,
        "gate_open:small": 1.0,
        "device_gate_open:GPU-a": 1.0,
        "device_discarded_values:GPU-a": 0.0,
        "device_readable:GPU-a": 1.0,
        "device_margin_readable:GPU-a": 1.0,
        "device_read_timestamp_seconds:GPU-a": NOW_S - 2.0,
        "device_margin_celsius:GPU-a": COOL_C,
        "device_temperature_celsius:GPU-a": 49.0,
        "device_memory_temperature_celsius:GPU-a": 55.0,
        "device_power_watts:GPU-a": 150.0,
        "device_power_limit_watts:GPU-a": 700.0,
        "device_energy_joules_total:GPU-a": 5e6,
    } == found


def test_a_hot_device_names_the_cause() -> None:
    """Of the gate, and of the device."""
    found = figures(make_reading(read_at_s=8.0, margin_c=HOT_C))
    assert (0.0, 1.0) == (found["gate_open:small"], found["gate_closed_info:too_warm"])
    assert (0.0, 1.0) == (
        found["device_gate_open:GPU-a"],
        found["device_gate_closed_info:too_warm"],
    )


def test_a_margin_that_is_unknown_is_absent_and_never_zero() -> None:
    """The device answers, and says nothing to count a margin from."""
    found = figures(make_reading(read_at_s=8.0, margin_c=None))
    assert "device_margin_celsius:GPU-a" not in found
    assert (1.0, 0.0) == (found["device_readable:GPU-a"], found["device_margin_readable:GPU-a"])
    assert 49.0 == found["device_temperature_celsius:GPU-a"]


def test_a_margin_that_the_gate_counts_itself_is_told() -> None:
    """From the configured maximum, as the gate does."""
    found = figures(make_reading(read_at_s=8.0, margin_c=None), max_temperature_c=80.0)
    assert 31.0 == found["device_margin_celsius:GPU-a"]


def test_a_device_that_cannot_be_read_has_no_value_at_all() -> None:
    """Also where its reading still carries old ones."""
    found = figures(make_reading(read_at_s=8.0, unreadable="it fell off the bus"))
    assert 0.0 == found["device_readable:GPU-a"] == found["device_margin_readable:GPU-a"]
    assert [] == [each for each in found if "celsius" in each or "watts" in each]


@pytest.mark.parametrize("driver", ["absent", "unreadable"])
def test_without_a_driver_there_is_no_device(driver: str) -> None:
    """Only that, and why the gate is closed."""
    survey = DeviceSnapshot.model_validate({"driver": driver, "because": "test"})
    found = figures(survey=survey, no_driver="wait")
    assert 0.0 == found["driver_readable:nvml"] == found["gate_open:small"]
    assert [] == [each for each in found if each.startswith("device")]


def test_the_error_of_forecasts_is_told_once_one_was_checked() -> None:
    """By horizon: the root of the mean square."""
    errors = (
        ForecastErrors(horizon_s=60.0, checks=4, mean_square_c2=2.25),
        ForecastErrors(horizon_s=300.0),
    )
    found = figures(known={"GPU-a": ThermalState(errors=errors)})
    assert 1.5 == found["forecast_error_celsius:60"]
    assert (4.0, 0.0) == (found["forecast_checks_total:60"], found["forecast_checks_total:300"])
    assert "forecast_error_celsius:300" not in found
