"""Draws scores over time, a panel for each stream and a line for each policy, as SVG.

Pure: figures go in, text comes out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

_WIDTH: Final = 960
_PANEL: Final = 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 28, 24
COLOURS: Final = {
    "never": "#9e9e9e",
    "every 1,000": "#ef6c00",
    "drift": "#6a1b9a",
    "worth": "#1565c0",
    "no batch": "#2e7d32",
    "optimum": "#c62828",
}
"""The policies that are drawn; all of them would be a tangle."""


def over_time(streams: Sequence[Mapping[str, Any]]) -> str:
    """An SVG document with a panel for each stream of a comparison."""
    height = _PANEL * len(streams) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}">',
        "<title>Scores over time</title>",
        '<g font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, stream in enumerate(streams):
        parts.append(f'<g transform="translate(0 {_PANEL * number})">')
        parts.extend(_panel(stream))
        parts.append("</g>")
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"


def _panel(stream: Mapping[str, Any]) -> Iterator[str]:
    lines = {
        row["policy"]: row["over_time"]
        for row in stream["policies"]
        if row["policy"] in COLOURS and row["over_time"]
    }
    values = [value for line in lines.values() for value in line]
    least, most = min(values, default=0.0), max(values, default=1.0)
    span = (most - least) or 1.0
    right, bottom = _WIDTH - _RIGHT, _PANEL - _BOTTOM

    def x(share: float) -> float:
        return _LEFT + (right - _LEFT) * share

    def y(value: float) -> float:
        return bottom - (bottom - _TOP) * (value - least) / span

    title = escape(f"{stream['stream']}: {stream['score']}")
    yield f'<text x="{_LEFT}" y="{_TOP - 10}" font-weight="bold">{title}</text>'
    yield f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="#888"/>'
    yield f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">{least:.3g}</text>'
    yield f'<text x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">{most:.3g}</text>'
    records = f"{stream['records']:,} records"
    yield f'<text x="{right}" y="{bottom + 16}" text-anchor="end">{records}</text>'
    for drift in stream.get("drifts", ()):
        at = x(drift["position"] / stream["records"])
        yield f'<path d="M{at:.1f} {_TOP}V{bottom}" stroke="#bbb" stroke-dasharray="3 3"/>'
    for number, (policy, line) in enumerate(lines.items()):
        colour = COLOURS[policy]
        points = " ".join(
            f"{x((index + 0.5) / len(line)):.1f},{y(value):.1f}" for index, value in enumerate(line)
        )
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.4"/>'
        yield (
            f'<text x="{right + 8}" y="{_TOP + 14 * (number + 1)}" fill="{colour}">'
            f"{escape(policy)}</text>"
        )
