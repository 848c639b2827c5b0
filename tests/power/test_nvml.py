"""The door to NVML: what is read of a device, and what becomes of a driver that misbehaves."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil  # type: ignore[import-untyped]  # it publishes no types
import pytest

from power import gate, nvml
from power.gate import GateLimits, GateState, Survey
from power.nvml import Device, NvmlDoor, Sweep, is_visible
from power.twin import Fault, FaultKind, StandIn, StandInNvml
from tests.power.makers import make_fault, make_gpu, make_twin

BOUND_S = 10.0
"""Longer than anything here takes; a test that reaches it has failed."""
TLIMIT = "nvmlDeviceGetMarginTemperature"
FIELDS = "nvmlDeviceGetFieldValues"
ENERGY = "nvmlDeviceGetTotalEnergyConsumption"
COUNT = "nvmlDeviceGetCount_v2"


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Rounds over a stand-in library, through the real binding, in this process."""

    def over(twin: StandIn, visible: str | None = None) -> Iterator[Sweep]:
        monkeypatch.setattr("pynvml.nvmlLib", StandInNvml(twin))
        monkeypatch.setattr("pynvml._nvmlGetFunctionPointer_cache", {})
        return nvml.sweeps(visible)

    return over


@pytest.fixture
def read(sweeps: Any) -> Any:
    """The one device of a stand-in library with that device."""

    def device(**overrides: Any) -> Device:
        (found,) = next(sweeps(make_twin(make_gpu(**overrides)))).devices
        assert isinstance(found, Device)
        return found

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
        "rung": "margin",
        "temperature_c": 45.0,
        "memory_temperature_c": 50.0,
        "margin_c": 42.0,
        "power_w": 120.0,
        "power_limit_w": 700.0,
        "utilization": 30.0,
        "throttle_reasons": "sw_power_cap|sw_thermal_slowdown",
        "missing": (),
    }
    assert expected == device.model_dump(exclude={"read_s_ago", "energy_j"})
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
    assert ("threshold", 47.0) == (device.rung, device.margin_c)


@pytest.mark.parametrize(
    "overrides",
    [
        {"architecture": 8, "slowdown_c": 92},
        {"architecture": 7, "slowdown_c": None},
        {"architecture": 7, "slowdown_c": 92, "temperature_c": None},
        {"slowdown_c": 92, "faults": {"nvmlDeviceGetArchitecture": "unknown"}},
        {"architecture": 0xFFFFFFFF, "slowdown_c": 92},
    ],
)
def test_a_threshold_that_cannot_be_trusted_leaves_the_margin_unknown(
    read: Any, overrides: dict[str, Any]
) -> None:
    """From Ada on, on an unknown model, or without a temperature, there is no margin."""
    device = read(tlimit_c=None, **overrides)
    assert (None, None) == (device.rung, device.margin_c)
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


def test_refused_fields_are_unknown(read: Any) -> None:
    """Both temperatures that come as fields are unknown, and T.Limit itself is the margin."""
    device = read(faults={FIELDS: "unknown"})
    assert (None, 40.0) == (device.memory_temperature_c, device.margin_c)
    assert "memory_temperature_c, slowdown_tlimit_c" in missing_of(device)


def test_a_device_without_memory_temperature_says_so(read: Any) -> None:
    """A field that is not supported has its own return code."""
    device = read(memory_temperature_c=None)
    assert device.memory_temperature_c is None
    assert "this device does not tell it" == missing_of(device)["memory_temperature_c"]


@pytest.mark.parametrize(
    ("newer", "what", "value"),
    [
        ("nvmlDeviceGetTemperatureV", "temperature_c", 45.0),
        ("nvmlDeviceGetCurrentClocksEventReasons", "throttle_reasons", "none"),
    ],
)
def test_an_older_driver_is_asked_the_older_way(
    sweeps: Any, newer: str, what: str, value: object
) -> None:
    """Where the newer function is missing, the older one answers."""
    (device,) = next(sweeps(make_twin(**{newer: make_fault("missing")}))).devices
    assert value == getattr(device, what)


def test_a_blank_is_unknown_and_an_absurdity_is_handed_on(read: Any) -> None:
    """A sentinel stands for no value; nonsense is for the gate to judge."""
    blank = read(faults={TLIMIT: "blank", "nvmlDeviceGetPowerUsage": "blank"})
    assert (None, None) == (blank.margin_c, blank.power_w)
    assert {"tlimit_c", "power_w", "margin_c"} == set(missing_of(blank))
    absurd = read(faults={"nvmlDeviceGetTemperatureV": "absurd"})
    assert 644_245_923.0 == absurd.temperature_c
    assert not judged(Survey(driver="present", because="", readings=(absurd.reading(0.0),)))


def test_all_bits_set_is_a_blank_too(read: Any) -> None:
    """An unsigned sentinel is no 4 million watts."""
    assert read(power_mw=0xFFFFFFFF).power_w is None


def test_the_energy_counter_grows_by_power_and_time(
    sweeps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Millijoules become joules: at 120 W, ten seconds add 1,200 of them."""
    rounds, now_s = sweeps(make_twin()), 0.0
    monkeypatch.setattr("pynvml.nvmlLib", StandInNvml(make_twin(), clock=lambda: now_s))
    (before,) = next(rounds).devices
    now_s = 10.0
    (after,) = next(rounds).devices
    assert (5_000_000.0, 5_001_200.0) == (before.energy_j, after.energy_j)
    assert 5_001_200.0 == after.reading(0.0).energy_j


@pytest.mark.parametrize(
    ("overrides", "remedy"),
    [
        ({"energy_mj": None}, "this device does not tell it"),
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
    assert judged(Survey(driver="present", because="", readings=(device.reading(0.0),)))


def judged(survey: Survey, now_s: float = 0.0) -> bool:
    """What a fresh gate says."""
    return gate.judge(survey, GateState(), GateLimits(), now_s).decision.yes


def test_a_lost_device_does_not_hide_the_others(sweeps: Any) -> None:
    """One GPU off the bus: it is told as unknown, its neighbour as healthy."""
    twin = make_twin(
        make_gpu("GPU-a", faults={"nvmlDeviceGetHandleByIndex_v2": "lost"}),
        make_gpu("GPU-b", faults={"nvmlDeviceGetPowerUsage": "lost"}),
        make_gpu("GPU-c"),
    )
    sweep = next(sweeps(twin))
    assert "present" == sweep.driver
    assert "device 0 does not answer: GPU is lost" in sweep.because
    assert {"GPU-b": None, "GPU-c": 42.0} == {each.uuid: each.margin_c for each in sweep.devices}
    assert ["device"] == [each.what for each in sweep.devices[0].missing]


def test_a_device_that_is_lost_later_is_told_as_unknown(sweeps: Any) -> None:
    """It closes at the next round, long before its last reading would be too old."""
    lost_later = Fault(kind="lost", after=1)
    twin = make_twin(
        make_gpu("GPU-a", faults={"nvmlDeviceGetHandleByIndex_v2": lost_later}), make_gpu("GPU-b")
    )
    rounds = sweeps(twin)
    before, after = next(rounds), next(rounds)
    assert [42.0, 42.0] == [each.margin_c for each in before.devices]
    assert {"GPU-a": None, "GPU-b": 42.0} == {each.uuid: each.margin_c for each in after.devices}


def test_when_every_device_is_lost_the_driver_is_unreadable(sweeps: Any) -> None:
    """Nothing that answers is not the same as nothing there."""
    twin = make_twin(make_gpu(faults={"nvmlDeviceGetHandleByIndex_v2": "lost"}))
    assert "unreadable" == next(sweeps(twin)).driver


def test_a_driver_that_sees_no_device_is_unreadable(sweeps: Any) -> None:
    """A GPU that fell off the bus may leave the driver with none."""
    sweep = next(sweeps(StandIn()))
    assert ("unreadable", True) == (sweep.driver, "sees no device" in sweep.because)


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
    sweeps: Any, function: str, fault: FaultKind, driver: str, told: str
) -> None:
    """No driver is absent; a driver that fails is unreadable; then there is nothing more to say."""
    rounds = list(sweeps(make_twin(**{function: fault})))
    assert [driver] == [sweep.driver for sweep in rounds]
    assert told in rounds[0].because


def test_a_machine_without_the_library_has_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader's refusal is told as absent."""
    monkeypatch.setattr("pynvml.nvmlLib", None)
    monkeypatch.setattr("pynvml._nvmlGetFunctionPointer_cache", {})

    def refuse(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("pynvml.CDLL", refuse)
    (sweep,) = nvml.sweeps()
    assert ("absent", True) == (sweep.driver, "install the NVIDIA driver" in sweep.because)


@pytest.mark.parametrize(
    ("visible", "shown"),
    [
        (None, ["GPU-a0", "GPU-b1"]),
        ("0", ["GPU-a0"]),
        ("1, 0", ["GPU-a0", "GPU-b1"]),
        ("GPU-b", ["GPU-b1"]),
        ("7,1", ["GPU-b1"]),
        ("-1,1", []),
        ("MIG-GPU-a0,1", []),
        ("", []),
    ],
)
def test_cuda_visible_devices_hides_the_others(visible: str | None, shown: list[str]) -> None:
    """Numbers, beginnings of names, and an invalid entry that ends the list."""
    uuids = ["GPU-a0", "GPU-b1"]
    assert shown == [uuid for at, uuid in enumerate(uuids) if is_visible(at, uuid, visible)]


@pytest.mark.parametrize(
    ("visible", "driver"), [("", "absent"), ("-1", "absent"), ("GPU-z", "unreadable")]
)
def test_being_shown_no_device_on_purpose_is_not_a_misspelt_one(
    sweeps: Any, visible: str, driver: str
) -> None:
    """A job that uses no GPU need not wait for one; a wrong name must not let it go."""
    sweep = next(sweeps(make_twin(), visible))
    assert (driver, ()) == (sweep.driver, sweep.devices)


def test_a_hidden_device_that_was_never_shown_is_not_missed(sweeps: Any) -> None:
    """The round after the first tells the visible device alone."""
    rounds = sweeps(make_twin(make_gpu("GPU-a"), make_gpu("GPU-b")), "1")
    next(rounds)
    assert ["GPU-b"] == [device.uuid for device in next(rounds).devices]


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


def door_over(twin: StandIn | None, clock: Clock, **bounds: float) -> NvmlDoor:
    """A door that reads often, so that no test waits long."""
    settings = {"poll_s": 0.02, "first_answer_s": BOUND_S} | bounds
    return NvmlDoor(twin=twin, clock=clock, **settings)  # type: ignore[arg-type]  # floats by name


@pytest.fixture(params=["stand-in", "this machine"])
def door(request: pytest.FixtureRequest, clock: Clock) -> Iterator[NvmlDoor]:
    """The contract's subjects: a stand-in, and the real library where there is a GPU."""
    twin = make_twin(make_gpu("GPU-a"), make_gpu("GPU-b"))
    with door_over(twin if request.param == "stand-in" else None, clock) as opened:
        if opened.survey(clock()).driver != "present":
            pytest.skip("this machine has no NVIDIA GPU that can be read")
        yield opened


def test_contract_a_survey_tells_each_device_once_and_plausibly(
    door: NvmlDoor, clock: Clock
) -> None:
    """Names are unique, moments are not of the future, numbers are plausible or unknown."""
    now_s = clock()
    survey = door.survey(now_s)
    uuids = [reading.uuid for reading in survey.readings]
    assert sorted(set(uuids)) == sorted(uuids)
    assert {device.uuid for device in door.devices()} == set(uuids)
    for reading in survey.readings:
        assert now_s - BOUND_S < reading.read_at_s <= now_s
        for name, (least, most) in gate.PLAUSIBLE.items():
            value = getattr(reading, name)
            assert value is None or least <= value <= most


def test_contract_news_are_newer_and_repetitions_are_the_same(door: NvmlDoor, clock: Clock) -> None:
    """Each device's moments only go forward, and a reading told again is equal."""
    seen: dict[str, Any] = {}
    for _ in range(5):
        assert door.wait_for_news(BOUND_S)
        for reading in door.survey(clock()).readings:
            before = seen.get(reading.uuid)
            assert before is None or before == reading or before.read_at_s < reading.read_at_s
            seen[reading.uuid] = reading


def test_contract_it_can_be_judged(door: NvmlDoor, clock: Clock) -> None:
    """The gate takes the survey as it is, and says why."""
    now_s = clock()
    decision, state = gate.judge(door.survey(now_s), GateState(), GateLimits(), now_s)
    assert decision.because
    assert len(door.devices()) == len(state.devices)


def test_contract_closing_ends_the_process_and_what_follows_is_unreadable(
    door: NvmlDoor, clock: Clock
) -> None:
    """Nothing is left behind, and a closed door opens no gate."""
    assert door.pid is not None
    process = psutil.Process(door.pid)
    door.close()
    assert not process.is_running()
    assert ("unreadable", ()) == (door.survey(clock()).driver, door.survey(clock()).readings)


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


def test_a_call_that_hangs_later_is_stopped_and_read_again(clock: Clock) -> None:
    """The gate closes, the stuck process is gone, and a new one reads."""
    hangs = make_fault(Fault(kind="hang", after=1))
    with door_over(make_twin(**{COUNT: hangs}), clock) as door:
        assert "present" == door.survey(clock()).driver
        assert door.pid is not None
        stuck = psutil.Process(door.pid)
        clock.leap_s += 11.0
        survey = door.survey(clock())
        assert ("unreadable", 1) == (survey.driver, len(survey.readings))
        assert "said nothing for 11 s" in survey.because
        assert ([stuck], []) == psutil.wait_procs([stuck], BOUND_S)
        survey = until_driver(door, clock, "present")
        assert judged(survey, clock())


def until_driver(door: NvmlDoor, clock: Clock, driver: str) -> Survey:
    """Survey after survey, until the driver is as awaited; pauses are leapt over."""
    deadline_s = time.monotonic() + BOUND_S
    while (survey := door.survey(clock())).driver != driver:
        assert time.monotonic() < deadline_s, survey
        if door.pid is None:
            clock.leap_s += 1.0
        else:
            door.wait_for_news(0.5)
    return survey


def test_a_call_that_crashes_takes_its_process_and_nothing_else(clock: Clock) -> None:
    """A segmentation fault in the library is a closed gate with a reason."""
    crashes = Fault(kind="crash", after=1)
    with door_over(make_twin(**{COUNT: crashes}), clock) as door:
        door.survey(clock())
        survey = until_driver(door, clock, "unreadable")
        assert "died (exit code -11)" in survey.because
        assert not judged(survey, clock())
        until_driver(door, clock, "present")


def test_a_machine_without_a_driver_is_asked_again_later(clock: Clock) -> None:
    """The answer stands while nobody reads, and a new process asks after the pause."""
    with door_over(make_twin(nvmlInitWithFlags="driver_not_loaded"), clock) as door:
        assert "absent" == door.survey(clock()).driver
        while door.pid is not None:
            door.wait_for_news(0.01)
        assert "absent" == door.survey(clock()).driver
        clock.leap_s += 1.0
        door.survey(clock())
        assert door.pid is not None


def test_surveying_after_the_first_time_never_waits(clock: Clock) -> None:
    """With the library hanging, a hundred surveys take no time worth naming."""
    twin = make_twin(nvmlInitWithFlags="hang")
    with door_over(twin, clock, first_answer_s=0.0) as door:
        began_s = time.monotonic()
        for _ in range(100):
            door.survey(clock())
        assert time.monotonic() - began_s < 2.0


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
        "from power.nvml import NvmlDoor\n"
        "from tests.power.makers import make_twin\n"
        "door = NvmlDoor(twin=make_twin(nvmlDeviceGetCount_v2='hang'), first_answer_s=0.2)\n"
        "door.survey(time.monotonic())\n"
        "print(door.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        reader = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        gone, alive = psutil.wait_procs([reader], BOUND_S)
    assert ([reader], []) == (gone, alive)
