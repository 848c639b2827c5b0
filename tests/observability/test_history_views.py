"""The public views: what is true now, worked out from rows that are only appended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from observability.history import History
from observability.records import Record
from tests.observability.history_makers import (
    NOON,
    at,
    make_decision,
    make_gpu_row,
    make_model,
    make_reject,
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
        seconds=59.5,
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
    }
    assert [expected] == answered(tmp_path, [make_run(), end], "FROM runs")


def test_a_run_without_an_end_is_running(tmp_path: Path) -> None:
    """Killed or at work: history cannot tell, and does not guess an end."""
    row = answered(tmp_path, [make_run(position=5)], "FROM runs")[0]
    assert ("running", None, None, 5) == (
        row["outcome"],
        row["ended_at"],
        row["position_to"],
        row["position_from"],
    )


def test_a_run_that_was_taken_up_again_adds_up(tmp_path: Path) -> None:
    """A run handed back and resumed under its id: running in between, sums at the end."""
    events = [
        make_run(),
        make_run(event="ended", position=10, outcome="stopped", records=10, seconds=1.0),
        make_run(position=10),
    ]
    assert "running" == answered(tmp_path / "a", events, "FROM runs")[0]["outcome"]
    events += [make_run(event="ended", position=30, outcome="limit", records=20, seconds=2.0)]
    row = answered(tmp_path / "b", events, "FROM runs")[0]
    assert ("limit", 0, 30, 30, 3.0) == tuple(
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
        "asked_at": NOON,
        "started_at": at(61),
        "settled_at": at(90),
        "state": "promoted",
        "deferrals": 2,
        "waited_s": 61.0,
        "deadline_s": 3600.0,
        "position_asked": 1000,
        "position_settled": 1500,
        "asked_because": "accuracy fell",
        "because": "better",
    }
    assert [expected] == answered(tmp_path, events, "FROM requests")


def test_a_deferred_request_is_not_settled(tmp_path: Path) -> None:
    """It is open, and says why; events of one moment count in the order of their commits."""
    events = [make_request(), make_request(event="deferred", because="3 C short")]
    row = answered(tmp_path, events, "FROM requests")[0]
    assert ("deferred", "3 C short", 1, None, None) == tuple(
        row[name] for name in ("state", "because", "deferrals", "settled_at", "position_settled")
    )


def test_requests_of_two_pipelines_are_apart(tmp_path: Path) -> None:
    """The same id in another pipeline is another request."""
    events = [make_request(), make_request(pipeline="bikes", event="refused")]
    rows = answered(tmp_path, events, "FROM requests ORDER BY pipeline")
    assert [("bikes", "refused"), ("elec2", "asked")] == [(r["pipeline"], r["state"]) for r in rows]


def served(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Version, state, interval and whether it is the champion."""
    names = ("version", "state", "serves_from", "serves_to", "champion")
    return [tuple(row[name] for name in names) for row in rows]


HANDOVER = [
    make_model(recipe="forest", rows=1000, train_from=0, train_to=1000, fit_s=2.5),
    make_model(event="promoted", position=1100, because="first"),
    make_model(version="v2", at=at(10), position=2000),
    make_model(version="v2", at=at(10), event="promoted", position=2100, because="better"),
    make_model(version="v3", at=at(20), position=3000),
    make_model(version="v3", at=at(20), event="kept", position=3000, because="no better"),
]


def test_a_model_serves_until_the_next_is_promoted(tmp_path: Path) -> None:
    """Each version has its interval of positions; one is the champion; a kept one never served."""
    rows = answered(tmp_path, HANDOVER, "FROM models ORDER BY version")
    assert [
        ("v1", "promoted", 1100, 2100, False),
        ("v2", "promoted", 2100, None, True),
        ("v3", "kept", None, None, False),
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
    """A rollback crowns its version from then on; `reigns` keeps the time that it served before."""
    back = make_model(at=at(30), event="rolled_back", position=3500, because="by hand")
    records = [*HANDOVER, back]
    assert [
        ("v1", "promoted", 3500, None, True),
        ("v2", "promoted", 2100, 3500, False),
        ("v3", "kept", None, None, False),
    ] == served(answered(tmp_path, records, "FROM models ORDER BY version"))
    reigns = rows_of(History(tmp_path), "FROM reigns ORDER BY reign")
    names = ("reign", "version", "event", "serves_from", "serves_to", "began_at", "ended_at")
    assert [
        (1, "v1", "promoted", 1100, 2100, NOON, at(10)),
        (2, "v2", "promoted", 2100, 3500, at(10), at(30)),
        (3, "v1", "rolled_back", 3500, None, at(30), None),
    ] == [tuple(row[name] for name in names) for row in reigns]


def test_a_model_crowned_twice_in_a_row_reigns_once(tmp_path: Path) -> None:
    """A promotion that was told again after a crash does not end and begin a reign."""
    crowns = [make_model(event="promoted"), make_model(at=at(5), event="promoted", position=1005)]
    assert [("v1", 1000, None)] == [
        (row["version"], row["serves_from"], row["serves_to"])
        for row in answered(tmp_path, crowns, "FROM reigns")
    ]


def test_an_archived_model_that_is_promoted_later_is_no_longer_kept(tmp_path: Path) -> None:
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
    reigns = rows_of(History(tmp_path), "FROM reigns")
    assert [(1, None), (1, None)] == [(row["reign"], row["serves_to"]) for row in reigns]


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
        if view == "decisions":
            expected["facts"] = '{"accuracy": 0.84, "tolerance": 0.02}'
        assert expected == row
