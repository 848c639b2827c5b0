"""One box with everything: a Prefect server, pools, deployments and workers, for some pipelines.

What runs are processes on a tether (`flows.stack.tied_process`): they end with this one, however it
ends. A part that ends by itself is started again. It decides nothing about pipelines: the deployed
flows do all the work, and their truth is in the home.
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

from flows.config import prefect_env
from flows.config.pipeline import PipelineFile
from flows.stack import database_template, manifest, scheduler_watch, tied_process
from flows.stack.prefect_client import Server
from observability.core import atomic_file, file_lock
from observability.core.errors import ThermodriftError, TryAgainLater
from observability.core.paths import Places

PORT = 4200
"""Where Prefect's server is usually found."""
START_WITHIN_S = 180.0
"""Seconds that a server may take to answer for the first time, on a busy machine."""
LONGEST_PAUSE_S = 60.0
"""Seconds between two starts of a part that ends again and again, at the most."""

State = Literal["starting", "running", "not scheduling", "ended", "stopping", "stopped"]
Tell = Callable[["Part"], None]


class BoxFailed(ThermodriftError, RuntimeError):
    """A part of the box could not be brought up."""


class AlreadyUp(TryAgainLater):
    """This home is up already, or its port is taken."""


@dataclass(frozen=True)
class Part:
    """One part of the box, and how it stands."""

    name: str
    state: State
    told: str
    link: str = ""


@dataclass
class Running:
    """A program of the box that is kept running."""

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
            tied_process.cut(self.process)

    def wait(self) -> None:
        """Return once it is gone."""
        if self.process is not None:
            self.process.wait()


@contextmanager
def up(
    files: Sequence[PipelineFile], home: Path, port: int, tell: Tell
) -> Iterator[tuple[dict[str, Any], list[Running], Server]]:
    """Bring everything up; yields what there is, programs and server; ends them when it is left.

    `tell` hears of each change. Raises AlreadyUp, and BoxFailed with the last words of what failed.
    """
    folder = Places(home).prefect
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(_alone(folder))
        programs: list[Running] = []
        stack.callback(_end, programs, tell)
        server = _server(folder, port, programs, tell)
        where = folder / "up.json"
        atomic_file.write(where, _known(server, [file.name for file in files]))
        stack.callback(where.unlink, missing_ok=True)
        environment = prefect_env.worker_environment(
            folder / "worker", server.url, server.password, home
        )
        deployed = _deploy(server, files, folder, environment, tell)
        for pool, limit in manifest.LIMITS.items():
            worker = _worker(server, pool, limit, folder, environment)
            worker.start()
            programs.append(worker)
            tell(Part(worker.name, "running", f"up to {limit} runs at once", worker.link))
        yield _document(server, folder, deployed), programs, server


def _known(server: Server, pipelines: Sequence[str]) -> bytes:
    """What `where` reads: no password, which only its own file has."""
    known = {
        "url": server.page,
        "api": server.url,
        "log": str(server.log) if server.log else None,
        "pipelines": pipelines,
        "pid": os.getpid(),
    }
    return json.dumps(known).encode()


def _document(server: Server, folder: Path, deployed: Mapping[str, str]) -> dict[str, Any]:
    return {
        "server": server.page,
        "api": server.url,
        "auth": str(folder / "auth") if server.ours else None,
        "deployments": dict(deployed),
        "pools": list(manifest.LIMITS),
        "file": str(folder / "prefect.yaml"),
    }


def kept(programs: Sequence[Running], server: Server, stop: Callable[[], bool], tell: Tell) -> None:
    """Keep the programs running until `stop` says so; what ends is started again, ever later.

    And tell whether the server schedules, whenever that changes.
    """
    pause = threading.Event()
    with scheduler_watch.watching(server) as watch:
        while not stop():
            for each in programs:
                if _restarted(each, tell) and each.name == "server":
                    watch.forget()
            news = watch.news()
            if news is not None:
                said = f"{scheduler_watch.told(news, server)}. {_word(server)}"
                state: State = "running" if news.yes else "not scheduling"
                tell(Part("server", state, said, server.page))
            pause.wait(0.3)


def _restarted(each: Running, tell: Tell) -> bool:
    """Start a program again that has ended, and has rested; whether it was."""
    assert each.process is not None
    code = each.process.poll()
    age_s = time.monotonic() - each.started_s
    if code is None:
        if age_s > LONGEST_PAUSE_S:
            each.pause_s = 1.0
        return False
    if age_s < each.pause_s:
        return False
    each.pause_s = min(2 * each.pause_s, LONGEST_PAUSE_S)
    tell(Part(each.name, "ended", f"exit code {code}; its log: {each.log}"))
    each.end()
    each.start()
    tell(Part(each.name, "running", "started again", each.link))
    return True


def where(home: Path) -> tuple[Server, list[str]] | None:
    """The server of a home that is up, and the pipelines that are; None where it is not up."""
    folder = Places(home).prefect
    try:
        told = json.loads((folder / "up.json").read_text(encoding="utf-8"))
        with _alone(folder):
            return None
    except AlreadyUp:
        log = Path(told["log"]) if told["log"] else None
        word = _password_for(told["api"], folder, log)
        return Server(told["api"], word, log is not None, log), [*told["pipelines"]]
    except (OSError, ValueError, KeyError):
        return None


def server_of(home: Path) -> tuple[Server, list[str]] | None:
    """The server of a home that is up, or else the one that the environment names, if any."""
    found, configured = where(home), prefect_env.configured_server()
    if found is None and configured is not None:
        return Server(*configured, ours=False), []
    return found


def _password_for(url: str, folder: Path, log: Path | None) -> str:
    if log is not None:
        return (folder / "auth").read_text(encoding="utf-8").strip()
    configured = prefect_env.configured_server()
    return configured[1] if configured is not None and configured[0] == url else ""


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock.held(folder / "up.lock", wait_s=1.0))
        except file_lock.LockBusy as error:
            raise AlreadyUp(
                f"this home is up already: another `thermodrift up` holds {folder / 'up.lock'}; "
                "name all pipelines in one command, or give the other one a home of its own"
            ) from error
        yield


def _server(folder: Path, port: int, programs: list[Running], tell: Tell) -> Server:
    """The server that the environment names, or one of our own."""
    configured = prefect_env.configured_server()
    if configured is not None:
        server = Server(*configured, ours=False)
        tell(Part("server", "starting", "the one that PREFECT_API_URL names", server.page))
        try:
            server.ask("GET", "/admin/version")
        except httpx.HTTPError as error:
            raise BoxFailed(
                f"the Prefect server that PREFECT_API_URL names ({server.url}) does not answer: "
                f"{error}; start it, correct PREFECT_API_URL or PREFECT_API_AUTH_STRING, or unset "
                "both for a server of this home's own"
            ) from error
        tell(Part("server", "running", _word(server), server.page))
        return server
    port = _free(port)
    url, log = f"http://127.0.0.1:{port}/api", folder / "server.log"
    server = Server(url, _password(folder / "auth"), ours=True, log=log)
    words = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    environment = prefect_env.lasting_server_environment(folder / "server", server.password)
    database = prefect_env.lasting_database(folder / "server")
    if database is not None:
        database.parent.mkdir(mode=0o700, exist_ok=True)
        database_template.put(database)
    program = Running("server", words, environment, log, server.page)
    tell(Part("server", "starting", "takes some seconds", server.page))
    program.log.write_bytes(b"")
    program.start()
    programs.append(program)
    _await(server, program)
    tell(Part("server", "running", _word(server), server.page))
    return server


def _word(server: Server) -> str:
    """Which server it is, and how a person gets in."""
    if server.log is None:
        return "the one that PREFECT_API_URL names"
    return f"its password is in {server.log.parent / 'auth'}"


def _await(server: Server, program: Running) -> None:
    pause, over_s = threading.Event(), time.monotonic() + START_WITHIN_S
    while True:
        try:
            server.ask("GET", "/health")
        except httpx.HTTPError as error:
            assert program.process is not None
            ended = program.process.poll() is not None
            if ended or time.monotonic() > over_s:
                raise BoxFailed(
                    f"Prefect's server did not start: {_last_words(program.log)}; all that it said "
                    f"is in {program.log}. Put that right and run again"
                ) from error
            pause.wait(0.2)
        else:
            return


def _free(port: int) -> int:
    """A port that can be had: the one that was asked for, or any for 0."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            raise AlreadyUp(
                f"port {port} is taken, perhaps by another Prefect server; name another with "
                "--port (0: any), or use that server by setting PREFECT_API_URL to its address"
            ) from error
        free: int = trial.getsockname()[1]
        return free


def _password(path: Path) -> str:
    """The word of this home's server; made once, and for this user's eyes alone."""
    if not path.exists():
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 - made with its rights
            file.write(f"thermodrift:{secrets.token_hex(16)}\n")
    return path.read_text(encoding="utf-8").strip()


def _deploy(
    server: Server,
    files: Sequence[PipelineFile],
    folder: Path,
    environment: Mapping[str, str],
    tell: Tell,
) -> dict[str, str]:
    """Make the pools, and deploy the flows of each pipeline; their pages by FLOW/NAME."""
    tell(Part("deployments", "starting", ", ".join(file.name for file in files)))
    for pool in manifest.LIMITS:
        _pool(server, pool)
    path = folder / "prefect.yaml"
    document = manifest.document({file.name: file.path for file in files}, Path.cwd())
    # JSON is YAML, too.
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
        raise BoxFailed(f"`prefect deploy` refused: {(done.stdout + done.stderr).strip()[-2000:]}")
    found = _deployed(server, [*(file.name for file in files), "home"])
    tell(Part("deployments", "running", f"{len(found)}, as {path} says"))
    for name, link in found.items():
        tell(Part(name, "running", "deployed", link))
    return found


def _pool(server: Server, name: str) -> None:
    try:
        server.ask("POST", "/work_pools/", {"name": name, "type": "process"})
    except httpx.HTTPStatusError as error:
        if error.response.status_code != httpx.codes.CONFLICT:
            raise BoxFailed(f"the server refused to make the pool {name}: {error}") from error


def _deployed(server: Server, names: Sequence[str]) -> dict[str, str]:
    flows = ("learn", "watch", "retrain")
    wanted = [f"thermodrift-{flow}/{name}" for name in names[:-1] for flow in flows]
    return {
        each: f"{server.page}/deployments/deployment/"
        f"{server.ask('GET', f'/deployments/name/{each}')['id']}"
        for each in (*wanted, f"thermodrift-upkeep-daily/{names[-1]}")
    }


def _worker(
    server: Server, pool: str, limit: int, folder: Path, environment: Mapping[str, str]
) -> Running:
    words = ["prefect", "worker", "start", "--type", "process", "--pool", pool]
    log = folder / f"{pool}.log"
    log.write_bytes(b"")
    link = f"{server.page}/work-pools/work-pool/{pool}"
    return Running(f"worker {pool}", [*words, "--limit", str(limit)], environment, log, link)


def _end(programs: Sequence[Running], tell: Tell) -> None:
    """Workers first, so that their runs can still tell the server how they ended."""
    workers = [each for each in programs if each.name != "server"]
    for group in (workers, [each for each in programs if each not in workers]):
        for each in group:
            tell(Part(each.name, "stopping", "what it does ends within seconds", each.link))
            each.end()
        for each in group:
            each.wait()
            tell(Part(each.name, "stopped", ""))


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return (lines or ["it said nothing"])[-1].strip()
