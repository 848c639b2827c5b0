"""The log of shadows: one SQLite file per pipeline, with what was served, what a shadow would have.

It is for comparing: its newest `MOST_ROWS` answers are kept, and a power cut may take the last
ones. Labels are added when they join their predictions. The service alone writes it; readers have
it open beside. Values have SQLite's own types, so that `sqlite3 shadow.sqlite` can ask more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from models.core.record_schema import Label, Task
from observability.core.errors import ThermodriftError

MOST_ROWS = 1_000_000
_BUSY_S = 10.0
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    answered_at REAL NOT NULL,
    version TEXT NOT NULL,
    champion TEXT,
    position INTEGER NOT NULL,
    served,
    shadow
);
CREATE TABLE IF NOT EXISTS labels (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    labelled_at REAL NOT NULL,
    label
);
"""
_COMPARISON = """
SELECT version, count(*) AS answers, min(answered_at) AS since, max(answered_at) AS until,
    {difference} AS difference, count(*) FILTER (WHERE {known}) AS labelled,
    {served_loss} AS served, {shadow_loss} AS shadow
FROM answers LEFT JOIN labels USING (id)
GROUP BY version ORDER BY min(answers.number)
"""
_KNOWN = "label IS NOT NULL AND served IS NOT NULL"
_SCORES = {
    # In regression the mean absolute error; for classes the shares of hits, and of disagreement.
    "regression": ("avg(abs({0} - {1}))", "avg(abs({0} - {1}))"),
    "classification": ("avg({0} = {1})", "avg({0} <> {1})"),
}


class NoShadowLog(ThermodriftError, FileNotFoundError):
    """No shadow has answered yet."""


class ShadowLogDamaged(ThermodriftError, ValueError):
    """SQLite cannot read the log."""


class ShadowAnswer(NamedTuple):
    """What a shadow would have answered, beside what was served."""

    id: str
    answered_at: float
    """Seconds since 1970."""
    version: str
    champion: str | None
    """The champion that served."""
    position: int
    """Of the checkpoint that served."""
    served: Label | None
    shadow: Label | None


class ShadowLog:
    """The file as the service has it; used by one thread."""

    def __init__(self, path: Path, most_rows: int = MOST_ROWS) -> None:
        """Open it, and make it if it is missing. Raises sqlite3.Error."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._most_rows = most_rows
        self._connection = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_TABLES)

    def record(self, answers: Sequence[ShadowAnswer]) -> None:
        """Add answers; the oldest ones are dropped beyond the bound. Raises sqlite3.Error."""
        with self._connection:
            self._connection.executemany(
                "INSERT INTO answers VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", answers
            )
            self._drop("answers")

    def label(self, truths: Iterable[tuple[str, Label]], at: float) -> None:
        """Add labels of predictions, each once. Raises sqlite3.Error."""
        with self._connection:
            self._connection.executemany(
                "INSERT OR IGNORE INTO labels VALUES (NULL, ?, ?, ?)",
                [(id_, at, label) for id_, label in truths],
            )
            self._drop("labels")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _drop(self, table: str) -> None:
        self._connection.execute(
            f"DELETE FROM {table} WHERE number <= (SELECT max(number) FROM {table}) - ?",
            [self._most_rows],
        )


def compare(path: Path, task: Task) -> list[dict[str, Any]]:
    """Of each version, how it would have answered beside what was served.

    `difference` is the share of other classes, or the mean absolute difference. `served` and
    `shadow` are the accuracy, or the mean absolute error, over the `labelled` answers; None where
    there is none. Raises NoShadowLog, and ShadowLogDamaged.
    """
    if not path.exists():
        raise NoShadowLog(
            f"{path} is not there: no shadow has answered yet; name one in serve.shadow of the "
            "home's file, or by `thermodrift serve --shadow PIPELINE=VERSION`"
        )
    score, difference = _SCORES[task]
    question = _COMPARISON.format(
        known=_KNOWN,
        difference=difference.format("served", "shadow"),
        served_loss=f"{score.format('served', 'label')} FILTER (WHERE {_KNOWN})",
        shadow_loss=f"{score.format('shadow', 'label')} FILTER (WHERE {_KNOWN})",
    )
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as log:
            log.row_factory = sqlite3.Row
            return [dict(row) for row in log.execute(question)]
    except sqlite3.Error as error:
        raise ShadowLogDamaged(
            f"{path} cannot be read: {error}. It is for comparing alone: remove it, and the "
            "service begins another one when it starts"
        ) from error
