"""Pictures: each value lies where it belongs, and nothing that is drawn can become a script."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.page import drawing
from observability.story.past import Line, Mark, Past, Point
from tests.flows.page.makers import HOSTILE
from tests.observability.history.makers import at

WIDTH = drawing.WIDE.inner


def make_line(name: str = "served", values: Sequence[float] = (0.1, 0.3)) -> Line:
    """A value each second."""
    points = [Point(at(index), each, each, each) for index, each in enumerate(values)]
    return Line(name, points, len(points))


def make_mark(seconds: float = 5.0, **changed: Any) -> Mark:
    """An alarm."""
    fields: dict[str, Any] = {
        "decided_at": at(seconds),
        "question": "drift",
        "yes": True,
        "because": "errors rose",
        "position": 7,
    }
    return Mark(**(fields | changed))


def draw(**changed: Any) -> ET.Element:
    """A picture of ten seconds, parsed."""
    fields: dict[str, Any] = {
        "pipeline": "elec2",
        "metric": "brier",
        "told_at": at(20),
        "reach": "all",
        "since": at(0),
        "until": at(10),
    }
    past = Past(**(fields | changed))
    return ET.fromstring(
        drawing.picture(past, drawing.WIDE, lambda mark: f"/x/{mark.key}", "lower", "a")
    )


def test_a_past_without_rows_has_no_picture() -> None:
    """A page says so instead."""
    past = Past("elec2", "brier", at(0), "all", None, None)
    assert "" == drawing.picture(past, drawing.WIDE, lambda mark: "", "lower")


def test_a_mark_lies_at_its_moment_and_leads_to_its_decision() -> None:
    """Half of the time is half of the width; its sentence is its name."""
    link = draw(marks=[make_mark(5)]).find(".//a")
    assert link is not None
    circle = link.find("circle")
    assert circle is not None
    assert float(circle.get("cx", "0")) == pytest.approx(drawing.WIDE.left + WIDTH / 2)
    assert f"/x/{make_mark(5).key}" == link.get("href")
    assert "drift: yes, 2026-03-01 12:00:05 UTC: errors rose" == link.findtext("title")


def test_a_yes_is_full_and_a_no_is_hollow() -> None:
    """The class says it, and so does the name: no colour alone."""
    marks = [make_mark(1, question="promotion"), make_mark(9, question="promotion", yes=False)]
    found = draw(marks=marks).findall(".//a")
    assert ["mark champion yes", "mark champion no"] == [each.get("class") for each in found]


def test_marks_that_would_lie_on_each_other_are_one() -> None:
    """The newest speaks, and says how many there are."""
    found = draw(marks=[make_mark(5.0), make_mark(5.01), make_mark(5.02, times=3)]).findall(".//a")
    assert ["drift: yes (5 near here), 2026-03-01 12:00:05 UTC: errors rose"] == [
        each.findtext("title") for each in found
    ]


def test_a_line_begins_and_ends_where_its_values_do() -> None:
    """Left is the first moment, and the greatest value is above the least."""
    line = draw(scores=[make_line(values=(0.1, 0.5, 0.2))]).find(".//polyline")
    assert line is not None
    points = [tuple(map(float, each.split(","))) for each in line.get("points", "").split()]
    assert drawing.WIDE.left == points[0][0]
    assert points[1][1] < points[2][1] < points[0][1]


def test_hostile_names_and_reasons_are_text() -> None:
    """Wherever they stand: a line, a mark, a title."""
    found = draw(
        pipeline="x",
        metric=HOSTILE,
        scores=[make_line(HOSTILE)],
        margins=[make_line(HOSTILE)],
        marks=[make_mark(because=HOSTILE)],
    )
    tags = {each.tag for each in found.iter()}
    assert {"svg", "title", "g", "text", "path", "polygon", "polyline", "circle", "a"} == tags
    assert HOSTILE in (found.find(".//a/title").text or "")  # type: ignore[union-attr]


@given(
    st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=300),
    st.integers(1, 50),
)
def test_thinning_keeps_extremes_and_bounds_the_points(values: list[float], most: int) -> None:
    """No peak is lost, and no more than so many points are left."""
    found = drawing.thinned(make_line(values=values).points, most)
    assert len(found) <= most
    assert (min(values), max(values)) == (
        min(each.low for each in found),
        max(each.high for each in found),
    )


@given(st.lists(st.floats(-1e9, 1e9, allow_nan=False), min_size=1, max_size=20))
def test_every_value_lies_in_its_panel(values: list[float]) -> None:
    """Also where all are equal, or far apart."""
    text = ET.tostring(draw(scores=[make_line(values=values)]), encoding="unicode")
    pairs = re.findall(r"polyline points=\"([^\"]*)\"", text)[0].split()
    heights = [float(each.split(",")[1]) for each in pairs]
    assert all(20 <= each <= 151 for each in heights)


@pytest.mark.parametrize("seconds", [0.01, 1, 59, 3_600, 86_400, 30 * 86_400, 400 * 86_400])
def test_ticks_are_round_moments_and_few(seconds: float) -> None:
    """From a hundredth of a second to more than a year."""
    since, until = at(0.123), at(0.123) + timedelta(seconds=seconds)
    ticks = drawing.time_ticks(since, until, 9)
    assert len(ticks) <= 10
    assert all(since <= moment <= until for moment, _ in ticks)
    assert len(ticks) == len({text for _, text in ticks})


def test_months_are_written_as_days() -> None:
    """An hour would say nothing over a year."""
    texts = [text for _, text in drawing.time_ticks(at(0), at(90 * 86_400), 9)]
    assert all(re.fullmatch(r"\d\d \w{3}", each) for each in texts), texts
