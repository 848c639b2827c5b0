"""Whose turn it is, whose work it is, and when a run comes back: no server is needed for these."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # it publishes no types

from flows.config import pipeline
from flows.config.overrides import over
from flows.deployed import learn_run, run_lease
from flows.deployed.backoff import Backoff
from flows.learning import learn_batch
from flows.learning.learn_batch import BatchResult
from flows.run import run_queue
from flows.run.progress import Display
from flows.run.shutdown import Stop
from flows.run.unit_of_work import UnitOfWork
from flows.stack import manifest, tied_process
from observability.core import parent_watch
from observability.core.errors import BadConfiguration
from observability.core.paths import PipelinePlaces, Places
from observability.drift.drift import DriftConfig
from observability.worth.worth import RetrainConfig
from tests import ROOT
from tests.flows.makers import environment_of, make_pipeline
from tests.pace import PATIENCE_S, until

HOLDER = """
import sys
from pathlib import Path
from flows.deployed import run_lease
from observability.core.paths import PipelinePlaces
with run_lease.held(PipelinePlaces(Path(sys.argv[1])), "retrain", "first") as held:
    if len(sys.argv) > 2:
        held.wait_until(float(sys.argv[2]))
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(places: PipelinePlaces, *words: str) -> subprocess.Popen[str]:
    """Another process that holds the claim `retrain`."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(places.root), *words],
        cwd=ROOT,
        env=environment_of(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert "held\n" == child.stdout.readline()
    return child


@pytest.fixture
def places(tmp_path: Path) -> PipelinePlaces:
    """The folder of a pipeline."""
    return PipelinePlaces(tmp_path / "small")


def test_two_processes_never_have_the_same_work(places: PipelinePlaces) -> None:
    """The second one is told at once; other work of the same pipeline is free."""
    child = holder(places)
    with (
        pytest.raises(run_lease.AlreadyLeased, match="retrain of pipeline small"),
        run_lease.held(places, "retrain", "second"),
    ):
        pytest.fail("both had it")
    with run_lease.held(places, "watch", "second"):
        assert run_lease.busy(places, "retrain")
    child.communicate("\n", timeout=PATIENCE_S)
    with run_lease.held(places, "retrain", "second") as held:
        assert held.before is None


def test_a_killed_run_leaves_its_name(places: PipelinePlaces) -> None:
    """The lock dies with the process, the file says whose it was."""
    child = holder(places)
    assert run_lease.find_orphan(places, "retrain") is None
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=PATIENCE_S)
    left = run_lease.find_orphan(places, "retrain")
    assert left is not None
    assert ("first", child.pid, None) == (left.run_id, left.pid, left.back_at_s)
    run_lease.clear(places, left)
    assert run_lease.find_orphan(places, "retrain") is None


def test_a_run_that_waits_keeps_the_work(places: PipelinePlaces) -> None:
    """It is not there, and comes back; who looks in between leaves it as it was."""
    child = holder(places, "123.5")
    child.communicate("\n", timeout=PATIENCE_S)
    with run_lease.held(places, "retrain", "second") as held:
        assert held.before is not None
        assert ("first", 123.5) == (held.before.run_id, held.before.back_at_s)
        held.give_back()
    assert held.before == run_lease.find_orphan(places, "retrain")


def test_who_waits_for_a_pipeline_is_seen(tmp_path: Path) -> None:
    """Learning asks between batches: nobody, until somebody waits for what it holds."""
    file = pipeline.read(make_pipeline(tmp_path, 100))
    places = Places(tmp_path / "home").pipeline(file.name)
    with run_queue.acquire(file, tmp_path / "home", Stop(), Display(file.name)):
        assert not run_queue.has_waiters(places)
        waiting = waiter(file.path, tmp_path / "home")
        until(lambda: run_queue.has_waiters(places), "a run that waits")
    assert "0\n" == waiting.communicate(timeout=PATIENCE_S)[0]
    assert not run_queue.has_waiters(places)


WAITER = """
import sys
from pathlib import Path
from flows.config import pipeline
from flows.run import run_queue
from flows.run.progress import Display
from flows.run.shutdown import Stop
file = pipeline.read(Path(sys.argv[1]))
with run_queue.acquire(file, Path(sys.argv[2]), Stop(), Display(file.name)) as work:
    print(work.state.position, flush=True)
"""


def waiter(path: Path, home: Path) -> subprocess.Popen[str]:
    """Another process that waits for a pipeline, and says at which position it got it."""
    return subprocess.Popen(
        [sys.executable, "-c", WAITER, str(path), str(home)],
        cwd=ROOT,
        env=environment_of(),
        stdout=subprocess.PIPE,
        text=True,
    )


def test_learning_makes_room_for_whoever_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits gets the pipeline between two batches, and learning then goes on to the end."""
    file = pipeline.read(make_pipeline(tmp_path, 1_000))
    home = tmp_path / "home"
    waiting: list[subprocess.Popen[str]] = []
    plain = learn_batch.learn.fn

    def learned(work: UnitOfWork) -> BatchResult:
        if work.state.position == 300 and not waiting:
            waiting.append(waiter(file.path, home))
            until(lambda: run_queue.has_waiters(work.run.places), "a run that waits")
        return plain(work)

    monkeypatch.setattr(learn_batch, "learn", learned)
    shift = learn_run.run_learn(
        file, home, "run", Stop(), Display("small"), None, stop_for_drift_check=False
    )
    assert (1_000, 1_000, "finished") == (shift.records, shift.position, shift.outcome)
    assert "400\n" == waiting[0].communicate(timeout=PATIENCE_S)[0]


@pytest.mark.parametrize(
    ("deferrals", "forecast_s", "left_s", "expected_s"),
    [
        (1, None, None, 60.0),
        (2, None, None, 120.0),
        (5, math.nan, math.nan, 900.0),
        (10_000, None, None, 900.0),
        (3, 37.5, 3600.0, 37.5),
        (3, 5000.0, 3600.0, 3600.0),
        (3, None, 100.0, 100.0),
        (3, 3.0, None, 30.0),
        (3, -5.0, None, 30.0),
        (3, None, -20.0, 30.0),
    ],
)
def test_a_deferred_run_comes_back_in_time(
    deferrals: int, forecast_s: float | None, left_s: float | None, expected_s: float
) -> None:
    """At the forecast's time, else ever more seldom, at the deadline, and never at once."""
    assert expected_s == Backoff().again_in_s(deferrals, forecast_s, left_s)


def test_only_the_knobs_that_were_given_count(tmp_path: Path) -> None:
    """The others stand as the pipeline's file has them."""
    file = pipeline.read(make_pipeline(tmp_path, 10, worth={"min_rows": 321}))
    changed = over(file, worth=RetrainConfig(cooldown_records=7), drift=None).pipeline
    assert (321, 7) == (changed.worth.min_rows, changed.worth.cooldown_records)
    assert file.pipeline.drift == changed.drift


def test_knobs_that_contradict_the_file_are_refused(tmp_path: Path) -> None:
    """The message names the parameter, the table and the file."""
    file = pipeline.read(make_pipeline(tmp_path, 10))
    with pytest.raises(BadConfiguration) as error:
        over(
            file,
            drift=DriftConfig(min_rows=150, window=150, reference_rows=150).model_copy(
                update={"window": 100}
            ),
        )
    assert "the run's parameter drift" in str(error.value)
    assert str(file.path) in str(error.value)


def test_the_shipped_file_is_what_one_stack_deploys() -> None:
    """prefect.yaml, with its comments, and `thermodrift up` are one and the same deployment."""
    shipped = yaml.safe_load((ROOT / "prefect.yaml").read_text().replace("{{ $PWD }}", str(ROOT)))
    del shipped["definitions"]
    example = {"elec2": ROOT / "examples/elec2.toml"}
    assert manifest.document(example, ROOT) == shipped


TETHERED = """
import sys, subprocess, signal
signal.signal(signal.SIGTERM, lambda *_: (print("asked", flush=True), sys.exit(0)))
print("up", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("how", ["cut", "term"])
def test_a_tethered_program_is_asked_to_end(how: str, tmp_path: Path) -> None:
    """When the tether is cut, or itself asked, the program has time to end by itself."""
    (tmp_path / "program.py").write_text(TETHERED)
    with (tmp_path / "log").open("wb") as log:
        process = tied_process.start(
            ["program"], environment_of(PYTHONPATH=str(tmp_path)), log, grace_s=PATIENCE_S
        )
    until(lambda: b"up" in (tmp_path / "log").read_bytes(), "the program")
    if how == "cut":
        parent_watch.release(process)
    else:
        process.terminate()
    assert 0 == process.wait(timeout=PATIENCE_S)
    parent_watch.release(process)
    assert b"up\nasked\n" == (tmp_path / "log").read_bytes()
