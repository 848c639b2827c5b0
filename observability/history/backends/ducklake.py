"""The backend that is a DuckLake of several hosts: shared Parquet files, a PostgreSQL catalogue.

The lake isolates the hosts, and each of its commits is atomic, so there is no file to hold and no
watermark. The prediction log stays on its host; predictions are copied into the lake together with
the commit that they belong to.
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
"""How far back old states of the lake can be queried; older files are removed."""
INLINED_ROWS = 500
"""Inserts of up to this many rows go into the catalogue; upkeep writes them as Parquet in bulk."""
RETRIES = 100
"""How often DuckLake repeats a commit that conflicts with another host's."""
ATTEMPTS = 5
"""How often a host tries to create a lake that other hosts create too."""
BACKOFF_S = 30.0
"""Seconds from a failure to reach the lake to the next attempt: a flush must not stall a loop."""

CLOCK_SLACK_MS = 60_000
"""How far a clock may be set back between two calls."""

_EXTENSIONS = ("ducklake", "postgres_scanner")
_CONNECTION = (
    "connect_timeout=5 keepalives_idle=10 keepalives_interval=5 keepalives_count=3 "
    "tcp_user_timeout=8000 application_name=thermodrift"
)
_PREAMBLE = re.compile(r'IO Error: Failed to attach .*?Unable to connect to Postgres at "[^"]*": ')
# The text of a failed query holds rows, which must not be taken for the text of the error.
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
    # The errors of a transaction after its connection was cut.
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
        served_probability DOUBLE, members MAP(VARCHAR, VARCHAR), model_version VARCHAR)""",
)
"""Tables that only a lake has, since its hosts do not share their prediction logs."""


_OLD_PREDICTIONS = """
DELETE FROM prediction_rows USING (
    SELECT pipeline, max("position") - ? AS horizon
    FROM prediction_rows GROUP BY pipeline) AS ends
WHERE prediction_rows.pipeline = ends.pipeline AND prediction_rows."position" <= ends.horizon"""


class DuckLake(Backend):
    """The lake that `place` names, for one home; see `Backend`."""

    _busy_text = "{who} of this home flushes into {where}: try again"

    def __init__(self, places: Places, place: HistoryPlace, waiting: Callable[[], str]) -> None:
        assert place.url is not None
        assert place.data is not None
        self._url = url = urlsplit(place.url)
        user = f"{url.username}@" if url.username else ""
        port = f":{url.port}" if url.port else ""
        where = f"{url.scheme}://{user}{url.hostname or ''}{port}{url.path}"
        super().__init__(places, where, places.home / "history.lock", waiting)
        self._data = place.data.rstrip("/") + "/"
        self._retry_at_s = 0.0
        self._is_created = False
        self._began_ms = 0

    @contextmanager
    def writing(self) -> Iterator[tuple[Duck, Loss | None]]:
        """Open the lake to write; it never has a loss."""
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
        """Open the lake to read; None where it must be written first: absent or empty."""
        try:
            with self._opened("READ_ONLY") as duck:
                yield duck if self._has_schema(duck) else None
        except _NoLake:
            yield None

    def restrict(self, duck: Duck) -> None:
        """Restrict a question to the lake."""
        duck.restrict([self._data])

    def finish(self, duck: Duck, commits: int) -> None:
        """Make the files of this transaction durable, as its last step."""
        self._sync_files()

    def ingest_predictions(self, duck: Duck, logged: Logged) -> str:
        """See `Backend`."""
        folder = self._places.pipeline(logged.pipeline).predictions
        names = sorted(path.name for path in folder.glob(log_segments.PATTERN))
        replaced = set(log_segments.superseded(names))
        spans = {name: log_segments.parse(name) for name in names if name not in replaced}
        files = [
            str(folder / name)
            for name, span in spans.items()
            if span is not None and span.first < logged.last and span.last > logged.first
        ]
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
            # The commit of their batch may have been flushed after they were replaced in the log.
            listed = '"position" IN (SELECT unnest(?::BIGINT[]))'
            duck.execute(
                f"DELETE FROM prediction_rows WHERE pipeline = ? AND {listed}",
                [logged.pipeline, list(logged.only)],
            )
            duck.execute(f"{insert} AND {listed}", [*where, list(logged.only)])
        # The view's type is widened where this pipeline's labels have a new type.
        known = {each for (each,) in duck.execute("SELECT type FROM prediction_types")}
        new = set(schema.label_types(duck.parquet_columns(files[0]) or {})) - known
        for each in sorted(new):
            duck.execute("INSERT INTO prediction_types VALUES (?, ?)", [logged.pipeline, each])
        if new:
            _renew_view(duck)
        return ""

    def vacuum_flushed(self, duck: Duck, config: RetentionConfig) -> int:
        """Remove predictions that `config` does not keep; return how many."""
        removed = 0
        if config.predictions_keep is not None:
            removed = int(duck.one(_OLD_PREDICTIONS, [config.predictions_keep]) or 0)
        self._sync_files()  # a removal writes files too
        return removed

    def vacuum(self, duck: Duck) -> str:
        """Write inlined rows as Parquet, merge small files, and remove unused files."""
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
        """Make the files durable that were written since the lake was opened, before a commit.

        DuckDB does not fsync Parquet files. After a power cut the catalogue could name an empty
        file, and every question about its table would fail.
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
        """Create the lake and its tables. Several hosts may try at once, and one succeeds."""
        self._create_data_folder()
        for _ in range(ATTEMPTS):
            try:
                # The question is asked inside of the transaction: outside of it, the tables of
                # another host could come between the answer and what follows from it.
                with self._opened("READ_WRITE") as duck, duck.transaction():
                    if not self._has_schema(duck):
                        self._create_schema(duck)
                        for statement in _PREDICTIONS:
                            duck.execute(statement)
                        _renew_view(duck)
            except HistoryBusy as error:
                conflict = error
            else:
                return
        raise conflict

    def _create_data_folder(self) -> None:
        """Create the folder of the data, because DuckDB's own error about it is misleading."""
        data = Path(self._data)
        try:
            data.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise HistoryUnwritable(
                f"the lake's data cannot be stored in {data}: {cause}; "
                f"{atomic_file.remedy(cause)}; {self._waiting()}"
            ) from cause
        if not os.access(data, os.R_OK | os.W_OK | os.X_OK):
            raise HistoryUnwritable(
                f"the lake's data cannot be stored in {data}: this user may not write there; give "
                f"permission; {self._waiting()}"
            )

    def _check_data(self, duck: Duck) -> None:
        """Raise HistoryUnwritable where the folder is empty although the lake has files in it.

        The folder is then most likely a share that is not mounted. Files that are written into the
        empty folder would be hidden, and so lost, once the share is mounted.
        """
        data = Path(self._data)
        if next(data.glob("*"), None) is not None:
            return
        files = int(duck.one("SELECT sum(file_count) FROM ducklake_table_info('lake')") or 0)
        if files:
            raise HistoryUnwritable(
                f"{data} is empty or gone, and the lake has {files} files in it: mount it, or"
                f" restore it; {self._waiting()}"
            )

    @contextmanager
    def _opened(self, mode: Mode) -> Iterator[Duck]:
        wait_s = self._retry_at_s - time.monotonic()
        if wait_s > 0:
            raise HistoryUnreachable(
                f"{self.where} did not answer a moment ago; the next attempt is in {wait_s:.0f} s;"
                f" {self._waiting()}"
            )
        with ducks.opened(None, "READ_WRITE", self._error_for) as duck:
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

    def _error_for(self, text: str) -> ThermodriftError:
        """Return the error for one of DuckDB's, without the rows and the password in its text."""
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
            self._retry_at_s = time.monotonic() + BACKOFF_S
            return HistoryUnreachable(f"{self.where} does not answer: {shown}; {self._waiting()}")
        if _DISK_REFUSES.search(text):
            return HistoryUnwritable(
                f"the lake's data in {self._data} cannot be written or read: {shown}; make space "
                f"or give permission, then run again; {self._waiting()}"
            )
        return HistoryDamaged(f"{self.where} cannot be used: {shown}; {self._waiting()}")


class _NoLake(ThermodriftError):
    """The database exists and holds no lake yet."""


def _secret(url: SplitResult) -> str:
    """Return the SQL that gives DuckDB the address of PostgreSQL, as a temporary secret.

    libpq takes what the URL leaves out from PGPASSWORD, ~/.pgpass and PGUSER.
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
    """Return when a file of the lake was named, in ms since 1970, from its UUID (version 7).

    For a file with another name it is now.
    """
    found = _UUID.match(name)
    return int(found[1] + found[2], 16) if found else time.time_ns() // 1_000_000


def _options(query: str) -> list[str]:
    """Return the options of a URL in the form of libpq's connection strings."""
    pairs = [each.partition("=") for each in query.split("&") if each]
    escapes = str.maketrans({"\\": "\\\\", "'": "\\'"})
    return [f"{name}='{unquote(value).translate(escapes)}'" for name, _, value in pairs]


def _renew_view(duck: Duck) -> None:
    kinds = [kind for (kind,) in duck.execute("SELECT type FROM prediction_types")]
    query = schema.lake_predictions_query(schema.widest(kinds))
    duck.execute(f"CREATE OR REPLACE VIEW predictions AS {query}")
