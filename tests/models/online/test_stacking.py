"""The blend: leans on whoever is right lately, is finite, and works from the first record."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.core.prediction import Answer
from models.core.record_schema import Task
from models.online import stacking
from models.online.stacking import Blend, BlendConfig, ClassBlend, ValueBlend


def make_blend(task: Task = "classification", learning_rate: float = 0.05) -> Blend:
    """A blend of two members, of which the first is trusted."""
    return stacking.start(task, [1.0, 0.0], BlendConfig(learning_rate=learning_rate))


def test_nobody_answers_nothing_is_served() -> None:
    """Without any member there is no prediction, and learning the label does no harm."""
    blended = make_blend()
    assert blended.predict([None, None]) is None
    blended.learn("a")
    assert blended.predict([None, {}]) is None


def test_the_first_member_is_served_as_it_is() -> None:
    """At weight 1, with no bias learned, the blend repeats its first member."""
    blended = make_blend()
    served = blended.predict([{"a": 0.8, "b": 0.2}, None])
    assert isinstance(served, dict)
    assert math.isclose(served["a"], 0.8)
    assert math.isclose(served["b"], 0.2)


def test_a_late_member_earns_its_say() -> None:
    """A member that comes later starts at weight 0, and wins once it is the one that is right."""
    chance = random.Random(1)
    blended = make_blend()
    hits = 0
    for index in range(600):
        label = chance.choice("ab")
        wrong: Answer = {label: 0.5, ("b" if label == "a" else "a"): 0.5}
        right: Answer = {label: 0.9, ("b" if label == "a" else "a"): 0.1} if index >= 300 else None
        served = blended.predict([wrong, right])
        assert isinstance(served, dict)
        hits += index >= 350 and max(served, key=lambda each: served[each]) == label
        blended.learn(label)
    assert hits == 250
    assert blended.weights[1] > blended.weights[0]


def test_it_follows_a_change_of_who_is_right() -> None:
    """When the good member turns bad and the bad one good, the weights change sides."""
    chance = random.Random(2)
    blended = make_blend(learning_rate=0.1)
    for index in range(2_000):
        label = chance.choice([0, 1])
        good: Answer = {label: 0.8, 1 - label: 0.2}
        bad: Answer = {label: 0.3, 1 - label: 0.7}
        answers = [good, bad] if index < 1_000 else [bad, good]
        blended.predict(answers)
        blended.learn(label)
    assert blended.weights[1] > 0 > blended.weights[0]


def test_a_class_that_was_never_seen_joins() -> None:
    """A third class is served as soon as a member names it, with probabilities that sum to 1."""
    blended = make_blend()
    blended.predict([{"a": 0.6, "b": 0.4}, None])
    blended.learn("c")
    served = blended.predict([{"a": 0.2, "c": 0.8}, {"b": 1.0}])
    assert isinstance(served, dict)
    assert set(served) == {"a", "b", "c"}
    assert math.isclose(sum(served.values()), 1.0)


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -0.1, 1.5])
def test_a_member_that_answers_nonsense_is_absent(nonsense: float) -> None:
    """A probability that is none counts as no answer; the others are served."""
    blended = make_blend()
    alone = make_blend()
    answer: Answer = {"a": 0.7, "b": 0.3}
    assert blended.predict([answer, {"a": nonsense}]) == alone.predict([answer, None])


shares = st.floats(0, 1) | st.sampled_from([0.0, 1.0, 1e-300, math.nan])
class_answers = st.none() | st.dictionaries(st.sampled_from("abc"), shares, max_size=3)


@given(st.lists(st.tuples(class_answers, class_answers, st.sampled_from("abc")), max_size=40))
def test_probabilities_are_always_finite_and_sum_to_one(
    records: list[tuple[Answer, Answer, str]],
) -> None:
    """Whatever members say and whatever is true, what is served is a distribution."""
    blended = ClassBlend([1.0, 0.0], 1.0)
    for first, second, label in records:
        served = blended.predict([first, second])
        if served is not None:
            assert all(0.0 <= each <= 1.0 for each in served.values())
            assert math.isclose(sum(served.values()), 1.0, rel_tol=1e-9)
        blended.learn(label)
    assert all(math.isfinite(each) for each in (*blended.weights, *blended.biases))


values = st.floats(-1e100, 1e100) | st.sampled_from([math.nan, math.inf, 0.0])


@given(st.lists(st.tuples(st.none() | values, st.none() | values, st.floats(-1e100, 1e100))))
def test_values_are_always_finite(
    records: list[tuple[float | None, float | None, float]],
) -> None:
    """In regression nothing that members say or that is true makes the served value infinite."""
    blended = ValueBlend([1.0, 0.0], 1.0)
    for first, second, label in records:
        served = blended.predict([first, second])
        assert served is None or math.isfinite(served)
        blended.learn(label)
    assert all(math.isfinite(each) for each in (*blended.weights, blended.bias))


def test_values_blend_to_less_error_than_either_member() -> None:
    """Two members that err in opposite ways are blended to less error than the better of them."""
    chance = random.Random(3)
    blended = make_blend(task="regression")
    errors = {"served": 0.0, "high": 0.0, "low": 0.0}
    for index in range(5_000):
        label = chance.gauss(1_000, 50)
        noise = chance.gauss(0, 20)
        high, low = label + noise + 5, label - noise + chance.gauss(0, 5)
        served = blended.predict([high, low])
        assert isinstance(served, float)
        if index >= 2_000:
            errors["served"] += abs(served - label)
            errors["high"] += abs(high - label)
            errors["low"] += abs(low - label)
        blended.learn(label)
    assert errors["served"] < 0.5 * min(errors["high"], errors["low"])
