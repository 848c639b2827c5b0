"""All figures of a home, gathered from its files: headers of checkpoints, snapshots, the outbox.

The history's database is not opened: it belongs to whoever writes or asks. What cannot be read is
said by `thermodrift_source_readable`, and the rest is told all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from flows.metrics import pipeline_metrics
from models.persistence import checkpoint
from observability.core.paths import PIPELINE_NAME, Places
from observability.metrics import definitions, samples
from observability.metrics.samples import Sample, Snapshot, sample
from power.policy import gate_override, override_file

READINGS_COUNT_S = 300.0
"""How long what was read of a device counts as its present state."""


def collect(places: Places, clock: Callable[[], float] = time.time) -> list[Sample]:
    """The samples of a home now; none of a home that does not exist yet but `thermodrift_info`."""
    now_s = clock()
    sources: dict[str, Callable[[], Iterable[Sample]]] = {
        **{
            f"checkpoint of {name}": _checkpoint(places, name, now_s)
            for name in _pipelines(places.pipelines)
        },
        "gate override": lambda: _override(places.override, now_s),
        "outbox": lambda: _outbox(places),
    }
    found = [*sample(definitions.INFO, 1, metadata.version("thermodrift"))]
    for source, read in sources.items():
        found += _told(source, read)
    return [*found, *_snapshots(places.metrics, now_s)]


def _told(source: str, read: Callable[[], Iterable[Sample]]) -> list[Sample]:
    """The samples of one source, and whether it could be read."""
    try:
        found = list(read())
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return sample(definitions.SOURCE_READABLE, 0, source)
    return [*found, *sample(definitions.SOURCE_READABLE, 1, source)]


def _pipelines(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(each.name for each in folder.iterdir() if PIPELINE_NAME.fullmatch(each.name))


def _checkpoint(places: Places, name: str, now_s: float) -> Callable[[], Iterable[Sample]]:
    path = places.pipeline(name).checkpoint
    return lambda: pipeline_metrics.collect(name, checkpoint.header(path), now_s)


def _override(path: Path, now_s: float) -> Iterator[Sample]:
    override = override_file.read(path)
    if override is not None and gate_override.in_force(
        override, datetime.fromtimestamp(now_s, UTC)
    ):
        yield from sample(definitions.OVERRIDE, 1, override.answer)


def _outbox(places: Places) -> Iterator[Sample]:
    """What waits to be flushed, and what was found damaged. The files are named, never opened."""
    written = []
    for path in places.outbox.glob("*.json"):
        try:
            written.append(path.stat().st_mtime)
        except FileNotFoundError:
            continue  # It was flushed just now.
    yield from sample(definitions.OUTBOX, len(written))
    yield from sample(definitions.OUTBOX_OLDEST, min(written, default=None))
    damaged = [
        *places.outbox.glob("*.corrupt"),
        *places.home.glob(f"{places.history.name}.wal.damaged-*"),
    ]
    yield from sample(definitions.CORRUPT, len(damaged))
    if places.history.exists():
        yield from sample(definitions.HISTORY_BYTES, places.history.stat().st_size)


def _snapshots(folder: Path, now_s: float) -> Iterator[Sample]:
    """What runs, flushes and upkeep left; where several tell the same, the newest."""
    found = list[Snapshot]()
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            snapshot = samples.read(path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            yield from sample(definitions.SOURCE_READABLE, 0, path.stem)
            continue
        yield from sample(definitions.SOURCE_READABLE, 1, path.stem)
        found.append(_present(snapshot, now_s))
    yield from samples.newest(found)


def _present(snapshot: Snapshot, now_s: float) -> Snapshot:
    """The snapshot without readings that are too old to count as the present state.

    When a device was read last stays: it says why the rest is absent.
    """
    if now_s - snapshot.written_at <= READINGS_COUNT_S:
        return snapshot
    kept = [
        each
        for each in snapshot.samples
        if each.metric.group != "gate" or each.metric is definitions.DEVICE_READ_AT
    ]
    return replace(snapshot, samples=tuple(kept))
