"""What docs/operations.md says of several hosts is so: its SQL and Python are run, in its order.

Only what a test cannot have is put in place of the page's: the server's address, the folders, and
the extensions from the packages that bring them, since nothing is downloaded here.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import duckdb
import pytest

from observability.history import store
from observability.history.backends import duckdb_connection
from observability.history.store import History
from tests import ROOT
from tests.observability.history.backends.test_ducklake import everything, written
from tests.observability.history.makers import make_decision, make_score, rows_of
from tests.postgres import Database, Server

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Several hosts, one history\n")[1].split("\n## ")[0]
ROLES, READING, QUESTION, MOVING = re.findall(r"```sql\n(.*?)```", SECTION, re.DOTALL)
(PREDICTIONS,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture
def writer(postgres_server: Server) -> Database:
    """The database of the page, made as the page makes it."""
    postgres_server.ask("DROP DATABASE IF EXISTS history WITH (FORCE)")
    for role in ("history_writer", "history_reader"):
        postgres_server.ask(f"DROP ROLE IF EXISTS {role}")
    for statement in filter(None, map(str.strip, ROLES.split(";"))):
        postgres_server.ask(statement)
    postgres_server.ask(READING, "history")
    for role in ("history_writer", "history_reader"):
        postgres_server.ask(f"ALTER ROLE {role} PASSWORD '{role}-secret'")
    there = postgres_server.at("history")
    return Database("history", there.port, "history_writer-secret", user="history_writer")


def home_of(folder: Path, there: Database) -> Path:
    """A home whose history is in the lake."""
    folder.mkdir(exist_ok=True)
    (folder / "thermodrift.toml").write_text(
        f"[history]\nurl = '{there.address}'\ndata = '{folder.parent / 'data'}'\n"
    )
    return folder


def run(session: duckdb.DuckDBPyConnection, sql: str, there: Database, home: Path) -> None:
    """Run a block of the page."""
    for extension in ("ducklake", "postgres_scanner"):
        session.execute(f"LOAD '{duckdb_connection._extension(extension)}'")
    sql = re.sub(r"INSTALL \w+;\n", "", sql).replace("/srv/thermodrift/home", str(home))
    sql = re.sub(
        r"host=db dbname=history user=(\w+)",
        rf"host={there.host} port={there.port} dbname=history user=\1 password=\1-secret",
        sql,
    )
    session.execute(sql)


def test_a_person_asks_with_a_duckdb_of_their_own(writer: Database, tmp_path: Path) -> None:
    """The role that reads sees what was made after it, and can change nothing."""
    past = History(home_of(tmp_path / "home", writer))
    past.commit(everything(), "all")
    past.flush()
    past.vacuum()
    with duckdb.connect() as session:
        run(session, QUESTION, writer, tmp_path)
        assert [("finished",)] == session.execute("SELECT outcome FROM lake.runs").fetchall()
        with pytest.raises(duckdb.Error, match="read-only"):
            session.execute("DELETE FROM lake.run_rows")


def test_a_history_in_a_file_is_brought_into_a_lake(writer: Database, tmp_path: Path) -> None:
    """Every view answers as it did, and a commit that was folded before is not folded again."""
    home = tmp_path / "home"
    old = History(home)
    old.commit([*everything(), make_decision(facts={"margin_c": 4.0})], "all")
    written(home, "elec2", 0, [0, 1, 1])
    before = {view.name: rows_of(old, f"FROM {view.name} ORDER BY ALL") for view in old.views()}
    past = History(home_of(home, writer))
    assert 0 == past.scores().num_rows
    with duckdb.connect() as session:
        run(session, MOVING, writer, home)
    said: list[str] = []
    moved = PREDICTIONS.replace("/srv/thermodrift/home", str(home)).replace("45_312", "3")
    for _ in range(2):
        exec(moved, {"print": said.append})  # the page's own lines
    assert ["flushed 1 commit of 0 rows", "flushed 0 commits of 0 rows"] == said
    past.commit([make_score()], "all")
    assert 0 == past.flush().files
    assert before == {name: rows_of(past, f"FROM {name} ORDER BY ALL") for name in before}


def test_what_a_restored_lake_lacks_comes_from_the_homes(writer: Database, tmp_path: Path) -> None:
    """Commits since the backup are folded in again from `kept`, those before it are not."""
    home = home_of(tmp_path / "home", writer)
    past = History(home)
    past.commit([make_score(position_from=0)], "elec2.x.0")
    past.flush()
    spool = home / "history.outbox"
    past.commit([make_score(position_from=1)], "elec2.x.1")
    past.flush()
    with past._backend.writing() as (lake, _):  # as it was at the backup
        lake.execute("DELETE FROM score_rows WHERE position_from = 1")
        lake.execute("DELETE FROM flushed_commits WHERE name = 'elec2.x.1'")
    for path in (spool / "flushed").glob("*.json"):
        shutil.copy(path, spool)
    assert 1 == store.open(home).flush().files
    assert [0, 1] == past.scores()["position_from"].to_pylist()
