"""What a run finds damaged in the history it tells at its end, once; what waits, until it is in."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.cli import run_summary
from flows.loop import local_loop
from observability.core.paths import Places
from tests.flows.makers import make_pipeline
from tests.observability.history.makers import python

pytestmark = pytest.mark.usefixtures("without_prefect")

HOLDER = """
import sys
import duckdb
connection = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A pipeline of which 200 records were gone through, in `tmp_path`/home."""
    path = make_pipeline(tmp_path)
    run(path)
    return path


def run(pipeline: Path, limit: int = 200) -> dict[str, Any]:
    """The summary of a run through `limit` records, each with several folds."""
    told: dict[str, Any] = local_loop.run_loop.fn(pipeline, pipeline.parent / "home", limit)
    return told


def test_a_run_that_makes_up_for_a_loss_says_so_once(
    pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fold that noticed it is not the last one of the run, and still it is told at the end."""
    history = Places(pipeline.parent / "home").history
    copy = pipeline.parent / "copy"
    shutil.copyfile(history, copy)
    assert run(pipeline)["history_trouble"] is None
    copy.replace(history)
    told = run(pipeline)
    assert told["history_trouble"].count("it is an older copy") == 1
    assert "0 are lost" in told["history_trouble"]
    capsys.readouterr()
    run_summary.render(told, str(pipeline))
    said = " ".join(capsys.readouterr().out.split())
    assert f"Trouble with the history: {told['history_trouble']}" in said
    assert run(pipeline)["history_trouble"] is None


def test_a_corrupt_commit_is_told_by_the_run_that_set_it_aside(pipeline: Path) -> None:
    """By its name; the next run has nothing to tell of it."""
    spool = Places(pipeline.parent / "home").outbox
    (spool / "cut.json").write_text("{")
    assert "cut.json is cut" in run(pipeline)["history_trouble"]
    assert (spool / "cut.json.corrupt").exists()
    assert run(pipeline)["history_trouble"] is None


def test_an_analyst_who_has_the_file_open_is_named_until_it_is_closed(pipeline: Path) -> None:
    """The rows wait; a run that could fold them in has no trouble."""
    with python(HOLDER, Places(pipeline.parent / "home").history) as analyst:
        assert analyst.stdout is not None
        assert "open\n" == analyst.stdout.readline()
        assert f"is open in process {analyst.pid}" in run(pipeline)["history_trouble"]
        analyst.communicate("close\n")
    assert run(pipeline)["history_trouble"] is None
