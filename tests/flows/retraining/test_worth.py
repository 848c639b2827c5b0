"""Worth in whole runs: expectations and what came, versions that serve again, a person's word."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from river.datasets import synth

from models.persistence import checkpoint
from observability.core.paths import Places
from tests.flows.makers import NAME, answer, ask, make_pipeline, thermodrift, write_stream
from tests.flows.plain_loop import Run

CONCEPT = 1_200
"""Records of a concept."""
KNOBS: dict[str, Any] = {
    # After 100 records of a change an archived version is not yet known to be better, and a fit,
    # which costs next to nothing here, pays at once.
    "stream": {"batch": 200},
    "batch": {"window": 800},
    "drift": {"every": 200, "window": 200},
    "worth": {"fit_second_pays": 0.3},
}


def make_sea(variants: Sequence[int]) -> list[dict[str, Any]]:
    """SEA's concepts, one after the other."""
    records: list[dict[str, Any]] = []
    for seed, variant in enumerate(variants):
        stream = synth.SEA(variant=variant, seed=seed)
        for features, label in itertools.islice(stream, CONCEPT):
            named = {f"x{each}": value for each, value in features.items()}
            records.append({**named, "label": "above" if label else "below"})
    return records


def make_sea_pipeline(folder: Path, variants: Sequence[int], **tables: Any) -> Path:
    """A pipeline over these concepts."""
    merged: Any = {
        table: {**KNOBS.get(table, {}), **tables.get(table, {})} for table in (*KNOBS, *tables)
    }
    pipeline = make_pipeline(folder, 10, **merged)
    write_stream(folder / "stream.csv", make_sea(variants))
    return pipeline


def worth_rows(home: Path) -> list[dict[str, Any]]:
    """What was decided of worth, in order."""
    return ask(
        home,
        "SELECT position, yes, because, facts->>'answer' AS answer, "
        "facts->>'decided_by' AS decided_by, facts->>'evidence' AS evidence "
        "FROM decisions WHERE question = 'worth' ORDER BY position",
    )


def test_a_concept_that_comes_back_is_served_by_the_version_that_knew_it(
    run: Run, tmp_path: Path
) -> None:
    """Without a fit and without the gate: the request is closed as reused, with its decision."""
    home = tmp_path / "home"
    summary = run(make_sea_pipeline(tmp_path, (2, 3, 2, 3)), home)
    assert summary["reused"] >= 1
    reused = ask(home, "FROM requests WHERE state = 'reused' ORDER BY position_requested")
    assert summary["reused"] == len(reused)
    # The third concept is the first one again.
    first = reused[0]
    assert 2 * CONCEPT < first["position_closed"] <= 2 * CONCEPT + 600
    assert "serves again without a fit" in first["because"]
    asked = next(each for each in worth_rows(home) if each["answer"] == "reuse")
    assert (True, "archive", "archive") == (asked["yes"], asked["decided_by"], asked["evidence"])
    served = [each["version"] for each in ask(home, "FROM champion_periods ORDER BY period")]
    assert len(set(served)) < len(served)
    fits = ask(home, "SELECT count(*) AS n FROM costs")[0]["n"]
    assert fits == summary["retrains"]
    assert not ask(home, f"FROM costs WHERE request_id = '{first['request_id']}'")


@pytest.mark.slow
def test_concepts_that_come_back_regularly_are_called_a_season(run: Run, tmp_path: Path) -> None:
    """With the records that lie between, once they have come back four times."""
    home = tmp_path / "home"
    run(make_sea_pipeline(tmp_path, (2, 3) * 5), home)
    reused = [each for each in worth_rows(home) if "reuse" == each["answer"]]
    named = ["this is a season" in each["because"] for each in reused]
    # The fifth return is the first one before which there were four.
    assert [False] * 4 + [True] * (len(named) - 4) == named
    assert len(named) >= 6
    assert f"{2 * CONCEPT} to {2 * CONCEPT} records" in reused[-1]["because"]


def test_no_archived_version_is_looked_at_where_none_is_wanted(run: Run, tmp_path: Path) -> None:
    """The same stream is fitted again and again."""
    pipeline = make_sea_pipeline(tmp_path, (2, 3, 2, 3), worth={"archived_versions": 0})
    summary = run(pipeline, tmp_path / "home")
    assert 0 == summary["reused"]
    assert not ask(tmp_path / "home", "FROM requests WHERE state = 'reused'")


def test_each_retrain_has_an_expectation_that_is_held_against_what_came(
    run: Run, tmp_path: Path
) -> None:
    """On the hold-out, and over the records that came after; rejected ones brought nothing."""
    home = tmp_path / "home"
    summary = run(make_sea_pipeline(tmp_path, (2, 3, 2, 3)), home)
    rows = ask(home, "FROM expectations ORDER BY position")
    requests = ask(home, "FROM requests ORDER BY position_requested")
    assert [each["request_id"] for each in requests] == [each["request_id"] for each in rows]
    assert summary["retrains"] + summary["reused"] == len(rows)
    assert "first" == rows[0]["evidence"]
    assert rows[0]["compared_gain"] is None
    for row, request in zip(rows[1:], requests[1:], strict=True):
        assert row["evidence"] in {"loss", "growth", "archive", "alarm"}
        assert row["compared_gain"] is not None
        assert (request["state"] == "rejected") == (row["compared_gain"] == 0)
        assert (request["state"] == "rejected") == (row["replaced"] is None)
    followed = [each for each in rows if each["followed_records"]]
    assert followed
    assert all(0 < each["followed_records"] <= len(make_sea((2, 3, 2, 3))) for each in followed)
    (known,) = [
        each
        for each in answer(thermodrift("--home", home, "history", "expectations", "--json"))
        if each["evidence"] == "all"
    ]
    checked = [each for each in rows if each["expected_gain"] and each["realised_gain"] is not None]
    assert len(checked) == known["checked"]
    assert known["ratio"] == pytest.approx(
        sum(each["realised_gain"] for each in checked)
        / sum(each["expected_gain"] for each in checked)
    )
    told = thermodrift("--home", home, "history", "expectations", NAME).stdout
    assert "archive" in told
    assert known["because"] in told.replace("\n", " ")
    assert (
        "[]"
        == thermodrift("--home", home, "history", "expectations", "other", "--json").stdout.strip()
    )


def test_a_challenger_that_wins_waits_for_a_persons_word_where_one_is_wanted(
    run: Run, tmp_path: Path
) -> None:
    """The first too: nothing is promoted, the blend goes on, and no other is fitted meanwhile."""
    home = tmp_path / "home"
    pipeline = make_sea_pipeline(tmp_path, (2, 3), promotion={"promote": "ask"})
    summary = run(pipeline, home, CONCEPT)
    assert (None, 1, 0) == (summary["champion"], summary["retrains"], summary["promotions"])
    waits = summary["candidate"]
    assert waits["gain"] is None
    assert 200 == waits["since"]
    (request,) = ask(home, "FROM requests")
    assert "candidate" == request["state"]
    assert "it waits for a person's word (promote = ask)" in request["because"]
    assert [("candidate", False)] == [
        (each["state"], each["champion"]) for each in ask(home, "FROM models")
    ]
    calm = worth_rows(home)[-1]
    assert not calm["yes"]
    assert f"version {waits['version']} has won and waits for a person's word" in calm["because"]
    # status, doctor and models ls say so.
    (known,) = answer(thermodrift("--home", home, "status", "--json"))
    assert waits == known["candidate"]
    told = f"{NAME}: version {waits['version']} has won and waits for a person's word since"
    for words in (("status",), ("doctor",)):
        assert told in thermodrift("--home", home, *words).stdout.replace("\n", " ")
    assert "candidate" in thermodrift("--home", home, "models", "ls").stdout
    # A person's word.
    answer(thermodrift("--home", home, "models", "promote", NAME, waits["version"], "--json"))
    after = run(pipeline, home)
    assert waits["version"] == after["champion"]
    # The next one to win is compared with it, and waits in turn.
    assert after["candidate"]["version"] != waits["version"]
    assert after["candidate"]["gain"] > 0
    assert 0 == after["promotions"]
    header = checkpoint.header(Places(home).pipeline(NAME).checkpoint)
    assert after["candidate"] == header["candidate"]


def test_an_archived_version_waits_for_a_persons_word_too(run: Run, tmp_path: Path) -> None:
    """Where one is wanted, nothing serves without it."""
    home = tmp_path / "home"
    run(make_sea_pipeline(tmp_path, (2, 3, 2)), home, 2 * CONCEPT)
    before = ask(home, "SELECT count(*) AS n FROM champion_periods")[0]["n"]
    # No fit is possible any more: what comes is archived.
    knobs = {"worth": {"min_rows": 100_000}, "promotion": {"promote": "ask"}}
    asks = make_sea_pipeline(tmp_path, (2, 3, 2), **knobs)
    summary = run(asks, home)
    assert before == ask(home, "SELECT count(*) AS n FROM champion_periods")[0]["n"]
    assert 0 == summary["reused"]
    assert "loses" in summary["candidate"]["because"]


def test_a_persons_schedule_is_kept_and_nothing_else_asks(run: Run, tmp_path: Path) -> None:
    """Every 600 records after the last retrain, whatever is lost."""
    home = tmp_path / "home"
    knobs = {"decide": "person", "every_records": 600}
    run(make_sea_pipeline(tmp_path, (2, 3), worth=knobs), home)
    places = [each["position"] for each in worth_rows(home) if each["yes"]]
    assert [200, 800, 1400, 2000] == places
    evidence = [each["evidence"] for each in worth_rows(home) if each["yes"]]
    assert ["first", "person", "person", "person"] == evidence


def test_a_run_that_was_stopped_decides_the_same(run: Run, tmp_path: Path) -> None:
    """What is remembered of retrains is in the checkpoint."""
    pipeline = make_sea_pipeline(tmp_path, (2, 3, 2, 3))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(pipeline, whole)
    for limit in (700, 900, 300, 1_000):
        run(pipeline, parts, limit)
    run(pipeline, parts)
    assert worth_rows(whole) == worth_rows(parts)
    columns = "position, evidence, expected_gain, compared_gain, followed_gain, followed_records"
    question = f"SELECT {columns} FROM expectations ORDER BY position"
    assert ask(whole, question) == ask(parts, question)


def make_seasons(count: int) -> list[dict[str, Any]]:
    """One relation all the time; in every other season a third of the labels is noise."""
    chance = random.Random(5)
    records: list[dict[str, Any]] = []
    for index in range(count):
        x, y = chance.gauss(0, 1), chance.gauss(0, 1)
        noise = 0.33 if index // 800 % 2 else 0.03
        above = (x + y > 0) != (chance.random() < noise)
        records.append({"x": x, "y": y, "label": "above" if above else "below"})
    return records


@pytest.mark.slow
def test_a_season_that_no_fit_can_mend_is_not_fitted_again_and_again(
    run: Run, tmp_path: Path
) -> None:
    """After rejected challengers less of the same loss is expected to come back.

    The plain rule answers each of its alarms by a fit.
    """
    counts = {}
    for decide in ("value", "alarm"):
        folder = tmp_path / decide
        folder.mkdir()
        knobs = {**KNOBS, "worth": {"decide": decide, "archived_versions": 0}}
        pipeline = make_pipeline(folder, 10, **knobs)
        write_stream(folder / "stream.csv", make_seasons(6_400))
        summary = run(pipeline, folder / "home")
        counts[decide] = summary["retrains"], summary["promotions"]
    assert counts["value"][0] <= counts["alarm"][0] / 2
    assert counts["value"][1] / counts["value"][0] >= counts["alarm"][1] / counts["alarm"][0]
