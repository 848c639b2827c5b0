"""The picture of temperatures: a document that any browser reads, and that shows the peak."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from power.simulation.svg_chart import Limit, Panel, svg

SVG = "{http://www.w3.org/2000/svg}"
LIMITS = [Limit("slowdown", 90.0, "#c62828")]


def points(text: str) -> list[list[tuple[float, float]]]:
    """The points of every line that is drawn."""
    return [
        [
            (float(x), float(y))
            for x, y in (pair.split(",") for pair in line.get("points", "").split())
        ]
        for line in ET.fromstring(text).iter(f"{SVG}polyline")
    ]


def test_it_is_a_document_with_a_panel_per_line() -> None:
    """Titles, limits and both axes are there; nothing of a name breaks it."""
    panels = [Panel("a < b & c", [(0, 30), (10, 50)]), Panel("second", [(0, 40), (20, 80)])]
    text = svg('of "all"', panels, LIMITS)
    written = [each.text for each in ET.fromstring(text).iter(f"{SVG}text")]
    assert {'of "all"', "a < b & c", "second", "slowdown", "27 °C", "93 °C", "20 s"} <= set(written)
    assert 2 == len(points(text))


def test_later_is_further_right_and_warmer_is_higher() -> None:
    """All panels share one scale, and stay inside the page."""
    first, second = points(
        svg("t", [Panel("a", [(0, 30), (10, 50)]), Panel("b", [(0, 50), (20, 80)])], LIMITS)
    )
    assert first[0][0] < first[1][0] < second[1][0]
    assert first[0][1] > first[1][1] == second[0][1] > second[1][1]
    assert all(0 <= x <= 960 and 0 <= y <= 150 for line in (first, second) for x, y in line)


def test_a_long_course_is_thinned_and_keeps_its_peak() -> None:
    """A second of heat in a day is what one looks for."""
    course = [(float(at_s), 90.0 if at_s == 7_777 else 40.0) for at_s in range(20_000)]
    (line,) = points(svg("t", [Panel("a", course)], LIMITS))
    assert 1_000 < len(line) <= 1_200
    assert min(y for _, y in line) < max(y for _, y in line) - 50


def test_nothing_to_draw_is_still_a_document() -> None:
    """Of no job at all there is a picture with limits and no line."""
    assert [[]] == points(svg("t", [Panel("a", [])], LIMITS))
    assert [] == points(svg("t", [], []))
