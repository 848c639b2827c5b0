"""Learn one batch: predict, learn, log, checkpoint. One task per batch, never one per record."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.session import Session
from models import example, online, predictions, scoring
from models.batch import BatchAnswersNothing, BatchPrediction
from models.learner import Log, RecordRefused
from models.stream import Batch, Reject, thin
from observability.decision import Decision
from observability.errors import ThermodriftError
from observability.records import Record, RejectRecord, ScoreRecord

T = TypeVar("T")

MOST_REFUSED = 20
"""Records of one batch that a model may refuse before the run ends: it refuses them all."""


class ModelRefusesEverything(ThermodriftError, RuntimeError):
    """The online model raised on record after record: the fault is the model's."""


@dataclass(frozen=True)
class Learned:
    """What a batch brought: how many records it went through, and whether the stream ended."""

    records: int
    ended: bool


@task(name="learn", cache_policy=NO_CACHE, persist_result=False)
def learn(session: Session) -> Learned:
    """Go through the next batch of the stream, up to the next multiple of the batch size.

    A model that raises on a record has half learned it, so the batch is gone through again from the
    checkpoint without that record, which becomes a reject.
    """
    began_s = time.monotonic()
    state = session.state
    batch = session.stream.read(state.cursor, _size(session))
    session.unfinished_bytes = batch.unfinished
    if batch.last == batch.first:
        return Learned(0, ended=True)
    batch, log = _go_through(session, batch)
    _keep(session, batch, log)
    session.learning_s += time.monotonic() - began_s
    return Learned(batch.last - batch.first, ended=batch.ended)


def aligned(session: Session) -> bool:
    """Whether the stream stands at a multiple of the batch size, where the world is looked at.

    Batches end there however a run was cut before, by a limit or a signal, so that the log of a
    stream does not depend on how often its run was stopped.
    """
    return session.state.position % session.file.pipeline.stream.batch == 0


def _size(session: Session) -> int:
    batch = session.file.pipeline.stream.batch
    size = batch - session.state.position % batch
    if session.limit is not None:
        size = min(size, session.limit - session.records)
    return size


def _go_through(session: Session, batch: Batch) -> tuple[Batch, Log]:
    refused: list[Reject] = []
    while True:
        answers = _champions_answers(session, batch)
        try:
            log = session.state.learner.learn(batch.rows, batch.labels, answers, session.stop)
        except RecordRefused as error:
            refused.append(_refusal(session, batch, error))
            session.restore()
            batch = _without(batch, error.index, refused[-1])
            continue
        if len(log) < len(batch.rows):
            batch = _cut(session, batch, len(log))
        return batch, log


def _champions_answers(session: Session, batch: Batch) -> BatchPrediction | None:
    """The champion's prediction of a whole batch; a champion that fails is absent, and said so."""
    champion = session.champion()
    if champion is None or not batch.rows:
        return None
    try:
        return champion.predict(example.frame(batch.rows, session.state.schema))
    except BatchAnswersNothing as error:
        silent = Decision(question="answers", yes=False, because=f"no batch prediction: {error}")
        session.asides = [session.decided(silent)]
        session.display.happened(session.state.position, "silent", silent.because, "red")
        return None


def _refusal(session: Session, batch: Batch, error: RecordRefused) -> Reject:
    row = batch.rows[error.index]
    reject = Reject(
        position=batch.positions[error.index],
        reason=f"the online model raised {error}",
        raw=repr({**row, session.state.schema.target: batch.labels[error.index]}),
    )
    already = sum("the online model raised" in each.reason for each in batch.rejects)
    if already >= MOST_REFUSED:
        raise ModelRefusesEverything(
            f"the online model {session.file.pipeline.online.recipe} raised on {already + 1} "
            f"records from position {batch.first} on, last on position {reject.position}: {error}. "
            "Nothing of this batch was learned; correct the model and run again"
        ) from error
    return reject


def _without(batch: Batch, index: int, reject: Reject) -> Batch:
    return replace(
        batch,
        positions=_drop(batch.positions, index),
        rows=_drop(batch.rows, index),
        labels=_drop(batch.labels, index),
        rejects=sorted([*batch.rejects, reject], key=lambda each: each.position),
    )


def _drop(values: list[T], index: int) -> list[T]:
    return values[:index] + values[index + 1 :]


def _cut(session: Session, batch: Batch, learned: int) -> Batch:
    """The batch up to where a signal stopped the learner."""
    end = batch.positions[learned]
    if end == batch.first:
        after = session.state.cursor
    else:
        after = session.stream.read(session.state.cursor, end - batch.first).after
    return replace(
        batch,
        last=end,
        positions=batch.positions[:learned],
        rows=batch.rows[:learned],
        labels=batch.labels[:learned],
        rejects=[each for each in batch.rejects if each.position < end],
        after=after,
        ended=False,
    )


def _keep(session: Session, batch: Batch, log: Log) -> None:
    """Write the log, then the checkpoint with everything that this batch changed."""
    if batch.last == batch.first:
        return
    state = session.state
    write_log = partial(
        predictions.write,
        session.places.predictions,
        session.name,
        batch.positions,
        (batch.first, batch.last),
        log,
        state.schema.label_kind,
        state.champion,
    )
    state.marks = thin([*state.marks, state.cursor])
    state.cursor = batch.after
    state.new_rows += len(log)
    state.totals.records += batch.last - batch.first
    state.totals.learned += len(log)
    state.totals.rejected += len(batch.rejects)
    rows = [*_scores(session, batch, log), *_rejects(session, batch), *_revived(session)]
    session.commit(rows, log=write_log, wait=False)


def _scores(session: Session, batch: Batch, log: Log) -> list[Record]:
    """One row per member that answered: accuracy, or mean absolute error, over this batch."""
    kind = session.state.schema.task
    means = {who: scoring.mean(kind, log.predicted[who], log.labels) for who in log.predicted}
    return [
        session.row(
            ScoreRecord,
            position_from=batch.first,
            position_to=batch.last,
            member=member,
            metric=scoring.metric(kind),
            value=value,
        )
        for member, value in means.items()
        if value is not None
    ]


def _rejects(session: Session, batch: Batch) -> list[Record]:
    return [
        session.row(RejectRecord, position=each.position, reason=each.reason, raw=each.raw)
        for each in batch.rejects
    ]


def _revived(session: Session) -> list[Record]:
    """A member that answered NaN stays deaf for ever: begin it anew, and say so."""
    state, pipeline = session.state, session.file.pipeline
    silent = state.learner.online.silent
    if not silent:
        return []
    state.learner.online = online.build(pipeline.online, state.schema, session.file.folder)
    decision = Decision(
        question="revive",
        yes=True,
        because=f"the online member {pipeline.online.recipe} gave {silent} answers that are not "
        "finite and would never recover; it begins anew, the other members carry on",
        facts={"answers_not_finite": silent},
    )
    session.display.happened(state.position, "revived", decision.because, "red")
    return [session.decided(decision)]
