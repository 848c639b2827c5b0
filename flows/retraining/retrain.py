"""Retrain in batch, when the machine may: ask, fit, compare, promote or keep.

Three steps, so that the middle one, which is long, needs no hold on the pipeline: `admit.ask` and
`prepare` read what is needed, `fit` fits, and `conclude` compares the outcome with the pipeline as
it is by then. A run on one machine does them in one go; the online member learns on in between
where a server runs them apart.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.retraining import admit, retrain_records, retrain_request, training
from flows.retraining.admit import Admitted
from flows.retraining.retrain_request import Ending
from flows.retraining.training import Fitted, Prepared
from flows.run.session import Session
from flows.run.shutdown import StopRequested
from flows.run.state import Begun
from models.batch import promotion
from models.batch.batch_model import TooLittleToLearn
from models.batch.evaluation import Challenge, PartialChallenge
from models.batch.fit_guard import GiveBack
from models.persistence.serialization import CannotLoad, CannotPickle
from models.registry import partial_fits
from models.registry.registry import Manifest, ModelCard
from observability.core import failpoints
from observability.core.decision import Decision, Fact
from power.forecast import job_profile
from power.policy import power_cap
from power.policy.power_cap import CapRun


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
    """Try to settle the open request; None where there is none.

    Raises StopRequested where a signal broke the fit off: it is still owed.
    """
    admitted = begin(session)
    if not isinstance(admitted, Admitted):
        return admitted
    try:
        prepared = prepare(session, admitted)
        if isinstance(prepared, Ending):
            return prepared
        fitted = training.fit(prepared, admitted, session.power, session.display, session.stop)
        return conclude(session, admitted, prepared, fitted)
    except training.BrokenOff as broken:
        # It is owed and comes again, and what it took until now was spent all the same.
        session.asides.extend(retrain_records.cost(session, admitted, broken.fitted))
        raise StopRequested from broken
    finally:
        admitted.give_back()


def begin(session: Session) -> Admitted | Ending | None:
    """Ask for the open request: an admission, how it ended without one, or None without one."""
    request = session.state.request
    if request is None:
        return None
    session.adopt_champion()
    admitted = admit.ask(session, request)
    if isinstance(admitted, Admitted) and request.deferrals:
        told = f"after {request.deferrals} deferrals: {admitted.decision.because}"
        session.display.happened(session.state.position, "admitted", told, "green")
    return admitted


def prepare(session: Session, admitted: Admitted) -> Prepared | Ending:
    """Read the rows to fit and to compare on; ends as NoModel where they could tell nothing."""
    try:
        prepared = training.prepare(session, admitted)
    except TooLittleToLearn as error:
        admitted.give_back()
        return _refuse(session, admitted, str(error))
    failpoints.point("retrain.before_fit")
    return prepared


def conclude(session: Session, admitted: Admitted, prepared: Prepared, fitted: Fitted) -> Ending:
    """Keep what the fit brought, judge it, and settle the request, or put it off again."""
    admitted.give_back()
    stored, failure = _stored(session, prepared, fitted)
    version = None if stored is None else stored.manifest.version
    admitted.rows.extend(retrain_records.spent(session, admitted, prepared, fitted, version))
    if fitted.warned.count:
        who = f"the fit at position {prepared.position}"
        admitted.rows.append(session.told_of_warnings(who, prepared.recipe.recipe, fitted.warned))
    if fitted.given_back is not None:
        return _put_off(session, admitted, prepared, fitted.given_back)
    if stored is None:
        return _refuse(session, admitted, failure)
    return _judge(session, admitted, prepared, fitted, stored)


class Stored(NamedTuple):
    """A challenge whose model is in the store."""

    challenge: Challenge
    manifest: Manifest


def _stored(session: Session, prepared: Prepared, fitted: Fitted) -> tuple[Stored | None, str]:
    """The challenger in the store, or why there is none."""
    if fitted.challenge is None:
        return None, fitted.failure or "the device was given back"
    try:
        stored = Stored(fitted.challenge, _store(session, prepared, fitted.challenge))
    except (CannotPickle, CannotLoad) as error:
        # What cannot be kept would end every run at this place.
        return None, str(error)
    failpoints.point("retrain.after_store")
    return stored, ""


def _judge(
    session: Session, admitted: Admitted, prepared: Prepared, fitted: Fitted, stored: Stored
) -> Ending:
    """Promote the challenger or keep it out; either way the request is settled."""
    challenge, manifest = stored
    promoted = _promotion(session, prepared, challenge)
    rows = [
        *admitted.rows,
        *retrain_records.scores(session, manifest, prepared.older_span),
        session.decided(promoted),
        *retrain_records.model(session, manifest, promoted),
    ]
    _learn_from(session, prepared, fitted, challenge)
    crown = None
    if promoted:
        session.state.champion = crown = manifest.version
        session.state.totals.promotions += 1
    session.state.totals.retrains += 1
    ending = Ending("Promoted" if promoted else "Rejected", promoted)
    return retrain_request.settle(session, admitted.request, ending, rows, crown)


def _promotion(session: Session, prepared: Prepared, challenge: Challenge) -> Decision:
    if session.state.champion != prepared.champion_version:
        because = (
            f"the champion was {prepared.champion_version} when the fit began and is "
            f"{session.state.champion} now: they were not compared"
        )
        return Decision(question="promotion", yes=False, because=because)
    return promotion.judge(challenge.contest, session.file.pipeline.promotion)


def _learn_from(session: Session, prepared: Prepared, fitted: Fitted, challenge: Challenge) -> None:
    """What this retrain says of the next one."""
    state, pipeline, cost = session.state, session.file.pipeline, fitted.cost
    state.last_fit_s = challenge.fit_s
    state.new_rows -= prepared.new_rows
    # What was paused, or gone on with, is not how long such a job takes.
    whole = cost is not None and not fitted.paused_s and prepared.partial is None
    if cost is None or not whole or (fitted.capping is not None and not fitted.capping.held):
        return
    learn = job_profile.learn_job if fitted.cap_w is None else job_profile.learn_capped
    state.job = learn(state.job, cost.figures.mean_power_w, cost.seconds, pipeline.forecast)
    if cost.figures.uuid is not None:
        run = CapRun(
            cost.figures.uuid, fitted.cap_w, cost.seconds, cost.energy.joules, challenge.rows
        )
        state.caps = power_cap.learn(state.caps, run, pipeline.cap)


def _refuse(session: Session, admitted: Admitted, why: str) -> Ending:
    """A fit that brings no model is an answer: the request is settled, the others carry on."""
    refused = Decision(question="retrain", yes=False, because=why)
    rows = [*admitted.rows, session.decided(refused)]
    return retrain_request.settle(session, admitted.request, Ending("NoModel", refused), rows)


def _put_off(session: Session, admitted: Admitted, prepared: Prepared, stopped: GiveBack) -> Ending:
    """The gate was closed for too long amid the fit: asked again, and gone on from there."""
    admitted.request.begun = None
    if isinstance(stopped.partial, PartialChallenge):
        # What cannot be kept is fitted again.
        with suppress(CannotPickle, OSError):
            partial_fits.put(session.places.partial, stopped.partial, prepared.work, session.seal)
            admitted.request.begun = Begun(prepared.position, prepared.new_rows)
    facts: dict[str, Fact] = {"cause": stopped.cause}
    decision = Decision(question="guard", yes=False, because=stopped.because, facts=facts)
    rows = [*admitted.rows, session.decided(decision)]
    return retrain_request.defer(session, admitted.request, decision, rows)


def _store(session: Session, prepared: Prepared, challenge: Challenge) -> Manifest:
    positions = prepared.positions
    # Rejected records leave holes, so places in the window are looked up, not counted.
    parts = challenge.parts
    split = positions[parts.newest]
    return session.store.put(
        f"v{prepared.position:09d}",
        challenge.model,
        challenge.reference,
        ModelCard(
            pipeline=session.name,
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
