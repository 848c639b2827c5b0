"""Keep what grows small: merge the prediction logs, remove what nobody wants kept any longer.

Runs beside the loop and never in its way: the loop's commits wait in the outbox meanwhile, and a
log is touched only where the checkpoint has passed. Each thing that was done, or was not, and
why, is a decision in the history. What cannot be done now is left for the next time.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from prefect import flow

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
    """One thing that was to be done: how it stands, and why."""

    pipeline: str
    """Empty for what concerns the whole home."""
    state: State
    because: str
    facts: Mapping[str, Fact] = field(default_factory=dict)

    def decision(self) -> Decision:
        """What the history keeps of it."""
        return Decision(
            question="upkeep", yes=self.state == "done", because=self.because, facts=self.facts
        )


@flow(name="thermodrift-upkeep", persist_result=False, retries=0)
def upkeep(home: Path) -> dict[str, Any]:
    """Merge, remove and checkpoint under one home, by the rules of its ``[upkeep]`` table.

    Returns how it went, deed by deed. Raises BadConfiguration for a home whose file is wrong.
    """
    history = History(home)
    # What waits may be about predictions that are to be removed: it goes first.
    behind = _folded(history)
    deeds = [deed for places in _pipelines(home) for deed in _log(places, history, behind)]
    now = datetime.now(UTC)
    deeds.append(_tried("", lambda: _rows(history, now)))
    run_id = secrets.token_hex(6)
    history.commit([_row(deed, now, run_id) for deed in deeds], f"upkeep.{run_id}.0")
    return {
        "state": _worst(deeds),
        "deeds": [vars(deed) for deed in deeds],
        "history_trouble": _folded(history) or None,
    }


def _folded(history: History) -> str:
    """Flush what waits; why some of it still does, empty where nothing is in the way."""
    try:
        return history.flush().trouble
    except (ThermodriftError, OSError) as error:
        return str(error)


def _pipelines(home: Path) -> Iterator[PipelinePlaces]:
    folder = Places(home).pipelines
    for each in sorted(folder.iterdir()) if folder.is_dir() else ():
        if each.is_dir() and PIPELINE_NAME.fullmatch(each.name):
            yield Places(home).pipeline(each.name)


def _log(places: PipelinePlaces, history: History, behind: str) -> Iterator[MaintenanceResult]:
    """What becomes of one pipeline's prediction log; `behind` says why the history is, if it is."""
    try:
        before = int(checkpoint.header(places.checkpoint)["position"])
    except FileNotFoundError:
        return  # it has not begun
    except (OSError, KeyError, ValueError) as error:
        yield MaintenanceResult(places.name, "failed", f"its log is left alone: {error}")
        return
    keep = history.upkeep.predictions_keep
    if keep is not None and behind:
        yield MaintenanceResult(
            places.name, "later", f"no prediction is removed while rows wait: {behind}"
        )
    elif keep is not None:
        yield _tried(places.name, lambda: _forgotten(places, history, before, keep))
    yield _tried(places.name, lambda: _merged(places, history, before))


def _forgotten(
    places: PipelinePlaces, history: History, before: int, keep: int
) -> MaintenanceResult:
    gone = prediction_log.remove_before(places.predictions, keep, before, swap=history.exclusive)
    facts = {"files": gone.files, "rows": gone.rows, "bytes": gone.bytes, "kept": keep}
    return MaintenanceResult(places.name, "later" if gone.busy else "done", gone.because, facts)


def _merged(places: PipelinePlaces, history: History, before: int) -> MaintenanceResult:
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
    named = made.damaged[:DAMAGED_NAMED]
    return MaintenanceResult(places.name, state, "; ".join([made.because, *named]), facts)


def _rows(history: History, now: datetime) -> MaintenanceResult:
    """What becomes of the history's own rows."""
    removed = history.remove_expired(history.upkeep, now)
    told = ", ".join(f"{rows} of {table}" for table, rows in removed.items())
    because = (
        f"removed rows that the rules no longer keep: {told}"
        if removed
        else "no row of the history is older than its rules keep"
    )
    maintained = history.vacuum()
    return MaintenanceResult("", "done", "; ".join(filter(None, [because, maintained])), removed)


def _tried(pipeline: str, work: Callable[[], MaintenanceResult]) -> MaintenanceResult:
    """One pipeline's trouble must not keep the others from their upkeep."""
    try:
        return work()
    except TryAgainLater as later:
        return MaintenanceResult(pipeline, "later", str(later))
    except (ThermodriftError, OSError) as error:
        return MaintenanceResult(pipeline, "failed", str(error))


def _row(deed: MaintenanceResult, now: datetime, run_id: str) -> DecisionRecord:
    return DecisionRecord.of(
        deed.decision(), decided_at=now, pipeline=deed.pipeline, run_id=run_id, position=0
    )


def _worst(deeds: Sequence[MaintenanceResult]) -> State:
    states = {deed.state for deed in deeds}
    return "failed" if "failed" in states else "later" if "later" in states else "done"


def render(document: Mapping[str, Any]) -> None:
    """Print how it went, for people."""
    marks = {"done": "✓", "later": "i", "failed": "✗"}
    out = cli_output.stdout()
    for deed in document["deeds"]:
        line = f"{marks[deed['state']]} {deed['pipeline'] or 'history':<12} {deed['because']}"
        out.print(line, soft_wrap=True, highlight=False, markup=False)
