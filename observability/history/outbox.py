"""Door to the spool: each commit is one small file until it is folded into the history.

Touches files alone, through `durable`: it takes no lock, and knows nothing of DuckDB. A file
answers for itself: its SHA-256 covers its rows, so what was cut or changed is noticed and is never
half believed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from observability.core import atomic_file
from observability.history.records import Record

Cell = bool | int | float | str | None
"""What a file holds of a field: a time as ISO 8601, a mapping as JSON text."""
Rows = Mapping[str, Sequence[Mapping[str, Cell]]]
"""Rows in order, by the name of their table."""

NAME = re.compile(r"[a-z0-9._-]{1,200}")
KEPT_FILES = 1000
KEPT_BYTES = 64 << 20
KEPT_DAYS = 7
"""How much is kept of what was folded; a commit's name is known for longer (see `keeping`)."""
_NS_PER_DAY = 86_400 * 10**9
_ASIDE_IS_STALE_S = 3600.0
_BEYOND_64_BITS = 2**63


class SpoolTorn(ValueError):
    """A spool file is not whole: it was cut, or changed after it was written."""


class SpoolTooNew(ValueError):
    """A spool file was written by a newer thermodrift than this one."""


@dataclass(frozen=True)
class Logged:
    """Predictions that belong to a commit: a pipeline's log from position to position."""

    pipeline: str
    first: int
    last: int
    """The position after the last one."""
    only: Sequence[int] | None = None
    """Of these positions alone, in the place of what was brought of them before; None: of all."""


@dataclass(frozen=True)
class Spooled:
    """A commit read back."""

    path: Path
    spooled_at_ns: int
    tables: Rows
    logged: Logged | None = None

    @property
    def name(self) -> str:
        """The commit's idempotency key."""
        return self.path.name.removesuffix(".json")

    @property
    def count(self) -> int:
        """Number of rows."""
        return sum(len(rows) for rows in self.tables.values())


@dataclass(frozen=True)
class Spool:
    """The folder of the files that wait.

    `version` is the history's version that the rows are made for.
    """

    folder: Path
    version: int

    def write(
        self, records: Sequence[Record], name: str, now_ns: int, logged: Logged | None = None
    ) -> Path:
        """Write one commit, durably; its file.

        Raises ValueError for a bad name or a number that cannot be kept, OSError where the disk
        refuses.
        """
        if not NAME.fullmatch(name):
            raise ValueError(
                f"a commit's name is 1 to 200 of a-z, 0-9, '.', '_' and '-'; came: {name!r}"
            )
        content = _document(records, self.version, now_ns, logged)
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_file.sync_folder(self.folder.parent)
        path = self.folder / f"{name}.json"
        atomic_file.write(path, content)
        return path

    def waiting(self) -> list[Path]:
        """The files that wait, oldest first."""
        return _aged(self.folder)

    def told(self) -> str:
        """What waits and where, for whoever is told that the history cannot be had now."""
        count = len(self.waiting())
        commits = "1 spooled commit" if count == 1 else f"{count} spooled commits"
        return f"nothing is lost, {commits} in {self.folder}"

    def read(self, path: Path) -> Spooled:
        """The commit in `path`. Raises SpoolTorn, SpoolTooNew, or OSError."""
        content = path.read_bytes()
        with _torn(path):
            document = json.loads(content)
            version = int(document["version"])
        # First, because a newer digest may be over more than is known here.
        if version > self.version:
            raise SpoolTooNew(f"{path.name} was written by a newer thermodrift (rows {version})")
        with _torn(path):
            tables, logged = document["tables"], document.get("logged")
            whole = document["sha256"] == _digest(tables, logged)
            spooled_at_ns = int(document["spooled_at_ns"])
            belonging = None if logged is None else Logged(**logged)
        if not whole:
            raise SpoolTorn(f"{path.name} was changed after it was written")
        return Spooled(path, spooled_at_ns, tables, belonging)

    def set_aside(self, path: Path) -> Path:
        """Rename a file that cannot be read to ``*.torn``, so that it is seen but blocks nobody."""
        torn = path.with_name(f"{path.name}.torn")
        path.replace(torn)
        return torn

    @property
    def kept_folder(self) -> Path:
        """Where files are kept after their rows are in the history, should that lose some."""
        return self.folder / "kept"

    def kept(self) -> list[Path]:
        """The files whose rows the history holds, oldest first."""
        return _aged(self.kept_folder)

    def keep(self, paths: Iterable[Path]) -> None:
        """Put files away whose rows the history holds; one that is gone already is no matter."""
        self.kept_folder.mkdir(exist_ok=True)
        for path in paths:
            with suppress(FileNotFoundError):
                path.replace(self.kept_folder / path.name)

    def prune(self) -> None:
        """Remove kept files beyond the newest: so many, so old, so large together."""
        oldest_ns, size = time.time_ns() - KEPT_DAYS * _NS_PER_DAY, 0
        for count, path in enumerate(reversed(self.kept())):
            stat = path.stat()
            size += stat.st_size
            if count >= KEPT_FILES or size > KEPT_BYTES or stat.st_mtime_ns < oldest_ns:
                path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what killed writers left aside an hour ago or more.

        Younger ones may belong to a writer at work: commits take no lock.
        """
        for aside in self.folder.glob(".*.aside"):
            with suppress(FileNotFoundError):  # its writer renamed it meanwhile
                if time.time() - aside.stat().st_mtime > _ASIDE_IS_STALE_S:
                    aside.unlink()


@contextmanager
def _torn(path: Path) -> Iterator[None]:
    """What is not there, or of another kind, is missing from a whole file."""
    try:
        yield
    except (ValueError, KeyError, TypeError, RecursionError) as cause:
        raise SpoolTorn(f"{path.name} is cut or is no spool file") from cause


def _aged(folder: Path) -> list[Path]:
    """The spool files in `folder`, oldest first."""
    aged = []
    for path in folder.glob("*.json"):
        with suppress(FileNotFoundError):  # another process folded it just now
            aged.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(aged)]


def _document(records: Sequence[Record], version: int, now_ns: int, logged: Logged | None) -> bytes:
    tables: dict[str, list[dict[str, Cell]]] = {}
    for record in records:
        row = {name: _cell(name, value) for name, value in record}
        tables.setdefault(record.table, []).append(row)
    log = None if logged is None else vars(logged)
    document = {
        "version": version,
        "spooled_at_ns": now_ns,
        "sha256": _digest(tables, log),
        "tables": tables,
        "logged": log,
    }
    return json.dumps(document).encode()


def _digest(tables: object, logged: object) -> str:
    told = tables if logged is None else [tables, logged]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _cell(name: str, value: object) -> Cell:
    """A number that is not finite is unknown; text that is not Unicode is escaped."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        if not -_BEYOND_64_BITS <= value < _BEYOND_64_BITS:
            raise ValueError(f"{name} must fit into 64 bits to be kept; came: {value}")
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return json.dumps({_text(str(key)): _fact(each) for key, each in value.items()})
    raise TypeError(f"{name} cannot be kept in the history: {type(value).__name__}")


def _fact(value: object) -> object:
    if isinstance(value, str):
        return _text(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
