"""Scoring: hits for classes, absolute errors for values, and silence is no score."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.core import scoring
from models.core.prediction import Answer
from models.core.record_schema import Label, Task


@pytest.mark.parametrize(("task", "name"), [("classification", "accuracy"), ("regression", "mae")])
def test_each_task_has_its_metric(task: Task, name: str) -> None:
    """Tallies, history and drift all ask here, so they can never speak of different metrics."""
    assert name == scoring.metric_name(task)


@pytest.mark.parametrize(
    ("predicted", "label", "expected"),
    [("up", "up", 1.0), ("up", "down", 0.0), (3, 3, 1.0), (3, 7, 0.0), ("3", 3, 0.0)],
)
def test_a_class_is_hit_or_missed(predicted: Label, label: Label, expected: float) -> None:
    """A class counts 1 or 0, and text is never a number."""
    assert expected == scoring.point("classification", predicted, label)


@pytest.mark.parametrize(
    ("predicted", "label", "expected"), [(2.0, 5.0, 3.0), (5.0, 2.0, 3.0), (-1.5, 1.5, 3.0)]
)
def test_a_value_errs_by_its_distance(predicted: float, label: float, expected: float) -> None:
    """Too high counts as much as too low."""
    assert expected == scoring.point("regression", predicted, label)


def test_the_mean_is_over_those_that_were_answered() -> None:
    """A record without an answer is neither a hit nor a miss."""
    answers = ["up", None, "down", None]
    assert 0.5 == scoring.mean("classification", answers, ["up", "up", "up", "up"])
    assert 2.0 == scoring.mean("regression", [1.0, None, 6.0], [2.0, 9.0, 3.0])


@pytest.mark.parametrize("answers", [[], [None, None]])
def test_a_member_that_never_answered_has_no_score(answers: list[Label | None]) -> None:
    """None, and not 0, which would be the best error there is."""
    assert scoring.mean("regression", answers, [1.0] * len(answers)) is None


def test_a_prediction_without_its_label_is_a_mistake_of_the_caller() -> None:
    """Lists of different lengths are refused, and not scored as far as they go."""
    with pytest.raises(ValueError, match="argument"):
        scoring.mean("classification", ["up"], ["up", "down"])


values = st.floats(-1e100, 1e100)


@given(st.lists(st.tuples(st.none() | values, values), min_size=1))
def test_the_mean_lies_between_the_best_and_the_worst_point(
    records: list[tuple[float | None, float]],
) -> None:
    """Whatever was answered, the mean is one that the points allow."""
    points = [scoring.point("regression", p, label) for p, label in records if p is not None]
    mean = scoring.mean("regression", [p for p, _ in records], [label for _, label in records])
    if mean is None:
        assert [] == points
    else:
        assert math.nextafter(min(points), -1) <= mean * (1 + 1e-9)
        assert mean <= max(points) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("answer", "label", "expected"),
    [
        ({"a": 1.0, "b": 0.0}, "a", 0.0),
        ({"a": 1.0, "b": 0.0}, "b", 1.0),
        ({"a": 0.5, "b": 0.5}, "a", 0.25),
        ({True: 0.9, False: 0.1}, 1, 0.01),
        ({"a": 1.0}, "new", 1.0),
        ({}, "a", math.nan),
        (None, "a", math.nan),
    ],
)
def test_half_of_the_brier_score_is_what_an_answer_of_classes_costs(
    answer: Answer, label: Label, expected: float
) -> None:
    """From 0 to 1; what was not answered cost nothing that is known."""
    assert expected == pytest.approx(scoring.loss("classification", answer, label), nan_ok=True)


def test_an_answer_of_a_value_costs_its_absolute_error() -> None:
    """In the target's unit; no answer, or NaN, is not known."""
    assert 2.5 == scoring.loss("regression", 7.5, 10)
    assert math.isnan(scoring.loss("regression", math.nan, 10))
    assert math.isnan(scoring.loss("regression", None, 10))
