"""Whether the models still learn and answer, and what is said where they do not."""

from __future__ import annotations

import pytest

from models.online import learning_health
from models.online.learning_health import MOST_REFUSED


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
    decision = learning_health.must_be_reset("logistic", not_finite)
    assert (reset, "revive") == (decision.yes, decision.question)
    assert "logistic" in decision.because
    assert ({"answers_not_finite": 1} if reset else {}) == decision.facts
