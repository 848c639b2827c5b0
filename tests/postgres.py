"""A real PostgreSQL for tests: a cluster of its own in a temporary folder, gone with the tests.

It listens on 127.0.0.1 alone, at a port that was free, and asks for a password made at random. Both
libpq and asyncpg reach it there. It runs as an unprivileged user even where root runs the tests,
because PostgreSQL refuses root. It never touches a server that was there before.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import pytest

MISSING = (
    "there is no PostgreSQL here; install it to run these tests "
    "(Debian, Ubuntu: apt-get install postgresql; macOS: brew install postgresql)"
)
HOST = "127.0.0.1"
OWNER = "thermodrift"

_PATIENCE_S = 60.0
_PLACES = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu: not on the PATH
    "/usr/pgsql-*/bin",  # Fedora, Red Hat, from PostgreSQL's own packages
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)
_QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
_SMALL = ("shared_buffers=16MB", "max_connections=100", "unix_socket_directories=")

# A killed test run closes its end of the pipe: the server then stops, and its folder goes.
_WATCH = """
read -r _
kill -INT "$1"
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$1" 2>/dev/null || break; sleep 0.2; done
rm -rf "$2"
"""


@dataclass(frozen=True)
class Database:
    """Where a database is, and who may enter."""

    name: str
    port: int
    password: str
    host: str = HOST
    user: str = OWNER

    @property
    def address(self) -> str:
        """It as a URL, with the password: ``postgresql://USER:PASSWORD@HOST:PORT/NAME``."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{self.name}"


class _Privileges(TypedDict, total=False):
    """Arguments of subprocess; with none of them a process has ours."""

    user: int
    group: int
    extra_groups: list[int]


class Server:
    """A PostgreSQL server of the tests' own. Make one with `started`."""

    def __init__(self, programs: Path, folder: Path, settings: tuple[str, ...]) -> None:
        self._programs = programs
        self._folder = folder
        self._data = folder / "data"
        self._log = folder / "log"
        self._settings = settings
        self._password = secrets.token_urlsafe(24)
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    @property
    def pid(self) -> int | None:
        """The server's process; None while it is stopped."""
        return None if self._process is None else self._process.pid

    def at(self, name: str) -> Database:
        """Where the database `name` is, whether or not it exists."""
        return Database(name, self.port, self._password)

    def database(self, name: str) -> Database:
        """A fresh, empty database; one that had the name before is dropped, in use or not."""
        self.ask(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self.ask(f'CREATE DATABASE "{name}"')
        return self.at(name)

    def ask(self, sql: str, database: str = "postgres") -> str:
        """What psql answers to one statement: a line for each row, with ``|`` between cells."""
        done = self._run(
            "psql",
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            f"--host={HOST}",
            f"--port={self.port}",
            f"--username={OWNER}",
            f"--dbname={database}",
            f"--command={sql}",
        )
        if done.returncode:
            raise RuntimeError(f"psql refused {sql!r}: {done.stderr.strip()}")
        return done.stdout.strip()

    def create(self) -> None:
        """Make the cluster's files."""
        password = self._folder / "password"
        password.write_text(self._password)
        password.chmod(0o600)
        _give_away(password)
        done = self._run(
            "initdb",
            f"--pgdata={self._data}",
            f"--username={OWNER}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        )
        password.unlink()
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr.strip()}")

    def start(self) -> None:
        """Start the server, at the same port each time, and wait until it answers."""
        settings = [f"--{each}" for each in (f"port={self.port}", *self._settings, *_SMALL)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, "-h", HOST, *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests, which stop it in their turn
                **_unprivileged(),
            )
        self._watch = subprocess.Popen(
            ["sh", "-c", _WATCH, "watch", str(self._process.pid), str(self._folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
            **_unprivileged(),
        )
        self._wait_until_ready(self._process)

    def stop(self) -> None:
        """Stop the server in order; every connection ends. Nothing if it is stopped."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End the server without a goodbye; `start` recovers it from its log, as after a crash.

        Not by SIGKILL: its children would outlive it for a moment, and keep it from starting.
        """
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        process, watch, self._process, self._watch = self._process, self._watch, None, None
        if watch is not None and watch.stdin is not None:
            watch.kill()
            watch.wait()
            watch.stdin.close()
        if process is not None:
            process.send_signal(how)
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + _PATIENCE_S
        while self._run("pg_isready", "-q", "-h", HOST, "-p", str(self.port)).returncode:
            if process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"PostgreSQL did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs, which finds no settings of whoever tests."""
        return subprocess.run(
            [self._programs / program, *arguments],
            capture_output=True,
            text=True,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C", "PGPASSWORD": self._password},
            check=False,
            **_unprivileged(),
        )


@contextmanager
def started(*, durable: bool = False) -> Iterator[Server]:
    """A fresh server; its folder goes with it. Skips the test where there is no PostgreSQL.

    It is quick and loses what a power cut of the machine would catch, unless it is to be `durable`.
    """
    programs = found()
    if programs is None:
        pytest.skip(MISSING)
    # Root's own temporary folder may be closed to the user that the server runs as.
    folder = Path(tempfile.mkdtemp(prefix="thermodrift-pg-", dir="/tmp" if _is_root() else None))
    _give_away(folder)
    server = Server(programs, folder, () if durable else _QUICK)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def found() -> Path | None:
    """The folder of PostgreSQL's programs: by the PATH, else the newest in the usual places."""
    on_path = shutil.which("initdb")
    candidates = [Path(on_path).resolve().parent] if on_path else []
    for place in _PLACES:
        candidates += sorted(Path("/").glob(place[1:]), key=_release, reverse=True)
    needed = ("initdb", "postgres", "psql", "pg_isready")
    whole = (each for each in candidates if all((each / name).exists() for name in needed))
    return next(whole, None)


def _release(folder: Path) -> int:
    """The release that a folder is named for: 9 of ``postgresql@9/bin``; 0 where it has none."""
    digits = "".join(each for each in folder.parent.name if each.isdigit())
    return int(digits or 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_root() -> bool:
    return os.geteuid() == 0


def _nobody() -> pwd.struct_passwd:
    """The user that the server runs as where the tests are root's."""
    names = {each.pw_name for each in pwd.getpwall()}
    return pwd.getpwnam("postgres" if "postgres" in names else "nobody")


def _give_away(path: Path) -> None:
    if _is_root():
        os.chown(path, _nobody().pw_uid, _nobody().pw_gid)


def _unprivileged() -> _Privileges:
    """What leaves root behind."""
    if not _is_root():
        return {}
    return {"user": _nobody().pw_uid, "group": _nobody().pw_gid, "extra_groups": []}
