"""A server whose scheduler does not schedule: told by doctor, status, up, with where to look."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.stack import scheduler_watch
from flows.stack.prefect_client import Server, ServerUnavailable
from observability.core.decision import Decision
from tests.flows.makers import answer, make_pipeline, thermodrift
from tests.flows.prefect_server import PrefectServer, free_port, served
from tests.flows.stack.makers import Up
from tests.pace import until

BULK = "sqlalchemy.exc.InvalidRequestError: Can't evaluate bulk DML statement"
LOG = f"""
06:42:27.000 | INFO    | docket.worker - schedule_deployments()
06:42:28.030 | ERROR   | docket.dependencies - schedule_recent_deployments()
Traceback (most recent call last):
  File "scheduler.py", line 348, in schedule_recent_deployments
{BULK}
06:42:41.554 | ERROR   | prefect.server.api.workers - Worker channel setup failed
sqlite3.OperationalError: database is locked
06:42:45.000 | ERROR   | prefect.server.services.scheduler - Error scheduling deployment 'a'.
"""


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server that answers everything and schedules nothing, with a deployment due each second."""
    folder = tmp_path_factory.mktemp("dead")
    with served(folder, PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED="false") as server:
        flow = server.ask("POST", "/flows/", {"name": "thermodrift-learn"})
        schedules = [{"schedule": {"interval": 1.0}, "active": True}]
        deployment = {"name": "elec2", "flow_id": flow["id"], "schedules": schedules}
        server.ask("POST", "/deployments/", deployment)
        until(lambda: not scheduler_watch.check(there(server)).yes, "a no of the clock")
        yield server


def there(server: PrefectServer, log: Path | None = None) -> Server:
    """The server, as the product asks it."""
    return Server(server.url, server.password, log)


def told(home: Path, *words: str, url: str, password: str = "") -> subprocess.CompletedProcess[str]:
    """What a command says where the environment names a server."""
    return thermodrift(
        "--home", home, *words, PREFECT_API_URL=url, PREFECT_API_AUTH_STRING=password
    )


@pytest.mark.slow
def test_the_doctor_finds_a_dead_clock_broken(dead: PrefectServer, tmp_path: Path) -> None:
    """Exit code 1, with the deployment, its silence, where to look and what to do."""
    done = told(tmp_path, "doctor", url=dead.url, password=dead.password)
    assert 1 == done.returncode, done.stdout + done.stderr
    (line,) = [each for each in done.stdout.splitlines() if each.startswith("✗ clock")]
    assert "no run of thermodrift-learn/elec2 (every 1 s) became due for" in line
    assert f"look in the log of {dead.url.removesuffix('/api')}" in line
    assert "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED" in line


@pytest.mark.slow
def test_status_tells_a_dead_clock_beside_each_pipeline(
    dead: PrefectServer, tmp_path: Path
) -> None:
    """For people in a line, and for programs in the document of each pipeline."""
    (tmp_path / "pipelines" / "elec2").mkdir(parents=True)
    shown = told(tmp_path, "status", url=dead.url, password=dead.password)
    assert 0 == shown.returncode, shown.stderr
    assert "clock: the server does not schedule" in shown.stdout
    (document,) = answer(told(tmp_path, "status", "--json", url=dead.url, password=dead.password))
    assert ("elec2", False) == (document["pipeline"], document["clock"]["yes"])
    assert 1 == document["clock"]["facts"]["silent"]


@pytest.mark.slow
def test_up_does_not_call_a_server_running_that_does_not_schedule(
    dead: PrefectServer, tmp_path: Path
) -> None:
    """Its line says what is wrong, and what to do; the parts that do run say so still."""
    up = Up(
        tmp_path / "home",
        make_pipeline(tmp_path, 50),
        PREFECT_API_URL=dead.url,
        PREFECT_API_AUTH_STRING=dead.password,
    )
    try:
        up.document()

        def server() -> str | None:
            lines = [each for each in up.told.read_text().splitlines() if "server: " in each]
            return lines[-1] if "not scheduling" in lines[-1] else None

        line = until(server, "what up says of the server")
    finally:
        up.process.terminate()
        up.process.communicate()
    assert "server: not scheduling  the server does not schedule: no run of" in line
    assert "then restart" in line
    assert "worker thermodrift-light: running" in up.told.read_text()


@pytest.mark.slow
def test_the_log_of_a_server_of_ours_is_read_for_errors_of_its_scheduler(
    dead: PrefectServer, tmp_path: Path
) -> None:
    """Others are there on a good day, too; of a traceback the cause is told, and not the path."""
    log = tmp_path / "server.log"
    log.write_text(LOG)
    seen = there(dead, log).seen(datetime.now(UTC))
    assert 2 == seen.log_errors
    assert "06:42:45.000 prefect.server.services.scheduler - Error scheduling deployment 'a'." == (
        seen.last_error
    )
    log.write_text(LOG[: LOG.index("06:42:45")])
    seen = there(dead, log).seen(datetime.now(UTC))
    assert (1, f"06:42:28.030 {BULK}") == (seen.log_errors, seen.last_error)
    log.unlink()
    assert there(dead, log).seen(datetime.now(UTC)).log_errors is None


@pytest.mark.slow
@pytest.mark.parametrize("password", ["", "tests:guess"])
def test_a_server_that_refuses_is_unheard(dead: PrefectServer, password: str) -> None:
    """With the name of what is to be set: to be refused proves nothing about its clock."""
    server = Server(dead.url, password)
    with pytest.raises(ServerUnavailable, match=r"401 .*PREFECT_API_AUTH_STRING"):
        scheduler_watch.check(server)


def test_a_server_that_is_gone_is_a_note_and_keeps_status_from_nothing(tmp_path: Path) -> None:
    """The answer is unknown, and neither yes nor no."""
    gone = f"http://127.0.0.1:{free_port()}/api"
    (tmp_path / "pipelines" / "elec2").mkdir(parents=True)
    (document,) = answer(told(tmp_path, "status", "--json", url=gone))
    assert document["clock"]["yes"] is None
    assert gone in document["clock"]["because"]
    findings = answer(told(tmp_path, "doctor", "--json", url=gone))
    (found,) = [each for each in findings if each["what"] == "clock"]
    assert "note" == found["state"]


def decided(yes: bool = True, **facts: Any) -> Decision:
    """An answer of the judge."""
    known = {"waiting": 0, "log_errors": 0, **facts}
    return Decision(question="clock", yes=yes, because="for a reason", facts=known)


@pytest.mark.parametrize("log", [None, Path("server.log")])
def test_where_to_look_is_told_where_all_is_not_well(log: Path | None) -> None:
    """Its log where that is ours, else its page; and a remedy where it does not schedule."""
    server = Server("http://127.0.0.1:1/api", "", log)
    look = "its log: server.log" if log else "look in the log of http://127.0.0.1:1"
    assert "for a reason" == scheduler_watch.describe(decided(), server)
    assert f"for a reason; {look}" == scheduler_watch.describe(decided(log_errors=2), server)
    dead = scheduler_watch.describe(decided(yes=False), server)
    assert dead.startswith(f"for a reason; {look}. What is scheduled does not start")


def test_news_is_an_answer_of_another_kind() -> None:
    """Not each count that moved; and all is news again after the server was started anew."""
    watch = scheduler_watch.Watch()
    assert watch.news() is None
    for coming in (1, 2):
        watch.put(decided(coming=coming))
    assert decided(coming=1) == watch.news()
    assert watch.news() is None
    for changed in (decided(yes=False), decided(waiting=1), decided(log_errors=1)):
        watch.put(changed)
        assert changed == watch.news()
    watch.put(decided(log_errors=2))
    assert watch.news() is None
    watch.forget()
    watch.put(decided(log_errors=2))
    assert decided(log_errors=2) == watch.news()
