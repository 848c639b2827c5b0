"""The rules of the inbox, inside of one transaction: record, join, expire, forget.

A prediction is in one of three tables. It waits; then it has joined its label, or it has ended:
because it expired, or because its joined example was forgotten. Only the thread that owns the
connection calls this. Each call that refuses raises before it has changed anything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

from models.inbox import json_content, sqlite_file
from models.inbox.config import InboxConfig
from models.inbox.errors import RecordConflict
from models.inbox.records import Answered, LabelResult, Outcome
from observability.core import failpoints


class EncodedAnswer(NamedTuple):
    """A prediction as it is stored."""

    id: str
    predicted_at: float
    features: str
    answers: str
    versions: str


class EncodedLabel(NamedTuple):
    """A label as it is stored."""

    id: str
    label: str


@dataclass
class Totals:
    """The one row of the table `totals`, with its columns in order."""

    identity: str
    recorded: int
    waiting: int
    next_position: int
    first_position: int
    expired: int
    ended_first: int
    ended_next: int
    complete_after: float
    """Predictions that were made after this moment are all in one of the three tables."""
    newest_at: float
    """The newest moment that was passed in."""

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> Totals:
        """Read the row."""
        return cls(*connection.execute("SELECT * FROM totals").fetchone())


_SET_TOTALS = f"UPDATE totals SET {', '.join(f'{each.name} = ?' for each in fields(Totals))}"
_OLDEST = (
    "SELECT number, id, predicted_at, features, answers, versions FROM waiting "
    "WHERE predicted_at < ? ORDER BY predicted_at, number LIMIT ?"
)
EXPIRED_AT_ONCE = 10_000
"""Predictions that expire in one transaction, beside as many as it records: after an outage of a
month many are late at once, and the calls of others wait for no more than these."""


def encode(given: Answered) -> EncodedAnswer:
    """Return a prediction as it is stored. Raises InvalidContent, which names what is refused."""
    json_content.check_id(given.id)
    what = f"of the prediction {given.id!r}"
    return EncodedAnswer(
        given.id,
        json_content.check_moment(given.predicted_at, f"predicted_at {what}"),
        json_content.encode(given.features, f"features {what}"),
        json_content.encode(given.answers, f"answers {what}"),
        json_content.encode(given.versions, f"versions {what}"),
    )


class InboxTables:
    """The tables through the one connection that writes."""

    def __init__(self, connection: sqlite3.Connection, path: Path, config: InboxConfig) -> None:
        self._connection = connection
        self._path = path
        self._config = config
        self._totals = Totals.read(connection)
        self.commits = 0
        """How many transactions changed the file."""

    def begin(self) -> None:
        """Begin a transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._totals = Totals.read(self._connection)
        self._read = replace(self._totals)

    def commit(self) -> None:
        """Commit, if anything was changed."""
        is_changed = self._totals != self._read
        if is_changed:
            self._connection.execute(_SET_TOTALS, astuple(self._totals))
            failpoints.point("inbox.inside_commit")
        self._connection.execute("COMMIT")
        if is_changed:
            self.commits += 1
            failpoints.point("inbox.after_commit")

    def rollback(self) -> None:
        """Undo the transaction, if there is one: after some errors SQLite has undone it."""
        if self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def failure(self, error: Exception) -> Exception:
        """Return what a caller is told of an error that ended its transaction."""
        told = sqlite_file.explain(error, self._path)
        if told is not error:
            told.__cause__ = error
        return told

    def record(self, given: Sequence[EncodedAnswer]) -> None:
        """Let one or more predictions wait, and the oldest expire. Raises RecordConflict."""
        new = self._without_known(given)
        first = self._totals.recorded
        self._connection.executemany(
            "INSERT INTO waiting VALUES (?, ?, ?, ?, ?, ?)",
            [(first + index, *each) for index, each in enumerate(new)],
        )
        self._totals.recorded += len(new)
        self._totals.waiting += len(new)
        at = max(each.predicted_at for each in given)
        self._totals.newest_at = max(self._totals.newest_at, at)
        self.expire(at)
        surplus = self._totals.waiting - self._config.most_waiting
        self._expire(at, float("inf"), min(surplus, EXPIRED_AT_ONCE + len(new)))

    def label(self, truths: Sequence[EncodedLabel], at: float) -> list[LabelResult]:
        """Join labels that came at a moment, each with its prediction."""
        self.expire(at)
        return [self._join(truth, at) for truth in truths]

    def expire(self, at: float) -> int:
        """Let predictions expire that are late at a moment, some at once. Returns how many."""
        return self._expire(at, at - self._config.longest_wait_s, EXPIRED_AT_ONCE)

    def forget(self, before_position: int, most: int) -> int:
        """Drop joined examples before a position, `most` at once. Returns how many."""
        rows = self._connection.execute(
            "SELECT position, id, predicted_at, features, answers, versions, labelled_at, label "
            "FROM joined WHERE position < ? ORDER BY position LIMIT ?",
            (before_position, most),
        ).fetchall()
        self._end(
            [
                (id_, json_content.digest(predicted_at, *texts), predicted_at, at, position, label)
                for position, id_, predicted_at, *texts, at, label in rows
            ]
        )
        self._totals.first_position += len(rows)
        self._connection.execute(
            "DELETE FROM joined WHERE position < ?", (self._totals.first_position,)
        )
        return len(rows)

    def _join(self, truth: EncodedLabel, at: float) -> LabelResult:
        row = self._connection.execute(
            "SELECT predicted_at, features, answers, versions FROM waiting WHERE id = ?",
            (truth.id,),
        ).fetchone()
        if row is None:
            return self._late(truth)
        predicted_at, *texts = row
        if predicted_at < at - self._config.longest_wait_s:  # It is late, and others expire first.
            return LabelResult(truth.id, "expired", None)
        position = self._totals.next_position
        self._connection.execute(
            "INSERT INTO joined VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (position, truth.id, predicted_at, at, truth.label, *texts),
        )
        self._connection.execute("DELETE FROM waiting WHERE id = ?", (truth.id,))
        self._totals.next_position += 1
        self._totals.waiting -= 1
        self._totals.newest_at = max(self._totals.newest_at, at)
        return LabelResult(truth.id, "joined", position)

    def _late(self, truth: EncodedLabel) -> LabelResult:
        """Return what becomes of a label for which no prediction waits."""
        row = self._connection.execute(
            "SELECT position, label FROM joined WHERE id = :id "
            "UNION ALL SELECT position, label FROM ended WHERE id = :id",
            {"id": truth.id},
        ).fetchone()
        if row is None:
            return LabelResult(truth.id, "unknown", None)
        position, label = row
        if label is None:
            return LabelResult(truth.id, "expired", None)
        is_same = json_content.is_same_label(label, truth.label)
        outcome: Outcome = "duplicate" if is_same else "conflicting"
        return LabelResult(truth.id, outcome, position)

    def _without_known(self, given: Sequence[EncodedAnswer]) -> list[EncodedAnswer]:
        """Return what is new. Raises RecordConflict where a known id has other content."""
        new: dict[str, EncodedAnswer] = {}
        for each in given:
            other = new.get(each.id)
            known = self._digest(each.id) if other is None else _digest(other)
            if known is None:
                new[each.id] = each
            elif known != _digest(each):
                raise RecordConflict(each.id)
        return list(new.values())

    def _digest(self, id: str) -> bytes | None:  # noqa: A002 - it is the id of the prediction
        """Return the digest of what was recorded under an id; None: nothing is known of it."""
        row = self._connection.execute(
            "SELECT predicted_at, features, answers, versions FROM waiting WHERE id = :id "
            "UNION ALL SELECT predicted_at, features, answers, versions FROM joined WHERE id = :id",
            {"id": id},
        ).fetchone()
        if row is not None:
            return json_content.digest(*row)
        row = self._connection.execute("SELECT digest FROM ended WHERE id = ?", (id,)).fetchone()
        return None if row is None else bytes(row[0])

    def _expire(self, at: float, before: float, most: int) -> int:
        """Let the oldest predictions expire: those that were made before a moment, and `most`."""
        rows = self._connection.execute(_OLDEST, (before, max(most, 0))).fetchall()
        if rows:
            self._end(
                [
                    (id_, json_content.digest(predicted_at, *texts), predicted_at, at, None, None)
                    for _, id_, predicted_at, *texts in rows
                ]
            )
            self._connection.executemany(
                "DELETE FROM waiting WHERE number = ?", [(number,) for number, *_ in rows]
            )
            self._totals.waiting -= len(rows)
            self._totals.expired += len(rows)
            self._totals.newest_at = max(self._totals.newest_at, at)
        return len(rows)

    def _end(self, rows: list[tuple[str, bytes, float, float, int | None, str | None]]) -> None:
        """Remember the ids of predictions whose content is dropped, and drop the oldest of ids."""
        first = self._totals.ended_next
        self._connection.executemany(
            "INSERT INTO ended VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(first + index, *row) for index, row in enumerate(rows)],
        )
        self._totals.ended_next += len(rows)
        self._drop_ended()

    def _drop_ended(self) -> None:
        totals = self._totals
        first = max(totals.ended_first, totals.ended_next - self._config.most_remembered)
        if first > totals.ended_first:
            (made_at,) = self._connection.execute(
                "SELECT max(predicted_at) FROM ended WHERE number < ?", (first,)
            ).fetchone()
            totals.complete_after = max(totals.complete_after, made_at)
            self._connection.execute("DELETE FROM ended WHERE number < ?", (first,))
            totals.ended_first = first


def _digest(given: EncodedAnswer) -> bytes:
    return json_content.digest(given.predicted_at, given.features, given.answers, given.versions)
