"""How numbers, moments and lengths of time are said."""

from __future__ import annotations

import pytest

from observability.story import words
from tests.observability.history.makers import at


@pytest.mark.parametrize(
    ("value", "told"),
    [
        *((45312, "45,312"), (0.069421, "0.06942"), (1e-5, "1e-05"), (12345.6, "12,346")),
        *((None, "unknown"), (True, "yes"), (-3.0, "-3"), (float("nan"), "unknown")),
        (float("inf"), "unknown"),
    ],
)
def test_a_number_has_four_digits_that_count(value: float | None, told: str) -> None:
    """And an unknown one is said to be."""
    assert told == words.number(value)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        *((0.1234, "0.12 s"), (59.6, "60 s"), (150, "2 min"), (7300, "2 h 1 min")),
        *((200_000, "2 d 7 h"), (None, "unknown"), (-60, "minus 60 s")),
    ],
)
def test_a_length_has_its_greatest_units(seconds: float | None, told: str) -> None:
    """Two of them at the most."""
    assert told == words.length(seconds)


def test_a_moment_is_in_utc_and_says_how_long_ago() -> None:
    """Or how long it is still to come."""
    assert "60 s ago (2026-03-01 12:00:00 UTC)" == words.ago(at(0), at(60))
    assert "in 60 s (2026-03-01 12:01:00 UTC)" == words.ago(at(60), at(0))


def test_what_goes_on_says_for_how_long() -> None:
    """And from which moment on; an unknown one is said to be."""
    assert "for 60 s (since 2026-03-01 12:00:00 UTC)" == words.since(at(0), at(60))
    assert "since when is unknown" == words.since(None, at(60))
    assert "unknown" == words.ago(None, at(60))
