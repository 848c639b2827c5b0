"""The story of a pipeline: its ten answers, its lines and its marks, as one value.

The page, the report, the notebook and `--json` show this value and ask nothing themselves. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from observability.story import answers
from observability.story.advice import advice
from observability.story.past import Line, Past
from observability.story.values import Answer, Live


@dataclass(frozen=True)
class Story:
    """All that is told of a pipeline at a moment."""

    past: Past
    live: Live
    now: datetime
    answers: tuple[Answer, ...]

    @property
    def pipeline(self) -> str:
        """The name of the pipeline."""
        return self.past.pipeline

    def answer(self, key: str) -> Answer:
        """The answer of that key."""
        return next(each for each in self.answers if each.key == key)


def tell(past: Past, live: Live, now: datetime) -> Story:
    """The story at `now`."""
    nine = [
        answers.good(past, live),
        answers.serves(past, live, now),
        answers.retrain_waits(past, live, now),
        answers.devices(past, now),
        answers.world(past, now),
        answers.last_retrain(past, now),
        answers.waiting(past),
        answers.stale(past, live, now),
        answers.people(past, live, now),
    ]
    return Story(past, live, now, (*nine, advice(nine, past, live, now)))


def document(story: Story) -> dict[str, Any]:
    """The story for programs: plain values, moments as they are."""
    past, live = story.past, story.live
    return {
        "pipeline": story.pipeline,
        "told_at": story.now,
        "history_read_at": past.told_at,
        "took_s": past.took_s,
        "stale_because": live.stale_because or None,
        "state": live.state,
        "position": live.position,
        "task": live.task,
        "metric": past.metric,
        "answers": [vars(each) for each in story.answers],
        "reach": past.reach,
        "since": past.since,
        "until": past.until,
        "scores": [_line(each) for each in past.scores],
        "margins": [_line(each) for each in past.margins],
        "marks": [{**vars(each), "key": each.key} for each in past.marks],
        "newest": [{**vars(each), "key": each.key} for each in past.newest],
        "rows": {name: list(rows) for name, rows in past.rows.items()},
        "sql": dict(past.sql),
    }


def _line(line: Line) -> Mapping[str, Any]:
    """A line by columns, which is shorter."""
    return {
        "name": line.name,
        "values": line.values,
        "at": [each.at for each in line.points],
        "low": [each.low for each in line.points],
        "mean": [each.mean for each in line.points],
        "high": [each.high for each in line.points],
    }
