"""The vigil: lets a fit go on, pauses it, or gives its device back; what it waits is bounded."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flows.retraining.thermal_guard import ThermalGuard
from flows.run.shutdown import Stop, StopRequested
from models.batch.fit_guard import Preempted
from observability.core.decision import Decision
from power.core.device_readings import DeviceReading, DeviceSnapshot
from power.core.gate_config import GateConfig
from power.monitoring.device_monitor import MonitorView
from power.policy import gate
from power.policy.gate import GateResult, GateState
from tests.power.makers import BETWEEN_C, COOL_C, HOT_C, make_reading, make_survey

OVER_S = 120.0
"""A test that waits so long has failed."""


class Fit:
    """A vigil over GPU-a, on a clock that a test moves, and what it was told of pauses.

    `wait` is done where the vigil would wait for news: it moves the clock, or brings a look.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **knobs: Any) -> None:
        self.now_s = 0.0
        self.told: list[str] = []
        self.waits: list[float] = []
        self.limits = GateConfig(source="nvml", **({"dwell_s": 0} | knobs))
        state = gate.judge(make_survey(make_reading()), GateState(), self.limits, 0.0).state
        self.guard = ThermalGuard("GPU-a", state, self.limits, self.told.append, lambda: self.now_s)
        self.wait: Callable[[], None] = self.pass_time
        monkeypatch.setattr(self.guard._changed, "wait", self._wait)

    def pass_time(self, seconds: float = 1.0) -> None:
        """Nothing is heard for so long."""
        self.now_s += seconds

    def hear(self, margin_c: float | None, after_s: float = 1.0, **facts: Any) -> None:
        """A look comes, of a reading of that moment."""
        self.now_s += after_s
        self.look(make_reading(margin_c=margin_c, read_at_s=self.now_s, **facts))

    def look(self, *readings: DeviceReading, **facts: Any) -> None:
        """A look at these readings comes."""
        survey = make_survey(*readings, **facts)
        self.guard.on_snapshot(MonitorView(survey, NOT_LOOKED_AT, {}, self.now_s))

    def hear_while_waiting(self, *margins_c: float) -> None:
        """One look for each time that it waits."""
        coming: Iterator[float] = iter(margins_c)
        self.wait = lambda: self.hear(next(coming))

    def _wait(self, timeout_s: float) -> None:
        self.waits.append(timeout_s)
        self.wait()


NOT_LOOKED_AT = GateResult(
    Decision(question="gate", yes=False, because="the follower's own", facts={}), GateState()
)
"""The vigil judges by itself: what the follower made of it says nothing of this job."""


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fit]:
    """A vigil on a clock of its own."""
    return lambda **knobs: Fit(monkeypatch, **knobs)


def test_open_it_returns_at_once(fit: Callable[..., Fit]) -> None:
    """A fit on a cool device is not held up, before the first look and after it."""
    one = fit()
    one.guard(0.0)
    one.hear(COOL_C)
    one.hear(BETWEEN_C)
    one.guard(0.5)
    assert ([], 0, 0.0, []) == (one.waits, one.guard.pauses, one.guard.paused_s, one.told)


def test_a_device_that_was_let_in_between_its_margins_is_open(fit: Callable[..., Fit]) -> None:
    """A forecast may admit where the thermostat would wait: what closes it now is news."""
    one = fit()
    state = gate.judge(
        make_survey(make_reading(margin_c=BETWEEN_C)), GateState(), one.limits, 0.0
    ).state
    assert not state.device("GPU-a").open
    assert ThermalGuard("GPU-a", state, one.limits, clock=lambda: 0.0).answer.yes


def test_closed_it_pauses_until_it_is_open_again(fit: Callable[..., Fit]) -> None:
    """It closes at the pause margin and opens at the resume margin, not between them."""
    one = fit()
    one.hear(HOT_C)
    one.hear_while_waiting(BETWEEN_C, BETWEEN_C, COOL_C, HOT_C)
    one.guard(0.25)
    assert (3, 1, 3.0) == (len(one.waits), one.guard.pauses, one.guard.paused_s)
    (told,) = one.told
    assert told.startswith("paused at 25%: GPU-a is closed: its margin is 5.0 °C")


def test_it_stays_closed_for_its_dwell(fit: Callable[..., Fit]) -> None:
    """However cool it is meanwhile."""
    one = fit(dwell_s=5)
    one.hear(HOT_C)
    one.hear_while_waiting(*[COOL_C] * 9)
    one.guard(0.5)
    assert 5.0 == one.guard.paused_s


def test_it_waits_for_good_readings_in_a_row(fit: Callable[..., Fit]) -> None:
    """As the gate does before a job begins."""
    one = fit(good_readings=3)
    one.hear(HOT_C)
    one.hear_while_waiting(COOL_C, BETWEEN_C, COOL_C, COOL_C, COOL_C, HOT_C)
    one.guard(0.5)
    assert 5 == len(one.waits)


def test_pauses_add_up(fit: Callable[..., Fit]) -> None:
    """What a fit cost in waiting is the sum, and each pause has its own bound."""
    one = fit(max_pause_s=4)
    for count in (1, 2, 3):
        one.hear(HOT_C)
        one.hear_while_waiting(HOT_C, BETWEEN_C, COOL_C)
        one.guard(count / 4)
        assert (count, 3.0 * count) == (one.guard.pauses, one.guard.paused_s)
    assert ["paused at 25%", "paused at 50%", "paused at 75%"] == [
        each.partition(":")[0] for each in one.told
    ]


def test_past_its_bound_it_gives_the_device_back(fit: Callable[..., Fit]) -> None:
    """The reason has how far it was, how long it waited of how much, and what the gate says."""
    one = fit(max_pause_s=3.5)
    one.hear(HOT_C)
    one.wait = lambda: one.hear(HOT_C)
    with pytest.raises(Preempted) as given:
        one.guard(0.4)
    assert given.value.because.startswith(
        "a fit that was 40% done paused for 4 s of at most 3.5 s (max_pause_s) and gives the "
        "device back: GPU-a is closed: its margin is 5.0 °C"
    )
    assert 4.0 == one.guard.paused_s
    # It never waits past the bound, nor so long that a signal is heard late.
    assert all(0 < each <= 0.25 for each in one.waits)


def test_a_bound_of_nothing_gives_back_at_once(fit: Callable[..., Fit]) -> None:
    """No pause at all is a choice, too."""
    one = fit(max_pause_s=0)
    one.hear(HOT_C)
    with pytest.raises(Preempted, match="paused for 0 s of at most 0 s"):
        one.guard(0.4)
    assert [] == one.waits


@pytest.mark.parametrize(
    ("knob", "opens"),
    [("wait", False), ("go", True)],
)
def test_an_unreadable_driver_closes_unless_told_otherwise(
    fit: Callable[..., Fit], knob: str, opens: bool
) -> None:
    """An unknown temperature is not a cool one; when it is read again, it goes on."""
    one = fit(unreadable=knob)
    one.look(driver="unreadable", because="it hangs")
    assert opens is one.guard.answer.yes
    assert "the GPU driver is unreadable (it hangs)" in one.guard.answer.because
    one.hear(COOL_C)
    assert one.guard.answer.yes


@pytest.mark.parametrize(
    "facts",
    [
        {"unreadable": "it fell off the bus"},
        {"margin_c": None},
        {"margin_c": 9_999.0},
        {"throttle_reasons": "hw_thermal_slowdown"},
    ],
)
def test_what_closes_the_gate_pauses_the_fit(
    fit: Callable[..., Fit], facts: dict[str, Any]
) -> None:
    """A lost sensor, nonsense and a device that defends itself are no cool device."""
    one = fit()
    one.hear(**({"margin_c": COOL_C} | facts))
    assert not one.guard.answer.yes


def test_another_devices_heat_is_none_of_its_business(fit: Callable[..., Fit]) -> None:
    """A neighbour neither pauses the fit nor lets it go on."""
    one = fit()
    one.look(make_reading(read_at_s=0.0), make_reading(uuid="GPU-b", margin_c=HOT_C))
    assert one.guard.answer.yes
    one.hear(HOT_C)
    one.look(make_reading(uuid="GPU-b", read_at_s=one.now_s))
    assert not one.guard.answer.yes


def test_without_looks_the_last_one_grows_old(fit: Callable[..., Fit]) -> None:
    """Whoever reads may have died: age decides, and a look of now lets the fit go on."""
    one = fit(max_age_s=60)
    one.hear(COOL_C)
    one.pass_time(60)
    one.guard(0.5)
    one.pass_time(1)
    assert not one.guard.answer.yes
    assert "61.0 s old, older than max_age_s = 60" in one.guard.answer.because
    one.hear_while_waiting(COOL_C)
    one.guard(0.5)
    assert 1 == one.guard.pauses


def test_without_any_look_what_let_it_in_grows_old(fit: Callable[..., Fit]) -> None:
    """The same before the first look, and past the bound the device is given back."""
    one = fit(max_age_s=60, max_pause_s=5)
    one.pass_time(61)
    with pytest.raises(Preempted, match="older than max_age_s = 60"):
        one.guard(0.5)


def test_an_empty_look_says_nothing_of_the_device(fit: Callable[..., Fit]) -> None:
    """A door that shows no device for a moment closes none, until what it said is old."""
    one = fit(max_age_s=60)
    one.look(because="nothing yet")
    assert one.guard.answer.yes
    one.pass_time(61)
    one.look(because="nothing yet")
    assert not one.guard.answer.yes


def test_what_a_signal_raises_passes_through(fit: Callable[..., Fit]) -> None:
    """A pause is no place to be deaf in: it is broken off, and counted up to there."""
    one = fit()
    one.hear(HOT_C)

    def signalled() -> None:
        one.pass_time(2)
        raise StopRequested

    one.wait = signalled
    with pytest.raises(StopRequested):
        one.guard(0.5)
    assert (2.0, 1) == (one.guard.paused_s, one.guard.pauses)


def test_a_real_signal_breaks_a_real_pause_off() -> None:
    """SIGTERM amid the wait, in the main thread: what waits holds no lock afterwards."""
    limits = GateConfig(source="nvml")
    paused = threading.Event()
    vigil = ThermalGuard("GPU-a", GateState(), limits, lambda _: paused.set(), lambda: 0.0)
    vigil.on_snapshot(
        MonitorView(make_survey(make_reading(margin_c=HOT_C)), NOT_LOOKED_AT, {}, 0.0)
    )

    def send() -> None:
        paused.wait(OVER_S)
        signal.raise_signal(signal.SIGTERM)

    stop = Stop(hard_end_s=OVER_S)
    sender = threading.Thread(target=send)
    sender.start()

    def fitting() -> None:
        with stop.listening(), stop.breakable():
            vigil(0.5)

    with pytest.raises(StopRequested):
        fitting()
    sender.join()
    look = MonitorView(DeviceSnapshot(driver="present", because="a test"), NOT_LOOKED_AT, {}, 0.0)
    hearer = threading.Thread(target=vigil.on_snapshot, args=(look,))
    hearer.start()
    hearer.join(OVER_S)
    assert not hearer.is_alive()


def test_a_look_in_another_thread_ends_the_pause() -> None:
    """The fit goes on as soon as it is heard, by waking and not by chance."""
    limits = GateConfig(source="nvml", dwell_s=0)
    paused = threading.Event()
    vigil = ThermalGuard("GPU-a", GateState(), limits, lambda _: paused.set(), lambda: 9.0)
    vigil.on_snapshot(
        MonitorView(make_survey(make_reading(margin_c=HOT_C)), NOT_LOOKED_AT, {}, 0.0)
    )

    def cool_down() -> None:
        paused.wait(OVER_S)
        vigil.on_snapshot(
            MonitorView(make_survey(make_reading(read_at_s=5.0)), NOT_LOOKED_AT, {}, 9.0)
        )

    cooler = threading.Thread(target=cool_down)
    cooler.start()
    vigil(0.5)
    cooler.join()
    assert 1 == vigil.pauses
