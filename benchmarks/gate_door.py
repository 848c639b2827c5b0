"""The gate's door to GPUs: what a reading and an answer cost, and what a hung driver costs.

    python -m benchmarks.gate_door [--readings 500] [--hang-s 10] [--watch-s 30]

Over a stand-in for NVIDIA's library, so it is the way that is measured and no driver: a process
that reads the device, the pipe, the door, and the gate's judgement. `survey_us` is a survey that
brings something new, `survey_again_us` one that does not, `judge_us` one judgement of a new
reading, and `age_in_hand_ms` how old a reading is, by its own stamp, when it can be had. All are
medians.

The honest alternative is to ask the binding in the own process, with the very same questions:
`own_read_us`. Amid a call that never returns it stalls for ever; a process that does this is
watched for `--watch-s` seconds, and then killed. Behind the door the same call costs the device:
`noticed_s` is from the moment at which it was due to be read until it is told as unreadable, of
which `hang_s` is patience. `longest_stall_ms` is the longest of all surveys meanwhile.

Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pynvml

from power.core.device_readings import DeviceReading
from power.core.gate_config import GateConfig
from power.devices import nvml_worker
from power.devices.fake_nvml import FakeGpu, FakeNvml, FakeNvmlLibrary, Fault
from power.devices.nvml import NvmlAdapter
from power.policy import gate
from power.policy.gate import GateState

ROOT = Path(__file__).resolve().parents[1]
UUID = "GPU-a"
WELL = FakeNvml(gpus=(FakeGpu(uuid=UUID),))
HANGS = FakeNvml(
    gpus=(FakeGpu(uuid=UUID, faults={"nvmlDeviceGetPowerUsage": Fault(kind="hang", after=1)}),)
)
"""The device is read once, and at the second time a call does not return."""
QUICK_S = 0.005
OVER_S = 60.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readings", type=int, default=500)
    parser.add_argument("--hang-s", type=float, default=10.0)
    parser.add_argument("--watch-s", type=float, default=30.0)
    asked = parser.parse_args(arguments)
    well = handed_through(asked.readings) | own_reads(asked.readings)
    hung = while_it_hangs(asked.hang_s) | own_stall(asked.watch_s)
    print(  # noqa: T201 - the figure is the output
        json.dumps(
            {
                "benchmark": "gate_door",
                "readings": asked.readings,
                **well,
                "survey_over_own_read": round(well["survey_us"] / well["own_read_us"], 3),
                **hung,
                "own_stall_over_longest": round(
                    1e3 * hung["own_stall_at_least_s"] / hung["longest_stall_ms"]
                ),
            }
        )
    )


def handed_through(readings: int) -> dict[str, float]:
    """What each of so many readings costs whoever asks the door and the gate, medians."""
    limits, state = GateConfig(source="nvml"), GateState()
    surveys, again, judgements, ages = [], [], [], []
    with NvmlAdapter(twin=WELL, poll_s=QUICK_S, first_answer_s=OVER_S) as door:
        door.survey(time.monotonic())
        for _ in range(readings):
            if not door.wait_for_news(OVER_S):
                raise RuntimeError(f"the stand-in has said nothing for {OVER_S:g} s")
            now_s = time.monotonic()
            began_s = time.perf_counter()
            survey = door.survey(now_s)
            surveyed_s = time.perf_counter()
            state = gate.judge(survey, state, limits, now_s).state
            judged_s = time.perf_counter()
            door.survey(now_s)
            again.append(time.perf_counter() - judged_s)
            surveys.append(surveyed_s - began_s)
            judgements.append(judged_s - surveyed_s)
            ages.append(now_s - survey.readings[0].read_at_s)
    return {
        "judge_us": _median(judgements, 1e6),
        "survey_us": _median(surveys, 1e6),
        "survey_again_us": _median(again, 1e6),
        "age_in_hand_ms": _median(ages, 1e3),
    }


def own_reads(readings: int) -> dict[str, float]:
    """The same questions to the same stand-in, asked in this process."""
    loaded = pynvml.nvmlLib
    pynvml.nvmlLib = FakeNvmlLibrary(WELL)
    try:
        rounds = nvml_worker.reports(0, lambda what: None)
        told: list[float] = []
        while len(told) < readings:
            began_s = time.perf_counter()
            if next(rounds).is_well:
                told.append(time.perf_counter() - began_s)
    finally:
        pynvml.nvmlLib = loaded
    return {"own_read_us": _median(told, 1e6)}


def while_it_hangs(hang_s: float) -> dict[str, float]:
    """When a call that never returns is noticed, and how long anybody who asked was held up."""
    stalls: list[float] = []
    with NvmlAdapter(twin=HANGS, poll_s=QUICK_S, first_answer_s=OVER_S, hang_s=hang_s) as door:
        last = _read_once(door)
        while last.unreadable is None:
            due_s = last.read_at_s + QUICK_S
            began_s = time.perf_counter()
            (now,) = door.survey(time.monotonic()).readings
            stalls.append(time.perf_counter() - began_s)
            noticed_s = time.monotonic() - due_s
            if noticed_s > hang_s + OVER_S:
                raise RuntimeError(f"the hang was not noticed within {noticed_s:.0f} s")
            last = now
            door.wait_for_news(QUICK_S)
    return {
        "hang_s": hang_s,
        "noticed_s": round(noticed_s, 2),
        "surveys_meanwhile": len(stalls),
        "longest_stall_ms": round(1e3 * max(stalls), 3),
    }


def _read_once(door: NvmlAdapter) -> DeviceReading:
    """The one good reading: the first survey waits for it."""
    survey = door.survey(time.monotonic())
    if [each.unreadable for each in survey.readings] != [None]:
        raise RuntimeError(f"the stand-in was not read: {survey.because}")
    return survey.readings[0]


def own_stall(watch_s: float) -> dict[str, float]:
    """How long a process is held up that asks the hung library by itself: as long as it is let."""
    program = "from benchmarks import gate_door; gate_door.ask_the_hung()"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as asker:
        if asker.stdout is None or asker.stdout.readline() != "asking\n":
            raise RuntimeError("the process that asks for itself did not begin")
        began_s = time.monotonic()
        try:
            asker.wait(watch_s)
        except subprocess.TimeoutExpired:
            asker.kill()
        stalled_s = time.monotonic() - began_s
    return {"own_stall_at_least_s": round(stalled_s, 2)}


def ask_the_hung() -> None:
    """Read the device until a call does not return: in a process of its own."""
    pynvml.nvmlLib = FakeNvmlLibrary(HANGS)
    for report in nvml_worker.reports(0, lambda what: None):
        if report.is_well:
            print("asking", flush=True)  # noqa: T201 - whoever watches begins to count


def _median(seconds: Sequence[float], times: float) -> float:
    return round(statistics.median(seconds) * times, 1)


if __name__ == "__main__":
    main()
