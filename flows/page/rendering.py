"""Renders stories as HTML by the templates beside it. It asks nothing and decides nothing.

Every value is escaped, since reasons, columns and devices are named by others; the pictures are
the one thing that is not, and `drawing` escapes in them itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2

from flows.page import drawing
from observability.story import words
from observability.story.past import Line, Mark, Past, Point
from observability.story.questions import Axis
from observability.story.story import Story
from observability.story.values import Value

HERE = Path(__file__).parent
STATIC = HERE / "static"
REACHES = (
    *(("hour", "an hour"), ("day", "a day"), ("week", "a week"), ("month", "30 days")),
    ("all", "all of it"),
)
LABELS: Mapping[str, str] = {
    "good": "✓ good",
    "watch": "! look",
    "act": "✗ act",
    "unknown": "? unknown",
}
TABLE_STEPS = 60
"""Rows of a table beside a picture."""


@cache
def templates() -> jinja2.Environment:
    """The templates, with every value escaped."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "shown": shown,
        "words": lambda name: str(name).replace("_", " "),
        "label": LABELS.__getitem__,
        "seconds": words.length,
        "ago": words.ago,
        "clip": drawing.clipped,
    }
    found.globals |= {"version": metadata.version("thermodrift"), "asset": asset}
    return found


@cache
def asset(name: str) -> str:
    """The address of a file that the service hands out; it changes with the file."""
    digest = hashlib.sha256(asset_path(name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


def asset_path(name: str) -> Path:
    """Where a file lies that the service hands out. Raises KeyError for another name."""
    if name == "plotly.min.js":
        distribution = metadata.distribution("plotly")
        return Path(str(distribution.locate_file("plotly/package_data/plotly.min.js")))
    return {each: STATIC / each for each in ("page.css", "page.js")}[name]


def shown(value: Value | Mapping[str, Any]) -> str:
    """A value for people."""
    if value is None:
        return words.UNKNOWN
    if isinstance(value, datetime):
        return words.moment(value)
    if isinstance(value, (bool, int, float)):
        return words.number(value)
    if isinstance(value, (Mapping, list)):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)


def page(story: Story, pipelines: Sequence[str], stamp: str, *, may_act: bool) -> str:
    """The page of a pipeline."""
    link = linked(story.pipeline)
    return (
        templates()
        .get_template("page.html")
        .render(
            title=story.pipeline,
            story=story,
            pipelines=pipelines,
            stamp=stamp,
            may_act=may_act,
            reaches=REACHES,
            link=link,
            pictures=pictures(story, link),
            caption=caption(story.past),
            tables=lambda: tables(story.past),
        )
    )


def overview(stories: Sequence[Story]) -> str:
    """The page of several pipelines."""
    return templates().get_template("overview.html").render(title="Pipelines", stories=stories)


def decision(pipeline: str, sql: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The page of one decision."""
    return (
        templates()
        .get_template("decision.html")
        .render(title="A decision", pipeline=pipeline, sql=sql, rows=rows)
    )


def message(title: str, told: str, pipeline: str | None = None) -> str:
    """A page with one sentence: what was done, or what went wrong."""
    return (
        templates().get_template("message.html").render(title=title, told=told, pipeline=pipeline)
    )


def linked(pipeline: str) -> Callable[[Mark], str]:
    """The addresses of a pipeline's decisions."""
    return lambda mark: f"/pages/{pipeline}/decisions/{mark.key}"


def pictures(story: Story, link: Callable[[Mark], str]) -> Mapping[str, str]:
    """The picture for a wide screen and for a telephone; empty where nothing is drawn."""
    better = "higher" if story.live.larger_is_better else "lower"
    sizes = {"wide": drawing.WIDE, "narrow": drawing.NARROW}
    return {
        key: drawing.picture(story.past, size, link, better, key) for key, size in sizes.items()
    }


def caption(past: Past) -> str:
    """How much is drawn, and how it was thinned."""
    lines = [*past.scores, *past.margins]
    values = sum(each.values for each in lines)
    points = sum(len(each.points) for each in lines)
    if past.since is None or past.until is None:
        return "Nothing is drawn."
    told = f"{words.number(values)} values from {words.moment(past.since)} on"
    if points == values:
        return f"{told}, each of them drawn."
    # The axis is a little longer than its rows.
    step_s = (past.until - past.since).total_seconds() / max(past.steps, 1)
    return (
        f"{told}, drawn as {words.number(points)} points: of each {words.length(step_s)} the mean "
        "as a line, the least and the greatest as a band."
    )


def tables(past: Past) -> str:
    """The tables beside a picture: the same numbers for those who do not see it."""
    return (
        templates()
        .get_template("tables.html")
        .render(
            past=past,
            score_rows=line_rows(past, past.scores, lambda point: point.mean),
            margin_rows=line_rows(past, past.margins, lambda point: point.low),
            mark_rows=[
                {
                    "when": mark.decided_at,
                    "asked": mark.question,
                    "answer": "yes" if mark.yes else "no",
                    "times": mark.times,
                    "because": drawing.clipped(mark.because),
                }
                for mark in drawing.drawn_marks(past, drawing.WIDE)
            ],
        )
    )


def line_rows(
    past: Past, lines: Sequence[Line], value: Callable[[Point], float]
) -> list[dict[str, Value]]:
    """Lines as rows: a moment, and of each line its value, the last one of so many steps."""
    if past.since is None or past.until is None:
        return []
    axis = Axis(past.since.timestamp(), past.until.timestamp(), TABLE_STEPS)
    rows: dict[int, dict[str, Value]] = {}
    for line in lines:
        for point in line.points:
            step = int((point.at.timestamp() - axis.since_s) / axis.step_s)
            row = rows.setdefault(step, {"when": point.at, **{each.name: None for each in lines}})
            row[line.name] = value(point)
    return [rows[step] for step in sorted(rows)]
