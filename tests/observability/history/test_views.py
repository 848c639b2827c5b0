"""The public views: what is true now, worked out from rows that are only appended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from observability.history.records import Record
from observability.history.store import History
from tests.observability.history.makers import (
    NOON,
    at,
    make_cost,
    make_decision,
    make_forecast,
    make_gpu_row,
    make_model,
    make_reject,
    make_replay,
    make_request,
    make_run,
    make_score,
    rows_of,
)


def answered(home: Path, records: Sequence[Record], sql: str) -> list[dict[str, Any]]:
    """The answer to `sql` over a history of `records`, each in a commit of its own."""
    history = History(home)
    for i, record in enumerate(records):
        history.commit([record], f"c{i}")
    return rows_of(history, sql)


def test_a_run_that_ended_is_one_row(tmp_path: Path) -> None:
    """Start and end meet in one row, with the counts of the end."""
    end = make_run(
        at=at(60),
        event="ended",
        position=900,
        outcome="finished",
        because="end of the stream",
        records=900,
        learned=890,
        rejected=10,
        unlabelled=7,
        replayed=3,
        seconds=59.5,
        cpu_s=70.5,
        host="quiet",
    )
    expected = {
        "pipeline": "elec2",
        "run_id": "run-1",
        "started_at": NOON,
        "ended_at": at(60),
        "outcome": "finished",
        "because": "end of the stream",
        "position_from": 0,
        "position_to": 900,
        "records": 900,
        "learned": 890,
        "rejected": 10,
        "seconds": 59.5,
        "cpu_s": 70.5,
        "fit_s": None,
        "fit_joules": None,
        "host": "quiet",
        "fit_price": None,
        "currency": None,
        "fit_carbon_g": None,
        "unlabelled": 7,
        "replayed": 3,
    }
    assert [expected] == answered(tmp_path, [make_run(host="quiet"), end], "FROM runs")


def test_a_run_without_an_end_is_running(tmp_path: Path) -> None:
    """Killed or at work: while it is the newest, history cannot tell, and does not guess an end."""
    row = answered(tmp_path, [make_run(position=5, host="quiet")], "FROM runs")[0]
    assert ("running", None, None, 5, "quiet") == (
        row["outcome"],
        row["ended_at"],
        row["position_to"],
        row["position_from"],
        row["host"],
    )


def outcomes(rows: list[dict[str, Any]]) -> dict[str, str]:
    """How each run ended, by its id."""
    return {f"{row['pipeline']} {row['run_id']}": row["outcome"] for row in rows}


def test_a_run_without_an_end_was_killed_once_another_has_begun(tmp_path: Path) -> None:
    """Runs of a pipeline go one at a time; one of another pipeline proves nothing."""
    events = [
        make_run(),
        make_run(run_id="run-2", at=at(10)),
        make_run(run_id="run-3", at=at(20)),
        make_run(run_id="run-3", at=at(30), event="ended", outcome="limit_reached"),
        make_run(pipeline="bikes"),
    ]
    found = outcomes(answered(tmp_path, events, "FROM runs"))
    expected = {"elec2 run-1": "crashed", "elec2 run-2": "crashed", "elec2 run-3": "limit_reached"}
    assert expected | {"bikes run-1": "running"} == found
    killed = rows_of(History(tmp_path), "FROM runs WHERE outcome = 'crashed'")
    assert [(None, None), (None, None)] == [(r["ended_at"], r["position_to"]) for r in killed]


def test_runs_that_began_in_one_moment_are_told_apart_by_their_commits(tmp_path: Path) -> None:
    """Whatever their ids: the one that was committed later is the newer."""
    events = [make_run(run_id="z"), make_run(run_id="a")]
    found = outcomes(answered(tmp_path, events, "FROM runs"))
    assert {"elec2 z": "crashed", "elec2 a": "running"} == found


def test_a_run_that_was_taken_up_after_another_is_not_killed_by_it(tmp_path: Path) -> None:
    """What counts is when it last began."""
    events = [
        make_run(),
        make_run(at=at(1), event="ended", outcome="stopped"),
        make_run(run_id="run-2", at=at(2)),
        make_run(run_id="run-2", at=at(3), event="ended", outcome="finished"),
        make_run(at=at(4)),
    ]
    found = outcomes(answered(tmp_path, events, "FROM runs"))
    assert {"elec2 run-1": "running", "elec2 run-2": "finished"} == found


def test_a_run_adds_up_what_its_fits_cost(tmp_path: Path) -> None:
    """Seconds add up; joules too, unless those of one fit are unknown: a part is no sum."""
    records = [
        make_run(),
        make_cost(),
        make_cost(version=None, seconds=1.0, joules=50.0),
        make_run(run_id="run-2"),
        make_cost(run_id="run-2"),
        make_cost(run_id="run-2", joules=None, energy_source=None),
        make_cost(pipeline="bikes"),
    ]
    rows = answered(tmp_path, records, "SELECT fit_s, fit_joules FROM runs ORDER BY run_id")
    assert [(3.0, 350.0), (4.0, None)] == [tuple(row.values()) for row in rows]


def test_costs_tell_the_mean_power_where_the_energy_is_known(tmp_path: Path) -> None:
    """Joules over seconds; unknown joules, or no seconds, are no watts and never zero."""
    records = [
        make_cost(),
        make_cost(at=at(1), joules=None, energy_source=None, version=None),
        make_cost(at=at(2), seconds=0.0),
    ]
    rows = answered(tmp_path, records, "FROM costs ORDER BY started_at")
    first = dict(records[0])
    assert first.pop("at") == rows[0]["started_at"]
    assert {**first, "started_at": NOON, "mean_power_w": 150.0} == rows[0]
    assert [150.0, None, None] == [row["mean_power_w"] for row in rows]
    assert (None, None, None) == tuple(rows[1][k] for k in ("joules", "energy_source", "version"))


def test_costs_tell_what_was_measured_in_the_fit_itself(tmp_path: Path) -> None:
    """A mean of many readings comes before joules over seconds; every other figure as it came."""
    figures = {
        "uuid": "GPU-0",
        "mean_power_w": 160.0,
        "peak_power_w": 310.0,
        "peak_temperature_c": 81.0,
        "lowest_margin_c": 6.0,
        "throttled_s": 0.5,
        "unread_s": 0.0,
        "deferred_s": 90.0,
        "paused_s": 1.0,
        "cap_w": 300.0,
        "interrupt_strategy": "read every second",
        "work_rows": 800,
        "price": 0.02,
        "currency": "EUR",
        "carbon_g": 33.0,
        "pue": 1.1,
    }
    (row,) = answered(tmp_path, [make_cost(**figures)], "FROM costs")
    assert figures == {name: row[name] for name in figures}


def test_a_run_adds_up_money_and_grams_where_all_of_them_are_known(tmp_path: Path) -> None:
    """A part is no sum, and neither are two currencies; a run without a fit cost nothing known."""
    paid = {"price": 0.5, "currency": "EUR", "carbon_g": 100.0, "pue": 1.0}
    records = [
        make_run(run_id="both"),
        make_cost(run_id="both", **paid),
        make_cost(run_id="both", **paid),
        make_run(run_id="moved"),
        make_cost(run_id="moved", **paid),
        make_cost(run_id="moved", **(paid | {"currency": "CHF"})),
        make_run(run_id="part"),
        make_cost(run_id="part", **paid),
        make_cost(run_id="part", carbon_g=1.0, pue=1.0),
        make_run(run_id="without"),
    ]
    rows = answered(
        tmp_path,
        records,
        "SELECT run_id, fit_price, currency, fit_carbon_g FROM runs ORDER BY run_id",
    )
    assert [
        ("both", 1.0, "EUR", 200.0),
        ("moved", None, None, 200.0),
        ("part", None, None, 101.0),
        ("without", None, None, None),
    ] == [tuple(row.values()) for row in rows]


def test_a_forecast_tells_by_how_much_it_was_wrong(tmp_path: Path) -> None:
    """Foretold less came: above zero where more margin was promised than there was."""
    record = make_forecast()
    rows = answered(tmp_path, [record, make_forecast(at=at(1), actual_c=20.0)], "FROM forecasts")
    rows.sort(key=lambda row: row["checked_at"])
    expected = dict(record)
    assert {"checked_at": expected.pop("at"), **expected, "error_c": 0.5} == rows[0]
    assert -3.5 == rows[1]["error_c"]


def test_a_run_that_was_taken_up_again_adds_up(tmp_path: Path) -> None:
    """A run handed back and resumed under its id: running in between, sums at the end."""
    events = [
        make_run(),
        make_run(event="ended", position=10, outcome="stopped", records=10, seconds=1.0),
        make_run(position=10),
    ]
    assert "running" == answered(tmp_path / "a", events, "FROM runs")[0]["outcome"]
    events += [
        make_run(event="ended", position=30, outcome="limit_reached", records=20, seconds=2.0)
    ]
    row = answered(tmp_path / "b", events, "FROM runs")[0]
    assert ("limit_reached", 0, 30, 30, 3.0) == tuple(
        row[name] for name in ("outcome", "position_from", "position_to", "records", "seconds")
    )


def test_a_request_is_one_row_with_its_last_state(tmp_path: Path) -> None:
    """Deferrals are counted, the wait is the last one known, the reasons of both ends are kept."""
    events = [
        make_request(because="accuracy fell", deadline_s=3600.0),
        make_request(at=at(1), event="deferred", because="3 C short", waited_s=0.5),
        make_request(at=at(31), event="deferred", because="1 C short", waited_s=31.0),
        make_request(at=at(61), run_id="run-2", event="started", because="open", waited_s=61.0),
        make_request(at=at(90), run_id="run-2", event="promoted", position=1500, because="better"),
    ]
    expected = {
        "pipeline": "elec2",
        "request_id": "retrain-1",
        "run_id": "run-1",
        "requested_at": NOON,
        "started_at": at(61),
        "closed_at": at(90),
        "state": "promoted",
        "deferrals": 2,
        "waited_s": 61.0,
        "deadline_s": 3600.0,
        "position_requested": 1000,
        "position_closed": 1500,
        "requested_because": "accuracy fell",
        "because": "better",
    }
    assert [expected] == answered(tmp_path, events, "FROM requests")


def test_a_deferred_request_is_not_settled(tmp_path: Path) -> None:
    """It is open, and says why; events of one moment count in the order of their commits."""
    events = [make_request(), make_request(event="deferred", because="3 C short")]
    row = answered(tmp_path, events, "FROM requests")[0]
    assert ("deferred", "3 C short", 1, None, None) == tuple(
        row[name] for name in ("state", "because", "deferrals", "closed_at", "position_closed")
    )


def test_requests_of_two_pipelines_are_apart(tmp_path: Path) -> None:
    """The same id in another pipeline is another request."""
    events = [make_request(), make_request(pipeline="bikes", event="no_model")]
    rows = answered(tmp_path, events, "FROM requests ORDER BY pipeline")
    assert [("bikes", "no_model"), ("elec2", "requested")] == [
        (r["pipeline"], r["state"]) for r in rows
    ]


def make_wait(*, settled: str | None, **changed: Any) -> list[Record]:
    """Asked for at 1000, deferred there and at 1200, settled at 1500, as `settled` says."""
    asked = make_request(**changed)
    rows: list[Record] = [
        asked,
        make_request(at=at(1), event="deferred", waited_s=0.0, because="3 C short", **changed),
        make_request(at=at(2), event="deferred", waited_s=20.0, position=1200, **changed),
    ]
    if settled in {"promoted", "rejected"}:
        rows.append(
            make_request(at=at(3), event="started", waited_s=50.0, position=1500, **changed)
        )
    if settled is not None:
        rows.append(make_request(at=at(4), event=settled, waited_s=57.0, position=1500, **changed))
    return rows


def make_ranges(metric: str = "accuracy") -> list[Record]:
    """Served 0.9 before the wait, 0.6 over its first 400 records, 0.7 over 100, 0.8 after it."""
    spans = [(0, 400, 0.2), (400, 1000, 0.9), (1000, 1400, 0.6), (1400, 1500, 0.7)]
    spans += [(1500, 2000, 0.8), (2000, 2600, 0.1)]
    return [
        make_score(position_from=first, position_to=end, metric=metric, value=value)
        for first, end, value in spans
    ]


def make_comparison(metric: str = "accuracy", **scores: float) -> list[Record]:
    """What champion and challenger scored on the hold-out that ends at 1500."""
    return [
        make_score(
            position_from=1400,
            position_to=1500,
            member=f"holdout:{who}",
            metric=metric,
            value=value,
        )
        for who, value in scores.items()
    ]


COST_OF_WAITING = ("champion_score", "challenger_score", "lost_per_record", "lost")


def test_a_deferral_tells_how_long_it_was_and_what_was_served_meanwhile(tmp_path: Path) -> None:
    """Until the fit began, not through it; means weigh ranges by their records, as many records
    before and after as the wait was long."""
    records = [*make_wait(settled="promoted"), *make_ranges()]
    records += make_comparison(champion=0.6, challenger=0.75, baseline=0.5)
    (row,) = answered(tmp_path, records, "FROM deferrals")
    expected = {
        "pipeline": "elec2",
        "request_id": "retrain-1",
        "requested_at": NOON,
        "closed_at": at(4),
        "state": "promoted",
        "deferrals": 2,
        "deferred_s": 50.0,
        "records_deferred": 500,
        "metric": "accuracy",
        "served_before": 0.9,
        "served_during": 0.62,
        "served_after": 0.8,
        "champion_score": 0.6,
        "challenger_score": 0.75,
        "lost_per_record": 0.15,
        "lost": 75.0,
        "because": "drift",
    }
    assert list(expected) == list(row)
    assert expected == {
        name: round(cell, 9) if isinstance(cell, float) else cell for name, cell in row.items()
    }


def test_the_error_of_a_regression_is_lost_the_other_way_round(tmp_path: Path) -> None:
    """A smaller mean absolute error is the better one; other metrics say nothing here."""
    records = [*make_wait(settled="promoted"), *make_ranges("mae"), *make_ranges("rmse")]
    records += make_comparison("mae", champion=3.0, challenger=2.5)
    records += make_comparison("rmse", champion=9.0, challenger=1.0)
    (row,) = answered(tmp_path, records, "FROM deferrals")
    assert ("mae", 0.5, 250.0) == (row["metric"], row["lost_per_record"], row["lost"])
    assert pytest.approx(0.62) == row["served_during"]


def test_a_model_that_was_rejected_lost_nothing_by_waiting(tmp_path: Path) -> None:
    """It would not have served: the comparison is told, and the loss is none."""
    records = [*make_wait(settled="rejected"), *make_ranges()]
    records += make_comparison(champion=0.75, challenger=0.5)
    (row,) = answered(tmp_path, records, "FROM deferrals")
    assert (0.75, 0.5, -0.25, 0.0) == tuple(row[name] for name in COST_OF_WAITING)


@pytest.mark.parametrize("settled", ["skipped", "no_model"])
def test_a_retrain_that_never_came_to_a_comparison_lost_nobody_knows_what(
    settled: str, tmp_path: Path
) -> None:
    """Unknown, not zero; how long it waited and what was served is known all the same."""
    (row,) = answered(tmp_path, [*make_wait(settled=settled), *make_ranges()], "FROM deferrals")
    assert (None, None, None, None) == tuple(row[name] for name in COST_OF_WAITING)
    assert (settled, 57.0, 500, "accuracy") == tuple(
        row[name] for name in ("state", "deferred_s", "records_deferred", "metric")
    )
    assert pytest.approx(0.8) == row["served_after"]


def test_the_first_champion_waited_without_anything_to_compare_with(tmp_path: Path) -> None:
    """No champion served meanwhile, so what the wait cost is unknown."""
    records = [*make_wait(settled="promoted"), *make_ranges(), *make_comparison(challenger=0.75)]
    (row,) = answered(tmp_path, records, "FROM deferrals")
    assert (None, 0.75, None, None) == tuple(row[name] for name in COST_OF_WAITING)


def test_a_retrain_that_still_waits_is_counted_up_to_its_last_deferral(tmp_path: Path) -> None:
    """Open: as long as is known, no end, and nothing after it."""
    (row,) = answered(tmp_path, [*make_wait(settled=None), *make_ranges()], "FROM deferrals")
    assert ("deferred", None, 20.0, 200, None, None) == tuple(
        row[name]
        for name in (
            "state",
            "closed_at",
            "deferred_s",
            "records_deferred",
            "served_after",
            "lost",
        )
    )


def test_a_wait_is_compared_by_the_run_that_ended_it(tmp_path: Path) -> None:
    """Another learning of the same stream, under the same name, passed the same positions."""
    earlier = [
        make_score(run_id="run-0", position_to=1500, member=f"holdout:{who}", value=value)
        for who, value in (("champion", 0.1), ("challenger", 0.2))
    ]
    records = [*earlier, *make_wait(settled="promoted")]
    records += make_comparison(champion=0.5, challenger=0.75)
    (row,) = answered(tmp_path, records, "FROM deferrals")
    assert (0.5, 0.75, 0.25, 125.0) == tuple(row[name] for name in COST_OF_WAITING)
    assert "accuracy" == row["metric"]


def test_a_request_that_was_never_deferred_is_no_deferral(tmp_path: Path) -> None:
    """And those of two pipelines with one id are apart, with their own scores."""
    at_once = [make_request(), make_request(at=at(1), event="promoted", position=1000)]
    assert [] == answered(tmp_path / "a", [*at_once, *make_ranges()], "FROM deferrals")
    both = [*make_wait(settled="rejected"), *make_wait(settled="skipped", pipeline="bikes")]
    rows = answered(tmp_path / "b", [*both, *make_ranges()], "FROM deferrals ORDER BY pipeline")
    assert [("bikes", None), ("elec2", "accuracy")] == [(r["pipeline"], r["metric"]) for r in rows]


def served(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Version, state, interval and whether it is the champion."""
    names = ("version", "state", "serves_from", "serves_to", "champion")
    return [tuple(row[name] for name in names) for row in rows]


def test_a_replayed_reject_keeps_its_row_and_says_when_it_was_brought_back(tmp_path: Path) -> None:
    """Others stay rejects: another position, and another pipeline with the same one."""
    rejects = [make_reject(position=7), make_reject(position=8), make_reject(pipeline="bikes")]
    replay = make_replay(position=7)
    rows = answered(tmp_path, [*rejects, replay], "FROM rejects ORDER BY pipeline, position")
    assert [None, replay.at, None] == [row["replayed_at"] for row in rows]


def test_a_replay_is_of_the_newest_reject_of_its_position(tmp_path: Path) -> None:
    """A pipeline that was begun anew, under the same name, has rejected the position again."""
    rejects = [make_reject(position=7), make_reject(position=7, at=at(30), run_id="run-2")]
    rows = answered(
        tmp_path, [*rejects, make_replay(position=7)], "FROM rejects ORDER BY rejected_at"
    )
    assert [None, at(60)] == [row["replayed_at"] for row in rows]


def test_a_score_counts_for_the_records_that_it_was_taken_over(tmp_path: Path) -> None:
    """A range in which nearly all labels are missing does not weigh as much as a whole one."""
    ranges = [
        make_score(position_from=500, position_to=750, value=0.5, scored=250),
        make_score(position_from=750, position_to=1000, value=1.0, scored=1),
    ]
    (row,) = answered(tmp_path, [*make_wait(settled="promoted"), *ranges], "FROM deferrals")
    assert row["served_before"] == pytest.approx(126 / 251)


HANDOVER = [
    make_model(recipe="forest", rows=1000, train_from=0, train_to=1000, fit_s=2.5),
    make_model(event="promoted", position=1100, because="first"),
    make_model(version="v2", at=at(10), position=2000),
    make_model(version="v2", at=at(10), event="promoted", position=2100, because="better"),
    make_model(version="v3", at=at(20), position=3000),
    make_model(version="v3", at=at(20), event="rejected", position=3000, because="no better"),
]


def test_a_model_serves_until_the_next_is_promoted(tmp_path: Path) -> None:
    """Each version has its interval of positions; one is the champion; a rejected one has none."""
    rows = answered(tmp_path, HANDOVER, "FROM models ORDER BY version")
    assert [
        ("v1", "promoted", 1100, 2100, False),
        ("v2", "promoted", 2100, None, True),
        ("v3", "rejected", None, None, False),
    ] == served(rows)
    first = rows[0]
    assert ("forest", 1000, 0, 1000, 2.5, NOON, NOON, "first") == tuple(
        first[name]
        for name in (
            "recipe",
            "rows",
            "train_from",
            "train_to",
            "fit_s",
            "stored_at",
            "promoted_at",
            "because",
        )
    )


def test_a_model_that_was_brought_back_is_the_champion(tmp_path: Path) -> None:
    """A rollback promotes its version from then on; `champion_periods` keeps the time before."""
    back = make_model(at=at(30), event="rolled_back", position=3500, because="by hand")
    records = [*HANDOVER, back]
    assert [
        ("v1", "promoted", 3500, None, True),
        ("v2", "promoted", 2100, 3500, False),
        ("v3", "rejected", None, None, False),
    ] == served(answered(tmp_path, records, "FROM models ORDER BY version"))
    periods = rows_of(History(tmp_path), "FROM champion_periods ORDER BY period")
    names = ("period", "version", "event", "serves_from", "serves_to", "started_at", "ended_at")
    assert [
        (1, "v1", "promoted", 1100, 2100, NOON, at(10)),
        (2, "v2", "promoted", 2100, 3500, at(10), at(30)),
        (3, "v1", "rolled_back", 3500, None, at(30), None),
    ] == [tuple(row[name] for name in names) for row in periods]


def test_a_model_promoted_twice_in_a_row_serves_once(tmp_path: Path) -> None:
    """A promotion that was told again after a crash does not end and begin a period."""
    crowns = [make_model(event="promoted"), make_model(at=at(5), event="promoted", position=1005)]
    assert [("v1", 1000, None)] == [
        (row["version"], row["serves_from"], row["serves_to"])
        for row in answered(tmp_path, crowns, "FROM champion_periods")
    ]


def test_an_archived_model_that_is_promoted_later_is_no_longer_rejected(tmp_path: Path) -> None:
    """The state is the last thing that was decided about a version."""
    later = make_model(version="v3", at=at(40), event="promoted", position=4000)
    rows = answered(tmp_path, [*HANDOVER, later], "FROM models WHERE version = 'v3'")
    assert [("v3", "promoted", 4000, None, True)] == served(rows)


def test_every_pipeline_has_its_own_champion(tmp_path: Path) -> None:
    """A promotion in one pipeline dethrones nobody in another."""
    crowns = [
        make_model(event="promoted"),
        make_model(pipeline="bikes", event="promoted", at=at(1)),
    ]
    rows = answered(tmp_path, crowns, "FROM models")
    assert [(None, True), (None, True)] == [(row["serves_to"], row["champion"]) for row in rows]
    periods = rows_of(History(tmp_path), "FROM champion_periods")
    assert [(1, None), (1, None)] == [(row["period"], row["serves_to"]) for row in periods]


def test_rows_that_need_no_working_out_are_shown_as_they_are(tmp_path: Path) -> None:
    """Decisions, scores, rejects and readings keep every field; `at` has a name without quotes."""
    records = [make_decision(), make_score(), make_reject(), make_gpu_row()]
    answered(tmp_path, records, "SELECT 1")
    history = History(tmp_path)
    for record, view, renamed in (
        (records[0], "decisions", {}),
        (records[1], "scores", {"scored_at": "at"}),
        (records[2], "rejects", {"rejected_at": "at"}),
        (records[3], "gpu_readings", {"read_at": "at"}),
    ):
        row = {
            renamed.get(name, name): cell
            for name, cell in rows_of(history, f"FROM {view}")[0].items()
        }
        expected = dict(record)
        if view == "rejects":
            expected["replayed_at"] = None
        if view == "decisions":
            expected["facts"] = '{"accuracy": 0.84, "tolerance": 0.02}'
        assert expected == row
