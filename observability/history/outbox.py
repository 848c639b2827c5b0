"""The outbox of the history: each commit is one small file until it is flushed into the backend.

It writes files through `atomic_file`, takes no lock, and does not use DuckDB. A file holds the
SHA-256 of its rows, so a file that was cut or changed is detected and never read in part.
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
from observability.history import retention
from observability.history.records import Record

Cell = bool | int | float | str | None
"""A field in a file: a time is ISO 8601, a mapping is JSON text."""
Rows = Mapping[str, Sequence[Mapping[str, Cell]]]
"""Rows in order, by table name."""

NAME = re.compile(r"[a-z0-9._-]{1,200}")
_TEMPORARY_IS_STALE_S = 3600.0
_BEYOND_64_BITS = 2**63


class OutboxCorrupt(ValueError):
    """An outbox file was cut, or changed after it was written."""


class OutboxSchemaMismatch(ValueError):
    """An outbox file was written for another schema of the history."""


@dataclass(frozen=True)
class Logged:
    """The predictions of a commit: a range of positions in a pipeline's prediction log."""

    pipeline: str
    first: int
    last: int
    """The position after the last one."""
    only: Sequence[int] | None = None
    """Only these positions, whose earlier predictions are replaced; None: all."""


@dataclass(frozen=True)
class OutboxCommit:
    """A commit as it was read."""

    path: Path
    committed_at_ns: int
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
class Outbox:
    """The folder of waiting commits, whose rows are made for the schema number `version`."""

    folder: Path
    version: int

    def write(
        self, records: Sequence[Record], name: str, now_ns: int, logged: Logged | None = None
    ) -> Path:
        """Write one commit durably; return its file.

        Raises ValueError for a bad name or a number that cannot be stored, OSError where the disk
        refuses.
        """
        if not NAME.fullmatch(name):
            raise ValueError(
                f"a commit's name is 1 to 200 of a-z, 0-9, '.', '_' and '-'; came: {name!r}"
            )
        tables: dict[str, list[dict[str, Cell]]] = {}
        for record in records:
            row = {field: _cell(field, value) for field, value in record}
            tables.setdefault(record.table, []).append(row)
        log = None if logged is None else vars(logged)
        document = {
            "version": self.version,
            "committed_at_ns": now_ns,
            "sha256": _digest(tables, log),
            "tables": tables,
            "logged": log,
        }
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_file.sync_folder(self.folder.parent)
        path = self.folder / f"{name}.json"
        atomic_file.write(path, json.dumps(document).encode())
        return path

    def waiting(self) -> list[Path]:
        """Return the files that wait, oldest first."""
        return _oldest_first(self.folder)

    def describe(self) -> str:
        """Return a phrase about what waits, for errors while the history cannot be used."""
        count = len(self.waiting())
        commits = "1 commit waits" if count == 1 else f"{count} commits wait"
        return f"nothing is lost, {commits} in {self.folder}"

    def read(self, path: Path) -> OutboxCommit:
        """Read a commit. Raises OutboxCorrupt, OutboxSchemaMismatch, or OSError."""
        content = path.read_bytes()
        with _corruption_of(path):
            document = json.loads(content)
            version = int(document["version"])
        # Checked first, because another schema may compute the digest in another way.
        if version != self.version:
            raise OutboxSchemaMismatch(
                f"{path.name} was written for schema {version} of the history, not {self.version}: "
                "use the thermodrift that wrote it, or move the file away"
            )
        with _corruption_of(path):
            tables, log = document["tables"], document.get("logged")
            is_whole = document["sha256"] == _digest(tables, log)
            logged = None if log is None else Logged(**log)
            commit = OutboxCommit(path, int(document["committed_at_ns"]), tables, logged)
        if not is_whole:
            raise OutboxCorrupt(f"{path.name} was changed after it was written")
        return commit

    def quarantine(self, path: Path) -> Path:
        """Rename a file that cannot be read to ``*.corrupt``, so that it blocks no flush."""
        return path.replace(path.with_name(f"{path.name}.corrupt"))

    @property
    def flushed_folder(self) -> Path:
        """The folder of flushed files, which are kept in case the history loses their rows."""
        return self.folder / "flushed"

    def flushed(self) -> list[Path]:
        """Return the files whose rows are in the history, oldest first."""
        return _oldest_first(self.flushed_folder)

    def archive(self, paths: Iterable[Path]) -> None:
        """Move files whose rows are in the history; a file that is already gone is ignored."""
        self.flushed_folder.mkdir(exist_ok=True)
        for path in paths:
            with suppress(FileNotFoundError):
                path.replace(self.flushed_folder / path.name)

    def prune(self) -> None:
        """Remove the flushed files that `retention` does not keep."""
        newest_first = self.flushed()[::-1]
        stats = [path.stat() for path in newest_first]
        sizes = [(each.st_size, each.st_mtime_ns) for each in stats]
        for path in newest_first[retention.flushed_files_kept(sizes, time.time_ns()) :]:
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove temporary files that killed writers left at least an hour ago.

        A younger file may belong to a running writer, since commits take no lock.
        """
        for temporary in self.folder.glob(".*.tmp"):
            with suppress(FileNotFoundError):  # its writer renamed it meanwhile
                if time.time() - temporary.stat().st_mtime > _TEMPORARY_IS_STALE_S:
                    temporary.unlink()


@contextmanager
def _corruption_of(path: Path) -> Iterator[None]:
    """Raise OutboxCorrupt for the errors of a file with missing or wrong content."""
    try:
        yield
    except (ValueError, KeyError, TypeError, RecursionError) as cause:
        raise OutboxCorrupt(f"{path.name} is cut or is no outbox file") from cause


def _oldest_first(folder: Path) -> list[Path]:
    found = []
    for path in folder.glob("*.json"):
        with suppress(FileNotFoundError):  # another process flushed it just now
            found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def _digest(tables: object, logged: object) -> str:
    content = tables if logged is None else [tables, logged]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _cell(name: str, value: object) -> Cell:
    """Return the value for JSON: a number that is not finite is None, text is valid Unicode."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        if not -_BEYOND_64_BITS <= value < _BEYOND_64_BITS:
            raise ValueError(f"{name} must fit into 64 bits to be stored; came: {value}")
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return json.dumps({_text(str(key)): _fact(each) for key, each in value.items()})
    raise TypeError(f"{name} cannot be stored in the history: {type(value).__name__}")


def _fact(value: object) -> object:
    if isinstance(value, str):
        return _text(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
