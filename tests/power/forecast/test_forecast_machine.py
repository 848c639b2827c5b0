"""The forecast under any sequence of readings and silences, against what must never happen."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from observability.core.decision import Decision
from power.core.device_readings import DeviceReading
from power.core.gate_config import GateConfig
from power.forecast import forecast
from power.forecast.config import ForecastConfig
from power.forecast.forecast import ThermalState
from power.forecast.job_profile import Job
from power.policy import admission, gate
from power.policy.gate import GateResult, GateState
from power.simulation import simulated_device
from power.simulation.simulated_device import PRESETS, Plant
from tests.power.makers import make_survey

LIMITS = GateConfig(max_age_s=60)
RULES = ForecastConfig(min_readings=5, min_checks=2)


class ForecastMachine(RuleBasedStateMachine):
    """A device that works, rests, falls silent and lies, and a job that wants to begin on it."""

    @initialize(seed=st.integers(0, 50), preset=st.sampled_from(list(PRESETS)))
    def begin(self, seed: int, preset: simulated_device.Preset) -> None:
        """A device that has worked for a while, and is known."""
        self.device = Plant(PRESETS[preset], np.random.default_rng(seed))
        self.known, self.state = ThermalState(), GateState()
        self.now_s = 0.0
        for load in (0.0, 0.8, 0.0, 0.6):
            for _ in range(20):
                self.see(self.device.advance(5, load=load))

    def see(self, reading: DeviceReading) -> None:
        """Let gate and forecast look at a reading, now."""
        self.now_s = max(self.now_s, self.device.body.at_s)
        self.reading = reading
        self.judged: GateResult = gate.judge(make_survey(reading), self.state, LIMITS, self.now_s)
        self.state = self.judged.state
        self.known = forecast.learn(self.known, reading, LIMITS, RULES).known

    @rule(load=st.floats(0, 1), times=st.integers(1, 8))
    def it_works(self, load: float, times: int) -> None:
        """Some readings of a load."""
        for _ in range(times):
            self.see(self.device.advance(5, load=load))

    @rule(seconds=st.floats(61, 10_000))
    def it_is_silent(self, seconds: float) -> None:
        """Nothing is read, and time passes."""
        self.device.advance(seconds)
        self.now_s = self.device.body.at_s

    @rule(
        name=st.sampled_from(["margin_c", "power_w", "energy_j", "temperature_c"]),
        value=st.sampled_from([None, math.nan, math.inf, -1e9, 644_245_923.0]),
    )
    def it_lies(self, name: str, value: float | None) -> None:
        """One number is missing or cannot be."""
        self.see(self.device.advance(5).model_copy(update={name: value}))

    @rule(by_c=st.floats(-60, 60))
    def it_jumps(self, by_c: float) -> None:
        """A margin that could be, and is not so."""
        reading = self.device.advance(5)
        self.see(reading.model_copy(update={"margin_c": (reading.margin_c or 0.0) + by_c}))

    @rule()
    def it_is_kept_between_processes(self) -> None:
        """JSON and back is the same."""
        again = ThermalState.model_validate_json(self.known.model_dump_json())
        assert again == self.known

    @rule(power=st.floats(0, 1.2), seconds=st.floats(1, 2_000))
    def a_job_asks(self, power: float, seconds: float) -> None:
        """Admitted only where the forecast, or in its place the gate, finds it cool enough."""
        job = Job(power_w=power * self.device.kind.full_w, seconds=seconds)
        says = forecast.judge(self.known, job, LIMITS, RULES, self.now_s)
        now = gate.judge(make_survey(), self.state, LIMITS, self.now_s)
        admitted = admission.admit(now, says, LIMITS)
        assert not says.yes or self._sure(says)
        if admitted.yes:
            assert self.now_s - self.reading.read_at_s <= LIMITS.max_age_s
            assert self.reading.margin_c is not None
            assert self.reading.margin_c > LIMITS.pause_margin_c
            assert says.yes or (now.decision.yes and says.facts["trusted"] is False)

    @staticmethod
    def _sure(says: Decision) -> bool:
        sure_c, trusted = says.facts["sure_margin_c"], says.facts["trusted"]
        return trusted is True and isinstance(sure_c, float) and sure_c >= RULES.keep_margin_c

    @invariant()
    def all_numbers_stay_numbers(self) -> None:
        """Nothing that was read has poisoned the model."""
        assert np.isfinite(self.known.model.values).all()
        assert np.isfinite(self.known.model.covariance).all()
        assert all(math.isfinite(each.mean_square_c2) for each in self.known.errors)


TestForecastMachine = ForecastMachine.TestCase
TestForecastMachine.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
