"""The baseline: what came last comes again, as surely as labels have repeated so far."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.core.record_schema import Label, Task
from models.online import naive_baseline
from models.online.naive_baseline import NoChange, RecentMedian


def make_baseline(*labels: Label, task: Task = "classification") -> NoChange:
    """A baseline that has met `labels`, in this order."""
    baseline = NoChange(task)
    for label in labels:
        baseline.learn(label)
    return baseline


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_it_says_nothing_before_the_first_label(task: Task) -> None:
    """Nothing came last, so there is no prediction."""
    assert make_baseline(task=task).predict() is None


def test_one_class_is_all_that_it_knows() -> None:
    """With a single class met, that one is certain."""
    assert {"up": 1.0} == make_baseline("up", "up").predict()


@pytest.mark.parametrize(("up", "down"), [("up", "down"), (0, 1), (1, 0)])
def test_the_last_class_is_as_likely_as_labels_have_repeated(up: Label, down: Label) -> None:
    """One of three neighbouring pairs repeated: (1 + 1) / (3 + 2) by Laplace's rule."""
    answer = make_baseline(up, up, down, up).predict()
    assert answer == pytest.approx({up: 0.4, down: 0.6})


def test_other_classes_share_the_rest_evenly() -> None:
    """Nothing is known of what comes instead, so every other class is equally likely."""
    answer = make_baseline("a", "b", "c").predict()
    assert answer == pytest.approx({"c": 0.25, "a": 0.375, "b": 0.375})


@pytest.mark.parametrize("zero", [0, 0.0])
def test_a_label_of_nought_is_a_label(zero: Label) -> None:
    """0 is a value like any other, and not the absence of one."""
    assert 0.0 == make_baseline(5.0, zero, task="regression").predict()
    assert {0: 1.0} == make_baseline(0).predict()


def test_in_regression_the_last_value_comes_again() -> None:
    """The prediction is the last label, as a number."""
    assert 7.5 == make_baseline(1.0, 7.5, task="regression").predict()


@given(st.lists(st.sampled_from("abcd"), min_size=1))
def test_it_always_answers_a_distribution_over_the_classes_met(labels: list[str]) -> None:
    """Probabilities lie strictly above 0, sum to 1, and name the classes met, no other."""
    answer = make_baseline(*labels).predict()
    assert isinstance(answer, dict)
    assert set(labels) == set(answer)
    assert all(0.0 < each <= 1.0 for each in answer.values())
    assert math.isclose(1.0, sum(answer.values()))


@given(st.lists(st.sampled_from("abc"), min_size=2))
def test_it_expects_the_last_class_where_labels_have_mostly_repeated(labels: list[str]) -> None:
    """The last class is at least even where at least half of the pairs repeated."""
    pairs = list(itertools.pairwise(labels))
    repeats = sum(before == after for before, after in pairs)
    answer = make_baseline(*labels).predict()
    assert isinstance(answer, dict)
    if len(answer) > 1:
        assert (answer[labels[-1]] >= 0.5) == (repeats >= len(pairs) / 2)


def test_records_are_answered_before_they_are_learned_and_without_a_label_not_learned() -> None:
    """In one batch as record by record."""
    labels: list[Label | None] = ["a", None, "b", "b"]
    one, many = NoChange("classification"), NoChange("classification")
    answers = one.run(labels)
    assert answers == [answer for label in labels for answer in many.run([label])]
    assert [None, {"a": 1.0}, {"a": 1.0}] == answers[:3]
    assert NoChange("regression").run([2.0, None, 3.0]) == [None, 2.0, 2.0]


@given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), max_size=60))
def test_the_median_is_that_of_the_newest_labels_before(labels: list[float]) -> None:
    """It is one of the labels in the middle of those known, and NaN before the first."""
    answers = RecentMedian().run(np.array(labels)).tolist()
    known: list[float] = []
    for label, answer in zip(labels, answers, strict=True):
        if known:
            newest = known[-naive_baseline.RECENT :]
            assert statistics.median_low(newest) <= answer <= statistics.median_high(newest)
        else:
            assert math.isnan(answer)
        if not math.isnan(label):
            known.append(label)


def test_the_median_forgets_what_is_older() -> None:
    """A level that jumps is followed after half of the labels that it is of."""
    labels = np.repeat([0.0, 1_000.0], [3_000, 600])
    answers = RecentMedian().run(labels)
    assert answers[3_400] == 0.0
    assert answers[3_599] == 1_000.0


@pytest.mark.parametrize(("quantile", "least", "most"), [(0.1, 90, 110), (0.9, 890, 910)])
def test_another_quantile_is_that_of_the_labels(quantile: float, least: float, most: float) -> None:
    """A pipeline that is judged by a pinball loss has its own middle."""
    labels = np.random.default_rng(1).permutation(1_000).astype(float)
    made = RecentMedian(quantile)
    made.run(labels)
    (answer,) = made.run(np.array([math.nan]))
    assert least < answer < most
