"""The door to NVML: what is read of a device, and what becomes of a driver that misbehaves."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it publishes no types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from power.core import device_readings
from power.core.device_readings import DeviceSnapshot
from power.core.gate_config import GateConfig
from power.devices import nvml_worker
from power.devices.device import Device
from power.devices.fake_nvml import FakeNvml, FakeNvmlLibrary, Fault, FaultKind
from power.devices.nvml import Listed, NvmlAdapter, shown_devices
from power.devices.nvml_worker import CallWatchdog, Report
from power.policy import gate
from power.policy.gate import GateState
from tests.power.makers import make_fault, make_gpu, make_twin

BOUND_S = 60.0
"""Longer than anything here takes; a test that reaches it has failed."""
TLIMIT = "nvmlDeviceGetMarginTemperature"
FIELDS = "nvmlDeviceGetFieldValues"
ENERGY = "nvmlDeviceGetTotalEnergyConsumption"
COUNT = "nvmlDeviceGetCount_v2"
HANDLE = "nvmlDeviceGetHandleByIndex_v2"
POWER = "nvmlDeviceGetPowerUsage"
LIMITS = "nvmlDeviceGetPowerManagementLimitConstraints"
MEMORY = "nvmlDeviceGetMemoryInfo"
NUMBERS = {
    *("temperature_c", "memory_temperature_c", "margin_c", "power_w", "power_limit_w"),
    *("power_limit_min_w", "power_limit_max_w", "utilization", "clock_mhz", "memory_clock_mhz"),
    *("memory_used_bytes", "memory_total_bytes", "throttle_reasons", "energy_j"),
}
"""What a device tells, or says why it does not."""
MEMORY_NAMES = ("memory_used_bytes", "memory_total_bytes")


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is said of a stand-in library's device, through the real binding, in this process."""

    def over(twin: FakeNvml, index: int = 0) -> Iterator[Report]:
        monkeypatch.setattr("pynvml.nvmlLib", FakeNvmlLibrary(twin))
        monkeypatch.setattr("pynvml._nvmlGetFunctionPointer_cache", {})
        return nvml_worker.reports(index, CallWatchdog(BOUND_S))

    return over


def devices_in(rounds: Iterator[Report]) -> Iterator[Device]:
    """The device as each round read it."""
    return (report.device for report in rounds if report.device is not None)


@pytest.fixture
def read(reports: Any) -> Any:
    """The one device of a stand-in library with that device."""

    def device(**overrides: Any) -> Device:
        return next(devices_in(reports(make_twin(make_gpu(**overrides)))))

    return device


def missing_of(device: Device) -> dict[str, str]:
    """What a device did not tell, with the remedy."""
    return {each.what: each.remedy for each in device.missing}


def test_a_healthy_device_tells_everything(read: Any) -> None:
    """Milliwatts become watts, the mask becomes names, nothing is missing."""
    device = read(throttle_mask=0x24)
    expected = {
        "uuid": "GPU-a",
        "name": "Stand-in H100",
        "margin_source": "margin",
        "temperature_c": 45.0,
        "memory_temperature_c": 50.0,
        "margin_c": 42.0,
        "slowdown_offset_c": -2.0,
        "threshold_c": None,
        "power_w": 120.0,
        "power_limit_w": 700.0,
        "power_limit_min_w": 200.0,
        "power_limit_max_w": 700.0,
        "utilization": 30.0,
        "clock_mhz": 1980.0,
        "memory_clock_mhz": 2619.0,
        "memory_used_bytes": 1_000_000_000,
        "memory_total_bytes": 85_000_000_000,
        "throttle_reasons": "sw_power_cap|sw_thermal_slowdown",
        "discarded": 0,
        "unreadable": None,
        "mig": (),
        "missing": (),
    }
    assert expected == device.model_dump(exclude={"read_s_ago", "energy_j", "may_set_limit"})
    assert 0 <= device.read_s_ago < BOUND_S
    # The counter goes on while the test does.
    assert device.energy_j is not None
    assert 5_000_000 <= device.energy_j < 5_000_000 + 120 * BOUND_S


@pytest.mark.parametrize(
    ("offset_c", "margin_c"), [(-2, 42.0), (-3, 43.0), (5, 35.0), (None, 40.0)]
)
def test_the_margin_reaches_to_where_this_model_slows_down(
    read: Any, offset_c: int | None, margin_c: float
) -> None:
    """The offset is read from the device; where it is not told, T.Limit itself stands."""
    assert margin_c == read(slowdown_tlimit_c=offset_c).margin_c


def test_a_margin_may_be_negative(read: Any) -> None:
    """Beyond the slowdown temperature the margin goes below zero, and stays a number."""
    assert -7.0 == read(tlimit_c=-9).margin_c


def test_an_older_device_stands_on_its_slowdown_threshold(read: Any) -> None:
    """Without T.Limit (A100), the threshold minus the temperature is the margin."""
    device = read(tlimit_c=None, slowdown_tlimit_c=None, slowdown_c=92, architecture=7)
    assert ("threshold", 47.0, 92.0) == (device.margin_source, device.margin_c, device.threshold_c)


@pytest.mark.parametrize(
    "overrides",
    [
        {"architecture": 8, "slowdown_c": 92},
        {"architecture": 7, "slowdown_c": None},
        {"architecture": 7, "slowdown_c": 92, "temperature_c": None},
        {"slowdown_c": 92, "faults": {"nvmlDeviceGetArchitecture": "unknown"}},
        {"architecture": 0xFFFFFFFF, "slowdown_c": 92},
        {"architecture": 7, "slowdown_c": 644_245_923},
    ],
)
def test_a_threshold_that_cannot_be_trusted_leaves_the_margin_unknown(
    read: Any, overrides: dict[str, Any]
) -> None:
    """From Ada on, on an unknown model, or without a temperature, there is no margin."""
    device = read(tlimit_c=None, **overrides)
    assert ("unknown", None) == (device.margin_source, device.margin_c)
    assert "max_temperature_c" in missing_of(device)["margin_c"]


@pytest.mark.parametrize(
    ("function", "what"),
    [
        ("nvmlDeviceGetTemperatureV", "temperature_c"),
        ("nvmlDeviceGetPowerUsage", "power_w"),
        ("nvmlDeviceGetEnforcedPowerLimit", "power_limit_w"),
        ("nvmlDeviceGetUtilizationRates", "utilization"),
        ("nvmlDeviceGetCurrentClocksEventReasons", "throttle_reasons"),
        (ENERGY, "energy_j"),
        ("nvmlDeviceGetName", "name"),
        ("nvmlDeviceGetClockInfo", "clock_mhz"),
    ],
)
def test_one_refused_answer_is_unknown_and_the_others_stand(
    read: Any, function: str, what: str
) -> None:
    """No permission for one question: that one is None with its remedy, the margin is told."""
    device = read(faults={function: "no_permission"})
    assert getattr(device, what) is None
    assert "let this user read the device (/dev/nvidia*)" == missing_of(device)[what]
    assert 42.0 == device.margin_c


@pytest.mark.parametrize(
    ("function", "names"),
    [(LIMITS, ("power_limit_min_w", "power_limit_max_w")), (MEMORY, MEMORY_NAMES)],
)
@pytest.mark.parametrize("fault", ["no_permission", "blank", "absurd"])
def test_a_pair_that_is_refused_or_cannot_be_is_unknown(
    read: Any, function: str, names: tuple[str, str], fault: FaultKind
) -> None:
    """Two numbers of one answer: both None; what could not be is counted, a refusal is not."""
    device = read(faults={function: fault})
    assert {None} == {getattr(device, name) for name in names}
    assert (0 if fault == "no_permission" else 2) == device.discarded
    assert set(names) <= set(", ".join(missing_of(device)).split(", "))
    # None of this says anything of heat.
    assert judged(DeviceSnapshot(driver="present", because="", readings=(device.reading(0.0),)))


@pytest.mark.parametrize(
    ("function", "what"),
    [("nvmlDeviceGetClockInfo", "clock_mhz"), (FIELDS, "slowdown_offset_c")],
)
def test_an_absurd_clock_or_offset_is_unknown_and_counted(
    read: Any, function: str, what: str
) -> None:
    """What the gate does not judge is judged where it is read."""
    device = read(faults={function: "absurd"})
    assert getattr(device, what) is None
    assert "see whether nvidia-smi can read it" == missing_of(device)[what]
    assert 0 < device.discarded


def test_refused_fields_are_unknown(read: Any) -> None:
    """Both temperatures that come as fields are unknown, and T.Limit itself is the margin."""
    device = read(faults={FIELDS: "unknown"})
    assert (None, 40.0) == (device.memory_temperature_c, device.margin_c)
    assert "memory_temperature_c, slowdown_offset_c" in missing_of(device)


def test_a_device_without_memory_temperature_says_so(read: Any) -> None:
    """A field that is not supported has its own return code."""
    device = read(memory_temperature_c=None)
    assert device.memory_temperature_c is None
    assert "this device does not report it" == missing_of(device)["memory_temperature_c"]


@pytest.mark.parametrize(
    ("newer", "what", "value"),
    [
        ("nvmlDeviceGetTemperatureV", "temperature_c", 45.0),
        ("nvmlDeviceGetCurrentClocksEventReasons", "throttle_reasons", "none"),
    ],
)
def test_an_older_driver_is_asked_the_older_way(
    reports: Any, newer: str, what: str, value: object
) -> None:
    """Where the newer function is missing, the older one answers."""
    device = next(devices_in(reports(make_twin(**{newer: make_fault("missing")}))))
    assert value == getattr(device, what)


def test_a_blank_is_unknown_and_an_absurdity_is_handed_on(read: Any) -> None:
    """A sentinel stands for no value and is counted; nonsense is for the gate to judge."""
    blank = read(faults={TLIMIT: "blank", "nvmlDeviceGetPowerUsage": "blank"})
    assert (None, None) == (blank.margin_c, blank.power_w)
    assert {"tlimit_c", "power_w", "margin_c"} == set(missing_of(blank))
    assert 2 == blank.discarded
    absurd = read(faults={"nvmlDeviceGetTemperatureV": "absurd"})
    assert 644_245_923.0 == absurd.temperature_c
    assert not judged(DeviceSnapshot(driver="present", because="", readings=(absurd.reading(0.0),)))


ANY_INT = st.integers(-(2**31), 2**32 - 1)


@given(
    temperature_c=ANY_INT,
    tlimit_c=st.none() | ANY_INT,
    slowdown_tlimit_c=st.none() | ANY_INT,
    slowdown_c=st.none() | ANY_INT,
    architecture=st.sampled_from([7, 9]),
    power_mw=ANY_INT,
    clock_mhz=ANY_INT,
    power_limit_max_mw=ANY_INT,
)
def test_whatever_a_driver_answers_an_open_gate_has_plausible_numbers(**told: Any) -> None:
    """Any 32 bits anywhere: each number is unknown, or the gate judges it, and never lets it go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pynvml.nvmlLib", FakeNvmlLibrary(make_twin(make_gpu(**told))))
        patch.setattr("pynvml._nvmlGetFunctionPointer_cache", {})
        device = next(devices_in(nvml_worker.reports(0, CallWatchdog(BOUND_S))))
    assert device.clock_mhz is None or 0 <= device.clock_mhz <= 100_000
    assert device.power_limit_max_w is None or 0 <= device.power_limit_max_w <= 20_000
    assert device.threshold_c is None or 20 <= device.threshold_c <= 150
    reading = device.reading(0.0)
    if judged(DeviceSnapshot(driver="present", because="", readings=(reading,))):
        assert reading.margin_c is not None
        for name, (least, most) in device_readings.PLAUSIBLE.items():
            value = getattr(reading, name)
            assert value is None or least <= value <= most


def test_all_bits_set_is_a_blank_too(read: Any) -> None:
    """An unsigned sentinel is no 4 million watts."""
    assert read(power_mw=0xFFFFFFFF).power_w is None


def test_the_energy_counter_grows_by_power_and_time(
    reports: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Millijoules become joules: at 120 W, ten seconds add 1,200 of them."""
    rounds, now_s = devices_in(reports(make_twin())), 0.0
    monkeypatch.setattr("pynvml.nvmlLib", FakeNvmlLibrary(make_twin(), clock=lambda: now_s))
    before = next(rounds)
    now_s = 10.0
    after = next(rounds)
    assert (5_000_000.0, 5_001_200.0) == (before.energy_j, after.energy_j)
    assert 5_001_200.0 == after.reading(0.0).energy_j


@pytest.mark.parametrize(
    ("overrides", "remedy"),
    [
        ({"energy_mj": None}, "this device does not report it"),
        ({"faults": {ENERGY: "missing"}}, "install a newer NVIDIA driver"),
        ({"faults": {ENERGY: "blank"}}, "see whether nvidia-smi can read it"),
        ({"faults": {ENERGY: "absurd"}}, "see whether nvidia-smi can read it"),
        ({"energy_mj": 0x7FFFFFFFFFFFFFF0, "power_mw": 0}, "see whether nvidia-smi can read it"),
        ({"energy_mj": 2**64 - 1, "power_mw": 0}, "see whether nvidia-smi can read it"),
    ],
)
def test_an_energy_that_is_not_told_is_unknown_and_keeps_no_job_waiting(
    read: Any, overrides: dict[str, Any], remedy: str
) -> None:
    """It says nothing of heat: the gate opens on the margin all the same."""
    device = read(**overrides)
    assert device.energy_j is None
    assert remedy == missing_of(device)["energy_j"]
    assert judged(DeviceSnapshot(driver="present", because="", readings=(device.reading(0.0),)))


def judged(survey: DeviceSnapshot, now_s: float = 0.0, uuid: str | None = None) -> bool:
    """What a fresh gate says."""
    return gate.judge(survey, GateState(), GateConfig(uuid=uuid), now_s).decision.yes


def test_what_is_found_is_told_as_soon_as_it_is_known(reports: Any) -> None:
    """How many, then its name, then its numbers: one that hangs is missed by its name."""
    rounds = reports(make_twin(make_gpu("GPU-a"), make_gpu("GPU-b", mig=("MIG-1",))), 1)
    first, second, third = next(rounds), next(rounds), next(rounds)
    assert (2, None, None) == (first.count, first.uuid, first.device)
    assert ("GPU-b", ("MIG-1",), None) == (second.uuid, second.mig, second.device)
    assert (True, "GPU-b") == (third.is_well, third.device.uuid)


@pytest.mark.parametrize(
    ("mig", "expected"),
    [(None, ()), ((), ()), (("MIG-1", None, "MIG-2"), ("MIG-1", "MIG-2"))],
)
def test_mig_instances_are_told_with_their_device(
    read: Any, mig: tuple[str | None, ...] | None, expected: tuple[str, ...]
) -> None:
    """They have no sensors: the readings are the whole device's, and name what lies on it."""
    device = read(mig=mig)
    assert (expected, 42.0) == (device.mig, device.margin_c)
    assert expected == device.reading(0.0).mig


def test_a_driver_that_does_not_tell_of_mig_hides_no_device(read: Any) -> None:
    """Its instances are then unknown, its heat is not."""
    device = read(mig=("MIG-1",), faults={"nvmlDeviceGetMigMode": "no_permission"})
    assert ((), 42.0) == (device.mig, device.margin_c)


@pytest.mark.parametrize(
    ("faults", "uuid"),
    [
        ({"nvmlDeviceGetHandleByIndex_v2": "lost"}, None),
        ({"nvmlDeviceGetPowerUsage": "lost"}, "GPU-a"),
    ],
)
def test_a_lost_device_is_told_with_its_remedy_and_asked_anew(
    reports: Any, faults: dict[str, FaultKind], uuid: str | None
) -> None:
    """The rounds end, since only a driver that is started anew may find it again."""
    *_, last = reports(make_twin(make_gpu(faults=faults)))
    assert (uuid, False, "present") == (last.uuid, last.is_well, last.driver)
    assert "GPU is lost (NVML 15); reset the device, or reboot the machine" in last.trouble


@pytest.mark.parametrize(
    ("function", "fault", "driver", "told"),
    [
        ("nvmlInitWithFlags", "driver_not_loaded", "absent", "load the NVIDIA driver"),
        ("nvmlInitWithFlags", "mismatch", "unreadable", "it was updated"),
        ("nvmlInitWithFlags", "no_permission", "unreadable", "/dev/nvidia*"),
        ("nvmlInitWithFlags", "missing", "unreadable", "newer NVIDIA driver"),
        (COUNT, "unknown", "unreadable", "cannot be counted"),
    ],
)
def test_a_driver_that_does_not_start_is_told_with_a_remedy(
    reports: Any, function: str, fault: FaultKind, driver: str, told: str
) -> None:
    """No driver is absent; a driver that fails is unreadable; then there is nothing more to say."""
    rounds = list(reports(make_twin(**{function: fault})))
    assert [driver] == [report.driver for report in rounds]
    assert told in rounds[0].trouble


@pytest.mark.parametrize(
    ("twin", "index", "told"),
    [(FakeNvml(), 0, "sees no device"), (make_twin(), 1, "lists 1 devices and not number 1")],
)
def test_a_device_that_is_not_listed_is_told(
    reports: Any, twin: FakeNvml, index: int, told: str
) -> None:
    """A GPU that fell off the bus may leave the driver with fewer, or with none."""
    (report,) = reports(twin, index)
    assert (len(twin.gpus), True) == (report.count, told in report.trouble)


def test_a_machine_without_the_library_has_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader's refusal is told as absent."""
    monkeypatch.setattr("pynvml.nvmlLib", None)
    monkeypatch.setattr("pynvml._nvmlGetFunctionPointer_cache", {})

    def refuse(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("pynvml.CDLL", refuse)
    (report,) = nvml_worker.reports(0, CallWatchdog(BOUND_S))
    assert ("absent", True) == (report.driver, "install the NVIDIA driver" in str(report.trouble))


@pytest.mark.parametrize(
    ("status", "expected"),
    [("Name:\tx\nCapEff:\t000001ffffffffff\n", True), ("CapEff:\t00000000a80425fb\n", False)],
)
def test_root_in_a_container_has_not_the_privilege(
    tmp_path: Path, status: str, expected: bool
) -> None:
    """What counts is the capability, and not the user's number."""
    (tmp_path / "status").write_text(status)
    assert expected is nvml_worker.may_set_limit(tmp_path / "status")


def test_without_capabilities_to_read_the_users_number_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere than on Linux, root may and others may not."""
    for number, expected in ((0, True), (1000, False)):
        monkeypatch.setattr("os.geteuid", lambda number=number: number)
        assert expected is nvml_worker.may_set_limit(tmp_path / "none")


def test_a_call_that_does_not_return_is_named() -> None:
    """Within its patience nothing is stuck, and at rest nothing is either."""
    asking = CallWatchdog(patience_s=60.0)
    asking("power_w")
    assert asking.stuck() is None
    asking.patience_s = -1.0
    assert "the driver has not returned from power_w for 0.0 s" == asking.stuck()
    asking(None)
    assert asking.stuck() is None


A, B, M = Listed("GPU-a0"), Listed("GPU-a1"), Listed("GPU-b1", ("MIG-7a", "MIG-7b"))


@pytest.mark.parametrize(
    ("visible", "shown"),
    [
        (None, {0, 1, 2}),
        ("0", {0}),
        ("1, 0", {0, 1}),
        ("GPU-b", {2}),
        ("GPU-b1,GPU-a1", {1, 2}),
        # What fits nothing, or two devices, ends the list.
        ("7,1", set()),
        ("1,GPU-z,0", {1}),
        ("GPU-a,1", set()),
        ("-1,1", set()),
        ("0,-1,1", {0}),
        ("all", set()),
        ("", set()),
        # A MIG instance shows the device that it lies on.
        ("MIG-7b", {2}),
        ("MIG-7", {2}),
        ("MIG-8,0", set()),
        ("MIG-GPU-a0/1/0,1", {0, 1}),
        ("MIG-GPU-z/1/0,1", set()),
    ],
)
def test_cuda_visible_devices_hides_the_others(visible: str | None, shown: set[int]) -> None:
    """Numbers, beginnings of names, MIG instances, and an invalid entry that ends the list."""
    assert shown == shown_devices([A, B, M], visible)


def test_a_name_that_fits_nothing_may_be_of_a_device_that_has_not_told_its_own() -> None:
    """One lost GPU, named first, hides no other."""
    assert {1} == shown_devices([Listed(None), B], "GPU-a0,GPU-a1")
    assert {1} == shown_devices([Listed(None), B], "MIG-7a,1")
    assert set() == shown_devices([Listed(None), B], "7,1")


class Clock:
    """The real clock, and a leap that a test may make."""

    def __init__(self) -> None:
        self.leap_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.leap_s


@pytest.fixture
def clock() -> Clock:
    """A clock that a test may move ahead."""
    return Clock()


def door_over(twin: FakeNvml | None, clock: Clock, **bounds: float | str) -> NvmlAdapter:
    """A door that reads often, so that no test waits long."""
    settings = {"poll_s": 0.02, "first_answer_s": BOUND_S} | bounds
    return NvmlAdapter(twin=twin, clock=clock, **settings)  # type: ignore[arg-type]  # by their names


@pytest.fixture(params=["stand-in", "this machine"])
def door(request: pytest.FixtureRequest, clock: Clock) -> Iterator[NvmlAdapter]:
    """A stand-in, and the real library where there is a GPU."""
    twin = make_twin(make_gpu("GPU-a"), make_gpu("GPU-b"))
    with door_over(twin if request.param == "stand-in" else None, clock) as opened:
        if opened.survey(clock()).driver != "present":
            pytest.skip("this machine has no NVIDIA GPU that can be read")
        yield opened


def test_every_number_is_told_or_missing_with_a_reason(door: NvmlAdapter) -> None:
    """Nobody looks in vain for what a device does not support."""
    for device in door.devices():
        told = {name for name, value in device if value is not None}
        lacks = {name for each in device.missing for name in each.what.split(", ")}
        assert NUMBERS <= told | lacks


def test_closing_ends_the_processes_that_read(door: NvmlAdapter) -> None:
    """Nothing is left behind."""
    assert len(door.devices()) == len(door.pids)
    processes = [psutil.Process(pid) for pid in door.pids]
    door.close()
    assert not any(process.is_running() for process in processes)


def test_the_first_survey_waits_for_readings_and_they_are_not_of_the_future(clock: Clock) -> None:
    """A fresh process needs one call to know whether its machine is cool."""
    with door_over(make_twin(), clock) as door:
        now_s = clock()
        survey = door.survey(now_s)
        assert now_s >= survey.readings[0].read_at_s
        assert judged(survey, now_s)


def test_a_hang_at_the_start_blocks_nobody(clock: Clock) -> None:
    """The first survey comes back within its bound and says that nothing has answered."""
    with door_over(make_twin(nvmlInitWithFlags="hang"), clock, first_answer_s=0.05) as door:
        survey = door.survey(clock())
        assert "unreadable" == survey.driver
        assert "have not answered yet" in survey.because
        assert not judged(survey)


def readings_of(survey: DeviceSnapshot) -> dict[str, float | None]:
    """Each device's margin; None: it could not be read."""
    return {reading.uuid: reading.margin_c for reading in survey.readings}


def until(door: NvmlAdapter, clock: Clock, margins: dict[str, float | None]) -> DeviceSnapshot:
    """Survey after survey until the margins are as awaited; pauses are leapt over."""
    ends_s = time.monotonic() + BOUND_S
    while readings_of(survey := door.survey(clock())) != margins:
        assert time.monotonic() < ends_s, survey
        if not door.wait_for_news(0.5):
            clock.leap_s += 1.0
    return survey


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault(kind="hang", after=1), "has not returned from power_w for 0."),
        (Fault(kind="crash", after=1), "died (exit code -11)"),
        (Fault(kind="lost", after=1), "GPU is lost"),
    ],
)
def test_a_device_that_hangs_crashes_or_is_lost_is_unreadable_alone(
    clock: Clock, fault: Fault, told: str
) -> None:
    """Its reason is told, it is closed at once, and its neighbours are read as before."""
    twin = make_twin(make_gpu("GPU-a"), make_gpu("GPU-b", faults={POWER: fault}), make_gpu("GPU-c"))
    with door_over(twin, clock, poll_s=0.3, hang_s=0.3) as door:
        assert {"GPU-a": 42.0, "GPU-b": 42.0, "GPU-c": 42.0} == readings_of(door.survey(clock()))
        survey = until(door, clock, {"GPU-a": 42.0, "GPU-b": None, "GPU-c": 42.0})
        assert "present" == survey.driver
        (lost,) = (each for each in survey.readings if each.uuid == "GPU-b")
        assert told in str(lost.unreadable)
        assert "GPU-b cannot be read" in survey.because
        assert ["device"] == [each.what for each in door.devices()[1].missing]
        assert not judged(survey, clock(), uuid="GPU-b")
        assert judged(survey, clock(), uuid="GPU-c")
        # Told again, it is the same reading; and when it reports again, it is read again.
        again = next(each for each in door.survey(clock()).readings if each.uuid == "GPU-b")
        assert again == lost or again.unreadable is None
        until(door, clock, {"GPU-a": 42.0, "GPU-b": 42.0, "GPU-c": 42.0})


@pytest.mark.parametrize("fault", ["hang", "crash"])
def test_a_device_that_never_answers_hides_no_other(clock: Clock, fault: FaultKind) -> None:
    """Not even the first one, whose process is the one that counts them."""
    twin = make_twin(make_gpu("GPU-a", faults={HANDLE: fault}), make_gpu("GPU-b"))
    with door_over(twin, clock, first_answer_s=0.5, start_s=60.0) as door:
        door.survey(clock())
        survey = until(door, clock, {"GPU-b": 42.0})
        assert "device 0 cannot be read" in survey.because
        assert judged(survey, clock())


def test_a_device_that_hangs_before_its_first_number_is_missed_by_its_name(clock: Clock) -> None:
    """Its name was told first, so that the gate knows which one it is."""
    gpu = make_gpu("GPU-a", faults={"nvmlDeviceGetTemperatureV": "hang"})
    with door_over(make_twin(gpu), clock, first_answer_s=0.5, start_s=0.2) as door:
        survey = until(door, clock, {"GPU-a": None})
        assert "unreadable" == survey.driver
        assert not judged(survey, clock())


def test_a_reader_that_says_nothing_is_stopped_from_outside_too(clock: Clock) -> None:
    """A process that cannot even watch over itself is killed by whoever looks."""
    with door_over(make_twin(), clock, poll_s=600.0) as door:
        door.survey(clock())
        (pid,) = door.pids
        stuck = psutil.Process(pid)
        clock.leap_s += 13.0
        survey = door.survey(clock())
        assert ("unreadable", None) == (survey.driver, survey.readings[0].margin_c)
        assert "sent nothing for 13 s" in survey.because
        assert ([stuck], []) == psutil.wait_procs([stuck], BOUND_S)
        until(door, clock, {"GPU-a": 42.0})


def test_a_machine_without_a_driver_is_asked_again_later(clock: Clock) -> None:
    """The answer stands while nobody reads, and a new process asks after the pause."""
    with door_over(make_twin(nvmlInitWithFlags="driver_not_loaded"), clock) as door:
        assert "absent" == door.survey(clock()).driver
        while door.pids:
            door.wait_for_news(0.01)
        assert "absent" == door.survey(clock()).driver
        clock.leap_s += 1.0
        door.survey(clock())
        assert 1 == len(door.pids)


def test_a_driver_that_goes_away_from_its_devices_is_not_absent(clock: Clock) -> None:
    """A machine whose driver is being replaced has GPUs, and they are unknown."""
    with door_over(make_twin(), clock, poll_s=600.0) as door:
        assert judged(door.survey(clock()), clock())
        # What a process says that is started now.
        (reading,) = door._readers
        gone = Report(driver="absent", trouble="the driver is not loaded")
        assert reading.watched._hear(gone.model_dump_json())
        survey = door.survey(clock())
        assert ("unreadable", {"GPU-a": None}) == (survey.driver, readings_of(survey))
        assert "the driver is not loaded" in survey.because
        assert not judged(survey, clock())


@pytest.mark.parametrize(
    ("visible", "driver", "told"),
    [
        ("", "absent", "shows this process no device"),
        (" -1", "absent", "shows this process no device"),
        ("GPU-z", "unreadable", "names none of GPU-a; correct it"),
    ],
)
def test_being_shown_no_device_on_purpose_is_not_a_misspelt_one(
    clock: Clock, visible: str, driver: str, told: str
) -> None:
    """A job that uses no GPU need not wait for one; a wrong name must not let it go."""
    with door_over(make_twin(), clock, visible=visible) as door:
        survey = door.survey(clock())
        assert (driver, ()) == (survey.driver, survey.readings)
        assert told in survey.because


def test_a_hidden_device_is_not_read(clock: Clock) -> None:
    """Its process ends, and nothing is said of it, whatever it does."""
    twin = make_twin(make_gpu("GPU-a"), make_gpu("GPU-b"), make_gpu("GPU-c"))
    with door_over(twin, clock, visible="1,MIG-GPU-c/1/0") as door:
        survey = door.survey(clock())
        assert {"GPU-b": 42.0, "GPU-c": 42.0} == readings_of(survey)
        assert "NVML, 2 devices" == survey.because
        while len(door.pids) > 2:
            door.wait_for_news(0.01)
        assert {"GPU-b": 42.0, "GPU-c": 42.0} == readings_of(door.survey(clock()))


def test_mig_is_reported_as_what_it_is(clock: Clock) -> None:
    """An instance shows its device, whose heat it is."""
    twin = make_twin(make_gpu("GPU-a", mig=("MIG-1", "MIG-2")), make_gpu("GPU-b"))
    with door_over(twin, clock, visible="MIG-2") as door:
        survey = door.survey(clock())
        assert {"GPU-a": 42.0} == readings_of(survey)
        assert "with 2 MIG instances, whose heat is the whole device's" in survey.because
        assert judged(survey, clock(), uuid="MIG-2")


def test_surveying_after_the_first_time_never_waits(clock: Clock) -> None:
    """With the library hanging, a hundred surveys take no time worth naming."""
    twin = make_twin(nvmlInitWithFlags="hang")
    with door_over(twin, clock, first_answer_s=0.0) as door:
        began_s = time.monotonic()
        for _ in range(100):
            door.survey(clock())
        assert time.monotonic() - began_s < BOUND_S


def test_between_two_rounds_the_same_readings_are_told_again(clock: Clock) -> None:
    """Nothing newer means the very same moments, so that the gate counts them once."""
    with door_over(make_twin(), clock, poll_s=600.0) as door:
        first = door.survey(clock())
        assert first == door.survey(clock() + 1.0)
        assert not door.wait_for_news(0)


def test_however_late_a_round_is_heard_its_moment_goes_forward(clock: Clock) -> None:
    """A stall of this process must not look like a device whose clock went back."""
    with door_over(make_twin(), clock) as door:
        clock.leap_s = 5.0
        before = door.survey(clock()).readings[0]
        clock.leap_s = 0.0
        while (after := door.survey(clock() + 5.0).readings[0]) == before:
            assert door.wait_for_news(BOUND_S)
        assert before.read_at_s < after.read_at_s <= clock() + 5.0


def test_a_survey_starts_the_reading_by_itself(clock: Clock) -> None:
    """The door works without start, as long as it is closed."""
    door = door_over(make_twin(), clock)
    assert "present" == door.survey(clock()).driver
    door.close()


def test_a_hanging_reader_does_not_outlive_its_killed_parent() -> None:
    """Even stuck in the driver, the reading process ends with the process that started it."""
    program = (
        "import time\n"
        "from power.devices.nvml import NvmlAdapter\n"
        "from tests.power.makers import make_twin\n"
        "door = NvmlAdapter(twin=make_twin(nvmlDeviceGetCount_v2='hang'), first_answer_s=0.2)\n"
        "door.survey(time.monotonic())\n"
        "print(door.pids[0], flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        reader = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        gone, alive = psutil.wait_procs([reader], BOUND_S)
    assert ([reader], []) == (gone, alive)
