"""The power gate in a closed loop: how much less throttling, at what cost of time and energy?

    python -m benchmarks.gate [--plants 200] [--jobs 24] [--first 0]

Each plant is a device drawn by its seed, of the four ways of cooling in turn, and a mix of jobs
that it can take one by one from rest. Every policy begins knowing nothing of device and jobs, and
runs the same jobs on the same device. The oracle knows the plant and defers without caps.

Sensors are off by up to a degree to either side, and tell whole degrees. The forecast's error is
over what was read 60 s and 300 s later, given the power drawn meanwhile; `job_margin_rmse_c` is
that of the lowest margin told of a whole job before it began, over the device itself. Times are of
one reading that is learned from, and of one answer about a job that would have to wait.

Prints one JSON line. `--first` begins at another seed, so that a long run can be cut in pieces.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from power.core.gate_config import GateConfig
from power.forecast import forecast
from power.forecast.config import ForecastConfig
from power.forecast.forecast import ThermalState
from power.forecast.job_profile import Job
from power.simulation import policy_lab, simulated_device
from power.simulation.policy_lab import PolicyOutcome, SimulationConfig
from power.simulation.simulated_device import PRESETS, Plant

HORIZONS_S = (60.0, 300.0)
EVERY_S = 5.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plants", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=24)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args(arguments)
    seeds = range(asked.first, asked.first + asked.plants)
    print(  # noqa: T201 - the figure is the output
        json.dumps(
            {
                "benchmark": "gate",
                "plants": asked.plants,
                "jobs": asked.jobs,
                "first": asked.first,
                **closed_loop([one_plant(seed, asked.jobs) for seed in seeds]),
                **forecast_errors(seeds),
                **times(),
            }
        )
    )


def one_plant(seed: int, jobs: int) -> tuple[PolicyOutcome, ...]:
    """Every policy on the device and the jobs of a seed."""
    generator = np.random.default_rng(seed)
    kind = simulated_device.varied(list(PRESETS.values())[seed % len(PRESETS)], generator)
    mix = policy_lab.draw_jobs(kind, jobs, generator)
    return policy_lab.compare(
        kind, mix, lambda: np.random.default_rng([seed, 1]), SimulationConfig(every_s=EVERY_S)
    )


def closed_loop(runs: list[tuple[PolicyOutcome, ...]]) -> dict[str, Any]:
    """Each policy over all plants, against no gate and against the oracle."""
    ungated_s = sum(run[0].throttled_s for run in runs)
    ungated_j = sum(run[0].energy_j for run in runs)
    oracle_s = [run[-1].makespan_s for run in runs]
    told = {}
    for outcomes in zip(*runs, strict=True):
        spans = [each.makespan_s for each in outcomes]
        ratios = [span / best for span, best in zip(spans, oracle_s, strict=True)]
        delays = [delay for each in outcomes for delay in each.delays_s]
        throttled_s = sum(each.throttled_s for each in outcomes)
        told[outcomes[0].policy] = {
            "throttled_s": round(throttled_s, 1),
            "throttled_less": round(1 - throttled_s / ungated_s, 4) if ungated_s else None,
            "makespan_over_oracle": round(sum(spans) / sum(oracle_s), 4),
            "makespan_over_oracle_mean": round(float(np.mean(ratios)), 4),
            "makespan_over_oracle_median": round(float(np.median(ratios)), 4),
            "makespan_over_oracle_worst": round(max(ratios), 4),
            "makespan_s": round(sum(spans), 1),
            "energy_over_no_gate": round(sum(each.energy_j for each in outcomes) / ungated_j, 4),
            "energy_j": round(sum(each.energy_j for each in outcomes)),
            "mean_delay_s": round(float(np.mean(delays)), 1),
            "peak_c": round(max(each.peak_c for each in outcomes), 1),
            "forced": sum(done.forced for each in outcomes for done in each.jobs),
        }
    throttling = sum(run[0].throttled_s > 0 for run in runs)
    return {"plants_that_throttle": throttling, "policies": told, **_job_margins(runs)}


def _job_margins(runs: list[tuple[PolicyOutcome, ...]]) -> dict[str, Any]:
    """How wrong the lowest margin was that was told of uncapped jobs before they began."""
    off_c = [
        done.start.margin_c - done.lowest_margin_c
        for run in runs
        for outcome in run
        for done in outcome.jobs
        if done.start.margin_c is not None and done.start.cap_w is None
    ]
    squares = sum(each**2 for each in off_c)
    return {
        "job_margins": len(off_c),
        "job_margin_rmse_c": round(math.sqrt(squares / len(off_c)), 3) if off_c else None,
    }


def forecast_errors(seeds: Sequence[int]) -> dict[str, Any]:
    """Root mean square errors at both horizons over a life of changing load on each plant."""
    squares = dict.fromkeys(HORIZONS_S, 0.0)
    checks = dict.fromkeys(HORIZONS_S, 0)
    rules = ForecastConfig(remember_checks=100_000)
    for seed in seeds:
        _, known = lived(seed, rules, 1_000)
        for each in known.errors:
            squares[each.horizon_s] += each.mean_square_c2 * each.checks
            checks[each.horizon_s] += each.checks
    return {
        f"forecast_rmse_{horizon_s:g}_s_c": round(math.sqrt(squares[horizon_s] / count), 3)
        for horizon_s, count in checks.items()
        if count
    } | {f"forecast_checks_{horizon_s:g}_s": count for horizon_s, count in checks.items()}


def lived(seed: int, rules: ForecastConfig, readings: int) -> tuple[Plant, ThermalState]:
    """A plant, and what is known of it after so many readings of a load that often changes."""
    generator = np.random.default_rng(seed)
    kind = simulated_device.varied(list(PRESETS.values())[seed % len(PRESETS)], generator)
    device, known, load = Plant(kind, generator), ThermalState(), 0.0
    for number in range(readings):
        if number % 24 == 0:
            load = float(generator.choice([0.0, 0.0, 0.4, 0.7, 1.0]))
        reading = device.advance(EVERY_S, load=load)
        known = forecast.learn(known, reading, GateConfig(), rules).known
    return device, known


def times() -> dict[str, float]:
    """Microseconds of one reading and of one answer, medians."""
    rules, limits = ForecastConfig(), GateConfig()
    device, known = lived(1, rules, 1_000)
    learning, judging = [], []
    job = Job(power_w=690, seconds=2_000)
    for _ in range(300):
        reading = device.advance(EVERY_S, load=0.5)
        began_s = time.perf_counter()
        known = forecast.learn(known, reading, limits, rules).known
        learned_s = time.perf_counter()
        forecast.judge(known, job, limits, rules, reading.read_at_s)
        learning.append(learned_s - began_s)
        judging.append(time.perf_counter() - learned_s)
    return {
        "learn_us": round(float(np.median(learning)) * 1e6, 1),
        "judge_us": round(float(np.median(judging)) * 1e6, 1),
    }


if __name__ == "__main__":
    main()
