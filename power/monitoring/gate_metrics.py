"""The figures of the gate and its devices, as Prometheus samples. Pure."""

from __future__ import annotations

from observability.metrics import definitions
from observability.metrics.samples import Sample, sample
from power.core.device_readings import DeviceReading, with_effective_margin
from power.core.gate_config import GateConfig
from power.monitoring.device_monitor import MonitorView
from power.policy.gate import DeviceState


def collect(pipeline: str, view: MonitorView, config: GateConfig, now_s: float) -> list[Sample]:
    """The samples of a view that was taken at `now_s`, in seconds since 1970.

    What is unknown of a device has no sample, and its `_readable` is 0.
    """
    decision = view.judged.decision
    cause = None if decision.yes else decision.facts.get("cause") or "unknown"
    present = view.survey.driver == "present"
    return [
        *sample(definitions.DRIVER_READABLE, present, pipeline, config.reads_from),
        *sample(definitions.GATE_OPEN, decision.yes, pipeline),
        *([] if cause is None else sample(definitions.GATE_CLOSED, 1, pipeline, cause)),
        *(each for state in view.judged.state.devices for each in _state(state)),
        *(
            each
            for reading in view.survey.readings
            for each in _reading(with_effective_margin(reading, config), view, now_s)
        ),
        *_forecasts(view),
    ]


def _state(state: DeviceState) -> list[Sample]:
    cause = None if state.open else state.cause or "unknown"
    return [
        *sample(definitions.DEVICE_OPEN, state.open, state.uuid),
        *([] if cause is None else sample(definitions.DEVICE_CLOSED, 1, state.uuid, cause)),
        *sample(definitions.DISCARDED, state.discarded, state.uuid),
    ]


def _reading(reading: DeviceReading, view: MonitorView, now_s: float) -> list[Sample]:
    """The samples of one device; of what could not be read only that."""
    uuid, readable = reading.uuid, reading.unreadable is None
    margin_c = reading.margin_c if readable else None
    known = [
        *sample(definitions.DEVICE_READABLE, readable, uuid),
        *sample(definitions.MARGIN_READABLE, margin_c is not None, uuid),
        *sample(definitions.DEVICE_READ_AT, now_s - (view.now_s - reading.read_at_s), uuid),
    ]
    if not readable:
        return known
    values = {
        definitions.MARGIN: margin_c,
        definitions.TEMPERATURE: reading.temperature_c,
        definitions.MEMORY_TEMPERATURE: reading.memory_temperature_c,
        definitions.POWER: reading.power_w,
        definitions.POWER_LIMIT: reading.power_limit_w,
        definitions.ENERGY: reading.energy_j,
    }
    return known + [
        each for metric, value in values.items() for each in sample(metric, value, uuid)
    ]


def _forecasts(view: MonitorView) -> list[Sample]:
    """The error of the forecasts of each device, as far as they were checked."""
    return [
        each
        for uuid, known in view.known.items()
        for error in known.errors
        for each in (
            *sample(definitions.FORECAST_ERROR, error.rmse_c, uuid, f"{error.horizon_s:g}"),
            *sample(definitions.FORECAST_CHECKS, error.checks, uuid, f"{error.horizon_s:g}"),
        )
    ]
