"""Retrain in batch when the machine allows it: ask, fit, compare, promote or reject.

There are three steps, so that the long one in the middle need not hold the pipeline: `_begin` reads
what is needed, `training.fit` fits, and `_conclude` compares the challenger with the pipeline as it
is by then. The local loop holds the pipeline all the time; on a server, learning goes on during the
fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from typing import Literal

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.learning import error_reference
from flows.retraining import admit, expectations, retrain_records, retrain_request, reuse, training
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
from models.batch.challenger import UnfinishedChallenge
from models.batch.evaluation import Challenge
from models.batch.fit_guard import Preempted
from models.persistence.serialization import CannotLoad, CannotPickle
from models.registry import partial_fits
from models.registry.registry import CandidateCard, Manifest, ModelCard
from observability.core import failpoints
from observability.core.decision import Decision
from observability.history.records import Record
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
    samples: tuple[Sample, ...] = ()
    """The margin of the device during the fit."""


def due(work: UnitOfWork) -> bool:
    """Whether a request is open and the gate may give a new answer."""
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
    """Attempt the open request while the pipeline is held; None where there is no request.

    Raises StopRequested where a signal interrupted the fit: the request stays open.
    """
    run = work.run
    made = attempt(lambda: nullcontext(work), run.power, run.display, run.stop, lets_go=False)
    return None if made is None else made.ending


def attempt(
    hold: Callable[[], AbstractContextManager[UnitOfWork]],
    power: PowerSource,
    display: Display,
    stop: Stop,
    *,
    lets_go: bool,
) -> Attempt | None:
    """Attempt the open request; None where there is none, or another run closed it.

    The pipeline is held with `hold`, once to begin and once to conclude. `lets_go` says whether
    others may have it during the fit: all decisions until then are committed before that. Raises
    StopRequested where a signal interrupted the fit: the request stays open.
    """
    with ExitStack() as lease:
        with hold() as work:
            request = work.state.request
            if request is None:
                return None
            if request.reuse is not None:
                return Attempt(request, reuse.promote(work, request, request.reuse), overdue=False)
            admitted = _begin(work, request)
            # This is asked after the admission, which may have seen the deadline pass. A recorded
            # trace has the stream's clock, on which a deadline is no time of day.
            limits, waited_s = work.run.file.pipeline.gate, retrain_request.waited_s(work, request)
            overdue = not power.replayed and deadline.at_deadline(waited_s, limits).yes
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
        except training.FitInterrupted as interrupted:
            # The fit is done again; what it cost until now is recorded all the same.
            with hold() as work:
                work.add_rows(retrain_records.cost(work, admitted, interrupted.fitted))
                if lets_go:
                    work.commit([])
            raise StopRequested from interrupted
        with hold() as work:
            known = work.state.request
            if known is None or known.request_id != request.request_id:
                return None
            # The same request, as the pipeline knows it now.
            admitted.request = known
            ending = _conclude(work, admitted, prepared, fitted)
            return Attempt(known, ending, overdue, fitted.samples)


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
    """Store the challenger, judge it, and close the request, or defer it again."""
    admitted.give_back()
    manifest, failure = None, fitted.failure or "the device was given back"
    if fitted.challenge is not None:
        try:
            manifest = _store(work, prepared, fitted.challenge)
        except (CannotPickle, CannotLoad) as error:
            # A model that cannot be stored would end every run at this position.
            failure = str(error)
        else:
            failpoints.point("retrain.after_store")
    rows = admitted.rows
    if fitted.cost is not None:
        rows.append(prepared.started)
    version = None if manifest is None else manifest.version
    rows.extend(retrain_records.cost(work, admitted, fitted, version))
    if fitted.warned.count:
        who = f"the fit at position {prepared.position}"
        rows.append(work.warnings_row(who, ", ".join(prepared.recipe.recipes), fitted.warned))
    if fitted.given_back is not None:
        return _defer(work, admitted, prepared, fitted.given_back)
    if manifest is None or fitted.challenge is None:
        return _refuse(work, admitted, failure)
    state, challenge = work.state, fitted.challenge
    promoted = promotion.comparable(prepared.champion_version, state.champion)
    if promoted:
        promoted = promotion.judge(challenge.comparison, work.run.file.pipeline.promotion)
    rows += [
        *retrain_records.scores(work, manifest, prepared.older_span),
        work.decision_row(promoted),
    ]
    _learn_from(work, prepared, fitted, challenge)
    state.totals.retrains += 1
    return _close(work, admitted, prepared, challenge, manifest, promoted, rows)


def _close(
    work: UnitOfWork,
    admitted: Admission,
    prepared: Prepared,
    challenge: Challenge,
    manifest: Manifest,
    promoted: Decision,
    rows: list[Record],
) -> RequestOutcome:
    """Promote the challenger, reject it, or let it wait for a person's word."""
    state, request = work.state, admitted.request
    asks = promotion.asks(promoted, work.run.file.pipeline.promotion)
    serves = promoted if not asks else asks.model_copy(update={"yes": False})
    if promoted and challenge.refitted:
        _keep_losses(work, prepared, challenge, manifest.version)
    rows += expectations.conclude(
        work, request, prepared, challenge, manifest.version, serves, waits=asks.yes
    )
    if asks:
        rows += [
            work.decision_row(asks),
            *retrain_records.model(work, manifest, promoted, "candidate"),
        ]
        gain = expectations.served_gain(work, challenge)
        expectations.candidate(work, manifest.version, promoted.because, gain)
        ending = RequestOutcome("Candidate", asks, scores=manifest.scores)
        return retrain_request.close(work, request, ending, rows)
    name: Literal["promoted", "rejected"] = "promoted" if promoted else "rejected"
    rows += retrain_records.model(work, manifest, promoted, name)
    if promoted:
        state.champion = manifest.version
        state.totals.promotions += 1
    ending = RequestOutcome(
        "Promoted" if promoted else "Rejected", promoted, scores=manifest.scores
    )
    version = manifest.version if promoted else None
    return retrain_request.close(work, request, ending, rows, version)


def _keep_losses(work: UnitOfWork, prepared: Prepared, challenge: Challenge, version: str) -> None:
    """Keep what the challenger lost on its newest rows before it was fitted on them too."""
    held, answers = challenge.parts.held.tolist(), challenge.trials[challenge.chosen].answers
    # It was chosen for its answers.
    assert answers is not None
    newest = [
        (row, answer)
        for row, answer in zip(held, answers.answers(), strict=True)
        if row >= challenge.parts.newest
    ]
    error_reference.keep(
        work.state,
        version,
        positions=[prepared.positions[row] for row, _ in newest],
        answers=[answer for _, answer in newest],
        labels=[prepared.labels[row] for row, _ in newest],
    )


def _learn_from(work: UnitOfWork, prepared: Prepared, fitted: Fitted, challenge: Challenge) -> None:
    """Update what is known of the pipeline's retrains: their duration, power and power limits."""
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
            cost.figures.uuid, fitted.cap_w, cost.seconds, cost.energy.joules, challenge.fitted_rows
        )
        state.caps = power_cap.learn(state.caps, run, pipeline.cap)


def _refuse(work: UnitOfWork, admitted: Admission, why: str) -> RequestOutcome:
    """Close the request without a model; the models that are there go on."""
    refused = promotion.no_model(why)
    settled = expectations.without_model(work, admitted.request)
    rows = [*admitted.rows, work.decision_row(refused), *settled]
    return retrain_request.close(work, admitted.request, RequestOutcome("NoModel", refused), rows)


def _defer(
    work: UnitOfWork, admitted: Admission, prepared: Prepared, stopped: Preempted
) -> RequestOutcome:
    """Defer a request whose fit was preempted; the next attempt goes on from what was fitted."""
    admitted.request.begun = None
    if isinstance(stopped.partial, UnfinishedChallenge):
        # What cannot be saved is fitted again.
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
    # Rejected records leave gaps, so positions of rows are looked up, not counted.
    parts = challenge.parts
    split = positions[parts.newest]
    return work.run.registry.register(
        f"v{prepared.position:09d}",
        challenge.model,
        challenge.reference,
        ModelCard(
            pipeline=work.run.name,
            recipe=challenge.recipe,
            record_schema=prepared.schema,
            labels=challenge.model.labels,
            train_from=positions[challenge.first_row],
            train_to=positions[-1] + 1 if challenge.refitted else split,
            holdout_from=split,
            holdout_to=prepared.position,
            rows=challenge.rows,
            fit_s=challenge.fit_s,
            scores={who: {**each} for who, each in challenge.scores.items()},
            judged_by=challenge.measure.name,
            apart=tuple(positions[row] for row in parts.apart.tolist()),
            joined=tuple(positions[row] for row in parts.joined.tolist()),
            refitted=challenge.refitted,
            candidates=_candidates(prepared, challenge),
            created_at=prepared.started.at,
        ),
    )


def _candidates(prepared: Prepared, challenge: Challenge) -> tuple[CandidateCard, ...]:
    return tuple(
        CandidateCard(
            recipe=each.candidate.recipe.recipe,
            params=each.candidate.recipe.params,
            train_from=prepared.positions[int(each.candidate.rows[0])],
            rows=len(each.candidate.rows),
            loss=each.loss if math.isfinite(each.loss) else None,
            because=each.failure,
            chosen=index == challenge.chosen,
        )
        for index, each in enumerate(challenge.trials)
    )
