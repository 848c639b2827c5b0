"""The names of the log's files: what they say is what was meant, and which one is replaced."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.core import log_segments
from observability.core.log_segments import Span

SPANS = st.tuples(st.integers(0, 30), st.integers(1, 12)).map(lambda at: Span(at[0], sum(at)))


@given(st.integers(0, 10**12 - 2), st.integers(1, 10**12))
def test_a_name_says_its_span(first: int, length: int) -> None:
    """Formatting and parsing are each other's inverse."""
    span = Span(first, min(first + length, 10**12 - 1))
    assert span == log_segments.parse(log_segments.name(span))


def test_a_name_is_twelve_digits_each() -> None:
    """The form is a promise: names sort as their positions do, and the history reads them too."""
    assert "000000000500-000000001000.parquet" == log_segments.name(Span(500, 1000))


@pytest.mark.parametrize("span", [(5, 5), (6, 5), (-1, 5), (0, 10**12)])
def test_what_no_name_can_say_is_refused(span: tuple[int, int]) -> None:
    """A name of 13 digits would be nobody's file, and its predictions lost."""
    with pytest.raises(ValueError, match=f"came: {span[0]} to {span[1]}"):
        log_segments.name(Span(*span))


@pytest.mark.parametrize(
    "name",
    [
        *("notes.txt", "backup.parquet", "000000000000-000000000500.parquet.old", ""),
        *("000000000500-000000000000.parquet", "000000000500-000000000500.parquet"),
        *(".000000000000-000000000500.parquet.7.tmp", "0-500.parquet"),
        "\u0660" * 12 + "-000000000500.parquet",
    ],
)
def test_a_file_of_somebody_else_is_none_of_the_logs(name: str) -> None:
    """It covers nothing, replaces nothing and is not replaced."""
    everything = log_segments.name(Span(0, 1000))
    assert log_segments.parse(name) is None
    assert [] == log_segments.superseded([name, everything])


@given(st.sets(SPANS, max_size=12), st.randoms(use_true_random=False))
def test_superseded_is_what_lies_within_a_longer_one(
    spans: set[Span], chance: random.Random
) -> None:
    """Word for word the definition, in order, and whatever the order of the names."""
    expected = [
        log_segments.name(span)
        for span in sorted(spans)
        if any(
            each != span and each.first <= span.first and span.last <= each.last for each in spans
        )
    ]
    names = [log_segments.name(span) for span in spans]
    chance.shuffle(names)
    assert expected == log_segments.superseded(iter(names))


@given(st.sets(SPANS, max_size=12))
def test_leaving_out_what_is_superseded_leaves_out_no_position(spans: set[Span]) -> None:
    """Every position is still covered, and nothing that is left is within another."""
    names = {log_segments.name(span) for span in spans}
    left = names - set(log_segments.superseded(names))
    covered = {place for each in left for place in range(*(log_segments.parse(each) or (0, 0)))}
    assert {place for span in spans for place in range(*span)} == covered
    assert [] == log_segments.superseded(left)


def test_neighbours_and_overlaps_replace_nothing() -> None:
    """Only a whole range within another is replaced; a half that is shared is not."""
    names = [log_segments.name(Span(*span)) for span in [(0, 10), (5, 15), (15, 20)]]
    assert [] == log_segments.superseded(names)
    assert [names[0]] == log_segments.superseded([*names, log_segments.name(Span(0, 12))])
