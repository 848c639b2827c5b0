"""A DuckLake of several hosts, as a backend: Parquet files in a shared folder, a catalogue in
PostgreSQL.

A part of the door `history`. The lake itself keeps hosts apart, and each commit of it is all or
nothing, so there is no file to hold and no watermark. The prediction log stays where it was made;
the predictions that a question sees are copied into the lake with the commit that they belong to.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from observability.core import atomic_file, log_segments
from observability.core.errors import BadConfiguration, ThermodriftError
from observability.core.paths import Places
from observability.history import schema
from observability.history.backends import duckdb_connection as ducks
from observability.history.backends.backend import Backend
from observability.history.backends.duckdb_connection import Duck, Mode
from observability.history.errors import (
    HistoryBusy,
    HistoryDamaged,
    HistorySchemaMismatch,
    HistoryUnreachable,
    HistoryUnwritable,
)
from observability.history.home_config import HistoryPlace
from observability.history.loss import Loss
from observability.history.outbox import Logged
from observability.history.retention import RetentionConfig

SNAPSHOTS_KEPT_DAYS = 7
"""How far back the lake can be queried as it was; older files of it are removed."""
INLINED_ROWS = 500
"""Rows of one insert that go into the catalogue, to be written as Parquet by upkeep, in bulk."""
RETRIES = 100
"""How often the lake itself repeats a commit that conflicted with another host's."""
ATTEMPTS = 5
"""How often a host tries to create a lake that other hosts create as well."""
SILENCE_S = 30.0
"""After a failure to reach the lake it is not tried for so long: no flush may stall a loop."""

CLOCK_SLACK_MS = 60_000
"""A clock may be set back by so much between two calls."""

_EXTENSIONS = ("ducklake", "postgres_scanner")
_CONNECTION = (
    "connect_timeout=5 keepalives_idle=10 keepalives_interval=5 keepalives_count=3 "
    "tcp_user_timeout=8000 application_name=thermodrift"
)
_PREAMBLE = re.compile(r'IO Error: Failed to attach .*?Unable to connect to Postgres at "[^"]*": ')
# The query that failed holds rows; they must not be mistaken for the error's text.
_QUERY = re.compile(r'Failed to execute query ".*":\s*(?=ERROR:)', re.DOTALL)
_CONFLICT = re.compile(
    r"[Tt]ransaction conflict|could not serialize|Exceeded the maximum retry count|"
    r"Failed to initialize DuckLake: .*(duplicate key|already exists|concurrently)"
)
_NO_LAKE = re.compile(r"creating a new DuckLake is explicitly disabled")
_REFUSED = re.compile(
    r"authentication failed|no password supplied|(database|role) \S+ does not exist|pg_hba\.conf|"
    r"permission denied for|must be owner|"
    r"invalid (connection option|\S+ value)|does not support SSL|certificate|private key"
)
_GONE = re.compile(
    r"Unable to connect|could not connect|connection to server at|"
    r"[Cc]onnection (refused|reset|timed out)|"
    r"server closed the connection|terminating connection|no connection to the server|"
    r"starting up|shutting down|could not translate host name|too many clients|"
    r"could not receive data|could not send data|SSL (SYSCALL|connection)|"
    # What is left of a transaction whose connection was cut.
    r'Failed to commit: Failed to execute query "ROLLBACK"|Current transaction is aborted'
)
_UUID = re.compile(r"ducklake-([0-9a-f]{8})-([0-9a-f]{4})-7")
_DISK_REFUSES = re.compile(
    r"No space left|Permission denied|Read-only file system|Could not (create|write)|Disk quota|"
    r"Input/output error|Failed to create directory",
    re.IGNORECASE,
)
_PREDICTIONS = (
    "CREATE TABLE prediction_types (pipeline VARCHAR, type VARCHAR)",
    """CREATE TABLE prediction_rows (
        pipeline VARCHAR, "position" BIGINT, label VARCHAR, online VARCHAR, batch VARCHAR,
        baseline VARCHAR, served VARCHAR, online_probability DOUBLE, batch_probability DOUBLE,
        served_probability DOUBLE, model_version VARCHAR)""",
)
"""Tables of a lake alone: its hosts do not share the Parquet files of their prediction logs."""


_OLD_PREDICTIONS = """
DELETE FROM prediction_rows USING (
    SELECT pipeline, max("position") - ? AS horizon
    FROM prediction_rows GROUP BY pipeline) AS ends
WHERE prediction_rows.pipeline = ends.pipeline AND prediction_rows."position" <= ends.horizon"""


class DuckLake(Backend):
    """The lake that `place` names, as one home sees it; see `Backend`."""

    def __init__(self, places: Places, place: HistoryPlace, waiting: Callable[[], str]) -> None:
        assert place.url is not None
        assert place.data is not None
        self._url = url = urlsplit(place.url)
        user = f"{url.username}@" if url.username else ""
        port = f":{url.port}" if url.port else ""
        where = f"{url.scheme}://{user}{url.hostname or ''}{port}{url.path}"
        super().__init__(places, where, places.home / "history.lock", waiting)
        self._data = place.data.rstrip("/") + "/"
        self._silent_until_s = 0.0
        self._is_created = False
        self._began_ms = 0

    @contextmanager
    def writing(self) -> Iterator[tuple[Duck, Loss | None]]:
        """The lake, open to write; it never has a loss."""
        if not self._is_created:
            self._create()
            self._is_created = True
        self._began_ms = time.time_ns() // 1_000_000
        with self._opened("READ_WRITE") as duck:
            if not self._has_schema(duck):
                self._is_created = False
                raise HistoryBusy(
                    f"{self.where} is empty, and was not a moment ago: try again; {self._waiting()}"
                )
            self._check_data(duck)
            yield duck, None

    @contextmanager
    def reading(self) -> Iterator[Duck | None]:
        """The lake, open to read; None where it is absent or empty, and must be written first."""
        try:
            with self._opened("READ_ONLY") as duck:
                yield duck if self._has_schema(duck) else None
        except _NoLake:
            yield None

    def fence(self, duck: Duck) -> None:
        """Restrict a question to the lake."""
        duck.fence([self._data])

    def finish(self, duck: Duck, commits: int) -> None:
        """Make durable the files that this transaction refers to: the last thing in it."""
        self._sync_files()

    def ingest_predictions(self, duck: Duck, logged: Logged) -> str:
        """See `Backend`."""
        folder = self._places.pipeline(logged.pipeline).predictions
        files = [str(path) for path in _holding(folder, logged.first, logged.last)]
        if not files:
            return f"the predictions {logged.first} to {logged.last} are not in {folder}"
        columns = ", ".join(f'"{name}"' for name in schema.LOGGED_COLUMNS)
        insert = (
            f"INSERT INTO prediction_rows BY NAME SELECT ? AS pipeline, {columns} "
            'FROM read_parquet(?, union_by_name = true) WHERE "position" >= ? AND "position" < ?'
        )
        where = [logged.pipeline, files, logged.first, logged.last]
        if logged.only is None:
            duck.execute(insert, where)
        else:
            # The commit of their batch may have been flushed after they were put into the log.
            listed = '"position" IN (SELECT unnest(?::BIGINT[]))'
            duck.execute(
                f"DELETE FROM prediction_rows WHERE pipeline = ? AND {listed}",
                [logged.pipeline, list(logged.only)],
            )
            duck.execute(f"{insert} AND {listed}", [*where, list(logged.only)])
        self._note_types(duck, logged.pipeline, files[0])
        return ""

    def vacuum_flushed(self, duck: Duck, rules: RetentionConfig) -> int:
        """Remove predictions that `rules` no longer keep; how many."""
        removed = 0
        if rules.predictions_keep is not None:
            removed = int(duck.one(_OLD_PREDICTIONS, [rules.predictions_keep]) or 0)
        self._sync_files()  # a removal writes files as well
        return removed

    def vacuum(self, duck: Duck) -> str:
        """Write inlined rows as Parquet, merge small files, remove files that are not used."""
        with duck.transaction():
            flushed = duck.execute("CALL ducklake_flush_inlined_data('lake')")
            self._sync_files()
        with duck.transaction():
            merged = duck.execute("CALL ducklake_merge_adjacent_files('lake')")
            self._sync_files()
        before = f"now() - INTERVAL {SNAPSHOTS_KEPT_DAYS} DAY"
        duck.execute(f"CALL ducklake_expire_snapshots('lake', older_than => {before})")
        cleaned = duck.execute(f"CALL ducklake_cleanup_old_files('lake', older_than => {before})")
        rows = sum(int(each[-1]) for each in flushed)
        files = sum(int(each[-2]) for each in merged)
        return (
            f"the lake: {rows} rows written as Parquet, {files} files merged, "
            f"{len(cleaned)} old ones removed"
        )

    def _sync_files(self) -> None:
        """Make durable what was written since the lake was opened. Call it before the commit.

        DuckDB does not fsync Parquet files. After a loss of power the catalogue would name an empty
        file, and no question about its table could be answered.
        """
        folders = {Path(self._data)}
        for path in Path(self._data).rglob("ducklake-*.parquet"):
            if _written_ms(path.name) >= self._began_ms - CLOCK_SLACK_MS:
                with suppress(FileNotFoundError):  # another host wrote it and removed it again
                    atomic_file.sync_file(path)
                folders |= {path.parent, path.parent.parent}
        for folder in folders:
            atomic_file.sync_folder(folder)

    def _create(self) -> None:
        """Create the lake and its tables; of several hosts that try at once, one succeeds."""
        self._make_room()
        for _ in range(ATTEMPTS):
            try:
                with self._opened("READ_WRITE") as duck:
                    if not self._has_schema(duck):
                        with duck.transaction():
                            self._create_schema(duck)
                            for statement in _PREDICTIONS:
                                duck.execute(statement)
                            _renew_view(duck)
                    return
            except HistoryBusy as conflict:
                met = conflict
        raise met

    def _make_room(self) -> None:
        """Create the folder of the data; DuckDB's own error about it would mislead."""
        data = Path(self._data)
        try:
            data.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise HistoryUnwritable(
                f"the lake's data cannot be kept in {data}: {cause}; {atomic_file.remedy(cause)}; "
                f"{self._waiting()}"
            ) from cause
        if not os.access(data, os.R_OK | os.W_OK | os.X_OK):
            raise HistoryUnwritable(
                f"the lake's data cannot be kept in {data}: this user may not write there; give "
                f"permission; {self._waiting()}"
            )

    def _check_data(self, duck: Duck) -> None:
        """Raise HistoryUnwritable where the folder is empty, and the lake has files in it.

        The folder is then most likely a share that is not mounted: what is written into the empty
        folder would be hidden, and so lost to the lake, once the share is mounted.
        """
        data = Path(self._data)
        if next(data.glob("*"), None) is not None:
            return
        files = int(duck.one("SELECT sum(file_count) FROM ducklake_table_info('lake')") or 0)
        if files:
            raise HistoryUnwritable(
                f"{data} is empty or gone, and the lake has {files} files in it: mount it, or bring"
                f" it back; {self._waiting()}"
            )

    def _note_types(self, duck: Duck, pipeline: str, file: str) -> None:
        """Widen the view's type where this pipeline's labels have a type that is new to it."""
        known = {each for (each,) in duck.execute("SELECT type FROM prediction_types")}
        columns = duck.parquet_columns(file) or {}
        new = {columns[name] for name in schema.LABEL_COLUMNS if name in columns} - known
        for each in sorted(new):
            duck.execute("INSERT INTO prediction_types VALUES (?, ?)", [pipeline, each])
        if new:
            _renew_view(duck)

    @contextmanager
    def _opened(self, mode: Mode) -> Iterator[Duck]:
        wait_s = self._silent_until_s - time.monotonic()
        if wait_s > 0:
            raise HistoryUnreachable(
                f"{self.where} did not answer a moment ago and is asked again in {wait_s:.0f} s;"
                f" {self._waiting()}"
            )
        with ducks.opened(None, "READ_WRITE", self._told) as duck:
            for name in _EXTENSIONS:
                duck.load(name)
            duck.execute(f"SET ducklake_max_retry_count = {RETRIES}")
            duck.execute(_secret(self._url))
            catalogue = " ".join(["ducklake:postgres:" + _CONNECTION, *_options(self._url.query)])
            read_only = "READ_ONLY, " if mode == "READ_ONLY" else ""
            duck.execute(
                f"ATTACH {schema.quoted(catalogue)} AS lake ({read_only}"
                f"DATA_PATH {schema.quoted(self._data)}, META_SECRET 'lake_catalogue', "
                f"DATA_INLINING_ROW_LIMIT {INLINED_ROWS})"
            )
            duck.execute("USE lake")
            yield duck

    def _told(self, text: str) -> ThermodriftError:
        """Our error for one of DuckDB's, without the rows and the password that its text holds."""
        text = _QUERY.sub("", _PREAMBLE.sub("", text))
        password = unquote(self._url.password or "")
        shown = text.replace(password, "***") if password else text
        if _NO_LAKE.search(text):
            return _NoLake(shown)
        if _CONFLICT.search(text):
            return HistoryBusy(
                f"another host changed {self.where} at the same moment ({shown}): try again; "
                f"{self._waiting()}"
            )
        if _REFUSED.search(text):
            return BadConfiguration(
                f"{self._places.settings}: history.url: PostgreSQL refuses {self.where}: "
                f"{shown}; correct the URL, the password in ~/.pgpass, or what that role may do; "
                f"{self._waiting()}"
            )
        if "catalog version mismatch" in text:
            return HistorySchemaMismatch(
                f"{self.where} was made by another release of DuckLake: {shown}; use the same "
                f"thermodrift on every host; {self._waiting()}"
            )
        if "does not match existing data path" in text:
            return BadConfiguration(
                f"{self._places.settings}: history.data: {shown.split('You can')[0].strip()} Every "
                f"host names the same folder; {self._waiting()}"
            )
        if _GONE.search(text):
            self._silent_until_s = time.monotonic() + SILENCE_S
            return HistoryUnreachable(f"{self.where} does not answer: {shown}; {self._waiting()}")
        if _DISK_REFUSES.search(text):
            return HistoryUnwritable(
                f"the lake's data in {self._data} cannot be written or read: {shown}; make space "
                f"or give permission, then run again; {self._waiting()}"
            )
        return HistoryDamaged(f"{self.where} cannot be used: {shown}; {self._waiting()}")

    def _busy(self, pid: str) -> str:
        who = f"process {pid}" if pid else "another process"
        return f"{who} of this home flushes into {self.where}: try again; {self._waiting()}"


class _NoLake(ThermodriftError):
    """The database is there and holds no lake yet."""


def _secret(url: SplitResult) -> str:
    """The SQL that tells DuckDB where PostgreSQL is; a temporary secret is never shown.

    libpq finds what the URL leaves out in PGPASSWORD, ~/.pgpass and PGUSER.
    """
    parts = {
        "HOST": url.hostname,
        "PORT": url.port,
        "USER": url.username and unquote(url.username),
        "PASSWORD": url.password and unquote(url.password),
        "DATABASE": unquote(url.path.lstrip("/")) or None,
    }
    options = [f"{name} {schema.quoted(str(value))}" for name, value in parts.items() if value]
    return f"CREATE TEMPORARY SECRET lake_catalogue ({', '.join(['TYPE postgres', *options])})"


def _written_ms(name: str) -> int:
    """When a file of the lake was named, in ms since 1970, from its UUID (version 7).

    Now, for a file with another name.
    """
    found = _UUID.match(name)
    return int(found[1] + found[2], 16) if found else time.time_ns() // 1_000_000


def _options(query: str) -> list[str]:
    """The options of a URL, as libpq reads them in a connection string."""
    pairs = [each.partition("=") for each in query.split("&") if each]
    escapes = str.maketrans({"\\": "\\\\", "'": "\\'"})
    return [f"{name}='{unquote(value).translate(escapes)}'" for name, _, value in pairs]


def _holding(folder: Path, first: int, last: int) -> list[Path]:
    """The files of a log that hold positions from `first` to `last`, superseded ones left out."""
    names = sorted(path.name for path in folder.glob(log_segments.PATTERN))
    replaced = set(log_segments.superseded(names))
    spans = {name: log_segments.parse(name) for name in names if name not in replaced}
    return [
        folder / name
        for name, span in spans.items()
        if span is not None and span.first < last and span.last > first
    ]


def _renew_view(duck: Duck) -> None:
    kinds = [kind for (kind,) in duck.execute("SELECT type FROM prediction_types")]
    query = schema.lake_predictions_query(schema.widest(kinds))
    duck.execute(f"CREATE OR REPLACE VIEW predictions AS {query}")
