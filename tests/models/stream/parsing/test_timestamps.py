"""Moments, however they are written, and the parts of them that come again."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.stream.parsing import timestamps


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-02", datetime(2026, 3, 2, tzinfo=UTC)),
        (" 2026-03-02 12:30 ", datetime(2026, 3, 2, 12, 30, tzinfo=UTC)),
        ("2026/03/02 12:30:15", datetime(2026, 3, 2, 12, 30, 15, tzinfo=UTC)),
        ("2026-03-02T12:30:15.250Z", datetime(2026, 3, 2, 12, 30, 15, 250_000, tzinfo=UTC)),
        ("2026-03-02 12:30:15 UTC", datetime(2026, 3, 2, 12, 30, 15, tzinfo=UTC)),
        ("2026-03-02T00:30:00+01:00", datetime(2026, 3, 1, 23, 30, tzinfo=UTC)),
        ("2026-03-02 00:30:00 +0100", datetime(2026, 3, 1, 23, 30, tzinfo=UTC)),
        ("2026-02-30", None),
        ("20260302", None),
        ("02.03.2026", None),
        ("12:30", None),
        ("", None),
    ],
)
def test_a_text_is_a_moment_in_iso_8601_or_none(text: str, expected: datetime | None) -> None:
    """A time with an offset is read in UTC; 02.03. is two days to two people, and read as none."""
    found = timestamps.seconds_of_text(text)
    assert found == (None if expected is None else expected.timestamp())


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([1_700_000_000, 1_700_000_060], "s"),
        ([1_700_000_000_000, 1_700_000_060_000], "ms"),
        ([1_700_000_000_000_000], "us"),
        ([1_700_000_000_000_000_000], "ns"),
        ([1, 2, 3], None),
        ([1_700_000_000, 1], None),
        ([], None),
    ],
)
def test_the_unit_of_numbers_is_told_by_the_years_that_it_gives(
    numbers: list[float], expected: str | None
) -> None:
    """All of them must lie between 2000 and 2100."""
    assert expected == timestamps.form_of_numbers(numbers)


def test_a_number_beyond_every_year_is_no_moment() -> None:
    """Python's own calendar ends in the year 9999."""
    assert 1.5 == timestamps.seconds_of_number(1500, "ms")
    assert timestamps.seconds_of_number(1e18, "s") is None


@given(
    st.datetimes(
        datetime.fromisoformat("1000-01-01"),
        datetime.fromisoformat("2500-01-01"),
        timezones=st.just(UTC),
    )
)
def test_parts_are_those_of_the_calendar(moment: datetime) -> None:
    """As Python's own calendar has them, before 1970 too."""
    seconds = np.array([moment.timestamp(), np.nan])
    hour, weekday, month = (timestamps.part(seconds, which).tolist() for which in timestamps.PARTS)
    expected = moment.hour + moment.minute / 60 + (moment.second + moment.microsecond / 1e6) / 3600
    assert hour[0] == pytest.approx(expected, abs=1e-4)
    assert (float(moment.weekday()), float(moment.month)) == (weekday[0], month[0])
    assert all(np.isnan([hour[1], weekday[1], month[1]]))


def test_dates_have_no_hours() -> None:
    """One moment that is not midnight makes the hour a feature."""
    assert not timestamps.has_hours([0.0, 86_400.0])
    assert timestamps.has_hours([0.0, 3_600.0])


def test_a_moment_is_told_as_people_read_it() -> None:
    """Beyond the calendar as its seconds."""
    assert "2026-03-02T12:30:00Z" == timestamps.describe(
        datetime(2026, 3, 2, 12, 30, tzinfo=UTC).timestamp()
    )
    assert "1e+18 s" == timestamps.describe(1e18)
