"""`thermodrift upkeep`: what grows is kept small, beside a loop that does not notice."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from flows.maintenance import upkeep
from observability.core.paths import Places
from observability.history import store
from observability.history.store import History
from tests.flows.makers import NAME, make_pipeline, thermodrift
from tests.flows.nursery import Nursery
from tests.observability.history.makers import python

LOOP = """
import sys
from pathlib import Path
from flows.loop import local_loop
from tests.flows.plain_loop import without_prefect
with without_prefect():
    local_loop.run_loop.fn(Path(sys.argv[1]), Path(sys.argv[2]))
"""

UPKEEP = """
import sys
from pathlib import Path
from flows.maintenance import upkeep
from observability.core import failpoints
failpoints.arm_from(sys.argv[2])
upkeep.fn(Path(sys.argv[1]))
"""

HOLDER = """
import sys
import duckdb
connection = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
connection.close()
"""


def kept(home: Path) -> dict[str, dict[str, Any]]:
    """One upkeep without Prefect: its deeds by the pipeline, the home's own under ''."""
    document = upkeep.fn(home)
    return {each["pipeline"]: each for each in document["results"]}


def log_of(home: Path) -> list[str]:
    """Names of the files of the prediction log."""
    folder = Places(home).pipeline(NAME).predictions
    return sorted(path.name for path in folder.glob("*.parquet"))


def predicted(home: Path) -> pa.Table:
    """Every prediction, by position."""
    return store.open(home).predictions(NAME)


@dataclass(frozen=True)
class Undisturbed:
    """A pipeline, the home in which a run of it went through, and what that run predicted."""

    pipeline: Path
    home: Path
    predictions: pa.Table

    def copied(self, home: Path, *names: str) -> None:
        """Make `home` a copy of it, with the pipeline under `names` in its place."""
        shutil.copytree(self.home, home, dirs_exist_ok=True)
        places = Places(home)
        for name in names:
            shutil.copytree(places.pipeline(NAME).root, places.pipeline(name).root)
        if names:
            shutil.rmtree(places.pipeline(NAME).root)


@pytest.fixture(scope="module")
def undisturbed(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    pipeline = make_pipeline(folder)
    assert 0 == nursery.loop(pipeline, folder / "home").returncode
    return Undisturbed(pipeline, folder / "home", predicted(folder / "home"))


def test_the_log_is_merged_and_the_history_says_so(
    tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """Ten files become one, every prediction stays, and a second time there is nothing to do."""
    undisturbed.copied(tmp_path)
    assert 10 == len(log_of(tmp_path))
    result = kept(tmp_path)[NAME]
    assert ("done", 10, 1) == (
        result["state"],
        result["facts"]["files_before"],
        result["facts"]["files_after"],
    )
    assert ["000000000000-000000001000.parquet"] == log_of(tmp_path)
    assert undisturbed.predictions.equals(predicted(tmp_path))
    kept(tmp_path)
    assert ["000000000000-000000001000.parquet"] == log_of(tmp_path)
    told = store.open(tmp_path).ask(
        "SELECT pipeline, yes, because FROM decisions WHERE question = 'upkeep' "
        "AND pipeline <> '' ORDER BY decided_at"
    )
    assert (NAME, True, result["because"]) == tuple(told.to_pylist()[0].values())
    assert 2 == told.num_rows


def test_a_run_goes_on_over_a_merged_log(
    tmp_path: Path, undisturbed: Undisturbed, nursery: Nursery
) -> None:
    """Upkeep between two runs, amid a batch, changes nothing that is learned or logged."""
    for limit in (450, 130):
        assert 0 == nursery.loop(undisturbed.pipeline, tmp_path, limit=limit).returncode
        assert "done" == kept(tmp_path)[NAME]["state"]
    assert 1 == len(log_of(tmp_path))
    assert 0 == nursery.loop(undisturbed.pipeline, tmp_path).returncode
    assert undisturbed.predictions.equals(predicted(tmp_path))


@pytest.mark.slow
def test_the_loop_does_not_notice_it(tmp_path: Path, undisturbed: Undisturbed) -> None:
    """Upkeep again and again beside a run: the run ends well, and predicts what it would have."""
    run = python(LOOP, undisturbed.pipeline, tmp_path)
    merged = 0
    while run.poll() is None:
        facts = kept(tmp_path).get(NAME, {"facts": {}})["facts"]
        merged += int(facts.get("files_after", 0) < facts.get("files_before", 0))
    _, errors = run.communicate()
    assert 0 == run.returncode, errors
    assert merged >= 1
    kept(tmp_path)
    assert 1 == len(log_of(tmp_path))
    assert undisturbed.predictions.equals(predicted(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("point", ["upkeep.before_swap", "upkeep.inside_swap"])
def test_killed_at_any_moment_no_prediction_is_gone_or_double(
    tmp_path: Path, undisturbed: Undisturbed, point: str
) -> None:
    """What the kill leaves is read right at once, and tidied by the next upkeep."""
    undisturbed.copied(tmp_path)
    killed = python(UPKEEP, tmp_path, f"{point}=kill")
    killed.communicate()
    assert -signal.SIGKILL == killed.returncode
    assert undisturbed.predictions.equals(predicted(tmp_path))
    assert "done" == kept(tmp_path)[NAME]["state"]
    assert undisturbed.predictions.equals(predicted(tmp_path))
    folder = Places(tmp_path).pipeline(NAME).predictions
    left = {path.name for path in folder.iterdir()}
    assert {"000000000000-000000001000.parquet", ".compaction.lock"} >= left


def test_old_predictions_and_rows_go_where_a_person_said_so(
    tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """Whole files beyond the newest 100,000 positions; rows older than a day."""
    home = tmp_path
    undisturbed.copied(home)
    checkpoint = Places(home).pipeline(NAME).checkpoint
    # A pipeline that has come far: its checkpoint says so, in the part that upkeep reads.
    head, _, body = checkpoint.read_bytes().partition(b"\n")
    document = json.loads(head)
    document["summary"]["position"] = 100_150
    checkpoint.write_bytes(json.dumps(document).encode() + b"\n" + body)
    (home / "thermodrift.toml").write_text("[upkeep]\npredictions_keep = 100_000\nkeep_days = 1\n")
    document = upkeep.fn(home)
    first = document["results"][0]
    assert (NAME, "done", 1, 100) == (
        first["pipeline"],
        first["state"],
        first["facts"]["files"],
        first["facts"]["rows"],
    )
    assert ["000000000100-000000001000.parquet"] == log_of(home)
    assert 900 == store.open(home).predictions(NAME).num_rows


def test_an_analysts_session_puts_it_off(tmp_path: Path, undisturbed: Undisturbed) -> None:
    """Rows cannot be removed now: said, kept for the next time, and the exit code is 75."""
    home = tmp_path
    undisturbed.copied(home)
    (home / "thermodrift.toml").write_text("[upkeep]\nkeep_days = 1\n")
    with python(HOLDER, Places(home).history) as analyst:
        assert analyst.stdout is not None
        assert "open\n" == analyst.stdout.readline()
        put_off = thermodrift("--home", home, "upkeep", "--json")
        analyst.communicate("close\n")
    document = json.loads(put_off.stdout)
    states = {each["pipeline"]: each["state"] for each in document["results"]}
    assert (75, {NAME: "done", "": "later"}) == (put_off.returncode, states)
    assert f"process {analyst.pid}" in document["results"][-1]["because"]
    told = store.open(home).ask(
        "SELECT yes, because FROM decisions WHERE question = 'upkeep' AND pipeline = ''"
    )
    assert [(False, document["results"][-1]["because"])] == [
        tuple(row.values()) for row in told.to_pylist()
    ]


def test_what_is_damaged_is_named_and_holds_up_nobody_else(
    tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """One pipeline's broken file, another's broken checkpoint: the third one is merged."""
    home = tmp_path
    undisturbed.copied(home, "whole", "torn", "lost")
    torn = Places(home).pipeline("torn").predictions / "000000000100-000000000200.parquet"
    torn.write_bytes(b"PAR1")
    Places(home).pipeline("lost").checkpoint.write_bytes(b"no checkpoint")
    done = thermodrift("--home", home, "upkeep")
    assert 1 == done.returncode
    assert "✗ torn" in done.stdout
    assert "000000000100-000000000200.parquet" in done.stdout
    assert "✗ lost" in done.stdout
    assert "✓ whole" in done.stdout
    assert "Traceback" not in done.stderr
    assert 10 == len(list(Places(home).pipeline("lost").predictions.glob("*.parquet")))
    assert 1 == len(list(Places(home).pipeline("whole").predictions.glob("*.parquet")))


def test_a_home_in_which_nothing_began_needs_nothing(tmp_path: Path) -> None:
    """No pipeline, no log: an answer, not an error."""
    History(tmp_path).flush()
    document = upkeep.fn(tmp_path)
    assert ("done", [""]) == (document["state"], [each["pipeline"] for each in document["results"]])


def test_a_home_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A typing error in a timer is told, and keeps no empty home in order."""
    done = thermodrift("--home", tmp_path / "hmoe", "upkeep")
    assert (78, "") == (done.returncode, done.stdout)
    assert "there is no home at" in done.stderr
    assert [] == list(tmp_path.iterdir())
