"""Runs, workers and servers that die: nothing that was learned or asked for is lost, none hangs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it publishes no types
import pytest

from observability.history.store import History
from tests.flows.deployed.makers import SOON, asked, begin, learned, run, warm_until
from tests.flows.makers import make_pipeline, thermodrift
from tests.flows.prefect_server import PrefectServer, working
from tests.pace import PATIENCE_S, stretched, until

pytestmark = pytest.mark.slow

LIGHT, HEAVY = "thermodrift-light", "thermodrift-heavy"
EXIT_WITHIN_S = 8.0
"""As the product's bound, which is 30 s, and shorter."""
HELD = """
from pathlib import Path
from time import sleep
from sklearn.tree import DecisionTreeClassifier

class Held(DecisionTreeClassifier):
    "A model whose fit ends when somebody says so."
    def fit(self, X, y, sample_weight=None, check_input=True):
        here = Path(__file__).parent
        (here / "fitting").touch()
        while not (here / "go").exists():
            sleep(0.05)
        return super().fit(X, y, sample_weight, check_input)
"""


@pytest.fixture
def server(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    """The server of all files, without a worker: as it was again after a test that ended it."""
    yield prefect_server
    prefect_server.restore()


def held(folder: Path, name: str) -> Path:
    """A pipeline whose fit waits for a file called `go`."""
    # Python keeps modules by their name, so each test has one of its own.
    (folder / f"{name}.py").write_text(HELD)
    return make_pipeline(folder, 400, batch={"recipe": f"{name}:Held"})


def claim(path: Path, kind: str) -> dict[str, Any]:
    """What the claim of a run says."""
    file = path.parent / "home/pipelines/small/run_leases" / f"{kind}.json"
    until(file.exists, f"a claim of {kind}")
    told: dict[str, Any] = json.loads(file.read_text())
    return told


def amid_learning(server: PrefectServer, path: Path) -> tuple[str, psutil.Process]:
    """A run that has learned its first batch and goes on, and its process."""
    learning = begin(server, "learn", path, stop_for_drift_check=False)
    process = psutil.Process(claim(path, "learn")["pid"])
    until((path.parent / "home/pipelines/small/checkpoint").exists, "the first batch")
    return learning, process


def asked_sum(path: Path, sql: str) -> Any:
    """One value of the history."""
    return History(path.parent / "home").ask(sql).to_pylist()[0]["value"]


def test_a_killed_retrain_is_found_and_the_next_one_settles_it(
    server: PrefectServer, tmp_path: Path
) -> None:
    """Worker and fit die at one blow; a look says so to the server, and the request is settled."""
    path = held(tmp_path, "held_until_killed")
    asked(path)
    with working(server, [LIGHT], tmp_path / "home"):
        with working(server, [HEAVY], tmp_path / "home") as workers:
            killed = begin(server, "retrain", path)
            until((tmp_path / "fitting").exists, "the fit")
            workers[HEAVY].kill()
        assert "Running" == server.run(killed)["state_name"]
        assert "NotDue" == run(server, "watch", path)["state_name"]
        found = server.run(killed)
        assert "CRASHED" == found["state_type"]
        assert "is gone" in found["state"]["message"]
        until(lambda: server.events("thermodrift.retrain.failed", path), "word of the killed run")
        (wanted, *_) = until(
            lambda: server.events("thermodrift.retrain.requested", path), "the request, once more"
        )
        assert wanted["payload"]["request_id"].startswith("small-")
        (tmp_path / "go").touch()
        with working(server, [HEAVY], tmp_path / "home"):
            assert "Promoted" == run(server, "retrain", path)["state_name"]
    verified = thermodrift("--home", tmp_path / "home", "models", "verify", "small")
    assert 0 == verified.returncode, verified.stdout + verified.stderr
    started = "SELECT count(*) AS value FROM request_rows WHERE event = 'promoted'"
    assert 1 == asked_sum(path, started)


def test_learning_goes_on_while_a_retrain_fits(server: PrefectServer, tmp_path: Path) -> None:
    """A fit holds nothing that learning needs, and is judged by what the pipeline then is."""
    path = held(tmp_path, "held_beside_learning")
    asked(path, records=300)
    with working(server, [LIGHT, HEAVY], tmp_path / "home"):
        fitting = begin(server, "retrain", path)
        until((tmp_path / "fitting").exists, "the fit")
        learned = run(server, "learn", path, stop_for_drift_check=False)
        assert "Learned" == learned["state_name"], learned["state"]
        again = run(server, "retrain", path)
        assert "Busy" == again["state_name"], again["state"]
        assert "another run does this work" in again["state"]["message"]
        (tmp_path / "go").touch()
        assert server.ended(fitting)["state_name"] in ("Promoted", "Rejected")
    asked_at, settled_at = (
        asked_sum(path, f"SELECT min(position_{what}) AS value FROM requests")
        for what in ("requested", "closed")
    )
    assert (300, 400) == (asked_at, settled_at)


def test_a_waiting_run_survives_the_restart_of_server_and_worker(
    server: PrefectServer, tmp_path: Path
) -> None:
    """Its time passes while nothing is there; it comes back when they are."""
    path = warm_until(tmp_path, 600)
    asked(path)
    with working(server, [HEAVY], tmp_path / "home"):
        waiting = begin(server, "retrain", path, backoff=SOON)
        server.named(waiting, "AwaitingHeadroom")
    server.kill()
    server.start()
    learned(path)
    with working(server, [HEAVY], tmp_path / "home"):
        assert server.ended(waiting)["state_name"] in ("Promoted", "Rejected")


@pytest.mark.parametrize("trouble", ["dead", "slow"])
def test_a_server_in_trouble_loses_nothing_and_holds_nobody(
    server: PrefectServer, tmp_path: Path, trouble: str
) -> None:
    """Learning goes on to the end without it, and the process ends within the stated bound."""
    path = make_pipeline(tmp_path, 4_000, stream={"batch": 20})
    with working(server, [LIGHT], tmp_path / "home", THERMODRIFT_EXIT_WITHIN_S=str(EXIT_WITHIN_S)):
        learning, process = amid_learning(server, path)
        {"dead": server.kill, "slow": server.hang}[trouble]()
        file = tmp_path / "home/pipelines/small/run_leases/learn.json"
        until(lambda: not file.exists(), "the end of learning")
        done_s = time.monotonic()
        psutil.wait_procs([process], timeout=PATIENCE_S)
        assert not process.is_running()
        assert time.monotonic() - done_s <= EXIT_WITHIN_S + stretched(5.0)
        {"dead": server.start, "slow": server.go_on}[trouble]()
        again = run(server, "learn", path, stop_for_drift_check=False)
    assert "NothingNew" == again["state_name"]
    assert 4_000 == asked_sum(path, "SELECT sum(learned)::INT AS value FROM runs")
    assert server.run(learning)["state_type"] in ("CRASHED", "COMPLETED")


def test_a_server_that_refuses_ends_the_worker_and_loses_nothing(
    server: PrefectServer, tmp_path: Path
) -> None:
    """Refused, Prefect's worker ends, and its runs with it; the next one goes on from there."""
    path = make_pipeline(tmp_path, 4_000, stream={"batch": 20})
    with working(server, [LIGHT], tmp_path / "home"):
        learning, process = amid_learning(server, path)
        server.refuse()
        until(lambda: not process.is_running(), "the end of its process")
    server.welcome()
    with working(server, [LIGHT], tmp_path / "home"):
        names = [
            run(server, "learn", path, stop_for_drift_check=False)["state_name"] for _ in range(2)
        ]
    assert "NothingNew" == names[-1]
    assert [{"learned": 4_000}] == History(tmp_path / "home").ask(
        "SELECT count(DISTINCT position)::INT AS learned FROM predictions"
    ).to_pylist()
    assert server.run(learning)["state_type"] in ("CRASHED", "COMPLETED")
