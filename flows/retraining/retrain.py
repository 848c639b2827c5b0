"""Retrain in batch, when the machine may: ask, fit, compare, promote or keep.

Three steps, so that the middle one, which is long, needs no hold on the pipeline: `_begin` reads
what is needed, `fitting.fit` fits, and `_conclude` compares the outcome with the pipeline as it is
by then. A run on one machine holds the pipeline all the while; the online member learns on in
between where a server runs them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.retraining import admit, retrain_records, retrain_request, training
from flows.retraining.admit import Admission
from flows.retraining.retrain_request import RequestOutcome
from flows.retraining.training import Fitted, Prepared
from flows.run.power_source import PowerSource
from flows.run.progress import Display
from flows.run.shutdown import Stop, StopRequested
from flows.run.state import FitWindow, OpenRequest
from flows.run.unit_of_work import UnitOfWork
from models.batch import promotion
from models.batch.batch_model import TooLittleToLearn
from models.batch.evaluation import Challenge, UnfinishedChallenge
from models.batch.fit_guard import Preempted
from models.persistence.serialization import CannotLoad, CannotPickle
from models.registry import partial_fits
from models.registry.registry import Manifest, ModelCard
from observability.core import failpoints
from observability.core.decision import Decision
from power.forecast import forecast, job_profile
from power.monitoring.thermal_trace import Sample
from power.policy import admission, deadline, gate, power_cap
from power.policy.power_cap import CapRun


@dataclass(frozen=True)
class Attempt:
    """How an attempt at a request ended."""

    request: OpenRequest
    ending: RequestOutcome
    overdue: bool
    """Whether the request had waited until its deadline when the attempt began."""
    course: tuple[Sample, ...] = ()
    """How warm the device was while the fit went on."""


def due(work: UnitOfWork) -> bool:
    """Whether a request is open and the gate may say something new about it."""
    request = work.state.request
    return request is not None and _asks_again(work, request).yes


def unasked(work: UnitOfWork) -> bool:
    """Whether a request is open and the gate was not asked about it at this position."""
    request = work.state.request
    return request is not None and request.asked_gate_at < work.state.position


def _asks_again(work: UnitOfWork, request: OpenRequest) -> Decision:
    return gate.asks_again(
        request.asked_gate_at,
        work.state.position,
        work.run.power.replayed,
        request.why_deferred,
        request.cause,
    )


@task(name="retrain", cache_policy=NO_CACHE, persist_result=False)
def retrain(work: UnitOfWork) -> RequestOutcome | None:
    """Try to settle the open request in one go; None where there is none.

    Raises StopRequested where a signal broke the fit off: it is still owed.
    """
    run = work.run
    tried = attempt(lambda: nullcontext(work), run.power, run.display, run.stop, lets_go=False)
    return None if tried is None else tried.ending


def attempt(
    hold: Callable[[], AbstractContextManager[UnitOfWork]],
    power: PowerSource,
    display: Display,
    stop: Stop,
    *,
    lets_go: bool,
) -> Attempt | None:
    """Try to settle the open request; None where there is none, or another run settled it.

    The pipeline is held with `hold`, once to begin and once to conclude. `lets_go` says whether
    others may have it while the fit goes on: all that was said until then is committed before that.
    Raises StopRequested where a signal broke the fit off: it is still owed.
    """
    with ExitStack() as lease:
        with hold() as work:
            request = work.state.request
            if request is None:
                return None
            limits, waited_s = work.run.file.pipeline.gate, retrain_request.waited_s(work, request)
            # On a trace's clock, which is the stream's, a deadline is no time of day.
            overdue = not power.replayed and deadline.at_deadline(waited_s, limits).yes
            admitted = _begin(work, request)
            if isinstance(admitted, RequestOutcome):
                return Attempt(request, admitted, overdue)
            lease.callback(admitted.give_back)
            try:
                prepared = training.prepare(work, admitted)
            except TooLittleToLearn as error:
                admitted.give_back()
                return Attempt(request, _refuse(work, admitted, str(error)), overdue)
            failpoints.point("retrain.before_fit")
            if lets_go:
                work.commit(admitted.rows)
                admitted.rows.clear()
        try:
            fitted = training.fit(prepared, admitted, power, display, stop)
        except training.FitInterrupted as broken:
            # It is owed and comes again, and what it took until now was spent all the same.
            with hold() as work:
                work.add_rows(retrain_records.cost(work, admitted, broken.fitted))
                if lets_go:
                    work.commit([])
            raise StopRequested from broken
        with hold() as work:
            known = work.state.request
            if known is None or known.request_id != request.request_id:
                return None
            # The same request, as the pipeline knows it now.
            admitted.request = known
            ending = _conclude(work, admitted, prepared, fitted)
            return Attempt(known, ending, overdue, fitted.course)


def _begin(work: UnitOfWork, request: OpenRequest) -> Admission | RequestOutcome:
    """An admission, or how the attempt ended without one."""
    again = _asks_again(work, request)
    if not again:
        return RequestOutcome("Deferred", again)
    work.sync_champion()
    admitted = admit.ask(work, request)
    if isinstance(admitted, Admission) and request.deferrals:
        told = f"after {request.deferrals} deferrals: {admitted.decision.because}"
        work.run.display.log_event(work.state.position, "admitted", told, "green")
    return admitted


def _conclude(
    work: UnitOfWork, admitted: Admission, prepared: Prepared, fitted: Fitted
) -> RequestOutcome:
    """Keep what the fit brought, judge it, and settle the request, or put it off again."""
    admitted.give_back()
    manifest, failure = _stored(work, prepared, fitted)
    version = None if manifest is None else manifest.version
    rows = admitted.rows
    rows.extend(retrain_records.spent(work, admitted, prepared, fitted, version))
    if fitted.warned.count:
        who = f"the fit at position {prepared.position}"
        rows.append(work.warnings_row(who, prepared.recipe.recipe, fitted.warned))
    if fitted.given_back is not None:
        return _put_off(work, admitted, prepared, fitted.given_back)
    if manifest is None or fitted.challenge is None:
        return _refuse(work, admitted, failure)
    state, challenge = work.state, fitted.challenge
    promoted = promotion.comparable(prepared.champion_version, state.champion)
    if promoted:
        promoted = promotion.judge(challenge.comparison, work.run.file.pipeline.promotion)
    rows += [
        *retrain_records.scores(work, manifest, prepared.older_span),
        work.decision_row(promoted),
        *retrain_records.model(work, manifest, promoted),
    ]
    _learn_from(work, prepared, fitted, challenge)
    if promoted:
        state.champion = manifest.version
        state.totals.promotions += 1
    state.totals.retrains += 1
    ending = RequestOutcome(
        "Promoted" if promoted else "Rejected", promoted, scores=manifest.scores
    )
    return retrain_request.close(
        work, admitted.request, ending, rows, manifest.version if promoted else None
    )


def _stored(work: UnitOfWork, prepared: Prepared, fitted: Fitted) -> tuple[Manifest | None, str]:
    """What the store says of the challenger that it keeps now, or why there is none."""
    if fitted.challenge is None:
        return None, fitted.failure or "the device was given back"
    try:
        manifest = _store(work, prepared, fitted.challenge)
    except (CannotPickle, CannotLoad) as error:
        # What cannot be kept would end every run at this place.
        return None, str(error)
    failpoints.point("retrain.after_store")
    return manifest, ""


def _learn_from(work: UnitOfWork, prepared: Prepared, fitted: Fitted, challenge: Challenge) -> None:
    """What this retrain says of the next one."""
    state, pipeline, cost = work.state, work.run.file.pipeline, fitted.cost
    state.last_fit_s = challenge.fit_s
    state.new_rows -= prepared.new_rows
    held = fitted.capping is None or fitted.capping.held
    if cost is None or not forecast.teaches(fitted.paused_s, prepared.partial is not None, held):
        return
    learn = job_profile.learn_job if fitted.cap_w is None else job_profile.learn_capped
    state.job = learn(state.job, cost.figures.mean_power_w, cost.seconds, pipeline.forecast)
    if cost.figures.uuid is not None:
        run = CapRun(
            cost.figures.uuid, fitted.cap_w, cost.seconds, cost.energy.joules, challenge.rows
        )
        state.caps = power_cap.learn(state.caps, run, pipeline.cap)


def _refuse(work: UnitOfWork, admitted: Admission, why: str) -> RequestOutcome:
    """A fit that brings no model is an answer: the request is settled, the others carry on."""
    refused = promotion.no_model(why)
    rows = [*admitted.rows, work.decision_row(refused)]
    return retrain_request.close(work, admitted.request, RequestOutcome("NoModel", refused), rows)


def _put_off(
    work: UnitOfWork, admitted: Admission, prepared: Prepared, stopped: Preempted
) -> RequestOutcome:
    """The gate was closed for too long amid the fit: asked again, and gone on from there."""
    admitted.request.begun = None
    if isinstance(stopped.partial, UnfinishedChallenge):
        # What cannot be kept is fitted again.
        with suppress(CannotPickle, OSError):
            partial_fits.save(
                work.run.places.fit_checkpoint, stopped.partial, prepared.work, work.run.signing_key
            )
            admitted.request.begun = FitWindow(prepared.position, prepared.new_rows)
    decision = admission.given_back(stopped.because, stopped.cause)
    rows = [*admitted.rows, work.decision_row(decision)]
    return retrain_request.defer(work, admitted.request, decision, rows)


def _store(work: UnitOfWork, prepared: Prepared, challenge: Challenge) -> Manifest:
    positions = prepared.positions
    # Rejected records leave holes, so places in the window are looked up, not counted.
    parts = challenge.parts
    split = positions[parts.newest]
    return work.run.registry.register(
        f"v{prepared.position:09d}",
        challenge.model,
        challenge.reference,
        ModelCard(
            pipeline=work.run.name,
            recipe=prepared.recipe.recipe,
            record_schema=prepared.schema,
            labels=challenge.model.labels,
            train_from=positions[challenge.first_row],
            train_to=split,
            holdout_from=split,
            holdout_to=prepared.position,
            rows=challenge.rows,
            fit_s=challenge.fit_s,
            scores={who: {**each} for who, each in challenge.scores.items()},
            judged_by=challenge.measure.name,
            apart=tuple(positions[row] for row in parts.apart.tolist()),
            joined=tuple(positions[row] for row in parts.joined.tolist()),
            created_at=prepared.started.at,
        ),
    )
