"""How a deployed run ended is in the home until its server has heard it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending, Running, Scheduled

from flows.deployed import pending_states

BOUND_S = 30.0


def test_an_ending_is_kept_until_it_was_heard(tmp_path: Path) -> None:
    """It tells the state in the run's own words; the hook forgets that run, and no other."""
    well = pending_states.save(tmp_path, "run-1", True, "Learned", "learned 300 records")
    ill = pending_states.save(tmp_path, "run-2", False, None, "OSError: no space")
    assert ("Learned", "learned 300 records") == (well.name, well.message)
    assert ("FAILED", "OSError: no space") == (ill.type.value, ill.message)
    assert ["run-1", "run-2"] == [each.run_id for each in pending_states.waiting(tmp_path)]
    assert well.name == pending_states.waiting(tmp_path)[0].state().name
    pending_states.acknowledge(None, SimpleNamespace(id="run-1"), well)
    assert ["run-2"] == [each.run_id for each in pending_states.waiting(tmp_path)]


def test_a_run_that_begins_again_has_not_ended(tmp_path: Path) -> None:
    """A person tried it again: what its first attempt came to is over."""
    pending_states.save(tmp_path, "run-1", False, None, "OSError: no space")
    pending_states.forget(tmp_path, "run-1")
    pending_states.forget(tmp_path, "run-that-never-ended")
    assert [] == pending_states.waiting(tmp_path)


def test_nobody_speaks_for_a_process_that_may_still_do_so(tmp_path: Path) -> None:
    """Not while it is there, within its bound; of another host's only the bound is known."""
    pending_states.save(tmp_path, "run-1", True, "Learned", "")
    (mine,) = pending_states.waiting(tmp_path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    late = mine.at_s - BOUND_S - 1
    cases = [
        (mine, True),
        (replace(mine, at_s=late), False),
        (replace(mine, pid=gone.pid), False),
        (replace(mine, pid=gone.pid, host="elsewhere"), True),
        (replace(mine, pid=1), True),
    ]
    assert [expected for _, expected in cases] == [
        each.may_still_be_reported(BOUND_S) for each, _ in cases
    ]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (Running(), True),
        (Crashed(), True),
        (Completed(), False),
        (Failed(), False),
        (Cancelled(), False),
        (Pending(), False),
        (Scheduled(), False),
    ],
)
def test_only_a_run_that_seems_to_run_or_crashed_is_mended(state: State, expected: bool) -> None:
    """What a person did to it, or its next attempt, stands."""
    assert expected is pending_states.is_stale(state)


def test_what_cannot_be_kept_or_read_changes_nothing(tmp_path: Path) -> None:
    """A file is in the folder's way: the run ends all the same; half a file tells of no run."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/pending_states").write_bytes(b"")
    assert "Learned" == pending_states.save(tmp_path / "full", "run-1", True, "Learned", "").name
    pending_states.save(tmp_path, "run-1", True, "Learned", "")
    (tmp_path / "pending_states/run-0.json").write_text('{"run_id": "run-0"')
    assert ["run-1"] == [each.run_id for each in pending_states.waiting(tmp_path)]
