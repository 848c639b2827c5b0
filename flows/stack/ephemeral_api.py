"""Prefect's API for one run on this machine: a server of our own, that dies with us.

Prefect can start such a server by itself, but one that outlives a killed run. Ours watches the pipe
to its parent and ends when that closes, however the parent ended. It listens on 127.0.0.1 alone, on
a port that the system picks, and keeps its runs in a file of its own pipeline: two pipelines never
wait for each other's database.

Run as ``python -m flows.stack.ephemeral_api`` by `prefect_api`; not for people.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.config import prefect_env
from flows.run.shutdown import StopRequested
from flows.stack import database_template
from observability.core import atomic_file
from observability.core.errors import ThermodriftError, TryAgainLater


class PrefectUnavailable(ThermodriftError, ConnectionError):
    """Prefect's embedded API did not start, or stopped answering."""


GRACE_S = 6.0
"""Seconds that a run has to checkpoint and end once its API is gone."""
LARGEST_DATABASE_BYTES = 64 * 2**20
"""Prefect prunes nothing; beyond this its database begins anew, as nothing of ours is in it."""


_PREFECTS_OWN = frozenset({"anyio", "asyncio", "h2", "httpcore", "httpx", "prefect", "ssl"})
"""Whose exceptions say that the API failed, and not that the run did."""


@dataclass(frozen=True)
class Api:
    """A Prefect API of our own: where it is, and the password that it answers to."""

    url: str
    password: str
    folder: Path | None = None
    """Where it keeps its database."""


@contextmanager
def prefect_api(database: Path, start_within_s: float = 120.0) -> Iterator[Api]:
    """Start a Prefect API that keeps its runs in `database`; yields it; stops it at the end.

    Nobody else on the machine can use it: its password is made for this run. Raises
    PrefectUnavailable where it does not start in time, with what its log says of it.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    _begin_anew_if_large(database)
    was_there = database_template.put(database)
    password = f"thermodrift:{secrets.token_hex(16)}"
    log = database.with_suffix(".log")
    with log.open("wb") as log_file:
        child = subprocess.Popen(
            [sys.executable, "-m", "flows.stack.ephemeral_api"],
            cwd=Path(__file__).resolve().parents[2],
            env=prefect_env.prefect_server_environment(database, password),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
            # A Ctrl-C in the terminal is ours to answer: the API must outlive it until we are done.
            start_new_session=True,
        )
    over = threading.Event()
    try:
        url = _url_of(child, start_within_s, database)
        if not was_there:
            database_template.keep(database)
        threading.Thread(target=_mourn, args=(child, over), daemon=True).start()
        yield Api(url, password, database.parent)
    finally:
        over.set()
        _stop(child)


def _begin_anew_if_large(database: Path) -> None:
    if database.exists() and database.stat().st_size > LARGEST_DATABASE_BYTES:
        for ending in ("", "-wal", "-shm"):
            database.with_name(database.name + ending).unlink(missing_ok=True)


def _mourn(child: subprocess.Popen[str], over: threading.Event) -> None:
    """End the run well where its API dies under it, and within a bound.

    Learning needs no API, but Prefect's client tries for many minutes to reach it when a run ends.
    So the run is asked to stop, which checkpoints, and then this process ends by itself.
    """
    code = child.wait()
    if over.is_set():
        return
    told = (
        f"thermodrift: Prefect's embedded API ended under this run (exit code {code}); the run "
        "checkpoints and stops. Nothing that was learned is lost: run again\n"
    )
    os.write(sys.stderr.fileno(), told.encode())
    os.kill(os.getpid(), signal.SIGTERM)
    over.wait(GRACE_S)
    os._exit(TryAgainLater.exit_code)


@contextmanager
def speaking_to(api: Api) -> Iterator[None]:
    """Run flows against `api` inside the block.

    Raises StopRequested where a SIGTERM came in the moment in which Prefect opens or closes a
    run: it hears that signal then, not we, and nothing is half done. Raises PrefectUnavailable
    where the API failed, unless the run had failed before it.
    """
    from prefect.exceptions import PrefectHTTPStatusError, TerminationSignal
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    try:
        with temporary_settings({PREFECT_API_URL: api.url, PREFECT_API_AUTH_STRING: api.password}):
            yield
    except TerminationSignal as error:
        raise StopRequested from error
    except PrefectHTTPStatusError as error:
        ours = _behind(error)
        if ours is not None:
            raise ours from ours.__cause__
        why = _disk(api.folder) or str(error).splitlines()[0]
        raise PrefectUnavailable(
            f"Prefect's embedded API failed: {why}. What was learned is on disk: put that right "
            "and run again"
        ) from error


def _behind(error: BaseException) -> BaseException | None:
    """What had ended the run already when Prefect could not tell its API of that."""
    link = error.__context__
    while link is not None and type(link).__module__.partition(".")[0] in _PREFECTS_OWN:
        link = link.__context__
    return link


def _disk(folder: Path | None) -> str:
    """Why Prefect cannot keep its runs in `folder`; nothing where the disk is not the reason."""
    from flows.run.bootstrap import ROOM_BYTES

    try:
        if folder is not None:
            atomic_file.ensure_room(folder, ROOM_BYTES)
    except OSError as error:
        return str(error)
    return ""


def _url_of(child: subprocess.Popen[str], start_within_s: float, database: Path) -> str:
    watchdog = threading.Timer(start_within_s, child.kill)
    watchdog.start()
    try:
        assert child.stdout is not None
        line = child.stdout.readline().strip()
        code = None if line else child.wait()
    except BaseException:
        # While it still imports, it does not hear that its pipe has closed.
        child.kill()
        raise
    finally:
        watchdog.cancel()
    if code is not None:
        late = code == -signal.SIGKILL
        how = f"did not start within {start_within_s:g} s" if late else f"ended with code {code}"
        why = _disk(database.parent) or _last_words(database.with_suffix(".log"))
        raise PrefectUnavailable(
            f"Prefect's embedded API {how}: {why}. Nothing "
            f"was learned or lost: put that right (the rest of its log is beside {database}, which "
            "may be removed: no truth of ours is in it) and run again"
        )
    return line


def _last_words(log: Path) -> str:
    """The last error in the log, or else its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (errors or lines or ["it said nothing"])[-1]


def _stop(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.close()
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    child.stdout.close()


def serve() -> None:
    """Serve Prefect's API until stdin closes; the first line on stdout is its URL."""
    import uvicorn
    from prefect.server.api.server import create_app

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(ephemeral=True), log_level="error"))
    port = listening.getsockname()[1]
    threading.Thread(target=_say_when_started, args=(server, port), daemon=True).start()
    threading.Thread(target=_end_with_parent, args=(server,), daemon=True).start()
    server.run(sockets=[listening])


def _say_when_started(server: object, port: int) -> None:
    pause = threading.Event()
    while not getattr(server, "started", False):
        pause.wait(0.02)
    sys.stdout.write(f"http://127.0.0.1:{port}/api\n")
    sys.stdout.flush()


def _end_with_parent(server: object) -> None:
    sys.stdin.read()
    # Its database is of interest to nobody once the run is over: end at once, not gracefully.
    os._exit(0)


if __name__ == "__main__":
    serve()
