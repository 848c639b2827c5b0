"""What a run makes of live devices: placed, leased, watched, paused, given back, capped, overruled.

The devices are stand-ins for NVIDIA's library behind the real door, or a scripted door where a
device must change amid a fit.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

from flows.loop import local_loop
from flows.retraining import retrain_request
from flows.run import power_source
from flows.run.progress import Display
from models.registry import partial_fits
from observability.core import file_lock
from observability.core.decision import Decision
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from observability.worth import worth
from observability.worth.worth import RetrainConfig, RetrainFacts
from power.core.device_readings import DeviceSnapshot
from power.devices.device import Device
from power.devices.fake_nvml import FakeNvml, keep_limits, kept_limits
from power.devices.leases import Leases
from power.devices.nvml import NvmlAdapter, NvmlLimitSetter
from power.forecast import device_state_file
from power.policy import deadline, override_file
from power.policy.gate_override import Override
from tests.flows.makers import ask, make_pipeline
from tests.power.makers import (
    BETWEEN_C,
    COOL_C,
    HOT_C,
    make_device,
    make_gpu,
    make_reading,
    make_twin,
)

pytestmark = [pytest.mark.usefixtures("without_prefect"), pytest.mark.slow]

SLOW = """
from sklearn.dummy import DummyClassifier

class Slow(DummyClassifier):
    rounds_of_partial_fit = 4

    def partial_fit(self, X, y, classes=None):
        {act}
        return super().fit(X, y)

    def fit(self, X, y):
        for _ in range(4):
            self.partial_fit(X, y)
        return self

def make(device="not told"):
    with open({told!r}, "a") as file:
        file.write(str(device) + "\\n")
    return Slow()
"""
"""A model in four rounds, which notes the device that it was given."""


HEATS = "from tests.flows.retraining import test_heat; test_heat.heat()"
HOT: dict[str, Callable[[], None]] = {}
"""What a round of a fit does: once, where it is called "now"; at every round, where "always"."""
SEEN = threading.Event()
"""A vigil has heard of a closed device."""


def heat() -> None:
    """Called from inside a fit; what is done once, the gate has seen when this returns."""
    HOT.get("always", lambda: None)()
    act = HOT.pop("now", None)
    if act is not None:
        act()
        SEEN.wait(120)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeNvml], None]:
    """Put a stand-in for NVIDIA's library into this machine."""

    def put(twin: FakeNvml) -> None:
        monkeypatch.setattr(power_source, "NvmlAdapter", partial(NvmlAdapter, twin=twin))
        monkeypatch.setattr(power_source, "NvmlLimitSetter", partial(NvmlLimitSetter, twin=twin))

    return put


class Scripted:
    """A door whose devices have the margins that a test sets, whenever it sets them."""

    def __init__(self, **margins_c: float | None) -> None:
        self.margins_c = {f"GPU-{name}": margin_c for name, margin_c in margins_c.items()}
        self.news = threading.Condition()
        self._told: dict[str, float | None] = {}

    def __call__(self, **knobs: object) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    def set(self, name: str, margin_c: float | None) -> None:
        """From now on the device says this."""
        with self.news:
            self.margins_c[f"GPU-{name}"] = margin_c
            self.news.notify_all()

    def survey(self, now_s: float) -> DeviceSnapshot:
        """A new reading of each device."""
        self._told = dict(self.margins_c)
        readings = tuple(
            make_reading(uuid=uuid, margin_c=margin_c, read_at_s=now_s)
            for uuid, margin_c in self._told.items()
        )
        return DeviceSnapshot(readings=readings, driver="present", because="a script")

    def devices(self) -> tuple[Device, ...]:
        """Devices that nobody may set a limit of."""
        return tuple(Device(uuid=uuid) for uuid in self.margins_c)

    def wait_for_news(self, timeout_s: float) -> bool:
        """Until a test sets something."""
        with self.news:
            return self.news.wait_for(lambda: self._told != self.margins_c, min(timeout_s, 0.05))


@contextmanager
def scripted(monkeypatch: pytest.MonkeyPatch, **margins_c: float | None) -> Iterator[Scripted]:
    """A machine with a scripted door."""
    door = Scripted(**margins_c)
    monkeypatch.setattr(power_source, "NvmlAdapter", door)
    yield door


def slow(folder: Path, act: str = "pass") -> dict[str, Any]:
    """The knobs of a model in rounds, each of which does `act`."""
    told = str(folder / "devices.txt")
    (folder / f"own_{folder.name}.py").write_text(SLOW.format(act=act, told=told))
    return {"recipe": f"own_{folder.name}:make"}


def run(folder: Path, limit: int = 400, **tables: Any) -> dict[str, Any]:
    """The summary of `limit` records of a small pipeline, run on live devices."""
    tables["gate"] = {"source": "nvml", **tables.get("gate", {})}
    path = make_pipeline(folder, **tables)
    told: dict[str, Any] = local_loop.run_loop.fn(path, folder / "home", limit)
    return told


def test_of_two_devices_the_cooler_one_gets_the_job_and_is_told_to_it(
    tmp_path: Path, machine: Callable[[FakeNvml], None]
) -> None:
    """The placement is a decision with its device; the factory and the cost name the same."""
    machine(make_twin(make_gpu("GPU-a", tlimit_c=30), make_gpu("GPU-b", tlimit_c=50)))
    run(tmp_path, batch=slow(tmp_path))
    placed = ask(
        tmp_path / "home", "SELECT facts->>'uuid' AS uuid FROM decisions WHERE question='admission'"
    )
    assert {"GPU-b"} == {row["uuid"] for row in placed}
    assert {"GPU-b"} == {row["uuid"] for row in ask(tmp_path / "home", "FROM costs")}
    # Every fit builds two models: of the whole window and of its newest half.
    assert {"GPU-b"} == set((tmp_path / "devices.txt").read_text().split()[1:])


def test_a_leased_device_is_left_to_its_holder(
    tmp_path: Path, machine: Callable[[FakeNvml], None]
) -> None:
    """The next best takes the job; with none left it waits, and says for whom."""
    machine(make_twin(make_gpu("GPU-a", tlimit_c=30), make_gpu("GPU-b", tlimit_c=50)))
    leases = Leases(Places(tmp_path / "home").devices)
    held = leases.take("GPU-b", "prices")
    assert held is not None
    run(tmp_path, 300)
    assert {"GPU-a"} == {row["uuid"] for row in ask(tmp_path / "home", "FROM costs")}
    held_too = leases.take("GPU-a", "prices")
    assert held_too is not None
    waits = run(tmp_path, 300, worth={"max_age_records": 1})
    assert "is leased to prices (process " in waits["open_request"]["why_deferred"]
    held.release()
    held_too.release()


def test_a_device_is_given_back_after_the_fit(
    tmp_path: Path, machine: Callable[[FakeNvml], None]
) -> None:
    """Whatever came of it, the next job finds it free."""
    machine(make_twin())
    run(tmp_path, 400, batch=slow(tmp_path, "raise ValueError('no')"))
    assert ask(tmp_path / "home", "FROM requests WHERE state = 'no_model'")
    lease = Leases(Places(tmp_path / "home").devices).take("GPU-a", "test")
    assert lease is not None
    lease.release()


def test_what_was_learned_of_a_device_is_kept_for_the_next_run(
    tmp_path: Path, machine: Callable[[FakeNvml], None]
) -> None:
    """The home knows it, readings of both runs together; the pipeline knows its job."""
    machine(make_twin())
    run(tmp_path)
    devices = Places(tmp_path / "home").devices
    first = device_state_file.load(devices)["GPU-a"].model.readings
    assert first > 0
    run(tmp_path)
    assert device_state_file.load(devices)["GPU-a"].model.readings > first


def test_a_fit_pauses_on_a_closed_gate_and_goes_on_when_it_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hot amid the fit it stands still; cool again it ends as it would have; the pause is told."""
    with scripted(monkeypatch, a=COOL_C) as door:
        paused = threading.Event()
        happened = Display.log_event

        def hear(display: Any, position: int, what: str, because: str, style: str) -> None:
            happened(display, position, what, because, style)
            if what == "paused":
                paused.set()

        monkeypatch.setattr(Display, "log_event", hear)
        monkeypatch.setitem(HOT, "now", lambda: door.set("a", HOT_C))

        def cool_down() -> None:
            paused.wait(120)
            door.set("a", COOL_C)

        cooler = threading.Thread(target=cool_down)
        cooler.start()
        told = run(tmp_path, 300, batch=slow(tmp_path, HEATS), gate={"dwell_s": 0})
        cooler.join()
    assert paused.is_set()
    assert (0, 1) == (told["deferrals"], told["retrains"])
    (cost,) = ask(tmp_path / "home", "FROM costs")
    assert 0 < cost["paused_s"] <= cost["seconds"]
    assert cost["lowest_margin_c"] == HOT_C
    assert cost["interrupt_strategy"].startswith("rounds by partial_fit")


@pytest.fixture(autouse=True)
def gate_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """`SEEN` is set as it says."""
    from flows.retraining import thermal_guard

    SEEN.clear()
    hear = thermal_guard.ThermalGuard.on_snapshot

    def heard(self: thermal_guard.ThermalGuard, look: Any) -> None:
        hear(self, look)
        if not self.answer:
            SEEN.set()

    monkeypatch.setattr(thermal_guard.ThermalGuard, "on_snapshot", heard)


def test_past_its_bound_a_pause_gives_the_device_back_and_the_fit_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was fitted is kept, the request is deferred, the next attempt ends what was begun."""
    with scripted(monkeypatch, a=COOL_C) as door:
        monkeypatch.setitem(HOT, "now", lambda: door.set("a", HOT_C))
        knobs = {"batch": slow(tmp_path, HEATS), "gate": {"dwell_s": 0, "max_pause_s": 0}}
        first = run(tmp_path, 200, **knobs)
        assert (1, 0) == (first["deferrals"], first["retrains"])
        assert "gives the device back" in first["open_request"]["why_deferred"]
        kept = Places(tmp_path / "home").pipeline("small").fit_checkpoint
        assert kept.exists()
        lease = Leases(Places(tmp_path / "home").devices).take("GPU-a", "test")
        assert lease is not None
        lease.release()
        door.set("a", COOL_C)
        run(tmp_path, 100, **knobs)
    assert not kept.exists()
    (model,) = ask(tmp_path / "home", "SELECT version FROM models ORDER BY stored_at LIMIT 1")
    # The window that was begun is the one that was ended, though the stream went on.
    assert "v000000200" == model["version"]
    guards = ask(tmp_path / "home", "SELECT yes, because FROM decisions WHERE question = 'guard'")
    assert [False] == [row["yes"] for row in guards]
    fits = ask(tmp_path / "home", "SELECT version FROM costs ORDER BY started_at")
    assert [None, "v000000200"] == [row["version"] for row in fits][:2]


def test_a_sensor_that_is_lost_amid_a_fit_stops_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown temperature is not a cool one."""
    with scripted(monkeypatch, a=COOL_C) as door:
        monkeypatch.setitem(HOT, "now", lambda: door.set("a", None))
        told = run(tmp_path, 200, batch=slow(tmp_path, HEATS), gate={"max_pause_s": 0})
    assert (1, 0) == (told["deferrals"], told["retrains"])
    assert "tells no margin" in told["open_request"]["why_deferred"]


@pytest.mark.parametrize(
    ("at_deadline", "may_set", "state", "cap_w"),
    [
        ("skip", True, "skipped", None),
        ("run", True, "promoted", None),
        ("capped", True, "promoted", 350.0),
        ("capped", False, "skipped", None),
    ],
)
def test_at_its_deadline_a_request_is_skipped_run_or_run_under_a_limit(
    tmp_path: Path,
    machine: Callable[[FakeNvml], None],
    at_deadline: str,
    may_set: bool,
    state: str,
    cap_w: float | None,
) -> None:
    """What the knob says; capped where the limit can be set, and put back afterwards."""
    limits = tmp_path / "limits.json"
    twin = make_twin(make_gpu(tlimit_c=int(HOT_C)))
    machine(twin.model_copy(update={"limits_kept_in": str(limits), "may_set_limit": may_set}))
    run(tmp_path, 200, gate={"deadline_s": 0, "at_deadline": at_deadline})
    (request,) = ask(tmp_path / "home", "SELECT state FROM requests LIMIT 1")
    assert state == request["state"]
    costs = ask(tmp_path / "home", "SELECT cap_w FROM costs LIMIT 1")
    assert [cap_w] == [row["cap_w"] for row in costs] or (not costs and state == "skipped")
    assert kept_limits(limits).get("GPU-a", 700_000) == 700_000
    assert not list(Places(tmp_path / "home").devices.glob("*.limit.json"))


def test_a_device_that_is_too_warm_and_cannot_be_capped_takes_no_job(
    tmp_path: Path, machine: Callable[[FakeNvml], None]
) -> None:
    """The driver says yes and changes nothing: the request is refused, and nothing is fitted."""
    faults: dict[str, Any] = {"nvmlDeviceSetPowerManagementLimit": "absurd"}
    hot = make_gpu(tlimit_c=int(HOT_C), faults=faults)
    twin = make_twin(hot)
    limits = str(tmp_path / "limits.json")
    machine(twin.model_copy(update={"limits_kept_in": limits, "may_set_limit": True}))
    told = run(tmp_path, 200, gate={"deadline_s": 0, "at_deadline": "capped"})
    assert 0 == told["run"]["fits"]
    (request,) = ask(tmp_path / "home", "SELECT state, because FROM requests")
    assert "no_model" == request["state"]
    assert "its limit could not be lowered" in request["because"]


def test_caps_are_measured_one_a_run_and_what_each_took_is_known(
    tmp_path: Path, machine: Callable[[FakeNvml], None]
) -> None:
    """Opted in, the first fits run under no cap, then the mildest, and so on; each is told."""
    limits = tmp_path / "limits.json"
    twin = make_twin(make_gpu())
    machine(twin.model_copy(update={"limits_kept_in": str(limits), "may_set_limit": True}))
    cap = {"enabled": True, "shares": [0.9, 0.8], "max_slowdown": 10.0}
    run(tmp_path, 1_000, cap=cap, worth={"max_age_records": 1})
    caps_w = [
        row["cap_w"]
        for row in ask(tmp_path / "home", "SELECT cap_w FROM costs ORDER BY started_at")
    ]
    assert [None, 630.0, 560.0] == caps_w[:3]
    told = ask(
        tmp_path / "home", "SELECT yes, because FROM decisions WHERE question = 'power_limit'"
    )
    assert len(told) >= 4
    assert all(row["yes"] for row in told)
    assert 700_000 == kept_limits(limits).get("GPU-a", 700_000)


@pytest.mark.parametrize(("enabled", "expected_w"), [(True, 560.0), (False, None)])
def test_a_retrain_that_is_worth_less_energy_runs_under_a_lower_limit(
    tmp_path: Path,
    machine: Callable[[FakeNvml], None],
    monkeypatch: pytest.MonkeyPatch,
    enabled: bool,
    expected_w: float | None,
) -> None:
    """The request says so, and the admission does it where capping is allowed."""
    limits, judge = tmp_path / "limits.json", worth.judge

    def capped(facts: RetrainFacts, config: RetrainConfig) -> Decision:
        decision = judge(facts, config)
        answer = {"answer": "capped" if decision.yes else "skip"}
        return decision.model_copy(update={"facts": {**decision.facts, **answer}})

    monkeypatch.setattr(worth, "judge", capped)
    machine(
        make_twin(make_gpu()).model_copy(
            update={"limits_kept_in": str(limits), "may_set_limit": True}
        )
    )
    cap = {"enabled": enabled, "shares": [0.9, 0.8], "measure": False}
    told = run(tmp_path, 200, cap=cap)
    assert 1 == told["run"]["fits"]
    assert [expected_w] == [row["cap_w"] for row in ask(tmp_path / "home", "FROM costs")]


def test_a_limit_that_a_killed_run_left_is_put_back_by_the_next_and_told(
    tmp_path: Path, machine: Callable[[FakeNvml], None]
) -> None:
    """Whatever that one's gate goes by."""
    limits, devices = tmp_path / "limits.json", Places(tmp_path / "home").devices
    devices.mkdir(parents=True)
    keep_limits(limits, {"GPU-a": 400_000})
    left = {
        "uuid": "GPU-a",
        "limit_w": 700.0,
        "cap_w": 400.0,
        "pid": 1,
        "at": datetime.now(UTC).isoformat(),
    }
    (devices / "GPU-a.limit.json").write_text(json.dumps(left))
    machine(make_twin().model_copy(update={"limits_kept_in": str(limits), "may_set_limit": True}))
    run(tmp_path, 100, gate={"source": "off"})
    assert 700_000 == kept_limits(limits)["GPU-a"]
    (row,) = ask(
        tmp_path / "home", "SELECT yes, because FROM decisions WHERE question = 'power_limit'"
    )
    assert row["yes"]
    assert "put back to 700 W" in row["because"]


@pytest.mark.parametrize(("opens", "margin_c"), [(True, HOT_C), (False, COOL_C)])
def test_a_persons_override_decides_and_is_in_the_history(
    tmp_path: Path, machine: Callable[[FakeNvml], None], opens: bool, margin_c: float
) -> None:
    """Open, a hot device takes the job and is not paused; closed, a cool one waits."""
    now = datetime.now(UTC)
    word = Override(open=opens, set_at=now, until=now + timedelta(hours=1), because="a test")
    override_file.write(Places(tmp_path / "home").override, word)
    machine(make_twin(make_gpu(tlimit_c=int(margin_c))))
    told = run(tmp_path, 200)
    assert opens is bool(told["retrains"])
    assert opens is not bool(told["deferrals"])
    rows = ask(tmp_path / "home", "SELECT yes FROM decisions WHERE facts->>'override' IS NOT NULL")
    assert {opens} == {row["yes"] for row in rows}


def test_a_damaged_override_ends_the_run_and_leaves_no_device_taken(
    tmp_path: Path, machine: Callable[[FakeNvml], None]
) -> None:
    """It is read before anything is taken: the error holds its frames, and whatever they hold."""
    path = Places(tmp_path / "home").override
    path.parent.mkdir()
    path.write_text("{")
    machine(make_twin())
    with pytest.raises(BadConfiguration, match="gate override clear"):
        run(tmp_path, 200)
    locks = Places(tmp_path / "home").devices.glob("*.lock")
    assert not any(file_lock.is_held(path) for path in locks)


def test_an_urgent_request_is_let_in_at_a_lower_margin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the margins a closed device stays closed, unless the request is urgent enough."""
    for name, urgency in (("calm", 0.0), ("urgent", 1.0)):
        (tmp_path / name).mkdir()
        with scripted(monkeypatch, a=BETWEEN_C):
            # A request is as old as its deadline at once: all the urgency that waiting gives.
            monkeypatch.setattr(deadline, "urgency", lambda *_, told=urgency: told)
            told = run(tmp_path / name, 200)
        assert bool(urgency) is bool(told["retrains"])


def test_a_fit_sees_the_device_that_it_was_given(
    tmp_path: Path, machine: Callable[[FakeNvml], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA is shown the one GPU while the fit runs, and what was there before afterwards."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    machine(make_twin(make_gpu("GPU-a", tlimit_c=30), make_gpu("GPU-b", tlimit_c=50)))
    shown: list[str] = []
    monkeypatch.setitem(HOT, "always", lambda: shown.append(os.environ["CUDA_VISIBLE_DEVICES"]))
    run(tmp_path, 200, batch=slow(tmp_path, HEATS))
    assert {"GPU-b"} == set(shown)
    assert "GPU-a,GPU-b" == os.environ["CUDA_VISIBLE_DEVICES"]


class Settable(Scripted):
    """A scripted door to devices whose limit may be set."""

    def devices(self) -> tuple[Device, ...]:
        """As the stand-in library's are."""
        return tuple(make_device(uuid=uuid) for uuid in self.margins_c)


def settable(monkeypatch: pytest.MonkeyPatch, limits: Path, **margins_c: float) -> Settable:
    """A machine with a scripted door, and the limits of the stand-in library kept in `limits`."""
    door = Settable(**margins_c)
    twin = make_twin().model_copy(update={"limits_kept_in": str(limits), "may_set_limit": True})
    monkeypatch.setattr(power_source, "NvmlAdapter", door)
    monkeypatch.setattr(power_source, "NvmlLimitSetter", partial(NvmlLimitSetter, twin=twin))
    return door


CAPPED: Mapping[str, Any] = {"enabled": True, "shares": [0.9], "max_slowdown": 10.0}


def test_a_signal_amid_a_pause_gives_everything_back_and_leaves_the_request_owed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paused, leased and under a cap: device and limit are as before, the cost is told."""
    limits = tmp_path / "limits.json"
    door = settable(monkeypatch, limits, a=COOL_C)
    # The first fit of a pipeline is measured without a cap.
    knobs = {"cap": CAPPED, "gate": {"dwell_s": 0}, "worth": {"max_age_records": 1}}
    run(tmp_path, 200, batch=slow(tmp_path, HEATS), **knobs)
    happened = Display.log_event

    def hear(display: Any, position: int, what: str, because: str, style: str) -> None:
        happened(display, position, what, because, style)
        if what == "paused":
            assert 630_000 == kept_limits(limits)["GPU-a"]
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Display, "log_event", hear)
    monkeypatch.setitem(HOT, "now", lambda: door.set("a", HOT_C))
    told = run(tmp_path, 400, batch=slow(tmp_path, HEATS), **knobs)
    assert "stopped" == told["outcome"]
    assert told["open_request"] is not None
    assert 700_000 == kept_limits(limits)["GPU-a"]
    assert not list(Places(tmp_path / "home").devices.glob("*.limit.json"))
    lease = Leases(Places(tmp_path / "home").devices).take("GPU-a", "test")
    assert lease is not None
    lease.release()
    costs = ask(tmp_path / "home", "FROM costs ORDER BY started_at")
    assert [None, 630.0] == [row["cap_w"] for row in costs]
    door.set("a", COOL_C)
    again = run(tmp_path, 400, batch=slow(tmp_path, HEATS), **knobs)
    assert "limit_reached" == again["outcome"]
    states = ask(tmp_path / "home", "SELECT state FROM requests ORDER BY requested_at")
    assert {"promoted", "rejected"} >= {row["state"] for row in states[:2]}


def test_a_signal_while_the_limit_is_put_back_does_not_leave_it_lowered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may break off the fit, and nothing that makes up for one."""
    limits = tmp_path / "limits.json"
    settable(monkeypatch, limits, a=COOL_C)
    change = NvmlLimitSetter.change
    knobs = {"cap": CAPPED, "worth": {"max_age_records": 1}}
    run(tmp_path, 200, batch=slow(tmp_path), **knobs)

    def interrupted(setter: NvmlLimitSetter, uuid: str, from_w: float, to_w: float) -> Any:
        if to_w > from_w:
            signal.raise_signal(signal.SIGTERM)
        return change(setter, uuid, from_w, to_w)

    monkeypatch.setattr(NvmlLimitSetter, "change", interrupted)
    told = run(tmp_path, 400, batch=slow(tmp_path), **knobs)
    assert "stopped" == told["outcome"]
    assert 700_000 == kept_limits(limits)["GPU-a"]
    (row,) = ask(tmp_path / "home", "FROM costs WHERE cap_w IS NOT NULL")
    assert row["seconds"] > 0


@pytest.fixture
def given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Any]]:
    """Run to position 200, where the fit gives its device back because that grew hot."""
    door = Scripted(a=COOL_C)
    monkeypatch.setattr(power_source, "NvmlAdapter", door)

    def first() -> dict[str, Any]:
        monkeypatch.setitem(HOT, "now", lambda: door.set("a", HOT_C))
        try:
            return run(tmp_path, 200, batch=slow(tmp_path, HEATS), gate=IMPATIENT)
        finally:
            door.set("a", COOL_C)

    return first


IMPATIENT: Mapping[str, Any] = {"dwell_s": 0, "max_pause_s": 0}


def test_a_disk_that_takes_no_partial_costs_the_fit_anew_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_back: Callable[[], dict[str, Any]]
) -> None:
    """What is half fitted may be the one thing that is too large: the request is put off."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(partial_fits, "save", full)
    first = given_back()
    assert (1, 0) == (first["deferrals"], first["retrains"])
    again = run(tmp_path, 100, batch=slow(tmp_path, HEATS), gate=IMPATIENT)
    assert 1 == again["retrains"]
    fits = ask(tmp_path / "home", "SELECT version FROM costs ORDER BY started_at")
    assert [None, "v000000200"] == [row["version"] for row in fits]
    assert not Places(tmp_path / "home").pipeline("small").fit_checkpoint.exists()


def test_a_partial_whose_run_failed_before_it_was_told_is_used_and_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_back: Callable[[], dict[str, Any]]
) -> None:
    """It is on disk before the checkpoint: what comes next goes on from it, and leaves nothing."""
    with monkeypatch.context() as patched:
        patched.setattr(retrain_request, "defer", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            given_back()
    kept = Places(tmp_path / "home").pipeline("small").fit_checkpoint
    assert kept.exists()
    told = run(tmp_path, 100, batch=slow(tmp_path, HEATS), gate=IMPATIENT)
    assert 1 == told["retrains"]
    assert not kept.exists()


def test_an_override_that_is_damaged_amid_a_run_ends_it_and_costs_nothing(
    tmp_path: Path, machine: Callable[[FakeNvml], None]
) -> None:
    """Nobody can tell which way it pointed: the run says so, holds no device, and goes on later."""
    machine(make_twin())
    path = Places(tmp_path / "home").override
    run(tmp_path, 100)
    path.write_text("{")
    with pytest.raises(BadConfiguration, match="override clear"):
        run(tmp_path, 200)
    locks = Places(tmp_path / "home").devices.glob("*.lock")
    assert not any(file_lock.is_held(path) for path in locks)
    override_file.clear(path)
    told = run(tmp_path, 100)
    assert 1 == told["retrains"]


@pytest.mark.parametrize("why", ["run", "capped", "override"])
def test_whoever_begins_however_warm_it_is_takes_a_device_that_is_free(
    tmp_path: Path, machine: Callable[[FakeNvml], None], why: str
) -> None:
    """At the deadline, or by a person's word, the best device may be another job's."""
    limits, home = tmp_path / "limits.json", Places(tmp_path / "home")
    twin = make_twin(make_gpu("GPU-a", tlimit_c=3), make_gpu("GPU-b", tlimit_c=4))
    machine(twin.model_copy(update={"limits_kept_in": str(limits), "may_set_limit": True}))
    knobs: dict[str, Any] = {"deadline_s": 0, "at_deadline": why}
    if why == "override":
        now, knobs = datetime.now(UTC), {}
        until = now + timedelta(hours=1)
        override_file.write(
            home.override, Override(open=True, set_at=now, until=until, because="test")
        )
    with Leases(home.devices).held("GPU-b", "prices") as held:
        assert held is not None
        told = run(tmp_path, 200, gate=knobs)
    assert (0, 1) == (told["deferrals"], told["retrains"])
    (cost,) = ask(tmp_path / "home", "FROM costs")
    assert "GPU-a" == cost["uuid"]
    assert (350.0 if why == "capped" else None) == cost["cap_w"]


def test_what_the_gate_remembers_outlives_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that one run saw close stays closed for its dwell in the next one."""
    knobs = {"gate": {"dwell_s": 1_000}, "worth": {"max_age_records": 1}}
    with scripted(monkeypatch, a=COOL_C) as door:
        assert 1 == run(tmp_path, 200, **knobs)["retrains"]
        door.set("a", HOT_C)
        run(tmp_path, 200, **knobs)
        door.set("a", COOL_C)
        told = run(tmp_path, 100, **knobs)
    assert "stays closed for 1000 s (dwell_s)" in told["open_request"]["why_deferred"]
