"""The judge of worth: what a retrain is expected to save is weighed against what it costs."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from observability.worth import worth
from observability.worth.worth import RetrainConfig, RetrainFacts
from tests.observability.makers import make_worth

POLICY = RetrainConfig(fit_second_pays=1.0)


def test_a_loss_that_outweighs_a_fit_is_worth_a_retrain_now() -> None:
    """The answer says what is saved, for how long, and what it costs, in one unit."""
    decision = worth.judge(make_worth(), POLICY)
    assert (True, "worth", "now", "value", "loss") == (
        decision.yes,
        decision.question,
        decision.facts["answer"],
        decision.facts["decided_by"],
        decision.facts["evidence"],
    )
    # A tenth of the baseline's loss, for half of 10,000 records: the mean after one change.
    assert decision.facts["expected_gain"] == pytest.approx(0.1, rel=0.01)
    assert (5000, 30) == (decision.facts["horizon_records"], decision.facts["cost_records"])
    assert decision.facts["waiting_loses"] == pytest.approx(100, rel=0.01)
    assert "records' worth, and costs 30" in decision.because


def test_facts_can_be_judged_again_from_the_decision() -> None:
    """Every number is in the decision, so that a history can be judged with other knobs."""
    decision = worth.judge(make_worth(), POLICY)
    known = {
        name: decision.facts[name] for name in RetrainFacts.model_fields if name in decision.facts
    }
    assert decision == worth.judge(RetrainFacts.model_validate(known), POLICY)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"contract_broken": True}, "a person must look first"),
        ({"open_request_position": 7}, "already asked at position 7"),
        ({"rows_available": 499}, "only 499 rows are available (needed 500)"),
        ({"records_since_change": 399}, "only 399 records came since the labels left what was"),
        ({"retrains_last_day": 2}, "2 retrains began within the last 24 hours (at most 2)"),
        (
            {"candidate_version": "v000000001", "candidate_since": 12},
            "v000000001 has won and waits for a person's word since position 12",
        ),
        (
            {"last_without_model": True},
            "the last request ended 1000 records ago (cooldown 2000 records)",
        ),
        ({"new_rows": 199}, "only 199 new rows since the last training (needed 200), although"),
        ({"lost": 0.0}, "and costs 30"),
    ],
)
def test_every_no_says_why_with_its_numbers(overrides: dict[str, Any], said: str) -> None:
    """Each reason against stands alone against a retrain that would pay."""
    decision = worth.judge(
        make_worth(**overrides), RetrainConfig(max_retrains_per_day=2, fit_second_pays=1.0)
    )
    assert (False, "skip") == (decision.yes, decision.facts["answer"])
    assert said in decision.because


@pytest.mark.parametrize(
    ("overrides", "knobs", "said"),
    [
        ({}, {"every_records": 1000}, "ended 1000 records ago, and the schedule is one every 1000"),
        ({"records_since_retrain": None}, {"every_records": 5}, "no retrain ended yet, and the"),
        ({}, {"every_new_rows": 1000}, "1000 new rows have come (a retrain every 1000)"),
        (
            {"records_since_retrain": 2000},
            {"max_age_records": 3000},
            "the champion is 3000 records old (retrained from 3000)",
        ),
    ],
)
def test_a_persons_rule_comes_before_what_is_expected(
    overrides: dict[str, Any], knobs: dict[str, Any], said: str
) -> None:
    """It needs no loss, and no known cost."""
    facts = make_worth(lost=None, fit_cost_s=None, **overrides)
    for decide in ("value", "alarm", "person"):
        decision = worth.judge(facts, RetrainConfig(decide=decide, **knobs))
        assert (True, "now", "person") == (
            decision.yes,
            decision.facts["answer"],
            decision.facts["evidence"],
        )
        assert said in decision.because


@pytest.mark.parametrize("knobs", [{"every_records": 1001}, {"every_new_rows": 1001}, {}])
def test_with_a_persons_rules_alone_nothing_else_asks(knobs: dict[str, Any]) -> None:
    """Neither a loss nor an alarm."""
    facts = make_worth(drift_alarm=True, drift_because="3 of 4 features drifted")
    decision = worth.judge(facts, RetrainConfig(decide="person", **knobs))
    assert not decision.yes
    assert "no rule of a person asks for a retrain" in decision.because


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("lost", None, "what the champion loses"),
        ("lost", math.nan, "what the champion loses"),
        ("lost_error", None, "its standard error"),
        ("lost_error", math.inf, "its standard error"),
        ("rows_then", None, "the rows of the last challenger"),
        ("rows_now", None, "the rows of the next one"),
        ("curve_scale", None, "the learning curve"),
        ("fit_cost_s", None, "how long a fit takes"),
    ],
)
def test_where_a_number_is_unknown_an_alarm_decides_and_the_decision_says_so(
    name: str, value: float | None, said: str
) -> None:
    """Fail closed: without an alarm it is no, with one it is yes after the cooldown."""
    calm = worth.judge(make_worth(**{name: value}), POLICY)
    assert (False, "alarm") == (calm.yes, calm.facts["decided_by"])
    assert f"what a retrain would bring is unknown ({said}): an alarm decides" in calm.because
    alarm = {name: value, "drift_alarm": True, "drift_because": "3 of 4 features drifted"}
    soon = worth.judge(make_worth(**alarm), POLICY)
    assert not soon.yes
    assert "cooldown 2000" in soon.because
    late = worth.judge(make_worth(**alarm, records_since_retrain=2000), POLICY)
    assert (True, "now", "alarm") == (late.yes, late.facts["answer"], late.facts["decided_by"])
    assert said in late.because


def test_expectations_that_did_not_come_true_give_way_to_the_plain_rule() -> None:
    """From eight of them on, where even the interval is wrong by a factor of two."""
    bad = {"calibration_ratio": 0.2, "calibration_low": 0.1, "calibration_high": 0.49}
    decision = worth.judge(make_worth(calibration_count=8, **bad), POLICY)
    assert (False, "alarm") == (decision.yes, decision.facts["decided_by"])
    assert "expectations did not come true" in decision.because
    # What would have been expected is recorded all the same, so that it may come true again.
    assert decision.facts["expected_gain"] == pytest.approx(0.1, rel=0.01)
    for good in ({"calibration_count": 7, **bad}, {"calibration_count": 8}):
        assert worth.judge(make_worth(**good), POLICY).yes


def test_a_new_class_needs_no_measured_loss() -> None:
    """Labels that no model could know are a certain loss: the plain rule, without its cooldown."""
    facts = make_worth(
        drift_alarm=True,
        labels_changed=True,
        drift_because="label 'c' is new",
        records_since_change=400,
        lost=0.0,
    )
    decision = worth.judge(facts, POLICY)
    assert (True, "labels") == (decision.yes, decision.facts["evidence"])


@pytest.mark.parametrize(
    ("rows_then", "rows_now", "since", "expected"),
    [
        (None, 400.0, None, True),
        (400.0, 799.0, 1999, False),
        (400.0, 800.0, 10, True),
        (400.0, 500.0, 2000, True),
    ],
)
def test_the_first_champion_is_asked_for_again_once_the_rows_doubled(
    rows_then: float | None, rows_now: float, since: int | None, expected: bool
) -> None:
    """Or once the cooldown is over: what no model can learn is not fitted at every check."""
    facts = make_worth(
        champion_present=False, rows_then=rows_then, rows_now=rows_now, records_since_retrain=since
    )
    assert expected is worth.judge(facts, POLICY).yes


def test_growing_data_is_a_reason_like_drift() -> None:
    """Without any loss, twice the rows are worth a fit where the curve says so; no cooldown."""
    grown = {"lost": 0.0, "rows_then": 1000.0, "rows_now": 4000.0, "records_since_retrain": 300}
    decision = worth.judge(make_worth(**grown), POLICY)
    assert (True, "growth") == (decision.yes, decision.facts["evidence"])
    expected = 1000**-0.1 - 4000**-0.1
    assert decision.facts["expected_gain"] == pytest.approx(expected)
    # What the last challenger lacked against the champion must be made up for first.
    assert not worth.judge(make_worth(**grown, deficit=expected), POLICY).yes


def test_a_fit_on_fewer_rows_than_the_last_saves_less_of_the_loss() -> None:
    """After a change few rows of the new world are there, and the curve says what they lack."""
    few = worth.weigh(make_worth(rows_now=1000.0), POLICY)
    many = worth.weigh(make_worth(), POLICY)
    assert few is not None
    assert many is not None
    assert many.lost - few.lost == pytest.approx(1000**-0.1 - 4000**-0.1)


def test_where_waiting_for_rows_pays_more_the_answer_is_later_and_when() -> None:
    """A retrain now on few rows would be followed by another one that costs as much."""
    facts = make_worth(
        rows_now=150.0,
        rows_then=4000.0,
        lost=0.2,
        curve_scale=0.8,
        curve_exponent=0.2,
        concept_age_records=300,
    )
    decision = worth.judge(facts, RetrainConfig(fit_second_pays=7.0))
    assert (False, "later") == (decision.yes, decision.facts["answer"])
    wait = decision.facts["later_records"]
    assert isinstance(wait, int)
    assert wait > 0
    assert f"in {wait} records" in decision.because
    assert worth.look_again(1000 + wait, 1000, 1000 + wait).yes
    assert not worth.look_again(999 + wait, 1000, 1000 + wait).yes
    assert not worth.look_again(2000 + wait, 1000 + wait, 1000 + wait).yes
    assert not worth.look_again(2000, 1000, None).yes


def test_a_virtual_drift_has_no_loss_and_needs_none_to_be_calm() -> None:
    """Features alone moved: only growth could pay, and the reason says what it is."""
    facts = make_worth(
        drift_alarm=True,
        drift_nature="virtual",
        drift_because="3 of 4 features drifted",
        lost=0.0,
        records_since_retrain=9000,
    )
    decision = worth.judge(facts, POLICY)
    assert not decision.yes
    assert "features alone moved" in decision.because


def test_a_loss_that_is_known_to_be_real_needs_less_proof() -> None:
    """Of two standard errors most are noise, unless a sequential test has seen the error rise."""
    noise = worth.weigh(make_worth(lost=0.04, lost_error=0.02), POLICY)
    real = worth.weigh(make_worth(lost=0.04, lost_error=0.02, drift_nature="real"), POLICY)
    assert noise is not None
    assert real is not None
    assert noise.lost < 0.25 * 0.04
    assert real.lost > 0.75 * 0.04


def test_the_share_that_past_retrains_brought_is_what_the_next_one_will() -> None:
    """After rejected challengers the same loss is worth less, and at last no fit."""
    answers = [worth.judge(make_worth(loss_share=share), POLICY).yes for share in (1.0, 0.3, 0.05)]
    assert [True, True, False] == answers


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"records_seen": 10_000, "changes_known": 0, "concept_age_records": 10_000}, 10_000),
        ({"records_seen": 10_000, "changes_known": 4, "concept_age_records": 100}, 2_000),
        ({"records_seen": 10_000, "changes_known": 4, "concept_age_records": 5_000}, 5_000),
        ({"records_seen": 10_000, "changes_known": 1.5, "concept_age_records": 100}, 4_000),
        ({"records_seen": 100, "changes_known": 9, "concept_age_records": 1}, 500),
        ({"records_seen": 10**6, "changes_known": 0, "concept_age_records": 10**6}, 20_000),
    ],
)
def test_a_gain_lasts_until_the_next_change_is_expected(
    overrides: dict[str, Any], expected: float
) -> None:
    """The mean of the concepts so far, or as long as this one has lasted; within bounds."""
    assert expected == worth.horizon(make_worth(**overrides), POLICY)


@pytest.mark.parametrize(
    ("seconds", "counted"), [(0.0, 30), (30.0, 30), (30.1, 60), (60.0, 60), (61.0, 120)]
)
def test_seconds_are_counted_in_steps_that_a_replay_repeats(seconds: float, counted: float) -> None:
    """A fit that takes a little longer on a busy machine leads to the same decision."""
    decision = worth.judge(make_worth(fit_cost_s=seconds), RetrainConfig(fit_second_pays=1.0))
    assert counted == decision.facts["cost_records"]


def test_energy_and_money_cost_where_they_are_known_and_have_a_rate() -> None:
    """Thirty seconds at 1, 2 kJ at 5, half a euro at 100."""
    knobs = RetrainConfig(fit_second_pays=1.0, fit_kilojoule_pays=5.0, fit_price_pays=100.0)
    decision = worth.judge(make_worth(fit_joules=2000.0, fit_price=0.5), knobs)
    assert 90 == decision.facts["cost_records"]
    assert 30 == worth.judge(make_worth(fit_joules=math.nan), knobs).facts["cost_records"]


def test_a_fit_that_pays_only_with_less_energy_is_asked_for_with_a_lower_limit() -> None:
    """And one that pays anyway, where the device is warm; never where no limit can be set."""
    knobs = RetrainConfig(fit_kilojoule_pays=400.0, fit_second_pays=0.0)
    dear = {"fit_joules": 2000.0, "capped_energy_share": 0.5}
    decision = worth.judge(make_worth(**dear), knobs)
    assert (True, "capped") == (decision.yes, decision.facts["answer"])
    assert "400 under a lower power limit" in decision.because
    assert "skip" == worth.judge(make_worth(fit_joules=2000.0), knobs).facts["answer"]
    warm = worth.judge(make_worth(capped_energy_share=0.5, device_warm=True), POLICY)
    assert "capped" == warm.facts["answer"]
    assert "now" == worth.judge(make_worth(device_warm=True), POLICY).facts["answer"]


ARCHIVED = {
    "archived_version": "v000001000",
    "archived_count": 1,
    "archived_gain": 0.12,
    "archived_error": 0.02,
}


def test_an_archived_version_that_gives_what_a_fit_would_serves_again() -> None:
    """Its gain is sound, and not less than the fit's expected one."""
    decision = worth.judge(make_worth(**ARCHIVED), POLICY)
    assert (True, "reuse", "archive", 0.12) == (
        decision.yes,
        decision.facts["answer"],
        decision.facts["evidence"],
        decision.facts["expected_gain"],
    )
    # An open request does not forbid it: the concept may come back while the gate is closed.
    assert worth.judge(make_worth(**ARCHIVED, open_request_position=5), POLICY).yes


def test_a_season_is_named_where_a_concept_comes_back_in_one() -> None:
    """And nothing is said of seasons where none is known."""
    known = {"season_returns": 5, "season_shortest": 7_900, "season_longest": 8_200}
    named = worth.judge(make_worth(**ARCHIVED, **known), POLICY)
    assert "this is a season: 5 times before, a concept has come back" in named.because
    assert "after 7900 to 8200 records" in named.because
    assert "season" not in worth.judge(make_worth(**ARCHIVED), POLICY).because


@pytest.mark.parametrize(
    "overrides",
    [
        {"archived_version": None},
        {"archived_gain": None},
        {"archived_error": None},
        {"archived_gain": math.nan},
        {"archived_error": math.nan},
        {"archived_gain": 0.09},  # a fit gives more
        {"archived_error": 0.06},  # two errors
        {"archived_error": 0.05, "archived_count": 5},  # the best of five looks better than it is
        {"champion_present": False, "rows_then": 100.0},
        {"candidate_version": "v000002000", "candidate_since": 3},
    ],
)
def test_an_archived_version_does_not_serve_again_without_proof(overrides: dict[str, Any]) -> None:
    """Unknown is no proof, and a person's word is waited for."""
    decision = worth.judge(make_worth(**ARCHIVED | overrides), POLICY)
    assert "reuse" != decision.facts["answer"]
    assert not worth.judge(make_worth(**ARCHIVED), RetrainConfig(decide="person")).yes


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, False),
        ({"drift_alarm": True}, True),
        ({"drift_alarm": True, "lost": 0.01}, False),
        ({"drift_alarm": True, "lost": None}, False),
        ({"drift_alarm": True, "lost": None, "labels_changed": True}, True),
    ],
)
def test_while_a_candidate_waits_only_a_new_drift_asks_for_more(
    overrides: dict[str, Any], expected: bool
) -> None:
    """An alarm with a loss beyond what it was made for, or with labels that it cannot know."""
    facts = make_worth(
        candidate_version="v000002000",
        candidate_since=3,
        records_since_retrain=2000,
        **overrides,
    )
    assert expected is worth.judge(facts, POLICY).yes


shares = st.floats(0, 1)
losses = st.floats(-1, 2)
known_facts = st.builds(
    make_worth,
    drift_alarm=st.booleans(),
    drift_nature=st.sampled_from([None, "real", "virtual"]),
    lost=losses,
    lost_error=st.floats(0, 0.5),
    records_since_level=st.integers(0, 10_000),
    rows_then=st.floats(1, 5000),
    rows_now=st.floats(1, 5000),
    rows_per_record=st.floats(0, 1),
    rows_most=st.none() | st.floats(100, 5000),
    deficit=st.floats(0, 0.5),
    curve_scale=st.floats(0, 5),
    curve_exponent=st.floats(0, 1),
    loss_share=shares,
    growth_share=shares,
    records_seen=st.integers(0, 100_000),
    changes_known=st.integers(0, 20),
    concept_age_records=st.integers(0, 100_000),
    fit_cost_s=st.floats(0, 5000),
    fit_joules=st.none() | st.floats(0, 1e6),
    capped_energy_share=st.none() | shares,
    device_warm=st.booleans(),
)
_RANK = {"skip": 0, "later": 1, "capped": 2, "now": 2}


@given(known_facts, st.floats(0, 1), st.floats(0, 20))
def test_more_loss_never_makes_a_retrain_less_worthwhile(
    facts: RetrainFacts, more: float, rate: float
) -> None:
    """Whatever else is known."""
    policy = RetrainConfig(fit_second_pays=rate)
    assert facts.lost is not None
    worse = facts.model_copy(update={"lost": facts.lost + more})
    before, after = worth.weigh(facts, policy), worth.weigh(worse, policy)
    assert before is not None
    assert after is not None
    assert after.gain >= before.gain - 1e-9
    assert after.gain <= max(facts.lost + more, 0) + after.growth + 1e-9
    assert worth.judge(worse, policy).yes >= worth.judge(facts, policy).yes


FREE = {"lost": 0.0, "lost_error": 0.0, "rows_then": 1.0, "rows_now": 1.0, "fit_cost_s": 0.0}


@given(known_facts, st.floats(0, 20), st.floats(0, 20))
@example(make_worth(**FREE, curve_scale=1.0, curve_exponent=1.0, growth_share=1.0), 0.0, 1.0)
def test_a_higher_cost_never_makes_a_retrain_more_worthwhile(
    facts: RetrainFacts, rate: float, more: float
) -> None:
    """By its exchange rate, or by its seconds."""
    cheap, dear = RetrainConfig(fit_second_pays=rate), RetrainConfig(fit_second_pays=rate + more)
    before, after = worth.judge(facts, cheap), worth.judge(facts, dear)
    assert _RANK[str(after.facts["answer"])] <= _RANK[str(before.facts["answer"])]
    assert facts.fit_cost_s is not None
    longer = facts.model_copy(update={"fit_cost_s": facts.fit_cost_s * (1 + more)})
    assert worth.judge(longer, cheap).yes <= before.yes


@given(known_facts, st.sampled_from(["lost", "lost_error", "rows_then", "rows_now", "fit_cost_s"]))
def test_without_an_alarm_what_is_unknown_never_asks(facts: RetrainFacts, name: str) -> None:
    """Fail closed, whatever else is known."""
    unknown = facts.model_copy(update={name: None, "drift_alarm": False})
    decision = worth.judge(unknown, POLICY)
    assert not decision.yes
    assert decision.facts["expected_gain"] is None


@given(known_facts)
def test_what_is_wanted_has_numbers_that_are_finite(facts: RetrainFacts) -> None:
    """A yes of value can be held against what comes."""
    decision = worth.judge(facts, POLICY)
    assert decision.because
    if decision.yes:
        assert isinstance(decision.facts["expected_gain"], float)
        assert isinstance(decision.facts["horizon_records"], float)
