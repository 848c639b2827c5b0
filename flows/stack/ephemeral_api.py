"""Prefect's API for one run on this machine: a server that ends with the run.

Prefect can start such a server by itself, but that one outlives a killed run. This one watches its
parent (`observability.core.parent_watch`). It listens on 127.0.0.1 alone, at a port that the system
picks, and keeps its runs in a database of its own pipeline: two pipelines never wait for each
other's database.

`prefect_api` runs it as ``python -m flows.stack.ephemeral_api``; it is not for people.
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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.config import prefect_env
from flows.run.shutdown import StopRequested
from flows.stack import database_template
from observability.core import atomic_file, parent_watch
from observability.core.errors import ThermodriftError, TryAgainLater


class PrefectUnavailable(ThermodriftError, ConnectionError):
    """Prefect's embedded API did not start, or stopped answering."""


GRACE_S = 6.0
"""Seconds that a run has to checkpoint and end once its API has ended."""
LARGEST_DATABASE_BYTES = 64 * 2**20
"""Prefect removes nothing; a larger database is created anew, as only Prefect uses it."""
_PREFECTS_OWN = frozenset({"anyio", "asyncio", "h2", "httpcore", "httpx", "prefect", "ssl"})
"""Packages whose exceptions mean that the API failed, not the run."""


@dataclass(frozen=True)
class Api:
    """A Prefect API of our own: where it is, and its password."""

    url: str
    password: str
    folder: Path | None = None
    """Where it keeps its database."""


@contextmanager
def prefect_api(database: Path, start_within_s: float = 120.0) -> Iterator[Api]:
    """Start a Prefect API that keeps its runs in `database`; yields it; stops it at the end.

    Its password is made for this run, so no other user can use it. Raises PrefectUnavailable where
    it does not start in time, with the reason from its log.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    if database.exists() and database.stat().st_size > LARGEST_DATABASE_BYTES:
        database_template.remove(database)
    existed = database_template.copy_template(database)
    password = f"thermodrift:{secrets.token_hex(16)}"
    with database.with_suffix(".log").open("wb") as log_file:
        child = subprocess.Popen(
            [sys.executable, "-m", "flows.stack.ephemeral_api"],
            cwd=Path(__file__).resolve().parents[2],
            env=prefect_env.prefect_server_environment(database, password),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
            # A Ctrl-C in the terminal must not end it before the run.
            start_new_session=True,
        )
    assert child.stdout is not None
    over = threading.Event()
    try:
        url = _url_of(child, start_within_s, database)
        if not existed:
            database_template.save_template(database)
        threading.Thread(target=_end_without_api, args=(child, over), daemon=True).start()
        yield Api(url, password, database.parent)
    finally:
        over.set()
        parent_watch.release(child)
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()


def _end_without_api(child: subprocess.Popen[str], over: threading.Event) -> None:
    """Stop the run when its API ends before it.

    Learning needs no API, but Prefect's client tries for many minutes to reach it when a run ends.
    So a signal asks the run to stop, which writes a checkpoint, and then this process exits.
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
def use_api(api: Api) -> Iterator[None]:
    """Run flows against `api` inside the block.

    Raises StopRequested where a SIGTERM came while Prefect opened or closed a run: Prefect's
    handler then replaces ours, and nothing is half done. Raises PrefectUnavailable where the API
    failed, unless the run had failed before it.
    """
    from prefect.exceptions import PrefectHTTPStatusError, TerminationSignal
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    try:
        with temporary_settings({PREFECT_API_URL: api.url, PREFECT_API_AUTH_STRING: api.password}):
            yield
    except TerminationSignal as error:
        raise StopRequested from error
    except PrefectHTTPStatusError as error:
        # The error that had ended the run before Prefect failed to report it, if any.
        cause = error.__context__
        while cause is not None and type(cause).__module__.split(".")[0] in _PREFECTS_OWN:
            cause = cause.__context__
        if cause is not None:
            raise cause from cause.__cause__
        why = _disk(api.folder) or str(error).splitlines()[0]
        raise PrefectUnavailable(
            f"Prefect's embedded API failed: {why}. What was learned is on disk: correct that "
            "and run again"
        ) from error


def _disk(folder: Path | None) -> str:
    """Why the disk cannot take Prefect's runs; empty where it can."""
    from flows.run.bootstrap import ROOM_BYTES

    try:
        if folder is not None:
            atomic_file.ensure_room(folder, ROOM_BYTES)
    except OSError as error:
        return str(error)
    return ""


def _url_of(child: subprocess.Popen[str], start_within_s: float, database: Path) -> str:
    """The first line of its output. Raises PrefectUnavailable where it ends, or is too late."""
    watchdog = threading.Timer(start_within_s, child.kill)
    watchdog.start()
    try:
        assert child.stdout is not None
        line = child.stdout.readline().strip()
        code = None if line else child.wait()
    except BaseException:
        # A signal came during its start: do not wait for it.
        child.kill()
        raise
    finally:
        watchdog.cancel()
    if code is not None:
        late = code == -signal.SIGKILL
        how = f"did not start within {start_within_s:g} s" if late else f"ended with code {code}"
        why = _disk(database.parent) or last_error(database.with_suffix(".log"))
        raise PrefectUnavailable(
            f"Prefect's embedded API {how}: {why}. Nothing was learned or lost: correct that (its "
            f"whole log is beside {database}, which may be removed: no pipeline depends on it) and "
            "run again"
        )
    return line


def last_error(log: Path) -> str:
    """The last error in a program's log, or else its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (errors or lines or ["its log is empty"])[-1]


def serve() -> None:
    """Serve Prefect's API until the parent ends; the first line on stdout is its URL."""
    # Its database has no use after the run, so it need not end gracefully.
    parent_watch.exit_with_parent()
    import uvicorn
    from prefect.server.api.server import create_app

    server = uvicorn.Server(uvicorn.Config(create_app(ephemeral=True), log_level="error"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]

        def print_when_started() -> None:
            while not server.started:
                time.sleep(0.02)
            sys.stdout.write(f"http://127.0.0.1:{port}/api\n")
            sys.stdout.flush()

        threading.Thread(target=print_when_started, daemon=True).start()
        server.run(sockets=[listening])


if __name__ == "__main__":
    serve()
