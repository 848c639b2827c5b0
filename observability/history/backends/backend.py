"""What both backends of the history share: their lock, and the check of the schema's number.

A backend is the place of the rows: a DuckDB file (`duckdb_file`) or a DuckLake (`ducklake`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from observability.core import atomic_file, file_lock
from observability.core.paths import Places
from observability.history import schema
from observability.history.backends.duckdb_connection import Duck
from observability.history.errors import (
    HistoryBusy,
    HistoryDamaged,
    HistorySchemaMismatch,
    HistoryUnwritable,
)
from observability.history.outbox import Logged

_TABLES = """
SELECT table_name FROM duckdb_tables()
WHERE database_name = current_database() AND NOT internal AND NOT temporary"""


class Backend:
    """The place of a home's rows. The caller of all methods but `locked` holds the lock.

    Args:
        places: the paths of the home.
        where: the place, as messages name it.
        lock: file of the lock that thermodrift's processes share.
        waiting: returns a phrase about what waits in the outbox, for messages.
    """

    _busy_text = "{where} is open in {who}: close it there, then try again"

    def __init__(self, places: Places, where: str, lock: Path, waiting: Callable[[], str]) -> None:
        self.where = where
        self._places = places
        self._lock = lock
        self._waiting = waiting

    @contextmanager
    def locked(self, wait_s: float) -> Iterator[None]:
        """Exclude other processes of thermodrift. Raises HistoryBusy, HistoryUnwritable."""
        with ExitStack() as stack:
            try:
                self._lock.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(file_lock.held(self._lock, wait_s))
            except file_lock.LockBusy as busy:
                raise self._busy(busy.holder) from busy
            except OSError as cause:
                raise HistoryUnwritable(
                    f"{self._lock} cannot be locked: {cause}; {atomic_file.remedy(cause)}"
                ) from cause
            yield

    def ingest_predictions(self, duck: Duck, logged: Logged) -> str:
        """Add predictions, in the transaction of the commit that they belong to.

        Returns a sentence about missing predictions; empty: none is missing.
        """
        return ""

    def row_counts(self, duck: Duck) -> Mapping[str, int]:
        """Return the rows of each table, for figures; nothing where counting takes long."""
        return {}

    def discard_flushed(self, duck: Duck, names: Sequence[str]) -> None:
        """Make the commits `names`, which were flushed last, durable in the backend."""

    def recover(self, duck: Duck) -> None:
        """Count the lost commits again, and one more, which reports the loss."""

    def _busy(self, pid: str, program: str = "") -> HistoryBusy:
        """Return the error while the process `pid` has the backend; empty: it is unknown."""
        who = (f"process {pid}" if pid else "another process") + (
            f" ({program})" if program else ""
        )
        text = self._busy_text.format(where=self.where, who=who)
        return HistoryBusy(f"{text}; {self._waiting()}")

    def _has_schema(self, duck: Duck) -> bool:
        """Return whether the database holds a history of this schema; False: it is empty.

        Raises HistorySchemaMismatch for another schema, HistoryDamaged for other tables.
        """
        tables = {name for (name,) in duck.execute(_TABLES)}
        if not tables:
            return False
        # Homes from before the first release have a table `migrations` instead.
        numbered = next((each for each in ("schema_version", "migrations") if each in tables), None)
        if numbered is None:
            raise HistoryDamaged(
                f"{self.where} holds other tables and no history: move it away, "
                "or name another place"
            )
        self._check_version(int(duck.one(f"SELECT max(number) FROM {numbered}") or 0))
        return True

    def _check_version(self, number: int | None) -> None:
        """Raise HistorySchemaMismatch for another schema number; None: there is no number."""
        if number != schema.SCHEMA_VERSION:
            found = "a schema without a number" if number is None else f"schema {number}"
            raise HistorySchemaMismatch(
                f"{self.where} has {found}, and this thermodrift reads and writes schema "
                f"{schema.SCHEMA_VERSION} alone: use the thermodrift that wrote it, or set "
                "another home; nothing was changed in it"
            )

    def _create_schema(self, duck: Duck) -> None:
        """Create the tables and views. The caller has begun a transaction."""
        for statement in schema.STATEMENTS:
            duck.execute(statement)
