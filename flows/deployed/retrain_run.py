"""An attempt at a pipeline's open request by a deployed run: it settles it, or comes back later."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC

from prefect.client.schemas.objects import State
from prefect.exceptions import Pause

from flows.deployed import backoff, reconciler
from flows.deployed.backoff import Backoff
from flows.deployed.flow_run import DeployedRun
from flows.retraining import retrain, retrain_request
from flows.run import run_queue
from flows.run.power_source import PowerSource
from flows.run.unit_of_work import UnitOfWork
from flows.stack import prefect_client
from observability.core.paths import Places
from power.monitoring.thermal_trace import Sample
from power.policy import gate

WAITING = "AwaitingHeadroom"
"""The name of the state of a run that waits for the machine to cool."""


def run_retrain(job: DeployedRun, request_id: str | None, patience: Backoff) -> State:
    """Settle the open request, or hand this run back to its worker until the gate may open.

    The pipeline is held to ask and to conclude, and not while the fit goes on: learning and looks
    go on meanwhile. Raises Pause where the run is handed back, which is how Prefect lets a process
    go, and StopRequested where a signal came.
    """
    if _another_waits(job):
        return job.ends("Busy", "another run waits for this pipeline's headroom")
    with PowerSource.opened(job.file, Places(job.home)) as power:
        tried = _tried(job, power, patience)
    if tried is None:
        return job.ends("NoRequest", _nothing_open(request_id))
    if tried.overdue:
        job.emit("retrain.overdue", because=tried.because, request_id=tried.request_id)
    show_thermal_trace(job, tried)
    if tried.again_in_s is not None:
        job.emit(
            "retrain.deferred",
            because=tried.because,
            cause=tried.cause,
            request_id=tried.request_id,
        )
        return _put_off(job, tried.again_in_s, tried.because)
    _announce(job, tried)
    return job.ends(tried.name, tried.because)


@dataclass(frozen=True)
class AttemptResult:
    """How an attempt ended, in what its run shows."""

    request_id: str
    name: retrain_request.Name
    because: str
    overdue: bool
    """Whether the request had waited until its deadline."""
    again_in_s: float | None = None
    """Seconds until the gate is asked again; None where the request is settled."""
    cause: str | None = None
    """Of one that was deferred: why, in one word (`power.policy.gate.Cause`)."""
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Of all who took part, where a fit was judged."""
    course: Sequence[Sample] = ()
    """How warm the device was while the fit went on."""


def _tried(job: DeployedRun, power: PowerSource, patience: Backoff) -> AttemptResult | None:
    """Ask, fit, conclude; None where no request is open, or another run settled it meanwhile."""
    attempt = retrain.attempt(lambda: _held(job, power), power, job.display, job.stop, lets_go=True)
    if attempt is None:
        return None
    request, ending = attempt.request, attempt.ending
    tried = AttemptResult(
        request.request_id,
        ending.name,
        ending.decision.because,
        attempt.overdue,
        scores=ending.scores,
        course=attempt.course,
    )
    if ending.name != "Deferred":
        return tried
    # What a recorded trace tells is on the trace's clock, which is the stream's.
    left_s = None if power.replayed else ending.left_s
    forecast_s = None if power.replayed else ending.again_in_s
    gate_limits = job.file.pipeline.gate
    wait_s = backoff.again_in_s(request.deferrals, patience, forecast_s, left_s)
    deadline = (
        f"{gate_limits.deadline_s:g} s after asking, on the stream's clock"
        if left_s is None
        else _clock(left_s)
    )
    why = "the forecast's time" if forecast_s is not None else "no forecast"
    cause = str(ending.decision.facts.get("cause") or gate.UNKNOWN)
    told = (
        f"deferred {gate.describe_cause(cause, gate_limits.reads_from)}: {tried.because}; "
        f"asks again at {_clock(wait_s)} ({why}), deadline {deadline}"
    )
    return replace(tried, because=told, again_in_s=wait_s, cause=cause)


@contextmanager
def _held(job: DeployedRun, power: PowerSource) -> Iterator[UnitOfWork]:
    """The pipeline, when it is this run's turn; what was committed is in the history after that."""
    with run_queue.acquire(
        job.file, job.home, job.stop, job.display, power=power, run_id=job.run_id
    ) as work:
        yield work
        work.flush()
        work.wait()


def _another_waits(job: DeployedRun) -> bool:
    """Whether the request is another run's, which comes back to it."""
    assert job.lease is not None
    before = job.lease.before
    if before is None or before.run_id == job.run_id or before.back_at_s is None:
        return False
    if reconciler.mark_crashed(job.places, before) is not None:
        return False
    job.lease.give_back()
    return True


def _nothing_open(request_id: str | None) -> str:
    if request_id is None:
        return "no request is open"
    return f"request {request_id} was settled already, and no other is open"


def _clock(in_s: float) -> str:
    return prefect_client.in_seconds(in_s).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _put_off(job: DeployedRun, wait_s: float, because: str) -> State:
    """Give process and slot up, and come back. Unheard, others see to it."""
    assert job.lease is not None
    back_at = prefect_client.in_seconds(wait_s)
    try:
        state = prefect_client.put_off(job.run_id, WAITING, back_at, because)
    except prefect_client.ServerUnavailable as error:
        return job.ends(
            "Deferred",
            f"{because}; the server did not take this run back ({error}), so the next "
            "watch asks for another",
        )
    job.lease.wait_until(back_at.timestamp())
    raise Pause(state=state)


def show_thermal_trace(job: DeployedRun, tried: AttemptResult) -> None:
    """The margin over the run, beside the run."""
    if not tried.course:
        return
    table = json.dumps(prefect_client.rows(Sample._fields, tried.course))
    known = [each.margin_c for each in tried.course if each.margin_c is not None]
    lowest = f"{min(known):.1f} °C at the lowest" if known else "unknown all the time"
    told = f"Margin of the device while {job.file.name} was retrained: {lowest}"
    prefect_client.show(
        job.run_id, f"margin-{job.file.name.replace('_', '-')}", "table", table, told
    )


def _announce(job: DeployedRun, tried: AttemptResult) -> None:
    """Tell how it ended, and show who won by how much."""
    job.emit(
        f"retrain.{retrain_request.EVENT[tried.name]}",
        because=tried.because,
        request_id=tried.request_id,
    )
    if not tried.scores:
        return
    names = sorted({metric for each in tried.scores.values() for metric in each})
    cells = [(who, *map(each.get, names)) for who, each in sorted(tried.scores.items())]
    table = json.dumps(prefect_client.rows(("who", *names), cells))
    told = f"Champion and challenger of {job.file.name}: {tried.because}"
    prefect_client.show(
        job.run_id, f"scores-{job.file.name.replace('_', '-')}", "table", table, told
    )
