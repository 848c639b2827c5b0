"""Ways of admitting jobs, side by side on simulated devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power.core.device_readings import DeviceSnapshot
from power.core.gate_config import GateConfig
from power.forecast.config import ForecastConfig
from power.simulation import policy_lab, simulated_device
from power.simulation.policy_lab import (
    Done,
    Policy,
    PolicyOutcome,
    SimulatedJob,
    SimulationConfig,
    Start,
)
from power.simulation.simulated_device import PRESETS, Body, Plant, PlantKind, Sensors

AIR = PRESETS["air"].model_copy(update={"swing_c": 0.0})
RULES = SimulationConfig()


def make_job(**overrides: Any) -> SimulatedJob:
    """A minute of full load that is there at once."""
    facts: dict[str, Any] = {"kind": "fit", "arrives_s": 0.0, "work_s": 60.0, "load": 1.0}
    return SimulatedJob(**(facts | overrides))


def make_plant(kind: PlantKind = AIR, **body: Any) -> Plant:
    """A plant at rest, with sensors that are a degree off."""
    return Plant(
        kind, np.random.default_rng(0), Sensors(), simulated_device.at_rest(kind)._replace(**body)
    )


class Scripted(policy_lab.NoGate):
    """Starts jobs at moments that a test names, and writes down what it sees."""

    name = "scripted"

    def __init__(self, *starts_s: float, cap_w: float | None = None) -> None:
        """Each job begins at the first look from its moment on."""
        self.starts_s, self.cap_w = list(starts_s), cap_w
        self.seen_s: list[float] = []
        self.ended_jobs: list[Done] = []

    def see(self, survey: DeviceSnapshot, now_s: float) -> None:
        """Write down when."""
        assert [now_s] == [each.read_at_s for each in survey.readings]
        self.seen_s.append(now_s)

    def ask(self, job: SimulatedJob, now_s: float) -> Start | None:
        """Yes, once it is time."""
        if now_s < self.starts_s[0]:
            return None
        self.starts_s.pop(0)
        return Start(cap_w=self.cap_w)

    def ended(self, done: Done) -> None:
        """Write down how."""
        self.ended_jobs.append(done)


def warm(margin_c: float) -> dict[str, Any]:
    """A body in which nothing moves much for some seconds."""
    return {"die_c": AIR.slowdown_c - margin_c, "sink_c": AIR.slowdown_c - margin_c - 5}


def test_jobs_run_one_by_one_in_order_and_are_accounted_for() -> None:
    """Beginning, end, power, delay and energy are those of the plant."""
    jobs = [make_job(), make_job(arrives_s=10.0), make_job(arrives_s=500.0, load=0.5, work_s=15.0)]
    outcome = policy_lab.run(make_plant(), jobs, Scripted(0, 0, 0), RULES)
    assert [(0, 60), (60, 120), (500, 530)] == [
        (round(each.started_s), round(each.ended_s)) for each in outcome.jobs
    ]
    assert [350, 350, 195] == [round(each.mean_w) for each in outcome.jobs]
    assert (0.0, 50.0, 0.0) == tuple(round(each) for each in outcome.delays_s)
    idle_s = 530 - 60 - 60 - 30
    assert outcome.energy_j == pytest.approx(350 * 120 + 195 * 30 + 40 * idle_s, rel=1e-6)
    assert outcome.makespan_s == pytest.approx(530)
    assert not any(each.forced for each in outcome.jobs)


def test_the_summary_has_every_figure_of_the_account() -> None:
    """Sums, means and maxima over the jobs."""
    jobs = [make_job(), make_job(arrives_s=10.0)]
    outcome = policy_lab.run(make_plant(), jobs, Scripted(5, 100), RULES)
    summary = outcome.summary()
    assert ("scripted", 2, 0, 120.0) == (
        summary["policy"],
        summary["jobs"],
        summary["forced"],
        summary["work_s"],
    )
    assert (47.5, 90.0, 160.0) == (
        summary["mean_delay_s"],
        summary["max_delay_s"],
        summary["makespan_s"],
    )
    assert summary["throttled_s"] == outcome.throttled_s == 0
    assert summary["peak_c"] == max(AIR.slowdown_c - each.lowest_margin_c for each in outcome.jobs)


def test_an_account_of_no_jobs_is_empty() -> None:
    """Nothing ran, nothing waited."""
    outcome = policy_lab.run(make_plant(), [], Scripted(), RULES)
    assert (0, 0.0, 0.0, 0) == (
        outcome.throttled_s,
        outcome.makespan_s,
        outcome.summary()["mean_delay_s"],
        outcome.summary()["jobs"],
    )


def test_the_device_is_read_at_its_pace_in_work_and_in_rest() -> None:
    """Every few seconds, and once at each beginning."""
    policy = Scripted(20)
    policy_lab.run(make_plant(), [make_job(work_s=12.0)], policy, SimulationConfig(every_s=5))
    assert [0, 5, 10, 15, 20, 25, 30] == policy.seen_s


def test_what_was_throttled_is_counted_in_the_job_that_was() -> None:
    """A job on a hot device is slowed down, takes longer, and says so."""
    hot = make_plant(**warm(1.0))
    outcome = policy_lab.run(hot, [make_job()], policy_lab.NoGate(), RULES)
    (done,) = outcome.jobs
    assert 10 < done.slowed_s == outcome.throttled_s
    assert done.ended_s - done.started_s == pytest.approx(60 + done.slowed_s * 0.5, abs=1)
    assert -5 < done.lowest_margin_c <= 0
    assert outcome.peak_c == AIR.slowdown_c - done.lowest_margin_c


def test_a_cap_is_set_for_the_job_and_lifted_after_it() -> None:
    """The next job without a cap runs free."""
    one = make_plant()
    capped = policy_lab.run(one, [make_job()], Scripted(0, cap_w=200), RULES).jobs[0]
    assert (200, 200) == (round(capped.mean_w), capped.start.cap_w)
    free = policy_lab.run(one, [make_job()], Scripted(0), RULES).jobs[0]
    assert 350 == round(free.mean_w)


def test_cap_only_caps_every_job_and_waits_for_none() -> None:
    """It is as if the limit had been lowered for good."""
    jobs = [make_job(), make_job()]
    outcome = policy_lab.run(make_plant(**warm(5.0)), jobs, policy_lab.CapOnly(150), RULES)
    assert [150, 150] == [round(each.mean_w) for each in outcome.jobs]
    assert 0 == outcome.jobs[0].started_s


def test_a_job_that_waits_too_long_begins_all_the_same() -> None:
    """Counted from when the device was free for it, and marked as forced."""
    rules = SimulationConfig(gate=GateConfig(deadline_s=100))
    jobs = [make_job(arrives_s=7.0), make_job(arrives_s=8.0)]
    outcome = policy_lab.run(make_plant(), jobs, Scripted(1e9, 1e9), rules)
    assert [110, 270] == [round(each.started_s) for each in outcome.jobs]
    assert [True, True] == [each.forced for each in outcome.jobs]
    assert 2 == outcome.summary()["forced"]


def test_hysteresis_waits_for_the_resume_margin() -> None:
    """On a warm device a job begins when the gate has opened, and not before."""
    outcome = policy_lab.run(
        make_plant(**warm(15.0)), [make_job()], policy_lab.Hysteresis(RULES), RULES
    )
    begun_s = outcome.jobs[0].started_s
    at_start_c = dict(outcome.course)[begun_s]
    assert begun_s > 0
    assert AIR.slowdown_c - at_start_c == pytest.approx(20, abs=2)


def test_a_policy_that_has_seen_nothing_admits_nothing() -> None:
    """Before the first look there is no answer."""
    assert policy_lab.Hysteresis(RULES).ask(make_job(), 0.0) is None
    assert policy_lab.Forecasting(RULES).ask(make_job(), 0.0) is None


def test_the_oracle_begins_at_the_first_moment_from_which_nothing_slows_down() -> None:
    """A look earlier would have been too early."""
    one = make_plant(**warm(10.0))
    outcome = policy_lab.run(one, [make_job()], policy_lab.Oracle(one), RULES)
    (done,) = outcome.jobs
    assert done.started_s > 0
    assert (0, False) == (done.slowed_s, done.forced)
    early = make_plant(**warm(10.0))
    earlier = policy_lab.run(early, [make_job()], Scripted(done.started_s - 10), RULES)
    assert earlier.throttled_s > 0


def test_the_oracle_does_not_mind_a_hot_past() -> None:
    """A device that was too hot once and is cool now may begin at once."""
    one = make_plant(hottest_c=200.0)
    assert policy_lab.Oracle(one).ask(make_job(), 0.0) is not None


HEAVY = SimulatedJob("fit", 0.0, 200.0, 1.0)


@pytest.fixture(scope="module")
def taught() -> Callable[..., policy_lab.Forecasting]:
    """A maker of policies that have watched a device at work, and know the job."""

    def make(caps_w: tuple[float, ...] = ()) -> policy_lab.Forecasting:
        policy = policy_lab.Forecasting(RULES, caps_w)
        one = make_plant()
        jobs = [HEAVY._replace(arrives_s=at_s) for at_s in (200.0, 1_500.0, 2_800.0)]
        policy_lab.run(one, jobs, policy, RULES)
        return policy

    return make


def begin(policy: Policy, margin_c: float, at_s: float) -> PolicyOutcome:
    """A heavy job on the same device, which is warm at `at_s`."""
    one = make_plant(at_s=at_s, **warm(margin_c))
    return policy_lab.run(one, [HEAVY._replace(arrives_s=at_s)], policy, RULES)


def test_the_forecast_vetoes_what_the_gate_would_let_throttle(
    taught: Callable[..., policy_lab.Forecasting],
) -> None:
    """At the resume margin three minutes of full load are too much, and it knows."""
    at_s = 6_000.0
    by_gate = begin(policy_lab.Hysteresis(RULES), 23.0, at_s)
    foreseen = begin(taught(), 23.0, at_s)
    assert by_gate.throttled_s > 0
    assert 0 == foreseen.throttled_s
    assert foreseen.makespan_s < at_s + 1_500


def test_a_start_tells_the_margin_that_was_foretold(
    taught: Callable[..., policy_lab.Forecasting],
) -> None:
    """So that it can be held against what came."""
    (done,) = begin(taught(), 40.0, 6_000.0).jobs
    assert done.start.margin_c == pytest.approx(done.lowest_margin_c, abs=3.0)


def test_with_caps_it_begins_capped_where_that_ends_sooner(
    taught: Callable[..., policy_lab.Forecasting],
) -> None:
    """Rather than to wait, it runs under the mildest cap that fits."""
    caps_w = tuple(share * AIR.full_w for share in policy_lab.CAP_SHARES)
    (free,) = begin(taught(), 23.0, 6_000.0).jobs
    (capped,) = begin(taught(caps_w), 23.0, 6_000.0).jobs
    assert capped.start.cap_w in caps_w
    assert capped.started_s < free.started_s
    assert capped.ended_s < free.ended_s
    assert 0 == capped.slowed_s


def test_where_a_short_wait_ends_sooner_it_waits_and_caps_nothing() -> None:
    """Half the power takes up to twice as long: rather a minute's wait."""
    policy = policy_lab.Forecasting(RULES, (0.5 * AIR.full_w,))
    jobs = [HEAVY._replace(arrives_s=at_s) for at_s in (200.0, 1_500.0, 2_800.0)]
    jobs += [
        HEAVY._replace(kind="lighter", arrives_s=at_s, work_s=120.0) for at_s in (4_000.0, 5_200.0)
    ]
    jobs.append(HEAVY._replace(arrives_s=5_320.0))
    last = policy_lab.run(make_plant(), jobs, policy, RULES).jobs[-1]
    assert last.start.cap_w is None
    assert 10 < last.started_s - last.job.arrives_s < 200
    assert 0 == last.slowed_s


def test_what_a_cap_costs_is_learned_from_the_runs(
    taught: Callable[..., policy_lab.Forecasting],
) -> None:
    """A capped run counts for caps, one without for the job."""
    policy = taught((0.7 * AIR.full_w,))
    before = policy.profiles["fit"]
    begin(policy, 23.0, 6_000.0)
    after = policy.profiles["fit"]
    assert (3, 0, 3, 1) == (before.runs, before.cap_runs, after.runs, after.cap_runs)
    assert after.cap_exponent < before.cap_exponent


def test_an_unknown_job_begins_with_the_device_at_rest(
    taught: Callable[..., policy_lab.Forecasting],
) -> None:
    """The gate is open long before, but nobody knows what this job will do."""
    policy = taught()
    one = make_plant(at_s=6_000.0, **warm(22.0))
    job = HEAVY._replace(kind="never seen", arrives_s=6_000.0)
    (done,) = policy_lab.run(one, [job], policy, RULES).jobs
    assert done.started_s > 6_300
    assert done.start.margin_c is None


def test_a_job_that_no_wait_makes_safe_begins_at_rest_and_not_at_its_deadline(
    taught: Callable[..., policy_lab.Forecasting],
) -> None:
    """Waiting longer would make it no better."""
    rules = SimulationConfig(forecast=ForecastConfig(keep_margin_c=60))
    policy = policy_lab.Forecasting(rules)
    policy.known, policy.profiles = taught().known, taught().profiles
    one = make_plant(at_s=6_000.0, **warm(22.0))
    (done,) = policy_lab.run(one, [HEAVY._replace(arrives_s=6_000.0)], policy, rules).jobs
    assert 6_300 < done.started_s < 9_000
    assert not done.forced


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_policy_meets_the_same_device_and_jobs(preset: Any) -> None:
    """The same work is done by all, in an order that never changes."""
    generator = np.random.default_rng(5)
    kind = simulated_device.varied(PRESETS[preset], generator)
    jobs = policy_lab.draw_jobs(kind, 2, generator)
    told: list[None] = []
    outcomes = policy_lab.compare(
        kind, jobs, lambda: np.random.default_rng(6), RULES, on_done=lambda: told.append(None)
    )
    names = ["no gate", "hysteresis", "forecast", "cap only", "forecast + cap", "oracle"]
    assert names == [each.policy for each in outcomes]
    assert [jobs] * policy_lab.POLICIES == [tuple(d.job for d in each.jobs) for each in outcomes]
    assert 2 * policy_lab.POLICIES == len(told)
    assert 0 == outcomes[-1].throttled_s


@given(st.integers(0, 10_000), st.sampled_from(list(PRESETS)))
@settings(deadline=None, max_examples=15)
def test_every_drawn_job_fits_the_device_from_rest(seed: int, preset: Any) -> None:
    """Jobs come in order, and none would throttle on a device at rest on any day."""
    generator = np.random.default_rng(seed)
    kind = simulated_device.varied(PRESETS[preset], generator)
    jobs = policy_lab.draw_jobs(kind, 4, generator)
    assert 4 == len(jobs)
    assert sorted(each.arrives_s for each in jobs) == [each.arrives_s for each in jobs]
    assert {each.kind for each in jobs} <= {"job 1", "job 2", "job 3"}
    for job in jobs:
        body: Body = simulated_device.at_rest(kind, job.arrives_s)
        done = simulated_device.advanced(kind, body, 5_000, job.load, None, job.work_s)
        assert done.work_s == pytest.approx(job.work_s)
        assert 0 == done.slowed_s


def test_the_same_seed_draws_the_same_jobs() -> None:
    """A mix can be run again."""
    mixes = [policy_lab.draw_jobs(AIR, 5, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert mixes[0] == mixes[1] != mixes[2]
