"""The gate under any sequence of readings and moments, against what must never happen."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from observability.core.decision import Decision
from power.core.device_readings import DeviceReading
from power.core.gate_config import GateConfig
from power.policy import gate
from power.policy.gate import GateState
from tests.power.makers import make_reading, make_survey

MAX_AGE_S = 30.0
TROUBLES: list[dict[str, object]] = [
    {"margin_c": None},
    {"throttle_reasons": "sw_thermal_slowdown"},
    {"temperature_c": 644_245_923.0},
    {"margin_c": float("nan")},
    {"power_w": -1.0},
]


class GateMachine(RuleBasedStateMachine):
    """A device that warms, cools, breaks and falls silent, and a gate that is asked about it."""

    @initialize(good_readings=st.integers(1, 4), dwell_s=st.sampled_from([0.0, 20.0, 60.0]))
    def begin(self, good_readings: int, dwell_s: float) -> None:
        """A fresh gate at 0 s."""
        self.limits = GateConfig(good_readings=good_readings, max_age_s=MAX_AGE_S, dwell_s=dwell_s)
        self.state, self.now_s, self.cool_in_a_row = GateState(), 0.0, 0
        self.closed_at_s: float | None = None
        self.was_open, self.openings_s = False, list[float]()
        self.last: DeviceReading | None = None
        self.last_is_sound = False
        self.may_be_open = False
        self.ask()

    def ask(self, *readings: DeviceReading) -> None:
        """Judge, and remember the answer."""
        self.before = self.state
        survey = make_survey(*readings)
        judged = gate.judge(survey, self.state, self.limits, self.now_s)
        self.answer: Decision = judged.decision
        self.state = judged.state
        if self.answer.yes and not self.was_open:
            self.openings_s.append(self.now_s)
        if self.was_open and not self.answer.yes:
            self.closed_at_s = self.state.device("GPU-a").closed_at_s
            assert self.closed_at_s is not None
            assert self.closed_at_s <= self.now_s
        self.was_open = self.answer.yes

    @property
    def dwells(self) -> bool:
        """Whether the device closed so lately that it must stay closed."""
        since = self.closed_at_s
        return since is not None and self.now_s < since + self.limits.dwell_s

    def read(self, sound: bool, **overrides: object) -> None:
        """A new reading, now."""
        if self.last is not None and self.now_s - self.last.read_at_s > MAX_AGE_S:
            # Nobody looked, and it closed all the same.
            self.ask()
            self.cool_in_a_row, self.may_be_open = 0, False
        self.last, self.last_is_sound = make_reading(read_at_s=self.now_s, **overrides), sound
        self.ask(self.last)

    @rule(wait_s=st.floats(0.5, 12.0), margin_c=st.floats(20, 60))
    def it_is_cool(self, wait_s: float, margin_c: float) -> None:
        """A cool reading: after enough of them in a row, and its dwell, the gate must be open."""
        self.now_s += wait_s
        self.read(True, margin_c=margin_c)
        self.cool_in_a_row += 1
        if self.cool_in_a_row >= self.limits.good_readings:
            self.may_be_open = self.may_be_open or not self.dwells
            assert self.answer.yes is self.may_be_open

    @rule(wait_s=st.floats(0.5, 12.0), margin_c=st.floats(10.001, 19.999))
    def it_is_between(self, wait_s: float, margin_c: float) -> None:
        """Between the margins the gate keeps its state, unless it had gone stale."""
        self.now_s += wait_s
        gone_stale = self.last is None or self.now_s - self.last.read_at_s > MAX_AGE_S
        was_open = self.state.device("GPU-a").open
        self.read(True, margin_c=margin_c)
        assert self.answer.yes is (was_open and not gone_stale)
        self.cool_in_a_row = 0

    @rule(wait_s=st.floats(0.5, 12.0), margin_c=st.floats(-30, 10))
    def it_is_hot(self, wait_s: float, margin_c: float) -> None:
        """A hot reading closes at once."""
        self.now_s += wait_s
        self.read(True, margin_c=margin_c)
        self.cool_in_a_row, self.may_be_open = 0, False
        assert not self.answer.yes

    @rule(
        wait_s=st.floats(0.5, 12.0),
        trouble=st.sampled_from(TROUBLES),
    )
    def it_is_in_trouble(self, wait_s: float, trouble: dict[str, object]) -> None:
        """Unknown, throttled or impossible closes at once, however cool it says it is."""
        self.now_s += wait_s
        self.read(False, **trouble)
        self.cool_in_a_row, self.may_be_open = 0, False
        assert not self.answer.yes

    @rule(wait_s=st.floats(0.5, 100.0))
    def it_falls_silent(self, wait_s: float) -> None:
        """Time passes without a reading; too much of it closes."""
        self.now_s += wait_s
        self.ask()
        if self.last is not None and self.now_s - self.last.read_at_s > MAX_AGE_S:
            self.cool_in_a_row, self.may_be_open = 0, False

    @rule()
    def it_says_the_same_again(self) -> None:
        """A reading told again changes neither the answer nor the memory, unless it is old."""
        if self.last is None or self.now_s - self.last.read_at_s > MAX_AGE_S:
            return
        self.ask(self.last)
        assert self.before == self.state

    @rule(driver=st.sampled_from(["absent", "unreadable"]))
    def the_driver_goes(self, driver: str) -> None:
        """Without a driver the knobs answer, and every device must earn its opening again."""
        survey = make_survey(driver=driver)
        _, self.state = gate.judge(survey, self.state, self.limits, self.now_s)
        if self.was_open:
            self.closed_at_s, self.was_open = self.now_s, False
        self.cool_in_a_row, self.may_be_open = 0, False
        self.ask()

    @invariant()
    def a_yes_is_always_earned(self) -> None:
        """Never open while hot, stale, unknown, throttled or impossible."""
        if not self.answer.yes:
            return
        assert self.last is not None
        assert self.last_is_sound
        assert self.may_be_open
        assert self.now_s - self.last.read_at_s <= MAX_AGE_S
        assert self.last.margin_c is not None
        assert self.last.margin_c > self.limits.pause_margin_c

    @invariant()
    def openings_are_a_dwell_apart(self) -> None:
        """However it is shaken, it opens no oftener than its dwell allows."""
        pairs = zip(self.openings_s, self.openings_s[1:], strict=False)
        assert all(later - sooner >= self.limits.dwell_s for sooner, later in pairs)

    @invariant()
    def a_no_always_says_what_would_open_it(self) -> None:
        """The resume margin is in every refusal."""
        assert self.answer.yes or "20 °C or more" in self.answer.because


TestGateMachine = GateMachine.TestCase
TestGateMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.slow
def test_a_hundred_thousand_steps_break_no_promise() -> None:
    """The same machine, driven by chance alone for 100,000 steps, keeps every invariant."""
    chance = random.Random(20)
    for number in range(100):
        machine = GateMachine()
        machine.begin(good_readings=1 + number % 4, dwell_s=chance.choice([0.0, 20.0, 60.0]))
        for _ in range(1_000):
            _step(machine, chance)
            machine.a_yes_is_always_earned()
            machine.a_no_always_says_what_would_open_it()
        machine.openings_are_a_dwell_apart()


def _step(machine: GateMachine, chance: random.Random) -> None:
    wait_s, what = chance.uniform(0.5, 12.0), chance.random()
    if what < 0.5:
        machine.it_is_cool(wait_s=wait_s, margin_c=chance.uniform(20, 60))
    elif what < 0.65:
        machine.it_is_between(wait_s=wait_s, margin_c=chance.uniform(10.001, 19.999))
    elif what < 0.75:
        machine.it_is_hot(wait_s=wait_s, margin_c=chance.uniform(-30, 10))
    elif what < 0.85:
        machine.it_is_in_trouble(wait_s=wait_s, trouble=chance.choice(TROUBLES))
    elif what < 0.9:
        machine.it_falls_silent(wait_s=chance.uniform(0.5, 100.0))
    elif what < 0.95:
        machine.it_says_the_same_again()
    else:
        machine.the_driver_goes(driver=chance.choice(["absent", "unreadable"]))
