"""Everything on one machine: a Prefect server, pools, deployments and workers, for some pipelines.

The programs end with this process, also when it is killed (`flows.stack.tied_process`). A program
that ends by itself is started again. Nothing is decided here about pipelines: the deployed flows do
all the work, and its results are in the home.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from flows.config import prefect_env, settings
from flows.config.pipeline import PipelineFile
from flows.stack import database_template, ephemeral_api, manifest, scheduler_watch, tied_process
from flows.stack.prefect_client import Server
from observability.core import atomic_file, file_lock, parent_watch
from observability.core.errors import ThermodriftError, TryAgainLater
from observability.core.paths import Places

START_WITHIN_S = 180.0
"""Seconds that a server may take to start: the machine may be busy."""
LONGEST_PAUSE_S = 60.0
"""Most seconds between two starts of a program that ends repeatedly."""

State = Literal["starting", "running", "not scheduling", "ended", "stopping", "stopped"]
Notify = Callable[["ServiceStatus"], None]


class StackError(ThermodriftError, RuntimeError):
    """A service could not be started."""


class AlreadyUp(TryAgainLater):
    """This home is up already, or its port is taken."""


@dataclass(frozen=True)
class ServiceStatus:
    """One service, and its state."""

    name: str
    state: State
    told: str
    link: str = ""


@dataclass(frozen=True)
class ServiceAddress:
    """Where the prediction service shall listen; port 0: any that is free."""

    host: str
    port: int

    def url(self, port: int) -> str:
        """Its address for whoever is on this machine, with the port that it has."""
        own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{own}]:{port}" if ":" in own else f"http://{own}:{port}"


@dataclass
class ManagedService:
    """A program that is kept running."""

    name: str
    words: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    link: str = ""
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    pause_s: float = 1.0

    def start(self) -> None:
        """Start it, or start it again."""
        with self.log.open("ab") as log:
            self.process = tied_process.start(self.words, self.environment, log, grace_s=12.0)
        self.started_s = time.monotonic()

    def end(self) -> None:
        """Ask it to end; `wait` waits for that."""
        if self.process is not None:
            parent_watch.release(self.process)

    def wait(self) -> None:
        """Return once it has ended."""
        if self.process is not None:
            self.process.wait()

    def restart_if_ended(self, notify: Notify) -> bool:
        """Start it again where it has ended and its pause is over; whether it was started."""
        assert self.process is not None
        code = self.process.poll()
        age_s = time.monotonic() - self.started_s
        if code is None:
            if age_s > LONGEST_PAUSE_S:
                self.pause_s = 1.0
            return False
        if age_s < self.pause_s:
            return False
        self.pause_s = min(2 * self.pause_s, LONGEST_PAUSE_S)
        notify(ServiceStatus(self.name, "ended", f"exit code {code}; its log: {self.log}"))
        self.end()
        self.start()
        notify(ServiceStatus(self.name, "running", "started again", self.link))
        return True


@contextmanager
def up(
    files: Sequence[PipelineFile],
    home: Path,
    port: int,
    notify: Notify,
    service: ServiceAddress | None = None,
) -> Iterator[tuple[dict[str, Any], list[ManagedService], Server]]:
    """Start everything; yields a document, the programs and the server; ends them afterwards.

    `service` is where predictions are answered; None: they are not. `notify` is called with each
    change. Raises AlreadyUp, and StackError with the error of what
    failed.
    """
    folder = Places(home).prefect
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(_locked(folder))
        programs: list[ManagedService] = []
        stack.callback(_end, programs, notify)
        configured = prefect_env.configured_server()
        if configured is not None:
            server = Server(*configured)
            notify(ServiceStatus("server", "starting", _access(server), server.page))
            try:
                server.ask("GET", "/admin/version")
            except httpx.HTTPError as error:
                raise StackError(
                    f"the Prefect server that PREFECT_API_URL names ({server.url}) does not "
                    f"answer: {error}; start it, correct PREFECT_API_URL or "
                    "PREFECT_API_AUTH_STRING, or unset both for a server of this home's own"
                ) from error
            notify(ServiceStatus("server", "running", _access(server), server.page))
        else:
            server = _start_server(folder, port, programs, notify)
        # The password is only in its own file.
        known = {
            "url": server.page,
            "api": server.url,
            "log": str(server.log) if server.log else None,
            "pipelines": [file.name for file in files],
            "pid": os.getpid(),
        }
        where = folder / "up.json"
        atomic_file.write(where, json.dumps(known).encode())
        stack.callback(where.unlink, missing_ok=True)
        environment = prefect_env.worker_environment(
            folder / "worker", server.url, server.password, home
        )
        deployed = _deploy(server, files, folder, environment, notify)
        for pool, limit in manifest.LIMITS.items():
            words = ["prefect", "worker", "start", "--type", "process", "--pool", pool]
            log, link = folder / f"{pool}.log", f"{server.page}/work-pools/work-pool/{pool}"
            log.write_bytes(b"")
            worker = ManagedService(
                f"worker {pool}", [*words, "--limit", str(limit)], environment, log, link
            )
            worker.start()
            programs.append(worker)
            notify(ServiceStatus(worker.name, "running", f"up to {limit} runs at once", link))
        address = None
        if service is not None:
            address = _start_service(files, home, service, programs, notify)
        document = {
            "server": server.page,
            "api": server.url,
            "auth": str(folder / "auth") if server.log else None,
            "deployments": deployed,
            "pools": list(manifest.LIMITS),
            "file": str(folder / "prefect.yaml"),
            "service": address,
        }
        yield document, programs, server


def keep_running(
    programs: Sequence[ManagedService], server: Server, stop: Callable[[], bool], notify: Notify
) -> None:
    """Keep the programs running until `stop`, with growing pauses between starts.

    Also notify of each change of whether the server schedules.
    """
    pause = threading.Event()
    with scheduler_watch.watching(server) as watch:
        while not stop():
            for each in programs:
                if each.restart_if_ended(notify) and each.name == "server":
                    watch.forget()
            news = watch.news()
            if news is not None:
                told = f"{scheduler_watch.describe(news, server)}. {_access(server)}"
                state: State = "running" if news.yes else "not scheduling"
                notify(ServiceStatus("server", state, told, server.page))
            pause.wait(0.3)


def where(home: Path) -> tuple[Server, list[str]] | None:
    """The server and the pipelines of a home that is up; None where it is not up."""
    folder = Places(home).prefect
    try:
        known = json.loads((folder / "up.json").read_text(encoding="utf-8"))
        with _locked(folder):
            return None
    except AlreadyUp:
        url, log = known["api"], Path(known["log"]) if known["log"] else None
        configured = prefect_env.configured_server()
        if log is not None:
            password = (folder / "auth").read_text(encoding="utf-8").strip()
        else:
            password = configured[1] if configured is not None and configured[0] == url else ""
        return Server(url, password, log), [*known["pipelines"]]
    except (OSError, ValueError, KeyError):
        return None


def server_of(home: Path) -> tuple[Server, list[str]] | None:
    """The server of a home that is up, or else the one that the environment names, if any."""
    found, configured = where(home), prefect_env.configured_server()
    if found is None and configured is not None:
        return Server(*configured), []
    return found


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock.held(folder / "up.lock", wait_s=1.0))
        except file_lock.LockBusy as error:
            raise AlreadyUp(
                f"this home is up already: another `thermodrift up` holds {folder / 'up.lock'}; "
                "name all pipelines in one command, or give the other one a home of its own"
            ) from error
        yield


def _start_server(
    folder: Path, port: int, programs: list[ManagedService], notify: Notify
) -> Server:
    """A server of this home's own; returns once it answers."""
    port = _free_port(
        "127.0.0.1",
        port,
        f"port {port} is taken, perhaps by another Prefect server; name another with --port (0: "
        "any), or use that server by setting PREFECT_API_URL to its address",
    )
    auth, log = folder / "auth", folder / "server.log"
    if not auth.exists():
        # Created with these rights, so that no other user can ever read it.
        with open(os.open(auth, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib cannot
            file.write(f"thermodrift:{secrets.token_hex(16)}\n")
    password = auth.read_text(encoding="utf-8").strip()
    server = Server(f"http://127.0.0.1:{port}/api", password, log)
    words = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    environment = prefect_env.lasting_server_environment(folder / "server", password)
    database = prefect_env.lasting_database(folder / "server")
    if database is not None:
        database.parent.mkdir(mode=0o700, exist_ok=True)
        database_template.copy_template(database)
    program = ManagedService("server", words, environment, log, server.page)
    notify(ServiceStatus("server", "starting", "takes some seconds", server.page))
    log.write_bytes(b"")
    program.start()
    programs.append(program)
    _wait_for(program, "Prefect's server", lambda: server.ask("GET", "/health"))
    notify(ServiceStatus("server", "running", _access(server), server.page))
    return server


def _start_service(
    files: Sequence[PipelineFile],
    home: Path,
    asked: ServiceAddress,
    programs: list[ManagedService],
    notify: Notify,
) -> str:
    """The prediction service of these pipelines; its address, once it answers."""
    folder = Places(home).prefect
    port = _free_port(
        asked.host,
        asked.port,
        f"the service cannot listen on {asked.host} port {asked.port}; stop what listens there, or "
        "set serve.port in the home's file (0: any)",
    )
    words = ["thermodrift", "--home", str(home), "serve", *(str(file.path) for file in files)]
    log, url = folder / "service.log", asked.url(port)
    program = ManagedService(
        "service",
        [*words, "--host", asked.host, "--port", str(port)],
        prefect_env.service_environment(folder),
        log,
        url,
    )
    notify(ServiceStatus("service", "starting", "takes some seconds", url))
    log.write_bytes(b"")
    program.start()
    programs.append(program)
    _wait_for(program, "the prediction service", lambda: _ask_health(url))
    told = "answers predictions of " + ", ".join(file.name for file in files)
    notify(ServiceStatus("service", "running", told, url))
    return url


def _ask_health(url: str) -> None:
    # A proxy for the world outside has nothing to do with this machine's own service.
    httpx.get(f"{url}/healthz", trust_env=False).raise_for_status()


def _free_port(host: str, port: int, taken: str) -> int:
    """The port, or for 0 one that is free: a program keeps it when it is started again.

    Raises AlreadyUp, with the sentence `taken`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            raise AlreadyUp(f"{taken} ({error})") from error
        return int(trial.getsockname()[1])


def _wait_for(program: ManagedService, what: str, ask: Callable[[], object]) -> None:
    """Return once a program answers. Raises StackError where it ends before, or takes too long."""
    assert program.process is not None
    pause, over_s = threading.Event(), time.monotonic() + START_WITHIN_S
    while True:
        try:
            ask()
        except httpx.HTTPError:
            pass
        else:
            return
        if program.process.poll() is not None or time.monotonic() > over_s:
            raise StackError(
                f"{what} did not start: {ephemeral_api.last_error(program.log)}; its whole log "
                f"is {program.log}. Correct that and run again"
            )
        pause.wait(0.2)


def _access(server: Server) -> str:
    """Which server it is, and where its password is."""
    if server.log is None:
        return "the one that PREFECT_API_URL names"
    return f"its password is in {server.log.parent / 'auth'}"


def _deploy(
    server: Server,
    files: Sequence[PipelineFile],
    folder: Path,
    environment: Mapping[str, str],
    notify: Notify,
) -> dict[str, str]:
    """Create the pools, and deploy the flows of each pipeline; their pages by FLOW/NAME."""
    notify(ServiceStatus("deployments", "starting", ", ".join(file.name for file in files)))
    for pool in manifest.LIMITS:
        try:
            server.ask("POST", "/work_pools/", {"name": pool, "type": "process"})
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.CONFLICT:
                raise StackError(f"the server refused the pool {pool}: {error}") from error
    path = folder / "prefect.yaml"
    document = manifest.document(
        {file.name: file.path for file in files}, Path.cwd(), settings.Settings().schedule_s
    )
    # Every JSON document is also YAML.
    atomic_file.write(path, json.dumps(document, indent=2).encode())
    words = ["prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(path)]
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env={**environment, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StackError(f"`prefect deploy` refused: {(done.stdout + done.stderr).strip()[-2000:]}")
    names = [
        f"thermodrift-{flow}/{file.name}"
        for file in files
        for flow in ("learn", "watch", "retrain")
    ]
    found = {
        name: f"{server.page}/deployments/deployment/"
        f"{server.ask('GET', f'/deployments/name/{name}')['id']}"
        for name in (*names, "thermodrift-upkeep-daily/home")
    }
    notify(ServiceStatus("deployments", "running", f"{len(found)}, as {path} says"))
    for name, link in found.items():
        notify(ServiceStatus(name, "running", "deployed", link))
    return found


def _end(programs: Sequence[ManagedService], notify: Notify) -> None:
    """End the workers first, so that their runs can still report to the server how they ended."""
    workers = [each for each in programs if each.name != "server"]
    for group in (workers, [each for each in programs if each not in workers]):
        for each in group:
            notify(ServiceStatus(each.name, "stopping", "takes some seconds", each.link))
            each.end()
        for each in group:
            each.wait()
            notify(ServiceStatus(each.name, "stopped", ""))
