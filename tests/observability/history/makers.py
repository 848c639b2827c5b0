"""Makers of the history's rows: one sound default each, and any field by its name.

Apart from `makers`, because processes that tests start and kill import it: nothing slow is here.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from observability.core.paths import Places
from observability.history.records import (
    CostRecord,
    DecisionRecord,
    ForecastRecord,
    GpuReadingRecord,
    ModelRecord,
    RejectRecord,
    ReplayRecord,
    RequestRecord,
    RunRecord,
    ScoreRecord,
)
from observability.history.store import History
from tests import ROOT

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """A time so many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def make_decision(**changed: Any) -> DecisionRecord:
    """A calm drift decision."""
    fields: dict[str, Any] = {
        "decided_at": NOON,
        "pipeline": "elec2",
        "run_id": "run-1",
        "position": 1000,
        "question": "drift",
        "yes": False,
        "because": "accuracy 0.84 is within 0.02 of 0.85",
        "facts": {"accuracy": 0.84, "tolerance": 0.02},
    }
    return DecisionRecord(**(fields | changed))


def make_run(**changed: Any) -> RunRecord:
    """A run that started."""
    fields: dict[str, Any] = {
        "at": NOON,
        "pipeline": "elec2",
        "run_id": "run-1",
        "event": "started",
        "position": 0,
    }
    return RunRecord(**(fields | changed))


def make_request(**changed: Any) -> RequestRecord:
    """A retrain that was asked for."""
    fields: dict[str, Any] = {
        "at": NOON,
        "pipeline": "elec2",
        "run_id": "run-1",
        "request_id": "retrain-1",
        "event": "requested",
        "position": 1000,
        "because": "drift",
    }
    return RequestRecord(**(fields | changed))


def make_cost(**changed: Any) -> CostRecord:
    """A fit that took two seconds and 300 joules."""
    fields: dict[str, Any] = {
        "at": NOON,
        "pipeline": "elec2",
        "run_id": "run-1",
        "request_id": "retrain-1",
        "position": 1000,
        "work": "fit",
        "version": "v1",
        "seconds": 2.0,
        "cpu_s": 3.5,
        "joules": 300.0,
        "energy_source": "counter",
    }
    return CostRecord(**(fields | changed))


def make_forecast(**changed: Any) -> ForecastRecord:
    """A margin that was predicted a minute before, half a degree too high."""
    fields: dict[str, Any] = {
        "at": NOON,
        "pipeline": "elec2",
        "run_id": "run-1",
        "position": 1000,
        "uuid": "GPU-0",
        "kind": "margin at horizon",
        "horizon_s": 60.0,
        "predicted_c": 16.5,
        "standard_error_c": 0.8,
        "actual_c": 16.0,
    }
    return ForecastRecord(**(fields | changed))


def make_model(**changed: Any) -> ModelRecord:
    """A model that was stored."""
    fields: dict[str, Any] = {
        "at": NOON,
        "pipeline": "elec2",
        "run_id": "run-1",
        "version": "v1",
        "event": "stored",
        "position": 1000,
    }
    return ModelRecord(**(fields | changed))


def make_score(**changed: Any) -> ScoreRecord:
    """What the served prediction scored."""
    fields: dict[str, Any] = {
        "at": NOON,
        "pipeline": "elec2",
        "run_id": "run-1",
        "position_from": 0,
        "position_to": 1000,
        "member": "served",
        "metric": "accuracy",
        "value": 0.84,
    }
    return ScoreRecord(**(fields | changed))


def make_reject(**changed: Any) -> RejectRecord:
    """A record that was refused."""
    fields: dict[str, Any] = {
        "at": NOON,
        "pipeline": "elec2",
        "run_id": "run-1",
        "position": 7,
        "reason": "nswprice is not a finite number",
        "kind": "not a number",
        "raw": '{"nswprice": "NaN"}',
    }
    return RejectRecord(**(fields | changed))


def make_replay(**changed: Any) -> ReplayRecord:
    """A reject that was read again, a minute after it was met."""
    fields: dict[str, Any] = {
        "at": at(60),
        "pipeline": "elec2",
        "run_id": "run-2",
        "position": 7,
        "labelled": True,
    }
    return ReplayRecord(**(fields | changed))


def make_gpu_row(**changed: Any) -> GpuReadingRecord:
    """A device with headroom."""
    fields: dict[str, Any] = {
        "at": NOON,
        "pipeline": "elec2",
        "run_id": "run-1",
        "source": "summer.csv",
        "uuid": "GPU-0",
        "temperature_c": 71.0,
        "margin_c": 16.0,
        "power_w": 310.0,
    }
    return GpuReadingRecord(**(fields | changed))


def write_predictions(home: Path, pipeline: str = "elec2", **columns: Sequence[object]) -> Path:
    """One file of the prediction log, named by its first and last position.

    `members` has a dict a record, from a member's name to what it predicted.
    """
    import pyarrow as pa
    from pyarrow import parquet

    positions = columns.setdefault("position", [0, 1])
    folder = Places(home).pipeline(pipeline).predictions
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{positions[0]:012d}-{positions[-1]:012d}.parquet"
    table = pa.table({name: list(cells) for name, cells in columns.items() if name != "members"})
    if members := columns.get("members"):
        kind = pa.map_(pa.string(), table.schema.field("label").type)
        table = table.append_column("members", pa.array(list(members), kind))
    parquet.write_table(table, path)
    return path


def rows_of(history: History, sql: str) -> list[dict[str, Any]]:
    """The answer to `sql` as a list of dicts."""
    rows: list[dict[str, Any]] = history.ask(sql).to_pylist()
    return rows


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python process of its own at the project's root, joined by pipes."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
