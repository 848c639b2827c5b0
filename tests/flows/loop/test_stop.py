"""SIGTERM and Ctrl-C: the run checkpoints and ends well within ten seconds, wherever it is."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import psutil  # type: ignore[import-untyped]  # it publishes no types
import pytest

from models.persistence import checkpoint
from models.prediction_log import prediction_log
from observability.core.paths import Places
from observability.history.store import History
from tests import ROOT
from tests.flows.loop.test_run import thermodrift
from tests.flows.nursery import Nursery
from tests.pace import PATIENCE_S, stretched, until

pytestmark = pytest.mark.slow

BOUND_S = 10.0

SLOW_ONLINE = """
import time
from river import dummy

class Slow(dummy.NoChangeClassifier):
    def learn_one(self, x, y):
        time.sleep(0.02)
        super().learn_one(x, y)
"""

SLOW_BATCH = """
import sys, time
from sklearn.dummy import DummyClassifier

class Slow(DummyClassifier):
    def fit(self, X, y):
        sys.stderr.write("fitting\\n")
        sys.stderr.flush()
        {wait}
        return super().fit(X, y)
"""
IN_PYTHON = "[time.sleep(0.05) for _ in range(1200)]"
IN_ONE_CALL = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 120_000_000)"
"""One call into C that takes a minute: no Python code of this thread runs until it returns."""


def make_pipeline(folder: Path, online: str = "", batch: str = "") -> Path:
    """A stream of 3,000 coin tosses, and models of one's own where asked for."""
    lines = ["x,y"] + [f"{index % 7},{(index * 37 % 11) % 2}" for index in range(3_000)]
    (folder / "coins.csv").write_text("\n".join(lines) + "\n")
    if online:
        (folder / "slow_online.py").write_text(online)
    if batch:
        (folder / "slow_batch.py").write_text(batch)
    path = folder / "coins.toml"
    path.write_text(
        '[pipeline]\nname = "coins"\ntask = "classification"\n'
        '[stream]\npath = "coins.csv"\ntarget = "y"\n'
        '[gate]\nsource = "off"\n'
        + ('[online]\nmembers = ["slow_online:Slow"]\n' if online else "")
        + ('[batch]\nrecipe = "slow_batch:Slow"\n' if batch else "")
    )
    return path


def started(pipeline: Path, home: Path) -> subprocess.Popen[str]:
    """A run in a process of its own, its stderr open for reading."""
    return subprocess.Popen(
        [sys.executable, "-m", "thermodrift", "--home", str(home), "run", str(pipeline), "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_begun(process: subprocess.Popen[str], places: Places) -> None:
    """Return once the checkpoint exists: the loop is running."""

    def begun() -> bool:
        assert process.poll() is None, process.stderr and process.stderr.read()
        return places.pipeline("coins").checkpoint.exists()

    until(begun, "the first checkpoint")


def wait_for_line(stream: IO[str] | None, line: str) -> None:
    """Return once this line was written."""
    assert stream is not None
    for each in stream:
        if each.strip() == line:
            return
    pytest.fail(f"{line!r} was never written")


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[float, str, str]:
    """Send the signal; how long it took, stdout, stderr."""
    began_s = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    return time.monotonic() - began_s, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_amid_a_slow_batch_keeps_what_was_learned(
    number: signal.Signals, tmp_path: Path
) -> None:
    """A batch that would take 20 s is cut at the record where it stands; the rest comes later."""
    pipeline, home = make_pipeline(tmp_path, online=SLOW_ONLINE), tmp_path / "home"
    process = started(pipeline, home)
    wait_until_begun(process, Places(home))
    took_s, out, err = end(process, number)
    assert process.returncode == 0, err
    assert took_s < stretched(BOUND_S)
    summary = json.loads(out)
    assert summary["outcome"] == "stopped"
    places = Places(home).pipeline("coins")
    position = checkpoint.header(places.checkpoint)["position"]
    assert summary["position"] == position < 1_000
    if position:
        log = prediction_log.read(places.predictions, 0, 3_000)
        assert log["position"].to_pylist() == list(range(position))
    (run,) = History(home).ask("SELECT outcome, position_to FROM runs").to_pylist()
    assert run == {"outcome": "stopped", "position_to": position}


@pytest.mark.parametrize("wait", [IN_PYTHON, IN_ONE_CALL])
def test_a_signal_amid_a_fit_leaves_the_retrain_owed(
    wait: str, nursery: Nursery, tmp_path: Path
) -> None:
    """A fit that takes a minute is broken off; what was learned stays, the request stays open."""
    pipeline = make_pipeline(tmp_path, batch=SLOW_BATCH.format(wait=wait))
    home = tmp_path / "home"
    process = started(pipeline, home)
    wait_for_line(process.stderr, "fitting")
    took_s, _, err = end(process, signal.SIGTERM)
    assert process.returncode == 0, err
    assert took_s < stretched(BOUND_S)
    found = checkpoint.header(Places(home).pipeline("coins").checkpoint)
    assert found["position"] == 1_000
    assert found["open_request"]["asked_position"] == 1_000
    (tmp_path / "slow_batch.py").write_text(SLOW_BATCH.format(wait="pass"))
    again = json.loads(nursery.loop(pipeline, home).stdout)
    assert again["outcome"] == "finished"
    assert again["retrains"] >= 1


def test_a_signal_before_the_loop_begins_ends_well(tmp_path: Path) -> None:
    """While Prefect's API is still starting, nothing is begun and nothing is wrong."""
    pipeline, home = make_pipeline(tmp_path), tmp_path / "home"
    process = started(pipeline, home)
    until((home / "prefect").exists, "the beginning of Prefect's API")
    took_s, out, err = end(process, signal.SIGTERM)
    assert process.returncode == 0, err
    assert took_s < stretched(BOUND_S)
    assert json.loads(out)["outcome"] == "stopped"
    assert not Places(home).pipeline("coins").checkpoint.exists()


def test_what_a_model_prints_does_not_get_between_a_program_and_its_json(tmp_path: Path) -> None:
    """A fit that prints, from Python and from C, prints on stderr; stdout is one document."""
    wait = "print('fitted'); import os; os.write(1, b'from C')"
    pipeline = make_pipeline(tmp_path, batch=SLOW_BATCH.format(wait=wait))
    done = thermodrift("run", str(pipeline), "--json", home=tmp_path / "home")
    assert json.loads(done.stdout)["outcome"] == "finished"
    assert "fitted" in done.stderr
    assert "from C" in done.stderr


def test_a_run_whose_prefect_api_dies_checkpoints_and_ends(
    nursery: Nursery, tmp_path: Path
) -> None:
    """Killed as the kernel kills what takes too much memory: said, bounded, nothing lost."""
    pipeline, home = make_pipeline(tmp_path, online=SLOW_ONLINE), tmp_path / "home"
    process = started(pipeline, home)
    wait_until_begun(process, Places(home))
    (api,) = (
        child
        for child in psutil.Process(process.pid).children()
        if "flows.stack.ephemeral_api" in child.cmdline()
    )
    began_s = time.monotonic()
    api.kill()
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 75
    assert time.monotonic() - began_s < stretched(BOUND_S)
    assert "Prefect's embedded API ended" in err
    assert "Traceback" not in err
    places = Places(home).pipeline("coins")
    (tmp_path / "slow_online.py").write_text(SLOW_ONLINE.replace("0.02", "0.0"))
    assert 0 == nursery.loop(pipeline, home).returncode
    log = prediction_log.read(places.predictions, 0, 3_000)
    assert log["position"].to_pylist() == list(range(3_000))
