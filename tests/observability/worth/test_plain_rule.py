"""The plain rule and what holds beside it: an alarm asks for a retrain, and what forbids one."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from observability.worth import worth
from observability.worth.worth import RetrainConfig, RetrainFacts
from tests.observability.makers import make_evidence

POLICY = RetrainConfig(decide="alarm")


def test_an_alarm_over_an_old_champion_is_worth_a_retrain() -> None:
    """Yes, with the drift's own reason and every number that was looked at."""
    decision = worth.judge(make_evidence(), POLICY)
    assert (True, "worth", "drift: 3 of 4 features drifted") == (
        decision.yes,
        decision.question,
        decision.because,
    )
    assert (5000, 2000) == (decision.facts["rows_available"], decision.facts["cooldown_records"])


@pytest.mark.parametrize(("rows", "expected"), [(499, False), (500, True)])
def test_the_first_champion_is_asked_for_as_soon_as_there_are_rows_enough(
    rows: int, expected: bool
) -> None:
    """Without a champion no alarm is needed, only the rows of a fit."""
    evidence = RetrainFacts(
        drift_alarm=False, rows_available=rows, new_rows=0, champion_present=False
    )
    decision = worth.judge(evidence, POLICY)
    assert expected is decision.yes
    assert str(rows) in decision.because
    assert "needed 500" in decision.because


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"open_request_position": 0}, "already asked at position 0"),
        ({"contract_broken": True}, "a person must look first: 3 of 4 features drifted"),
        ({"rows_available": 499}, "only 499 rows are available (needed 500)"),
        ({"records_since_retrain": 1999}, "ended 1999 records ago (cooldown 2000 records)"),
        ({"drift_alarm": False}, "there is no drift alarm: 3 of 4 features drifted"),
        ({"drift_alarm": False, "drift_because": ""}, "there is no drift alarm"),
        (
            {"new_rows": 199},
            "only 199 new rows since the last training (needed 200), although drift: 3 of 4",
        ),
        ({"fit_cost_s": 600.0}, "expected to take 600 s (costly from 600 s)"),
        (
            {"fit_cost_s": 900.0, "performance_loss": 0.019},
            "pays from a loss of 0.02, and the loss is 0.019, although drift: 3 of 4",
        ),
        (
            {"fit_cost_s": 900.0, "performance_loss": math.nan},
            "and no loss of performance is known",
        ),
    ],
)
def test_every_no_says_why_with_its_numbers(overrides: dict[str, Any], said: str) -> None:
    """Each reason against stands alone against an otherwise worthy retrain."""
    decision = worth.judge(make_evidence(**overrides), POLICY)
    assert not decision.yes
    assert said in decision.because


@pytest.mark.parametrize(
    "overrides",
    [
        {"records_since_retrain": 2000},
        {"records_since_retrain": None},
        {"new_rows": 200},
        {"rows_available": 500},
        {"fit_cost_s": 599.0},
        {"fit_cost_s": math.nan},
        {"fit_cost_s": 900.0, "performance_loss": 0.02},
        {"fit_cost_s": 900.0, "performance_loss": math.inf},
    ],
)
def test_every_limit_itself_lets_the_retrain_through(overrides: dict[str, Any]) -> None:
    """At its limit a reason against no longer holds; an unknown cost is not held against it."""
    assert worth.judge(make_evidence(**overrides), POLICY).yes


@pytest.mark.parametrize(
    ("age", "limit", "expected"),
    [(3000, None, False), (3000, 3001, False), (3000, 3000, True), (None, 1, False)],
)
def test_an_old_champion_is_retrained_without_an_alarm_where_an_age_is_set(
    age: int | None, limit: int | None, expected: bool
) -> None:
    """Age alone suffices from the limit on, and never where no limit is set."""
    evidence = make_evidence(drift_alarm=False, champion_age_records=age)
    assert (
        expected is worth.judge(evidence, RetrainConfig(decide="alarm", max_age_records=limit)).yes
    )


def test_a_retrain_for_age_needs_no_measured_loss() -> None:
    """The age was asked for by a person: the cost of the fit is part of that wish."""
    evidence = make_evidence(drift_alarm=False, fit_cost_s=9000.0)
    decision = worth.judge(evidence, RetrainConfig(decide="alarm", max_age_records=3000))
    assert (True, "the champion is 3000 records old (retrained from 3000)") == (
        decision.yes,
        decision.because,
    )


def test_a_first_champion_that_was_not_promoted_waits_for_the_cooldown_too() -> None:
    """Otherwise a stream that no model can learn would be fitted after every batch."""
    evidence = make_evidence(champion_present=False, records_since_retrain=10)
    assert not worth.judge(evidence, POLICY).yes


def test_a_misspelt_knob_is_refused() -> None:
    """A knob that nobody reads must not look as if it were set."""
    with pytest.raises(ValidationError):
        RetrainConfig(cooldown=5)  # type: ignore[call-arg]  # the misspelling is the test


counts = st.integers(0, 6000)
evidences = st.builds(
    RetrainFacts,
    drift_alarm=st.booleans(),
    contract_broken=st.booleans(),
    performance_loss=st.none() | st.floats(allow_nan=True),
    rows_available=counts,
    new_rows=counts,
    champion_present=st.booleans(),
    champion_age_records=st.none() | counts,
    records_since_retrain=st.none() | counts,
    open_request_position=st.none() | counts,
    fit_cost_s=st.none() | st.floats(0, 5000),
    retrains_last_day=st.none() | st.integers(0, 9),
)
policies = st.builds(
    RetrainConfig,
    decide=st.just("alarm"),
    min_rows=st.integers(2, 1000),
    cooldown_records=counts,
    max_age_records=st.none() | st.integers(1, 6000),
    max_retrains_per_day=st.none() | st.integers(1, 9),
)


@pytest.mark.parametrize(
    ("begun", "most", "expected"),
    [(2, None, True), (None, 2, True), (1, 2, True), (2, 2, False), (3, 2, False)],
)
def test_a_budget_of_a_day_is_kept_where_hours_are_counted(
    begun: int | None, most: int | None, expected: bool
) -> None:
    """From the budget on nothing more is asked for; without one, or in a replay, all may be."""
    evidence = make_evidence(retrains_last_day=begun)
    decision = worth.judge(evidence, RetrainConfig(decide="alarm", max_retrains_per_day=most))
    assert expected is decision.yes
    if not expected:
        assert f"{begun} retrains began within the last 24 hours (at most 2)" == decision.because


@given(evidences, policies)
def test_a_yes_never_passes_over_an_obstacle(evidence: RetrainFacts, policy: RetrainConfig) -> None:
    """Whatever else is known: no second request, no broken columns, no fit on too few rows."""
    decision = worth.judge(evidence, policy)
    assert decision.because
    if decision.yes:
        assert evidence.open_request_position is None
        assert not evidence.contract_broken
        assert evidence.rows_available >= policy.min_rows
        since = evidence.records_since_retrain
        assert since is None or since >= policy.cooldown_records
        begun, most = evidence.retrains_last_day, policy.max_retrains_per_day
        assert begun is None or most is None or begun < most


@given(evidences, policies, counts)
def test_more_rows_never_turn_a_yes_into_a_no(
    evidence: RetrainFacts, policy: RetrainConfig, more: int
) -> None:
    """Monotone in the amount of data."""
    richer = evidence.model_copy(
        update={
            "rows_available": evidence.rows_available + more,
            "new_rows": evidence.new_rows + more,
        }
    )
    assert worth.judge(richer, policy).yes >= worth.judge(evidence, policy).yes


@given(evidences, policies)
def test_an_alarm_never_turns_a_yes_into_a_no(
    evidence: RetrainFacts, policy: RetrainConfig
) -> None:
    """Monotone in the alarm, except that a costly fit is weighed; that one has no cost here."""
    calm, alarmed = (
        evidence.model_copy(update={"drift_alarm": alarm, "fit_cost_s": None})
        for alarm in (False, True)
    )
    assert worth.judge(alarmed, policy).yes >= worth.judge(calm, policy).yes


@pytest.mark.parametrize(
    ("changed", "since", "expected"),
    [
        (None, 1_000, False),
        (450, 3_000, True),  # the change is news to a champion of long ago
        (400, 1_000, True),  # that request ended before the labels changed
        (399, 1_000, False),  # a fit would learn the old world again
        (1_350, 1_000, True),  # it knew of 350 records of the new world; there are 1,350
        (600, 300, True),  # twice as many as it knew of
        (599, 299, False),
        (2_500, 1_500, False),  # it knew of 1,000, and learned from 500: a fit like others
        (2_400, 1_500, True),
    ],
)
def test_a_cooldown_does_not_hold_a_champion_that_could_not_know_of_a_change(
    changed: int | None, since: int, expected: bool
) -> None:
    """Nor does that cost a retrain at every look: each has twice the records of the one before."""
    evidence = make_evidence(records_since_change=changed, records_since_retrain=since)
    decision = worth.judge(evidence, POLICY)
    assert expected is decision.yes


@pytest.mark.parametrize(
    ("trained_to", "position", "expected"),
    [(0, 1000, True), (1499, 2000, True), (1500, 2000, False), (0, 5000, True), (0, 5001, False)],
)
def test_a_champion_knows_a_change_once_it_was_trained_on_rows_enough_of_it(
    trained_to: int, position: int, expected: bool
) -> None:
    """And after a window's worth of records it is no news any more."""
    decision = worth.unlearned_change(
        "label 'c' is new",
        1000,
        trained_to=trained_to,
        position=position,
        window=4000,
        config=POLICY,
    )
    assert (expected, "change") == (decision.yes, decision.question)
    known = max(trained_to - 1000, 0)
    told = f"label 'c' is new; the champion was made from {known} records since then"
    assert told == decision.because


@pytest.mark.parametrize(("position", "expected"), [(100, True), (150, True), (151, False)])
def test_a_fit_is_gone_on_with_while_half_of_its_window_is_new(
    position: int, expected: bool
) -> None:
    """Else it begins anew, with the newest rows."""
    decision = worth.keeps_window(100, position, 100)
    assert (expected, "window") == (decision.yes, decision.question)
