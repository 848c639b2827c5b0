"""The outcome of an attempt at an open request, in one durable step.

Every outcome has a name: Promoted, Reused (an archived version serves again), Candidate (it won,
and a person is asked), Rejected, Deferred, Skipped, NoModel. A deferred request stays open and the
gate is asked again; the others close it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from flows.run.state import OpenRequest
from flows.run.unit_of_work import UnitOfWork
from models.registry import partial_fits
from observability.core.decision import Decision
from observability.history.records import Record, RequestRecord
from power.policy import gate
from power.policy.gate import UNKNOWN

Name = Literal["Promoted", "Reused", "Candidate", "Rejected", "Deferred", "Skipped", "NoModel"]
EVENT: dict[Name, str] = {
    "Promoted": "promoted",
    "Reused": "reused",
    "Candidate": "candidate",
    "Rejected": "rejected",
    "Deferred": "deferred",
    "Skipped": "skipped",
    "NoModel": "no_model",
}
_STYLE: dict[Name, str] = {
    "Promoted": "green",
    "Reused": "green",
    "Candidate": "yellow",
    "Rejected": "blue",
    "Skipped": "red",
    "NoModel": "red",
}


@dataclass(frozen=True)
class RequestOutcome:
    """How an attempt ended, and the decision that ended it."""

    name: Name
    decision: Decision
    again_in_s: float | None = None
    """Of a deferred one: seconds until the forecast would admit it, where it is known."""
    left_s: float | None = None
    """Of a deferred one: seconds until its deadline."""
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Of all contestants, where a fit was judged."""


def deferrals(totals: Mapping[str, Any], reads_from: str) -> str:
    """How often retrains were deferred, and by what causes, for people.

    `totals` is of a checkpoint's header or a summary; `reads_from` is the gate's source. A
    checkpoint of an earlier version has no causes.
    """
    count, causes = int(totals.get("deferrals", 0)), dict(totals.get("deferred_because", {}))
    told = gate.describe_causes({**causes, UNKNOWN: count - sum(causes.values())}, reads_from)
    return f"{count} deferral{'' if count == 1 else 's'}" + (f": {told}" if told else "")


def waited_s(work: UnitOfWork, request: OpenRequest) -> float:
    """How long the request has been open, in seconds of the requests' clock."""
    return work.run.power.request_s(work.state.position) - request.asked_s


def request_event(
    work: UnitOfWork, request: OpenRequest, event: str, because: str
) -> RequestRecord:
    """The row of an event of the request, now."""
    return work.run.row(
        RequestRecord,
        request_id=request.request_id,
        event=event,
        position=work.state.position,
        because=because,
        deadline_s=work.run.file.pipeline.gate.deadline_s,
        waited_s=waited_s(work, request),
    )


def defer(
    work: UnitOfWork,
    request: OpenRequest,
    decision: Decision,
    rows: Sequence[Record],
    again_in_s: float | None = None,
) -> RequestOutcome:
    """Leave the request open, and record why."""
    cause = str(decision.facts.get("cause") or UNKNOWN)
    is_new = request.deferrals == 0 or cause != request.cause
    request.deferrals += 1
    request.why_deferred, request.cause = decision.because, cause
    totals = work.state.totals
    totals.deferrals += 1
    # A new dict, since the totals at the beginning of the run hold the old one.
    totals.deferred_because = {
        **totals.deferred_because,
        cause: totals.deferred_because.get(cause, 0) + 1,
    }
    work.commit([*rows, request_event(work, request, "deferred", decision.because)])
    if is_new:
        work.run.display.log_event(work.state.position, "deferred", decision.because, "red")
    left_s = work.run.file.pipeline.gate.deadline_s - waited_s(work, request)
    return RequestOutcome("Deferred", decision, again_in_s, max(left_s, 0.0))


def close(
    work: UnitOfWork,
    request: OpenRequest,
    ending: RequestOutcome,
    rows: Sequence[Record],
    promote: str | None = None,
) -> RequestOutcome:
    """Close the request and commit its outcome; the commit also promotes the version `promote`."""
    state, event = work.state, EVENT[ending.name]
    row = request_event(work, request, event, ending.decision.because)
    state.request = None
    if ending.name == "Skipped":
        # The next request waits for the cooldown, or it would wait for the same device at once.
        state.worth = replace(state.worth, unfitted=True)
    state.closed_at = state.position
    work.commit([*rows, row], promote)
    # Only now: after a kill before this, the next attempt goes on from it.
    partial_fits.drop(work.run.places.fit_checkpoint)
    work.run.display.log_event(state.position, event, ending.decision.because, _STYLE[ending.name])
    return ending
