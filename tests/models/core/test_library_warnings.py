"""Warnings of a model's libraries: counted where somebody collects, else as Python has it."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.batch import recipes
from models.core import library_warnings
from models.core.library_warnings import LONGEST, CollectedWarnings


@given(messages=st.lists(st.text(max_size=2 * LONGEST), min_size=1, max_size=20))
def test_each_warning_counts_and_the_first_is_kept_on_one_line(messages: list[str]) -> None:
    """However many come from one place, and whatever they say."""
    into = CollectedWarnings()
    with library_warnings.collect(into), recipes.working(1):
        for message in messages:
            warnings.warn(message, UserWarning, stacklevel=1)
    assert len(messages) == into.count
    assert into.first.startswith(f"UserWarning: {' '.join(messages[0].split())}"[:LONGEST])
    assert 1 == len(into.first.splitlines())
    assert len(into.first) <= LONGEST + 1


def test_nobody_collects_and_a_warning_goes_where_python_sends_it() -> None:
    """A notebook that fits a model sees what its library warns of."""
    with pytest.warns(UserWarning, match="mind the step"), recipes.working(1):
        warnings.warn("mind the step", UserWarning, stacklevel=1)


def test_what_python_hides_from_users_is_not_counted() -> None:
    """A deprecation is news for the makers of a library."""
    into = CollectedWarnings()
    with library_warnings.collect(into), recipes.working(1):
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert CollectedWarnings() == into


def test_a_collection_ends_with_its_block() -> None:
    """The inner one has what came inside it; afterwards the outer one hears again."""
    outer, inner = CollectedWarnings(), CollectedWarnings()
    with library_warnings.collect(outer):
        with library_warnings.collect(inner), recipes.working(1):
            warnings.warn("inside", UserWarning, stacklevel=1)
        with recipes.working(1):
            warnings.warn("outside", UserWarning, stacklevel=1)
    assert ("UserWarning: inside", "UserWarning: outside") == (inner.first, outer.first)
    told = inner.decision("the fit", "own")
    assert "the fit (own) warned once, first: UserWarning: inside" == told.because
    facts = {"recipe": "own", "warnings": 1, "first": "UserWarning: inside"}
    assert facts == told.facts
    assert inner.decision("a library", None).because.startswith("a library warned once")
