"""How the story says numbers, moments and lengths of time. Pure."""

from __future__ import annotations

import math
from datetime import datetime

UNKNOWN = "unknown"


def number(value: float | None) -> str:
    """A number with four digits that count: 45,312, 0.06942, 1.2e-05; None is unknown."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def moment(at: datetime | None) -> str:
    """A moment to the second, in UTC."""
    return UNKNOWN if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def length(seconds: float | None) -> str:
    """A length of time in its two greatest units."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0:
        return f"minus {length(-seconds)}"
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    return f"{int(seconds // 86_400)} d {int(seconds % 86_400 // 3600)} h"


def ago(at: datetime | None, now: datetime) -> str:
    """How long a moment is past, or still to come, and which it is."""
    if at is None:
        return UNKNOWN
    past_s = (now - at).total_seconds()
    told = f"{length(past_s)} ago" if past_s >= 0 else f"in {length(-past_s)}"
    return f"{told} ({moment(at)})"


def since(at: datetime | None, now: datetime) -> str:
    """For how long something has been so, and from which moment on."""
    if at is None:
        return f"since when is {UNKNOWN}"
    return f"for {length((now - at).total_seconds())} (since {moment(at)})"


def counted(count: int, word: str) -> str:
    """So many of something: 1 alarm, 2 alarms."""
    return f"{number(count)} {word}" if count == 1 else f"{number(count)} {word}s"
