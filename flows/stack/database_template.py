"""A new database for Prefect's API, copied from one that went through its migrations before.

Those are a hundred, take longer than all else that a first run of a pipeline waits for, and come to
the same each time. So the first one is kept in the user's cache, by Prefect's version, and copied
from then on. Without it, or where it cannot be had, Prefect makes its database itself.
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


def put(database: Path) -> bool:
    """Put a new database where none is; False where Prefect has to make it itself."""
    if not database.exists():
        with suppress(*_TROUBLE):
            _copy(_kept(), database)
    return database.exists()


def keep(database: Path) -> None:
    """Keep one that Prefect made just now, and in which nothing is recorded yet."""
    with suppress(*_TROUBLE):
        _keep(database, _kept())


def _kept() -> Path:
    return settings.cache_folder() / f"prefect-{version('prefect')}.db"


def _copy(kept: Path, database: Path) -> None:
    with closing(sqlite3.connect(f"{kept.as_uri()}?mode=ro", uri=True)) as connection:
        (sound,) = connection.execute("PRAGMA quick_check").fetchone()
        (migrated,) = connection.execute("SELECT count(*) FROM alembic_version").fetchone()
    if (sound, migrated) != ("ok", 1):
        return
    aside = database.with_name(f".{database.name}.{os.getpid()}.tmp")
    try:
        shutil.copyfile(kept, aside)
        for ending in ("-wal", "-shm"):
            # Of a database that somebody removed: they are not this one's.
            database.with_name(database.name + ending).unlink(missing_ok=True)
        aside.replace(database)
    finally:
        aside.unlink(missing_ok=True)


def _keep(database: Path, kept: Path) -> None:
    if kept.exists():
        return
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = kept.with_name(f".{kept.name}.{os.getpid()}.tmp")
    try:
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(aside)) as copy:
            source.backup(copy)
            # One file, without a log of its own beside it.
            copy.execute("PRAGMA journal_mode = DELETE")
        aside.replace(kept)
    finally:
        aside.unlink(missing_ok=True)
