"""A device's power limit is lowered while a job runs, and put back whatever happens."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.core import failpoints, file_lock
from power.devices import nvml_worker, power_limit
from power.devices.device import LimitChange, LimitRefused, PowerLimit
from power.devices.fake_nvml import FakeNvml, FakeNvmlLibrary, FaultKind, keep_limits, kept_limits
from power.devices.nvml import NvmlAdapter, NvmlLimitSetter
from power.devices.nvml_worker import CallWatchdog, LimitCommand, LimitReport
from power.devices.power_limit import PowerLimitResult
from tests import ROOT
from tests.power.makers import make_gpu, make_twin

BOUND_S = 120.0
"""Longer than anything here takes; a test that reaches it has failed."""
SET = "nvmlDeviceSetPowerManagementLimit"
GET = "nvmlDeviceGetPowerManagementLimit"
POINTS = [point for point in failpoints.POINTS if point.startswith("power_limit.")]
OLD_MW, CAP_W = 600_000, 420.0
Broken = Mapping[str, FaultKind]
NOTHING: Broken = {}


class StandInSetter:
    """Sets limits of a stand-in library in this process, as `reader` does in one of its own.

    Fast, and killed with the process as the driver's memory is not: that is in `limits_kept_in`.
    """

    def __init__(self, twin: FakeNvml) -> None:
        self.twin = twin
        self.calls = 0

    def read(self, uuid: str) -> PowerLimit:
        """What the device is set to."""
        return self._run(LimitCommand(uuid=uuid, hang_s=BOUND_S)).after

    def change(self, uuid: str, from_w: float, to_w: float) -> LimitChange:
        """Set it to `to_w`, if it is at `from_w`."""
        return self._run(LimitCommand(uuid=uuid, from_w=from_w, to_w=to_w, hang_s=BOUND_S))

    def _run(self, errand: LimitCommand) -> LimitChange:
        self.calls += 1
        report = reported(self.twin, errand)
        if report.change is None:
            raise LimitRefused(report.trouble)
        return report.change


def reported(twin: FakeNvml, errand: LimitCommand) -> LimitReport:
    """What the process that does `errand` would say, through the real binding."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pynvml.nvmlLib", FakeNvmlLibrary(twin))
        patch.setattr("pynvml._nvmlGetFunctionPointer_cache", {})
        return nvml_worker.limit_report(errand, CallWatchdog(BOUND_S))


class Machine:
    """A machine with one capable GPU at 600 of 200 to 700 W, and a home."""

    def __init__(self, folder: Path) -> None:
        self.devices = folder / "devices"
        self.limits_kept_in = folder / "limits"
        keep_limits(self.limits_kept_in, {"GPU-a": OLD_MW})

    def twin(self, broken: Broken = NOTHING) -> FakeNvml:
        """Its library."""
        gpu = make_gpu(faults=broken)
        return make_twin(gpu).model_copy(update={"limits_kept_in": str(self.limits_kept_in)})

    def setter(self, broken: Broken = NOTHING) -> StandInSetter:
        """What sets its limits."""
        return StandInSetter(self.twin(broken))

    @property
    def limit_w(self) -> float:
        """What the device is set to now."""
        return kept_limits(self.limits_kept_in)["GPU-a"] / 1000

    @property
    def remembered(self) -> list[str]:
        """What is to be put back."""
        return sorted(path.name for path in self.devices.glob("*.json"))

    @contextmanager
    def capped(
        self, cap_w: float | None = CAP_W, broken: Broken = NOTHING
    ) -> Iterator[PowerLimitResult]:
        """Its one device, capped."""
        setter = self.setter(broken)
        with power_limit.capped("GPU-a", cap_w, self.devices, setter) as told:
            yield told


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine that nobody has touched; fault points are disarmed afterwards."""
    yield Machine(tmp_path)
    failpoints.disarm()


def test_a_limit_is_lowered_in_the_block_and_put_back_after_it(machine: Machine) -> None:
    """The block runs at 420 W, what was before is on disk meanwhile, and then all is as it was."""
    with machine.capped() as told:
        assert (True, CAP_W) == (told.begun.yes, told.cap_w)
        assert "the limit of GPU-a is 420 W, 600 W before" == told.begun.because
        assert (CAP_W, ["GPU-a.limit.json"]) == (machine.limit_w, machine.remembered)
        kept = json.loads((machine.devices / "GPU-a.limit.json").read_text())
        assert ("GPU-a", 600.0, CAP_W) == (kept["uuid"], kept["limit_w"], kept["cap_w"])
    assert told.ended
    assert told.held
    assert "is put back to 600 W" in told.ended.because
    assert (600.0, []) == (machine.limit_w, machine.remembered)


@pytest.mark.parametrize("ends_by", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_it_is_put_back_whatever_ends_the_block(
    machine: Machine, ends_by: type[BaseException]
) -> None:
    """An error, Ctrl-C, or a stop: the same exception comes out, and the limit is as before."""
    with pytest.raises(ends_by), machine.capped() as told:
        raise ends_by
    assert told.ended
    assert (600.0, []) == (machine.limit_w, machine.remembered)


class StopNow(BaseException):
    """What a stop of ours looks like."""


@pytest.mark.parametrize("after", range(1, 7))
def test_a_stop_at_any_call_of_the_driver_leaves_the_limit_as_it_was(
    machine: Machine, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is read, set, checked or put back: nothing is left that a next start cannot mend."""
    calls, run = 0, StandInSetter._run

    def stopped(setter: StandInSetter, errand: LimitCommand) -> LimitChange:
        nonlocal calls
        calls += 1
        change = run(setter, errand)
        if calls == after:
            raise StopNow
        return change

    monkeypatch.setattr(StandInSetter, "_run", stopped)
    try:
        with machine.capped():
            pass
    except StopNow:
        power_limit.restore_leftover_limits(machine.devices, machine.setter())
    assert (600.0, []) == (machine.limit_w, machine.remembered)


@pytest.mark.parametrize(
    ("cap_w", "told"),
    [
        (None, "no cap is asked for"),
        (600.0, "no higher than 600 W"),
        (650.0, "no higher than 650 W"),
        (100.0, "takes 200 to 700 W, not 100 W"),
        (900.0, "takes 200 to 700 W, not 900 W"),
        (float("nan"), "takes 200 to 700 W, not nan W"),
    ],
)
def test_a_cap_that_is_none_or_out_of_range_sets_nothing(
    machine: Machine, cap_w: float | None, told: str
) -> None:
    """The block runs, under the limit that is there; that is said, and nothing is left to undo."""
    with machine.capped(cap_w) as capping:
        assert (600.0, []) == (machine.limit_w, machine.remembered)
        assert (False, None) == (capping.begun.yes, capping.cap_w)
        assert told in capping.begun.because
    assert (None, True) == (capping.ended, capping.held)


@pytest.mark.parametrize(
    ("function", "fault", "told"),
    [
        (SET, "no_permission", "run it as root, with CAP_SYS_ADMIN in a container"),
        (SET, "not_supported", "this device takes no power limit"),
        (SET, "absurd", "the driver reports success and changes nothing"),
        (SET, "lost", "reset the device"),
        (GET, "no_permission", "run it as root"),
        (GET, "absurd", "its limits cannot be: limit_w = 644245.923"),
        (GET, "missing", "install a newer NVIDIA driver"),
    ],
)
def test_a_driver_that_refuses_leaves_the_job_uncapped(
    machine: Machine, function: str, fault: FaultKind, told: str
) -> None:
    """The block runs all the same, what was wrong is said, and nothing is left to undo."""
    with machine.capped(broken={function: fault}) as capping:
        assert told in capping.begun.because
        assert not capping.begun
        assert 600.0 == machine.limit_w
        assert [] == machine.remembered
    assert capping.ended is None


class Rounding(StandInSetter):
    """A driver that sets multiples of 50 W."""

    def _run(self, errand: LimitCommand) -> LimitChange:
        to_w = None if errand.to_w is None else 50 * round(errand.to_w / 50)
        return super()._run(errand.model_copy(update={"to_w": to_w}))


def test_what_a_driver_makes_of_a_cap_is_put_back_too(machine: Machine) -> None:
    """420 W become 400 W: that is no cap that was chosen, and it does not stay."""
    setter = Rounding(machine.twin())
    with power_limit.capped("GPU-a", CAP_W, machine.devices, setter) as told:
        assert "the driver makes 400 W of it" in told.begun.because
        assert (False, 600.0) == (told.begun.yes, machine.limit_w)
    assert [] == machine.remembered


class Forgetful(StandInSetter):
    """A driver that forgets a limit with the process that set it."""

    def _run(self, errand: LimitCommand) -> LimitChange:
        change = super()._run(errand)
        keep_limits(Path(str(self.twin.limits_kept_in)), {"GPU-a": OLD_MW})
        return change


def test_a_driver_that_does_not_keep_a_limit_is_noticed(machine: Machine) -> None:
    """Without persistence a cap is gone when nothing uses the device: it is asked anew."""
    setter = Forgetful(machine.twin())
    with power_limit.capped("GPU-a", CAP_W, machine.devices, setter) as told:
        assert "a moment later it is 600 W; turn on persistence mode" in told.begun.because
    assert (False, []) == (told.begun.yes, machine.remembered)


class Overtaken(StandInSetter):
    """A device on which somebody sets another limit just before we do."""

    def change(self, uuid: str, from_w: float, to_w: float) -> LimitChange:
        keep_limits(Path(str(self.twin.limits_kept_in)), {"GPU-a": 300_000})
        return super().change(uuid, from_w, to_w)


def test_who_sets_a_limit_in_the_same_moment_is_right(machine: Machine) -> None:
    """The cap is not set over it, and the limit of before is not put back over it."""
    setter = Overtaken(machine.twin())
    with power_limit.capped("GPU-a", CAP_W, machine.devices, setter) as told:
        assert "somebody set it to 300 W in this moment, which counts" in told.begun.because
    assert (False, 300.0, []) == (told.begun.yes, machine.limit_w, machine.remembered)


def test_a_lock_that_cannot_be_taken_is_told(machine: Machine) -> None:
    """Whether somebody holds it is unknown, so nothing is put back yet; the others are."""
    left_over(machine)
    (machine.devices / "GPU-0.limit.json").write_text("{}")
    (machine.devices / "GPU-0.limit.lock").mkdir()
    first, second = power_limit.restore_leftover_limits(machine.devices, machine.setter())
    assert "GPU-0.limit.lock" in first.because
    assert (False, True, 600.0) == (first.yes, second.yes, machine.limit_w)


def test_what_an_administrator_set_meanwhile_stays(machine: Machine) -> None:
    """The limit is no longer ours, so it is not ours to put back."""
    with machine.capped() as told:
        keep_limits(machine.limits_kept_in, {"GPU-a": 300_000})
    assert told.ended is not None
    assert not told.held
    assert "somebody changed it since, so it is left as it is" in told.ended.because
    assert (False, 300.0, []) == (told.ended.yes, machine.limit_w, machine.remembered)


def test_a_limit_that_cannot_be_put_back_stays_remembered(machine: Machine) -> None:
    """The end says so, with what to do by hand; a start with the privilege puts it back."""
    with power_limit.capped("GPU-a", CAP_W, machine.devices, setter := machine.setter()) as told:
        setter.twin = machine.twin({SET: "no_permission"})
    assert told.ended is not None
    assert not told.held
    assert not told.ended
    assert "by hand: nvidia-smi -i GPU-a -pl 600 as root, then remove" in told.ended.because
    (answer,) = power_limit.restore_leftover_limits(machine.devices, setter)
    assert (False, CAP_W, ["GPU-a.limit.json"]) == (
        *(answer.yes, machine.limit_w),
        machine.remembered,
    )
    (answer,) = power_limit.restore_leftover_limits(machine.devices, machine.setter())
    assert (True, 600.0, []) == (answer.yes, machine.limit_w, machine.remembered)


def left_over(machine: Machine) -> None:
    """A cap whose process is gone."""
    machine.devices.mkdir()
    kept = power_limit.SavedLimit.model_validate(
        {"uuid": "GPU-a", "limit_w": 600, "cap_w": CAP_W, "pid": 1, "at": "2026-01-01T00:00:00Z"}
    )
    (machine.devices / "GPU-a.limit.json").write_text(kept.model_dump_json())
    keep_limits(machine.limits_kept_in, {"GPU-a": int(1000 * CAP_W)})


@pytest.mark.parametrize(
    ("limit_w", "then_w", "yes", "told"),
    [
        (CAP_W, 600.0, True, "is put back to 600 W; it was 420 W, set by process 1"),
        (600.0, 600.0, True, "is 600 W, as it was before"),
        (300.0, 300.0, False, "is 300 W and not the 420 W that process 1 set"),
    ],
)
def test_the_next_start_puts_back_what_was_left_over(
    machine: Machine, limit_w: float, then_w: float, yes: bool, told: str
) -> None:
    """Only where the cap is still there; else it is forgotten. Each says which."""
    left_over(machine)
    keep_limits(machine.limits_kept_in, {"GPU-a": int(1000 * limit_w)})
    (answer,) = power_limit.restore_leftover_limits(machine.devices, machine.setter())
    assert ("power_limit", yes) == (answer.question, answer.yes)
    assert told in answer.because
    assert (then_w, []) == (machine.limit_w, machine.remembered)
    assert [] == power_limit.restore_leftover_limits(machine.devices, machine.setter())


def test_a_cap_puts_back_what_was_left_over_first(machine: Machine) -> None:
    """What is remembered is the limit of before the older cap, and not that cap."""
    left_over(machine)
    with machine.capped(500.0) as told:
        assert (500.0, 500.0) == (told.cap_w, machine.limit_w)
    assert (600.0, []) == (machine.limit_w, machine.remembered)


def test_no_cap_is_set_over_one_that_cannot_be_put_back(machine: Machine) -> None:
    """The older memory is not written over."""
    left_over(machine)
    before = (machine.devices / "GPU-a.limit.json").read_bytes()
    with machine.capped(300.0, {SET: "no_permission"}) as told:
        assert "an older limit is to be put back first" in told.begun.because
        assert CAP_W == machine.limit_w
    assert before == (machine.devices / "GPU-a.limit.json").read_bytes()


def test_what_a_living_process_holds_is_left_alone(machine: Machine) -> None:
    """Neither put back by a start, nor capped by a second job; the first one's end puts it back."""
    with machine.capped():
        assert [] == power_limit.restore_leftover_limits(machine.devices, machine.setter())
        with machine.capped(300.0) as second:
            assert "another process holds the limit of GPU-a" in second.begun.because
        assert (CAP_W, ["GPU-a.limit.json"]) == (machine.limit_w, machine.remembered)
    assert (600.0, []) == (machine.limit_w, machine.remembered)


def test_a_memory_that_cannot_be_read_is_told_and_kept(machine: Machine) -> None:
    """Somebody wrote into it: what is to be put back is for a person to say."""
    left_over(machine)
    file = machine.devices / "GPU-a.limit.json"
    file.write_text("{}")
    (answer,) = power_limit.restore_leftover_limits(machine.devices, machine.setter())
    assert not answer
    assert f"{file} cannot be read" in answer.because
    assert "nvidia-smi -pl, and remove the file" in answer.because
    with machine.capped(300.0) as told:
        assert "an older limit is to be put back first" in told.begun.because
    assert (CAP_W, "{}") == (machine.limit_w, file.read_text())


@given(st.lists(st.text(min_size=1, max_size=300), unique=True, min_size=2, max_size=2))
def test_every_device_has_a_plain_file_of_its_own(uuids: list[str]) -> None:
    """Whatever a driver calls its devices: no path leaves the folder, and no two are one."""
    places = [power_limit._Place.of(uuid, Path("devices")) for uuid in uuids]
    assert places[0] != places[1]
    for place in places:
        for path in place:
            assert Path("devices") == path.parent
            assert not path.name.startswith(".")
            assert len(path.name) < 200
            assert path.name.isascii()


def test_a_home_that_cannot_be_written_leaves_the_job_uncapped(machine: Machine) -> None:
    """What cannot be remembered is not set."""
    machine.devices.write_text("a file where the folder should be")
    with machine.capped() as told:
        assert 600.0 == machine.limit_w
    assert "the job runs without this cap" in told.begun.because
    assert (False, None) == (told.begun.yes, told.ended)


@pytest.mark.parametrize("point", ["atomic_file.before_rename", *POINTS])
def test_a_full_disk_at_any_point_leaves_the_limit_as_it_was(machine: Machine, point: str) -> None:
    """Where it cannot be remembered or checked there is no cap; what is put back stays so."""
    failpoints.arm(point, "raise")
    with machine.capped() as told:
        assert (point == "power_limit.before_forget") is told.begun.yes
        assert (CAP_W if told.begun else 600.0) == machine.limit_w
    answer = told.ended or told.begun
    assert "no space left on device" in answer.because.lower()
    assert 600.0 == machine.limit_w
    failpoints.disarm()
    power_limit.restore_leftover_limits(machine.devices, machine.setter())
    assert (600.0, []) == (machine.limit_w, machine.remembered)


CAPPED = """
import sys
from pathlib import Path
from flows.run.shutdown import Stop
from observability.core import failpoints
from power.devices import power_limit
from power.devices.nvml import NvmlLimitSetter
from power.devices.fake_nvml import FakeNvml
twin, devices, armed = sys.argv[1:]
failpoints.arm_from(armed)
setter = NvmlLimitSetter(twin=FakeNvml.model_validate_json(twin))
stop = Stop()
with stop.listening(), stop.breakable(), power_limit.capped(
    "GPU-a", 420.0, Path(devices), setter
) as told:
    print(told.begun.because, flush=True)
    sys.stdin.read()
"""
"""A job under a cap that goes on until its standard input ends."""


def start(machine: Machine, armed: str = "") -> subprocess.Popen[str]:
    """A job in a process of its own, with fault points armed."""
    return subprocess.Popen(
        [sys.executable, "-c", CAPPED, machine.twin().model_dump_json(), machine.devices, armed],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_the_next_start_puts_it_back(machine: Machine, point: str) -> None:
    """SIGKILL, as by a power cut: what was remembered is enough, and no aside stays."""
    with start(machine, f"{point}=kill") as job:
        job.communicate("")
    assert -signal.SIGKILL == job.returncode
    was_set = {
        "power_limit.before_set": 600.0,
        "power_limit.after_set": CAP_W,
        "power_limit.before_forget": 600.0,
    }
    assert (was_set[point], ["GPU-a.limit.json"]) == (machine.limit_w, machine.remembered)
    (answer,) = power_limit.restore_leftover_limits(machine.devices, machine.setter())
    assert answer
    assert (600.0, []) == (machine.limit_w, machine.remembered)


def test_killed_amid_the_remembering_nothing_was_set(machine: Machine) -> None:
    """What is aside is no memory, and the next cap sweeps it away."""
    with start(machine, "atomic_file.before_rename=kill") as job:
        job.communicate("")
    assert (600.0, []) == (machine.limit_w, machine.remembered)
    assert 1 == len(list(machine.devices.glob(".*.tmp")))
    with machine.capped() as told:
        assert told.begun
    assert [] == list(machine.devices.glob(".*.tmp"))


def test_killed_amid_the_job_the_next_start_puts_it_back(machine: Machine) -> None:
    """As long as the process lives, its cap does; then the lock is free."""
    with start(machine) as job:
        assert job.stdout is not None
        assert "the limit of GPU-a is 420 W, 600 W before\n" == job.stdout.readline()
        assert [] == power_limit.restore_leftover_limits(machine.devices, machine.setter())
        assert CAP_W == machine.limit_w
        job.kill()
    (answer,) = power_limit.restore_leftover_limits(machine.devices, machine.setter())
    assert "is put back to 600 W" in answer.because
    assert (600.0, []) == (machine.limit_w, machine.remembered)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_puts_it_back_before_the_process_ends(
    machine: Machine, number: signal.Signals
) -> None:
    """A stop breaks off the job as it does in a run, and the limit is put back on the way out."""
    with start(machine) as job:
        assert job.stdout is not None
        job.stdout.readline()
        job.send_signal(number)
        _, told = job.communicate(timeout=BOUND_S)
    assert "StopRequested" in told
    assert (600.0, []) == (machine.limit_w, machine.remembered)


def test_what_is_set_is_seen_by_every_reader(machine: Machine) -> None:
    """The processes that read show the cap as the enforced limit, and the gate is told of it."""
    with (
        NvmlAdapter(twin=machine.twin(), poll_s=0.02, first_answer_s=BOUND_S) as door,
        power_limit.capped(
            "GPU-a", CAP_W, machine.devices, NvmlLimitSetter(twin=machine.twin())
        ) as told,
    ):
        assert told.begun
        ends_s = time.monotonic() + BOUND_S
        while door.survey(time.monotonic()).readings[0].power_limit_w != CAP_W:
            assert door.wait_for_news(ends_s - time.monotonic())


def test_a_stand_in_may_count_as_privileged(machine: Machine) -> None:
    """So that caps can be tried where no process may set one."""
    for may in (True, False):
        twin = machine.twin().model_copy(update={"may_set_limit": may})
        with NvmlAdapter(twin=twin, poll_s=0.02, first_answer_s=BOUND_S) as door:
            door.survey(time.monotonic())
            assert [may] == [device.may_set_limit for device in door.devices()]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("hang", "the driver has not returned from nvmlDeviceSetPowerManagementLimit for 0."),
        ("crash", "the process that asks it died (exit code -11)"),
        ("no_permission", "run it as root, with CAP_SYS_ADMIN in a container"),
    ],
)
def test_a_call_that_hangs_or_kills_its_process_is_refused_in_time(
    machine: Machine, fault: FaultKind, told: str
) -> None:
    """It takes down neither us nor the job; what may have been set stays remembered."""
    setter = NvmlLimitSetter(twin=machine.twin({SET: fault}), hang_s=0.5)
    began_s = time.monotonic()
    with power_limit.capped("GPU-a", CAP_W, machine.devices, setter) as capping:
        assert not capping.begun
        assert told in capping.begun.because
    assert time.monotonic() - began_s < BOUND_S
    assert 600.0 == machine.limit_w


def test_a_process_that_says_nothing_is_stopped(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own watchdog hangs too: it is killed from outside, and none is left behind."""
    monkeypatch.setattr(
        "power.devices.nvml._command",
        lambda function, errand: [sys.executable, "-c", "import signal; signal.pause()"],
    )
    monkeypatch.setattr("power.devices.nvml._LATER_S", 0.2)
    with pytest.raises(LimitRefused, match=r"it sent nothing for 0\.3 s and was stopped; see"):
        NvmlLimitSetter(twin=machine.twin(), hang_s=0.1).read("GPU-a")


def test_a_device_that_is_not_here_is_refused(machine: Machine) -> None:
    """A home that came from another machine: named, with what lists those that are here."""
    with pytest.raises(LimitRefused, match=r"GPU-z cannot be read: .*nvidia-smi -L lists"):
        NvmlLimitSetter(twin=machine.twin()).read("GPU-z")


def test_a_machine_without_a_driver_is_refused(machine: Machine) -> None:
    """The end of the world is told in one sentence."""
    twin = make_twin(nvmlInitWithFlags="driver_not_loaded")
    with pytest.raises(LimitRefused, match=r"cannot be set to 420 W: .*load the NVIDIA driver"):
        NvmlLimitSetter(twin=twin).change("GPU-a", 600.0, CAP_W)


def test_a_limit_that_somebody_else_changed_is_not_changed(machine: Machine) -> None:
    """`change` sets only what it expects to find."""
    change = machine.setter().change("GPU-a", 650.0, CAP_W)
    assert (600.0, 600.0) == (change.before.limit_w, change.after.limit_w)
    assert 600.0 == machine.limit_w


def test_a_lock_that_stays_locks_nothing(machine: Machine) -> None:
    """The file of the lock is left; what counts is whether a process holds it."""
    for _ in range(2):
        with machine.capped() as told:
            assert told.begun
    with file_lock.held(machine.devices / "GPU-a.limit.lock"):
        pass


def whole(report: LimitReport) -> Any:
    """What a process says, as it comes out on the other side."""
    return LimitReport.model_validate_json(report.model_dump_json())


def test_a_report_comes_through_whole(machine: Machine) -> None:
    """Before and after, to the milliwatt."""
    errand = LimitCommand(uuid="GPU-a", from_w=600.0, to_w=419.999, hang_s=1.0)
    report = reported(machine.twin(), errand)
    assert report == whole(report)
    assert report.change is not None
    assert (600.0, 419.999) == tuple(each.limit_w for each in report.change)
