"""The tests' own PostgreSQL: it asks for its password, starts again, and goes with the tests."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]  # it publishes no types
import pytest

from tests import ROOT, postgres
from tests.postgres import HOST, OWNER, Database, Server, started

pytestmark = pytest.mark.slow


async def _answer(place: Database, sql: str, password: str | None = None) -> object:
    connection = await asyncpg.connect(
        host=place.host,
        port=place.port,
        user=place.user,
        password=password or place.password,
        database=place.name,
    )
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def test_a_fresh_database_is_empty(postgres_server: Server) -> None:
    """What one test left under a name is gone when another asks for the name."""
    counting = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    postgres_server.database("fresh")
    postgres_server.ask("CREATE TABLE left_over (n int)", "fresh")
    assert "1" == postgres_server.ask(counting, "fresh")
    postgres_server.database("fresh")
    assert "0" == postgres_server.ask(counting, "fresh")


def test_what_psql_refuses_is_said(postgres_server: Server) -> None:
    """A test's own mistake does not pass for an empty answer."""
    with pytest.raises(RuntimeError, match="syntax error"):
        postgres_server.ask("SELEC 1")


def test_asyncpg_enters_with_the_password(postgres_server: Server) -> None:
    """Prefect's own driver reaches the server as libpq does."""
    place = postgres_server.database("entered")
    assert OWNER == asyncio.run(_answer(place, "SELECT current_user"))


def test_nobody_enters_with_another_password(postgres_server: Server) -> None:
    """The password is asked for, so a test of a wrong one means something."""
    place = postgres_server.database("guarded")
    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(_answer(place, "SELECT 1", password="wrong"))


def test_the_server_is_not_root(postgres_server: Server) -> None:
    """PostgreSQL refuses root, and a test must not depend on its rights."""
    folder = Path(postgres_server.ask("SHOW data_directory"))
    assert 0 != folder.stat().st_uid


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_what_was_committed_is_there_after_a_restart(way: str) -> None:
    """A test can take the server away and give it back, at the same address."""
    with started(durable=True) as server:
        place = server.database("kept")
        server.ask("CREATE TABLE kept AS SELECT 7 AS n", "kept")
        {"stop": server.stop, "kill": server.kill}[way]()
        with pytest.raises(OSError, match="Connect call failed"):
            asyncio.run(_answer(place, "SELECT 1"))
        server.start()
        assert 7 == asyncio.run(_answer(place, "SELECT n FROM kept"))


def test_a_killed_test_run_leaves_no_server_behind() -> None:
    """Neither a process nor a folder stays where the run that started them was killed."""
    script = (
        "from tests.postgres import started\n"
        "with started() as server:\n"
        "    print(server.port, server.ask('SHOW data_directory'), flush=True)\n"
        "    input()\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdin is not None
    assert run.stdout is not None
    said = run.stdout.readline()
    if not said:
        pytest.skip(postgres.MISSING)
    port, data = int(said.split()[0]), Path(said.split()[1])
    assert data.is_dir()
    run.kill()
    run.wait()
    # The server's watch holds the other end of this pipe, until it has cleared up.
    assert "" == run.stdout.read()
    run.stdin.close()
    run.stdout.close()
    assert not data.parent.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port))


def test_without_postgresql_the_tests_skip_and_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A laptop without PostgreSQL passes, and its owner reads what was left out."""
    monkeypatch.setattr(postgres, "found", lambda: None)
    with pytest.raises(pytest.skip.Exception, match="apt-get install postgresql"), started():
        pass


def test_a_server_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a timeout: what PostgreSQL itself said."""
    monkeypatch.setattr(postgres, "_QUICK", ("no_such_setting=1",))
    with pytest.raises(RuntimeError, match="no_such_setting"), started():
        pass


def test_the_newest_postgresql_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Release 16 is newer than release 9, whatever the order of their letters."""
    for release in ("9", "16"):
        folder = tmp_path / release / "bin"
        folder.mkdir(parents=True)
        for name in ("initdb", "postgres", "psql", "pg_isready"):
            (folder / name).touch()
    (tmp_path / "17" / "bin").mkdir(parents=True)  # a client's folder, without a server
    monkeypatch.setattr(postgres, "_PLACES", (f"{tmp_path}/*/bin",))
    monkeypatch.setenv("PATH", os.defpath)
    assert tmp_path / "16" / "bin" == postgres.found()
