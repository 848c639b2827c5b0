"""Makers for the power room's tests: each has one default that is cool, fresh and plausible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from power.core.device_readings import DeviceReading, DeviceSnapshot
from power.core.gate_config import GateConfig
from power.devices.device import Device
from power.devices.fake_nvml import FakeGpu, FakeNvml, Fault, FaultKind
from power.devices.trace import COLUMNS
from power.policy.gate import GateResult, GateState, judge

COOL_C, BETWEEN_C, HOT_C = 40.0, 15.0, 5.0
"""Margins at which a gate with the default limits opens, stays as it is, and closes."""


def make_reading(**overrides: Any) -> DeviceReading:
    """A cool reading of GPU-a at 0 s."""
    facts = {
        "uuid": "GPU-a",
        "read_at_s": 0.0,
        "temperature_c": 49.0,
        "memory_temperature_c": 55.0,
        "margin_c": COOL_C,
        "power_w": 150.0,
        "power_limit_w": 700.0,
        "utilization": 20.0,
        "throttle_reasons": "none",
    }
    return DeviceReading(**(facts | overrides))


def make_device(**overrides: Any) -> Device:
    """GPU-a at its highest limit, in a process that may set it."""
    facts = {
        "uuid": "GPU-a",
        "power_w": 150.0,
        "power_limit_w": 700.0,
        "power_limit_min_w": 200.0,
        "power_limit_max_w": 700.0,
        "energy_j": 5e6,
        "may_set_limit": True,
    }
    return Device(**(facts | overrides))


def make_survey(*readings: DeviceReading, **overrides: Any) -> DeviceSnapshot:
    """A survey that a present driver answered."""
    return DeviceSnapshot(
        **({"readings": readings, "driver": "present", "because": "test"} | overrides)
    )


def judge_one(
    reading: DeviceReading, state: GateState | None = None, now_s: float | None = None, **knobs: Any
) -> GateResult:
    """Judge one reading at its own moment, or at `now_s`."""
    moment_s = reading.read_at_s if now_s is None else now_s
    return judge(make_survey(reading), state or GateState(), GateConfig(**knobs), moment_s)


def make_gpu(uuid: str = "GPU-a", **overrides: Any) -> FakeGpu:
    """A stand-in for one cool H100; `faults` may be kinds alone."""
    faults = {name: make_fault(fault) for name, fault in overrides.pop("faults", {}).items()}
    return FakeGpu(uuid=uuid, faults=faults, **overrides)


def make_twin(*gpus: FakeGpu, **faults: FaultKind | Fault) -> FakeNvml:
    """A stand-in library with `gpus` (one by default), and faults by name of a function."""
    return FakeNvml(
        gpus=gpus or (make_gpu(),),
        faults={name: make_fault(fault) for name, fault in faults.items()},
    )


def make_fault(fault: FaultKind | Fault) -> Fault:
    """A fault from its kind."""
    return fault if isinstance(fault, Fault) else Fault(kind=fault)


def write_trace(path: Path, *rows: Mapping[str, object], header: str = ",".join(COLUMNS)) -> Path:
    """A trace file; a row is a cool one of GPU-a but for its overrides."""
    lines = [header]
    for number, row in enumerate(rows):
        cells: dict[str, object] = {
            "elapsed_s": number,
            "uuid": "GPU-a",
            "temperature_c": 49,
            "memory_temperature_c": 55,
            "margin_c": COOL_C,
            "power_w": 150,
            "power_limit_w": 700,
            "utilization": 20,
            "throttle_reasons": "none",
        }
        lines.append(",".join(str(cell) for cell in (cells | dict(row)).values()))
    path.write_text("\n".join(lines) + "\n")
    return path


def make_temperature(
    label: str = "Package id 0",
    current: float = 45.0,
    high: float | None = 100.0,
    critical: float | None = None,
) -> SimpleNamespace:
    """One sensor as psutil tells it; it tells each threshold as the other where one is missing."""
    return SimpleNamespace(
        label=label,
        current=current,
        high=critical if high is None else high,
        critical=high if critical is None else critical,
    )


class StandInPsutil:
    """What the sensors' door asks of psutil; an exception in place of an answer is raised."""

    def __init__(
        self,
        chips: Mapping[str, Sequence[Any]] | Exception,
        *,
        busy_percent: float | Exception = 30.0,
        clock_mhz: float | Exception | None = 2_600.0,
        memory: tuple[int, int] | Exception = (64_000, 48_000),
    ) -> None:
        self.chips = chips
        self._busy_percent, self._clock_mhz, self._memory = busy_percent, clock_mhz, memory

    def sensors_temperatures(self) -> Any:
        """By chip its sensors."""
        return _answer(self.chips)

    def cpu_percent(self, interval: None) -> Any:
        """Busy share since the last call."""
        return _answer(self._busy_percent)

    def cpu_freq(self) -> Any:
        """The clock, or None where it is not told."""
        clock_mhz = _answer(self._clock_mhz)
        return None if clock_mhz is None else SimpleNamespace(current=clock_mhz)

    def virtual_memory(self) -> Any:
        """What there is, and what is free."""
        total, available = _answer(self._memory)
        return SimpleNamespace(total=total, available=available)


def _answer(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer
