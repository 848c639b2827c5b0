"""What the history no longer keeps goes, and what stays whatever the knobs say stays."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from observability.history.retention import RetentionConfig
from observability.history.store import History
from tests.observability.history.makers import (
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
    python,
    rows_of,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def days_ago(days: float) -> datetime:
    """A time so many days before NOW."""
    return NOW - timedelta(days=days)


def history_of(home: Path, *records: Any) -> History:
    """A history that holds `records`."""
    history = History(home)
    history.commit(records, "all")
    history.flush()
    return history


def test_nothing_goes_that_nobody_asked_to_remove(tmp_path: Path) -> None:
    """The default keeps everything for ever."""
    history = history_of(tmp_path, make_score(at=days_ago(10_000)))
    assert {} == history.remove_expired(RetentionConfig(), NOW)
    assert 1 == history.scores().num_rows


def test_rows_of_every_kind_go_once_they_are_too_old(tmp_path: Path) -> None:
    """The day before stays, the day after goes."""
    kinds: list[Any] = [
        make_score,
        make_reject,
        make_replay,
        make_gpu_row,
        make_cost,
        make_forecast,
    ]
    records = [make(at=days_ago(days)) for make in kinds for days in (29, 31)]
    records += [make_decision(decided_at=days_ago(days)) for days in (29, 31)]
    history = history_of(tmp_path, *records)
    removed = history.remove_expired(RetentionConfig(keep_days=30), NOW)
    tables = {kind().table for kind in (*kinds, make_decision)}
    assert dict.fromkeys(tables, 1) == removed
    for view in ("decisions", "scores", "rejects", "gpu_readings", "costs", "forecasts"):
        assert 1 == len(rows_of(history, f"FROM {view}"))
    assert {} == history.remove_expired(RetentionConfig(keep_days=30), NOW)


@pytest.mark.parametrize(("rules", "left"), [((None, 10), 1), ((100, 10), 1), ((100, None), 2)])
def test_readings_have_a_time_of_their_own(
    tmp_path: Path, rules: tuple[int | None, int | None], left: int
) -> None:
    """They are many; so they may go sooner, alone."""
    readings = [make_gpu_row(at=days_ago(days)) for days in (5, 20)]
    history = history_of(tmp_path, *readings, make_score(at=days_ago(20)))
    keep_days, readings_keep_days = rules
    history.remove_expired(
        RetentionConfig(keep_days=keep_days, readings_keep_days=readings_keep_days), NOW
    )
    assert left == len(rows_of(history, "FROM gpu_readings"))
    assert 1 == history.scores().num_rows


def test_a_run_goes_whole_and_the_newest_of_a_pipeline_stays(tmp_path: Path) -> None:
    """Half a run would be told as one that was killed."""
    runs = [
        make_run(run_id="old", at=days_ago(50)),
        make_run(run_id="old", event="ended", outcome="finished", at=days_ago(49)),
        make_run(run_id="long", at=days_ago(45)),
        make_run(run_id="long", event="ended", outcome="finished", at=days_ago(1)),
        make_run(run_id="alone", pipeline="other", at=days_ago(60)),
    ]
    history = history_of(tmp_path, *runs)
    assert {"run_rows": 2} == history.remove_expired(RetentionConfig(keep_days=30), NOW)
    left = {row["run_id"]: row["outcome"] for row in rows_of(history, "FROM runs")}
    assert {"long": "finished", "alone": "running"} == left


def test_an_open_request_and_every_model_stay(tmp_path: Path) -> None:
    """What is owed is never forgotten, nor which model served when."""
    records = [
        make_request(request_id="settled", at=days_ago(60)),
        make_request(request_id="settled", event="rejected", at=days_ago(50)),
        make_request(request_id="open", at=days_ago(60)),
        make_request(request_id="open", event="deferred", at=days_ago(50)),
        make_model(at=days_ago(60)),
        make_model(event="promoted", at=days_ago(60)),
    ]
    history = history_of(tmp_path, *records)
    assert {"request_rows": 2} == history.remove_expired(RetentionConfig(keep_days=30), NOW)
    assert ["open"] == [row["request_id"] for row in rows_of(history, "FROM requests")]
    assert [True] == [row["champion"] for row in rows_of(history, "FROM models")]
    assert 1 == len(rows_of(history, "FROM champion_periods"))


def test_a_commit_that_a_resumed_run_may_repeat_is_still_known(tmp_path: Path) -> None:
    """The last commit of every writer keeps its name; those before it need not."""
    history = History(tmp_path)
    for number in (8, 9, 10):
        history.commit([make_score(at=NOW)], f"elec2.ab12.{number:08d}")
    history.commit([make_score(at=NOW)], "other.cd34.00000001")
    history.flush()
    later = datetime.now(UTC) + timedelta(days=40)
    removed = history.remove_expired(RetentionConfig(keep_days=36), later)
    assert 2 == removed["flushed_commits"]
    history.commit([make_score(at=NOW)], "elec2.ab12.00000010")
    history.commit([make_score(at=NOW)], "other.cd34.00000001")
    assert 0 == history.flush().files


def test_what_waits_is_flushed_before_anything_is_removed(tmp_path: Path) -> None:
    """A row that is too old on the day it comes goes with the others."""
    history = History(tmp_path)
    history.commit([make_score(at=days_ago(40)), make_score(at=days_ago(1))], "late")
    assert {"score_rows": 1} == history.remove_expired(RetentionConfig(keep_days=30), NOW)
    assert 1 == history.scores().num_rows


FORGETTER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from observability.core import failpoints
from observability.history.store import History
from observability.history.retention import RetentionConfig
failpoints.arm("upkeep.inside_removal", sys.argv[2])
history = History(Path(sys.argv[1]))
history.remove_expired(RetentionConfig(keep_days=30), datetime(2026, 6, 1, tzinfo=UTC))
"""


def test_killed_amid_a_removal_all_is_as_it_was(tmp_path: Path) -> None:
    """All of it goes or nothing; a disk that refuses is told, and the next time it goes."""
    records = [make_score(at=days_ago(days)) for days in (40, 5)]
    history = history_of(tmp_path, *records, make_decision(decided_at=days_ago(40)))
    killed = python(FORGETTER, tmp_path, "kill")
    assert ("", "") == killed.communicate()
    assert -signal.SIGKILL == killed.returncode
    assert (2, 1) == (history.scores().num_rows, history.decisions().num_rows)
    refused = python(FORGETTER, tmp_path, "raise")
    assert "HistoryUnwritable" in refused.communicate()[1]
    assert (2, 1) == (history.scores().num_rows, history.decisions().num_rows)
    assert {"decision_rows": 1, "score_rows": 1} == history.remove_expired(
        RetentionConfig(keep_days=30), NOW
    )
    assert (1, 0) == (history.scores().num_rows, history.decisions().num_rows)
