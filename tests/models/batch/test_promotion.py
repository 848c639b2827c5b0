"""The judge of crowns: every way to a no, with its numbers, and the two ways to a yes."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.batch import promotion
from models.batch.promotion import Comparison, PromotionConfig

RULES = PromotionConfig()
losses = st.floats(min_value=0, max_value=1e6)


def make_contest(**changes: object) -> Comparison:
    """A challenger that is better in all, unless `changes` say otherwise."""
    facts: dict[str, object] = {
        "holdout_rows": 100,
        "challenger_loss": 0.10,
        "baseline_loss": 0.50,
        "champion_loss": 0.20,
        "older_challenger_loss": 0.12,
        "older_champion_loss": 0.10,
    }
    return Comparison.model_validate(facts | changes)


def make_first(**changes: object) -> Comparison:
    """A contest without a champion."""
    nobody = {"champion_loss": None, "older_champion_loss": None}
    return make_contest(**nobody, **changes)


def test_a_better_challenger_is_promoted() -> None:
    """The reason names both losses, the gain and the rows they rest on."""
    decision = promotion.judge(make_contest(), RULES)
    assert decision.yes
    assert "promotion" == decision.question
    assert (
        "the challenger's loss 0.1 on 100 held-out rows is 0.1 below the champion's 0.2"
        == decision.because
    )


def test_the_first_champion_need_only_beat_the_baseline() -> None:
    """Without a champion there is nothing to gain on and nothing to forget."""
    decision = promotion.judge(make_first(older_challenger_loss=9.0), RULES)
    assert decision.yes
    assert decision.because.startswith("the first champion: its loss 0.1")
    assert decision.facts["gain"] is None
    assert decision.facts["forgetting"] is None


@pytest.mark.parametrize("loss", [0.5, 0.6])
def test_a_challenger_not_below_the_baseline_is_kept_out(loss: float) -> None:
    """As good as the dummy is not good enough, with a champion or without."""
    for contest in (make_contest(challenger_loss=loss), make_first(challenger_loss=loss)):
        decision = promotion.judge(contest, RULES)
        assert not decision.yes
        assert f"loss {loss} is not below the baseline's 0.5" in decision.because


def test_the_baseline_may_be_left_out() -> None:
    """A person who says so is believed."""
    rules = PromotionConfig(beat_baseline=False)
    assert promotion.judge(make_first(challenger_loss=0.6), rules).yes
    assert promotion.judge(make_contest(challenger_loss=0.6, champion_loss=0.9), rules).yes


@pytest.mark.parametrize(
    ("challenger", "min_gain", "expected"),
    [
        (0.20, 0.0, False),
        (0.1999, 0.0, True),
        (0.21, 0.0, False),
        (0.125, 0.125, False),
        (0.0625, 0.125, True),
        (0.075, 0.125, True),
    ],
)
def test_the_gain_must_be_real_and_large_enough(
    challenger: float, min_gain: float, expected: bool
) -> None:
    """A tie keeps the champion; a gain counts from min_gain on."""
    decision = promotion.judge(
        make_contest(challenger_loss=challenger), PromotionConfig(min_gain=min_gain)
    )
    assert expected == decision.yes
    if not expected:
        assert "is a gain of" in decision.because


def test_a_gain_of_just_the_least_is_enough() -> None:
    """The bound itself belongs to the yes."""
    contest = make_contest(challenger_loss=0.25, champion_loss=0.375)
    assert promotion.judge(contest, PromotionConfig(min_gain=0.125)).yes


def test_too_few_held_out_rows_are_not_believed() -> None:
    """The number of rows is judged first, and its bound belongs to the yes."""
    decision = promotion.judge(make_contest(holdout_rows=29), RULES)
    assert not decision.yes
    assert "only 29 rows were held out, and min_holdout_rows is 30" == decision.because
    assert promotion.judge(make_contest(holdout_rows=30), RULES).yes


def test_forgetting_is_net_of_the_gain() -> None:
    """It lost 0.4 more on the old and gained 0.1 on the new: 60 % of the baseline's loss."""
    contest = make_contest(older_challenger_loss=0.5)
    decision = promotion.judge(contest, RULES)
    assert not decision.yes
    assert 0.6 == pytest.approx(decision.facts["forgetting"])
    assert "max_forgetting is 0.5" in decision.because
    assert promotion.judge(contest, PromotionConfig(max_forgetting=0.61)).yes


def test_a_world_that_turned_round_does_not_block_its_challenger() -> None:
    """Labels flipped: all that it loses on the old it gains on the new."""
    contest = make_contest(
        challenger_loss=0.1,
        champion_loss=0.9,
        older_challenger_loss=0.9,
        older_champion_loss=0.1,
    )
    decision = promotion.judge(contest, RULES)
    assert decision.yes
    assert 0.0 == decision.facts["forgetting"]


def test_forgetting_against_a_perfect_baseline_is_infinite() -> None:
    """Where the dummy loses nothing there is no scale, so any net forgetting is too much."""
    contest = make_contest(
        baseline_loss=0.0, challenger_loss=0.1, champion_loss=0.2, older_challenger_loss=0.5
    )
    decision = promotion.judge(contest, PromotionConfig(beat_baseline=False))
    assert not decision.yes
    assert decision.facts["forgetting"] is None
    assert "by inf of the baseline's loss" in decision.because


@pytest.mark.parametrize("half", ["older_challenger_loss", "older_champion_loss"])
def test_without_both_older_losses_forgetting_is_not_judged(half: str) -> None:
    """A young pipeline has no older window yet."""
    assert promotion.judge(make_contest(**{half: None}), RULES).yes


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "name",
    [
        "challenger_loss",
        "baseline_loss",
        "champion_loss",
        "older_challenger_loss",
        "older_champion_loss",
    ],
)
def test_a_loss_that_nobody_knows_never_promotes(name: str, value: float) -> None:
    """The no names the loss, and the fact is recorded as unknown."""
    decision = promotion.judge(make_contest(**{name: value}), PromotionConfig(beat_baseline=False))
    assert not decision.yes
    assert "not a finite number: the " in decision.because
    assert "by hand" in decision.because
    assert decision.facts[name] is None


@given(
    challenger=losses,
    champion=st.none() | losses,
    baseline=losses,
    older_challenger=st.none() | losses,
    older_champion=st.none() | losses,
    rows=st.integers(min_value=0, max_value=100),
    min_gain=st.floats(min_value=0, max_value=10),
    max_forgetting=st.floats(min_value=0, max_value=10),
)
def test_a_yes_always_means_better(
    challenger: float,
    champion: float | None,
    baseline: float,
    older_challenger: float | None,
    older_champion: float | None,
    rows: int,
    min_gain: float,
    max_forgetting: float,
) -> None:
    """Whatever came, a yes beats baseline and champion, and every answer has its reason."""
    rules = PromotionConfig(min_gain=min_gain, max_forgetting=max_forgetting)
    contest = Comparison(
        holdout_rows=rows,
        challenger_loss=challenger,
        baseline_loss=baseline,
        champion_loss=champion,
        older_challenger_loss=older_challenger,
        older_champion_loss=older_champion,
    )
    decision = promotion.judge(contest, rules)
    assert decision == promotion.judge(contest, rules)
    assert decision.because
    better = challenger < baseline and rows >= 30
    if champion is not None:
        better = better and challenger < champion and champion - challenger >= min_gain
    if decision.yes:
        assert better
    if better and (older_challenger is None or champion is None):
        assert decision.yes


@given(challenger=losses, worse=losses, champion=losses)
def test_a_worse_challenger_is_never_promoted_where_a_better_one_was_not(
    challenger: float, worse: float, champion: float
) -> None:
    """More loss on the held-out rows never helps."""
    contest = make_contest(challenger_loss=challenger, champion_loss=champion, baseline_loss=1e3)
    more = contest.model_copy(update={"challenger_loss": challenger + worse})
    assert promotion.judge(contest, RULES).yes or not promotion.judge(more, RULES).yes


def test_facts_hold_every_loss_and_every_rule() -> None:
    """A decision can be replayed from its facts alone."""
    contest, rules = make_contest(), PromotionConfig(min_gain=0.01)
    facts = promotion.judge(contest, rules).facts
    replayed = promotion.judge(
        Comparison.model_validate({name: facts[name] for name in Comparison.model_fields}),
        PromotionConfig.model_validate(
            {name: facts[name] for name in PromotionConfig.model_fields}
        ),
    )
    assert promotion.judge(contest, rules) == replayed


@pytest.mark.parametrize("wrong", [{"min_gian": 0.1}, {"min_gain": -1}, {"min_gain": math.inf}])
def test_a_wrong_rule_is_refused(wrong: dict[str, float]) -> None:
    """A misspelt knob is a mistake, not a default."""
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        PromotionConfig.model_validate(wrong)


@pytest.mark.parametrize(
    ("compared_with", "champion", "expected"),
    [("v1", "v1", True), (None, None, True), ("v1", "v2", False), (None, "v1", False)],
)
def test_only_a_challenger_that_met_the_present_champion_may_replace_it(
    compared_with: str | None, champion: str | None, expected: bool
) -> None:
    """Whatever it gained against another version says nothing about this one."""
    decision = promotion.comparable(compared_with, champion)
    assert (expected, "promotion") == (decision.yes, decision.question)
    assert f"is {champion}" in decision.because


def test_a_champion_that_a_person_changed_is_noticed() -> None:
    """With both versions; the one that the run knows is no news."""
    changed = promotion.by_hand("v2", "v1")
    assert (True, "champion") == (changed.yes, changed.question)
    assert "the store's champion is v2, changed by hand from v1" == changed.because
    assert {"champion": "v2", "before": "v1"} == changed.facts
    assert promotion.by_hand("v1", None)
    assert not promotion.by_hand("v1", "v1")
    assert not promotion.by_hand(None, None)


def test_a_fit_without_a_model_is_a_no_with_its_reason() -> None:
    """As the question of the retrain, not of the promotion."""
    decision = promotion.no_model("it does not converge")
    assert (False, "retrain", "it does not converge") == (
        decision.yes,
        decision.question,
        decision.because,
    )


@pytest.mark.parametrize(
    ("trained_to", "fair", "said"),
    [
        (0, True, "begins after all rows"),
        (80, True, "begins after all rows"),
        (81, True, "19 rows came after"),
        (90, True, "10 rows came after"),
        (91, False, r"9 rows .* \(up to position 91\).* wait for 1 more"),
        (200, False, "0 rows .* wait for 10 more"),
    ],
)
def test_only_rows_that_the_champion_has_not_seen_are_held_out(
    trained_to: int, fair: bool, said: str
) -> None:
    """Where these are too few for a comparison, the reason says how many are missing."""
    config = PromotionConfig(min_holdout_rows=5)
    decision = promotion.unseen_holdout(range(100), 80, trained_to, config)
    assert fair is decision.yes
    assert re.search(said, decision.because)


def test_a_window_that_holds_nothing_out_is_no_reason_to_refuse() -> None:
    """A window of one row is refused elsewhere, for having too few."""
    assert promotion.unseen_holdout((), 0, 10, PromotionConfig())
