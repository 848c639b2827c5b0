"""Pages of stories that no small run makes: a candidate, thinned lines, an old answer."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from flows.page import rendering
from observability.story import story
from observability.story.past import Line, Past, Point
from observability.story.values import Live, Value
from tests.observability.history.makers import at


def make_line(name: str = "served", points: int = 3, values: int = 3) -> Line:
    """A line that rises from 1 on, a value a minute, each with a band of 1 to both sides."""
    drawn = [Point(at(60 * n), float(n), n + 1.0, n + 2.0) for n in range(points)]
    return Line(name, drawn, values)


def make_page(past: dict[str, Any] | None = None, **live: Any) -> str:
    """The page of a story, as text without entities."""
    nothing = Past.nothing("elec2", "brier", at(600), "all")
    sql = {**nothing.sql, **dict.fromkeys(("scores", "margins", "marks"), "SELECT 1")}
    found = replace(nothing, sql=sql, **(past or {}))
    told = story.tell(found, Live(**({"home": "/srv/home", "state": "running"} | live)), at(660))
    return html.unescape(rendering.page(told, ["elec2"], "stamp", may_act=True))


def test_a_candidate_is_in_the_form_already() -> None:
    """Who decides need not copy its name."""
    text = make_page(candidate={"version": "v7", "since": 900, "gain": 0.1})
    assert 'name="version" required list="known-versions" autocomplete="off" value="v7"' in text
    assert 'value=""' in make_page()


def test_an_old_answer_says_that_it_is_old() -> None:
    """As an alert, with its age and why."""
    text = make_page(stale_because="process 7 has it")
    assert 'role="alert">This is the last answer that the history gave, 60 s ago' in text
    assert "process 7 has it" in text
    assert 'role="alert"' not in make_page()


def test_thinned_lines_say_how_many_values_are_behind_them() -> None:
    """And how much time each point stands for; where all are drawn it says that."""
    drawn = {"since": at(0), "until": at(600), "scores": [make_line(values=50)], "steps": 60}
    assert "50 values from 2026-03-01 12:00:00 UTC on, drawn as 3 points: of each 10 s" in (
        make_page(drawn)
    )
    assert "each of them drawn" in make_page(drawn | {"scores": [make_line()]})


def test_a_table_has_a_row_for_each_step_with_every_line() -> None:
    """A member that was not scored then is unknown, and of a margin the least counts."""
    lines = [make_line(), make_line("batch", points=1)]
    past = replace(Past.nothing("elec2", "brier", at(600), "all"), since=at(0), until=at(600))
    rows = rendering.line_rows(past, lines, lambda point: point.low)
    assert [
        {"when": at(0), "served": 0.0, "batch": 0.0},
        {"when": at(60), "served": 1.0, "batch": None},
        {"when": at(120), "served": 2.0, "batch": None},
    ] == rows


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "unknown"),
        (True, "yes"),
        (1234.0, "1,234"),
        (at(0), "2026-03-01 12:00:00 UTC"),
        ("text", "text"),
        ({"a": at(0)}, json.dumps({"a": str(at(0))})),
    ],
)
def test_a_value_is_shown_for_people(value: Value, told: str) -> None:
    """Numbers, moments and unknowns as the story says them."""
    assert told == rendering.shown(value)


def test_the_address_of_a_file_changes_with_the_file() -> None:
    """So that a browser may keep it for a year."""
    assert rendering.asset("page.css").startswith("/static/page.css?v=")
    assert rendering.asset("page.css") != rendering.asset("page.js")
    with pytest.raises(KeyError):
        rendering.asset_path("../rendering.py")


def test_a_document_has_plain_values() -> None:
    """For programs: all of it is JSON but the moments."""
    found = replace(Past.nothing("elec2", "brier", at(600), "all"), scores=[make_line()])
    document = story.document(story.tell(found, Live(home="/srv/home"), at(660)))
    text = json.dumps(document, default=_moment)
    assert json.loads(text)["scores"][0]["low"] == [0.0, 1.0, 2.0]


def _moment(value: object) -> str:
    assert isinstance(value, datetime), value
    return value.isoformat()
