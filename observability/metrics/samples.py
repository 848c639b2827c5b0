"""Values of metrics, and the small files by which one process tells them to another.

A run knows its devices, upkeep what it freed; `thermodrift serve` shows both. So each leaves its
values in a file of the home (a *snapshot*), which is replaced as a whole. It is made anew all the
time and nothing depends on it, so it is not fsynced, and one that cannot be written or read costs
figures alone.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from observability.metrics.definitions import BY_NAME, Metric


@dataclass(frozen=True)
class Sample:
    """One value of a metric."""

    metric: Metric
    labels: tuple[str, ...]
    """Values of the metric's labels, in order."""
    value: float
    """Of a summary, the sum."""
    count: float = 0.0
    """Of a summary alone."""


@dataclass(frozen=True)
class Snapshot:
    """The values that one writer left."""

    written_at: float
    """Seconds since 1970."""
    samples: tuple[Sample, ...]


def sample(metric: Metric, value: float | None, *labels: object) -> list[Sample]:
    """The value as a sample; nothing for one that is unknown, so that it is absent."""
    assert len(labels) == len(metric.labels), f"{metric.name} has the labels {metric.labels}"
    if value is None or not math.isfinite(value):
        return []
    return [Sample(metric, tuple(map(str, labels)), float(value))]


def summary(metric: Metric, total: float | None, count: int, *labels: object) -> list[Sample]:
    """A sum over so many observations, as a sample; nothing where the sum is unknown."""
    return [
        Sample(each.metric, each.labels, each.value, count)
        for each in sample(metric, total, *labels)
    ]


def newest(snapshots: Iterable[Snapshot]) -> Iterator[Sample]:
    """One value for each metric and labels: that of the newest snapshot which has it."""
    found: dict[tuple[str, tuple[str, ...]], Sample] = {}
    for each in sorted(snapshots, key=lambda snapshot: snapshot.written_at):
        found |= {(one.metric.name, one.labels): one for one in each.samples}
    yield from found.values()


def write(path: Path, samples: Sequence[Sample], now_s: float) -> None:
    """Replace a snapshot. Raises OSError."""
    document = {
        "written_at": now_s,
        "samples": [[each.metric.name, each.labels, each.value, each.count] for each in samples],
    }
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace(path, json.dumps(document).encode())


def read(path: Path) -> Snapshot:
    """Read a snapshot. Raises OSError where it cannot be read, and ValueError for other content.

    What another version of thermodrift wrote under names that are not ours is left out.
    """
    document = json.loads(path.read_bytes())
    try:
        return Snapshot(float(document["written_at"]), tuple(_known(document["samples"])))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no snapshot of figures: {error}") from error


def _known(rows: Iterable[Sequence[object]]) -> Iterator[Sample]:
    for name, labels, value, count in rows:
        metric = BY_NAME.get(str(name))
        if metric is None or not isinstance(labels, list) or len(labels) != len(metric.labels):
            continue
        if isinstance(value, int | float) and isinstance(count, int | float):
            yield Sample(metric, tuple(map(str, labels)), float(value), float(count))


def replace(path: Path, content: bytes) -> None:
    """Replace a file as a whole, not durably: a reader finds the old one or the new one.

    Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
