"""What models are judged by in a run: rare classes count, unknown is said, a change is followed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from flows.cli import drift_report, status
from models.core.record_schema import Task
from models.persistence.signing import SigningKey
from models.registry.registry import Registry
from observability.core.paths import Places
from tests.flows.makers import ask, toml, write_stream
from tests.flows.nursery import Nursery


def run(nursery: Nursery, folder: Path, records: list[dict[str, Any]], **tables: Any) -> Any:
    """The summary of a run over these records to their end, whose target is y."""
    task: Task = "classification" if isinstance(records[0]["y"], str) else "regression"
    write_stream(folder / "stream.csv", records)
    asked: dict[str, Any] = {
        "pipeline": {"name": "small", "task": task},
        "stream": {"path": "stream.csv", "target": "y", "batch": 200},
        "online": {"members": ["linear"]},
        "batch": {"recipe": "linear"},
        "drift": {"every": 200},
        "gate": {"source": "off"},
    }
    for name, knobs in tables.items():
        asked[name] = {**asked.get(name, {}), **knobs}
    (folder / "pipeline.toml").write_text(toml(asked))
    done = nursery.loop(folder / "pipeline.toml", folder / "home")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rare_records(count: int) -> list[dict[str, Any]]:
    """One fraud in a hundred, told by x, but never by a probability near a half."""
    chance = random.Random(1)
    records = []
    for index in range(count):
        fraud = index % 100 == 50
        x = round(chance.gauss(3.0 if fraud else 0.0, 1.0), 4)
        records.append({"x": x, "y": "fraud" if fraud else "fine"})
    return records


def test_with_f1_most_of_what_is_rare_is_caught_and_all_of_it_is_told(
    nursery: Nursery, tmp_path: Path
) -> None:
    """Accuracy alone would answer "fine" for ever and be right in 99 of 100 records."""
    summary = run(
        nursery,
        tmp_path,
        rare_records(2_400),
        pipeline={"metric": "f1"},
        stream={"batch": 400},
        drift={"every": 800},
    )
    assert ("accuracy", "f1") == (summary["metric"], summary["judged_by"])
    assert summary["scores"]["served"] > 0.95
    assert summary["judged"]["served"] > 0.2
    assert 0.0 < summary["threshold"] < 0.5
    home = tmp_path / "home"
    (late,) = ask(
        home,
        "SELECT avg((served = label)::INT) AS caught FROM predictions"
        " WHERE label = 'fraud' AND position >= 1600",
    )
    assert late["caught"] >= 0.4
    told = ask(home, "SELECT because FROM decisions WHERE question = 'threshold'")
    assert "the class 'fraud' is served from a probability of" in told[0]["because"]
    metrics = ask(home, "SELECT DISTINCT metric FROM scores WHERE member = 'served'")
    assert {"accuracy", "f1"} == {each["metric"] for each in metrics}
    (brief,) = status.collect(home)
    assert summary["judged"] == brief["judged"]
    assert summary["threshold"] == brief["threshold"]


def test_a_comparison_holds_what_is_rare(nursery: Nursery, tmp_path: Path) -> None:
    """With a fraud in a hundred the newest 200 of 1,000 rows hold two; five are compared on."""
    run(nursery, tmp_path, rare_records(1_000), worth={"min_rows": 1_000})
    home = Places(tmp_path / "home")
    store = Registry(home.pipeline("small"), SigningKey.open(home.key))
    (manifest,) = store.ls()
    assert "brier" == manifest.judged_by
    assert (550, 650, 750) == manifest.apart
    assert (800, 1_000) == (manifest.holdout_from, manifest.holdout_to)
    # It was fitted again, on all rows, after the comparison.
    assert (True, 1_000, 1_000) == (manifest.refitted, manifest.train_to, manifest.rows)
    assert [797, 398] == [each.rows for each in manifest.candidates]
    assert {"holdout:challenger", "newest:challenger"} < set(manifest.scores)


def steady_records(count: int) -> list[dict[str, Any]]:
    """A stream that never changes."""
    chance = random.Random(2)
    records = []
    for _ in range(count):
        x = round(chance.gauss(0, 1), 4)
        records.append({"x": x, "y": "up" if x + chance.gauss(0, 0.5) > 0 else "down"})
    return records


def test_a_reference_that_lacks_one_row_does_not_switch_drift_off(
    nursery: Nursery, tmp_path: Path
) -> None:
    """A first window of 995 rows holds 199 out, where `min_rows` asks for 200."""
    summary = run(
        nursery,
        tmp_path,
        steady_records(1_990),
        stream={"batch": 995},
        drift={"every": 995, "error_reference_rows": 300},
        # The next champion would have a reference of its own.
        worth={"decide": "person"},
    )
    assert 1 == summary["promotions"]
    assert [] == summary["unknown_votes"]
    (drift,) = ask(
        tmp_path / "home",
        "SELECT because FROM decisions WHERE question = 'drift' AND position = 1990",
    )
    assert "prediction steady" in drift["because"]
    assert "brier went from" in drift["because"]


def test_a_vote_that_is_unknown_is_told_wherever_people_look(
    nursery: Nursery, tmp_path: Path
) -> None:
    """A first window of 400 rows holds 80 out, of which nothing can be said of predictions."""
    summary = run(
        nursery,
        tmp_path,
        steady_records(1_200),
        stream={"batch": 400},
        drift={"every": 400},
        worth={"min_rows": 400},
    )
    votes = {each["vote"]: each for each in summary["unknown_votes"]}
    assert {"prediction", "errors of linear", "errors of served"} == set(votes)
    vote = votes["prediction"]
    assert 800 == vote["since"]
    assert "1000 labelled records" in votes["errors of linear"]["remedy"]
    assert "reference 80, current 800, needed 100 of the reference and 200 now" in vote["because"]
    assert "a champion made from more rows" in vote["remedy"]
    (brief,) = status.collect(tmp_path / "home")
    assert summary["unknown_votes"] == brief["unknown_votes"]


def test_a_target_that_jumps_is_followed_by_a_champion_of_the_new_world(
    nursery: Nursery, tmp_path: Path
) -> None:
    """Retrained as soon as 400 records of it are there, on them, whatever the cooldown says."""
    chance = random.Random(3)
    records = []
    for index in range(2_400):
        x = round(chance.gauss(0, 1), 4)
        value = (3 * x + chance.gauss(10, 0.5)) * (1_000 if index >= 1_500 else 1)
        records.append({"x": x, "y": round(value, 3)})
    summary = run(nursery, tmp_path, records, worth={"min_rows": 1_000})
    home = tmp_path / "home"
    crowned = ask(home, "SELECT version, train_from, train_to FROM models ORDER BY stored_at")
    assert 2 <= len(crowned)
    assert ("v000002000", 1_500, 2_000) == tuple(crowned[1].values())
    (error,) = ask(
        home, "SELECT avg(abs(served - label)) AS mae FROM predictions WHERE position >= 2200"
    )
    assert error["mae"] < 800
    assert "mae" == summary["judged_by"]


def test_a_concept_that_turns_round_is_seen_named_and_placed(
    nursery: Nursery, tmp_path: Path
) -> None:
    """The features stay what they were: only errors can tell, at once, and since where."""
    turned = {"up": "down", "down": "up"}
    records = steady_records(3_600)
    records[3_000:] = [{**each, "y": turned[each["y"]]} for each in records[3_000:]]
    run(nursery, tmp_path, records, drift={"every": 1_000})
    home = tmp_path / "home"
    alarms = ask(
        home,
        "SELECT position, because, facts->>'kinds' AS kinds, facts->>'nature' AS nature,"
        " (facts->>'change_estimate')::INT AS change FROM decisions"
        " WHERE question = 'drift' AND yes AND position > 3000 ORDER BY position",
    )
    first = alarms[0]
    assert 3_200 == first["position"]
    assert "errors" in first["kinds"].split(", ")
    assert "real" == first["nature"]
    assert 3_000 == pytest.approx(first["change"], abs=20)
    assert "the mean loss of batch went from" in first["because"]
    assert [] == list(Places(home).pipeline("small").reports.glob("*.html"))


def test_an_earlier_drift_check_is_compared_again_with_its_own_champion(
    nursery: Nursery, tmp_path: Path
) -> None:
    """What a page showed then it shows now; a position that was not reached is refused."""
    run(nursery, tmp_path, steady_records(2_000), drift={"every": 1_000})
    pipeline, home = tmp_path / "pipeline.toml", tmp_path / "home"
    then = drift_report.collect(pipeline, home, page=False, at=1_800)
    (known,) = ask(
        home, "SELECT max(version) AS version FROM champion_periods WHERE serves_from < 1800"
    )
    assert (1_800, known["version"]) == (then["position"], then["champion"])
    assert 1_000 >= then["reading"]["current_rows"] > 0
    assert () == tuple(then["reading"]["findings"])
    with pytest.raises(drift_report.NothingToCompare, match="at position 2000, and not at 9000"):
        drift_report.collect(pipeline, home, page=False, at=9_000)
    with pytest.raises(drift_report.NothingToCompare, match="no champion before position 200"):
        drift_report.collect(pipeline, home, page=False, at=200)
