"""The follower: reads, judges and learns for as long as a run lasts, and is never in its way."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from observability.core import failpoints
from power.core.device_readings import DeviceReading, DeviceSnapshot
from power.core.gate_config import GateConfig
from power.devices.device import Device
from power.forecast import device_state_file
from power.forecast.config import ForecastConfig
from power.monitoring import device_monitor
from power.monitoring.device_monitor import DeviceMonitor, MonitorView
from power.policy.gate import DeviceState, GateState
from tests.power.forecast.test_forecast import KNOWN, LIFE, NOW_S
from tests.power.makers import BETWEEN_C, COOL_C, HOT_C, make_reading

OVER_S = 120.0
"""A test that waits so long has failed."""


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """No fault outlives its test."""
    yield
    failpoints.disarm()


class Door:
    """A door whose devices say something new when a test says so, and the same until then."""

    def __init__(self) -> None:
        self.news = threading.Condition()
        self.readings: dict[str, DeviceReading] = {}
        self.fails = False
        self.waits = 0
        self._shown: dict[str, DeviceReading] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    def tell(self, margin_c: float | None = COOL_C, uuid: str = "GPU-a", **facts: Any) -> None:
        """A device is read now."""
        with self.news:
            facts = {"read_at_s": time.monotonic(), **facts}
            self.readings[uuid] = make_reading(uuid=uuid, margin_c=margin_c, **facts)
            self.news.notify_all()

    def survey(self, now_s: float) -> DeviceSnapshot:
        """The last readings up to now; a door that fails raises what its protocol forbids."""
        with self.news:
            if self.fails:
                raise ZeroDivisionError("a fault of the door")
            self._shown |= {
                uuid: each for uuid, each in self.readings.items() if each.read_at_s <= now_s
            }
            readings = tuple(self._shown.values())
            return DeviceSnapshot(readings=readings, driver="present", because="a test")

    def devices(self) -> tuple[Device, ...]:
        """Devices of a name and no more."""
        return tuple(Device(uuid=uuid) for uuid in self.readings)

    def wait_for_news(self, timeout_s: float) -> bool:
        """Until a test tells something."""
        with self.news:
            self.waits += 1
            return self.news.wait_for(self._has_news, min(timeout_s, 0.02))

    def _has_news(self) -> bool:
        return self._shown != self.readings


class AlwaysNew(Door):
    """A door whose device is read anew by each look."""

    def survey(self, now_s: float) -> DeviceSnapshot:
        """A reading of now."""
        self.tell(read_at_s=now_s)
        return super().survey(now_s)


def make_follower(door: Door, folder: Path | None = None, **knobs: Any) -> DeviceMonitor:
    """A follower of `door`, whose thread has not begun."""
    return DeviceMonitor(door, GateConfig(source="nvml", **knobs), ForecastConfig(), folder)


def learned(look: MonitorView, uuid: str = "GPU-a") -> int:
    """From how many readings of a device something was learned."""
    return look.known[uuid].model.readings


def has_learned(count: int) -> Callable[[MonitorView], bool]:
    """Whether a look has come to so many readings of GPU-a."""
    return lambda look: bool(look.known) and learned(look) == count


def await_look(follows: DeviceMonitor, seen: Callable[[MonitorView], bool]) -> MonitorView:
    """The first look of the follower's own thread that `seen` is true of."""
    found: list[MonitorView] = []
    there = threading.Event()

    def hear(look: MonitorView) -> None:
        if threading.current_thread().name == "follower" and seen(look):
            found.append(look)
            there.set()

    with follows.subscribe(hear):
        assert there.wait(OVER_S)
    return found[0]


def test_each_reading_is_learned_from_once() -> None:
    """However often it is looked at: told again is not read again, the same object or another."""
    door = Door()
    follows = make_follower(door)
    for count in range(1, 5):
        door.tell(read_at_s=float(count))
        door.tell(uuid="GPU-b", read_at_s=float(count))
        assert [count] * 3 == [learned(follows.view()) for _ in range(3)]
        door.readings["GPU-a"] = door.readings["GPU-a"].model_copy()
        assert (count, count) == (learned(follows.view()), learned(follows.view(), "GPU-b"))


def test_the_thread_sees_what_nobody_asked_for() -> None:
    """What a device said between two questions is learned from as well."""
    door = Door()
    with make_follower(door) as follows:
        for count in range(1, 6):
            door.tell(read_at_s=float(count))
            await_look(follows, has_learned(count))


def test_what_was_learned_is_kept_and_gone_on_from(tmp_path: Path) -> None:
    """The next follower of this home begins with it."""
    for count in (1, 2):
        door = Door()
        door.tell()
        with make_follower(door, tmp_path / "devices") as follows:
            assert count == learned(await_look(follows, lambda look: bool(look.known)))
        assert count == device_state_file.load(tmp_path / "devices")["GPU-a"].model.readings


def test_it_is_kept_on_the_way_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed loses a minute of learning, and no more."""
    monkeypatch.setattr(device_monitor, "_KEEP_EVERY_S", 0.0)
    saved = threading.Event()
    save = device_state_file.save

    def noted(*arguments: Any) -> None:
        save(*arguments)
        saved.set()

    monkeypatch.setattr(device_state_file, "save", noted)
    door = Door()
    door.tell()
    with make_follower(door, tmp_path) as follows:
        await_look(follows, lambda look: bool(look.known))
        saved.clear()
        assert saved.wait(OVER_S)
        assert "GPU-a" in device_state_file.load(tmp_path)


def test_a_full_disk_is_no_error(tmp_path: Path) -> None:
    """What it does not take is learned again: closing passes, and leaves nothing half written."""
    door = Door()
    door.tell()
    with make_follower(door, tmp_path) as follows:
        follows.view()
        failpoints.arm("atomic_file.before_write", "raise")
    assert [] == list(tmp_path.iterdir())


def test_nothing_is_kept_where_no_folder_is_named(tmp_path: Path) -> None:
    """A follower without a home learns for itself."""
    door = Door()
    door.tell()
    with make_follower(door) as follows:
        assert 1 == learned(follows.view())
    assert [] == list(tmp_path.iterdir())


def test_the_answer_waits_for_the_good_readings_of_a_closed_device() -> None:
    """A device is not refused for having been looked at too seldom: it is looked at once more."""
    door = Door()
    door.tell()
    over = threading.Event()

    def go_on_telling() -> None:
        while not over.is_set():
            door.tell()
            over.wait(0.01)

    teller = threading.Thread(target=go_on_telling)
    with make_follower(door) as follows:
        teller.start()
        look = follows.judge(GateState(), GateConfig(source="nvml", good_readings=4))
        over.set()
        teller.join()
    assert look.judged.decision.yes
    assert 4 <= learned(look)


def test_the_answer_waits_without_the_thread_too() -> None:
    """Whoever asks looks himself, and so is no slower for a thread that died."""
    look = make_follower(AlwaysNew()).judge(GateState(), GateConfig(source="nvml", good_readings=3))
    assert look.judged.decision.yes


def test_the_wait_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that says nothing new is closed after a while, however many readings are wanted."""
    monkeypatch.setattr(device_monitor, "_LONGEST_WAIT_S", 0.1)
    door = Door()
    door.tell()
    began_s = time.monotonic()
    with make_follower(door) as follows:
        look = follows.judge(GateState(), GateConfig(source="nvml", good_readings=10_000))
    assert not look.judged.decision.yes
    assert 0.1 <= time.monotonic() - began_s < OVER_S


@pytest.mark.parametrize(
    "facts", [{"margin_c": COOL_C}, {"unreadable": "it is lost", "margin_c": None}]
)
def test_there_is_nothing_to_wait_for_where_one_reading_says_it_all(
    monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any]
) -> None:
    """An open device, and one that cannot be read, are answered for at once."""
    door = Door()
    door.tell(**facts)
    waiting = make_follower(door)
    monkeypatch.setattr(waiting._news, "wait", lambda _: pytest.fail("it waited"))
    opened = GateState(devices=(DeviceState(uuid="GPU-a", open=True),))
    limits = GateConfig(source="nvml", good_readings=5)
    look = waiting.judge(opened, limits)
    assert (facts["margin_c"] is not None) is look.judged.decision.yes


def test_the_end_of_a_dwell_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds before it opens, a device need not be come back to; later answers do not wait."""
    limits = GateConfig(source="nvml", dwell_s=0.5)
    closed = DeviceState(uuid="GPU-a", closed_at_s=time.monotonic(), why="it was hot")
    with make_follower(AlwaysNew(), dwell_s=0.5) as follows:
        assert follows.judge(GateState(devices=(closed,)), limits).judged.decision.yes
    door = Door()
    follows = make_follower(door)
    monkeypatch.setattr(follows._news, "wait", lambda _: pytest.fail("it waited"))
    limits = GateConfig(source="nvml")
    for margin_c in (COOL_C, HOT_C, COOL_C):
        door.tell(margin_c)
        look = follows.judge(GateState(), limits)
    assert "stays closed for 10 s" in look.judged.decision.because


class KnownDevice(Door):
    """A device that was followed for its life, and is read anew by each look."""

    def survey(self, now_s: float) -> DeviceSnapshot:
        """Its last reading, of now."""
        reading = LIFE.readings[-1].model_copy(update={"read_at_s": now_s, "energy_j": None})
        return DeviceSnapshot(readings=(reading,), driver="present", because="a test")


@pytest.mark.parametrize(("enabled", "settled"), [(True, True), (False, False)])
def test_a_known_device_settles_before_the_first_answer(
    tmp_path: Path, enabled: bool, settled: bool
) -> None:
    """Nobody had read it for long: some readings in a row, and what is known of it counts again."""
    uuid, rules = LIFE.readings[-1].uuid, ForecastConfig(enabled=enabled)
    device_state_file.save(tmp_path, {uuid: KNOWN})
    follows = DeviceMonitor(KnownDevice(), GateConfig(source="nvml"), rules, tmp_path)
    model = follows.judge(GateState(), GateConfig(source="nvml")).known[uuid].model
    assert settled is (model.in_a_row >= rules.settled_readings)


def test_what_the_gate_remembers_counts_however_soon_the_thread_looked() -> None:
    """What was read before the first question comes after what an earlier process remembered."""
    closed_s = time.monotonic()
    hot = DeviceState(uuid="GPU-a", closed_at_s=closed_s, why="it was hot")
    open_ = DeviceState(uuid="GPU-b", open=True)
    door = Door()
    door.tell(COOL_C)
    door.tell(BETWEEN_C, uuid="GPU-b")
    with make_follower(door, dwell_s=3_600) as follows:
        await_look(follows, lambda look: bool(look.known))
        look = follows.judge(
            GateState(devices=(hot, open_)), GateConfig(source="nvml", dwell_s=3_600)
        )
    state = look.judged.state
    assert (False, True) == (state.device("GPU-a").open, state.device("GPU-b").open)
    assert "stays closed for 3600 s (dwell_s)" in state.device("GPU-a").why


def test_what_was_read_before_the_first_question_counts_for_it() -> None:
    """A device that was watched for long enough is answered for at once."""
    door = Door()
    follows = make_follower(door)
    for _ in range(3):
        door.tell()
        follows.view()
    look = follows.judge(GateState(), GateConfig(source="nvml", good_readings=3))
    assert look.judged.decision.yes
    door.tell(HOT_C)
    assert not follows.view().judged.decision.yes


def test_what_was_read_before_the_first_question_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that never asks keeps the newest readings only."""
    monkeypatch.setattr(device_monitor, "MOST_UNASKED", 2)
    door = Door()
    follows = make_follower(door)
    for _ in range(3):
        door.tell()
        follows.view()
    look = follows.judge(GateState(), GateConfig(source="nvml", good_readings=3, max_age_s=3_600))
    assert "2 of 3 readings in a row" in look.judged.state.device("GPU-a").why


def test_what_was_asked_first_is_remembered_once() -> None:
    """The memory handed in later is the follower's own, or older: it goes on with its own."""
    door = Door()
    door.tell()
    follows = make_follower(door)
    limits = GateConfig(source="nvml")
    assert follows.judge(GateState(), limits).judged.decision.yes
    closed = GateState(devices=(DeviceState(uuid="GPU-a", closed_at_s=time.monotonic()),))
    assert follows.judge(closed, limits).judged.decision.yes


def test_trials_are_told_once() -> None:
    """Each forecast that was held against a reading is a row of the history, and one alone."""
    door = Door()
    follows = make_follower(door)
    for reading in LIFE.readings:
        at_s = reading.read_at_s - NOW_S
        door.readings["GPU-a"] = reading.model_copy(update={"uuid": "GPU-a", "read_at_s": at_s})
        follows.view()
    limits = GateConfig(source="nvml")
    told = follows.judge(GateState(), limits).trials
    assert {"GPU-a"} == {each.uuid for each in told}
    assert () == follows.judge(GateState(), limits).trials


def test_listeners_get_every_look_and_none_after_their_block() -> None:
    """Two of them hear the same; one that raises in its block hears no more either."""
    door = Door()
    door.tell()
    follows = make_follower(door)
    first: list[MonitorView] = []
    second: list[MonitorView] = []
    looks: list[MonitorView] = []

    def broken_off() -> None:
        with follows.subscribe(first.append):
            looks.append(follows.view())
            with follows.subscribe(second.append):
                looks.extend([follows.view(), follows.view()])
            looks.append(follows.view())
            raise KeyError

    with pytest.raises(KeyError):
        broken_off()
    follows.view()
    assert (looks, looks[1:3]) == (first, second)


def test_closing_leaves_no_thread() -> None:
    """The thread has ended when the block has, whatever the block raised."""
    before = set(threading.enumerate())
    with pytest.raises(KeyError), make_follower(Door()):
        raise KeyError
    assert before == set(threading.enumerate())


def test_a_adapter_that_fails_is_a_driver_that_does_not_answer() -> None:
    """All devices close and it is said why; asked again it answers again; the thread lives on."""
    door = Door()
    door.tell()
    with make_follower(door, dwell_s=0) as follows:
        limits = GateConfig(source="nvml", dwell_s=0)
        assert follows.judge(GateState(), limits).judged.decision.yes
        door.fails = True
        look = await_look(follows, lambda look: not look.judged.decision.yes)
        assert "ZeroDivisionError: a fault of the door" in look.judged.decision.because
        assert not look.judged.state.device("GPU-a").open
        waits = door.waits
        await_look(follows, lambda look: not look.judged.decision.yes)
        # It is asked again in its own time, not as fast as it can fail.
        assert door.waits - waits <= 2
        door.fails = False
        door.tell()
        await_look(follows, lambda look: look.judged.decision.yes)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_in_nobodys_way() -> None:
    """Whoever asks is answered by a look of now, and closing passes."""
    door = Door()
    door.tell()
    died = threading.Event()

    def fail(look: MonitorView) -> None:
        if threading.current_thread().name == "follower":
            died.set()
            raise ZeroDivisionError("a fault of a listener")

    with make_follower(door) as follows:
        with follows.subscribe(fail):
            assert died.wait(OVER_S)
            follows._thread.join(OVER_S)
        limits = GateConfig(source="nvml")
        assert follows.judge(GateState(), limits).judged.decision.yes
        door.tell(HOT_C)
        assert not follows.judge(GateState(), limits).judged.decision.yes


def test_many_threads_may_ask_at_once() -> None:
    """Time never runs backwards in what they are told, and nobody waits for another for ever."""
    door = Door()
    heard: list[float] = []
    with make_follower(door) as follows, follows.subscribe(lambda look: heard.append(look.now_s)):
        limits = GateConfig(source="nvml", good_readings=2)

        def ask() -> None:
            for _ in range(20):
                door.tell()
                follows.judge(GateState(), limits)
                follows.device("GPU-a")

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for each in askers:
            each.start()
        for each in askers:
            each.join(OVER_S)
        assert [False] * 4 == [each.is_alive() for each in askers]
    assert all(before <= after for before, after in itertools.pairwise(heard))


def test_a_device_is_told_where_it_is_there() -> None:
    """None is a device that the door does not know."""
    door = Door()
    door.tell()
    follows = make_follower(door)
    assert (Device(uuid="GPU-a"), None) == (follows.device("GPU-a"), follows.device("GPU-b"))
