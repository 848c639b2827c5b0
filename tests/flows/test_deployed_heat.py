"""Heat on a server: live devices, of a stand-in library, put retrains off, and let them in.

What a run is handed is the file of a stand-in, which a test rewrites: the next attempt finds the
device as it is then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.flows.makers import ROOT, make_pipeline
from tests.flows.prefect_server import PrefectServer, until
from tests.flows.test_deployed import SOON, asked, rows
from tests.power.makers import make_gpu, make_twin

HOT_C, COOL_C = 1, 60


def pretend(folder: Path, tlimit_c: int) -> Path:
    """From now on this machine has one GPU of that T.Limit."""
    path = folder / "stand-in.json"
    aside = path.with_suffix(".aside")
    aside.write_text(make_twin(make_gpu(tlimit_c=tlimit_c)).model_dump_json())
    aside.replace(path)
    return path


def begin(server: PrefectServer, path: Path, stand_in: Path, **knobs: object) -> str:
    """Start a retrain whose machine has the devices of a stand-in."""
    environment = {"THERMODRIFT_STAND_IN": str(stand_in), "DO_NOT_TRACK": "1"}
    return server.begin(
        "thermodrift-retrain/elec2",
        {"env": environment, "working_dir": str(ROOT)},
        pipeline=str(path),
        home=str(path.parent / "home"),
        **knobs,
    )


def ready(server: PrefectServer, folder: Path, **gate: object) -> Path:
    """A pipeline that asks for its first retrain, on live devices."""
    path = make_pipeline(folder, 400, gate={"source": "nvml", **gate})
    asked(server, path)
    return path


def decided(path: Path, question: str) -> list[dict[str, Any]]:
    """The decisions of a question, in order."""
    return rows(
        path,
        f"SELECT yes, because, facts FROM decisions WHERE question = '{question}' "
        "ORDER BY decided_at",
    )


def test_a_hot_device_puts_a_retrain_off_and_a_cool_one_takes_it(
    prefect_box: PrefectServer, tmp_path: Path
) -> None:
    """It waits by name with device, margin, time and deadline, leases nothing, and returns."""
    path = ready(prefect_box, tmp_path)
    hot = pretend(tmp_path, HOT_C)
    waiting = begin(prefect_box, path, hot, patience=SOON)
    told = prefect_box.named(waiting, "AwaitingHeadroom")["state"]["message"]
    for word in ("GPU-a is closed: its margin is 3.0 °C", "asks again at", "deadline 20"):
        assert word in told
    assert [] == list((tmp_path / "home/devices").glob("*.holder"))
    pretend(tmp_path, COOL_C)
    done = prefect_box.ended(waiting)
    assert done["state_name"] in ("Promoted", "Kept"), done["state"]
    admissions = decided(path, "admission")
    assert [False, True] == [admissions[0]["yes"], admissions[-1]["yes"]]
    (cost,) = rows(path, "SELECT uuid, energy_source FROM costs")
    assert "GPU-a" == cost["uuid"]
    shown = [each["key"] for each in prefect_box.ask("POST", "/artifacts/filter", {})]
    assert "margin-small" in shown
    events = prefect_box.events("thermodrift.retrain.deferred")
    assert told in {each["payload"]["because"] for each in events}


def test_at_its_deadline_a_waiting_retrain_comes_back_and_is_skipped(
    prefect_box: PrefectServer, tmp_path: Path
) -> None:
    """Not a minute later, as its patience would have it; it ends by name, with an alert."""
    path = ready(prefect_box, tmp_path, deadline_s=8.0)
    hot = pretend(tmp_path, HOT_C)
    waiting = begin(prefect_box, path, hot, patience={"least_s": 12.0})
    done = prefect_box.ended(waiting)
    assert "Skipped" == done["state_name"], done["state"]
    assert "it is skipped (at_deadline = 'skip')" in done["state"]["message"]
    until(lambda: prefect_box.events("thermodrift.retrain.overdue"), "the alert")
    assert [{"state": "skipped"}] == rows(path, "SELECT state FROM requests")
