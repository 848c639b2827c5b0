"""Runs of the shipped deployments, and pipelines brought to where a test of them begins.

What a test is not about is done in its own process, without a server: a run on a server is a new
process that imports everything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.config import pipeline
from flows.deployed import drift_run, learn_run
from flows.deployed.drift_run import DriftRunResult
from flows.deployed.flow_run import DeployedRun
from flows.deployed.learn_run import LearnResult
from flows.run.progress import Display
from flows.run.shutdown import Stop
from tests import ROOT
from tests.flows.makers import ask, make_pipeline
from tests.flows.plain_loop import without_prefect
from tests.flows.prefect_server import PrefectServer
from tests.power.makers import make_gpu, make_twin

SOON = {"least_s": 12.0, "first_s": 12.0, "most_s": 12.0}
"""How soon a run that was put off comes back in these tests."""
HOT_C, COOL_C = 1, 60
"""Of a stand-in's T.Limit."""
_TRACE = (
    "elapsed_s,uuid,temperature_c,memory_temperature_c,margin_c,power_w,power_limit_w,"
    "utilization,throttle_reasons"
)


def begin(
    server: PrefectServer, flow: str, path: Path, fake_nvml: Path | None = None, **parameters: Any
) -> str:
    """Start a run of the shipped deployment of `flow`, for a pipeline of the test's own.

    Its machine has the devices of `fake_nvml`, if that is given.
    """
    job = None
    if fake_nvml is not None:
        environment = {"THERMODRIFT_FAKE_NVML": str(fake_nvml), "DO_NOT_TRACK": "1"}
        job = {"env": environment, "working_dir": str(ROOT)}
    home = str(path.parent / "home")
    return server.begin(
        f"thermodrift-{flow}/elec2", job, pipeline=str(path), home=home, **parameters
    )


def run(server: PrefectServer, flow: str, path: Path, **parameters: Any) -> dict[str, Any]:
    """The same, and wait for its end."""
    return server.ended(begin(server, flow, path, **parameters))


def learned(path: Path, records: int | None = None) -> LearnResult:
    """Learn what is new, up to so many records."""
    file, home = pipeline.read(path), path.parent / "home"
    with without_prefect():
        return learn_run.run_learn(
            file, home, "before", Stop(), Display(file.name), records, stop_for_drift_check=False
        )


def asked(path: Path, records: int = 400) -> None:
    """Bring a pipeline to where its first retrain is asked for, and nobody was told of it."""
    learned(path, records)
    assert "RetrainRequested" == looked(path).name


def looked(path: Path) -> DriftRunResult:
    """Look for drift, and tell nobody."""
    file, home = pipeline.read(path), path.parent / "home"
    with without_prefect():
        return drift_run.run_drift_check(
            DeployedRun(file, home, "before", Stop(), Display(file.name))
        )


def warm_until(folder: Path, position: int) -> Path:
    """A pipeline whose recorded GPU is too warm up to a position of the stream."""
    margins = (5 if at < position else 40 for at in range(1200))
    lines = [_TRACE, *(f"{at},GPU-1,60,,{each},100,300,0.5," for at, each in enumerate(margins))]
    (folder / "gpu.csv").write_text("\n".join(lines) + "\n")
    gate = {"source": "trace", "trace": "gpu.csv", "trace_s_per_record": 1.0}
    return make_pipeline(folder, 1_000, gate=gate)


def pretend(folder: Path, tlimit_c: int) -> Path:
    """From now on a machine with this stand-in has one GPU of that T.Limit."""
    path = folder / "stand-in.json"
    aside = path.with_suffix(".tmp")
    aside.write_text(make_twin(make_gpu(tlimit_c=tlimit_c)).model_dump_json())
    aside.replace(path)
    return path


def rows(path: Path, sql: str) -> list[dict[str, Any]]:
    """What the history of the test's home answers."""
    return ask(path.parent / "home", sql)
