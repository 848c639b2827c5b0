"""The flows on a real Prefect server with real workers: what starts what, and how runs end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml  # type: ignore[import-untyped]  # it publishes no types

from observability.history import History
from tests.flows.makers import ROOT, make_pipeline
from tests.flows.prefect_server import PrefectServer, redeployed, refused, until

SOON = {"least_s": 12.0, "first_s": 12.0, "most_s": 12.0}
"""How soon a run that was put off comes back in these tests."""
TRACE = (
    "elapsed_s,uuid,temperature_c,memory_temperature_c,margin_c,power_w,power_limit_w,"
    "utilization,throttle_reasons"
)


def begin(server: PrefectServer, flow: str, path: Path, **parameters: object) -> str:
    """Start a run of the shipped deployment of `flow`, for a pipeline of the test's own."""
    home = str(path.parent / "home")
    return server.begin(f"thermodrift-{flow}/elec2", pipeline=str(path), home=home, **parameters)


def run(server: PrefectServer, flow: str, path: Path, **parameters: object) -> dict[str, Any]:
    """The same, and wait for its end."""
    return server.ended(begin(server, flow, path, **parameters))


def asked(server: PrefectServer, path: Path, records: int = 400) -> None:
    """Bring a pipeline to where its first retrain is asked for."""
    learned = run(server, "learn", path, limit=records, to_look=False)
    assert "Learned" == learned["state_name"], learned["state"]
    looked = run(server, "watch", path)
    assert "Wanted" == looked["state_name"], looked["state"]


def warm_until(folder: Path, position: int) -> Path:
    """A pipeline whose recorded GPU is too warm up to a position of the stream."""
    margins = (5 if at < position else 40 for at in range(1200))
    lines = [TRACE, *(f"{at},GPU-1,60,,{each},100,300,0.5," for at, each in enumerate(margins))]
    (folder / "gpu.csv").write_text("\n".join(lines) + "\n")
    gate = {"source": "trace", "trace": "gpu.csv", "trace_s_per_record": 1.0}
    return make_pipeline(folder, 1_000, gate=gate)


def rows(path: Path, sql: str) -> list[dict[str, Any]]:
    """What the history of the test's home answers."""
    answer: list[dict[str, Any]] = History(path.parent / "home").ask(sql).to_pylist()
    return answer


def test_an_alarm_starts_a_retrain_by_itself(prefect_box: PrefectServer, tmp_path: Path) -> None:
    """Learning says that a look is due, the look asks for a retrain, and that ends by its name."""
    path = make_pipeline(tmp_path, 1_000, name="elec2")
    first = run(prefect_box, "learn", path)
    assert ("COMPLETED", "Learned") == (first["state_type"], first["state_name"])
    mine = {"pipeline": str(path), "home": str(tmp_path / "home")}

    def retrained() -> dict[str, Any] | None:
        runs = prefect_box.runs("thermodrift-retrain")
        ours = [each for each in runs if each["parameters"].get("pipeline") == str(path)]
        return next((each for each in ours if each["state_name"] in ("Promoted", "Kept")), None)

    done = until(retrained, "a retrain that was started by the event")
    assert mine == {key: done["parameters"][key] for key in mine}
    (request,) = rows(path, "SELECT request_id, because FROM requests ORDER BY asked_at LIMIT 1")
    assert request["request_id"] == done["parameters"]["request_id"]
    (decision,) = rows(
        path,
        f"SELECT because FROM decisions WHERE question = 'promotion' AND run_id = '{done['id']}'",
    )
    assert decision["because"] == done["state"]["message"]


def test_what_was_learned_is_not_learned_again(prefect_box: PrefectServer, tmp_path: Path) -> None:
    """The second run finds nothing new, and says so by its name."""
    path = make_pipeline(tmp_path, 300)
    names = [
        run(prefect_box, "learn", path, to_look=False)["state_name"] for _ in ("first", "second")
    ]
    assert ["Learned", "NothingNew"] == names
    assert [{"learned": 300}] == rows(path, "SELECT learned FROM runs")


def test_a_closed_gate_hands_the_run_back_and_it_comes_again(
    prefect_box: PrefectServer, tmp_path: Path
) -> None:
    """It waits by name, says why and until when, holds no slot, survives a redeploy, returns."""
    path = warm_until(tmp_path, 600)
    asked(prefect_box, path)
    waiting = begin(prefect_box, "retrain", path, patience=SOON)
    told = prefect_box.named(waiting, "AwaitingHeadroom")
    assert "SCHEDULED" == told["state_type"]
    because = told["state"]["message"]
    assert "GPU-1 is closed" in because
    assert "asks again at" in because
    assert "deadline" in because
    # The worker has one slot: a second run could not end while the first one held it.
    assert "Calm" == run(prefect_box, "retrain", path)["state_name"]
    redeployed(prefect_box, tmp_path / "home")
    run(prefect_box, "learn", path, to_look=False)
    done = prefect_box.ended(waiting)
    assert done["state_name"] in ("Promoted", "Kept"), done["state"]
    assert ["asked", "deferred"] == [
        each["event"] for each in rows(path, 'SELECT event FROM request_rows ORDER BY "at" LIMIT 2')
    ]


def test_a_storm_of_alarms_makes_one_retrain(prefect_box: PrefectServer, tmp_path: Path) -> None:
    """However many runs are started for a request, one settles it and the others are calm."""
    path = make_pipeline(tmp_path, 400)
    asked(prefect_box, path)
    storm = [begin(prefect_box, "retrain", path) for _ in range(6)]
    names = sorted(prefect_box.ended(each)["state_name"] for each in storm)
    assert ["Calm"] * 5 == names[:5]
    assert names[5] in ("Kept", "Promoted")
    assert [{"fits": 1}] == rows(
        path, "SELECT count(*) AS fits FROM request_rows WHERE event = 'started'"
    )


def test_a_budget_of_retrains_a_day_is_kept(prefect_box: PrefectServer, tmp_path: Path) -> None:
    """An alarm over the budget asks for nothing, and the decision says why."""
    path = make_pipeline(tmp_path, 1_000)
    asked(prefect_box, path)
    assert "Promoted" == run(prefect_box, "retrain", path)["state_name"]
    run(prefect_box, "learn", path, to_look=False)
    looked = run(prefect_box, "watch", path, worth={"max_retrains_per_day": 1})
    assert "Alarmed" == looked["state_name"], looked["state"]
    assert "1 retrains began within the last 24 hours" in looked["state"]["message"]
    assert [] == rows(path, "SELECT 1 FROM requests WHERE settled_at IS NULL")


def test_a_person_sees_the_drift_table_and_the_scores(
    prefect_box: PrefectServer, tmp_path: Path
) -> None:
    """Beside a look stands its table, with evidently's page; beside a retrain all the scores."""
    path = make_pipeline(tmp_path, 1_000, drift={"page": True})
    asked(prefect_box, path)
    settled = run(prefect_box, "retrain", path)
    assert "Promoted" == settled["state_name"]
    run(prefect_box, "learn", path, to_look=False)
    looked = run(prefect_box, "watch", path)
    assert "Alarmed" == looked["state_name"], looked["state"]
    shown = {
        each["key"]: each
        for each in prefect_box.ask("POST", "/artifacts/filter", {})
        if each["flow_run_id"] in (settled["id"], looked["id"])
    }
    drift = shown["drift-small"]
    assert {"load", "site"} <= {each["column"] for each in json.loads(drift["data"])}
    (page,) = (tmp_path / "home/pipelines/small/reports").glob("*.html")
    assert str(page) in drift["description"]
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
    shape = schema["definitions"]["WorthPolicy"]
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


def test_nothing_is_pickled_for_prefect(prefect_box: PrefectServer, tmp_path: Path) -> None:
    """Runs leave no result behind, neither at the server nor in the worker's folder."""
    path = make_pipeline(tmp_path, 300)
    done = run(prefect_box, "learn", path, to_look=False)
    assert done["state"]["data"] is None
    assert not list(prefect_box.folder.rglob("storage/*"))


def test_upkeep_tidies_the_home(prefect_box: PrefectServer, tmp_path: Path) -> None:
    """The nightly run merges logs, and says what it did."""
    path = make_pipeline(tmp_path, 400)
    run(prefect_box, "learn", path, to_look=False)
    home = str(tmp_path / "home")
    done = prefect_box.ended(prefect_box.begin("thermodrift-upkeep-daily/home", home=home))
    assert "Tidy" == done["state_name"], done["state"]
    assert "merged" in done["state"]["message"]
