"""The errors of the history, with their exit codes. Pure.

    HistoryBusy            75  another process has the file open
    HistoryUnreachable     75  the lake's PostgreSQL does not answer
    HistoryUnwritable       1  the disk refused
    HistoryDamaged          1  the file is not what thermodrift wrote
    HistorySchemaMismatch  78  an older or newer thermodrift wrote it
    HistoryForked           1  a handle was used after a fork
    BadQuestion             2  DuckDB cannot answer the SQL

After any of them, all that was committed is whole, in the outbox or in the history.
"""

from __future__ import annotations

from observability.core.errors import BadConfiguration, ThermodriftError, TryAgainLater


class HistoryBusy(TryAgainLater, BlockingIOError):
    """Another process has the history open. What was committed waits in the outbox."""


class HistoryUnreachable(TryAgainLater, ConnectionError):
    """The lake does not answer. What was committed waits in the outbox."""


class HistoryDamaged(ThermodriftError, OSError):
    """The history cannot be read as what thermodrift wrote."""


class HistoryUnwritable(ThermodriftError, OSError):
    """The disk refused: no space, no permission. What was committed before is safe."""


class HistorySchemaMismatch(BadConfiguration):
    """The history has the schema of another thermodrift. Nothing was changed in it."""


class HistoryForked(ThermodriftError, RuntimeError):
    """A handle was used in another process than the one that made it."""


class BadQuestion(ThermodriftError, ValueError):
    """DuckDB cannot answer the SQL, or it is more than a question."""

    exit_code = 2
