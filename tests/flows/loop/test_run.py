"""The whole loop through the real command, on the real stream: learn, watch, wait, retrain, ask."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from models.online.online_model import DEFAULT_MEMBERS
from models.prediction_log import prediction_log
from observability.core.paths import Places
from tests import ROOT
from tests.flows.makers import ask
from tests.flows.nursery import Nursery

RECORDS = 9_600


def thermodrift(*words: str, home: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "thermodrift", "--home", str(home), *words],
        cwd=ROOT,
        check=check,
        capture_output=True,
        text=True,
    )


def make_example(folder: Path, records: int, extra: str = "") -> Path:
    """The elec2 example on its first records."""
    from pyarrow import parquet

    examples = ROOT / "examples"
    table = parquet.read_table(examples / "elec2.parquet").slice(0, records)
    parquet.write_table(table, folder / "elec2.parquet", row_group_size=2_000)
    (folder / "elec2-gpu.csv").write_bytes((examples / "elec2-gpu.csv").read_bytes())
    path = folder / "elec2.toml"
    path.write_text((examples / "elec2.toml").read_text() + extra)
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """The example, run once to its end: pipeline file, home, summary."""
    folder = tmp_path_factory.mktemp("example")
    pipeline = make_example(folder, RECORDS)
    run = thermodrift("run", str(pipeline), "--json", home=folder / "home")
    summary: dict[str, Any] = json.loads(run.stdout)
    return pipeline, folder / "home", summary


def test_the_summary_tells_what_happened(done: tuple[Path, Path, dict[str, Any]]) -> None:
    """Every record is accounted for, every member scored, and the counts are those of history."""
    _, home, summary = done
    assert summary["outcome"] == "finished"
    assert (summary["records"], summary["learned"], summary["rejected"]) == (RECORDS, RECORDS, 0)
    assert set(summary["scores"]) == {*("served", "online", "batch", "baseline"), *DEFAULT_MEMBERS}
    assert summary["history"] == str(home / "history.duckdb")
    (counted,) = ask(
        home,
        "SELECT count(*) FILTER (question = 'drift' AND yes) AS alarms,"
        " count(*) FILTER (question = 'promotion') AS retrains,"
        " count(*) FILTER (question = 'promotion' AND yes) AS promotions FROM decisions",
    )
    assert counted == {key: summary[key] for key in ("alarms", "retrains", "promotions")}


def test_the_blend_beats_its_members(done: tuple[Path, Path, dict[str, Any]]) -> None:
    """What is served is better than every member alone, on the records that all of them saw."""
    _, home, _ = done
    (right,) = ask(
        home,
        "SELECT avg((served = label)::INT) AS served, avg((online = label)::INT) AS online,"
        " avg((batch = label)::INT) AS batch, avg((baseline = label)::INT) AS baseline"
        " FROM predictions WHERE position >= 4500",
    )
    members = ask(
        home,
        "SELECT avg((answer = label)::INT) AS hits FROM (SELECT label,"
        " unnest(map_keys(members)) AS member, unnest(map_values(members)) AS answer"
        " FROM predictions WHERE position >= 4500) GROUP BY member",
    )
    assert len(DEFAULT_MEMBERS) == len(members)
    served = right.pop("served")
    assert served > max(*right.values(), *(each["hits"] for each in members))


def test_every_record_is_logged_once(done: tuple[Path, Path, dict[str, Any]]) -> None:
    """The prediction log has each position once, with no gap."""
    _, home, _ = done
    log = prediction_log.read(Places(home).pipeline("elec2").predictions, 0, RECORDS)
    assert log["position"].to_pylist() == list(range(RECORDS))


def test_a_hot_device_defers_the_retrain_and_a_cool_one_runs_it(
    done: tuple[Path, Path, dict[str, Any]],
) -> None:
    """The first request is deferred while the trace is hot, then promoted; both say why."""
    _, home, summary = done
    assert summary["deferrals"] > 0
    first = ask(home, "SELECT * FROM requests ORDER BY position_requested")[0]
    assert first["deferrals"] > 0
    assert first["state"] == "promoted"
    assert first["position_closed"] > first["position_requested"]
    noes = ask(home, "SELECT because FROM decisions WHERE question = 'gate' AND NOT yes")
    assert noes
    assert all("margin" in row["because"] or "cool" in row["because"] for row in noes)


def test_no_batch_prediction_before_the_first_champion(
    done: tuple[Path, Path, dict[str, Any]],
) -> None:
    """The batch member is NULL until it exists, and names its version afterwards."""
    _, home, _ = done
    (span,) = ask(
        home,
        "SELECT max(position) FILTER (batch IS NULL) AS last_without,"
        " min(position) FILTER (batch IS NOT NULL) AS first_with,"
        " bool_and((batch IS NULL) = (model_version IS NULL)) AS named FROM predictions",
    )
    assert span["first_with"] == span["last_without"] + 1
    assert span["named"]


def test_the_champion_is_the_last_promoted(done: tuple[Path, Path, dict[str, Any]]) -> None:
    """History and the store's pointer name the same version."""
    _, home, summary = done
    (row,) = ask(home, "SELECT version FROM models WHERE champion")
    listed = json.loads(thermodrift("models", "ls", "elec2", "--json", home=home).stdout)
    assert row["version"] == summary["champion"]
    assert summary["champion"] in json.dumps(listed)


@pytest.mark.slow
def test_a_finished_stream_says_so_and_learns_nothing_twice(
    done: tuple[Path, Path, dict[str, Any]],
) -> None:
    """Run again, there is nothing new; the counts stay."""
    pipeline, home, summary = done
    again = json.loads(thermodrift("run", str(pipeline), "--json", home=home).stdout)
    assert again["run"]["records"] == 0
    assert "nothing new" in again["because"]
    assert again["records"] == summary["records"]
    assert again["scores"] == summary["scores"]


@pytest.mark.slow
def test_drift_show_agrees_with_the_page(done: tuple[Path, Path, dict[str, Any]]) -> None:
    """Asked for, the comparison is made as the pipeline makes it, and the page is written."""
    pipeline, home, summary = done
    shown = json.loads(thermodrift("drift", "show", str(pipeline), "--json", home=home).stdout)
    assert shown["champion"] == summary["champion"]
    assert {each["role"] for each in shown["reading"]["columns"]} == {
        "feature",
        "target",
        "prediction",
    }
    assert Path(shown["page"]).stat().st_size > 100_000


@pytest.mark.slow
def test_drift_show_right_after_a_promotion_says_that_it_is_too_early(
    nursery: Nursery, tmp_path: Path
) -> None:
    """A champion that has predicted nothing yet is compared with nothing: unknown, not calm."""
    pipeline = make_example(tmp_path, 4_000)
    assert 0 == nursery.loop(pipeline, tmp_path / "home").returncode
    shown = json.loads(
        thermodrift("drift", "show", str(pipeline), "--json", home=tmp_path / "home").stdout
    )
    assert not shown["drift"]
    assert shown["reading"]["current_rows"] == 0
    assert "too few" in shown["because"]
    assert shown["page"] is None


@pytest.mark.slow
def test_a_person_may_roll_back_and_the_next_run_follows(nursery: Nursery, tmp_path: Path) -> None:
    """A rollback by hand is adopted by the next run, and recorded."""
    pipeline = make_example(tmp_path, 9_000, "\n[worth]\ncooldown_records = 1000\nmin_rows = 500\n")
    home = tmp_path / "home"
    first = json.loads(nursery.loop(pipeline, home).stdout)
    if first["promotions"] < 2:
        pytest.fail(f"the stream should have promoted twice: {first}")
    thermodrift("models", "rollback", "elec2", home=home)
    make_example(tmp_path, 10_000, "\n[worth]\nmin_rows = 100000\n")
    second = json.loads(nursery.loop(pipeline, home).stdout)
    assert second["run"]["records"] == 1_000
    assert second["champion"] != first["champion"]
    (row,) = ask(home, "SELECT because FROM decisions WHERE question = 'champion'")
    assert "by hand" in row["because"]


@pytest.mark.slow
def test_the_log_does_not_depend_on_how_a_run_was_cut(
    done: tuple[Path, Path, dict[str, Any]], nursery: Nursery, tmp_path: Path
) -> None:
    """Three runs with odd limits leave the same log as one."""
    pipeline, home, summary = done
    for limit in (1234, 2345, None):
        cut = json.loads(nursery.loop(pipeline, tmp_path / "cut", limit=limit).stdout)
    whole = prediction_log.read(Places(home).pipeline("elec2").predictions, 0, RECORDS)
    parts = prediction_log.read(Places(tmp_path / "cut").pipeline("elec2").predictions, 0, RECORDS)
    assert whole.equals(parts)
    counts = ("records", "learned", "rejected", "alarms", "retrains", "promotions", "deferrals")
    assert {key: cut[key] for key in counts} == {key: summary[key] for key in counts}


def test_two_runs_of_one_pipeline_never_go_at_once(
    done: tuple[Path, Path, dict[str, Any]],
) -> None:
    """The second one ends at once with 75 and says who holds what."""
    from flows.run.session import locked

    pipeline, home, _ = done
    with locked(Places(home).pipeline("elec2")):
        second = thermodrift("run", str(pipeline), home=home, check=False)
    assert second.returncode == 75
    assert "another process" in second.stderr
    assert "Traceback" not in second.stderr
