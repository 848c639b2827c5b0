"""A real Prefect server and real workers for tests, each a process that dies with the tests.

The server has SQLite in a temporary folder, listens on 127.0.0.1 at a port that was free, and asks
for a password made at random.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil  # type: ignore[import-untyped]  # it publishes no types

from flows.config import prefect_env
from flows.stack import database_template, tied_process
from observability.core import parent_watch
from tests import ROOT
from tests.flows.makers import environment_of
from tests.pace import PATIENCE_S, until


class PrefectServer:
    """A server of the tests' own."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.password = self._known = f"tests:{secrets.token_hex(8)}"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return once it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        own = prefect_env.lasting_server_environment(self.folder, self.password)
        clean = {key: value for key, value in own.items() if key.startswith(("PREFECT_", "DO_NOT"))}
        if "PREFECT_SERVER_DATABASE_CONNECTION_URL" not in self._environment:
            database_template.copy_template(self.folder / prefect_env.DATABASE)
        words = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "server.log").open("ab") as log:
            self._process = tied_process.start(
                words, environment_of(**{**clean, **self._environment}), log, grace_s=3
            )
        until(self.answers, "the server")

    def stop(self) -> None:
        """End it, and return once it is gone."""
        if self._process is not None:
            parent_watch.release(self._process)
            self._process.wait(timeout=PATIENCE_S)

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        killed(self._process.pid)
        self._process.wait(timeout=PATIENCE_S)
        parent_watch.release(self._process)

    def hang(self) -> None:
        """Let it take every word from now on, and answer none, until `go_on`."""
        assert self._process is not None
        for each in _family(self._process.pid):
            each.suspend()

    def go_on(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        for each in _family(self._process.pid):
            each.resume()

    def refuse(self) -> None:
        """Start it anew with another password: whoever knows the one before is refused."""
        self.kill()
        self._known, self.password = self.password, "tests:changed"
        self.start()

    def welcome(self) -> None:
        """Start it anew with the password of before."""
        self.kill()
        self.password = self._known
        self.start()

    def restore(self) -> None:
        """Start it anew where a test left it dead, hanging, or with another password."""
        if self.password != self._known or not self.answers():
            if self._process is not None and self._process.poll() is None:
                self.kill()
            self.password = self._known
            self.start()

    def answers(self) -> bool:
        """Whether it answers."""
        try:
            return bool(self.ask("GET", "/health", timeout_s=30.0))
        except OSError:
            return False

    def ask(self, method: str, path: str, document: object = None, timeout_s: float = 120.0) -> Any:
        """What the API answers. Raises HTTPError, OSError."""
        import base64

        word = base64.b64encode(self.password.encode()).decode()
        content = None if document is None else json.dumps(document).encode()
        request = Request(f"{self.url}{path}", data=content, method=method)
        request.add_header("Authorization", f"Basic {word}")
        request.add_header("Content-Type", "application/json")

        def told() -> bytes | None:
            try:
                with urlopen(request, timeout=timeout_s) as answer:
                    return bytes(answer.read()) or b"null"
            except HTTPError as error:
                # SQLite is locked now and then; Prefect's own client asks again, too.
                error.close()
                if error.code == 503:
                    return None
                raise

        return json.loads(until(told, path))

    def environment(self, home: Path, **changes: str) -> dict[str, str]:
        """The environment of a client of it."""
        own = prefect_env.worker_environment(self.folder / "client", self.url, self.password, home)
        clean = {
            key: value
            for key, value in own.items()
            if key.startswith(("PREFECT_", "DO_NOT", "THERMODRIFT_"))
        }
        return environment_of(**clean, **changes)

    def prefect(
        self, *words: str, home: Path, cwd: Path = ROOT, **changes: str
    ) -> subprocess.CompletedProcess[str]:
        """Run Prefect's own command line against it."""
        return subprocess.run(
            [sys.executable, "-m", "prefect", *words],
            cwd=cwd,
            env={**self.environment(home, **changes), "PWD": str(cwd)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def run(self, run_id: str) -> dict[str, Any]:
        """A flow run, as the API tells it."""
        told: dict[str, Any] = self.ask("GET", f"/flow_runs/{run_id}")
        return told

    def runs(self, flow: str, tag: str | None = None) -> list[dict[str, Any]]:
        """The runs of a flow that were not merely scheduled ahead, oldest first."""
        question: dict[str, Any] = {
            "flows": {"name": {"any_": [flow]}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        if tag is not None:
            question["flow_runs"] = {"tags": {"all_": [tag]}}
        return [
            run
            for run in self.ask("POST", "/flow_runs/filter", question)
            if not run["auto_scheduled"] or run["state_type"] != "SCHEDULED"
        ]

    def deployment(self, name: str) -> dict[str, Any]:
        """A deployment by FLOW/NAME."""
        told: dict[str, Any] = self.ask("GET", f"/deployments/name/{name}")
        return told

    def begin(
        self, deployment: str, job: Mapping[str, object] | None = None, /, **parameters: object
    ) -> str:
        """Start a run of a deployment, as a person does; its id. `job` are job variables."""
        known = self.deployment(deployment)
        wanted = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        if job is not None:
            wanted["job_variables"] = {**known["job_variables"], **job}
        run = self.ask("POST", f"/deployments/{known['id']}/create_flow_run", wanted)
        return str(run["id"])

    def ended(self, run_id: str, within_s: float = PATIENCE_S) -> dict[str, Any]:
        """A run, once it has ended."""

        def final() -> dict[str, Any] | None:
            run = self.run(run_id)
            over = run["state_type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
            return run if over else None

        return until(final, f"the end of run {run_id}", within_s)

    def named(self, run_id: str, name: str, within_s: float = PATIENCE_S) -> dict[str, Any]:
        """A run, once its state has this name."""

        def there() -> dict[str, Any] | None:
            run = self.run(run_id)
            return run if run["state_name"] == name else None

        return until(there, f"{name} of run {run_id}", within_s)

    def events(self, name: str, pipeline: Path | None = None) -> list[dict[str, Any]]:
        """What the server heard of one kind, of one pipeline or of all, newest first."""
        asked = {"filter": {"event": {"name": [name]}}, "limit": 50}
        told: list[dict[str, Any]] = self.ask("POST", "/events/filter", asked)["events"]
        mine = pipeline and str(pipeline)
        return [each for each in told if mine in (None, each["payload"].get("pipeline"))]

    def emit(
        self, name: str, pipeline: str, payload: dict[str, str] | None = None, **labels: str
    ) -> None:
        """Tell it of an event; two underscores in a label's name stand for a dot."""
        from datetime import UTC, datetime
        from uuid import uuid4

        event = {
            "id": str(uuid4()),
            "event": name,
            "occurred": datetime.now(UTC).isoformat(),
            "resource": {
                "prefect.resource.id": f"thermodrift.pipeline.{pipeline}",
                "prefect.resource.name": pipeline,
                **{key.replace("__", "."): value for key, value in labels.items()},
            },
            "payload": payload or {},
        }
        self.ask("POST", "/events", [event])


class Worker:
    """A worker of one pool."""

    def __init__(
        self, server: PrefectServer, pool: str, home: Path, limit: int = 4, **environment: str
    ) -> None:
        log = (server.folder / f"worker-{pool}-{secrets.token_hex(3)}.log").open("ab")
        words = ["prefect", "worker", "start", "--type", "process", "--pool", pool]
        with log:
            self.process = tied_process.start(
                [*words, "--limit", str(limit)],
                {**server.environment(home), **environment},
                log,
                cwd=ROOT,
                grace_s=3,
            )
        self.log = Path(log.name)

    def stop(self) -> None:
        """End it, and return once it is gone."""
        parent_watch.release(self.process)
        self.process.wait(timeout=PATIENCE_S)

    def kill(self) -> None:
        """End it and what it started, as a power cut would."""
        killed(self.process.pid)
        self.process.wait(timeout=PATIENCE_S)
        parent_watch.release(self.process)


def killed(pid: int) -> None:
    """Kill a process and all that it started, at one blow."""
    for each in _family(pid):
        if each.is_running():
            os.kill(each.pid, signal.SIGKILL)


def _family(pid: int) -> list[psutil.Process]:
    """A process and all that it started."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def free_port() -> int:
    """A port on 127.0.0.1 that nobody has."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


@contextmanager
def served(folder: Path, **environment: str) -> Iterator[PrefectServer]:
    """A server that runs inside the block."""
    server = PrefectServer(folder, **environment)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def working(
    server: PrefectServer, pools: Sequence[str], home: Path, limit: int = 4, **environment: str
) -> Iterator[Mapping[str, Worker]]:
    """Workers of these pools, for one home, inside the block."""
    workers = {pool: Worker(server, pool, home, limit, **environment) for pool in pools}
    try:
        yield workers
    finally:
        for worker in workers.values():
            parent_watch.release(worker.process)
        for worker in workers.values():
            worker.stop()


def refused(server: PrefectServer, password: str) -> bool:
    """Whether the server refuses this password."""
    import base64

    request = Request(f"{server.url}/admin/settings")
    if password:
        word = base64.b64encode(password.encode()).decode()
        request.add_header("Authorization", f"Basic {word}")
    try:
        with urlopen(request, timeout=10):
            return False
    except HTTPError as error:
        error.close()
        return error.code == 401


POOLS = ("thermodrift-light", "thermodrift-heavy")


def deployed(server: PrefectServer, home: Path, *, as_people_do: bool = False) -> None:
    """Make the pools, and deploy `prefect.yaml`; its schedules rest.

    `as_people_do`: by the commands at its head, each of which takes seconds to begin.
    """
    for pool in POOLS:
        if as_people_do:
            made = server.prefect("work-pool", "create", pool, "--type", "process", home=home)
            assert 0 == made.returncode, made.stderr
        else:
            server.ask("POST", "/work_pools/", {"name": pool, "type": "process"})
    redeployed(server, home)


def redeployed(server: PrefectServer, home: Path) -> None:
    """Deploy it (again)."""
    done = server.prefect("deploy", "--all", home=home)
    assert 0 == done.returncode, done.stdout + done.stderr
    for each in server.ask("POST", "/deployments/filter", {}):
        # Else the example would be learned meanwhile, every minute.
        for schedule in each["schedules"]:
            server.ask(
                "PATCH", f"/deployments/{each['id']}/schedules/{schedule['id']}", {"active": False}
            )
