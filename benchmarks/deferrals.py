"""How often a deployed retrain asks a closed gate before it may begin, and how long it waits.

    python -m benchmarks.deferrals [--plants 200] [--jobs 24] [--first 0]

Plants and jobs are those of `benchmarks.gate`, the judges and the times of coming back those of the
deployed flow: an attempt reads the device, asks `power.policy.admission`, and where it may not
begin stays away until `flows.deployed.backoff` says, during which nobody reads the device. Only the
clock is simulated. Side by side: the forecast, the thermostat alone with the flow's backoff (1, 2,
4 .. 15 minutes), and the thermostat asked every minute, which is what a fixed delay between retries
does.

Each attempt costs a process (`benchmarks.deployed`: its processor seconds), each second of waiting
freshness, and each throttled second the hardware. `skipped` jobs met their deadline. Prints one
JSON line.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flows.deployed.backoff import Backoff
from power.core.gate_config import GateConfig
from power.forecast import forecast, job_profile
from power.forecast.config import ForecastConfig
from power.forecast.forecast import ThermalState
from power.forecast.job_profile import JobProfile
from power.policy import admission, gate
from power.policy.gate import GateResult, GateState
from power.simulation import policy_lab, simulated_device
from power.simulation.policy_lab import SimulatedJob
from power.simulation.simulated_device import PRESETS, Plant, PlantKind

EVERY_S = 5.0
START_S = 4.0
"""From the beginning of an attempt's process to its first reading."""
LOOK_S = 1.0
"""Between two readings of an attempt."""
MOST_LOOKS = 30
"""Readings that an attempt waits for at most."""


@dataclass(frozen=True)
class Way:
    """A way to wait for headroom."""

    name: str
    rules: ForecastConfig
    backoff: Backoff


WAYS = (
    Way("forecast", ForecastConfig(), Backoff()),
    Way("thermostat", ForecastConfig(enabled=False), Backoff()),
    Way("every minute", ForecastConfig(enabled=False), Backoff(first_s=60.0, most_s=60.0)),
)


@dataclass
class Account:
    """What became of the jobs of one way."""

    jobs: int = 0
    deferred: int = 0
    attempts: list[int] = field(default_factory=list)
    """Of each deferred job, with the one that let it in."""
    waited_s: list[float] = field(default_factory=list)
    slowed_s: float = 0.0
    skipped: int = 0

    def told(self) -> dict[str, Any]:
        """Its figures."""
        return {
            "jobs": self.jobs,
            "deferred": self.deferred,
            "attempts_per_deferral": round(float(np.mean(self.attempts)), 2),
            "attempts_at_most": max(self.attempts),
            "attempts": sum(self.attempts),
            "mean_wait_s": round(float(np.mean(self.waited_s)), 1),
            "wait_s": round(sum(self.waited_s)),
            "throttled_s": round(self.slowed_s, 1),
            "skipped": self.skipped,
        }


class Machine:
    """A device, and all that the deployed flow remembers of it between its processes."""

    def __init__(self, device: Plant, way: Way) -> None:
        """`device` at its beginning."""
        self.device, self.way = device, way
        self.limits = GateConfig()
        self.state = GateState()
        self.known: dict[str, ThermalState] = {}
        self.profiles: dict[str, JobProfile] = {}

    @property
    def now_s(self) -> float:
        """The only clock that there is."""
        return self.device.body.at_s

    def rest(self, seconds: float) -> None:
        """Nothing runs, and nobody looks."""
        self.device.load = 0.0
        self.device.work(math.inf, seconds)

    def look(self) -> GateResult:
        """Read it, judge, learn: as the follower does."""
        survey = self.device.survey(self.now_s)
        judged = gate.judge(survey, self.state, self.limits, self.now_s)
        self.state = judged.state
        for each in survey.readings:
            before = self.known.get(each.uuid, ThermalState())
            learned = forecast.learn(before, each, self.limits, self.way.rules)
            self.known[each.uuid] = learned.known
        return judged

    def attempt(self, job: SimulatedJob) -> tuple[bool, float | None]:
        """Whether it may begin; if not, in how many seconds the forecast lets it, if it knows."""
        self.rest(START_S)
        judged = self.look()
        for _ in range(MOST_LOOKS):
            if not self._has_yet_to_say():
                break
            self.rest(LOOK_S)
            judged = self.look()
        profile = self.profiles.get(job.kind, JobProfile())
        said = admission.judge(
            judged, self.known, profile.job(), self.limits, self.way.rules, self.now_s, {}
        )
        again_in_s = said.facts.get("again_in_s")
        return said.yes, None if again_in_s is None else float(again_in_s)

    def _has_yet_to_say(self) -> bool:
        """What the follower waits for in an attempt."""
        if any(forecast.unsettled(each, self.way.rules) for each in self.known.values()):
            return True
        waits_s = [gate.opens_in_s(each, self.limits, self.now_s) for each in self.state.devices]
        return any(each is not None for each in waits_s)

    def fit(self, job: SimulatedJob) -> float:
        """Do it, read all the while; seconds for which the hardware had slowed itself down."""
        before = self.device.body
        self.device.load = job.load
        until_s = before.work_s + job.work_s
        while until_s - self.device.body.work_s > 1e-9:
            self.device.work(until_s, EVERY_S)
            self.look()
        after = self.device.body
        seconds = after.at_s - before.at_s
        profile = self.profiles.get(job.kind, JobProfile())
        mean_w = (after.energy_j - before.energy_j) / seconds
        self.profiles[job.kind] = job_profile.learn_job(profile, mean_w, seconds, self.way.rules)
        return after.slowed_s - before.slowed_s


def went(kind: PlantKind, jobs: Sequence[SimulatedJob], seed: int, way: Way, into: Account) -> None:
    """All jobs of one device, one after the other."""
    machine = Machine(Plant(kind, np.random.default_rng([seed, 1])), way)
    for job in jobs:
        machine.rest(max(job.arrives_s - machine.now_s, 0.0))
        into.jobs += 1
        asked_s, attempts = machine.now_s, 1
        may, forecast_s = machine.attempt(job)
        late = False
        while not may and not late:
            left_s = machine.limits.deadline_s - (machine.now_s - asked_s)
            machine.rest(way.backoff.again_in_s(attempts, forecast_s, left_s))
            attempts += 1
            may, forecast_s = machine.attempt(job)
            late = machine.now_s - asked_s >= machine.limits.deadline_s
        if attempts > 1:
            into.deferred += 1
            into.attempts.append(attempts)
            into.waited_s.append(machine.now_s - asked_s)
        if may:
            into.slowed_s += machine.fit(job)
        else:
            into.skipped += 1


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plants", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=24)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    accounts = {way.name: Account() for way in WAYS}
    for seed in range(asked.first, asked.first + asked.plants):
        generator = np.random.default_rng(seed)
        kind = simulated_device.varied(list(PRESETS.values())[seed % len(PRESETS)], generator)
        jobs = policy_lab.draw_jobs(kind, asked.jobs, generator)
        for way in WAYS:
            went(kind, jobs, seed, way, accounts[way.name])
    ways = {name: account.told() for name, account in accounts.items()}
    ratio = ways["forecast"]["attempts"] / ways["thermostat"]["attempts"]
    told = {"benchmark": "deferrals", "plants": asked.plants, "attempts_ratio": round(ratio, 3)}
    print(json.dumps({**told, "ways": ways}))  # noqa: T201 - the figure is the output


if __name__ == "__main__":
    main()
