"""Leaves the figures of an upkeep in the home, for a service to show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from observability.core.paths import Places
from observability.metrics import definitions, samples
from observability.metrics.samples import Sample, sample

STATES = ("done", "later", "failed")


class TaskResult(Protocol):
    """What became of one task of an upkeep."""

    @property
    def state(self) -> str:
        """One of `STATES`."""

    @property
    def facts(self) -> Mapping[str, object]:
        """Its numbers: `bytes` that were removed, `bytes_before` and `bytes_after` a merge."""


def leave(places: Places, results: Sequence[TaskResult], took_s: float, now_s: float) -> None:
    """Leave the figures of an upkeep that ended at `now_s`, in seconds since 1970.

    A disk that refuses them does not fail the upkeep.
    """
    path = places.metrics / "upkeep.json"
    states = Counter(each.state for each in results)
    is_success = set(states) <= {"done"}
    found = [
        *sample(definitions.UPKEEP_AT, now_s),
        *(sample(definitions.UPKEEP_SUCCESS_AT, now_s) if is_success else _last_success(path)),
        *sample(definitions.UPKEEP_SECONDS, took_s),
        *sample(definitions.UPKEEP_FREED, sum(map(_freed, results))),
        *(
            each
            for state in STATES
            for each in sample(definitions.UPKEEP_TASKS, states[state], state)
        ),
    ]
    with suppress(OSError):
        samples.write(path, found, now_s)


def _last_success(path: Path) -> list[Sample]:
    try:
        before = samples.read(path).samples
    except (OSError, ValueError):
        return []
    return [each for each in before if each.metric is definitions.UPKEEP_SUCCESS_AT]


def _freed(result: TaskResult) -> float:
    numbers = {
        name: value for name, value in result.facts.items() if isinstance(value, int | float)
    }
    merged = numbers.get("bytes_before", 0) - numbers.get("bytes_after", 0)
    return numbers.get("bytes", 0) + merged
