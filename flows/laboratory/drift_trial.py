"""How soon each method sees a drift, and how often it cries for nothing.

A trial is a generated stream, whose changes are known, through the product's own loop. The alarms
of the product are those of its drift checks; its error tests alone, and the detectors of river,
watch the error of what was served in the same run, record by record.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from flows.config import pipeline
from flows.laboratory import compare, members, records, simulation, streams
from flows.laboratory.crew import Work
from flows.laboratory.pieces import Pieces
from flows.laboratory.product_run import EVERY_ALARM
from flows.laboratory.records import Floats, LabConfig, StreamRecords
from flows.laboratory.streams import Drift, LabStream
from observability.drift import error_monitor
from observability.drift.error_monitor import ErrorMonitor

STREAMS = (
    *("sea-none", "agrawal-none", "friedman-none"),
    *("sea-abrupt", "agrawal-abrupt", "friedman-abrupt"),
    *("sea-gradual", "sea-recurring", "sea-virtual"),
)
"""The streams that are tried, unless others are named."""
TOLERANCE = 1000
"""Records after a change within which an alarm is about it."""
PRODUCT = "drift.judge"
"""The product's drift checks, which look at columns and at every member's errors."""
PER = 20_000
"""Stationary records to which false alarms are counted."""


class ServedErrors:
    """The product's error tests as a detector of one model's errors, which are from 0 to 1."""

    def __init__(self) -> None:
        self._tests = ErrorMonitor(bounded=True)
        self.drift_detected = False

    def update(self, error: float) -> None:
        """Hear one more error; what is found is looked at once."""
        self._tests.observe([self._tests.position], {error_monitor.SERVED: [error]})
        self.drift_detected = bool(self._tests.fired)
        if self.drift_detected:
            self._tests.acknowledge()


def detectors() -> Mapping[str, tuple[Any, bool]]:
    """The product's error tests and river's detectors, and whether each takes yes and no.

    All have their usual settings.

    KSWIN is left out: at a test a record it takes longer than everything else together.
    """
    from river import drift

    return {
        "error tests": (ServedErrors(), False),
        "ADWIN": (drift.ADWIN(), False),
        "ADWIN, delta 0.0001": (drift.ADWIN(delta=0.0001), False),
        "PageHinkley": (drift.PageHinkley(), False),
        "DDM": (drift.binary.DDM(), True),
        "HDDM_A": (drift.binary.HDDMA(), True),
        "HDDM_W": (drift.binary.HDDMW(), True),
    }


def works(home: Path, tried: Sequence[LabStream], seeds: int) -> list[Work[dict[str, Any]]]:
    """A trial for each stream and each of so many seeds; each result is a document."""
    return [
        Work(f"{stream.name} {seed}", [], partial(trial, home, stream.name, stream.records, seed))
        for stream in tried
        for seed in range(seeds)
    ]


def trial(home: Path, name: str, size: int, seed: int) -> dict[str, Any]:
    """The alarms of every method in one stream, by position."""
    (stream,) = streams.named(name)
    stream = stream.shortened(size).reseeded(stream.seed + seed)
    config = LabConfig(records_per_s=0.0)
    # A comparison of the same stream has other conditions, and pieces of its own.
    home = home / "trials"
    file = pipeline.read(streams.write(stream, home))
    pieces = Pieces.of(home, file, config)
    return pieces.document("alarms", partial(_tried, pieces, stream, records.read(file, config)))


def _tried(pieces: Pieces, stream: LabStream, read: StreamRecords) -> dict[str, Any]:
    # With a retrain at each alarm: a champion that stays stale hears of no further change.
    run = compare.of_product(pieces, read, "drift", EVERY_ALARM)
    champion = simulation.champion_answers(read, run.serving(read, LabConfig(records_per_s=0.0)))
    online = members.learn(read)
    errors = as_errors(read, read.losses(members.serve(read, online, champion)))
    return {
        "stream": stream.name,
        "kind": stream.kind,
        "records": len(read),
        "drifts": [[each.position, each.width] for each in stream.drifts],
        "checked_every": read.file.pipeline.drift.every,
        "alarms": {
            PRODUCT: list(run.alarms),
            **{name: heard(each, errors, yes) for name, (each, yes) in detectors().items()},
        },
    }


def as_errors(read: StreamRecords, losses: Floats) -> list[float]:
    """Losses as errors from 0 to 1; in regression 4 times the usual loss so far counts as 1."""
    if read.classes:
        return [float(loss) for loss in losses]
    found, total = [], 0.0
    for count, loss in enumerate(losses.tolist(), start=1):
        total += loss
        usual = total / count
        found.append(min(1.0, loss / (4.0 * usual)) if usual > 0 else 0.0)
    return found


def heard(detector: Any, errors: Iterable[float], yes_or_no: bool = False) -> list[int]:
    """The records at which a detector fires, where the error rose and did not fall.

    Whether it rose is seen from means of the newest 50 errors and of those before them. A detector
    that takes only yes and no is told whether the error is above one half.
    """
    found: list[int] = []
    seen: list[float] = []
    for place, error in enumerate(errors):
        seen.append(error)
        detector.update(error > 0.5 if yes_or_no else error)
        if not detector.drift_detected:
            continue
        newest = seen[-50:]
        before = seen[-2000:-50]
        if not before or sum(newest) / len(newest) > sum(before) / len(before):
            found.append(place)
    return found


def judged(documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each stream and method: how many changes were seen, how late, and false alarms."""
    found = []
    for name in dict.fromkeys(each["stream"] for each in documents):
        trials = [each for each in documents if each["stream"] == name]
        for method in trials[0]["alarms"]:
            found.append({"stream": name, "kind": trials[0]["kind"], **_summed(trials, method)})
    return found


def _summed(trials: Sequence[Mapping[str, Any]], method: str) -> dict[str, Any]:
    delays: list[int | None] = []
    false, stationary = 0, 0
    for each in trials:
        drifts = [Drift(position, width) for position, width in each["drifts"]]
        # The product says at every check that the world is still another one; a detector says it
        # once.
        lasts = each["checked_every"] if method == PRODUCT else 0
        late, wrong, quiet = against_truth(each["alarms"][method], drifts, each["records"], lasts)
        delays += late
        false += wrong
        stationary += quiet
    known = [delay for delay in delays if delay is not None]
    return {
        "method": method,
        "trials": len(trials),
        "changes": len(delays),
        "seen": len(known),
        "missed": len(delays) - len(known),
        "median_delay": median(known) if known else None,
        "false_alarms": false,
        "stationary_records": stationary,
        "false_per_20000": PER * false / stationary if stationary else None,
    }


def against_truth(
    alarms: Sequence[int], drifts: Sequence[Drift], size: int, lasts: int = 0
) -> tuple[list[int | None], int, int]:
    """Delays of the first alarm about each change (None: missed), false alarms, quiet records.

    An alarm is about a change from its beginning until `TOLERANCE` records after its end, or until
    the next one begins. Every alarm outside is false, unless it only goes on with one that was at
    most `lasts` records before; the records outside are the quiet ones.
    """
    next_ones = [*(each.position for each in drifts[1:]), size][: len(drifts)]
    spans = [
        (each.position, min(each.ends + TOLERANCE, after, size))
        for each, after in zip(drifts, next_ones, strict=True)
    ]
    delays: list[int | None] = []
    for first, last in spans:
        # A check at position p has seen the records before p.
        about = [alarm for alarm in alarms if first < alarm <= last]
        delays.append(about[0] - first if about else None)
    begun = [
        alarm
        for alarm, before in zip(alarms, [-math.inf, *alarms], strict=False)
        if alarm - before > lasts
    ]
    within = sum(any(first < alarm <= last for first, last in spans) for alarm in begun)
    return delays, len(begun) - within, size - sum(last - first for first, last in spans)
