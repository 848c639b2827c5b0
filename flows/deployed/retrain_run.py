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
from flows.deployed.backoff import Patience
from flows.deployed.flow_run import Job
from flows.retraining import retrain, retrain_records, retrain_request, training
from flows.retraining.admit import Admitted
from flows.retraining.retrain_request import Ending
from flows.retraining.training import Fitted, Prepared
from flows.run import run_queue
from flows.run.power_source import PowerSource
from flows.run.session import Session
from flows.run.shutdown import StopRequested
from flows.run.state import OpenRequest
from flows.stack import prefect_client
from observability.core.decision import Decision
from observability.core.paths import Places
from power.monitoring.thermal_trace import Moment
from power.policy import gate

WAITING = "AwaitingHeadroom"
"""The name of the state of a run that waits for the machine to cool."""


def made(job: Job, request_id: str | None, patience: Patience) -> State:
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
    show_course(job, tried)
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
class Tried:
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
    course: Sequence[Moment] = ()
    """How warm the device was while the fit went on."""


def _tried(job: Job, power: PowerSource, patience: Patience) -> Tried | None:
    """Ask, fit, conclude; None where no request is open, or another run settled it meanwhile."""
    with _turn(job, power) as session:
        request = session.state.request
        if request is None:
            return None
        overdue = _overdue(session, request)
        begun = _begun(session, request)
        if isinstance(begun, Ending):
            return _told(session, request, begun, overdue, patience)
    admitted, prepared = begun
    try:
        fitted = _fitted(job, power, admitted, prepared)
        with _turn(job, power) as session:
            request = session.state.request
            if request is None or request.request_id != admitted.request.request_id:
                return None
            # The same request, as the pipeline knows it now.
            admitted.request = request
            ending = retrain.conclude(session, admitted, prepared, fitted)
            tried = _told(session, request, ending, overdue, patience)
            return replace(tried, course=fitted.course)
    finally:
        admitted.give_back()


@contextmanager
def _turn(job: Job, power: PowerSource) -> Iterator[Session]:
    with run_queue.taken(job.file, job.home, job.stop, job.display, power=power) as session:
        session.run_id = job.run_id
        yield session


def _begun(session: Session, request: OpenRequest) -> tuple[Admitted, Prepared] | Ending:
    """Admitted and prepared, with all that was said until then in the history; or how it ended."""
    if not retrain.due(session):
        because = f"{request.why_deferred} (the trace says the same until more is learned)"
        again = Decision(
            question="gate", yes=False, because=because, facts={"cause": request.cause}
        )
        return Ending("Deferred", again)
    admitted = retrain.begin(session)
    assert admitted is not None
    if isinstance(admitted, Ending):
        return admitted
    prepared = retrain.prepare(session, admitted)
    if isinstance(prepared, Ending):
        return prepared
    # The pipeline is let go: what was said is in the history before that.
    session.commit(admitted.rows)
    admitted.rows.clear()
    return admitted, prepared


def _fitted(job: Job, power: PowerSource, admitted: Admitted, prepared: Prepared) -> Fitted:
    """Fit while others have the pipeline. Raises StopRequested once what was spent is kept."""
    try:
        return training.fit(prepared, admitted, power, job.display, job.stop)
    except training.BrokenOff as broken:
        with _turn(job, power) as session:
            session.commit(retrain_records.cost(session, admitted, broken.fitted))
        raise StopRequested from broken


def _told(
    session: Session, request: OpenRequest, ending: Ending, overdue: bool, patience: Patience
) -> Tried:
    session.fold()
    session.settle()
    tried = Tried(request.request_id, ending.name, ending.decision.because, overdue)
    if ending.name == "Deferred":
        return _later(session, request, ending, tried, patience)
    if ending.name in ("Promoted", "Rejected"):
        newest = session.store.versions()[-1]
        return replace(tried, scores=session.store.manifest(newest).scores)
    return tried


def _another_waits(job: Job) -> bool:
    """Whether the request is another run's, which comes back to it."""
    assert job.claim is not None
    before = job.claim.before
    if before is None or before.run_id == job.run_id or before.back_at_s is None:
        return False
    if reconciler.bury(job.places, before) is not None:
        return False
    job.claim.give_back()
    return True


def _nothing_open(request_id: str | None) -> str:
    if request_id is None:
        return "no request is open"
    return f"request {request_id} was settled already, and no other is open"


def _left_s(session: Session, request: OpenRequest) -> float | None:
    """Seconds to the request's deadline; unknown on a trace's clock, which is the stream's."""
    if session.power.replayed:
        return None
    waited_s = session.power.request_s(session.state.position) - request.asked_s
    return session.file.pipeline.gate.deadline_s - waited_s


def _overdue(session: Session, request: OpenRequest) -> bool:
    left_s = _left_s(session, request)
    return left_s is not None and left_s <= 0


def _later(
    session: Session, request: OpenRequest, ending: Ending, tried: Tried, patience: Patience
) -> Tried:
    """With seconds until the gate is asked again, and what the run's page says meanwhile."""
    left_s = _left_s(session, request)
    # What is forecast of a recorded trace is on the trace's clock, which is the stream's.
    forecast_s = None if session.power.replayed else ending.again_in_s
    wait_s = backoff.again_in_s(request.deferrals, patience, forecast_s, left_s)
    deadline = (
        f"{session.file.pipeline.gate.deadline_s:g} s after asking, on the stream's clock"
        if left_s is None
        else _clock(left_s)
    )
    why = "the forecast's time" if forecast_s is not None else "no forecast"
    cause = str(ending.decision.facts.get("cause") or gate.UNKNOWN)
    words = gate.in_words(cause, session.file.pipeline.gate.reads_from)
    told = (
        f"deferred {words}: {tried.because}; asks again at {_clock(wait_s)} ({why}), "
        f"deadline {deadline}"
    )
    return replace(tried, because=told, again_in_s=wait_s, cause=cause)


def _clock(in_s: float) -> str:
    return prefect_client.in_seconds(in_s).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _put_off(job: Job, wait_s: float, because: str) -> State:
    """Give process and slot up, and come back. Unheard, others see to it."""
    assert job.claim is not None
    back_at = prefect_client.in_seconds(wait_s)
    try:
        state = prefect_client.put_off(job.run_id, WAITING, back_at, because)
    except prefect_client.Unheard as error:
        return job.ends(
            "Deferred",
            f"{because}; the server did not take this run back ({error}), so the next "
            "watch asks for another",
        )
    job.claim.wait_until(back_at.timestamp())
    raise Pause(state=state)


def show_course(job: Job, tried: Tried) -> None:
    """The margin over the run, beside the run."""
    if not tried.course:
        return
    table = json.dumps(prefect_client.rows(Moment._fields, tried.course))
    known = [each.margin_c for each in tried.course if each.margin_c is not None]
    lowest = f"{min(known):.1f} °C at the lowest" if known else "unknown all the time"
    told = f"Margin of the device while {job.file.name} was retrained: {lowest}"
    prefect_client.show(
        job.run_id, f"margin-{job.file.name.replace('_', '-')}", "table", table, told
    )


def _announce(job: Job, tried: Tried) -> None:
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
