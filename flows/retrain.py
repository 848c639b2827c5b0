"""Retrain in batch, when the machine may: ask the gate, fit, compare, promote or keep.

Every way out has a name: Promoted, Kept, Deferred, Skipped, Refused. A deferred request stays open
and is asked again at the next look, while the online member goes on learning.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.metering import Cost, Meter
from flows.session import Session
from flows.state import OpenRequest
from flows.stopping import StopRequested
from models import batch, example, promotion
from models.batch import BatchAnswersNothing, BatchCannotLearn, Challenge, TooLittleToLearn
from models.pickling import CannotLoad, CannotPickle
from models.store import Manifest
from observability import faults
from observability.decision import Decision
from observability.records import (
    CostRecord,
    GpuReadingRecord,
    ModelRecord,
    Record,
    RequestRecord,
    ScoreRecord,
)
from power import gate
from power.gate import GpuReading, Survey

Name = Literal["Promoted", "Kept", "Deferred", "Skipped", "Refused"]
_EVENT: dict[Name, str] = {
    "Promoted": "promoted",
    "Kept": "kept",
    "Deferred": "deferred",
    "Skipped": "skipped",
    "Refused": "refused",
}
_STYLE: dict[Name, str] = {
    "Promoted": "green",
    "Kept": "blue",
    "Deferred": "red",
    "Skipped": "red",
    "Refused": "red",
}

_NOTHING_CAME = (
    TooLittleToLearn,
    BatchCannotLearn,
    BatchAnswersNothing,
    # What cannot be kept would end every run at this place.
    CannotPickle,
    CannotLoad,
)
"""A fit that brings no model is an answer: the request is settled, the others carry on."""


@dataclass(frozen=True)
class Ending:
    """How an attempt ended, and the decision that ended it."""

    name: Name
    decision: Decision


def due(session: Session) -> bool:
    """Whether a request is open and the gate may say something new about it.

    At one position a trace says one thing, so it is asked there once; live readings move on by
    themselves.
    """
    request = session.state.request
    if request is None:
        return False
    return request.asked_gate_at < session.state.position or not session.power.replayed


@task(name="retrain", cache_policy=NO_CACHE, persist_result=False)
def retrain(session: Session) -> Ending | None:
    """Try to settle the open request; None where a signal broke the fit off (it is still owed)."""
    request = session.state.request
    if request is None:
        return None
    session.adopt_champion()
    survey, admitted = _ask_gate(session)
    rows: list[Record] = [*_readings(session, survey), session.decided(admitted)]
    request.asked_gate_at = session.state.position
    if not admitted:
        late = gate.at_deadline(_waited_s(session, request), session.file.pipeline.gate)
        rows.append(session.decided(late))
        if not late:
            return _defer(session, request, admitted, rows)
        if session.file.pipeline.gate.at_deadline == "skip":
            return _settle(session, request, Ending("Skipped", late), rows)
    elif request.deferrals:
        told = f"after {request.deferrals} deferrals: {admitted.because}"
        session.display.happened(session.state.position, "admitted", told, "green")
    return _fit_and_judge(session, request, survey, rows)


def _ask_gate(session: Session) -> tuple[Survey, Decision]:
    state = session.state
    now_s = session.power.gate_s(state.position)
    survey = session.power.survey(state.gate_s, now_s)
    decision, state.gate = gate.judge(survey, state.gate, session.file.pipeline.gate, now_s)
    state.gate_s = now_s
    return survey, decision


def _waited_s(session: Session, request: OpenRequest) -> float:
    return session.power.request_s(session.state.position) - request.asked_s


def _defer(
    session: Session, request: OpenRequest, admitted: Decision, rows: list[Record]
) -> Ending:
    first = request.deferrals == 0
    request.deferrals += 1
    request.why_deferred = admitted.because
    session.state.totals.deferrals += 1
    rows.append(_became(session, request, "deferred", admitted.because, session.now()))
    session.commit(rows)
    if first:
        session.display.happened(session.state.position, "deferred", admitted.because, "red")
    return Ending("Deferred", admitted)


def _fit_and_judge(
    session: Session, request: OpenRequest, survey: Survey, rows: list[Record]
) -> Ending | None:
    started = session.now()
    # Made before the fit: how long a request waited is not how long it was worked on.
    began = _became(session, request, "started", request.because, started)
    meter = Meter(session.power, survey)
    faults.point("retrain.before_fit")
    try:
        with session.display.doing("retraining"), session.stop.breakable():
            fought = _challenge(session, meter)
        version = f"v{session.state.position:09d}"
        manifest = _store(session, version, fought, started)
    except StopRequested:
        # It is owed and comes again, and what it took until now was spent all the same.
        session.asides.extend(_cost(session, request, meter))
        raise
    except _NOTHING_CAME as error:
        refused = Decision(question="retrain", yes=False, because=str(error))
        if not isinstance(error, TooLittleToLearn):
            rows.extend([began, *_cost(session, request, meter)])
        rows.append(session.decided(refused))
        return _settle(session, request, Ending("Refused", refused), rows)
    challenge = fought.challenge
    faults.point("retrain.after_store")
    promoted = promotion.judge(challenge.contest, session.file.pipeline.promotion)
    rows.extend([began, *_cost(session, request, meter, version)])
    rows.extend(_scores(session, manifest, fought.older))
    rows.append(session.decided(promoted))
    rows.extend(_model_rows(session, manifest, promoted))
    state = session.state
    state.last_fit_s = challenge.fit_s
    state.new_rows = 0
    state.totals.retrains += 1
    if promoted:
        state.champion = version
        state.totals.promotions += 1
    ending = Ending("Promoted" if promoted else "Kept", promoted)
    return _settle(session, request, ending, rows, crown=version if promoted else None)


@dataclass(frozen=True)
class Fought:
    """A challenge, and the places in the stream that it was about."""

    challenge: Challenge
    positions: Sequence[int]
    """Of the window's rows, in order."""
    older: tuple[int, int]
    """From and to (exclusive) of the older window; empty where there is none."""


def _challenge(session: Session, meter: Meter) -> Fought:
    """Fit on the newest window, and compare on its hold-out and on an older window."""
    state, recipe = session.state, session.file.pipeline.batch
    first = max(0, state.position - recipe.window)
    window = session.stream.between(first, state.position, state.marks)
    _refuse_seen_holdout(session, window.positions)
    older_from, older_to = _older(session, first)
    older = session.stream.between(older_from, older_to, state.marks)
    with meter.running():
        challenge = batch.challenge(
            example.frame(window.rows, state.schema),
            window.labels,
            recipe=recipe,
            schema=state.schema,
            clock=time.perf_counter,
            champion=session.champion(),
            older=(example.frame(older.rows, state.schema), older.labels) if older.rows else None,
            beside=session.file.folder,
            reference_rows=session.file.pipeline.drift.reference_rows,
        )
    return Fought(challenge, window.positions, (older_from, older_to))


def _refuse_seen_holdout(session: Session, positions: Sequence[int]) -> None:
    """Rows that the champion was trained on say nothing about who is better.

    With constant knobs a hold-out lies behind all training; a larger one may reach back.
    """
    if session.state.champion is None:
        return
    trained_to = session.store.manifest(session.state.champion).train_to
    train, _ = batch.split(len(positions), session.file.pipeline.batch)
    if train.stop < len(positions) and positions[train.stop] < trained_to:
        raise TooLittleToLearn(
            f"the hold-out would begin at position {positions[train.stop]}, among rows that the "
            f"champion was trained on (up to {trained_to}); it is fair from position "
            f"{trained_to + len(positions) - train.stop} on, or with a smaller batch.holdout"
        )


def _older(session: Session, window_first: int) -> tuple[int, int]:
    """Positions from before both the window and what the champion was trained on.

    Neither has seen them, so what is forgotten is not mistaken for what was learned by heart.
    """
    state = session.state
    end = window_first
    if state.champion is not None:
        end = min(end, session.store.manifest(state.champion).train_from)
    return max(0, end - session.file.pipeline.batch.older_rows), end


def _store(session: Session, version: str, fought: Fought, at: datetime) -> Manifest:
    challenge, positions = fought.challenge, fought.positions
    # Rejected records leave holes, so places in the window are looked up, not counted.
    split = positions[-challenge.holdout_rows]
    return session.store.put(
        version,
        challenge.model,
        challenge.reference,
        pipeline=session.name,
        recipe=session.file.pipeline.batch.recipe,
        schema=session.state.schema,
        labels=challenge.model.labels,
        train_from=positions[challenge.first_row],
        train_to=split,
        holdout_from=split,
        holdout_to=session.state.position,
        rows=challenge.rows,
        fit_s=challenge.fit_s,
        scores=challenge.scores,
        created_at=at,
    )


def _settle(
    session: Session,
    request: OpenRequest,
    ending: Ending,
    rows: list[Record],
    crown: str | None = None,
) -> Ending:
    """Close the request and make its ending durable; a new champion is crowned after that."""
    state = session.state
    rows.append(
        _became(session, request, _EVENT[ending.name], ending.decision.because, session.now())
    )
    state.request = None
    state.settled_at = state.position
    session.commit(rows, crown)
    session.display.happened(
        state.position, ending.name.lower(), ending.decision.because, _STYLE[ending.name]
    )
    return ending


def _became(
    session: Session, request: OpenRequest, event: str, because: str, at: datetime
) -> RequestRecord:
    return session.row(
        RequestRecord,
        at=at,
        request_id=request.request_id,
        event=event,
        position=session.state.position,
        because=because,
        deadline_s=session.file.pipeline.gate.deadline_s,
        waited_s=_waited_s(session, request),
    )


def _cost(
    session: Session, request: OpenRequest, meter: Meter, version: str | None = None
) -> list[Record]:
    """What the fit took, whatever came of it; no row where none ran."""
    cost = meter.cost
    if cost is None:
        return []
    cost = cost.billed(session.history.rates)
    session.costs.append(cost)
    figures, price = cost.figures, cost.bill
    return [
        session.row(
            CostRecord,
            at=cost.at,
            request_id=request.request_id,
            position=session.state.position,
            work="fit",
            version=version,
            seconds=cost.seconds,
            cpu_s=cost.cpu_s,
            joules=cost.energy.joules,
            energy_source=cost.energy.source,
            uuid=figures.uuid,
            mean_power_w=figures.mean_power_w,
            peak_power_w=figures.peak_power_w,
            peak_temperature_c=figures.peak_temperature_c,
            lowest_margin_c=figures.lowest_margin_c,
            throttled_s=figures.throttled_s,
            unread_s=figures.unread_s,
            deferred_s=_deferred_s(session, request, cost),
            price=price.price,
            currency=price.currency,
            carbon_g=price.carbon_g,
            pue=price.pue,
        )
    ]


def _deferred_s(session: Session, request: OpenRequest, cost: Cost) -> float:
    """Seconds from asking until the fit began, on the request's clock; 0 if it was let in."""
    if not request.deferrals:
        return 0.0
    if session.power.replayed:
        return _waited_s(session, request)
    return max(0.0, cost.at.timestamp() - request.asked_s)


def _scores(session: Session, manifest: Manifest, older: tuple[int, int]) -> list[Record]:
    spans = {"holdout": (manifest.holdout_from, manifest.holdout_to), "older": older}
    return [
        session.row(
            ScoreRecord,
            position_from=spans[who.partition(":")[0]][0],
            position_to=spans[who.partition(":")[0]][1],
            member=who,
            metric=metric,
            value=value,
        )
        for who, scores in manifest.scores.items()
        for metric, value in scores.items()
        if value is not None
    ]


def _model_rows(session: Session, manifest: Manifest, promoted: Decision) -> list[Record]:
    known = {
        "version": manifest.version,
        "position": session.state.position,
        "because": promoted.because,
        "recipe": manifest.recipe,
        "rows": manifest.rows,
        "train_from": manifest.train_from,
        "train_to": manifest.train_to,
        "fit_s": manifest.fit_s,
        "size_bytes": manifest.size_bytes,
        "sha256": manifest.sha256,
    }
    ending = "promoted" if promoted else "kept"
    return [session.row(ModelRecord, event=event, **known) for event in ("stored", ending)]


def _readings(session: Session, survey: Survey) -> list[Record]:
    gate_knobs = session.file.pipeline.gate
    return [
        session.row(
            GpuReadingRecord,
            source=gate_knobs.trace or gate_knobs.reads_from,
            elapsed_s=reading.read_at_s,
            **gate.standing(reading, gate_knobs).model_dump(
                include=GpuReading.model_fields.keys() & GpuReadingRecord.model_fields.keys()
            ),
        )
        for reading in survey.readings
    ]
