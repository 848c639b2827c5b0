"""Reads what the history knows of a pipeline, all from one moment. It judges nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from observability.history.store import Asking, History
from observability.story import questions
from observability.story.questions import Axis

Row = Mapping[str, Any]
"""One row of an answer: column names, and plain values. Facts are a mapping."""

Decided = tuple[str, Sequence[Row]]
"""The SQL of a decision, and its rows."""

RANGES: Mapping[str, timedelta | None] = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
    "month": timedelta(days=30),
    "all": None,
}
"""How much of the past is drawn, up to its newest row."""
STEPS = 960
"""Steps of the time axis, and so the most points of a line."""
MARK_STEPS = 120
"""Steps in which equal decisions are one mark."""


@dataclass(frozen=True)
class Point:
    """The values of one step of the axis. Unit: the line's own."""

    at: datetime
    low: float
    mean: float
    high: float


@dataclass(frozen=True)
class Line:
    """A member's score, or a device's margin, over time."""

    name: str
    points: Sequence[Point]
    values: int
    """Rows that it was drawn from."""


@dataclass(frozen=True)
class Mark:
    """Decisions of one question and answer that lie close together; the newest speaks for them."""

    decided_at: datetime
    question: str
    yes: bool
    because: str
    position: int
    times: int = 1

    @property
    def key(self) -> str:
        """What names the decision in an address: microseconds since 1970, and the question."""
        return key_of(self.decided_at, self.question)


@dataclass(frozen=True)
class Past:
    """What the history knows of a pipeline at `told_at`."""

    pipeline: str
    metric: str
    told_at: datetime
    reach: str
    """One of `RANGES`."""
    since: datetime | None
    """The time that is drawn; None: the history has nothing."""
    until: datetime | None
    rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """Of each question of `questions.single` the rows."""
    sql: Mapping[str, str] = field(default_factory=dict)
    """What was asked, by the same names, and `scores`, `margins`, `marks`, `newest`."""
    scores: Sequence[Line] = ()
    margins: Sequence[Line] = ()
    marks: Sequence[Mark] = ()
    newest: Sequence[Mark] = ()
    steps: int = STEPS
    """Steps of the time that is drawn: the most points of a line."""
    took_s: float = 0.0
    """Seconds for which the history was open."""

    @classmethod
    def nothing(cls, pipeline: str, metric: str, now: datetime, reach: str) -> Past:
        """A past of which nothing is known: each question without a row."""
        asked = questions.single(pipeline, metric)
        return cls(pipeline, metric, now, reach, None, None, dict.fromkeys(asked, ()), asked)

    def first(self, name: str) -> Row | None:
        """The only row of a question; None where it has none."""
        found = self.rows.get(name, ())
        return found[0] if found else None


def read(
    history: History,
    pipeline: str,
    metric: str,
    now: datetime,
    reach: str = "all",
    steps: int = STEPS,
) -> Past:
    """What the history knows at `now`. Raises as `History.ask` does."""
    began_s = time.perf_counter()
    with history.asking() as ask:
        asked = dict(questions.single(pipeline, metric))
        rows = {name: rows_of(ask, sql) for name, sql in asked.items()}
        axis = _axis(rows_of(ask, questions.span(pipeline)), reach, steps)
        if axis is None:
            return Past(pipeline, metric, now, reach, None, None, rows, asked)
        asked |= {
            "scores": questions.score_line(pipeline, metric, axis),
            "margins": questions.margin_line(pipeline, axis),
            "marks": questions.marks(pipeline, axis._replace(steps=MARK_STEPS)),
            "newest": questions.newest(pipeline),
        }
        return Past(
            pipeline,
            metric,
            now,
            reach,
            datetime.fromtimestamp(axis.since_s, UTC),
            datetime.fromtimestamp(axis.until_s, UTC),
            rows,
            asked,
            _lines(rows_of(ask, asked["scores"])),
            _lines(rows_of(ask, asked["margins"])),
            [Mark(**row) for row in rows_of(ask, asked["marks"])],
            [Mark(**row) for row in rows_of(ask, asked["newest"])],
            steps,
            time.perf_counter() - began_s,
        )


def decision(history: History, pipeline: str, key: str) -> Decided:
    """The SQL of one decision, and its rows: none where there is no such decision.

    Raises ValueError for what is no key, and as `History.ask` does.
    """
    microseconds, _, question = key.partition("-")
    try:
        decided_at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(microseconds))
    except OverflowError as error:
        raise ValueError(f"{key!r} is no key of a decision") from error
    sql = questions.decision(pipeline, question, decided_at)
    with history.asking() as ask:
        return sql, rows_of(ask, sql)


def decisions(history: History, pipeline: str, marks: Sequence[Mark]) -> Mapping[str, Decided]:
    """The SQL and the rows of several decisions, by key. Raises as `History.ask` does."""
    asked = {
        mark.key: questions.decision(pipeline, mark.question, mark.decided_at) for mark in marks
    }
    with history.asking() as ask:
        return {key: (sql, rows_of(ask, sql)) for key, sql in asked.items()}


def key_of(decided_at: datetime, question: str) -> str:
    """What names a decision in an address."""
    since = decided_at - datetime(1970, 1, 1, tzinfo=UTC)
    return f"{since // timedelta(microseconds=1)}-{question}"


def rows_of(ask: Asking, sql: str) -> list[dict[str, Any]]:
    """The rows of an answer as plain values."""
    found = ask(sql).to_pylist()
    for row in found:
        if "facts" in row:
            row["facts"] = json.loads(row["facts"])
    return found  # type: ignore[no-any-return]  # pyarrow publishes no types


def _axis(span: Sequence[Row], reach: str, steps: int) -> Axis | None:
    since, until = span[0]["since"], span[0]["until"]
    if since is None:
        return None
    length = RANGES[reach]
    if length is not None:
        since = max(since, until - length)
    # Seconds as a float may be a microsecond off: no row at an end may be lost by that.
    return Axis(since.timestamp() - 0.001, until.timestamp() + 0.001, steps)


def _lines(rows: Sequence[Row]) -> list[Line]:
    """The lines of `rows`, which are ordered by line and time."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["line"], []).append(row)
    return [
        Line(
            name,
            [
                Point(
                    datetime.fromtimestamp(row["at_s"], UTC), row["low"], row["mean"], row["high"]
                )
                for row in points
            ],
            sum(row["values"] for row in points),
        )
        for name, points in found.items()
    ]
