"""Killed at any instant, a run goes on as if it had not been: nothing lost, nothing learned twice.

Every named fault point is armed, once to kill (SIGKILL) and once to refuse (no space left on
device); the run is then finished, and must have left what an undisturbed run leaves. The loop is
driven without Prefect here, which has no part in it; `test_killed_at_random_moments` and
benchmarks/kills.py kill the whole command.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from benchmarks import kills
from models.persistence.signing import SigningKey
from models.prediction_log import prediction_log
from models.registry.registry import Registry
from observability.core import failpoints
from observability.core.paths import Places
from observability.history.store import History
from tests.flows.loop.test_run import make_example
from tests.flows.nursery import Nursery

RECORDS = 1_700
KNOBS = """
trace_s_per_record = 0.5

[drift]
every = 500
window = 500

[worth]
min_rows = 400
cooldown_records = 500
"""
"""Small batches, a retrain that is deferred and then promoted, and further ones."""

POINTS = [
    point
    for point in failpoints.POINTS
    if not point.startswith(("inbox.", "labels.", "power_limit.", "replay.", "run.", "upkeep."))
]
"""The points that a run passes. Those of the inbox are tried by
tests/models/inbox/test_inbox_kills.py, that of label files by tests/flows/api/test_label_file.py,
those of upkeep by tests/models/prediction_log/test_compaction.py, and those of power limits, which
only a run with caps passes, by tests/power/devices/test_power_limit.py."""

PASSINGS = {"atomic_file": 24, "loop": 4, "history.before_outbox": 5}
"""At which passing of a point it strikes: late enough to have something to lose."""

QUICK = "loop.after_predictions"
"""The point that `make test` tries: half a commit is there, and half is not."""


def left_behind(home: Path, name: str = "elec2", records: int = RECORDS) -> dict[str, Any]:
    """Everything that a run leaves for others, without the times at which it did so."""
    places = Places(home).pipeline(name)
    store = Registry(places, SigningKey.open(Places(home).key))
    timed = {"created_at", "fit_s", "sha256", "size_bytes"}

    def rows(sql: str) -> list[Any]:
        found: list[Any] = History(home).ask(sql).to_pylist()
        return found

    return {
        "log": prediction_log.read(places.predictions, 0, records).to_pylist(),
        "models": [each.model_dump(exclude=timed) for each in store.ls()],
        "champion": store.champion(),
        "decisions": rows("SELECT position, question, yes, because FROM decisions ORDER BY ALL"),
        "scores": rows("SELECT position_from, member, metric, value FROM scores ORDER BY ALL"),
        "requests": rows("SELECT position_requested, state, deferrals FROM requests ORDER BY ALL"),
        "expectations": rows(
            "SELECT position, evidence, expected_gain, compared_gain, followed_gain, version "
            "FROM expectations ORDER BY ALL"
        ),
        "costs": rows("SELECT position, work, version FROM costs ORDER BY ALL"),
        "forecasts": rows(
            "SELECT position, horizon_s, predicted_c, actual_c FROM forecasts ORDER BY ALL"
        ),
        "readings": rows("SELECT uuid, elapsed_s, margin_c FROM gpu_readings ORDER BY ALL"),
    }


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline file with everything in it that can be interrupted."""
    folder = tmp_path_factory.mktemp("resume")
    path = make_example(folder, RECORDS, KNOBS)
    path.write_text(path.read_text().replace('target = "class"', 'target = "class"\nbatch = 250'))
    return path


@pytest.fixture(scope="module")
def undisturbed(example: Path, nursery: Nursery) -> dict[str, Any]:
    """What a run leaves that nothing disturbed."""
    home = example.parent / "undisturbed"
    done = nursery.loop(example, home)
    assert done.returncode == 0, done.stderr
    found = left_behind(home)
    states = {row["state"] for row in found["requests"]}
    assert "promoted" in states
    assert any(row["deferrals"] for row in found["requests"])
    assert "admission" in {row["question"] for row in found["decisions"]}
    assert found["forecasts"]
    return found


@pytest.mark.parametrize(
    "point",
    [QUICK, *(pytest.param(each, marks=pytest.mark.slow) for each in POINTS if each != QUICK)],
)
def test_a_fault_at_every_point_changes_nothing(
    point: str, example: Path, undisturbed: dict[str, Any], nursery: Nursery, tmp_path: Path
) -> None:
    """Killed there, then refused by the disk there, then let go on: the outcome is the same."""
    after = PASSINGS.get(point, PASSINGS.get(point.partition(".")[0], 1))
    killed = nursery.loop(example, tmp_path, f"{point}=kill:{after}")
    assert killed.returncode == -signal.SIGKILL, f"{point} was not reached: {killed.stderr}"
    refused = nursery.loop(example, tmp_path, f"{point}=raise:1")
    if "flush" in point or point == "history.before_checkpoint":
        # What was committed waits, durably, beside the history: no reason to stop learning.
        assert refused.returncode == 0, refused.stderr
        assert "no space left on device" in refused.stdout
    else:
        assert refused.returncode != 0
        assert "no space left on device" in refused.stderr
    done = nursery.loop(example, tmp_path)
    assert done.returncode == 0, done.stderr
    assert undisturbed == left_behind(tmp_path)


@pytest.mark.slow
def test_a_slow_disk_changes_nothing(
    example: Path, undisturbed: dict[str, Any], nursery: Nursery, tmp_path: Path
) -> None:
    """Every point delayed at every passing: the writer lags behind, and the outcome is the same."""
    late = [point for point in failpoints.POINTS if not point.startswith("atomic_file.")]
    done = nursery.loop(example, tmp_path, ",".join(f"{point}=delay" for point in late))
    assert done.returncode == 0, done.stderr
    assert undisturbed == left_behind(tmp_path)


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """The whole command, Prefect included, killed a few times: the log is equal."""
    found = kills.measure(tmp_path, kills=3, records=3_000, seed=4)
    assert found["kills"] == 3
    assert found["logged"] == found["logged_expected"] != 0
    assert found["values_different"] == 0
    assert found["models_different"] == 0
    assert found["decisions_lost_or_double"] == 0


@pytest.mark.slow
def test_a_batch_that_was_logged_but_not_checkpointed_comes_again(
    example: Path, undisturbed: dict[str, Any], nursery: Nursery, tmp_path: Path
) -> None:
    """Between kill and resume the log may be ahead of the checkpoint; afterwards it is not."""
    nursery.loop(example, tmp_path, "loop.after_predictions=kill:3")
    places = Places(tmp_path).pipeline("elec2")
    from models.persistence import checkpoint

    position = checkpoint.header(places.checkpoint)["position"]
    assert prediction_log.read(places.predictions, position, RECORDS).num_rows == 250
    nursery.loop(example, tmp_path, "loop.after_predictions=kill:1")
    assert json.dumps(checkpoint.header(places.checkpoint)["position"]) == str(position)
    assert nursery.loop(example, tmp_path).returncode == 0
    assert undisturbed == left_behind(tmp_path)
