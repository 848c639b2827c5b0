"""A look at the world by a deployed run, and who is told of what was seen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta

from flows.deployed import reconciler
from flows.deployed.flow_run import DeployedRun
from flows.learning import drift_check
from flows.learning.drift_check import DriftCheckResult
from flows.run import run_queue
from flows.run.state import OpenRequest
from flows.run.unit_of_work import UnitOfWork
from flows.stack import prefect_client
from observability.core.decision import Decision
from observability.drift.drift import DriftReading

_BEGUN = (
    "SELECT count(DISTINCT request_id) AS begun FROM request_rows "
    "WHERE pipeline = ? AND event = 'started' AND \"at\" >= ?"
)
REQUEST_LABEL = "thermodrift.request"
"""A label of the event's resource: the trigger of `retrain` asks that it is there."""


@dataclass(frozen=True)
class DriftRunResult:
    """What a run saw, and the request that is open after it."""

    name: str
    because: str
    looked: DriftCheckResult | None
    request: OpenRequest | None
    position: int


def run_drift_check(job: DeployedRun) -> DriftRunResult:
    """Look if it is time to; what was seen is in the history when this returns."""
    with run_queue.acquire(job.file, job.home, job.stop, job.display, run_id=job.run_id) as work:
        looked, due = None, drift_check.due(work)
        if due:
            looked = drift_check.check(work, _retrains_last_day(work))
            work.flush()
            work.wait()
        name, because = _told(due, looked)
        return DriftRunResult(name, because, looked, work.state.request, work.state.position)


def _retrains_last_day(work: UnitOfWork) -> int | None:
    """How many began; None where there may be any number.

    Raises HistoryBusy while somebody has the history open: then the look waits for the next.
    """
    if work.run.file.pipeline.worth.max_retrains_per_day is None:
        return None
    since = work.run.now() - timedelta(days=1)
    begun = work.run.history.ask(_BEGUN, (work.run.name, since))
    return int(begun["begun"][0].as_py())


def _told(due: Decision, looked: DriftCheckResult | None) -> tuple[str, str]:
    if looked is None:
        return "NotDue", due.because
    because = f"{looked.changed.because}; {looked.wanted.because}"
    if looked.changed:
        return "DriftDetected", because
    if looked.wanted:
        return "RetrainRequested", because
    scarce = looked.changed.facts.get("outcome") == "not_enough_data"
    return "NotEnoughData" if scarce else "NoDrift", because


def announce(job: DeployedRun, look: DriftRunResult) -> None:
    """Tell of an alarm, show its table, and see to it that an open request is taken up."""
    if look.looked is not None and look.looked.reading is not None:
        _show(job, look, look.looked.reading)
    request = look.request
    fresh = look.looked is not None and look.looked.wanted.yes
    told_anew = fresh and request is not None
    if look.looked is not None and look.looked.changed:
        labels = {REQUEST_LABEL: request.request_id} if told_anew and request else {}
        job.emit(
            "drift.detected",
            labels,
            because=look.because,
            position=look.position,
            request_id=request.request_id if told_anew and request else None,
        )
        if told_anew:
            return
    if request is not None and not reconciler.retrain_is_coming(job.places, str(job.file.path)):
        job.emit(
            "retrain.requested",
            {REQUEST_LABEL: request.request_id},
            because=request.because,
            position=request.asked_position,
            request_id=request.request_id,
        )


def _show(job: DeployedRun, look: DriftRunResult, reading: DriftReading) -> None:
    """The drift table beside the run."""
    columns = ("column", "kind", "method", "score", "drift if", "missing before", "missing now")
    table = prefect_client.rows(
        columns,
        [
            (
                each.name,
                each.kind,
                each.method,
                each.score,
                "larger" if each.larger_is_drift else "smaller",
                each.reference_missing,
                each.current_missing,
            )
            for each in reading.columns
        ],
    )
    drawn = look.looked.page if look.looked is not None else None
    where = "" if drawn is None else f"; evidently's page: [{drawn}]({drawn.as_uri()})"
    told = f"Drift of {job.file.name} at position {look.position}: {look.because}{where}"
    prefect_client.show(job.run_id, f"drift-{_key(job)}", "table", json.dumps(table), told)


def _key(job: DeployedRun) -> str:
    # Prefect's keys have no underscore.
    return job.file.name.replace("_", "-")
