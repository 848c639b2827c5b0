"""The newest rows are held out, what is rare too, and nobody is scored on what it learned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.batch import holdout
from models.core.record_schema import Label


def rare_every(step: int, rows: int = 5_000) -> list[Label]:
    """Ones at every so many rows among zeros."""
    return [int(row % step == step // 2) for row in range(rows)]


@given(
    codes=st.lists(st.integers(0, 4), min_size=2, max_size=200),
    share=st.floats(0.05, 0.9),
    seen=st.integers(0, 200),
    changed=st.none() | st.integers(0, 199),
)
def test_every_row_is_on_one_side(
    codes: list[int], share: float, seen: int, changed: int | None
) -> None:
    """Both parts ascend and cover all; a row that the champion learned from is never held out."""
    labels: list[Label] = [*codes]
    newest = int(len(labels) * (1 - share))
    known = np.arange(len(labels)) < seen
    parts = holdout.split(labels, "classification", newest, known, changed)
    together = [*parts.train.tolist(), *parts.held.tolist()]
    assert sorted(together) == list(range(len(labels)))
    assert parts.train.tolist() == sorted(parts.train.tolist())
    assert parts.held.tolist() == sorted(parts.held.tolist())
    assert not known[parts.held].any()


def test_where_nothing_is_rare_the_newest_share_is_held_out() -> None:
    """And of values nothing is rare."""
    for labels, task in (
        ([0, 1] * 50, "classification"),
        ([float(x) for x in range(100)], "regression"),
    ):
        parts = holdout.split(list(labels), task, 80)  # type: ignore[arg-type]  # one of the tasks
        assert list(range(80)) == parts.train.tolist()
        assert list(range(80, 100)) == parts.held.tolist()
        assert 0 == len(parts.apart) == len(parts.joined)


def test_what_is_rare_is_held_out_from_before_the_newest_share_as_well() -> None:
    """A handful, the newest of them, and training keeps as many."""
    labels = rare_every(500)
    parts = holdout.split(labels, "classification", 4_000)
    assert [2750, 3250, 3750] == parts.apart.tolist()
    assert 5 == sum(int(labels[row]) for row in parts.held)
    assert 5 == sum(int(labels[row]) for row in parts.train)
    assert 1_003 == len(parts.held)


def test_what_the_champion_learned_from_is_not_held_out_for_being_rare() -> None:
    """Else it would be flattered."""
    known = np.arange(5_000) < 3_000
    parts = holdout.split(rare_every(500), "classification", 4_000, known)
    assert [3250, 3750] == parts.apart.tolist()


def test_of_two_rows_of_a_class_each_side_has_one() -> None:
    """Of one row, training has it."""
    labels: list[Label] = ["a"] * 100
    labels[10], labels[20] = "b", "b"
    assert [20] == holdout.split(labels, "classification", 80).apart.tolist()
    labels[20], labels[95] = "a", "a"
    labels[10], labels[90] = "a", "b"
    assert [90] == holdout.split(labels, "classification", 80).joined.tolist()


def test_a_class_that_is_new_is_trained_on_too() -> None:
    """Its older half; a model that never saw it could not answer it."""
    labels: list[Label] = [*["a", "b"] * 40, *["a", "b", "new", "new"] * 6]
    parts = holdout.split(labels, "classification", 80)
    new = [row for row in range(80, 104) if labels[row] == "new"]
    assert new[:6] == parts.joined.tolist()
    assert [row for row in range(80, 104) if row not in new[:6]] == parts.held.tolist()


def test_very_many_rare_classes_leave_training_most_rows() -> None:
    """A quarter of the newest share is taken at the most."""
    labels: list[Label] = [row % 250 for row in range(1_000)]
    parts = holdout.split(labels, "classification", 800)
    assert 50 == len(parts.apart)


@pytest.mark.parametrize(
    ("changed", "first"), [(None, 800), (100, 800), (600, 800), (700, 850), (940, 970), (941, 800)]
)
def test_after_a_change_both_sides_have_rows_of_the_new_world(
    changed: int | None, first: int
) -> None:
    """Half of what came since; a change of long ago, or of a moment ago, moves nothing."""
    parts = holdout.split([1.0] * 1_000, "regression", 800, changed=changed)
    assert first == parts.held[0] == parts.newest


@pytest.mark.parametrize(
    ("seen", "first"), [(0, 800), (600, 800), (700, 850), (900, 950), (1_000, 1_000)]
)
def test_of_what_the_champion_has_not_seen_half_is_held_out_at_most(seen: int, first: int) -> None:
    """The rest is trained on: a challenger that knows no newer row can be no better."""
    parts = holdout.split([1.0] * 1_000, "regression", 800, np.arange(1_000) < seen)
    assert (first, 0, 0) == (parts.newest, len(parts.apart), len(parts.joined))
    assert list(range(first, 1_000)) == parts.held.tolist()


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ((), None),
        ((None, None), None),
        ((1_100, None), 50),
        ((1_100, 1_200), 100),
        # A change of a moment ago: the one before is the last that a fit can learn from.
        ((1_200, 1_342), 100),
        ((1_282,), None),
        ((1_280,), 140),
        # The whole window is from after it, or it is still to come.
        ((900, 1_000), None),
        ((5_000,), None),
    ],
)
def test_the_last_change_with_enough_rows_since_counts(
    changes: tuple[int | None, ...], row: int | None
) -> None:
    """Rejected records leave gaps, so rows are looked up."""
    assert row == holdout.latest_change(range(1_000, 1_400, 2), changes)


@pytest.mark.parametrize(
    ("until", "began", "expected"),
    [
        (5_000, 0, (4_000, 5_000)),  # nothing is known to have changed
        (600, 0, (0, 600)),  # a young stream
        (5_000, 4_400, (4_400, 5_000)),  # its first rows are of another concept
        (5_000, 5_000, (5_000, 5_000)),  # all of them are
        (5_000, 7_000, (5_000, 5_000)),
    ],
)
def test_forgetting_is_measured_on_no_concept_that_is_gone(
    until: int, began: int, expected: tuple[int, int]
) -> None:
    """A challenger that knows the present one must not be refused for what it rightly forgot."""
    assert expected == holdout.older(until, 1_000, began)
