"""A new database for Prefect's API, copied from one whose migrations have run before.

Prefect runs about a hundred migrations, which take most of the time of a first run's start, and
always have the same result. So the first database is kept in the user's cache, named by Prefect's
version, and copied from then on. Without it, Prefect creates its database itself.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

from flows.config import settings

_ERRORS = (OSError, sqlite3.Error)


def copy_template(database: Path) -> bool:
    """Create a new database where none is; False where Prefect has to create it."""
    if database.exists():
        return True
    template, temporary = _template(), _temporary(database)
    with suppress(*_ERRORS):
        with closing(sqlite3.connect(f"{template.as_uri()}?mode=ro", uri=True)) as connection:
            (sound,) = connection.execute("PRAGMA quick_check").fetchone()
            (migrated,) = connection.execute("SELECT count(*) FROM alembic_version").fetchone()
        if (sound, migrated) == ("ok", 1):
            try:
                shutil.copyfile(template, temporary)
                remove(database)
                temporary.replace(database)
            finally:
                temporary.unlink(missing_ok=True)
    return database.exists()


def save_template(database: Path) -> None:
    """Keep a database that Prefect has just created, before anything is recorded in it."""
    template = _template()
    temporary = _temporary(template)
    if template.exists():
        return
    with suppress(*_ERRORS):
        template.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with (
                closing(sqlite3.connect(database)) as source,
                closing(sqlite3.connect(temporary)) as copy,
            ):
                source.backup(copy)
                # Without a write-ahead log beside it, it is one file.
                copy.execute("PRAGMA journal_mode = DELETE")
            temporary.replace(template)
        finally:
            temporary.unlink(missing_ok=True)


def remove(database: Path) -> None:
    """Remove a database with its write-ahead log, or such a log alone."""
    for ending in ("", "-wal", "-shm"):
        database.with_name(database.name + ending).unlink(missing_ok=True)


def _template() -> Path:
    return settings.cache_folder() / f"prefect-{version('prefect')}.db"


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
