"""The judge of drift: every way to answer, and what no reading may turn around."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from observability.drift import drift
from observability.drift.drift import DriftConfig
from observability.drift.error_monitor import ErrorFinding
from tests.observability.makers import (
    make_column,
    make_finding,
    make_label,
    make_performance,
    make_reading,
)

TOLERANCE = DriftConfig(number_threshold=0.3, category_threshold=0.1, drifted_share=0.5)


def features(*scores: float | None, **overrides: Any) -> tuple[drift.ColumnDrift, ...]:
    """One feature per score, named a, b, c, ..."""
    return tuple(
        make_column(name=name, score=score, **overrides)
        for name, score in zip("abcdefgh", scores, strict=False)
    )


def outcome(reading: drift.DriftReading, tolerance: DriftConfig = TOLERANCE) -> object:
    """What the judge called it."""
    return drift.judge(reading, tolerance).facts["outcome"]


def test_a_steady_world_is_no_drift() -> None:
    """No column over its threshold: a no, named no_drift, that shows the nearest column."""
    decision = drift.judge(make_reading(columns=features(0.01, 0.29, 0.2, 0.1)), TOLERANCE)
    assert (False, "no_drift", "drift") == (
        decision.yes,
        decision.facts["outcome"],
        decision.question,
    )
    assert decision.because.startswith("0 of 4 features drifted, 0 unknown")
    assert "b wasserstein 0.29 (drift from 0.3), c" in decision.because
    assert "and 1 more" in decision.because


@pytest.mark.parametrize(
    ("drifted", "expected"), [(1, "no_drift"), (2, "drift_detected"), (4, "drift_detected")]
)
def test_the_share_of_drifted_features_is_an_alarm_from_its_limit_on(
    drifted: int, expected: str
) -> None:
    """Half of four features is two: one is no drift, two are an alarm."""
    scores = [0.9] * drifted + [0.0] * (4 - drifted)
    assert expected == outcome(make_reading(columns=features(*scores)))


def test_an_alarm_names_the_worst_columns_first_with_score_and_threshold() -> None:
    """Whoever reads the reason sees which columns moved, how far, and what was allowed."""
    decision = drift.judge(make_reading(columns=features(0.4, 2.0, 0.0, 0.0)), TOLERANCE)
    assert decision.yes
    assert decision.because == (
        "2 of 4 features drifted, 0 unknown (alarm at a share of 0.5): "
        "b wasserstein 2 (drift from 0.3), a wasserstein 0.4 (drift from 0.3)"
    )
    assert {"feature:a": 0.4, "feature:b": 2.0, "features_drifted": 2} == {
        key: decision.facts[key] for key in ("feature:a", "feature:b", "features_drifted")
    }


@pytest.mark.parametrize(
    ("method", "score", "expected"),
    [
        ("wasserstein", 0.3, True),
        ("wasserstein", 0.2999, False),
        ("wasserstein", 0.9, True),
        ("ks", 0.3, True),
        ("ks", 0.3001, False),
        ("ks", 0.0, True),
        ("ks", 1.0, False),
    ],
)
def test_a_distance_drifts_upwards_and_a_p_value_downwards(
    method: str, score: float, expected: bool
) -> None:
    """The same threshold is read in the direction of the method, itself included."""
    column = make_column(method=method, score=score, larger_is_drift=drift.LARGER_IS_DRIFT[method])
    tolerance = DriftConfig(number_method=method, number_threshold=0.3)
    assert expected is drift.drifted(column, tolerance)


@pytest.mark.parametrize("score", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("larger_is_drift", [True, False])
def test_a_score_that_is_not_finite_is_unknown(score: float | None, larger_is_drift: bool) -> None:
    """Neither drift nor no drift can be read from it."""
    column = make_column(score=score, larger_is_drift=larger_is_drift)
    assert drift.drifted(column, TOLERANCE) is None


def test_unknown_columns_that_could_turn_the_answer_are_not_no_drift() -> None:
    """One drifted and one unknown of four could be two: too little data to say no_drift."""
    columns = (
        *features(0.9, 0.0, 0.0),
        make_column(name="d", score=math.nan, unknown_because="no values"),
    )
    decision = drift.judge(make_reading(columns=columns), TOLERANCE)
    assert (False, "not_enough_data") == (decision.yes, decision.facts["outcome"])
    assert "1 unknown" in decision.because
    assert decision.because.endswith("d (no values)")
    assert decision.facts["feature:d"] is None


def test_unknown_columns_too_few_to_turn_the_answer_leave_it_no_drift() -> None:
    """One unknown of four can not reach two: no drift, and the unknown is counted."""
    decision = drift.judge(make_reading(columns=features(0.0, 0.0, 0.0, None)), TOLERANCE)
    assert ("no_drift", 1) == (decision.facts["outcome"], decision.facts["features_unknown"])


def test_a_column_without_enough_values_is_unknown_whatever_its_score() -> None:
    """A score over a handful of values is no evidence in either direction."""
    assert drift.drifted(make_column(score=9.0, enough=False), TOLERANCE) is None


def test_a_score_by_another_method_than_the_tolerance_names_is_unknown() -> None:
    """A threshold for distances says nothing about a p-value."""
    columns = features(0.001, 0.001, method="ks", larger_is_drift=False)
    decision = drift.judge(make_reading(columns=columns), TOLERANCE)
    assert decision.facts["outcome"] == "not_enough_data"
    assert "measured by ks, but the tolerance asks for wasserstein" in decision.because


def test_values_that_go_missing_are_drift_even_without_a_score() -> None:
    """A sensor that falls silent is a change that no test over its values can see."""
    silent = make_column(name="a", score=None, enough=False, current_missing=1.0)
    decision = drift.judge(make_reading(columns=(silent, *features(0.0))), TOLERANCE)
    assert decision.yes
    assert "a missing values went from 0.00 to 1.00 (allowed change 0.2)" in decision.because
    assert decision.facts["missing_change:a"] == 1.0


@pytest.mark.parametrize(
    ("reference_missing", "current_missing", "expected"),
    [(0.5, 0.25, True), (0.25, 0.5, True), (0.5, 0.5, False), (0.0, 0.1, False)],
)
def test_a_changed_share_of_missing_values_counts_both_ways(
    reference_missing: float, current_missing: float, expected: bool
) -> None:
    """Values that come back change the world as much as values that go."""
    column = make_column(reference_missing=reference_missing, current_missing=current_missing)
    assert expected is drift.drifted(column, TOLERANCE)


@pytest.mark.parametrize("role", ["target", "prediction"])
@pytest.mark.parametrize(("score", "expected"), [(0.0, False), (None, None), (0.9, True)])
def test_a_label_that_is_missing_is_late_and_not_drift(
    role: str, score: float | None, expected: bool | None
) -> None:
    """Labels arrive late and a new champion has predicted little: only their scores count."""
    column = make_label(role=role, score=score, current_missing=0.9)
    assert expected is drift.drifted(column, TOLERANCE)


@pytest.mark.parametrize(
    ("reference_rows", "current_rows", "needed"),
    [
        (99, 1000, "needed 100 of the reference and 200 now"),
        (2000, 199, "needed 200 on each side"),
        (150, 0, "needed 150 of the reference and 200 now"),
    ],
)
def test_too_few_rows_are_told_apart_from_no_drift(
    reference_rows: int, current_rows: int, needed: str
) -> None:
    """A drifted score over too few rows is neither an alarm nor no_drift."""
    reading = make_reading(
        reference_rows=reference_rows, current_rows=current_rows, columns=features(9.0, 9.0)
    )
    decision = drift.judge(reading, TOLERANCE)
    assert (False, "not_enough_data") == (decision.yes, decision.facts["outcome"])
    assert decision.because == (
        f"too few rows to tell: reference {reference_rows}, current {current_rows}, {needed}"
    )


@pytest.mark.parametrize("reference_rows", [100, 199, 200])
def test_a_reference_that_cannot_grow_is_compared_with_what_it_has(reference_rows: int) -> None:
    """One row too few of `min_rows` does not switch every vote off until the next champion."""
    reading = make_reading(reference_rows=reference_rows, columns=features(9.0, 9.0))
    assert "drift_detected" == outcome(reading)
    assert () == drift.unknown_votes(reading, TOLERANCE)


def test_a_smaller_min_rows_is_a_persons_own_word() -> None:
    """The floor is only for a reference that has less than was asked for."""
    assert 30 == DriftConfig(min_rows=30).reference_needs(40)
    assert 30 == DriftConfig(min_rows=30).reference_needs(10)


def test_every_vote_that_is_unknown_is_named_with_what_would_make_it_known() -> None:
    """A feature, the prediction and the performance; what is known or has no vote is not."""
    columns = (
        make_column(name="x1", score=0.01),
        make_column(
            name="x2", score=None, enough=False, unknown_because="no values", remedy="values"
        ),
        make_label(role="prediction", score=None, enough=False, unknown_because="12 of 200"),
        make_label(role="target", score=None, enough=False),
    )
    performance = make_performance(
        reference=None, unknown_because="no score is kept", remedy="the next champion"
    )
    reading = make_reading(columns=columns, performance=performance)
    found = drift.unknown_votes(reading, TOLERANCE.model_copy(update={"target_votes": False}))
    assert ["feature x2", "prediction", "performance"] == [each.vote for each in found]
    assert ["values", "the next look may tell it", "the next champion"] == [
        each.remedy for each in found
    ]
    assert "12 of 200" == found[1].because
    assert "no score is kept" == found[2].because


def test_a_window_that_is_too_short_is_one_unknown_vote() -> None:
    """What would make it known is said in rows."""
    short = drift.unknown_votes(make_reading(reference_rows=2000, current_rows=40), TOLERANCE)
    assert ["window"] == [each.vote for each in short]
    assert short[0].remedy.startswith("160 more values")
    old = drift.unknown_votes(make_reading(reference_rows=60, current_rows=900), TOLERANCE)
    assert "a champion made from more rows" in old[0].remedy


def test_a_broken_contract_hides_no_vote_behind_unknown() -> None:
    """Nothing was scored, and that is told by the alarm itself."""
    reading = make_reading(columns=(), missing_columns=("price",))
    assert () == drift.unknown_votes(reading, TOLERANCE)


def test_a_loss_of_a_proper_score_is_measured_by_the_baselines() -> None:
    """Half a point is what the baseline loses, as a coin does; so what is rare shows."""
    rare = make_performance(
        metric="brier",
        reference=0.0005,
        current=0.002,
        larger_is_better=False,
        unit="baseline",
        baseline=0.002,
    )
    assert drift.performance_loss(rare) == pytest.approx(0.375)
    assert drift.performance_loss(rare.model_copy(update={"baseline": None})) is None
    perfect = rare.model_copy(update={"baseline": 0.0})
    assert math.inf == drift.performance_loss(perfect)


def test_a_loss_that_chance_may_have_made_is_no_alarm() -> None:
    """Two standard errors of the current score are the least that counts."""
    lost = make_performance(reference=0.9, current=0.7, standard_error=0.11)
    assert "no_drift" == outcome(make_reading(performance=lost))
    sure = lost.model_copy(update={"standard_error": 0.09})
    assert "drift_detected" == outcome(make_reading(performance=sure))


def test_labels_that_left_what_was_known_are_an_alarm_by_themselves() -> None:
    """Unless the target has no vote."""
    reading = make_reading(change="the class 'x' is new")
    assert "the class 'x' is new" in drift.judge(reading, TOLERANCE).because
    assert "drift_detected" == outcome(reading)
    assert not drift.judge(reading, TOLERANCE.model_copy(update={"target_votes": False})).yes


def test_exactly_enough_rows_are_enough() -> None:
    """The minimum itself suffices."""
    assert "no_drift" == outcome(make_reading(reference_rows=200, current_rows=200))


@pytest.mark.parametrize(
    ("missing", "extra", "said"),
    [
        (("price",), (), "(missing: price)"),
        ((), ("spare", "z"), "(not expected: spare, z)"),
        (("price",), ("spare",), "(missing: price; not expected: spare)"),
    ],
)
def test_a_broken_column_contract_is_a_yes_that_says_so(
    missing: tuple[str, ...], extra: tuple[str, ...], said: str
) -> None:
    """It must not read as no drift, nor as a drift like others; rows do not matter to it."""
    reading = make_reading(
        reference_rows=0, columns=(), missing_columns=missing, extra_columns=extra
    )
    decision = drift.judge(reading, TOLERANCE)
    assert (True, "contract_broken") == (decision.yes, decision.facts["outcome"])
    assert decision.because.endswith(said)


@pytest.mark.parametrize("role", ["target", "prediction"])
@pytest.mark.parametrize(
    ("score", "votes", "expected"),
    [
        (0.2, True, "drift_detected"),
        (0.2, False, "no_drift"),
        (0.05, True, "no_drift"),
        (None, True, "not_enough_data"),
        (None, False, "no_drift"),
    ],
)
def test_a_label_raises_an_alarm_alone_where_it_votes(
    role: str, score: float | None, votes: bool, expected: str
) -> None:
    """Target and prediction each have a vote of their own, and a knob that takes it away."""
    reading = make_reading(columns=(*features(0.0), make_label(role=role, score=score)))
    tolerance = TOLERANCE.model_copy(update={f"{role}_votes": votes})
    assert expected == outcome(reading, tolerance)
    if votes:
        assert f"{role} " in drift.judge(reading, tolerance).because


@pytest.mark.parametrize(
    ("reference", "current", "larger_is_better", "expected"),
    [
        (0.85, 0.70, True, "drift_detected"),
        (0.85, 0.80, True, "no_drift"),
        (0.70, 0.85, True, "no_drift"),
        (10.0, 11.5, False, "drift_detected"),
        (10.0, 10.5, False, "no_drift"),
        (11.5, 10.0, False, "no_drift"),
        (0.0, 0.1, False, "drift_detected"),
        (0.0, 0.0, False, "no_drift"),
        (math.nan, 0.9, True, "not_enough_data"),
        (0.9, math.inf, True, "not_enough_data"),
        (None, 0.9, True, "not_enough_data"),
        (0.9, None, False, "not_enough_data"),
    ],
)
def test_performance_raises_an_alarm_beyond_the_allowed_drop(
    reference: float | None, current: float | None, larger_is_better: bool, expected: str
) -> None:
    """Points for a score, relative growth for an error; what is not known is not no_drift."""
    performance = make_performance(
        reference=reference, current=current, larger_is_better=larger_is_better
    )
    assert expected == outcome(make_reading(performance=performance))


def test_the_loss_is_told_in_its_own_unit() -> None:
    """Four points of accuracy, and a fifth more of error, are told as such."""
    fallen = make_performance(reference=0.75, current=0.5)
    grown = make_performance(metric="mae", reference=10.0, current=12.5, larger_is_better=False)
    assert (0.25, 0.25) == (drift.performance_loss(fallen), drift.performance_loss(grown))
    said = drift.judge(make_reading(performance=fallen), TOLERANCE)
    assert "accuracy went from 0.75 to 0.5: 0.25 points lost (allowed 0.1)" in said.because
    assert said.facts["performance_loss"] == 0.25
    said = drift.judge(make_reading(performance=grown), TOLERANCE)
    assert "mae went from 10 to 12.5: 0.25 of the reference added" in said.because


@pytest.mark.parametrize(("votes", "expected"), [(True, "drift_detected"), (False, "no_drift")])
@pytest.mark.parametrize(
    ("knob", "found"),
    [
        ("error_votes", make_finding()),
        ("relative_error_votes", make_finding(kind="relative errors", against="online")),
    ],
)
def test_errors_that_rose_are_an_alarm_alone_where_they_vote(
    knob: str, found: ErrorFinding, votes: bool, expected: str
) -> None:
    """Tests of errors need no window, but their votes can be taken away."""
    tolerance = TOLERANCE.model_copy(update={knob: votes})
    decision = drift.judge(make_reading(findings=(found,)), tolerance)
    assert expected == decision.facts["outcome"]
    assert (found.because in decision.because) is votes


def test_errors_that_rose_count_although_the_windows_are_short() -> None:
    """They have their own statistics: too few rows in the windows do not silence them."""
    assert "drift_detected" == outcome(make_reading(current_rows=3, findings=(make_finding(),)))


MOVED = features(9.0)
PREDICTED = make_label(role="prediction", score=9.0)
BEATEN = make_finding(kind="relative errors", against="online", change=4_300)


@pytest.mark.parametrize(
    ("changes", "kinds", "nature"),
    [
        ({}, "", "none"),
        ({"columns": MOVED}, "features", "virtual"),
        ({"columns": (make_label(score=9.0),)}, "target", "virtual"),
        ({"columns": (PREDICTED,)}, "predictions", "virtual"),
        ({"columns": MOVED, "untested": ("batch",)}, "features, missing evidence", "unknown"),
        (
            {"columns": MOVED, "untested": ("batch",), "performance": make_performance()},
            "features, missing evidence",
            "virtual",
        ),
        ({"columns": MOVED, "findings": (make_finding(),)}, "features, errors", "real"),
        ({"findings": (BEATEN,)}, "relative errors", "outgrown"),
        ({"findings": (BEATEN, make_finding())}, "relative errors, errors", "real"),
        ({"change": "the class 'x' is new"}, "labels", "real"),
        ({"performance": make_performance(current=0.5)}, "errors", "real"),
        ({"columns": features(None)}, "missing evidence", "none"),
        ({"current_rows": 3}, "missing evidence", "none"),
        ({"columns": (), "missing_columns": ("load",)}, "", "none"),
    ],
)
def test_a_drift_is_named_for_what_it_is(changes: dict[str, Any], kinds: str, nature: str) -> None:
    """Who weighs a retrain can tell a world that moved from a model that errs."""
    facts = drift.judge(make_reading(**changes), TOLERANCE).facts
    assert (kinds, nature) == (facts["kinds"], facts["nature"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"findings": (BEATEN,)}, 4_300),
        ({"findings": (BEATEN, make_finding(change=4_000))}, 4_000),
        ({"findings": (make_finding(member="online", change=3_900),)}, 3_900),
        ({"findings": (BEATEN,), "change": "new", "change_position": 4_100}, 4_100),
        ({"findings": (BEATEN,), "change": "new"}, 4_300),
    ],
)
def test_where_the_change_lies_is_told_by_whoever_sees_it_first(
    changes: dict[str, Any], expected: int | None
) -> None:
    """The labels know it exactly; then the champion's own errors, then a pair, then others."""
    assert expected == drift.judge(make_reading(**changes), TOLERANCE).facts["change_estimate"]


def test_a_rise_of_the_champions_loss_makes_a_retrain_urgent() -> None:
    """Twice the allowed drop is the most severe; another member's errors are not the champion's."""
    rose = drift.judge(make_reading(findings=(make_finding(),)), TOLERANCE)
    assert 0.1 == pytest.approx(rose.facts["error_rise"])
    assert 0.5 == pytest.approx(drift.severity(rose))
    other = make_finding(member="online")
    assert 0.0 == drift.severity(drift.judge(make_reading(findings=(other,)), TOLERANCE))
    unknown = make_finding(mean_now=None, records_now=0)
    assert 0.0 == drift.severity(drift.judge(make_reading(findings=(unknown,)), TOLERANCE))


def test_a_member_that_has_no_reference_yet_is_an_unknown_vote() -> None:
    """It is told, with what would make it known; and it makes no alarm."""
    reading = make_reading(untested=("online",))
    (found,) = drift.unknown_votes(reading, TOLERANCE)
    assert "errors of online" == found.vote
    assert "1000 labelled records" in found.remedy
    assert "no_drift" == outcome(reading)


def test_one_drifted_feature_is_enough_where_no_share_is_named() -> None:
    """The thresholds of all columns are chosen together, so none needs a second one beside it."""
    reading = make_reading(columns=features(0.9, 0.0, 0.0, 0.0))
    any_one = TOLERANCE.model_copy(update={"drifted_share": None})
    decision = drift.judge(reading, any_one)
    assert decision.because.startswith("1 of 4 features drifted, 0 unknown (alarm at one)")
    assert decision.yes


def test_a_column_whose_noise_is_unknown_is_unknown() -> None:
    """A distance alone says nothing, so that it is never read as no drift."""
    column = make_column(name="a", score=0.5)
    assert drift.drifted(column, DriftConfig()) is None
    decision = drift.judge(make_reading(columns=(column,)), DriftConfig())
    assert "not_enough_data" == decision.facts["outcome"]
    assert "a wasserstein 0.5 (it is not known what sampling alone makes of it)" in decision.because
    known = column.model_copy(update={"threshold": 0.4})
    assert drift.drifted(known, DriftConfig()) is True
    assert drift.drifted(known, DriftConfig(number_threshold=0.6)) is False


def test_a_reading_of_nothing_is_not_enough() -> None:
    """Where nothing was looked at, nothing can be said."""
    assert "not_enough_data" == outcome(make_reading(columns=()))


def test_an_alarm_gives_every_reason_for_it() -> None:
    """Several votes are all told, so that none hides behind another."""
    reading = make_reading(
        columns=(*features(0.9), make_label(score=0.5)),
        performance=make_performance(current=0.5),
        findings=(make_finding(),),
    )
    because = drift.judge(reading, TOLERANCE).because
    assert len(because.split("; ")) == 4


@pytest.mark.parametrize(("score", "first"), [(0.0, "b"), (0.001, "b"), (0.005, "a")])
def test_the_smallest_p_value_is_the_worst(score: float, first: str) -> None:
    """Ranking follows the direction of the method, down to a p-value of zero."""
    columns = features(0.002, score, method="ks", larger_is_drift=False)
    tolerance = DriftConfig(number_method="ks", number_threshold=0.01)
    decision = drift.judge(make_reading(columns=columns), tolerance)
    assert f"alarm at one): {first} ks" in decision.because
    assert "(drift up to 0.01)" in decision.because


def test_every_method_that_can_be_chosen_has_a_direction() -> None:
    """Without one, nobody could say which side of a threshold is drift."""
    named = {*get_args(drift.NumberMethod), *get_args(drift.CategoryMethod)}
    assert named == set(drift.LARGER_IS_DRIFT)


def test_windows_that_can_never_hold_enough_rows_are_refused() -> None:
    """A monitor that could never answer is a mistake in the configuration."""
    with pytest.raises(ValidationError, match="no check could ever tell anything"):
        DriftConfig(window=100)
    with pytest.raises(ValidationError, match="no check could ever tell anything"):
        DriftConfig(reference_rows=199)


@pytest.mark.parametrize(
    "knobs", [{"number_method": "mannw"}, {"number_threshold": 0}, {"drifted_shar": 0.5}]
)
def test_a_wrong_knob_is_refused(knobs: dict[str, Any]) -> None:
    """Unsupported methods, thresholds out of bounds and misspelt names are errors."""
    with pytest.raises(ValidationError):
        DriftConfig(**knobs)


def test_the_contract_lists_features_then_labels() -> None:
    """Target and prediction share the kind of the label, and are left out where not named."""
    columns = drift.watched({"load": "number"}, label_kind="category", target="y", prediction="p")
    assert [("load", "feature", "number"), ("y", "target", "category")] == [
        (column.name, column.role, column.kind) for column in columns[:2]
    ]
    assert ("p", "prediction") == (columns[2].name, columns[2].role)
    assert 1 == len(drift.watched({"load": "number"}, label_kind="category"))


scores = st.floats(0, 5)
score_lists = st.lists(scores, min_size=1, max_size=8)


@given(score_lists, st.data(), st.floats(0.001, 3), st.booleans())
def test_a_worse_score_never_turns_an_alarm_into_no_drift(
    given_scores: list[float], data: st.DataObject, by: float, larger_is_drift: bool
) -> None:
    """Monotone: move any one column further towards drift, and an alarm stays an alarm."""
    tolerance = (
        TOLERANCE
        if larger_is_drift
        else DriftConfig(number_method="ks", number_threshold=0.01, drifted_share=0.5)
    )
    direction = {"larger_is_drift": larger_is_drift, "method": tolerance.number_method}
    which = data.draw(st.integers(0, len(given_scores) - 1))
    worse = list(given_scores)
    worse[which] += by if larger_is_drift else -by
    before = drift.judge(make_reading(columns=features(*given_scores, **direction)), tolerance)
    after = drift.judge(make_reading(columns=features(*worse, **direction)), tolerance)
    assert after.yes >= before.yes


@given(score_lists, st.data())
def test_a_lost_score_never_makes_an_answer_no_drift(
    given_scores: list[float], data: st.DataObject
) -> None:
    """Forgetting a column can hide an alarm, but what it hides is called not enough data."""
    which = data.draw(st.integers(0, len(given_scores) - 1))
    lost: list[float | None] = list(given_scores)
    lost[which] = math.nan
    before = outcome(make_reading(columns=features(*given_scores)))
    after = outcome(make_reading(columns=features(*lost)))
    assert after != "no_drift" or before == "no_drift"


@given(score_lists, st.floats(0.01, 4), st.floats(0.01, 4))
def test_a_stricter_threshold_never_silences_an_alarm(
    given_scores: list[float], one: float, other: float
) -> None:
    """Monotone in the knob: what alarms at a threshold alarms at every lower one."""
    low, high = sorted((one, other))
    reading = make_reading(columns=features(*given_scores))
    strict, lax = (DriftConfig(number_threshold=threshold) for threshold in (low, high))
    assert drift.judge(reading, strict).yes >= drift.judge(reading, lax).yes


@given(st.floats(0.01, 1), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_a_worse_performance_never_ends_an_alarm(
    reference: float, one: float, other: float, larger_is_better: bool
) -> None:
    """Of two current values, the worse one alarms whenever the better one does."""
    better, worse = sorted((one, other), reverse=larger_is_better)
    answers = [
        drift.judge(
            make_reading(
                performance=make_performance(
                    reference=reference, current=current, larger_is_better=larger_is_better
                )
            ),
            TOLERANCE,
        ).yes
        for current in (worse, better)
    ]
    assert answers[0] >= answers[1]


@pytest.mark.parametrize(
    ("position", "checked_at", "ripe_at", "errors_rose", "expected"),
    [
        (1000, 0, None, False, "1000 records since the last look (every 1000)"),
        (999, 0, None, False, ""),
        (500, 500, 500, True, ""),
        (501, 500, None, True, "the errors of a model rose, 1 records after the last look"),
        (600, 500, 600, False, "a change of the labels since position 600"),
        (600, 500, 501, False, "a change of the labels since position 501"),
        (600, 500, 601, False, ""),
        (600, 500, 500, False, ""),
    ],
)
def test_a_check_is_due_after_so_many_records_or_for_a_sign_of_change(
    position: int, checked_at: int, ripe_at: int | None, errors_rose: bool, expected: str
) -> None:
    """Never twice at one position; a no says how many records there are of how many."""
    tolerance = drift.DriftConfig(every=1000)
    decision = drift.due(position, checked_at, ripe_at, errors_rose, tolerance)
    assert bool(expected) is decision.yes
    assert (expected or "not yet time to look: ") in decision.because
    assert position - checked_at == decision.facts["records_since"]


def test_without_a_champion_nothing_is_known() -> None:
    """There is no reading: the answer is a no, and says so."""
    decision = drift.judge(None, drift.DriftConfig())
    assert (False, "drift") == (decision.yes, decision.question)
    assert decision.facts == {
        "outcome": "not_enough_data",
        "kinds": "missing evidence",
        "nature": "none",
    }
    assert (drift.NO_CHAMPION,) == drift.unknown_votes(None, drift.DriftConfig())
