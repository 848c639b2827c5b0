"""What a service keeps of the stories: fresh where it can be, old and said so where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.page.stories import GREATEST_AGE_S, SHARE_READING, Stories, stamp_of
from observability.core.paths import Places
from observability.history.store import History
from observability.story.story import Story
from tests.flows.api.makers import Learned
from tests.flows.makers import NAME
from tests.observability.history.makers import make_decision


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


def make_stories(told: Learned, clock: Clock) -> Stories:
    """Stories that wait for nobody."""
    return Stories(told.places, {NAME: told.file}, wait_s=0.0, clock=clock)


def decide(told: Learned, name: str) -> None:
    """Commit a decision of a person, which is a row more."""
    row = make_decision(pipeline=NAME, question="override", yes=True, because=name)
    History(told.home).commit([row], name)


def reasons(found: Story) -> list[Any]:
    """Why people overrode."""
    return [row["because"] for row in found.past.rows["people"]]


def test_a_story_is_that_of_a_real_run(told_once: Learned, clock: Clock) -> None:
    """Its answers have the figures of the history and of the checkpoint."""
    found = make_stories(told_once, clock).tell(NAME)
    (served,) = (
        History(told_once.home)
        .ask(
            'SELECT sum("value" * scored) / sum(scored) AS mean FROM scores '
            "WHERE member = 'served' AND metric = 'brier'"
        )
        .to_pylist()
    )
    assert pytest.approx(served["mean"]) == found.answer("good").numbers["served, over all"]
    assert (1_000, "brier", "resting") == (
        found.live.position,
        found.live.metric,
        found.live.state,
    )
    assert ": GPU-a." in found.answer("devices").sentence
    assert found.answer("waits").numbers["deferrals"] > 0  # type: ignore[operator]
    assert {"drift", "admission", "promotion"} <= {each.question for each in found.past.marks}


def test_nothing_is_read_again_while_nothing_has_changed(told: Learned, clock: Clock) -> None:
    """However many ask; after a minute it is read all the same, since moments go on."""
    stories = make_stories(told, clock)
    first = stories.tell(NAME)
    clock.now_s += GREATEST_AGE_S - 1
    assert first.past is stories.tell(NAME).past
    clock.now_s += 2
    assert first.past is not stories.tell(NAME).past


def test_a_commit_is_told_after_a_share_of_the_time(told: Learned, clock: Clock) -> None:
    """The history is open for pages for a twentieth of the time, so that runs get it."""
    stories = make_stories(told, clock)
    first = stories.tell(NAME)
    decide(told, "one")
    clock.now_s += 0.5 * first.past.took_s / SHARE_READING
    assert [] == reasons(stories.tell(NAME))
    clock.now_s += first.past.took_s / SHARE_READING + 1
    assert ["one"] == reasons(stories.tell(NAME))


def test_while_another_process_has_the_history_the_last_answer_is_told(
    told: Learned, clock: Clock
) -> None:
    """With its age and why; afterwards it is read again."""
    stories = make_stories(told, clock)
    first = stories.tell(NAME)
    decide(told, "one")
    clock.now_s += 100
    with History(told.home).exclusive():
        busy = stories.tell(NAME)
        assert first.past is busy.past
        assert "is open in" in busy.live.stale_because
        assert busy.live.stale_because in busy.answer("stale").sentence
    assert busy.live.stale_because == stories.tell(NAME).live.stale_because
    clock.now_s += 2
    after = stories.tell(NAME)
    assert ("", ["one"]) == (after.live.stale_because, reasons(after))


def test_a_history_that_was_never_read_says_why(told: Learned, clock: Clock) -> None:
    """A page that begins while it is busy has no figures, and says so."""
    with History(told.home).exclusive():
        found = make_stories(told, clock).tell(NAME)
    assert "unknown" == found.answer("good").state
    assert "is open in" in found.live.stale_because


def test_a_damaged_history_is_said_and_not_raised(told: Learned, clock: Clock) -> None:
    """The page goes on with what it has, and names the file."""
    Places(told.home).history.write_bytes(b"no database" * 1_000)
    found = make_stories(told, clock).tell(NAME)
    assert str(Places(told.home).history) in found.live.stale_because


def test_a_page_begins_no_history(tmp_path: Path, clock: Clock) -> None:
    """Before the first run there is none, and looking must not make one."""
    home = Places(tmp_path / "home")
    home.home.mkdir()
    found = Stories(home, {NAME: None}, clock=clock).tell(NAME)
    assert ([], "not begun") == (list(home.home.iterdir()), found.live.state)
    assert ("", []) == Stories(home, {NAME: None}, clock=clock).decision(NAME, "1-drift")


def test_each_reach_is_kept_apart(told_once: Learned, clock: Clock) -> None:
    """An hour is not all of it."""
    stories = make_stories(told_once, clock)
    assert ["hour", "all"] == [stories.tell(NAME, reach).past.reach for reach in ("hour", "all")]


def test_a_stamp_changes_with_what_is_told_and_not_with_its_age(
    told: Learned, clock: Clock
) -> None:
    """A browser takes a new page for a new stamp alone."""
    stories = make_stories(told, clock)
    first = stamp_of(stories.tell(NAME))
    clock.now_s += 1
    assert first == stamp_of(stories.tell(NAME))
    decide(told, "one")
    clock.now_s += 100
    assert first != stamp_of(stories.tell(NAME))
