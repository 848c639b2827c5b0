"""A home as it is after fifty million records: the log as upkeep leaves it, and its history.

For `history_scale`. Labels and predictions have the shares of elec2's, probabilities all of a
double's bits; scores come per 500 records, a look for drift per 2,500, a retrain per 250,000.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from models.online.online_model import DEFAULT_MEMBERS
from models.prediction_log import segments
from observability.core import log_segments
from observability.core.paths import Places
from observability.history.records import (
    CostRecord,
    DecisionRecord,
    ExpectationRecord,
    ForecastRecord,
    GpuReadingRecord,
    ModelRecord,
    Record,
    RejectRecord,
    RequestRecord,
    RunRecord,
    ScoreRecord,
)
from observability.history.store import History

NAME = "elec2"
RECORDS_PER_FILE = 1_000_000
BATCH = 500
RECORDS_PER_LOOK, RECORDS_PER_RETRAIN, RECORDS_PER_REJECT = 2_500, 250_000, 10_000
RECORDS_PER_CHAMPION = 2 * RECORDS_PER_RETRAIN
_DAWN = datetime(2026, 1, 1, tzinfo=UTC)


def fill(home: Path, records: int, seed: int) -> dict[str, Any]:
    """Write the log and the history of so many records; what they take on the disk."""

    folder = Places(home).pipeline(NAME).predictions
    folder.mkdir(parents=True)
    rng, began_s = np.random.default_rng(seed), time.perf_counter()
    for first in range(0, records, RECORDS_PER_FILE):
        span = log_segments.Span(first, min(first + RECORDS_PER_FILE, records))
        table = _log(rng, *span)
        segments.write_temporary(folder / log_segments.name(span), table.schema, [table])
    log_s = time.perf_counter() - began_s
    rows = _commit_history(home, rng, records)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {
        "log_files": len(list(folder.iterdir())),
        "log_mb_per_million": round(size / records, 2),
        "history_rows": rows,
        "history_mb_per_million": round(Places(home).history.stat().st_size / records, 2),
        "log_s": round(log_s, 1),
        "history_s": round(time.perf_counter() - began_s - log_s, 1),
    }


def _log(rng: np.random.Generator, first: int, last: int) -> pa.Table:
    """Predictions of two classes: labels that linger, members that are right with what they say."""

    count = last - first
    position = np.arange(first, last)
    # A label lasts as long as in elec2, where yesterday's is right five times of six.
    label = (np.cumsum(rng.random(count) < 0.15) % 2).astype(np.int64)
    columns: dict[str, Any] = {
        "pipeline": pa.repeat(NAME, count),
        "position": position,
        "label": label,
    }
    said = {}
    # Surer than right, as models are; the doubles have all of their 52 bits.
    for member, sure in (("online", 4.0), ("batch", 3.0), ("served", 5.0)):
        probability = 0.5 + 0.5 * rng.beta(sure, 1.5, count)
        right = rng.random(count) < 0.05 + 0.93 * probability
        columns[member] = np.where(right, label, 1 - label)
        said[f"{member}_probability"] = probability
    columns["baseline"] = np.concatenate([label[:1], label[:-1]])
    order = ("pipeline", "position", "label", "online", "batch", "baseline", "served")
    champions = _champions(position)
    logged = {name: columns[name] for name in order} | said
    logged |= {"members": _members(columns["online"]), "model_version": champions}
    return pa.table(logged)


def _members(online: np.ndarray[Any, Any]) -> pa.Array:
    """Of each online member what the best one predicted, by its name."""

    names = DEFAULT_MEMBERS
    ends = np.arange(0, (len(online) + 1) * len(names), len(names), dtype=np.int32)
    predicted = pa.array(np.repeat(online, len(names)))
    return pa.MapArray.from_arrays(ends, pa.array([*names] * len(online)), predicted)


def _champions(position: np.ndarray[Any, Any]) -> pa.Array:
    """The champion at each position: every second retrain is promoted."""

    periods, places = np.unique(position // (RECORDS_PER_CHAMPION), return_inverse=True)
    names = [_version(int(each) * RECORDS_PER_CHAMPION) for each in periods]
    return pa.array(names, pa.string()).take(pa.array(places))


def _version(position: int) -> str:
    return f"v{position:09d}"


def _commit_history(home: Path, rng: np.random.Generator, records: int) -> int:
    """Commit and fold a history of so many records; its rows."""

    history, count = History(home), 0
    for first in range(0, records, RECORDS_PER_FILE):
        last = min(first + RECORDS_PER_FILE, records)
        rows = [*_scores(rng, first, last), *_looks(first, last), *_retrains(rng, first, last)]
        rows += [*_run(first, last), *_rejects(first, last)]
        history.commit(rows, f"{NAME}.{first}")
        history.flush()
        count += len(rows)
    return count


def _here(position: int) -> dict[str, Any]:
    """When and where the stream stood at `position`: a thousand records a second."""
    run = f"run-{position // RECORDS_PER_FILE}"
    return {"at": _DAWN + timedelta(seconds=position / 1000), "pipeline": NAME, "run_id": run}


def _scores(rng: np.random.Generator, first: int, last: int) -> Iterator[Record]:

    means = {"served": 0.9, "online": 0.86, "batch": 0.84, "baseline": 0.85}
    means |= dict.fromkeys(DEFAULT_MEMBERS, 0.84)
    for start in range(first, last, BATCH):
        here = _here(start)
        for member, mean in means.items():
            yield ScoreRecord(
                **here,
                position_from=start,
                position_to=start + BATCH,
                member=member,
                metric="accuracy",
                value=round(rng.normal(mean, math.sqrt(mean * (1 - mean) / BATCH)) * BATCH) / BATCH,
            )


def _looks(first: int, last: int) -> Iterator[Record]:
    """The drift decisions."""

    for position in range(first, last, RECORDS_PER_LOOK):
        here = _here(position)
        yield DecisionRecord(
            decided_at=here["at"],
            pipeline=here["pipeline"],
            run_id=here["run_id"],
            position=position,
            question="drift",
            yes=position % RECORDS_PER_RETRAIN == 0,
            because=f"{position % 7} of 7 columns drifted, 0.3 of them are tolerated",
            facts={"columns": 7, "drifted": position % 7, "tolerated_share": 0.3, "rows": 1000},
        )


def _retrains(rng: np.random.Generator, first: int, last: int) -> Iterator[Record]:
    """Requests: each waits for the gate for a while, every second one is promoted."""
    for position in range(first, last, RECORDS_PER_RETRAIN):
        deferrals = int(rng.integers(0, 6))
        yield from _wait(position, deferrals)
        yield from _outcome(position, position + deferrals * BATCH, deferrals)


def _wait(asked: int, deferrals: int) -> Iterator[Record]:

    for each in range(deferrals + 2):
        position = asked + max(0, each - 1) * BATCH
        here = _here(position)
        event = "requested" if each == 0 else "deferred" if each <= deferrals else "started"
        yield RequestRecord(
            **here,
            request_id=f"retrain-{asked}",
            event=event,
            position=position,
            because="margin 7.0 C is below 10.0 C" if event == "deferred" else "drift",
            deadline_s=3.0,
            waited_s=(position - asked) / 1000,
        )
        yield DecisionRecord(
            decided_at=here["at"],
            pipeline=NAME,
            run_id=here["run_id"],
            position=position,
            question="gate",
            yes=event == "started",
            because="margin 7.0 C is below 10.0 C",
            facts={"margin_c": 7.0, "pause_margin_c": 10.0},
        )
        for device in range(4):
            yield ForecastRecord(
                **here,
                position=position,
                uuid=f"GPU-{device}",
                kind="margin at horizon",
                horizon_s=60.0,
                predicted_c=12.5,
                standard_error_c=1.0,
                actual_c=12.0,
            )
            yield GpuReadingRecord(
                **here,
                source="nvml",
                uuid=f"GPU-{device}",
                elapsed_s=position / 1000,
                temperature_c=80.0 - each,
                margin_c=7.0 + each,
                power_w=310.0 + device,
                energy_j=position / 1000 * 310.0,
            )


def _outcome(asked: int, position: int, deferrals: int) -> Iterator[Record]:

    here, version = _here(position), _version(asked)
    promoted = asked % RECORDS_PER_CHAMPION == 0
    event: Literal["promoted", "rejected"] = "promoted" if promoted else "rejected"
    request = {"request_id": f"retrain-{asked}", "position": position}
    yield RequestRecord(
        **here, **request, event=event, because="holdout", waited_s=deferrals * BATCH / 1000
    )
    yield CostRecord(
        **here,
        **request,
        work="fit",
        version=version,
        seconds=2.0,
        cpu_s=3.5,
        joules=620.0,
        energy_source="counter",
    )
    for said, gain in (("expected", None), ("compared", 0.02)):
        yield ExpectationRecord(
            **here,
            **request,
            event=said,
            evidence="loss",
            metric="brier",
            expected_gain=0.03,
            horizon_records=5_000.0,
            cost_records=60.0,
            version=version,
            compared_gain=gain,
        )
    trained = {"rows": 20_000, "train_from": max(0, asked - 20_000), "train_to": asked}
    for each in ("stored", event):
        yield ModelRecord(
            **here,
            **trained,
            version=version,
            event=each,
            position=position,
            recipe="hist_gradient_boosting",
            fit_s=1.5,
            size_bytes=400_000,
            because="holdout",
        )
    for member, value in (("holdout:champion", 0.84), ("holdout:challenger", 0.86)):
        yield ScoreRecord(
            **here,
            position_from=max(0, asked - 4_000),
            position_to=position,
            member=member,
            metric="accuracy",
            value=value,
        )


def _run(first: int, last: int) -> Iterator[Record]:
    """One run, or its first half where it was killed."""

    yield RunRecord(**_here(first), event="started", position=first, host="host-1")
    if first // RECORDS_PER_FILE % 10 != 9:
        spent = {"seconds": (last - first) / 1000, "cpu_s": (last - first) / 900}
        counts = {"records": last - first, "learned": last - first, "rejected": 0}
        yield RunRecord(
            **_here(first) | {"at": _here(last)["at"]},
            **spent,
            **counts,
            event="ended",
            position=last,
            outcome="limit_reached",
            because="went through the records asked for",
        )


def _rejects(first: int, last: int) -> Iterator[Record]:

    for position in range(first, last, RECORDS_PER_REJECT):
        yield RejectRecord(
            **_here(position),
            position=position,
            reason="nswprice is not a finite number",
            raw='{"nswprice": "NaN", "nswdemand": 0.4, "vicprice": 0.1, "class": 1}',
        )
