"""The stacks: online models over the members that follow a change, stay finite, and repeat."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.online.stacking import ClassStacks, ValueStacks
from models.online.tracking import Flags, Floats
from tests.models.online.test_tracking import together

RATES = (0.1, 0.02)


def make_classes(classes: int = 2, members: int = 2) -> ClassStacks:
    """Stacks over some members that know some classes and have learned nothing."""
    stacks = ClassStacks(RATES, together(members))
    for _ in range(classes):
        stacks.add_class()
    return stacks


def make_answers(
    labels: np.ndarray[tuple[int], np.dtype[np.intp]], right: Floats, classes: int = 2
) -> Floats:
    """Probabilities of one member that gives the label `right`, and the rest to all others."""
    truth = np.eye(classes)[labels]
    share = np.broadcast_to(right, labels.shape)[:, None]
    return np.asarray(truth * share + (1.0 - truth) * (1.0 - share) / (classes - 1))


def everybody(answers: Floats) -> Flags:
    """All members predict every record."""
    return np.ones(answers.shape[:2], dtype=bool)


def test_a_stack_that_learned_nothing_is_the_geometric_mean_of_its_members() -> None:
    """Every member has the same weight; two that agree are repeated."""
    answers = np.array([[[0.8, 0.2], [0.8, 0.2]], [[0.9, 0.1], [0.1, 0.9]]])
    served = make_classes().run(answers, everybody(answers), np.array([-1, -1]))
    assert np.allclose([[0.8, 0.2]] * 2, served[0])
    assert np.allclose(0.5, served[1])


def test_a_member_without_a_prediction_contributes_nothing() -> None:
    """With nobody left, the classes are as likely as the bias says: equally, at first."""
    answers = np.array([[[0.8, 0.2], [np.nan, np.nan]], [[np.nan, np.nan]] * 2])
    served = make_classes().run(answers, np.isfinite(answers[:, :, 0]), np.array([-1, -1]))
    assert (served[0, :, 0] > 0.6).all()
    assert np.allclose(0.5, served[1])


def test_they_follow_a_change_of_who_is_right() -> None:
    """When the good member turns bad and the bad one good, the weights change sides."""
    labels = np.random.default_rng(2).integers(0, 2, 2_000)
    late = np.arange(2_000) >= 1_000
    answers = np.stack(
        [
            make_answers(labels, np.where(late, 0.3, 0.8)),
            make_answers(labels, np.where(late, 0.8, 0.3)),
        ],
        axis=1,
    )
    stacks = make_classes()
    stacks.run(answers[:1_000], everybody(answers[:1_000]), labels[:1_000])
    assert (stacks.weights[:, 0] > 0.0).all()
    assert (stacks.weights[:, 0] > stacks.weights[:, 1]).all()
    served = stacks.run(answers[1_000:], everybody(answers[1_000:]), labels[1_000:])
    assert (stacks.weights[:, 1] > stacks.weights[:, 0]).all()
    assert (served[500:].argmax(axis=2) == labels[1_500:, None]).all()


def test_two_weak_members_make_a_strong_stack() -> None:
    """Members that each see a half of the truth: the stack is better than either."""
    chance = np.random.default_rng(3)
    one, other = chance.normal(size=(2, 6_000))
    labels = (one + other > 0).astype(np.intp)
    first, second = (1.0 / (1.0 + np.exp(-2.0 * each)) for each in (one, other))
    answers = np.stack([np.stack([1.0 - each, each], axis=1) for each in (first, second)], axis=1)
    served = make_classes().run(answers, everybody(answers), labels)[:, 1]
    late = slice(3_000, None)
    hits = (served[late].argmax(axis=1) == labels[late]).mean()
    alone = [(answers[late, member].argmax(axis=1) == labels[late]).mean() for member in (0, 1)]
    assert hits > max(alone) + 0.1


def test_a_class_joins_with_what_was_learned_of_the_others_kept() -> None:
    """The new one has no bias yet; probabilities sum to 1."""
    labels = np.random.default_rng(1).integers(0, 2, 300)
    answers = np.stack([make_answers(labels, np.array(0.8))] * 2, axis=1)
    stacks = make_classes()
    stacks.run(answers, everybody(answers), labels)
    weights, biases = stacks.weights.copy(), stacks.biases.copy()
    stacks.add_class()
    assert np.array_equal(weights, stacks.weights)
    assert np.array_equal(np.pad(biases, ((0, 0), (0, 1))), stacks.biases)
    answers = np.array([[[0.2, 0.0, 0.8]] * 2])
    served = stacks.run(answers, everybody(answers), np.array([2]))
    assert np.allclose(1.0, served.sum(axis=2))
    assert (served[0].argmax(axis=1) == 2).all()


shares = st.floats(0, 1) | st.sampled_from([0.0, 1.0, 1e-300])


@given(st.lists(st.tuples(shares, shares, st.booleans(), st.integers(-1, 1)), max_size=60))
def test_probabilities_are_always_finite_and_sum_to_one(
    records: list[tuple[float, float, bool, int]],
) -> None:
    """Whatever members say, who is there, and whatever is true."""
    answers = np.array([[[a, 1 - a], [b, 1 - b]] for a, b, _, _ in records]).reshape(-1, 2, 2)
    awake = np.array([[True, there] for _, _, there, _ in records]).reshape(-1, 2)
    stacks = make_classes()
    served = stacks.run(answers, awake, np.array([each[3] for each in records], dtype=np.intp))
    assert np.allclose(1.0, served.sum(axis=2), atol=1e-9)
    assert (served >= 0.0).all()
    assert np.isfinite(stacks.weights).all()
    assert np.isfinite(stacks.biases).all()


values = st.floats(-1e100, 1e100) | st.sampled_from([0.0, 1e100, -1e100])
labels_of_values = st.floats(-1e100, 1e100) | st.just(float("nan"))


@given(st.lists(st.tuples(values, values, st.booleans(), labels_of_values), max_size=60))
def test_values_are_always_finite_where_anybody_predicts(
    records: list[tuple[float, float, bool, float]],
) -> None:
    """Nothing that members say or that is true makes a value or a weight infinite."""
    answers = np.array([[a, b] for a, b, _, _ in records]).reshape(-1, 2)
    awake = np.array([[there, there] for _, _, there, _ in records], dtype=bool).reshape(-1, 2)
    stacks = ValueStacks(RATES, together(2))
    served = stacks.run(answers, awake, np.array([each[3] for each in records]))
    assert np.array_equal(np.isfinite(served).all(axis=1), awake.all(axis=1))
    assert np.isfinite(stacks.weights).all()
    assert np.isfinite(stacks.biases).all()


def make_two_that_err_apart(count: int = 5_000) -> tuple[Floats, Floats]:
    """Values of two members that err in opposite ways, and the labels."""
    chance = np.random.default_rng(3)
    labels, noise = chance.normal(1_000, 50, count), chance.normal(0, 20, count)
    answers = np.stack([labels + noise + 5, labels - noise + chance.normal(0, 5, count)], axis=1)
    return answers, labels


def test_values_stack_to_less_error_than_either_member() -> None:
    """Two members that err in opposite ways are stacked to less error than the better of them."""
    answers, labels = make_two_that_err_apart()
    served = ValueStacks(RATES, together(2)).run(answers, np.ones_like(answers, dtype=bool), labels)
    late = slice(2_000, None)
    errors = np.abs(answers[late] - labels[late, None]).mean(axis=0)
    assert (np.abs(served[late] - labels[late, None]).mean(axis=0) < 0.5 * errors.min()).all()


def test_a_quantile_that_is_high_is_answered_high() -> None:
    """The stack learns by the expectile of that share: more labels lie below the values."""
    chance = np.random.default_rng(5)
    labels = chance.normal(0, 1, 8_000)
    answers = np.zeros((8_000, 2))
    awake = np.ones_like(answers, dtype=bool)
    low, high = (
        (
            labels[4_000:, None]
            < ValueStacks(RATES, together(2), share).run(answers, awake, labels)[4_000:]
        )
        .mean(axis=0)
        .min()
        for share in (0.5, 0.95)
    )
    assert low < 0.6 < 0.75 < high


def test_one_extreme_value_does_not_spoil_the_weights() -> None:
    """It counts as at most ten deviations away."""
    answers, labels = make_two_that_err_apart()
    awake = np.ones_like(answers, dtype=bool)
    answers[2_500], labels[2_500] = 1e12, -1e12
    stacks = ValueStacks((0.02,), together(2))
    stacks.run(answers[:2_500], awake[:2_500], labels[:2_500])
    before = stacks.weights.copy()
    stacks.run(answers[2_500:2_501], awake[2_500:2_501], labels[2_500:2_501])
    assert np.abs(stacks.weights - before).max() < 0.25


@pytest.mark.parametrize("kind", ["classes", "values"])
@given(cuts=st.lists(st.integers(0, 200), max_size=4))
def test_it_does_not_matter_how_records_are_divided_into_blocks(kind: str, cuts: list[int]) -> None:
    """Answers and weights are the same to the last bit."""
    edges = sorted({0, 200, *cuts})
    pairs = [slice(*pair) for pair in itertools.pairwise(edges)]
    if kind == "classes":
        labels = np.random.default_rng(1).integers(-1, 3, 200)
        table = np.random.default_rng(2).dirichlet(np.ones(3), (200, 2))
        some = np.random.default_rng(3).random((200, 2)) < 0.8
        one, many = make_classes(3), make_classes(3)
        whole = one.run(table, some, labels)
        parts = [many.run(table[rows], some[rows], labels[rows]) for rows in pairs]
        assert np.array_equal(one.biases, many.biases)
        assert np.array_equal(one.weights, many.weights)
    else:
        answers, known = make_two_that_err_apart(200)
        known[::7] = np.nan
        awake = np.ones_like(answers, dtype=bool)
        first, other = ValueStacks(RATES, together(2)), ValueStacks(RATES, together(2))
        whole = first.run(answers, awake, known)
        parts = [other.run(answers[rows], awake[rows], known[rows]) for rows in pairs]
        assert np.array_equal(first.weights, other.weights)
    assert np.array_equal(whole, np.concatenate(parts), equal_nan=True)
