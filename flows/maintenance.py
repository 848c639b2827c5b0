"""Merge the prediction logs, and remove what the home's rules no longer keep.

This runs beside the loop and never blocks it: the loop's commits wait in the outbox meanwhile, and
a log is changed only before the checkpoint's position. Each result, with its reason, is a decision
in the history. What cannot be done now is left for the next time.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from prefect import flow

from flows.metrics import export, upkeep_metrics
from models.persistence import checkpoint
from models.prediction_log import prediction_log
from observability.core import cli_output
from observability.core.decision import Decision, Fact
from observability.core.errors import ThermodriftError, TryAgainLater
from observability.core.paths import PIPELINE_NAME, PipelinePlaces, Places
from observability.history.records import DecisionRecord
from observability.history.store import History

State = Literal["done", "later", "failed"]

DAMAGED_NAMED = 3
"""Files that a sentence names; the facts count them all."""


@dataclass(frozen=True)
class MaintenanceResult:
    """The result of one task, and why."""

    pipeline: str
    """Empty for what concerns the whole home."""
    state: State
    because: str
    facts: Mapping[str, Fact] = field(default_factory=dict)


@flow(name="thermodrift-upkeep", persist_result=False, retries=0)
def upkeep(home: Path) -> dict[str, Any]:
    """Merge, remove and checkpoint under one home, by the rules of its ``[upkeep]`` table.

    Returns the result of each task. Raises BadConfiguration for a home whose file is wrong.
    """
    history, began_s = History(home), time.monotonic()
    # Rows that wait may be about predictions that are to be removed: they are flushed first.
    behind = _flush(history)
    folder = Places(home).pipelines
    results = [
        result
        for each in sorted(folder.iterdir() if folder.is_dir() else ())
        if each.is_dir() and PIPELINE_NAME.fullmatch(each.name)
        for result in _maintain_log(Places(home).pipeline(each.name), history, behind)
    ]
    now = datetime.now(UTC)
    results.append(_attempt("", lambda: _maintain_history(history, now)))
    run_id = secrets.token_hex(6)
    rows = [
        DecisionRecord.of(
            Decision(
                question="upkeep",
                yes=each.state == "done",
                because=each.because,
                facts=each.facts,
            ),
            decided_at=now,
            pipeline=each.pipeline,
            run_id=run_id,
            position=0,
        )
        for each in results
    ]
    history.commit(rows, f"upkeep.{run_id}.0")
    states = {each.state for each in results}
    document = {
        "state": "failed" if "failed" in states else "later" if "later" in states else "done",
        "results": [vars(each) for each in results],
        "history_trouble": _flush(history) or None,
    }
    upkeep_metrics.leave(Places(home), results, time.monotonic() - began_s, now.timestamp())
    return {**document, "metrics_trouble": export.export(Places(home), ends=True) or None}


def _flush(history: History) -> str:
    """Flush the outbox; why rows still wait, empty where none does."""
    try:
        return history.flush().trouble
    except (ThermodriftError, OSError) as error:
        return str(error)


def _maintain_log(
    places: PipelinePlaces, history: History, behind: str
) -> Iterator[MaintenanceResult]:
    """Maintain one pipeline's prediction log; `behind` says why rows of the history wait, if so."""
    try:
        before = int(checkpoint.header(places.checkpoint)["position"])
    except FileNotFoundError:
        return  # it has not begun
    except (OSError, KeyError, ValueError) as error:
        yield MaintenanceResult(places.name, "failed", f"its log is left alone: {error}")
        return

    def remove() -> MaintenanceResult:
        assert keep is not None
        gone = prediction_log.remove_before(
            places.predictions, keep, before, swap=history.exclusive
        )
        facts = {"files": gone.files, "rows": gone.rows, "bytes": gone.bytes, "kept": keep}
        return MaintenanceResult(places.name, "later" if gone.busy else "done", gone.because, facts)

    def merge() -> MaintenanceResult:
        made = prediction_log.compact(
            places.predictions,
            before,
            swap=history.exclusive,
            target_rows=history.upkeep.predictions_file_rows,
        )
        facts = {
            "files_before": made.files_before,
            "files_after": made.files_after,
            "bytes_before": made.bytes_before,
            "bytes_after": made.bytes_after,
            "rows": made.rows,
            "damaged": len(made.damaged),
        }
        state: State = "later" if made.busy else "failed" if made.damaged else "done"
        because = "; ".join([made.because, *made.damaged[:DAMAGED_NAMED]])
        return MaintenanceResult(places.name, state, because, facts)

    keep = history.upkeep.predictions_keep
    if keep is not None and behind:
        yield MaintenanceResult(
            places.name, "later", f"no prediction is removed while rows wait: {behind}"
        )
    elif keep is not None:
        yield _attempt(places.name, remove)
    yield _attempt(places.name, merge)


def _maintain_history(history: History, now: datetime) -> MaintenanceResult:
    """Remove rows of the history that the rules no longer keep, and vacuum it."""
    removed = history.remove_expired(history.upkeep, now)
    told = ", ".join(f"{rows} of {table}" for table, rows in removed.items())
    because = (
        f"removed rows that the rules no longer keep: {told}"
        if removed
        else "no row of the history is older than its rules keep"
    )
    vacuumed = history.vacuum()
    return MaintenanceResult("", "done", "; ".join(filter(None, [because, vacuumed])), removed)


def _attempt(pipeline: str, work: Callable[[], MaintenanceResult]) -> MaintenanceResult:
    """Do `work`; an error of one pipeline does not keep the others from their upkeep."""
    try:
        return work()
    except TryAgainLater as later:
        return MaintenanceResult(pipeline, "later", str(later))
    except (ThermodriftError, OSError) as error:
        return MaintenanceResult(pipeline, "failed", str(error))


def render(document: Mapping[str, Any]) -> None:
    """Print the results for people."""
    marks = {"done": "✓", "later": "i", "failed": "✗"}
    out = cli_output.stdout()
    for each in document["results"]:
        line = f"{marks[each['state']]} {each['pipeline'] or 'history':<12} {each['because']}"
        out.print(line, soft_wrap=True, highlight=False, markup=False)
    if document["metrics_trouble"]:
        line = f"i {'metrics':<12} {document['metrics_trouble']}"
        out.print(line, soft_wrap=True, highlight=False, markup=False)
