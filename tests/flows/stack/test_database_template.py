"""The empty database that Prefect is given: one that it had made itself, or none."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.stack import database_template


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which nothing is yet."""
    folder = tmp_path / "cache" / "deeper"
    monkeypatch.setenv("THERMODRIFT_CACHE", str(folder))
    return folder


def migrated(path: Path, revisions: int = 1) -> sqlite3.Connection:
    """A database as Prefect leaves it, in use: part of it is in its write-ahead log."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
    connection.execute("CREATE TABLE flow (name TEXT)")
    for _ in range(revisions):
        connection.execute("INSERT INTO alembic_version VALUES ('abc')")
    return connection


def tables(path: Path) -> list[str]:
    """Names of the tables of a database."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master ORDER BY name")
        return [name for (name,) in found]


def test_a_database_that_prefect_made_is_the_next_new_one(tmp_path: Path, cache: Path) -> None:
    """Whole, though its maker still used it; what lay beside a removed one is not mixed in."""
    with closing(migrated(tmp_path / "first.db")):
        database_template.save_template(tmp_path / "first.db")
    (kept,) = cache.iterdir()
    assert 0o700 == cache.stat().st_mode & 0o777
    (tmp_path / "next.db-wal").write_bytes(b"of another one")
    assert database_template.copy_template(tmp_path / "next.db")
    assert ["alembic_version", "flow"] == tables(tmp_path / "next.db") == tables(kept)
    assert not (tmp_path / "next.db-wal").exists()


def test_one_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """Also where another one is kept."""
    with closing(migrated(tmp_path / "first.db")):
        database_template.save_template(tmp_path / "first.db")
    (tmp_path / "there.db").write_bytes(b"somebody's")
    assert database_template.copy_template(tmp_path / "there.db")
    assert b"somebody's" == (tmp_path / "there.db").read_bytes()


@pytest.mark.parametrize("what", ["nothing", "no database", "half migrated", "cut"])
def test_what_is_not_sound_is_not_used(tmp_path: Path, cache: Path, what: str) -> None:
    """Prefect then makes its own, as it always did."""
    with closing(migrated(tmp_path / "first.db", revisions=0 if what == "half migrated" else 1)):
        database_template.save_template(tmp_path / "first.db")
    (kept,) = cache.iterdir()
    if what == "nothing":
        kept.unlink()
    if what == "no database":
        kept.write_bytes(b"no database at all")
    if what == "cut":
        kept.write_bytes(kept.read_bytes()[:5_000])
    assert not database_template.copy_template(tmp_path / "next.db")
    assert [] == list(tmp_path.glob("*next*"))


def test_a_cache_that_cannot_be_had_is_no_reason_to_fail(tmp_path: Path, cache: Path) -> None:
    """A file is in the way of its folder, say."""
    cache.parent.write_bytes(b"in the way")
    with closing(migrated(tmp_path / "first.db")):
        database_template.save_template(tmp_path / "first.db")
    assert not database_template.copy_template(tmp_path / "next.db")


def test_the_first_one_stays(tmp_path: Path, cache: Path) -> None:
    """It is the same for all: nobody writes over what others may be copying."""
    with closing(migrated(tmp_path / "first.db")):
        database_template.save_template(tmp_path / "first.db")
        (kept,) = cache.iterdir()
        before = kept.stat().st_ino
        database_template.save_template(tmp_path / "first.db")
    assert [kept] == list(cache.iterdir())
    assert before == kept.stat().st_ino
