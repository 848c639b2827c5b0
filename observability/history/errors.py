"""The errors of the history, with their exit codes. Pure.

    HistoryBusy            75  another process has the file open
    HistoryUnreachable     75  the lake's PostgreSQL does not answer
    HistoryUnwritable       1  the disk refused to write
    HistoryDamaged          1  the file is not as thermodrift wrote it
    HistorySchemaMismatch  78  an older or newer thermodrift wrote it
    HistoryForked           1  a handle was used after a fork
    BadQuestion             2  DuckDB cannot answer the SQL

After each of them, all committed rows are whole, in the outbox or in the history.
"""

from __future__ import annotations

from observability.core.errors import BadConfiguration, ThermodriftError, TryAgainLater


class HistoryBusy(TryAgainLater, BlockingIOError):
    """Another process has the history open. Committed rows wait in the outbox."""


class HistoryUnreachable(TryAgainLater, ConnectionError):
    """The lake does not answer. Committed rows wait in the outbox."""


class HistoryDamaged(ThermodriftError, OSError):
    """The history is not as thermodrift wrote it, and cannot be read."""


class HistoryUnwritable(ThermodriftError, OSError):
    """The disk refused: no space, no permission. Rows that were committed before are safe."""


class HistorySchemaMismatch(BadConfiguration):
    """The history has the schema of another thermodrift. It was not changed."""


class HistoryForked(ThermodriftError, RuntimeError):
    """A handle was used in a process that did not create it."""


class BadQuestion(ThermodriftError, ValueError):
    """DuckDB cannot answer the SQL, or the SQL is not a question."""

    exit_code = 2
