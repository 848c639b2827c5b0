"""Compare policies of admission: the same jobs on the same simulated device under each policy.

Pure: a plant, jobs and a policy go in, an account of what happened comes out. The policies range
from none to one that knows the future: `no gate`, `hysteresis` (the gate as it is), `forecast`,
`cap only`, `forecast + cap`, and `oracle`, which looks into the plant and starts each job, without
caps, at the first moment from which it will run without slowing down. The oracle is the yardstick
for waiting.

Jobs run one at a time, in order, each to its end: an admitted job is not stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from pydantic import Field

from observability.core.decision import Decision
from power.core.device_readings import DeviceSnapshot
from power.core.frozen_model import FiniteModel
from power.core.gate_config import GateConfig
from power.forecast import forecast, job_profile
from power.forecast.config import ForecastConfig
from power.forecast.forecast import ThermalState
from power.forecast.job_profile import Job, JobProfile
from power.policy import admission, deadline, gate
from power.policy.gate import GateResult, GateState
from power.simulation.simulated_device import Plant, PlantKind, advanced, at_rest

if TYPE_CHECKING:
    from numpy.random import Generator

CAP_SHARES: Final = (0.9, 0.8, 0.7, 0.6, 0.5)
"""The caps to try, as shares of the device's limit, the mildest first."""

POLICIES: Final = 6
"""The number of policies in `compare`."""

_LONGEST_JOB_S: Final = 1500.0


class SimulationConfig(FiniteModel):
    """The configuration of a comparison."""

    every_s: float = Field(default=5.0, gt=0, le=60, description="Seconds between two readings.")
    cap_share: float = Field(default=0.6, gt=0, le=1, description="Cap of `cap only` by limit.")
    gate: GateConfig = Field(
        default_factory=GateConfig,
        description="The gate's limits; a job that waited for deadline_s runs in any case.",
    )
    forecast: ForecastConfig = Field(default_factory=ForecastConfig, description="The forecast's.")


class SimulatedJob(NamedTuple):
    """A job of a mix."""

    kind: str
    """Jobs of one kind share a profile."""
    arrives_s: float
    work_s: float
    """Its duration in seconds at full clock, times its load."""
    load: float


class Start(NamedTuple):
    """The admission of a job: its cap in watts, and the predicted margin in degrees."""

    cap_w: float | None = None
    margin_c: float | None = None


class Done(NamedTuple):
    """The result of one job."""

    job: SimulatedJob
    started_s: float
    ended_s: float
    mean_w: float
    slowed_s: float
    lowest_margin_c: float
    start: Start
    forced: bool
    """It began because of its deadline."""


class PolicyOutcome(NamedTuple):
    """The result of one policy."""

    policy: str
    jobs: tuple[Done, ...]
    energy_j: float
    peak_c: float
    course: tuple[tuple[float, float], ...]
    """Moments in seconds and temperatures of the die, for a chart."""

    @property
    def throttled_s(self) -> float:
        """Seconds of work in which the hardware slowed itself down."""
        return sum(each.slowed_s for each in self.jobs)

    @property
    def makespan_s(self) -> float:
        """The end of the last job, seconds."""
        return max((each.ended_s for each in self.jobs), default=0.0)

    @property
    def delays_s(self) -> tuple[float, ...]:
        """How long each job waited for the device and the policy, seconds."""
        return tuple(each.started_s - each.job.arrives_s for each in self.jobs)

    def summary(self) -> dict[str, float | int | str]:
        """Return the figures of the table by name and unit."""
        delays_s = self.delays_s or (0.0,)
        return {
            "policy": self.policy,
            "throttled_s": self.throttled_s,
            "makespan_s": self.makespan_s,
            "mean_delay_s": sum(delays_s) / len(delays_s),
            "max_delay_s": max(delays_s),
            "energy_j": self.energy_j,
            "peak_c": self.peak_c,
            "work_s": sum(each.job.work_s for each in self.jobs),
            "jobs": len(self.jobs),
            "forced": sum(each.forced for each in self.jobs),
        }


class Policy(Protocol):
    """Decides when the next job may begin, by readings and ended jobs, never by the plant."""

    name: str

    def see(self, snapshot: DeviceSnapshot, now_s: float) -> None:
        """Take a snapshot of the device."""

    def ask(self, job: SimulatedJob, now_s: float) -> Start | None:
        """Return a start if `job` may begin now, after the snapshot of this moment."""

    def ended(self, done: Done) -> None:
        """Take the result of a job."""


class NoGate:
    """Every job begins at once."""

    name = "no gate"

    def see(self, snapshot: DeviceSnapshot, now_s: float) -> None:
        """Ignore it."""

    def ask(self, job: SimulatedJob, now_s: float) -> Start | None:
        """Start at once."""
        return Start()

    def ended(self, done: Done) -> None:
        """Ignore it."""


class CapOnly(NoGate):
    """Every job begins at once, under one cap for all."""

    name = "cap only"

    def __init__(self, cap_w: float) -> None:
        """`cap_w` is the cap of every job, watts."""
        self._cap_w = cap_w

    def ask(self, job: SimulatedJob, now_s: float) -> Start | None:
        """Start at once, capped."""
        return Start(cap_w=self._cap_w)


class Hysteresis(NoGate):
    """The gate with its two thresholds."""

    name = "hysteresis"

    def __init__(self, config: SimulationConfig) -> None:
        """`rules.gate` has the thresholds."""
        self._rules = config
        self._state = GateState()
        self._judged: GateResult | None = None

    def see(self, snapshot: DeviceSnapshot, now_s: float) -> None:
        """Call the gate, and keep its memory."""
        self._judged = gate.judge(snapshot, self._state, self._rules.gate, now_s)
        self._state = self._judged.state

    def ask(self, job: SimulatedJob, now_s: float) -> Start | None:
        """Start if the gate is open for the last snapshot."""
        return Start() if self._gate_opens else None

    @property
    def _gate_opens(self) -> bool:
        return self._judged is not None and self._judged.decision.yes


class Forecasting(Hysteresis):
    """The gate joined with the forecast, which learns the device and the jobs."""

    def __init__(self, config: SimulationConfig, caps_w: Sequence[float] = ()) -> None:
        """`caps_w` are the caps that it may set, in watts, the mildest first."""
        super().__init__(config)
        self.name = "forecast + cap" if caps_w else "forecast"
        self.known = ThermalState()
        self._caps_w = caps_w
        self.profiles: dict[str, JobProfile] = {}

    def see(self, snapshot: DeviceSnapshot, now_s: float) -> None:
        """Call the gate, and let the forecast learn."""
        super().see(snapshot, now_s)
        for reading in snapshot.readings:
            rules = self._rules
            self.known = forecast.learn(self.known, reading, rules.gate, rules.forecast).known

    def ask(self, job: SimulatedJob, now_s: float) -> Start | None:
        """Start now, or under the mildest cap with which the job ends sooner than by waiting.

        An unknown job, or one that no wait makes safe, begins with the device at rest.
        """
        profile = self.profiles.get(job.kind, JobProfile())
        expected = profile.job()
        start, says = self._try(expected, now_s)
        trusted = says.facts["trusted"] is True
        if start is not None and (trusted or self._may_begin_unforeseen(now_s)):
            return start
        if expected is None or not trusted:
            return None
        ready_in_s = says.facts["ready_in_s"]
        by_waiting_s = math.inf if ready_in_s is None else float(ready_in_s) + expected.seconds
        for cap_w in self._caps_w:
            capped = expected.capped(cap_w, profile.cap_exponent)
            if capped.seconds >= by_waiting_s:
                break
            start, says = self._try(capped, now_s)
            if start is not None and says:
                return start._replace(cap_w=cap_w)
        hopeless = ready_in_s is None and self._gate_opens and self._may_begin_unforeseen(now_s)
        return Start() if hopeless else None

    def ended(self, done: Done) -> None:
        """Learn the profile of such jobs, and from a capped job the cost of the cap."""
        profile = self.profiles.get(done.job.kind, JobProfile())
        learn = job_profile.learn_job if done.start.cap_w is None else job_profile.learn_capped
        self.profiles[done.job.kind] = learn(
            profile, done.mean_w, done.ended_s - done.started_s, self._rules.forecast
        )

    def _try(self, job: Job | None, now_s: float) -> tuple[Start | None, Decision]:
        """Return a start if there may be one now, and the forecast's decision."""
        rules = self._rules
        says = forecast.judge(self.known, job, rules.gate, rules.forecast, now_s)
        if self._judged is None or not admission.admit(self._judged, says, rules.gate):
            return None, says
        return Start(margin_c=float(says.facts["margin_c"] or 0.0) if says else None), says

    def _may_begin_unforeseen(self, now_s: float) -> bool:
        """Whether the device is at rest, or too few readings are known to tell that.

        A known device without enough readings in a row is waited for.
        """
        rules = self._rules
        if self.known.model.readings < rules.forecast.min_readings:
            return True
        return forecast.at_rest(self.known, rules.gate, rules.forecast, now_s).yes


class Oracle(NoGate):
    """Knows the plant, and starts each job as soon as it will run without slowing down."""

    name = "oracle"

    def __init__(self, plant: Plant) -> None:
        """`plant` is the device itself, not its readings."""
        self._plant = plant

    def ask(self, job: SimulatedJob, now_s: float) -> Start | None:
        """Try it on a copy of the device and its air."""
        kind = self._plant.kind
        body = self._plant.body._replace(hottest_c=-math.inf)
        until_s = body.work_s + job.work_s
        while until_s - body.work_s > 1e-9:
            body = advanced(kind, body, 10.0, job.load, None, until_s)
            if body.hottest_c > kind.slowdown_c:
                return None
        return Start()


def run(
    plant: Plant,
    jobs: Sequence[SimulatedJob],
    policy: Policy,
    config: SimulationConfig,
    on_done: Callable[[], None] = lambda: None,
) -> PolicyOutcome:
    """Run `jobs` (in order of arrival) on `plant` under `policy`; `on_done` is called per job."""
    done: list[Done] = []
    course: list[tuple[float, float]] = []
    peak_c = plant.body.die_c

    def look() -> float:
        now_s = plant.body.at_s
        policy.see(plant.survey(now_s), now_s)
        course.append((now_s, plant.body.die_c))
        return now_s

    for job in jobs:
        plant.load, plant.cap_w = 0.0, None
        # The wait for the device does not count for the deadline.
        free_s = max(plant.body.at_s, job.arrives_s)
        start, forced = None, False
        while start is None:
            now_s = look()
            if now_s >= job.arrives_s:
                start = policy.ask(job, now_s)
                if start is None and deadline.at_deadline(now_s - free_s, config.gate):
                    start, forced = Start(), True
            if start is None:
                plant.work(math.inf, config.every_s)
        before = plant.body
        plant.body = before._replace(hottest_c=before.die_c)
        plant.load, plant.cap_w = job.load, start.cap_w
        until_s = before.work_s + job.work_s
        plant.work(until_s, config.every_s)
        while until_s - plant.body.work_s > 1e-9:
            look()
            plant.work(until_s, config.every_s)
        after = plant.body
        peak_c = max(peak_c, before.hottest_c, after.hottest_c)
        done.append(
            Done(
                job=job,
                started_s=before.at_s,
                ended_s=after.at_s,
                mean_w=(after.energy_j - before.energy_j) / (after.at_s - before.at_s),
                slowed_s=after.slowed_s - before.slowed_s,
                lowest_margin_c=plant.kind.slowdown_c - after.hottest_c,
                start=start,
                forced=forced,
            )
        )
        policy.ended(done[-1])
        on_done()
    return PolicyOutcome(policy.name, tuple(done), plant.body.energy_j, peak_c, tuple(course))


def compare(
    kind: PlantKind,
    jobs: Sequence[SimulatedJob],
    generators: Callable[[], Generator],
    config: SimulationConfig,
    on_done: Callable[[], None] = lambda: None,
) -> tuple[PolicyOutcome, ...]:
    """Run each policy on its own equal device; `generators` gives each the same random numbers."""
    caps_w = tuple(share * kind.full_w for share in CAP_SHARES)
    plants = [Plant(kind, generators()) for _ in range(POLICIES)]
    policies: tuple[Policy, ...] = (
        NoGate(),
        Hysteresis(config),
        Forecasting(config),
        CapOnly(config.cap_share * kind.full_w),
        Forecasting(config, caps_w),
        Oracle(plants[-1]),
    )
    return tuple(
        run(plant, jobs, policy, config, on_done)
        for plant, policy in zip(plants, policies, strict=True)
    )


def draw_jobs(kind: PlantKind, count: int, generator: Generator) -> tuple[SimulatedJob, ...]:
    """Draw a mix of one to three kinds of job, each of which this device can run from rest.

    The duration of a kind is 25 to 75 % of the time after which the device, from rest on the
    warmest day, would slow down; that of a job varies by a twentieth. Jobs arrive by a Poisson
    process, so densely that they would keep the device busy for 40 to 90 % of the time.
    """
    kinds = []
    for number in range(int(generator.integers(1, 4))):
        load = float(generator.uniform(0.75, 1.0))
        longest_s = _longest_s(kind, load)
        kinds.append((f"job {number + 1}", load, longest_s * float(generator.uniform(0.25, 0.75))))
    busy = float(generator.uniform(0.4, 0.9))
    jobs, at_s = [], 600.0
    for _ in range(count):
        name, load, seconds = kinds[int(generator.integers(len(kinds)))]
        seconds *= float(generator.uniform(0.95, 1.05))
        jobs.append(SimulatedJob(name, at_s, seconds * load, load))
        at_s += float(generator.exponential(seconds / busy))
    return tuple(jobs)


def _longest_s(kind: PlantKind, load: float) -> float:
    """Return how long a load can last from rest on the warmest day, seconds, without slow-down."""
    warmer_c = kind.swing_c + sum(max(each.by_c, 0.0) for each in kind.steps)
    warm = kind.model_copy(update={"air_c": kind.air_c + warmer_c, "swing_c": 0.0, "steps": ()})
    body = at_rest(warm)
    while body.hottest_c <= kind.slowdown_c and body.at_s < _LONGEST_JOB_S:
        body = advanced(warm, body, 10.0, load, None)
    return body.at_s
