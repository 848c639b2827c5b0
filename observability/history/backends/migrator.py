"""The steps that a history has had, wherever its rows are: read them, take those that are missing.

A part of the door `history`. It opens and commits nothing: whoever holds the history does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from observability.history.backends.duckdb_connection import Duck
from observability.history.errors import HistoryDamaged, HistoryTooNew
from observability.history.schema import Migration, pending

_TABLES = """
SELECT table_name FROM duckdb_tables()
WHERE database_name = current_database() AND NOT internal AND NOT temporary"""


@dataclass(frozen=True)
class Steps:
    """The steps that this thermodrift knows, in order."""

    known: Sequence[Migration]

    @property
    def latest(self) -> int:
        """The number of the last one."""
        return self.known[-1].number

    def version(self, duck: Duck, shown: str) -> int:
        """The last step that the history `shown` has had; 0 for an empty one.

        Raises HistoryDamaged for one of something else, HistoryTooNew for one that is ahead.
        """
        tables = {name for (name,) in duck.execute(_TABLES)}
        if "migrations" not in tables:
            if tables:
                raise HistoryDamaged(
                    f"{shown} holds other tables and no history: move it away, "
                    "or name another place"
                )
            return 0
        version = int(duck.one("SELECT max(number) FROM migrations") or 0)
        if version > self.latest:
            raise HistoryTooNew(
                f"{shown} is of version {version} and this thermodrift knows up to {self.latest}: "
                "use the newer thermodrift, or set another home"
            )
        return version

    def take(self, duck: Duck, version: int) -> None:
        """Take those that a history at `version` has not had; call it inside a transaction."""
        for step in pending(self.known, version):
            for statement in step.statements:
                duck.execute(statement)
            duck.execute("INSERT INTO migrations VALUES (?, ?, now())", [step.number, step.name])
