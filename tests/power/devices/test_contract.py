"""The contract that every device adapter keeps: NVML, the CPU's sensors and recorded traces.

A new adapter is one more line of `ADAPTERS`. Where this machine has a GPU or sensors that can be
read, the real libraries are held to it too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from power.core import device_readings
from power.core.device_readings import DeviceReading, DeviceSnapshot
from power.core.gate_config import GateConfig
from power.devices.cpu_sensors import CpuSensorAdapter
from power.devices.device import DeviceAdapter
from power.devices.nvml import NvmlAdapter
from power.devices.trace import Trace
from power.policy import gate
from power.policy.gate import GateState
from tests.power.makers import StandInPsutil, make_gpu, make_temperature, make_twin, write_trace

BOUND_S = 30.0
"""Longer than anything here takes on a busy machine; a test that reaches it has failed."""
FRESH_S = 60.0
"""Longer than a reading counts, by the gate's defaults."""


class Adapter(NamedTuple):
    """What a test sees of an adapter. `live` is None where there is no device behind it."""

    survey: Callable[[float], DeviceSnapshot]
    clock: Callable[[], float]
    live: DeviceAdapter | None


@contextmanager
def watched(live: DeviceAdapter) -> Iterator[Adapter]:
    """An adapter that reads devices, if there are any."""
    with live:
        survey = live.survey(time.monotonic())
        assert ("present" == survey.driver) == bool(survey.readings)
        if not survey.readings:
            pytest.skip(f"no such device can be read here: {survey.because}")
        yield Adapter(live.survey, time.monotonic, live)


@contextmanager
def replayed(folder: Path) -> Iterator[Adapter]:
    """A trace of two devices; a second passes between two looks at its clock."""
    rows = [{"elapsed_s": at, "uuid": uuid} for at in range(9) for uuid in ("GPU-a", "GPU-b")]
    trace = Trace.load(write_trace(folder / "trace.csv", *rows))
    seconds = count(0.0)
    yield Adapter(lambda now_s: trace.survey(now_s - 1, now_s), lambda: next(seconds), None)


ADAPTERS = {
    "nvml over a fake library": lambda _: watched(
        NvmlAdapter(
            twin=make_twin(make_gpu("GPU-a"), make_gpu("GPU-b")),
            poll_s=0.02,
            first_answer_s=BOUND_S,
        )
    ),
    "nvml of this machine": lambda _: watched(NvmlAdapter(poll_s=0.02, first_answer_s=BOUND_S)),
    "sensors over a fake psutil": lambda folder: watched(
        CpuSensorAdapter(
            tool=StandInPsutil(
                {"coretemp": [make_temperature(), make_temperature("Package id 1")]}
            ),
            powercap=folder,
            poll_s=0.02,
            first_answer_s=BOUND_S,
        )
    ),
    "sensors of this machine": lambda _: watched(
        CpuSensorAdapter(poll_s=0.02, first_answer_s=BOUND_S)
    ),
    "a recorded trace": replayed,
}


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Adapter]:
    """Every adapter in turn."""
    with ADAPTERS[request.param](tmp_path) as opened:
        yield opened


@pytest.fixture
def live(adapter: Adapter) -> DeviceAdapter:
    """Every adapter in turn that reads devices."""
    if adapter.live is None:
        pytest.skip("a recording has no device that could be asked")
    return adapter.live


def test_a_survey_tells_each_device_once_and_plausibly(adapter: Adapter) -> None:
    """Names are unique, moments are not of the future, numbers are plausible or unknown."""
    now_s = adapter.clock()
    survey = adapter.survey(now_s)
    assert survey.because
    assert survey.readings
    uuids = [reading.uuid for reading in survey.readings]
    assert sorted(set(uuids)) == sorted(uuids)
    for reading in survey.readings:
        assert now_s - BOUND_S < reading.read_at_s <= now_s
        for name, (least, most) in device_readings.PLAUSIBLE.items():
            value = getattr(reading, name)
            assert value is None or least <= value <= most


def test_news_are_newer_and_repetitions_are_the_same(adapter: Adapter) -> None:
    """Each device's moments only go forward, and a reading told again is equal."""
    seen: dict[str, DeviceReading] = {}
    for _ in range(5):
        assert adapter.live is None or adapter.live.wait_for_news(BOUND_S)
        for reading in adapter.survey(adapter.clock()).readings:
            before = seen.get(reading.uuid, reading)
            assert before == reading or before.read_at_s < reading.read_at_s
            seen[reading.uuid] = reading
    assert seen


def test_it_can_be_judged(adapter: Adapter) -> None:
    """The gate takes the survey as it is, and says why."""
    now_s = adapter.clock()
    survey = adapter.survey(now_s)
    decision, state = gate.judge(survey, GateState(), GateConfig(), now_s)
    assert decision.because
    told = {reading.uuid for reading in survey.readings}
    assert told == {each.uuid for each in state.devices}


def test_what_is_over_tells_nothing_and_opens_no_gate(adapter: Adapter) -> None:
    """An adapter that was closed and a trace past its end leave no reading that still counts."""
    now_s = adapter.clock()
    _, state = gate.judge(adapter.survey(now_s), GateState(), GateConfig(), now_s)
    if adapter.live is not None:
        adapter.live.__exit__(None, None, None)
    later_s = now_s + FRESH_S + 1
    survey = adapter.survey(later_s)
    assert () == survey.readings
    assert not gate.judge(survey, state, GateConfig(), later_s).decision.yes


def test_what_a_device_tells_of_itself_fits_together(live: DeviceAdapter) -> None:
    """It is the survey's device; margin with what it rests on, a limit within its range."""
    survey = live.survey(time.monotonic())
    assert [reading.uuid for reading in survey.readings] == [each.uuid for each in live.devices()]
    for device in live.devices():
        assert (device.margin_c is None) == (device.margin_source == "unknown")
        assert (device.margin_source == "threshold") <= (device.threshold_c is not None)
        least_w, most_w = device.power_limit_min_w, device.power_limit_max_w
        assert least_w is None or most_w is None or 0 < least_w <= most_w
        used, total = device.memory_used_bytes, device.memory_total_bytes
        assert used is None or total is None or 0 <= used <= total
        assert all(each.what and each.why and each.remedy for each in device.missing)
