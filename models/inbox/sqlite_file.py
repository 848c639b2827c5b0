"""The inbox's SQLite file: how it is opened, to write or to read, and when it is refused.

One connection of one process writes, held by a lock of the operating system beside the file; all
others are read-only and never checkpoint. So the data race of SQLite before 3.51.3 between two
connections that write or checkpoint at once (sqlite.org/wal.html#walresetbug) cannot occur.

Nothing else may open this file in a process that has it open: closing any handle of a file releases
the locks that SQLite has on it. A file that is refused is left as it is.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from json import JSONDecodeError
from pathlib import Path
from uuid import uuid4

from models.inbox.config import InboxConfig
from models.inbox.errors import (
    InboxBusy,
    InboxDamaged,
    InboxMissing,
    InboxUnwritable,
    InboxVersionUnknown,
)
from observability.core import atomic_file, file_lock
from observability.core.errors import ThermodriftError
from observability.core.file_lock import Lock

APPLICATION_ID = 0x74644942
"""Marks the file as an inbox, in SQLite's header: "tdIB"."""
SCHEMA_VERSION = 1
_BUSY_S = 10.0
_LARGEST_LOG_BYTES = 64 * 2**20
"""The log is cut to this after a large transaction or a long read made it grow."""

_SCHEMA = (
    """CREATE TABLE waiting (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        predicted_at REAL NOT NULL,
        features TEXT NOT NULL,
        answers TEXT NOT NULL,
        versions TEXT NOT NULL
    )""",
    "CREATE INDEX waiting_by_age ON waiting (predicted_at, number)",
    """CREATE TABLE joined (
        position INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        predicted_at REAL NOT NULL,
        labelled_at REAL NOT NULL,
        label TEXT NOT NULL,
        features TEXT NOT NULL,
        answers TEXT NOT NULL,
        versions TEXT NOT NULL
    )""",
    "CREATE INDEX joined_by_age ON joined (predicted_at, labelled_at)",
    # Expired predictions, whose position and label are null, and forgotten ones.
    """CREATE TABLE ended (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        digest BLOB NOT NULL,
        predicted_at REAL NOT NULL,
        ended_at REAL NOT NULL,
        position INTEGER,
        label TEXT
    )""",
    """CREATE TABLE totals (
        identity TEXT NOT NULL,
        recorded INTEGER NOT NULL,
        waiting INTEGER NOT NULL,
        next_position INTEGER NOT NULL,
        first_position INTEGER NOT NULL,
        expired INTEGER NOT NULL,
        ended_first INTEGER NOT NULL,
        ended_next INTEGER NOT NULL,
        complete_after REAL NOT NULL,
        newest_at REAL NOT NULL
    )""",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


def open_to_write(path: Path, config: InboxConfig) -> tuple[sqlite3.Connection, Lock]:
    """Open the inbox `path` to write, and make it if it is missing; its lock is held then.

    Raises InboxBusy where another process writes it, InboxDamaged, InboxVersionUnknown, and
    InboxUnwritable.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _locked(path)
        try:
            _refuse_unreadable(path)
            return _connected(path, config), lock
        except BaseException:
            lock.release()
            raise


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open the inbox `path` to read alone, beside its writer or without one.

    Raises InboxMissing where nothing was recorded yet, InboxDamaged, InboxVersionUnknown, and
    InboxUnwritable where the disk refuses.
    """
    with explained(path):
        if not path.exists():
            raise InboxMissing(f"{path} is not there: no prediction has been recorded yet")
        connection = _connect(path, "ro")
        try:
            if _is_known(connection, path):
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        raise InboxMissing(f"{path} is empty: no prediction has been recorded yet")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise our own errors for those of SQLite and of the disk."""
    try:
        yield
    except ThermodriftError:
        raise
    except (sqlite3.Error, OSError, JSONDecodeError) as error:
        raise explain(error, path) from error


def explain(error: Exception, path: Path) -> Exception:
    """Return what a caller is told of an error of SQLite or of the disk."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    damaged = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
    if code in damaged or isinstance(error, JSONDecodeError):
        return _damaged(path, str(error))
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return InboxBusy(f"{path} is locked by another process ({error}): try again")
    if isinstance(error, OSError):
        refused = atomic_file.refusal(error, path)
        return InboxUnwritable(f"{refused}: {atomic_file.remedy(error)}, and repeat the call")
    if isinstance(error, sqlite3.Error):
        return InboxUnwritable(
            f"{path} cannot be used: {error}. Look at the space and the rights there, and repeat "
            "the call: what was stored already is not stored twice"
        )
    return error


def _locked(path: Path) -> Lock:
    try:
        return file_lock.acquire(path.with_name(f"{path.name}.lock"))
    except file_lock.LockBusy as error:
        raise InboxBusy(
            f"{path} is written by another process ({error.holder or 'unknown'}), and one alone "
            "may write it. Stop that one, or open it to read"
        ) from error


def _refuse_unreadable(path: Path) -> None:
    """Look at the file through a read-only connection, which changes nothing of it."""
    log = path.with_name(f"{path.name}-wal")
    if not path.exists() or not path.stat().st_size:
        if log.exists() and log.stat().st_size:
            # SQLite would delete the log, and with it what was committed last.
            raise _damaged(path, f"the file is gone, and its log {log.name} is there")
        return
    with closing(_connect(path, "ro")) as connection:
        _is_known(connection, path)
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise _damaged(path, found)


def _is_known(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether it is an inbox of this version; False where it has nothing in it yet."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (entries,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application, version, entries) == (0, 0, 0):
        return False
    if application != APPLICATION_ID:
        raise _damaged(path, "it is a database of something else")
    if version != SCHEMA_VERSION:
        raise InboxVersionUnknown(
            f"{path} has the schema version {version}, and this thermodrift reads "
            f"{SCHEMA_VERSION}. Use the version that wrote it, or {_aside(path)}"
        )
    return True


def _damaged(path: Path, found: str) -> InboxDamaged:
    return InboxDamaged(
        f"{path} cannot be read as an inbox: {found}. Nothing was changed. Put a copy of it back, "
        f"or {_aside(path)}"
    )


def _aside(path: Path) -> str:
    return (
        f"move it elsewhere with {path.name}-wal and {path.name}-shm, if they are there: the next "
        "start begins a new inbox, whose positions begin at 0"
    )


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )


def _connected(path: Path, config: InboxConfig) -> sqlite3.Connection:
    connection = _connect(path, "rwc")
    try:
        _set_durability(connection, path, config)
        if not _is_known(connection, path):
            _create(connection)
            atomic_file.sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.close()
        raise
    return connection


def _set_durability(connection: sqlite3.Connection, path: Path, config: InboxConfig) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise InboxUnwritable(
            f"{path} is on a file system without shared memory, which its log needs: use a folder "
            "on a local disk"
        )
    connection.execute(f"PRAGMA journal_size_limit = {_LARGEST_LOG_BYTES}")
    connection.execute(f"PRAGMA synchronous = {config.synchronous}")
    # macOS alone: there fsync does not reach the disk itself.
    connection.execute("PRAGMA fullfsync = ON")
    connection.execute("PRAGMA checkpoint_fullfsync = ON")


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute(
        "INSERT INTO totals VALUES (?, 0, 0, 0, 0, 0, 0, 0, ?, ?)",
        (uuid4().hex, float("-inf"), float("-inf")),
    )
    connection.execute("COMMIT")
