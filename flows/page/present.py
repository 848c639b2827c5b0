"""What is known of a pipeline beside its history: the head of its checkpoint, files of the home.

Nothing is unpickled, and no answer waits: what cannot be read is said in the story.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.core import metrics
from models.core.metrics import METRICS
from models.inbox import inbox
from models.persistence import checkpoint
from observability.core import file_lock
from observability.core.errors import BadConfiguration, ThermodriftError
from observability.core.paths import PipelinePlaces, Places
from observability.story.values import Live
from power.policy import gate_override, override_file


def look(
    home: Places,
    name: str,
    now: datetime,
    file: Path | None = None,
    serves: Mapping[str, Any] | None = None,
) -> Live:
    """What is known of the pipeline `name` at `now`.

    `serves` is what a service answers with, where one asks: champion, position, age_s, trouble.
    """
    places = home.pipeline(name)
    state, because, head = _head(places)
    metric = str(head.get("judged_by") or metrics.AUTO["classification"])
    override, problem = _override(home, now)
    return Live(
        home=str(home.home.absolute()),
        file=None if file is None else str(file.absolute()),
        state=state,
        because=because,
        task=str(head.get("task", "classification")),
        metric=metric,
        larger_is_better=any(
            each == metric and about.larger_is_better for each, about in METRICS.items()
        ),
        position=head.get("position"),
        at=datetime.fromisoformat(head["at"]) if "at" in head else None,
        candidate=head.get("candidate"),
        intake=head.get("intake"),
        reads_from=str(head.get("reads_from", "nvml")),
        override=override,
        override_problem=problem,
        waiting_commits=len(list(home.outbox.glob("*.json"))),
        labels=_labels(places),
        calibration_error=(head.get("calibration") or {}).get("error"),
        unknown_votes=head.get("unknown_votes", ()),
        serves=serves,
    )


def _head(places: PipelinePlaces) -> tuple[str, str, dict[str, Any]]:
    """The state of a pipeline, why it is unreadable, and the head of its checkpoint."""
    try:
        head = checkpoint.header(places.checkpoint)
    except FileNotFoundError:
        return "not begun", "", {}
    except OSError as error:
        return "unreadable", str(error), {}
    with suppress(OSError):  # another user's home may be readable and not lockable
        return ("running" if file_lock.is_held(places.lock) else "resting"), "", head
    return "unknown", "", head


def _override(home: Places, now: datetime) -> tuple[Mapping[str, Any] | None, str]:
    """The override that is in force, and what is wrong with its file."""
    try:
        found = override_file.read(home.override)
    except (BadConfiguration, OSError) as error:
        return None, str(error)
    if found is None or not gate_override.in_force(found, now):
        return None, ""
    return {
        "answer": found.answer,
        "until": found.until,
        "set_at": found.set_at,
        "because": found.because,
    }, ""


def _labels(places: PipelinePlaces) -> Mapping[str, Any] | None:
    """How many predictions of a service wait for labels, and since when; None: it has no inbox."""
    if not places.inbox.exists():
        return None
    try:
        with inbox.open_reader(places.inbox) as reader:
            # Only what waits is asked for: how long labels took would read all of them.
            told = reader.latency(since=float("inf"))
            joined = reader.counts().joined
    except (ThermodriftError, OSError) as error:
        return {"problem": str(error)}
    oldest = told.waiting_since
    return {
        "waiting": told.waiting,
        "joined": joined,
        "oldest_at": None if oldest is None else datetime.fromtimestamp(oldest, UTC),
    }
