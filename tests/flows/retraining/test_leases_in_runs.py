"""Two pipelines, two processes, one device: never both fit on it at once.

The device is a stand-in for NVIDIA's library in each process; what they share is the home.
"""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from tests import ROOT
from tests.flows.makers import ask, environment_of, make_pipeline
from tests.flows.retraining.test_heat import slow

LOOP = """
import sys
from functools import partial
from pathlib import Path
from flows.retraining import admit
from flows.loop import local_loop
from flows.learning import learn_batch
from flows.run import power_source
from flows.retraining import retrain
from flows.config import settings
from flows.learning import drift_check
from power.devices.nvml import NvmlAdapter
from tests.power.makers import make_twin

settings.silence_telemetry()
for module, task in ((learn_batch, "learn"), (drift_check, "check"), (retrain, "retrain")):
    setattr(module, task, getattr(module, task).fn)
power_source.NvmlAdapter = partial(NvmlAdapter, twin=make_twin())
ask = admit.ask

def answered(session, request):
    answer = ask(session, request)
    Path(sys.argv[3]).touch()
    return answer

admit.ask = answered
local_loop.run_loop.fn(Path(sys.argv[1]), Path(sys.argv[2]), 1_000)
"""
"""The loop without Prefect, which leaves a file once its gate has answered for the first time."""


def work_until(path: str) -> None:
    """What a round of a fit does: some work, and that until the other one has asked too."""
    ends_s = time.monotonic() + 300
    while True:
        time.sleep(0.01)
        if Path(path).exists() or time.monotonic() > ends_s:
            return


def started(folder: Path, name: str, other: str) -> subprocess.Popen[str]:
    """A run of the pipeline `name` in a process of its own."""
    (folder / name).mkdir()
    asked = str(folder / f"{other}.asked")
    act = f"from tests.flows.retraining import test_leases_in_runs as t; t.work_until({asked!r})"
    path = make_pipeline(
        folder / name,
        name=name,
        batch=slow(folder / name, act),
        gate={"source": "nvml"},
        worth={"max_age_records": 1},
    )
    return subprocess.Popen(
        [sys.executable, "-c", LOOP, str(path), str(folder / "home"), f"{folder / name}.asked"],
        cwd=ROOT,
        env=environment_of(),
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_processes_never_fit_on_one_device_at_once(tmp_path: Path) -> None:
    """Whoever asks second waits, says for whom, and has its turn: fits lie one after another."""
    runs = [started(tmp_path, "prices", "demand"), started(tmp_path, "demand", "prices")]
    for each in runs:
        _, told = each.communicate(timeout=300)
        assert each.returncode == 0, told

    costs = ask(
        tmp_path / "home",
        "SELECT pipeline, started_at, seconds, uuid FROM costs ORDER BY started_at",
    )
    assert {("prices", "GPU-a"), ("demand", "GPU-a")} == {
        (row["pipeline"], row["uuid"]) for row in costs
    }
    for before, after in pairwise(costs):
        # The wall clock tells when, a monotonic one how long.
        ended_at = before["started_at"] + timedelta(seconds=before["seconds"] - 0.005)
        assert ended_at <= after["started_at"], (before, after)
    taken = ask(
        tmp_path / "home",
        "FROM decisions WHERE question = 'admission' AND because LIKE '%is leased to %'",
    )
    assert taken
    assert not any(row["yes"] for row in taken)
