"""What is read of the past: all of it, from one moment, and no more points than are drawn."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from observability.history.store import History
from observability.story import past
from tests.observability.history.makers import (
    at,
    make_decision,
    make_gpu_row,
    make_model,
    make_request,
    make_score,
)

NAME = "elec2"


def read(history: History, **options: object) -> past.Past:
    """The past of elec2 an hour after noon."""
    return past.read(history, NAME, "accuracy", at(3600), **options)  # type: ignore[arg-type]


def test_a_home_without_rows_has_a_past_without_lines(tmp_path: Path) -> None:
    """A page may be opened before the first run; each question is still asked."""
    found = read(History(tmp_path))
    assert (None, None, []) == (found.since, found.until, list(found.scores))
    assert {"now", "champion", "request", "devices", "people"} <= set(found.rows)
    assert found.first("champion") is None


def test_a_line_keeps_the_least_and_the_greatest_of_each_step(tmp_path: Path) -> None:
    """A year is drawn with as many points as a screen has: no peak is lost by that."""
    history = History(tmp_path)
    margins = [10.0 + (index * 7919 % 1000) / 100 for index in range(2_000)]
    margins[777] = -3.0
    rows = [make_gpu_row(at=at(index), margin_c=each) for index, each in enumerate(margins)]
    history.commit(rows, "a")
    (line,) = read(history, steps=10).margins
    assert (10, 2_000) == (len(line.points), line.values)
    assert (-3.0, max(margins)) == (
        min(each.low for each in line.points),
        max(each.high for each in line.points),
    )
    tenth = margins[200:400]
    second = line.points[1]
    assert (min(tenth), max(tenth)) == (second.low, second.high)
    assert pytest.approx(sum(tenth) / 200, abs=0.1) == second.mean


def test_the_first_and_the_last_row_are_drawn(tmp_path: Path) -> None:
    """They are the ends of the axis, where rounding could lose them."""
    history = History(tmp_path)
    times = [0.123457, 17.000001, 3000.987653]
    rows = [
        make_score(at=at(each), position_from=number * 10, position_to=number * 10 + 10)
        for number, each in enumerate(times)
    ]
    history.commit(rows, "a")
    found = read(history)
    assert [3] == [len(line.points) for line in found.scores]
    assert found.since is not None
    assert abs(found.since - at(times[0])) < timedelta(seconds=0.01)


def test_a_mean_is_weighted_by_the_records_that_were_scored(tmp_path: Path) -> None:
    """A short last batch counts as what it is."""
    history = History(tmp_path)
    rows = [
        make_score(at=at(0), position_from=0, position_to=100, value=1.0, scored=100),
        make_score(at=at(1), position_from=100, position_to=200, value=0.0, scored=300),
    ]
    history.commit(rows, "a")
    (line,) = read(history, steps=1).scores
    assert [(0.0, 0.25, 1.0)] == [(each.low, each.mean, each.high) for each in line.points]


def test_only_what_lies_in_the_reach_is_drawn(tmp_path: Path) -> None:
    """The last hour is that before the newest row, so that a pipeline at rest has one, too."""
    history = History(tmp_path)
    rows = [make_score(at=at(60 * minute), position_from=minute) for minute in range(180)]
    history.commit(rows, "a")
    (line,) = read(history, reach="hour").scores
    assert 61 == line.values


def test_decisions_that_lie_close_are_one_mark_and_none_is_lost(tmp_path: Path) -> None:
    """The newest of them speaks; how many there were is kept."""
    history = History(tmp_path)
    rows = [
        make_decision(decided_at=at(each), yes=True, because=f"alarm {each}") for each in range(500)
    ]
    rows += [make_decision(decided_at=at(each + 0.5)) for each in range(500)]
    history.commit(rows, "a")
    marks = read(history).marks
    assert (500, past.MARK_STEPS) == (sum(each.times for each in marks), len(marks))
    assert "alarm 499" == marks[-1].because


def test_a_mark_leads_to_its_decision(tmp_path: Path) -> None:
    """By its key, to the microsecond, with all its facts and the SQL that finds it."""
    history = History(tmp_path)
    history.commit(
        [
            make_decision(decided_at=at(1.000001), yes=True, facts={"a": 1.5, "b": None}),
            make_decision(decided_at=at(1.000002), yes=True, because="another"),
            make_decision(decided_at=at(1.000001), yes=True, pipeline="wind"),
        ],
        "a",
    )
    key = past.key_of(at(1.000001), "drift")
    sql, rows = past.decision(history, NAME, key)
    assert [{"a": 1.5, "b": None}] == [row["facts"] for row in rows]
    assert rows[0]["decided_at"] == history.ask(sql)["decided_at"].to_pylist()[0]
    assert [] == past.decision(history, NAME, "1-drift")[1]


@pytest.mark.parametrize("key", ["", "drift", "x-drift", "9" * 30 + "-drift", "1.5-drift"])
def test_what_is_no_key_is_refused(tmp_path: Path, key: str) -> None:
    """An address is typed by people, and by others."""
    with pytest.raises(ValueError, match=r"key|invalid literal"):
        past.decision(History(tmp_path), NAME, key)


def test_a_question_in_a_key_is_text_and_no_sql(tmp_path: Path) -> None:
    """It comes from an address: its quotes are doubled."""
    history = History(tmp_path)
    history.commit([make_decision()], "a")
    assert [] == past.decision(history, NAME, "1-x' OR true --")[1]


def test_open_and_closed_requests_are_told_apart(tmp_path: Path) -> None:
    """What waits is the open one; what is judged is the one that ended last."""
    history = History(tmp_path)
    history.commit(
        [
            make_request(request_id="one"),
            make_request(request_id="one", event="promoted", at=at(5), because="better"),
            make_request(request_id="two", at=at(9)),
            make_request(request_id="two", at=at(10), event="deferred", because="hot"),
            make_model(event="promoted", at=at(5), because="better"),
        ],
        "a",
    )
    found = read(history)
    waits, ended, champion = (found.first(each) for each in ("request", "retrain", "champion"))
    assert waits is not None
    assert ended is not None
    assert champion is not None
    assert ("two", "hot", 1) == (waits["request_id"], waits["because"], waits["deferrals"])
    assert ("one", "better") == (ended["request_id"], ended["because"])
    assert "v1" == champion["version"]


def test_the_slope_of_a_margin_is_by_the_gates_clock(tmp_path: Path) -> None:
    """A trace that is replayed in a second fell for minutes; another run has another clock."""
    history = History(tmp_path)
    rows = [
        make_gpu_row(at=at(index / 100), elapsed_s=60.0 * index, margin_c=30.0 - 2 * index)
        for index in range(5)
    ]
    rows.append(make_gpu_row(at=at(-50), elapsed_s=0.0, margin_c=90.0, run_id="before"))
    history.commit(rows, "a")
    device = read(history).first("devices")
    assert device is not None
    assert (22.0, 5) == (device["margin_c"], device["readings"])
    assert pytest.approx(-2.0) == device["margin_c_per_minute"]


def test_several_questions_see_one_moment(tmp_path: Path) -> None:
    """A commit that comes between two questions is in neither or in both."""
    history = History(tmp_path)
    history.commit([make_decision()], "a")
    with history.asking() as ask:
        before = ask("SELECT count(*) AS n FROM decisions")["n"].to_pylist()
        history.commit([make_decision(decided_at=at(1))], "b")
        assert before == ask("SELECT count(*) AS n FROM decisions")["n"].to_pylist()
    assert [2] == history.ask("SELECT count(*) AS n FROM decisions")["n"].to_pylist()


def test_an_override_after_the_newest_row_is_drawn(tmp_path: Path) -> None:
    """It is of the whole home, and ends the axis."""
    history = History(tmp_path)
    override = make_decision(pipeline="", question="override", yes=True, decided_at=at(100))
    history.commit([make_score(), override], "a")
    found = read(history)
    assert ["override"] == [each.question for each in found.marks]
    assert found.until is not None
    assert found.until >= at(100)
