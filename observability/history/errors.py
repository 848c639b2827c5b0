"""What can go wrong with the history: who stands in the way, and what is safe meanwhile. Pure.

    HistoryBusy          75  another process has the file open
    HistoryUnreachable   75  the lake's PostgreSQL does not answer
    HistoryUnwritable     1  the disk refused
    HistoryDamaged        1  the file is not what thermodrift wrote
    HistoryTooNew         1  a newer thermodrift wrote it
    HistoryForked         1  a handle crossed a fork
    BadQuestion           2  DuckDB cannot answer the SQL

Whichever it is, what was committed lies in the spool or in the history, whole.
"""

from __future__ import annotations

from observability.core.errors import ThermodriftError, TryAgainLater


class HistoryBusy(TryAgainLater, BlockingIOError):
    """Another process has the history open. What was committed waits safely in the spool."""


class HistoryUnreachable(TryAgainLater, ConnectionError):
    """The lake does not answer. What was committed waits safely in the spool."""


class HistoryDamaged(ThermodriftError, OSError):
    """The history cannot be read as what thermodrift wrote."""


class HistoryUnwritable(ThermodriftError, OSError):
    """The disk refused: no space, no permission. What was committed before is safe."""


class HistoryTooNew(ThermodriftError, ValueError):
    """The history was written by a newer thermodrift."""


class HistoryForked(ThermodriftError, RuntimeError):
    """A handle was used in another process than the one that made it."""


class BadQuestion(ThermodriftError, ValueError):
    """DuckDB cannot answer the SQL, or it is more than a question."""

    exit_code = 2
