"""A new database for Prefect's API, copied from one whose migrations have run before.

Prefect runs about a hundred migrations, which take longer than all else that a first run waits for,
and have the same result each time. So the first database is kept in the user's cache, named by
Prefect's version, and copied from then on. Without it, Prefect makes its database itself.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

from flows.config import settings

_TROUBLE = (OSError, sqlite3.Error)


def copy_template(database: Path) -> bool:
    """Put a new database where none is; False where Prefect has to make it itself."""
    if database.exists():
        return True
    kept, aside = _kept(), _aside(database)
    with suppress(*_TROUBLE):
        with closing(sqlite3.connect(f"{kept.as_uri()}?mode=ro", uri=True)) as connection:
            (sound,) = connection.execute("PRAGMA quick_check").fetchone()
            (migrated,) = connection.execute("SELECT count(*) FROM alembic_version").fetchone()
        if (sound, migrated) == ("ok", 1):
            try:
                shutil.copyfile(kept, aside)
                remove(database)
                aside.replace(database)
            finally:
                aside.unlink(missing_ok=True)
    return database.exists()


def save_template(database: Path) -> None:
    """Keep one that Prefect made just now, and in which nothing is recorded yet."""
    kept = _kept()
    aside = _aside(kept)
    if kept.exists():
        return
    with suppress(*_TROUBLE):
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with (
                closing(sqlite3.connect(database)) as source,
                closing(sqlite3.connect(aside)) as copy,
            ):
                source.backup(copy)
                # Without a write-ahead log beside it, it is one file.
                copy.execute("PRAGMA journal_mode = DELETE")
            aside.replace(kept)
        finally:
            aside.unlink(missing_ok=True)


def remove(database: Path) -> None:
    """Remove a database with its write-ahead log, or the log that one left which is gone."""
    for ending in ("", "-wal", "-shm"):
        database.with_name(database.name + ending).unlink(missing_ok=True)


def _kept() -> Path:
    return settings.cache_folder() / f"prefect-{version('prefect')}.db"


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
