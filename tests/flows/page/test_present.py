"""What is known beside the history: each file of the home that is missing or broken is said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.page import present
from flows.run.session import locked
from models.core.metrics import METRICS
from models.inbox.config import InboxConfig
from models.inbox.inbox import Inbox
from models.inbox.records import Answered
from observability.core.paths import Places
from observability.story.values import Live
from power.policy import override_by_hand
from tests.flows.api.makers import Learned
from tests.flows.makers import NAME

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def look(told: Learned) -> Live:
    """What is known at noon."""
    return present.look(told.places, NAME, NOW, told.file)


def test_a_pipeline_at_rest_has_what_its_checkpoint_says(told_once: Learned) -> None:
    """Its position, its metric and that metric's direction."""
    found = look(told_once)
    assert ("resting", 1_000, "brier", False) == (
        found.state,
        found.position,
        found.metric,
        found.larger_is_better,
    )
    assert str(told_once.file.absolute()) == found.file
    assert "trace" == found.reads_from


def test_a_run_that_holds_the_pipeline_is_running(told: Learned) -> None:
    """The lock of the operating system says so, and ends with its process."""
    with locked(told.places.pipeline(NAME)):
        assert "running" == look(told).state
    assert "resting" == look(told).state


def test_a_missing_or_broken_checkpoint_is_said(told: Learned, tmp_path: Path) -> None:
    """Nothing is guessed in its place."""
    checkpoint = told.places.pipeline(NAME).checkpoint
    checkpoint.write_bytes(b"no checkpoint")
    broken = look(told)
    assert "unreadable" == broken.state
    assert "cannot be read" in broken.because
    checkpoint.unlink()
    assert ("not begun", None) == (look(told).state, look(told).position)


def test_only_an_override_in_force_counts(told: Learned) -> None:
    """One that has expired is none, and one that cannot be read is said."""
    override_by_hand.answer(told.places, "open", "work", 60, NOW - timedelta(seconds=10))
    found = look(told).override
    assert found is not None
    assert ("open", NOW + timedelta(seconds=50), "work") == tuple(
        found[each] for each in ("answer", "until", "because")
    )
    override_by_hand.answer(told.places, "open", "work", 60, NOW - timedelta(seconds=61))
    assert look(told).override is None
    told.places.override.write_text("{")
    broken = look(told)
    assert broken.override is None
    assert "gate override clear" in broken.override_problem


def test_predictions_that_wait_for_labels_are_counted(told: Learned) -> None:
    """Since when the oldest does; a file that is no inbox is said."""
    path = told.places.pipeline(NAME).inbox
    assert look(told).labels is None
    with Inbox.open(path, InboxConfig()) as inbox:
        made = [Answered(f"id-{n}", NOW.timestamp() - n, {"x": 1}, {}, {}) for n in range(3)]
        inbox.record(made)
        inbox.label([("id-0", 1)], NOW.timestamp())
    assert {"waiting": 2, "joined": 1, "oldest_at": NOW - timedelta(seconds=2)} == look(told).labels
    path.write_bytes(b"no inbox" * 1_000)
    labels = look(told).labels
    assert labels is not None
    assert str(path) in labels["problem"]


def test_commits_that_wait_are_counted(told: Learned) -> None:
    """They came since the history was read."""
    before = look(told).waiting_commits
    override_by_hand.take_back(told.places, NOW)
    override_by_hand.answer(told.places, "open", "work", 60, NOW)
    assert before + 1 == look(told).waiting_commits


def test_a_home_that_is_not_there_has_a_page_too(tmp_path: Path) -> None:
    """It says that nothing has begun."""
    found = present.look(Places(tmp_path / "none"), "elec2", NOW)
    assert ("not begun", None, 0) == (found.state, found.labels, found.waiting_commits)


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_has_its_direction(told: Learned, name: str) -> None:
    """By the table of metrics, so that a new one cannot be forgotten."""
    path = told.places.pipeline(NAME).checkpoint
    judged = b'"judged_by": "%s"'
    path.write_bytes(path.read_bytes().replace(judged % b"brier", judged % name.encode(), 1))
    found = look(told)
    assert (name, METRICS[name].larger_is_better) == (found.metric, found.larger_is_better)  # type: ignore[index]
