"""Draws a story over time as SVG: scores, margins and decisions, one above the other on one axis.

Pure: values go in, text comes out. Colours are classes, so that a style sheet can make them dark;
each mark is a link with its sentence as title, so that it can be reached by keyboard.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from html import escape
from typing import Final, NamedTuple

from observability.story.past import Line, Mark, Past, Point
from observability.story.questions import LANES
from observability.story.words import moment, number

LanesOf = dict[str, list[Mark]]
Linked = Callable[[Mark], str]
"""The address of a mark's decision."""

_TOP: Final = 22
_PANEL: Final = 150
_LANE: Final = 26
_BOTTOM: Final = 36
_GAP: Final = 20
_RADIUS: Final = 6.0
_NICE: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
_TICKS_S: Final = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800),
    *(21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600, 2_592_000, 7_776_000, 31_536_000),
)
MEMBERS: Final = ("served", "online", "batch", "baseline")


class Size(NamedTuple):
    """The size of a picture in its own units, which are about a pixel each."""

    width: int
    left: int
    right: int

    @property
    def inner(self) -> int:
        """The width of a panel."""
        return self.width - self.left - self.right


WIDE: Final = Size(1000, 72, 120)
NARROW: Final = Size(380, 70, 10)


class _Scale(NamedTuple):
    """Maps moments and values to coordinates."""

    size: Size
    since: datetime
    until: datetime
    least: float = 0.0
    most: float = 1.0

    def x(self, at: datetime) -> float:
        length_s = max((self.until - self.since).total_seconds(), 1e-6)
        share = (at - self.since).total_seconds() / length_s
        return self.size.left + self.size.inner * min(max(share, 0.0), 1.0)

    def y(self, value: float) -> float:
        share = (value - self.least) / (self.most - self.least)
        return _TOP + (_PANEL - _TOP) * (1 - share)


def picture(past: Past, size: Size, link: Linked, better: str, key: str = "picture") -> str:
    """An SVG element with all that is drawn of a past; empty where it has nothing.

    `better` is lower or higher, as the metric is; `key` begins the ids in it, since a page may
    have two.
    """
    if past.since is None or past.until is None:
        return ""
    scale = _Scale(size, past.since, past.until)
    panels = [
        (f"{past.metric} of each member ({better} is better)", "score", past.scores),
        ("margin of each device, °C", "margin", past.margins),
    ]
    drawn = [each for each in panels if each[2]]
    lanes = _lanes(drawn_marks(past, size))
    height = (_PANEL + _GAP) * len(drawn) + _TOP + _LANE * len(lanes) + _BOTTOM
    body: list[str] = []
    y = 0
    for title, kind, lines in drawn:
        body.append(f'<g transform="translate(0 {y})">')
        body.extend(_panel(title, kind, lines, scale))
        body.append("</g>")
        y += _PANEL + _GAP
    body.append(f'<g transform="translate(0 {y + _TOP})">')
    body.extend(_marks(lanes, scale, link))
    body.append("</g>")
    rules = _rules(lanes.get("champion", []), scale, height - _BOTTOM)
    axis = _axis(scale, height - _BOTTOM)
    told = (
        f"Scores, margins and decisions of {past.pipeline} from {moment(past.since)} to "
        f"{moment(past.until)}. The tables beside it have the same numbers."
    )
    head = (
        f'<svg viewBox="0 0 {size.width} {height}" role="group" class="picture" '
        f'aria-labelledby="{key}-title"><title id="{key}-title">{escape(told)}</title>'
    )
    return "".join([head, *rules, *axis, *body, "</svg>"])


def _panel(title: str, kind: str, lines: Sequence[Line], scale: _Scale) -> Iterator[str]:
    """A frame with ticks, a band from the least to the greatest value, and the means as lines."""
    size = scale.size
    ticks = _ticks(lines, kind)
    scale = scale._replace(least=ticks[0], most=ticks[-1])
    yield f'<text x="{size.left}" y="{_TOP - 8}" class="heading">{escape(title)}</text>'
    for tick in ticks:
        y = scale.y(tick)
        yield f'<path d="M{size.left} {y:.1f}h{size.inner}" class="grid"/>'
        told = f"{tick:.4g}"
        yield f'<text x="{size.left - 6}" y="{y + 4:.1f}" class="tick end">{told}</text>'
    ends: list[tuple[float, str, str]] = []
    ordered = sorted(lines, key=lambda each: each.name != "baseline")
    for index, line in enumerate(ordered):
        name = f"{kind} {_class(kind, line.name, index)}"
        points = thinned(line.points, size.inner)
        if _has_band(kind, line):
            above = [f"{scale.x(each.at):.1f},{scale.y(each.high):.1f}" for each in points]
            below = [f"{scale.x(each.at):.1f},{scale.y(each.low):.1f}" for each in points[::-1]]
            yield f'<polygon points="{" ".join(above + below)}" class="band {name}"/>'
        means = " ".join(f"{scale.x(each.at):.1f},{scale.y(each.mean):.1f}" for each in points)
        yield f'<polyline points="{means}" class="line {name}"/>'
        if len(points) == 1:
            x, y = scale.x(points[0].at), scale.y(points[0].mean)
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="dot {name}"/>'
        ends.append((scale.y(points[-1].mean), line.name, name))
    yield from _names(ends, scale.size)


def _names(ends: Sequence[tuple[float, str, str]], size: Size) -> Iterator[str]:
    """The name of each line at its end, apart from each other; in one row where it is narrow."""
    if size.right < 60:
        x = float(size.left)
        for _, text, name in sorted(ends):
            shown = text if len(text) <= 10 else f"{text[:9]}…"
            yield f'<text x="{x:.0f}" y="{_PANEL + 12}" class="name {name}">{escape(shown)}</text>'
            x += 8 * len(shown) + 12
        return
    least = -math.inf
    for y, text, name in sorted(ends):
        least = max(y + 4, least + 14)
        shown = text if len(text) <= 13 else f"{text[:12]}…"
        at = f'x="{size.width - size.right + 8}" y="{least:.1f}"'
        yield f'<text {at} class="name {name}">{escape(shown)}</text>'


def _marks(lanes: LanesOf, scale: _Scale, link: Linked) -> Iterator[str]:
    """The lanes: a "yes" is full and a "no" is hollow; several in one place have their number."""
    size = scale.size
    for number_, (lane, marks) in enumerate(lanes.items()):
        y = _LANE * number_ + _LANE / 2
        yield f'<path d="M{size.left} {y}h{size.inner}" class="grid"/>'
        yield f'<text x="{size.left - 10}" y="{y + 4}" class="tick end">{lane}</text>'
        for mark in marks:
            x = scale.x(mark.decided_at)
            answer = "yes" if mark.yes else "no"
            several = f" ({number(mark.times)} near here)" if mark.times > 1 else ""
            told = f"{mark.question}: {answer}{several}, {moment(mark.decided_at)}"
            title = f"<title>{escape(told)}: {escape(clipped(mark.because, 160))}</title>"
            yield (
                f'<a href="{escape(link(mark))}" class="mark {lane} {answer}" '
                f'data-decision="{escape(mark.key)}">{title}'
                f'<circle cx="{x:.1f}" cy="{y}" r="{_RADIUS}"/></a>'
            )


def _rules(champions: Sequence[Mark], scale: _Scale, height: int) -> Iterator[str]:
    """A line through all panels where a champion began to serve."""
    for mark in champions:
        if mark.yes and mark.question in ("promotion", "champion"):
            yield f'<path d="M{scale.x(mark.decided_at):.1f} {_TOP}V{height}" class="rule"/>'


def _axis(scale: _Scale, y: int) -> Iterator[str]:
    """Ticks of the time, with the day where it changes."""
    size = scale.size
    yield f'<path d="M{size.left} {y}h{size.inner}" class="frame"/>'
    shown = ""
    for at, text in time_ticks(scale.since, scale.until, size.inner // 90):
        x = scale.x(at)
        yield f'<path d="M{x:.1f} {y}v5" class="frame"/>'
        yield f'<text x="{x:.1f}" y="{y + 16}" class="tick middle">{text}</text>'
        day = f"{at:%d %b %Y}"
        if day != shown and ":" in text:
            yield f'<text x="{x:.1f}" y="{y + 28}" class="tick middle day">{day}</text>'
        shown = day


def drawn_marks(past: Past, size: Size) -> Sequence[Mark]:
    """The marks of a picture, those that would lie on each other as one."""
    if past.since is None or past.until is None:
        return ()
    return apart(past.marks, _Scale(size, past.since, past.until).x, 2 * _RADIUS)


def clipped(text: str, most: int = 300) -> str:
    """The beginning of a long reason; all of it is in its decision."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def apart(marks: Sequence[Mark], x: Callable[[datetime], float], distance: float) -> Sequence[Mark]:
    """The marks, where those of one answer that would lie on each other are one, the newest."""
    found: dict[tuple[str, bool, int], Mark] = {}
    for mark in marks:
        key = (mark.question, mark.yes, int(x(mark.decided_at) / distance))
        before = found.get(key)
        times = mark.times + (0 if before is None else before.times)
        found[key] = replace(mark, times=times)
    return sorted(found.values(), key=lambda each: each.decided_at)


def thinned(points: Sequence[Point], most: int) -> Sequence[Point]:
    """At most so many points, each with the least and the greatest of those that it stands for."""
    size = max(1, math.ceil(len(points) / max(most, 1)))
    if size == 1:
        return points
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return [
        Point(
            at=group[len(group) // 2].at,
            low=min(each.low for each in group),
            mean=sum(each.mean for each in group) / len(group),
            high=max(each.high for each in group),
        )
        for group in groups
    ]


def time_ticks(since: datetime, until: datetime, most: int) -> list[tuple[datetime, str]]:
    """Round moments between two, at most about so many, and how each is written."""
    length_s = max((until - since).total_seconds(), 1e-3)
    fitting = (each for each in _TICKS_S if length_s / each <= max(most, 2))
    step_s = next(fitting, _TICKS_S[-1])
    day = since.replace(hour=0, minute=0, second=0, microsecond=0)
    first = math.ceil((since - day).total_seconds() / step_s)
    ticks = []
    for index in range(first, first + int(length_s / step_s) + 2):
        at = day + timedelta(seconds=index * step_s)
        if since <= at <= until:
            form = "%d %b" if step_s >= 86_400 else "%H:%M" if step_s >= 60 else "%H:%M:%S"
            text = f"{at:{form}}" + (f".{at.microsecond // 100_000}" if step_s < 1 else "")
            ticks.append((at, text))
    return ticks


def _ticks(lines: Sequence[Line], kind: str) -> list[float]:
    """Round values around all that is drawn."""
    drawn = [
        value
        for line in lines
        for point in line.points
        for value in (
            (point.low, point.high) if _has_band(kind, line) else (point.mean, point.mean)
        )
    ]
    least, most = min(drawn), max(drawn)
    span = (most - least) or abs(most) or 1.0
    rough = span / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in _NICE if each * power >= rough * 0.999)
    first, last = math.floor(least / step), math.ceil(most / step)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def _lanes(marks: Sequence[Mark]) -> LanesOf:
    """The marks of each lane; a lane without marks is left out."""
    lane_of = {question: lane for lane, asked in LANES.items() for question in asked}
    found: LanesOf = {lane: [] for lane in LANES}
    for mark in marks:
        found[lane_of[mark.question]].append(mark)
    return {lane: each for lane, each in found.items() if each}


def _has_band(kind: str, line: Line) -> bool:
    """Whether the least and the greatest values are drawn: of several members they would hide."""
    return kind == "margin" or line.name == "served"


def _class(kind: str, name: str, index: int) -> str:
    """The class of a line: the members have their own, all others go around."""
    return name if kind == "score" and name in MEMBERS else f"device{index % 4}"
