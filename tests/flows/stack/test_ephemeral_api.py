"""Prefect's API of our own: it answers on this machine alone, and never outlives us."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import psutil  # type: ignore[import-untyped]  # it publishes no types
import pytest

from flows.stack.ephemeral_api import PrefectUnavailable, prefect_api
from observability.core.paths import Places
from tests import ROOT
from tests.flows.makers import environment_of, make_pipeline
from tests.pace import PATIENCE_S

pytestmark = pytest.mark.slow

PARENT = """
import sys
from pathlib import Path
from flows.stack.ephemeral_api import prefect_api
with prefect_api(Path(sys.argv[1])) as api:
    print(api.url, api.password, flush=True)
    sys.stdin.readline()
print("over", flush=True)
"""


class Server:
    """A process that holds an API, the API's own process, and its URL."""

    def __init__(self, database: Path) -> None:
        self.parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(database)],
            cwd=ROOT,
            env=environment_of(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> Server:
        """Return once it answers."""
        assert self.parent.stdout is not None
        self.url, self.password = self.parent.stdout.readline().split()
        (self.process,) = psutil.Process(self.parent.pid).children()
        return self

    def end(self) -> str:
        """Let the parent leave its block; what it says afterwards."""
        return self.parent.communicate("\n", timeout=PATIENCE_S)[0]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two APIs at once, in a folder whose name a URL would take for its own."""
    folder = tmp_path_factory.mktemp("ho me 50%41?") / "prefect"
    started = [Server(folder / "one.db"), Server(folder / "two.db")]
    yield [server.wait() for server in started]
    for server in started:
        if server.parent.poll() is None:
            server.parent.kill()
        server.parent.communicate()


def ask(server: Server, path: str) -> Any:
    """What the API answers."""
    word = base64.b64encode(server.password.encode()).decode()
    request = Request(f"{server.url}{path}", headers={"Authorization": f"Basic {word}"})
    with urlopen(request, timeout=PATIENCE_S) as answer:
        return json.loads(answer.read())


def test_it_answers(servers: list[Server]) -> None:
    """The URL is given out once the API behind it is ready."""
    for server in servers:
        assert ask(server, "/health") is True


def test_each_pipeline_has_a_server_and_a_database_of_its_own(servers: list[Server]) -> None:
    """Two pipelines never wait for each other's database, and it lies where it was told to."""
    one, two = servers
    assert one.url != two.url
    folder = Path(ask(one, "/admin/settings")["home"])
    assert {"one.db", "two.db"} == {path.name for path in folder.glob("*.db")}


def test_it_listens_on_this_machine_alone(servers: list[Server]) -> None:
    """Nobody else on the network may ask it."""
    for server in servers:
        port = urlsplit(server.url).port
        listening = [
            each.laddr
            for each in server.process.net_connections()
            if each.status == psutil.CONN_LISTEN
        ]
        assert [("127.0.0.1", port)] == [(address.ip, address.port) for address in listening]


def test_it_answers_to_its_own_run_alone(servers: list[Server]) -> None:
    """Another user of the machine, with no password or another run's, is refused."""
    one, two = servers
    assert one.password != two.password
    for password in ("", two.password, "thermodrift:guess"):
        stranger = SimpleNamespace(url=one.url, password=password)
        with pytest.raises(HTTPError, match="401"):
            ask(cast(Server, stranger), "/admin/settings")


def test_it_sends_nothing_anywhere(servers: list[Server]) -> None:
    """Prefect's analytics are off, and there is no page to serve."""
    told = ask(servers[0], "/admin/settings")["server"]
    assert (False, False) == (told["analytics_enabled"], told["ui"]["enabled"])


def test_ctrl_c_in_the_terminal_is_not_for_it(servers: list[Server]) -> None:
    """It must outlive the signal until the run has said goodbye, so it has a session of its own."""
    assert all(server.process.pid == os.getsid(server.process.pid) for server in servers)


SIGNALLED = """
import signal, sys
from pathlib import Path
from flows.stack import ephemeral_api
from flows.config import prefect_env
from flows.run.shutdown import Stop, StopRequested
prefect_env.prepare_prefect(Path(sys.argv[3]))
from flows.config import pipeline
read = pipeline.read
def interrupted(path):
    signal.raise_signal(signal.SIGTERM)
    return read(path)
pipeline.read = interrupted
with Stop().listening():
    try:
        api = ephemeral_api.Api(sys.argv[1], sys.argv[4])
        with ephemeral_api.use_api(api):
            from flows.loop.local_loop import run_loop
            run_loop(Path(sys.argv[2]), Path(sys.argv[3]), None)
    except StopRequested:
        print("stopped")
"""


def test_a_signal_that_prefect_hears_in_our_place_is_a_stop_too(
    servers: list[Server], tmp_path: Path
) -> None:
    """Prefect's own handler is there for a moment before the flow listens: no traceback then."""
    path, home = make_pipeline(tmp_path, records=10), tmp_path / "home"
    api = servers[1]
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, api.url, str(path), str(home), api.password],
        cwd=ROOT,
        env=environment_of(),
        capture_output=True,
        text=True,
    )
    assert ("stopped\n", 0) == (done.stdout, done.returncode), done.stderr
    assert not Places(home).pipelines.exists()


def test_it_ends_when_its_parent_is_killed(servers: list[Server]) -> None:
    """However the parent ended, nothing of it is left and its port is free."""
    server = servers[0]
    server.parent.send_signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs([server.process], timeout=PATIENCE_S)
    assert ([server.process], []) == (gone, alive)
    with socket.socket() as trial, pytest.raises(ConnectionRefusedError):
        trial.connect(("127.0.0.1", urlsplit(server.url).port))


def test_it_ends_when_the_block_is_left(servers: list[Server]) -> None:
    """The parent goes on, and the API's process was waited for."""
    server = servers[1]
    assert "over\n" == server.end()
    assert not server.process.is_running()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The reason is the database's own, told before the time for starting is over."""
    database = tmp_path / "prefect.db"
    database.write_text("this is no database " * 1_000)
    with pytest.raises(PrefectUnavailable) as error, prefect_api(database):
        pytest.fail("it started")
    told = str(error.value)
    assert "ended with code" in told
    assert "file is not a database" in told
    assert str(database) in told
    assert "run again" in told


def test_a_server_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """Nobody waits for ever, and nothing is left running."""
    before = set(psutil.Process().children())
    with (
        pytest.raises(PrefectUnavailable, match=r"did not start within 0\.05 s"),
        prefect_api(tmp_path / "prefect.db", start_within_s=0.05),
    ):
        pytest.fail("it started")
    assert set(psutil.Process().children()) <= before


def test_a_new_pipelines_database_is_a_copy_of_an_earlier_one(tmp_path: Path) -> None:
    """The first API makes its own, which is kept; a second one is given that, and answers."""
    cache = tmp_path / "cache"
    for name in ("first", "second"):
        parent = subprocess.run(
            [sys.executable, "-c", PARENT, str(tmp_path / name / "prefect.db")],
            cwd=ROOT,
            env=environment_of(THERMODRIFT_CACHE=str(cache)),
            input="\n",
            capture_output=True,
            text=True,
        )
        assert parent.stdout.endswith("over\n"), parent.stderr
        (kept,) = cache.iterdir()
        if name == "first":
            with closing(sqlite3.connect(kept)) as connection:
                connection.execute("CREATE TABLE marked (x)")
    with closing(sqlite3.connect(tmp_path / "second/prefect.db")) as connection:
        assert [] == connection.execute("SELECT * FROM marked").fetchall()
        assert [] == connection.execute("SELECT id FROM flow_run").fetchall()
