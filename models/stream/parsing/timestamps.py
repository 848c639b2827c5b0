"""Columns of times: their formats, and the features made from them.

Pure. A moment never recurs, so a model learns nothing from it; the hour, the weekday and the month
recur, and are features. A time with an offset is converted to UTC, one without is read as UTC: so a
file is read the same in every time zone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.core.record_schema import TimeForm, TimePart

PARTS: tuple[TimePart, ...] = ("hour", "weekday", "month")
"""Hours since midnight, a fraction included; Monday is 0; January is 1."""
UNITS: dict[TimeForm, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_EARLIEST_S, _LATEST_S = 946_684_800.0, 4_102_444_800.0
"""The years 2000 and 2100: only numbers between them can be inferred as times."""
_ISO = re.compile(
    r"[12][0-9]{3}[-/][01][0-9][-/][0-3][0-9]"
    r"(?:[T ][0-2][0-9]:[0-5][0-9](?::[0-6][0-9](?:[.,][0-9]{1,9})?)?"
    r"(?: ?(?:Z|UTC|[+-][0-2][0-9]:?(?:[0-5][0-9])?))?)?"
)
_YEAR_1, _YEAR_9999 = -62_135_596_800.0, 253_402_300_799.0


def seconds_of_text(text: str) -> float | None:
    """Seconds since 1970 of an ISO 8601 date, with or without time and offset; else None."""
    bare = text.strip()
    if not _ISO.fullmatch(bare):
        return None
    bare = bare.replace("/", "-").replace(" UTC", "Z").replace("UTC", "Z").replace(" +", "+")
    bare = bare.replace(" Z", "Z")
    try:
        moment = datetime.fromisoformat(bare)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def is_iso(text: str) -> bool:
    """Whether a text is a time in ISO 8601, or the date by which databases mean none."""
    return seconds_of_text(text) is not None or is_no_date(text)


def is_no_date(text: str) -> bool:
    """Whether a text is 0000-00-00, with or without a time: the empty date of MySQL."""
    return text.strip().startswith("0000-00-00")


def seconds_of_number(number: float, form: TimeForm) -> float | None:
    """Seconds since 1970 of a number in a unit; None outside of the years 1 to 9999."""
    seconds = number / UNITS[form]
    return seconds if _YEAR_1 <= seconds <= _YEAR_9999 else None


def form_of_numbers(numbers: Sequence[float]) -> TimeForm | None:
    """The unit in which all numbers are times from 2000 to 2100; None if there is none."""
    if not numbers:
        return None
    lowest, highest = min(numbers), max(numbers)
    for form, unit in UNITS.items():
        if lowest / unit >= _EARLIEST_S and highest / unit <= _LATEST_S:
            return form
    return None


def part(seconds: NDArray[np.float64], which: TimePart) -> NDArray[np.float64]:
    """A part of times, shape (records,); NaN for a missing time."""
    if which == "hour":
        return np.mod(seconds, 86_400.0) / 3_600.0
    if which == "weekday":
        # The first of January 1970 was a Thursday.
        return np.mod(np.floor(seconds / 86_400.0) + 3.0, 7.0)
    found = np.full(seconds.shape, math.nan)
    known = np.isfinite(seconds)
    months: Any = np.floor(seconds[known]).astype("datetime64[s]").astype("datetime64[M]")
    found[known] = months.astype(np.int64) % 12 + 1
    return found


def has_hours(seconds: Sequence[float]) -> bool:
    """Whether any of the times is not midnight: dates alone have no hour."""
    return any(moment % 86_400.0 for moment in seconds)


def describe(seconds: float) -> str:
    """A time in ISO 8601, in UTC; in seconds if `datetime` cannot represent it."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (OverflowError, OSError, ValueError):
        return f"{seconds:g} s"
