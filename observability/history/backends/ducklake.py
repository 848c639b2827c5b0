"""A DuckLake of several hosts: Parquet in a folder that they share, its catalogue in PostgreSQL.

A part of the door `history`, and the same to it as `ledger_file`: taken, opened, brought up to
date. The lake itself keeps hosts apart, each commit of it is all or nothing, so there is no file to
hold and no mark to keep. The prediction log stays where it was made; what a question sees of it is
brought along with the commit that belongs to it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from observability.core import atomic_file, log_segments
from observability.core.errors import BadConfiguration, ThermodriftError
from observability.core.paths import Places
from observability.history import schema
from observability.history.backends import duckdb_connection as ducks
from observability.history.backends.duckdb_connection import Duck, Mode
from observability.history.backends.duckdb_file import Loss
from observability.history.backends.lock import held
from observability.history.backends.migrator import Steps
from observability.history.errors import (
    HistoryBusy,
    HistoryDamaged,
    HistoryTooNew,
    HistoryUnreachable,
    HistoryUnwritable,
)
from observability.history.home_config import HistoryPlace
from observability.history.outbox import Logged
from observability.history.retention import UpkeepRules

SNAPSHOTS_KEPT_DAYS = 7
"""How far back the lake itself can be asked as it was; older files of it are removed."""
INLINED_ROWS = 500
"""Rows of one insert that go into the catalogue, to be written as Parquet by upkeep, in bulk."""
RETRIES = 100
"""How often the lake itself tries a commit again that met another host's."""
ATTEMPTS = 5
"""How often a host tries to make or upgrade a lake that others are at as well."""
SILENCE_S = 30.0
"""After a failure to reach it the lake is left in peace for so long: no fold may stall a loop."""

CLOCK_SLACK_MS = 60_000
"""A clock may be set back by so much between two readings."""

_EXTENSIONS = ("ducklake", "postgres_scanner")
_CONNECTION = (
    "connect_timeout=5 keepalives_idle=10 keepalives_interval=5 keepalives_count=3 "
    "tcp_user_timeout=8000 application_name=thermodrift"
)
_PREAMBLE = re.compile(r'IO Error: Failed to attach .*?Unable to connect to Postgres at "[^"]*": ')
# Rows stand in the query that failed, and must not be taken for what was said of it.
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
    """CREATE TABLE prediction_kinds (pipeline VARCHAR, kind VARCHAR)""",
    """CREATE TABLE prediction_rows (
        pipeline VARCHAR, "position" BIGINT, label VARCHAR, online VARCHAR, batch VARCHAR,
        baseline VARCHAR, served VARCHAR, online_probability DOUBLE, batch_probability DOUBLE,
        served_probability DOUBLE, model_version VARCHAR)""",
)
"""The file's history reads the log's Parquet files; a lake, whose hosts do not share them, rows."""


_OLD_PREDICTIONS = """
DELETE FROM prediction_rows USING (
    SELECT pipeline, max("position") - ? AS horizon
    FROM prediction_rows GROUP BY pipeline) AS ends
WHERE prediction_rows.pipeline = ends.pipeline AND prediction_rows."position" <= ends.horizon"""


class LedgerLake:
    """The lake that `place` names, as one home sees it. Call all but `locked` under the lock."""

    def __init__(
        self,
        places: Places,
        place: HistoryPlace,
        steps: Sequence[schema.Migration],
        spooled: Callable[[], str],
    ) -> None:
        assert place.url is not None
        assert place.data is not None
        self._places = places
        self._url = urlsplit(place.url)
        self._data = place.data.rstrip("/") + "/"
        self._steps = Steps(steps)
        self._spooled = spooled
        self._silent_until_s = 0.0
        self._is_current = False
        self._began_ms = 0

    @property
    def where(self) -> str:
        """The lake's address as it may be printed: without a password."""
        user = f"{self._url.username}@" if self._url.username else ""
        port = f":{self._url.port}" if self._url.port else ""
        return f"{self._url.scheme}://{user}{self._url.hostname or ''}{port}{self._url.path}"

    @contextmanager
    def locked(self, wait_s: float) -> Iterator[None]:
        """Hold this home's spool among its processes; other hosts have spools of their own."""
        lock = self._places.home / "history.lock"
        with held(lock, wait_s, self._busy):
            yield

    @contextmanager
    def writing(self) -> Iterator[tuple[Duck, Loss | None]]:
        """The lake, open to write and up to date; it is never at a loss."""
        if not self._is_current:
            self._bring_up_to_date()
            self._is_current = True
        self._began_ms = time.time_ns() // 1_000_000
        with self._opened("READ_WRITE") as duck:
            # Another host may have upgraded it since, or a person brought an older one back.
            if self._steps.version(duck, self.where) < self._steps.latest:
                self._is_current = False
                raise HistoryBusy(
                    f"{self.where} is older than it was a moment ago: try again; {self._spooled()}"
                )
            self._check_data(duck)
            yield duck, None

    @contextmanager
    def reading(self) -> Iterator[Duck | None]:
        """The lake, open to read; None where it is not there or old, and must be written first."""
        try:
            with self._opened("READ_ONLY") as duck:
                is_old = self._steps.version(duck, self.where) < self._steps.latest
                yield None if is_old else duck
        except _NoLake:
            yield None

    def fence(self, duck: Duck) -> None:
        """Leave a question nothing to reach but the lake."""
        duck.fence([self._data])

    def finish(self, duck: Duck, commits: int) -> None:
        """Make the files durable that the rows of this transaction name: the last thing in it."""
        self._sync_files()

    def settle(self, duck: Duck, names: Sequence[str]) -> None:
        """Nothing is left to do: a commit of a lake is durable when it returns."""

    def recover(self, duck: Duck) -> None:
        """A lake is never at a loss that a home could make up for."""

    def publish(self, duck: Duck, logged: Logged) -> str:
        """Bring predictions into the lake, in the transaction of the commit that they belong to.

        Returns what is missing of them, in a sentence; empty where nothing is.
        """
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
            # The commit of their batch may have been folded after they were put into the log.
            listed = '"position" IN (SELECT unnest(?::BIGINT[]))'
            duck.execute(
                f"DELETE FROM prediction_rows WHERE pipeline = ? AND {listed}",
                [logged.pipeline, list(logged.only)],
            )
            duck.execute(f"{insert} AND {listed}", [*where, list(logged.only)])
        self._note_kinds(duck, logged.pipeline, files[0])
        return ""

    def tidy(self, duck: Duck, rules: UpkeepRules) -> int:
        """Remove predictions that `rules` no longer keep; how many."""
        removed = 0
        if rules.predictions_keep is not None:
            removed = int(duck.one(_OLD_PREDICTIONS, [rules.predictions_keep]) or 0)
        self._sync_files()  # what was removed of a file stands in another
        return removed

    def maintain(self, duck: Duck) -> str:
        """Write inlined rows as Parquet, merge small files, remove what is of no use any more."""
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

        DuckDB leaves it to the system when a Parquet file reaches the disk. After a loss of power
        the catalogue would name a file that is empty, and no question of its table be answered.
        """
        folders = {Path(self._data)}
        for path in Path(self._data).rglob("ducklake-*.parquet"):
            if _written_ms(path.name) >= self._began_ms - CLOCK_SLACK_MS:
                with suppress(FileNotFoundError):  # another host's, which took it back
                    atomic_file.sync_file(path)
                folders |= {path.parent, path.parent.parent}
        for folder in folders:
            atomic_file.sync_folder(folder)

    def _bring_up_to_date(self) -> None:
        """Make the lake or its missing steps; of several hosts that try at once, one does."""
        self._make_room()
        for _ in range(ATTEMPTS):
            try:
                with self._opened("READ_WRITE") as duck:
                    version = self._steps.version(duck, self.where)
                    if version < self._steps.latest:
                        self._migrate(duck, version)
                    return
            except HistoryBusy as conflict:
                met = conflict
        raise met

    def _make_room(self) -> None:
        """Make the folder of the data; where that cannot be, DuckDB's own words mislead."""
        data = Path(self._data)
        try:
            data.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise HistoryUnwritable(
                f"the lake's data cannot be kept in {data}: {cause}; {atomic_file.remedy(cause)}; "
                f"{self._spooled()}"
            ) from cause
        if not os.access(data, os.R_OK | os.W_OK | os.X_OK):
            raise HistoryUnwritable(
                f"the lake's data cannot be kept in {data}: this user may not write there; give "
                f"permission; {self._spooled()}"
            )

    def _check_data(self, duck: Duck) -> None:
        """Raise HistoryUnwritable where the folder is empty, and the lake has files in it.

        It is then a share that is not mounted, most likely: what is written into the empty folder
        is hidden, and so lost to the lake, as soon as it is.
        """
        data = Path(self._data)
        if next(data.glob("*"), None) is not None:
            return
        files = int(duck.one("SELECT sum(file_count) FROM ducklake_table_info('lake')") or 0)
        if files:
            raise HistoryUnwritable(
                f"{data} is empty or gone, and the lake has {files} files in it: mount it, or bring"
                f" it back; {self._spooled()}"
            )

    def _migrate(self, duck: Duck, version: int) -> None:
        with duck.transaction():
            self._steps.take(duck, version)
            if version == 0:
                for statement in _PREDICTIONS:
                    duck.execute(statement)
                _renew_view(duck)

    def _note_kinds(self, duck: Duck, pipeline: str, file: str) -> None:
        """Widen the view's type where this pipeline's labels are of a kind that is new to it."""
        known = {kind for (kind,) in duck.execute("SELECT kind FROM prediction_kinds")}
        columns = duck.parquet_columns(file) or {}
        kinds = {columns[name] for name in schema.LABEL_COLUMNS if name in columns}
        for kind in sorted(kinds - known):
            duck.execute("INSERT INTO prediction_kinds VALUES (?, ?)", [pipeline, kind])
        if kinds - known:
            _renew_view(duck)

    @contextmanager
    def _opened(self, mode: Mode) -> Iterator[Duck]:
        wait_s = self._silent_until_s - time.monotonic()
        if wait_s > 0:
            raise HistoryUnreachable(
                f"{self.where} did not answer a moment ago and is asked again in {wait_s:.0f} s;"
                f" {self._spooled()}"
            )
        with ducks.opened(None, "READ_WRITE", self._told) as duck:
            for name in _EXTENSIONS:
                duck.load(name)
            duck.execute(f"SET ducklake_max_retry_count = {RETRIES}")
            self._attach(duck, mode)
            yield duck

    def _attach(self, duck: Duck, mode: Mode) -> None:
        duck.execute(_secret(self._url))
        options = "READ_ONLY, " if mode == "READ_ONLY" else ""
        words = " ".join([_CONNECTION, *_options(self._url.query)])
        duck.execute(
            f"ATTACH {schema.quoted(f'ducklake:postgres:{words}')} AS lake "
            f"({options}DATA_PATH {schema.quoted(self._data)}, META_SECRET 'lake_catalogue', "
            f"DATA_INLINING_ROW_LIMIT {INLINED_ROWS})"
        )
        duck.execute("USE lake")

    def _told(self, text: str) -> ThermodriftError:
        """Our error for one of DuckDB's, without the rows and the password that it repeats."""
        text = _QUERY.sub("", _PREAMBLE.sub("", text))
        password = unquote(self._url.password or "")
        said = text.replace(password, "***") if password else text
        if _NO_LAKE.search(text):
            return _NoLake(said)
        if _CONFLICT.search(text):
            return HistoryBusy(
                f"another host changed {self.where} at the same moment ({said}): try again; "
                f"{self._spooled()}"
            )
        if _REFUSED.search(text):
            return BadConfiguration(
                f"{self._places.settings}: history.url: PostgreSQL refuses {self.where}: "
                f"{said}; correct the URL, the password in ~/.pgpass, or what that role may do; "
                f"{self._spooled()}"
            )
        if "catalog version mismatch" in text:
            return HistoryTooNew(
                f"{self.where} was made by another release of DuckLake: {said}; use the same "
                f"thermodrift on every host; {self._spooled()}"
            )
        if "does not match existing data path" in text:
            return BadConfiguration(
                f"{self._places.settings}: history.data: {said.split('You can')[0].strip()} Every "
                f"host names the same folder; {self._spooled()}"
            )
        if _GONE.search(text):
            self._silent_until_s = time.monotonic() + SILENCE_S
            return HistoryUnreachable(f"{self.where} does not answer: {said}; {self._spooled()}")
        if _DISK_REFUSES.search(text):
            return HistoryUnwritable(
                f"the lake's data in {self._data} cannot be written or read: {said}; make space "
                f"or give permission, then run again; {self._spooled()}"
            )
        return HistoryDamaged(f"{self.where} cannot be used: {said}; {self._spooled()}")

    def _busy(self, pid: str) -> HistoryBusy:
        who = f"process {pid}" if pid else "another process"
        return HistoryBusy(
            f"{who} of this home folds into {self.where}: try again; {self._spooled()}"
        )


class _NoLake(ThermodriftError):
    """The database is there and holds no lake yet."""


def _secret(url: SplitResult) -> str:
    """The SQL that tells DuckDB where PostgreSQL is, kept in memory and never shown by it.

    What the URL leaves out libpq finds as it always does: in PGPASSWORD, ~/.pgpass, PGUSER.
    """
    parts = {
        "HOST": url.hostname,
        "PORT": url.port,
        "USER": url.username and unquote(url.username),
        "PASSWORD": url.password and unquote(url.password),
        "DATABASE": unquote(url.path.lstrip("/")) or None,
    }
    told = ", ".join(
        f"{name} {schema.quoted(str(value))}" for name, value in parts.items() if value
    )
    return f"CREATE TEMPORARY SECRET lake_catalogue (TYPE postgres{', ' if told else ''}{told})"


def _written_ms(name: str) -> int:
    """When a file of the lake was named, in ms since 1970: its UUID (version 7) begins with that.

    What is named otherwise was written now, as far as anybody can tell.
    """
    found = _UUID.match(name)
    return int(found[1] + found[2], 16) if found else time.time_ns() // 1_000_000


def _options(query: str) -> list[str]:
    """What stands in a URL after its question mark, as libpq reads it from a list of words."""
    pairs = [each.partition("=") for each in query.split("&") if each]
    escapes = str.maketrans({"\\": "\\\\", "'": "\\'"})
    return [f"{name}='{unquote(value).translate(escapes)}'" for name, _, value in pairs]


def _holding(folder: Path, first: int, last: int) -> list[Path]:
    """The files of a log that hold positions from `first` to `last`; none that is replaced."""
    names = sorted(path.name for path in folder.glob(log_segments.PATTERN))
    replaced = set(log_segments.superseded(names))
    spans = {name: log_segments.parse(name) for name in names if name not in replaced}
    return [
        folder / name
        for name, span in spans.items()
        if span is not None and span.first < last and span.last > first
    ]


def _renew_view(duck: Duck) -> None:
    kinds = [kind for (kind,) in duck.execute("SELECT kind FROM prediction_kinds")]
    query = schema.lake_predictions_query(schema.widest(kinds))
    duck.execute(f"CREATE OR REPLACE VIEW predictions AS {query}")
