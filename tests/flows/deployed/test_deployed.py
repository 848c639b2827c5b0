"""The flows on a real Prefect server with real workers: what starts what, and how runs end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml  # type: ignore[import-untyped]  # it publishes no types

from observability.core import file_lock
from tests import ROOT
from tests.flows.deployed.makers import (
    COOL_C,
    HOT_C,
    SOON,
    asked,
    begin,
    learned,
    looked,
    pretend,
    rows,
    run,
    warm_until,
)
from tests.flows.makers import make_pipeline
from tests.flows.prefect_server import PrefectServer, redeployed, refused
from tests.pace import until

pytestmark = pytest.mark.slow

Runs = tuple[Path, dict[str, Any], dict[str, Any]]
"""A pipeline, and the runs of two flows of it."""


@pytest.fixture(scope="module")
def learned_twice(prefect_box: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A pipeline that was learned to its end, and that once more."""
    path = make_pipeline(tmp_path_factory.mktemp("twice"), 300)
    first, second = (run(prefect_box, "learn", path, stop_for_drift_check=False) for _ in range(2))
    return path, first, second


@pytest.fixture(scope="module")
def retrained(
    prefect_box: PrefectServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A pipeline that was retrained for the first time, for copies of it, and that run."""
    path = make_pipeline(tmp_path_factory.mktemp("retrained"), 1_000)
    asked(path)
    return path, run(prefect_box, "retrain", path)


def copied(path: Path, folder: Path, **tables: Any) -> Path:
    """A copy of a pipeline and its home, with other knobs, that has learned all there is."""
    shutil.copytree(path.parent, folder, dirs_exist_ok=True)
    copy = make_pipeline(folder, 1_000, **tables)
    learned(copy)
    return copy


def test_an_alarm_starts_a_retrain_by_itself(prefect_box: PrefectServer, tmp_path: Path) -> None:
    """Learning says that a look is due, the look asks for a retrain, and that ends by its name."""
    path = make_pipeline(tmp_path, 1_000, name="elec2")
    first = run(prefect_box, "learn", path)
    assert ("COMPLETED", "Learned") == (first["state_type"], first["state_name"])
    mine = {"pipeline": str(path), "home": str(tmp_path / "home")}

    def retrained() -> dict[str, Any] | None:
        runs = prefect_box.runs("thermodrift-retrain")
        ours = [each for each in runs if each["parameters"].get("pipeline") == str(path)]
        return next((each for each in ours if each["state_name"] in ("Promoted", "Rejected")), None)

    done = until(retrained, "a retrain that was started by the event")
    assert mine == {key: done["parameters"][key] for key in mine}
    (request,) = rows(
        path, "SELECT request_id, because FROM requests ORDER BY requested_at LIMIT 1"
    )
    assert request["request_id"] == done["parameters"]["request_id"]
    (decision,) = rows(
        path,
        f"SELECT because FROM decisions WHERE question = 'promotion' AND run_id = '{done['id']}'",
    )
    assert decision["because"] == done["state"]["message"]


def test_what_was_learned_is_not_learned_again(learned_twice: Runs) -> None:
    """The second run finds nothing new, and says so by its name."""
    path, *runs = learned_twice
    assert ["Learned", "NothingNew"] == [each["state_name"] for each in runs]
    assert [{"learned": 300}] == rows(path, "SELECT learned FROM runs")


def test_a_closed_gate_hands_the_run_back_and_it_comes_again(
    prefect_box: PrefectServer, tmp_path: Path
) -> None:
    """It waits by name, says why and until when, holds no slot, survives a redeploy, returns."""
    path = warm_until(tmp_path, 600)
    asked(path)
    waiting = begin(prefect_box, "retrain", path, backoff=SOON)
    told = prefect_box.named(waiting, "AwaitingHeadroom")
    assert "SCHEDULED" == told["state_type"]
    because = told["state"]["message"]
    assert "GPU-1 is closed" in because
    assert "asks again at" in because
    assert "deadline" in because
    # The worker has one slot: a second run could not end while the first one held it.
    assert "Busy" == run(prefect_box, "retrain", path)["state_name"]
    redeployed(prefect_box, tmp_path / "home")
    learned(path)
    done = prefect_box.ended(waiting)
    assert done["state_name"] in ("Promoted", "Rejected"), done["state"]
    assert ["requested", "deferred"] == [
        each["event"] for each in rows(path, 'SELECT event FROM request_rows ORDER BY "at" LIMIT 2')
    ]


def test_a_storm_of_alarms_makes_one_retrain(prefect_box: PrefectServer, tmp_path: Path) -> None:
    """However many runs are started for a request, one settles it and the others end at once."""
    path = make_pipeline(tmp_path, 400)
    asked(path)
    storm = [begin(prefect_box, "retrain", path) for _ in range(4)]
    names = [prefect_box.ended(each)["state_name"] for each in storm]
    # Those that come while it fits are Busy; those that come after it find no request.
    assert 3 == sum(each in ("Busy", "NoRequest") for each in names), names
    assert 1 == sum(each in ("Promoted", "Rejected") for each in names), names
    assert [{"fits": 1}] == rows(
        path, "SELECT count(*) AS fits FROM request_rows WHERE event = 'started'"
    )


def test_a_budget_of_retrains_a_day_is_kept(
    retrained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """An alarm over the budget asks for nothing, and the decision says why."""
    path, settled = retrained
    assert "Promoted" == settled["state_name"]
    copy = copied(path, tmp_path, worth={"max_retrains_per_day": 1})
    look = looked(copy)
    assert "DriftDetected" == look.name, look.because
    assert "1 retrains began within the last 24 hours" in look.because
    assert [] == rows(copy, "SELECT 1 FROM requests WHERE closed_at IS NULL")


def test_a_person_sees_the_drift_table_and_the_scores(
    prefect_box: PrefectServer, retrained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Beside a look is its table, and how its page is drawn; beside a retrain all the scores."""
    path, settled = retrained
    looking = run(prefect_box, "watch", copied(path, tmp_path))
    assert "DriftDetected" == looking["state_name"], looking["state"]
    shown = {
        each["key"]: each
        for each in prefect_box.ask("POST", "/artifacts/filter", {})
        if each["flow_run_id"] in (settled["id"], looking["id"])
    }
    drift = shown["drift-small"]
    assert {"load", "site"} <= {each["column"] for each in json.loads(drift["data"])}
    assert "thermodrift drift show" in drift["description"]
    assert [] == list((tmp_path / "home/pipelines/small/reports").glob("*.html"))
    scores = {each["who"] for each in json.loads(shown["scores-small"]["data"])}
    assert {"holdout:challenger"} <= scores


def test_a_misspelt_knob_is_refused_when_it_is_deployed(
    prefect_box: PrefectServer, tmp_path: Path
) -> None:
    """The deployment of a knob that there is not fails, and says which; so does a run with one."""
    file = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    looking = next(each for each in file["deployments"] if each["entrypoint"].endswith("watch"))
    looking["name"] = "misspelt"
    looking["parameters"]["worth"] = {"cooldown": 5000}
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump({**file, "deployments": [looking]}))
    done = prefect_box.prefect("deploy", "--all", home=tmp_path / "home", cwd=tmp_path)
    assert done.returncode != 0
    assert "cooldown" in done.stdout + done.stderr
    with pytest.raises(HTTPError) as error:
        begin(prefect_box, "watch", tmp_path / "pipeline.toml", worth={"cooldown": 5000})
    assert error.value.code in (409, 422)


def test_knobs_are_shown_as_a_form(prefect_box: PrefectServer) -> None:
    """The deployment's schema has every knob with its meaning."""
    schema = prefect_box.deployment("thermodrift-watch/elec2")["parameter_openapi_schema"]
    shape = schema["definitions"]["RetrainConfig"]
    assert "before the next one" in shape["properties"]["cooldown_records"]["description"]
    assert shape["additionalProperties"] is False


def test_the_server_asks_who_is_there(prefect_box: PrefectServer) -> None:
    """The right password enters; a wrong one and none do not."""
    answers = [refused(prefect_box, word) for word in (prefect_box.password, "tests:guess", "")]
    assert [False, True, True] == answers


def test_nobody_reports_home(prefect_box: PrefectServer, tmp_path: Path) -> None:
    """The server's analytics are off, and workers and runs are told not to be tracked."""
    told = prefect_box.ask("GET", "/admin/settings")["server"]
    assert told["analytics_enabled"] is False
    assert "1" == prefect_box.environment(tmp_path)["DO_NOT_TRACK"]
    for flow in ("learn", "watch", "retrain"):
        known = prefect_box.deployment(f"thermodrift-{flow}/elec2")
        assert "1" == known["job_variables"]["env"]["DO_NOT_TRACK"]


def test_nothing_is_pickled_for_prefect(prefect_box: PrefectServer, learned_twice: Runs) -> None:
    """Runs leave no result behind, neither at the server nor in the worker's folder."""
    _, *runs = learned_twice
    assert [None, None] == [each["state"]["data"] for each in runs]
    assert not list(prefect_box.folder.rglob("storage/*"))


def test_upkeep_tidies_the_home(prefect_box: PrefectServer, tmp_path: Path) -> None:
    """The nightly run merges logs, and says what it did."""
    learned(make_pipeline(tmp_path, 400))
    home = str(tmp_path / "home")
    done = prefect_box.ended(prefect_box.begin("thermodrift-upkeep-daily/home", home=home))
    assert "Completed" == done["state_name"], done["state"]
    assert "merged" in done["state"]["message"]


def test_an_ending_that_the_server_did_not_hear_is_told_by_the_next_run(
    prefect_box: PrefectServer, tmp_path: Path
) -> None:
    """Killed after its work and before its word, a run shows as what it was: done, by its name."""
    path, home = make_pipeline(tmp_path, 300), tmp_path / "home"
    killed = {"THERMODRIFT_FAULTS": "run.after_state_saved=kill", "DO_NOT_TRACK": "1"}
    done = prefect_box.begin(
        "thermodrift-learn/elec2",
        {"env": killed, "working_dir": str(ROOT)},
        pipeline=str(path),
        home=str(home),
        stop_for_drift_check=False,
    )
    assert "CRASHED" == prefect_box.ended(done)["state_type"]
    assert "NothingNew" == run(prefect_box, "learn", path, stop_for_drift_check=False)["state_name"]
    mended = prefect_box.run(done)
    assert ("COMPLETED", "Learned") == (mended["state_type"], mended["state_name"])
    assert mended["state"]["message"].startswith("learned 300 records up to position 300")
    assert not list((home / "pending_states").iterdir())
    # The server shows events in order, some time after it took them.
    prefect_box.emit("tests.after", "small")
    until(lambda: prefect_box.events("tests.after"), "an event after all others")
    assert [] == prefect_box.events("thermodrift.learn.failed", path)


def test_a_hot_device_puts_a_retrain_off_and_a_cool_one_takes_it(
    prefect_box: PrefectServer, tmp_path: Path
) -> None:
    """It waits by name with device, margin, time and deadline, leases nothing, and returns."""
    path = make_pipeline(tmp_path, 400, gate={"source": "nvml"})
    asked(path)
    waiting = begin(prefect_box, "retrain", path, pretend(tmp_path, HOT_C), backoff=SOON)
    told = prefect_box.named(waiting, "AwaitingHeadroom")["state"]["message"]
    for word in ("GPU-a is closed: its margin is 3.0 °C", "asks again at", "deadline 20"):
        assert word in told
    locks = (tmp_path / "home/devices").glob("*.lock")
    assert not any(file_lock.is_held(path) for path in locks)
    pretend(tmp_path, COOL_C)
    done = prefect_box.ended(waiting)
    assert done["state_name"] in ("Promoted", "Rejected"), done["state"]
    admissions = rows(
        path, "SELECT yes FROM decisions WHERE question = 'admission' ORDER BY decided_at"
    )
    assert [False, True] == [admissions[0]["yes"], admissions[-1]["yes"]]
    (cost,) = rows(path, "SELECT uuid, energy_source FROM costs")
    assert "GPU-a" == cost["uuid"]
    shown = [each["key"] for each in prefect_box.ask("POST", "/artifacts/filter", {})]
    assert "margin-small" in shown
    until(
        lambda: any(
            told == each["payload"]["because"]
            for each in prefect_box.events("thermodrift.retrain.deferred")
        ),
        "the event of the deferral",
    )


def test_at_its_deadline_a_waiting_retrain_comes_back_and_is_skipped(
    prefect_box: PrefectServer, tmp_path: Path
) -> None:
    """Not a minute later, as its backoff would have it; it ends by name, with an alert."""
    path = make_pipeline(tmp_path, 400, gate={"source": "nvml", "deadline_s": 8.0})
    asked(path)
    hot = pretend(tmp_path, HOT_C)
    done = prefect_box.ended(begin(prefect_box, "retrain", path, hot, backoff={"least_s": 12.0}))
    assert "Skipped" == done["state_name"], done["state"]
    assert "it is skipped (at_deadline = 'skip')" in done["state"]["message"]
    until(lambda: prefect_box.events("thermodrift.retrain.overdue", path), "the alert")
    assert [{"state": "skipped"}] == rows(path, "SELECT state FROM requests")
