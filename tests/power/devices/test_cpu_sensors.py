"""The door to the CPU's sensors: which chip speaks, what it is counted against, what lacks."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil  # type: ignore[import-untyped]  # it publishes no types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from power.core import device_readings
from power.core.device_readings import DeviceReading
from power.core.gate_config import GateConfig
from power.devices.cpu_sensors import CpuSensorAdapter, meters, packages
from power.devices.device import Device
from power.policy import gate
from power.policy.gate import GateState
from tests.power.makers import StandInPsutil, make_temperature

BOUND_S = 60.0
"""Longer than anything here takes; a test that reaches it has failed."""


class Clock:
    """A clock that moves when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """A clock at 100 s."""
    return Clock()


def make_rapl(folder: Path, number: int = 0, **files: object) -> Path:
    """One package's counter as the kernel shows it; a file that is None is not there."""
    here = folder / f"intel-rapl:{number}"
    here.mkdir(parents=True, exist_ok=True)
    told: dict[str, object] = {
        "name": f"package-{number}",
        "energy_uj": 5_000_000,
        "max_energy_range_uj": 100_000_000,
        "constraint_0_power_limit_uw": 125_000_000,
        "constraint_0_max_power_uw": 165_000_000,
    }
    for name, value in (told | files).items():
        if value is None:
            (here / name).unlink(missing_ok=True)
        else:
            (here / name).write_text(f"{value}\n")
    return here


@pytest.fixture
def door_over(clock: Clock, tmp_path: Path) -> Callable[..., CpuSensorAdapter]:
    """A door to stand-in sensors that reads often, so that no test waits long."""

    def door(tool: Any, poll_s: float = 0.01, first_answer_s: float = BOUND_S) -> CpuSensorAdapter:
        return CpuSensorAdapter(
            tool=tool, powercap=tmp_path, clock=clock, poll_s=poll_s, first_answer_s=first_answer_s
        )

    return door


def read_one(door: CpuSensorAdapter, clock: Clock) -> Device:
    """The one package that a first survey shows."""
    with door:
        assert "present" == door.survey(clock()).driver
        (device,) = door.devices()
    return device


def missing_of(device: Device) -> dict[str, str]:
    """What was not told, with the remedy."""
    return {each.what: each.remedy for each in device.missing}


def test_a_package_is_a_device_with_the_chips_own_threshold(
    door_over: Callable[..., CpuSensorAdapter], clock: Clock, tmp_path: Path
) -> None:
    """Temperature, margin from the source `threshold`, energy, limit, clock and memory."""
    make_rapl(tmp_path)
    chips = {"nvme": [make_temperature("Composite", 80.0)], "coretemp": [make_temperature()]}
    device = read_one(door_over(StandInPsutil(chips)), clock)
    expected = {
        "uuid": "cpu-0",
        "name": "coretemp, Package id 0",
        "temperature_c": 45.0,
        "threshold_c": 100.0,
        "margin_c": 55.0,
        "margin_source": "threshold",
        "energy_j": 5.0,
        "power_w": None,
        "power_limit_w": 125.0,
        "power_limit_max_w": 165.0,
        "clock_mhz": 2_600.0,
        "memory_total_bytes": 64_000,
        "memory_used_bytes": 16_000,
        "discarded": 0,
    }
    assert expected == device.model_dump(include=set(expected))
    assert {"throttle_reasons": "use the margin"} == missing_of(device)


@pytest.mark.parametrize(
    ("entry", "margin_c", "odd"),
    [
        ({"high": 80.0, "critical": 100.0}, 35.0, 0),
        ({"high": 100.0, "critical": 90.0}, 45.0, 0),
        ({"high": None, "critical": 95.0}, 50.0, 0),
        ({"high": None, "critical": None}, None, 0),
        ({"high": 0.0, "critical": 95.0}, 50.0, 1),
        ({"high": 65_261.8, "critical": None}, None, 1),
        ({"current": 644_245_923.0}, None, 1),
        ({"current": math.nan}, None, 1),
    ],
)
def test_the_lower_threshold_counts_and_an_impossible_one_does_not(
    entry: dict[str, Any], margin_c: float | None, odd: int
) -> None:
    """Where one of them is a shutdown, the other is not; what cannot be is unknown and counted."""
    (package,) = packages({"coretemp": [make_temperature(**entry)]})
    known = None not in (package.temperature_c, package.threshold_c)
    margin = (package.threshold_c or 0) - (package.temperature_c or 0) if known else None
    assert (margin_c, odd) == (margin, package.odd)


@pytest.mark.parametrize(
    ("chips", "expected"),
    [
        ({}, []),
        ({"nvme": [make_temperature("Composite")], "coretemp": []}, []),
        # Intel labels each package, and its cores after it.
        (
            {
                "coretemp": [
                    make_temperature("Package id 0", 50.0),
                    make_temperature("Core 0", 49.0),
                    make_temperature("Package id 1", 60.0),
                    make_temperature("Core 0", 99.0),
                ]
            },
            [("coretemp, Package id 0", 0, 50.0), ("coretemp, Package id 1", 1, 60.0)],
        ),
        # AMD's chip tells a row per socket.
        (
            {
                "k10temp": [
                    make_temperature("Tctl", 50.0, None),
                    make_temperature("Tccd1", 55.0, None),
                    make_temperature("Tctl", 40.0, None),
                    make_temperature("Tccd1", 39.0, None),
                ]
            },
            [("k10temp, Tccd1", 0, 55.0), ("k10temp, Tctl", 1, 40.0)],
        ),
        # A board's zones have no labels: the one closest to its threshold speaks.
        (
            {"acpitz": [make_temperature("", 70.0, 120.0), make_temperature("", 60.0, 90.0)]},
            [("acpitz", 0, 60.0)],
        ),
        # A chip of the CPU comes before a zone of the board.
        (
            {"acpitz": [make_temperature("")], "cpu_thermal": [make_temperature("", 47.0)]},
            [("cpu_thermal", 0, 47.0)],
        ),
        # A sensor that says nonsense does not speak for the others.
        (
            {"cpu_thermal": [make_temperature("a", -273.0), make_temperature("b", 44.0)]},
            [("cpu_thermal, b", 0, 44.0)],
        ),
    ],
)
def test_each_kind_of_chip_is_read_as_what_it_is(
    chips: dict[str, list[Any]], expected: list[tuple[str, int, float]]
) -> None:
    """Which chip, how many packages, and which of its sensors speaks for each."""
    found = [(each.name, each.number, each.temperature_c) for each in packages(chips)]
    assert expected == found


@given(
    st.lists(
        st.builds(
            SimpleNamespace,
            label=st.sampled_from(["", "Tctl", "Core 0", "Package id 0", None]),
            current=st.floats(),
            high=st.none() | st.floats(),
            critical=st.none() | st.floats(),
        ),
        min_size=1,
    )
)
def test_whatever_sensors_say_a_package_is_plausible_or_unknown(entries: list[Any]) -> None:
    """No number beyond the gate's bounds comes through, and each that was left out is counted."""
    for chip in ("coretemp", "k10temp"):
        found = packages({chip: entries})
        assert found
        for each in found:
            assert each.temperature_c is None or -50 <= each.temperature_c <= 150
            assert each.threshold_c is None or 40 <= each.threshold_c <= 130
        finite = all(-50 <= each.current <= 150 for each in entries)
        assert finite or any(each.odd for each in found) or "Package" in str(entries)


def test_without_a_threshold_the_configured_maximum_stands_in(
    door_over: Callable[..., CpuSensorAdapter], clock: Clock
) -> None:
    """The margin's source is unknown at the door, with the remedy; the gate uses the maximum."""
    tool = StandInPsutil({"k10temp": [make_temperature("Tctl", 61.0, None)]})
    device = read_one(door_over(tool), clock)
    assert ("unknown", None) == (device.margin_source, device.margin_c)
    assert "set max_temperature_c in [gate]" == missing_of(device)["margin_c"]
    reading = device.reading(0.0)
    assert (29.0, "maximum") == device_readings.margin(reading, GateConfig(max_temperature_c=90))


def test_power_is_the_counter_over_time_and_a_full_counter_goes_on(tmp_path: Path) -> None:
    """Watts from the second reading on; where the counter begins anew, the energy goes on."""
    make_rapl(tmp_path, energy_uj=90_000_000)
    (meter,) = meters(tmp_path)
    first, _ = meter.read(10.0)
    make_rapl(tmp_path, energy_uj=98_000_000)
    second, _ = meter.read(12.0)
    make_rapl(tmp_path, energy_uj=3_000_000)
    third, _ = meter.read(13.0)
    assert (90.0, None) == (first["energy_j"], first.get("power_w"))
    assert (98.0, 4.0) == (second["energy_j"], second["power_w"])
    assert (103.0, 5.0) == (third["energy_j"], third["power_w"])


@pytest.mark.parametrize(
    "files", [{"energy_uj": None}, {"energy_uj": "n/a"}, {"energy_uj": -1}], ids=str
)
def test_a_counter_that_cannot_be_read_is_missing_with_its_remedy(
    tmp_path: Path, files: dict[str, Any]
) -> None:
    """It is root's by default; the limit beside it is told all the same."""
    make_rapl(tmp_path, **files)
    (meter,) = meters(tmp_path)
    told, (lacks,) = meter.read(0.0)
    assert (125.0, True) == (told["power_limit_w"], "energy_j" not in told)
    assert "let this user read" in lacks.remedy


def test_only_whole_packages_are_metered(tmp_path: Path) -> None:
    """A part of a package, or a folder without a name, would be counted twice or as nothing."""
    make_rapl(tmp_path, 1)
    make_rapl(tmp_path, 2, name="psys")
    make_rapl(tmp_path, 3, name=None)
    assert [1] == [meter.number for meter in meters(tmp_path)]
    assert [] == meters(tmp_path / "nowhere")


def test_without_a_counter_energy_is_missing(
    door_over: Callable[..., CpuSensorAdapter], clock: Clock
) -> None:
    """The kernel shows none, and the temperature is told all the same."""
    device = read_one(door_over(StandInPsutil({"coretemp": [make_temperature()]})), clock)
    assert "energy_j, power_w" in missing_of(device)
    assert 55.0 == device.margin_c


def test_what_psutil_cannot_tell_is_unknown_and_the_rest_stands(
    door_over: Callable[..., CpuSensorAdapter], clock: Clock
) -> None:
    """Each question by itself."""
    tool = StandInPsutil(
        {"coretemp": [make_temperature()]},
        busy_percent=OSError("no /proc/stat"),
        clock_mhz=NotImplementedError(),
        memory=psutil.Error(),
    )
    device = read_one(door_over(tool), clock)
    assert (None, None, None) == (device.utilization, device.clock_mhz, device.memory_used_bytes)
    assert 55.0 == device.margin_c


@pytest.mark.parametrize("clock_mhz", [None, 0.0])
def test_a_clock_that_is_not_told_is_unknown(
    door_over: Callable[..., CpuSensorAdapter], clock: Clock, clock_mhz: float | None
) -> None:
    """Zero megahertz is no clock."""
    tool = StandInPsutil({"coretemp": [make_temperature()]}, clock_mhz=clock_mhz)
    assert read_one(door_over(tool), clock).clock_mhz is None


def test_how_busy_it_is_is_known_from_the_second_reading_on(
    door_over: Callable[..., CpuSensorAdapter], clock: Clock
) -> None:
    """The first answer is about no time at all."""
    with door_over(StandInPsutil({"coretemp": [make_temperature()]})) as door:
        assert door.survey(clock()).readings[0].utilization is None
        clock.now_s += 1.0
        assert 30.0 == until(door, clock, lambda each: each.utilization is not None).utilization


def until(
    door: CpuSensorAdapter, clock: Clock, wanted: Callable[[DeviceReading], bool]
) -> DeviceReading:
    """Survey after survey until the one reading is as wanted."""
    ends_s = time.monotonic() + BOUND_S
    while not wanted(reading := door.survey(clock()).readings[0]):
        assert time.monotonic() < ends_s, reading
        door.wait_for_news(0.5)
    return reading


@pytest.mark.parametrize("chips", [{}, {"nvme": [make_temperature()]}])
def test_a_host_with_nothing_to_read_says_so(
    door_over: Callable[..., CpuSensorAdapter], clock: Clock, chips: dict[str, list[Any]]
) -> None:
    """Absent, with what was found instead; `no_driver` then decides."""
    with door_over(StandInPsutil(chips)) as door:
        survey = door.survey(clock())
    assert ("absent", ()) == (survey.driver, survey.readings)
    assert f"chips: {', '.join(chips) or 'none'}" in survey.because
    waits = GateConfig(source="cpu", no_driver="wait")
    decision = gate.judge(survey, GateState(), waits, clock()).decision
    assert (False, True) == (decision.yes, "no CPU sensor" in decision.because)


def test_a_platform_whose_psutil_tells_no_temperatures_has_none(
    door_over: Callable[..., CpuSensorAdapter], clock: Clock
) -> None:
    """On macOS the function is not even there."""
    with door_over(SimpleNamespace()) as door:
        assert "absent" == door.survey(clock()).driver


def test_sensors_that_raise_are_unreadable(
    door_over: Callable[..., CpuSensorAdapter], clock: Clock
) -> None:
    """They are there and do not answer."""
    with door_over(StandInPsutil(OSError("input/output error"))) as door:
        survey = door.survey(clock())
    assert ("unreadable", True) == (survey.driver, "input/output error" in survey.because)


@pytest.mark.parametrize("chips", [{}, OSError("gone")])
def test_sensors_that_go_away_close_the_gate_at_once(
    door_over: Callable[..., CpuSensorAdapter], clock: Clock, chips: Any
) -> None:
    """What was there before is not absent: its reading is unknown, long before it would be old."""
    tool = StandInPsutil({"coretemp": [make_temperature()]})
    limits = GateConfig(source="cpu")
    with door_over(tool) as door:
        decision, state = gate.judge(door.survey(clock()), GateState(), limits, clock())
        assert decision.yes
        tool.chips = chips
        clock.now_s += 1.0
        until(door, clock, lambda each: each.unreadable is not None)
        survey = door.survey(clock())
        assert "unreadable" == survey.driver
        assert not gate.judge(survey, state, limits, clock()).decision.yes


def test_one_package_that_goes_away_is_unreadable_alone(
    door_over: Callable[..., CpuSensorAdapter], clock: Clock
) -> None:
    """Its neighbour is read as before."""
    both = [make_temperature("Package id 0"), make_temperature("Package id 1")]
    tool = StandInPsutil({"coretemp": both})
    with door_over(tool) as door:
        assert 2 == len(door.survey(clock()).readings)
        tool.chips = {"coretemp": both[1:]}
        gone = until(door, clock, lambda each: each.unreadable is not None)
        assert "its sensor is no longer shown" == gone.unreadable
        survey = door.survey(clock())
        assert ("present", [None, 55.0]) == (
            survey.driver,
            [each.margin_c for each in survey.readings],
        )


def test_a_sensor_that_hangs_stalls_nobody(clock: Clock, tmp_path: Path) -> None:
    """The first survey comes back within its bound, the next ones at once; then readings age."""
    hang = threading.Event()

    class Hangs(StandInPsutil):
        def sensors_temperatures(self) -> Any:
            hang.wait()
            return super().sensors_temperatures()

    tool = Hangs({"coretemp": [make_temperature()]})
    with CpuSensorAdapter(tool=tool, powercap=tmp_path, clock=clock, first_answer_s=0.05) as door:
        began_s = time.monotonic()
        for _ in range(100):
            survey = door.survey(clock())
        assert time.monotonic() - began_s < BOUND_S
        assert ("unreadable", True) == (survey.driver, "not answered yet" in survey.because)
        hang.set()


def test_between_two_rounds_the_same_readings_are_told_again(
    door_over: Callable[..., CpuSensorAdapter], clock: Clock
) -> None:
    """The very same moments, so that the gate counts them once; and news are newer."""
    tool = StandInPsutil({"coretemp": [make_temperature()]})
    with door_over(tool, poll_s=600.0) as door:
        first = door.survey(clock())
        assert first == door.survey(clock() + 1.0)
        assert not door.wait_for_news(0)
    with door_over(tool) as door:
        before = door.survey(clock()).readings[0]
        after = until(door, clock, lambda each: each != before)
        assert before.read_at_s < after.read_at_s


def test_a_survey_starts_the_reading_and_a_closed_adapter_reads_no_more(
    door_over: Callable[..., CpuSensorAdapter], clock: Clock
) -> None:
    """It works without start, until it is closed."""
    door = door_over(StandInPsutil({"coretemp": [make_temperature()]}))
    assert "present" == door.survey(clock()).driver
    door.close()
    assert ("unreadable", ()) == (door.survey(clock()).driver, door.survey(clock()).readings)
