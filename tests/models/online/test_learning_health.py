"""Whether the models still learn and answer, and what is said where they do not."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.core.record_schema import Task
from models.online import learning_health
from models.online.learning_health import LEAST_PATIENCE, MOST_REFUSED, Divergence


@pytest.mark.parametrize(("in_a_row", "hopeless"), [(MOST_REFUSED, False), (101, True)])
def test_a_model_that_refuses_one_record_more_than_may_be_refuses_everything(
    in_a_row: int, hopeless: bool
) -> None:
    """The sentence names the recipe, the place and the newest error."""
    decision = learning_health.refuses_everything(in_a_row, "own:Picky", 41, "ValueError: no")
    assert (hopeless, "refusals") == (decision.yes, decision.question)
    assert f"own:Picky raised on {in_a_row} records in a row" in decision.because
    assert decision.because.endswith("last on position 41: ValueError: no")


def test_a_champion_that_cannot_answer_is_told_with_its_error() -> None:
    """One that answers is a yes."""
    silent = learning_health.champion_answers("it raised KeyError: 'a'")
    assert (False, "answers") == (silent.yes, silent.question)
    assert "no batch prediction: it raised KeyError: 'a'" == silent.because
    assert learning_health.champion_answers(None)


@pytest.mark.parametrize(("not_finite", "reset"), [(0, False), (1, True)])
def test_an_online_member_whose_answers_are_not_finite_begins_anew(
    not_finite: int, reset: bool
) -> None:
    """From the first such answer on."""
    decision = learning_health.must_be_reset("logistic", not_finite, Divergence())
    assert (reset, "revive") == (decision.yes, decision.question)
    assert "logistic" in decision.because
    assert ("gave 1 answers that are not finite" in decision.because) is reset
    assert {
        "member": "logistic",
        "answers_not_finite": not_finite,
        "records_far_worse": 0,
        "patience": LEAST_PATIENCE,
    } == decision.facts


def make_divergence(records: int, task: Task = "regression") -> Divergence:
    """Of a member that was four times as bad as the best baseline for so many records."""
    divergence = Divergence()
    divergence.learn(np.full(records, 0.8), np.full(records, 0.2), task)
    return divergence


@pytest.mark.parametrize(
    ("records", "reset"), [(LEAST_PATIENCE - 1, False), (LEAST_PATIENCE, True)]
)
def test_a_member_that_is_far_worse_for_long_begins_anew(records: int, reset: bool) -> None:
    """One record less is not long enough; the sentence says how much worse, and for how long."""
    decision = learning_health.must_be_reset("linear", 0, make_divergence(records))
    assert (reset, "revive") == (decision.yes, decision.question)
    said = "the online member linear lost more than 3 times as much as the best "
    assert decision.because.startswith(f"{said}baseline for {records} records") is reset
    assert records == decision.facts["records_far_worse"]


def test_a_member_that_was_reset_gets_twice_the_time() -> None:
    """A model that does not suit the stream is reset ever more rarely."""
    divergence = make_divergence(LEAST_PATIENCE)
    divergence.begin_anew()
    assert not learning_health.must_be_reset("linear", 0, divergence)
    worse, naive = np.full(2 * LEAST_PATIENCE - 1, 0.8), np.full(2 * LEAST_PATIENCE - 1, 0.2)
    divergence.learn(worse, naive, "regression")
    assert not learning_health.must_be_reset("linear", 0, divergence)
    divergence.learn(worse[:1], naive[:1], "regression")
    assert learning_health.must_be_reset("linear", 0, divergence)


@pytest.mark.parametrize(
    ("task", "loss", "naive", "worse"),
    [
        ("regression", 0.31, 0.1, True),
        ("regression", 0.3, 0.1, False),
        ("classification", 0.31, 0.1, True),
        ("classification", 0.08, 0.001, False),
        ("classification", 0.12, 0.001, True),
        # Whose loss is unknown has not answered yet.
        ("regression", math.inf, 0.1, False),
        ("classification", math.inf, 0.1, False),
        ("classification", math.inf, math.inf, False),
        ("classification", 0.5, math.inf, False),
    ],
)
def test_what_is_far_worse(task: Task, loss: float, naive: float, worse: bool) -> None:
    """More than three times the baseline's loss, and for classes a tenth more in points."""
    divergence = Divergence()
    divergence.learn(np.array([loss]), np.array([naive]), task)
    assert worse == divergence.in_a_row


@given(st.lists(st.booleans(), max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_a_record_that_is_better_ends_the_row_however_records_come(
    worse: list[bool], cuts: list[int]
) -> None:
    """What counts are the records since it."""
    losses = np.where(worse, 0.9, 0.1)
    divergence = Divergence()
    for begin, end in itertools.pairwise(sorted({0, 60, *cuts})):
        divergence.learn(losses[begin:end], np.full(len(losses[begin:end]), 0.1), "regression")
    expected = len(list(itertools.takewhile(bool, reversed(worse))))
    assert expected == divergence.in_a_row
