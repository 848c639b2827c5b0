"""`thermodrift up`: one box with everything, on screen, and gone without a trace."""

from __future__ import annotations

import base64
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import httpx
import psutil  # type: ignore[import-untyped]  # it publishes no types
import pytest

from flows.config import pipeline as files
from flows.stack import local_stack as boxes
from tests.flows.makers import answer, make_pipeline, thermodrift
from tests.flows.stack.makers import Up, word
from tests.pace import PATIENCE_S, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, dict[str, Any]]]:
    """A box with a server of its own, and what it said of itself."""
    folder = tmp_path_factory.mktemp("box")
    soon = {"THERMODRIFT_SCHEDULE_S": "30"}
    home = folder / "home"
    home.mkdir()
    (home / "thermodrift.toml").write_text("[serve]\nport = 0\n", encoding="utf-8")
    up = Up(home, make_pipeline(folder, 300), "--port", 0, "--serve", **soon)
    try:
        yield up, up.document()
    finally:
        up.process.kill()
        up.process.communicate()


def ready(told: dict[str, Any]) -> bool:
    """Whether both pools have a worker that answers."""
    basic = base64.b64encode(word(told).encode()).decode()
    request = Request(f"{told['api']}/work_pools/filter", data=b"{}", method="POST")
    request.add_header("Authorization", f"Basic {basic}")
    request.add_header("Content-Type", "application/json")
    with urlopen(request, timeout=PATIENCE_S) as answer:
        pools = json.loads(answer.read())
    return ["READY", "READY"] == [pool["status"] for pool in pools]


def test_one_stack_has_everything(box: tuple[Up, dict[str, Any]]) -> None:
    """Server, pools, deployments and workers are there, and each is told, also by `status`."""
    up, told = box
    assert {f"thermodrift-{flow}/small" for flow in ("learn", "watch", "retrain")} < set(
        told["deployments"]
    )
    assert 0o600 == Path(told["auth"]).stat().st_mode & 0o777
    with urlopen(told["server"], timeout=PATIENCE_S) as page:
        assert b"<html" in page.read().lower()
    until(lambda: ready(told), "two workers that are ready")
    assert told["server"] in thermodrift("--home", up.home, "status").stdout


def test_a_home_is_up_once(box: tuple[Up, dict[str, Any]], tmp_path: Path) -> None:
    """A second one is told so, and may try again later."""
    up, _ = box
    again = thermodrift("--home", up.home, "up", make_pipeline(tmp_path, 10), "--port", 0)
    assert 75 == again.returncode
    assert "this home is up already" in again.stderr


def test_a_stack_that_is_killed_leaves_no_worker(
    box: tuple[Up, dict[str, Any]], tmp_path: Path
) -> None:
    """It uses the server that is configured, which stays; its own processes end with it."""
    _, first = box
    path, home = make_pipeline(tmp_path, 300, name="killed"), tmp_path / "home"
    up = Up(home, path, PREFECT_API_URL=first["api"], PREFECT_API_AUTH_STRING=word(first))
    told = up.document()
    assert (first["api"], None) == (told["api"], told["auth"])
    family = up.family()
    up.process.send_signal(signal.SIGKILL)
    up.process.communicate()
    gone, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert (len(family), []) == (len(gone), alive)
    assert ready(first)


def test_a_configured_server_that_refuses_says_what_to_do(
    box: tuple[Up, dict[str, Any]], tmp_path: Path
) -> None:
    """A wrong word is told as such, with the two names to look at."""
    _, first = box
    path = make_pipeline(tmp_path, 10)
    done = thermodrift(
        "--home",
        tmp_path / "home",
        "up",
        path,
        PREFECT_API_URL=first["api"],
        PREFECT_API_AUTH_STRING="tests:guess",
    )
    assert 1 == done.returncode
    assert "401" in done.stderr
    assert "PREFECT_API_AUTH_STRING" in done.stderr


def test_a_port_that_is_taken_is_told(box: tuple[Up, dict[str, Any]], tmp_path: Path) -> None:
    """Try again later, or name another."""
    port = str(urlsplit(box[1]["api"]).port)
    path = make_pipeline(tmp_path, 10)
    done = thermodrift("--home", tmp_path / "home", "up", path, "--port", port)
    assert 75 == done.returncode
    assert f"port {port} is taken" in done.stderr


def test_the_clock_starts_runs_by_itself(box: tuple[Up, dict[str, Any]]) -> None:
    """Neither an event nor a hand: the server's scheduler made the run, and a worker did it."""
    up, _ = box
    there = boxes.where(up.home)
    assert there is not None
    server, pipelines = there
    assert ["small"] == pipelines
    flow = {"flows": {"name": {"any_": ["thermodrift-learn"]}}, "sort": "EXPECTED_START_TIME_ASC"}

    def done() -> dict[str, Any] | None:
        try:
            runs = server.ask("POST", "/flow_runs/filter", flow)
        except httpx.HTTPError:
            # A busy machine's server may take longer than a request may.
            return None
        # A run that an event started was made by an automation.
        clocked = [each for each in runs if each["created_by"]["type"] == "SCHEDULE"]
        return next((each for each in clocked if each["state_type"] == "COMPLETED"), None)

    run = until(done, "a run that the clock started", 2 * PATIENCE_S)
    assert run["state_name"] in ("Learned", "NothingNew", "Busy")

    # What asks the server gives up after a while, which on a busy machine may be too soon.
    def examined() -> dict[str, Any] | None:
        findings = answer(thermodrift("--home", up.home, "doctor", "--json"))
        (clock,) = [each for each in findings if each["what"] == "clock"]
        return None if clock["state"] == "note" else clock

    clock = until(examined, "what the doctor says of the clock")
    assert "well" == clock["state"], clock
    assert "the server schedules: " in clock["told"]
    # `up` asks every quarter of a minute: its newest answer may be older than the first run.
    until(lambda: "the server schedules" in up.told.read_text(), "what up says of the clock")

    def known() -> dict[str, Any] | None:
        status = answer(thermodrift("--home", up.home, "status", "--json"))
        (mine,) = [each for each in status if each["pipeline"] == "small"]
        return None if mine["clock"]["yes"] is None else mine["clock"]

    assert until(known, "what status says of the clock")["yes"] is True


def test_the_service_answers_and_begins_again_when_it_is_killed(
    box: tuple[Up, dict[str, Any]],
) -> None:
    """On the same port; the line of the service says so."""
    up, told = box
    health = f"{told['service']}/healthz"
    assert {"live": True} == httpx.get(health, timeout=PATIENCE_S).json()
    (service,) = [
        each
        for each in up.family()
        if "serve" in each.cmdline() and "flows.stack.tied_process" not in each.cmdline()
    ]
    service.kill()
    service.wait(PATIENCE_S)

    def answers() -> bool:
        try:
            return httpx.get(health).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    until(answers, "the service again")
    assert "service: ended  exit code 137" in up.told.read_text()
    assert "service: running  started again" in up.told.read_text()


def test_a_port_of_the_service_that_is_taken_is_told(tmp_path: Path) -> None:
    """Before a service is started that could not listen."""
    home, pipeline = tmp_path / "home", make_pipeline(tmp_path, 10)
    home.mkdir()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        address = boxes.ServiceAddress("127.0.0.1", port)
        started: list[boxes.ManagedService] = []
        with pytest.raises(boxes.AlreadyUp, match=rf"127.0.0.1 port {port}.*serve.port"):
            boxes._start_service([files.read(pipeline)], home, address, started, print)
    assert [] == started


def test_ctrl_c_ends_a_stack_and_leaves_nothing(box: tuple[Up, dict[str, Any]]) -> None:
    """All its processes are gone when it is; it has told of each part what became of it."""
    up, _ = box
    family = up.family()
    up.process.send_signal(signal.SIGINT)
    up.process.communicate(timeout=PATIENCE_S)
    assert 0 == up.process.returncode, up.told.read_text()
    assert ([], []) == (
        [each for each in family if each.is_running()],
        list(up.home.glob("*/up.json")),
    )
    lines = up.told.read_text()
    assert "server: running" in lines
    assert "worker thermodrift-heavy: stopped" in lines
    assert "service: stopped" in lines
