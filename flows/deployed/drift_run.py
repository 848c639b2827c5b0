"""A drift check by a deployed run: its artifact, and the events that report its result."""

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
from flows.stack import prefect_client
from observability.drift import drift

_BEGUN = (
    "SELECT count(DISTINCT request_id) AS begun FROM request_rows "
    "WHERE pipeline = ? AND event = 'started' AND \"at\" >= ?"
)
REQUEST_LABEL = "thermodrift.request"
"""A label of the event's resource: the trigger of `retrain` requires it."""


@dataclass(frozen=True)
class DriftRunResult:
    """What a run found, and the request that is open after it."""

    name: str
    because: str
    checked: DriftCheckResult | None
    """None where no check was due."""
    request: OpenRequest | None
    position: int


def run_drift_check(run: DeployedRun) -> DriftRunResult:
    """Check for drift if that is due; the result is in the history when this returns.

    Raises HistoryBusy where retrains of the last day are to be counted and another process has the
    history open: the check then waits for the next run.
    """
    with run_queue.acquire(run.file, run.home, run.stop, run.display, run_id=run.run_id) as work:
        due = drift_check.due(work)
        if not due:
            return DriftRunResult(
                "NotDue", due.because, None, work.state.request, work.state.position
            )
        retrains_last_day = None
        if run.file.pipeline.worth.max_retrains_per_day is not None:
            since = work.run.now() - timedelta(days=1)
            begun = work.run.history.ask(_BEGUN, (run.file.name, since))
            retrains_last_day = int(begun["begun"][0].as_py())
        checked = drift_check.check(work, retrains_last_day)
        work.flush()
        work.wait()
        name = "NoDrift"
        if checked.changed:
            name = "DriftDetected"
        elif checked.wanted:
            name = "RetrainRequested"
        elif checked.changed.facts.get("outcome") == "not_enough_data":
            name = "NotEnoughData"
        because = f"{checked.changed.because}; {checked.wanted.because}"
        return DriftRunResult(name, because, checked, work.state.request, work.state.position)


def announce(run: DeployedRun, result: DriftRunResult) -> None:
    """Show the drift table, emit an alarm, and make sure that a run takes up an open request."""
    checked, request = result.checked, result.request
    if checked is not None and checked.reading is not None:
        table = prefect_client.rows(
            (
                "column",
                "kind",
                "method",
                "score",
                "threshold",
                "drift if",
                "missing before",
                "missing now",
            ),
            [
                (
                    each.name,
                    each.kind,
                    each.method,
                    each.score,
                    drift.threshold_of(each, run.file.pipeline.drift),
                    "larger" if each.larger_is_drift else "smaller",
                    each.reference_missing,
                    each.current_missing,
                )
                for each in checked.reading.columns
            ],
        )
        run.show_table(
            "drift",
            json.dumps(table),
            f"Drift of {run.file.name} at position {result.position}: {result.because}; "
            f"evidently's page is drawn by `{checked.page_command}`",
        )
    if checked is not None and checked.changed:
        new = request if checked.wanted else None
        run.emit(
            "drift.detected",
            {REQUEST_LABEL: new.request_id} if new is not None else {},
            because=result.because,
            position=result.position,
            request_id=new.request_id if new is not None else None,
        )
        if new is not None:
            return
    if request is not None and not reconciler.retrain_is_coming(run.places, str(run.file.path)):
        run.emit(
            "retrain.requested",
            {REQUEST_LABEL: request.request_id},
            because=request.because,
            position=request.asked_position,
            request_id=request.request_id,
        )
