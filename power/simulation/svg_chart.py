"""Draw temperature over time, one panel per policy, as an SVG document.

Pure: figures go in, text comes out. A line and a few labels need no library.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

_WIDTH: Final = 960
_PANEL: Final = 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 16, 30, 24
_POINTS: Final = 1200
"""More points than pixels would not be visible."""


class Limit(NamedTuple):
    """A temperature to mark, and its name."""

    name: str
    temperature_c: float
    colour: str


class Panel(NamedTuple):
    """One line of temperatures: moments in seconds, degrees Celsius."""

    title: str
    course: Sequence[tuple[float, float]]


class _Scale(NamedTuple):
    """Maps seconds and degrees to the coordinates of a panel."""

    most_s: float
    least_c: float
    most_c: float

    def x(self, at_s: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * at_s / self.most_s

    def y(self, temperature_c: float) -> float:
        share = (temperature_c - self.least_c) / (self.most_c - self.least_c)
        return _TOP + (_PANEL - _TOP - _BOTTOM) * (1 - share)


def svg(title: str, panels: Sequence[Panel], limits: Sequence[Limit]) -> str:
    """Return an SVG document with the panels one below the other, all to one scale."""
    degrees = [each_c for panel in panels for _, each_c in panel.course]
    degrees += [limit.temperature_c for limit in limits]
    scale = _Scale(
        most_s=max([1.0, *(at_s for panel in panels for at_s, _ in panel.course)]),
        least_c=min(degrees, default=0.0) - 3,
        most_c=max(degrees, default=1.0) + 3,
    )
    height = 40 + _PANEL * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}">',
        '<g font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="24" font-size="15">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate(0 {40 + _PANEL * number})">')
        parts.extend(_panel(panel, limits, scale))
        parts.append("</g>")
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"


def _panel(panel: Panel, limits: Sequence[Limit], scale: _Scale) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _PANEL - _BOTTOM
    parts = [
        f'<text x="{_LEFT}" y="{_TOP - 8}" font-weight="bold">{escape(panel.title)}</text>',
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="#888"/>',
        f'<text x="{_LEFT - 8}" y="{bottom}" text-anchor="end">{scale.least_c:.0f} °C</text>',
        f'<text x="{_LEFT - 8}" y="{_TOP + 8}" text-anchor="end">{scale.most_c:.0f} °C</text>',
        f'<text x="{right}" y="{_PANEL - 8}" text-anchor="end">{scale.most_s:.0f} s</text>',
    ]
    for limit in limits:
        y = scale.y(limit.temperature_c)
        parts.append(
            f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="{limit.colour}" stroke-dasharray="4 3"/>'
        )
        parts.append(
            f'<text x="{right}" y="{y - 3:.1f}" text-anchor="end" font-size="10" '
            f'fill="{limit.colour}">{escape(limit.name)}</text>'
        )
    # The hottest point of each bin is kept, because peaks matter.
    size = max(1, -(-len(panel.course) // _POINTS))
    reduced = (
        max(panel.course[begin : begin + size], key=lambda each: each[1])
        for begin in range(0, len(panel.course), size)
    )
    points = " ".join(f"{scale.x(at_s):.1f},{scale.y(at_c):.1f}" for at_s, at_c in reduced)
    parts.append(f'<polyline points="{points}" fill="none" stroke="#1565c0"/>')
    return parts
