"""An attempt at a pipeline's open request by a deployed run: it settles it, or comes back later."""

from __future__ import annotations

import json
from datetime import UTC

from prefect.client.schemas.objects import State
from prefect.exceptions import Pause

from flows import coming_back, reconcile, retrain, server, turns
from flows.coming_back import Patience
from flows.jobs import Job
from flows.retrain import Ending
from flows.session import Session
from flows.state import OpenRequest
from observability.decision import Decision

WAITING = "AwaitingHeadroom"
"""The name of the state of a run that waits for the machine to cool."""


def made(job: Job, request_id: str | None, patience: Patience) -> State:
    """Settle the open request, or hand this run back to its worker until the gate may open.

    Raises Pause in the second case, which is how Prefect lets a run's process go.
    """
    if _another_waits(job):
        return job.ends("Calm", "another run waits for this pipeline's headroom")
    deferred: tuple[float, str] | None = None
    with turns.taken(job.file, job.home, job.stop, job.display) as session:
        session.run_id = job.run_id
        request = session.state.request
        if request is None:
            return job.ends("Calm", _nothing_open(request_id))
        overdue = _overdue(session, request)
        ending = _asked(session, request)
        if ending is None:
            return job.ends("Stopped", "a signal broke it off; the request stays open")
        session.fold()
        session.settle()
        if ending.name == "Deferred":
            deferred = _later(session, request, ending, patience)
        champion = session.state.champion
        scores = session.store.manifest(champion).scores if champion is not None else {}
    if overdue:
        job.emit("retrain.overdue", because=ending.decision.because, request_id=request.request_id)
    if deferred is not None:
        job.emit("retrain.deferred", because=deferred[1], request_id=request.request_id)
        return _put_off(job, *deferred)
    _announce(job, request, ending, scores)
    return job.ends(ending.name, ending.decision.because)


def _another_waits(job: Job) -> bool:
    """Whether the request is another run's, which comes back to it."""
    assert job.lease is not None
    before = job.lease.before
    if before is None or before.run_id == job.run_id or before.back_at_s is None:
        return False
    if reconcile.bury(job.places, before) is not None:
        return False
    job.lease.give_back()
    return True


def _nothing_open(request_id: str | None) -> str:
    if request_id is None:
        return "no request is open"
    return f"request {request_id} was settled already, and no other is open"


def _asked(session: Session, request: OpenRequest) -> Ending | None:
    if retrain.due(session):
        return retrain.retrain(session)
    still = Decision(
        question="gate",
        yes=False,
        because=f"{request.why_deferred} (the trace says the same until more records are learned)",
    )
    return Ending("Deferred", still)


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
    session: Session, request: OpenRequest, ending: Ending, patience: Patience
) -> tuple[float, str]:
    """Seconds until the gate is asked again, and what the run's page says meanwhile."""
    left_s = _left_s(session, request)
    forecast_s: float | None = getattr(ending, "again_in_s", None)
    wait_s = coming_back.again_in_s(request.deferrals, patience, forecast_s, left_s)
    deadline = (
        f"{session.file.pipeline.gate.deadline_s:g} s after asking, on the stream's clock"
        if left_s is None
        else _clock(left_s)
    )
    why = "the forecast's time" if forecast_s is not None else "no forecast"
    return wait_s, (
        f"{ending.decision.because}; asks again at {_clock(wait_s)} ({why}), deadline {deadline}"
    )


def _clock(in_s: float) -> str:
    return server.in_seconds(in_s).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _put_off(job: Job, wait_s: float, because: str) -> State:
    """Give process and slot up, and come back. Unheard, others see to it."""
    assert job.lease is not None
    back_at = server.in_seconds(wait_s)
    try:
        state = server.put_off(job.run_id, WAITING, back_at, because)
    except server.Unheard as error:
        return job.ends(
            "Deferred",
            f"{because}; the server did not take this run back ({error}), so the next "
            "watch asks for another",
        )
    job.lease.wait_until(back_at.timestamp())
    raise Pause(state=state)


def _announce(
    job: Job, request: OpenRequest, ending: Ending, scores: dict[str, dict[str, float | None]]
) -> None:
    """Tell how it ended, and show who won by how much."""
    job.emit(
        f"model.{ending.name.lower()}",
        because=ending.decision.because,
        request_id=request.request_id,
    )
    if ending.name not in ("Promoted", "Kept"):
        return
    names = sorted({metric for each in scores.values() for metric in each})
    table = server.rows(
        ("who", *names),
        [(who, *(each.get(name) for name in names)) for who, each in sorted(scores.items())],
    )
    key = f"scores-{job.file.name.replace('_', '-')}"
    told = f"Champion and challenger of {job.file.name}: {ending.decision.because}"
    server.show(job.run_id, key, "table", json.dumps(table), told)
