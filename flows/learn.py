"""Learn one batch: predict, learn, log, checkpoint. One task per batch, never one per record."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.session import Session
from models import example, metrics, online, predictions, scoring
from models.batch import BatchAnswersNothing, BatchPrediction
from models.learner import Log, RecordRefused
from models.stream import Batch, Reject, thin
from observability.decision import Decision
from observability.errors import ThermodriftError
from observability.records import Record, RejectRecord, ScoreRecord

T = TypeVar("T")

MOST_REFUSED = 100
"""Records in a row that a model may refuse before the run ends: it refuses them all."""
FEWEST_FOR_A_SHARE = 20
"""Records of a batch from which the share of rejects is worth a word."""
RAW_PER_BATCH = 10_000_000
"""Characters of raw text that a batch's rejects keep at the most, shared among them."""


class ModelRefusesEverything(ThermodriftError, RuntimeError):
    """The online model raised on record after record: the fault is the model's."""


@dataclass(frozen=True)
class Learned:
    """What a batch brought: how many records it went through, and whether the stream ended."""

    records: int
    ended: bool


@task(name="learn", cache_policy=NO_CACHE, persist_result=False)
def learn(session: Session) -> Learned:
    """Go through the next batch of the stream, up to the next multiple of the batch size."""
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

    Batches end there however a run was cut before, by a limit or a signal, so that what is decided
    about a stream does not depend on how often its run was stopped. Nor does its log, but for the
    last bit where a batch model's linear algebra answers fewer rows at once.
    """
    return session.state.position % session.file.pipeline.stream.batch == 0


def _size(session: Session) -> int:
    batch = session.file.pipeline.stream.batch
    size = batch - session.state.position % batch
    if session.limit is not None:
        size = min(size, session.limit - session.records)
    return size


def _go_through(session: Session, batch: Batch) -> tuple[Batch, Log]:
    """Learn the batch, or its part up to a record on which the model raises; then that record.

    A model that raises has half learned the record. So the learner goes back to its checkpoint, the
    batch ends before the record, and at the next turn the record is a batch of its own that is
    rejected: nothing is learned more than twice over, however many records are refused.
    """
    answers = _champions_answers(session, batch)
    try:
        log = session.state.learner.learn(batch.rows, batch.labels, answers, session.stop)
    except RecordRefused as error:
        session.restore()
        if error.index == 0:
            return _refused(session, batch, error), Log()
        return _go_through(session, _cut(session, batch, error.index))
    session.refused_in_a_row = 0 if len(log) else session.refused_in_a_row
    if len(log) < len(batch.rows):
        batch = _cut(session, batch, len(log))
    return batch, log


def _refused(session: Session, batch: Batch, error: RecordRefused) -> Batch:
    """The batch up to and with its first row, which becomes a reject."""
    session.refused_in_a_row += 1
    position = batch.positions[0]
    if session.refused_in_a_row > MOST_REFUSED:
        raise ModelRefusesEverything(
            f"the online model {session.file.pipeline.online.recipe} raised on "
            f"{session.refused_in_a_row} records in a row, last on position {position}: {error}. "
            "They are in rejects; correct the model and run again"
        ) from error
    raw = repr({**batch.rows[0], session.state.schema.target: batch.labels[0]})
    reject = Reject(position, f"the online model raised {error}", raw)
    until = _ending_at(session, batch, position + 1, 1)
    return replace(until, positions=[], rows=[], labels=[], rejects=[*until.rejects, reject])


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


def _cut(session: Session, batch: Batch, learned: int) -> Batch:
    """The batch up to where a signal or a refusal stopped the learner."""
    return _ending_at(session, batch, batch.positions[learned], learned)


def _ending_at(session: Session, batch: Batch, end: int, rows: int) -> Batch:
    """The batch up to position `end` (exclusive), which is `rows` of its rows."""
    if end == batch.first:
        after = session.state.cursor
    else:
        after = session.stream.read(session.state.cursor, end - batch.first).after
    return replace(
        batch,
        last=end,
        positions=batch.positions[:rows],
        rows=batch.rows[:rows],
        labels=batch.labels[:rows],
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
    state.change_position = _change_position(session, batch)
    state.totals.rejected += len(batch.rejects)
    rows = [
        *_scores(session, batch, log),
        *_rejects(session, batch),
        *_intake(session, batch),
        *_revived(session),
        *_threshold(session),
    ]
    session.commit(rows, log=write_log, logged=(batch.first, batch.last), wait=False)


def _change_position(session: Session, batch: Batch) -> int | None:
    """Where the labels last left what was known.

    A change that is sure now may have begun in an earlier batch: then its place is counted back,
    as if no record of that had been rejected.
    """
    seen = session.state.learner.novelty
    if seen.changed_at is None:
        return None
    ago = seen.learned - seen.changed_at
    learned = [
        place
        for place, label in zip(batch.positions, batch.labels, strict=True)
        if label is not None
    ]
    if ago <= len(learned):
        return learned[-ago]
    known = session.state.change_position
    back = batch.first - (ago - len(learned))
    # Of an older change the place was found when it was sure.
    return known if known is not None and known >= back else max(back, 0)


def _scores(session: Session, batch: Batch, log: Log) -> list[Record]:
    """Of each member that answered over this batch: accuracy or mae, and the judged metric.

    What the batch cannot tell is NULL in the history: ROC AUC where one class came alone.
    """
    kind = session.state.schema.task
    means = {who: scoring.mean(kind, log.predicted[who], log.labels) for who in log.predicted}
    found = [
        (member, scoring.metric(kind), value)
        for member, value in means.items()
        if value is not None
    ]
    measure = session.state.learner.measure
    if measure.name != scoring.metric(kind):
        rarer = metrics.counted(log.labels) if kind == "classification" else None
        for member, _, _ in tuple(found):
            answers, answered = log.answers[member], log.predicted[member]
            value = metrics.of_answers(log.labels, answers, answered, measure, rarer)
            found.append((member, measure.name, value))
    return [
        session.row(
            ScoreRecord,
            position_from=batch.first,
            position_to=batch.last,
            member=member,
            metric=metric,
            value=value,
        )
        for member, metric, value in found
    ]


def _threshold(session: Session) -> list[Record]:
    """Say that the threshold of the served class has moved far since that was last said."""
    cut = session.state.learner.threshold
    if cut is None or not cut.moved_far():
        return []
    before = "where it is the likelier" if cut.told is None else f"from {cut.told:.3g} on"
    now = (
        "where it is the likelier"
        if cut.value is None
        else f"from a probability of {cut.value:.3g} on"
    )
    decision = Decision(
        question="threshold",
        yes=True,
        because=f"the class {cut.rarer!r} is served {now}, before {before}: that is best for "
        f"{cut.measure.name} on the newest labelled predictions",
        facts={"threshold": cut.value, "before": cut.told, "metric": cut.measure.name},
    )
    cut.told = cut.value
    session.display.happened(session.state.position, "threshold", decision.because, "cyan")
    return [session.decided(decision)]


def _rejects(session: Session, batch: Batch) -> list[Record]:
    room = RAW_PER_BATCH // max(1, len(batch.rejects))
    return [
        session.row(RejectRecord, position=each.position, reason=each.reason, raw=each.raw[:room])
        for each in batch.rejects
    ]


def _intake(session: Session, batch: Batch) -> list[Record]:
    """Say aloud that the stream itself is ill: its records stop fitting what it began with."""
    records, rejected = batch.last - batch.first, len(batch.rejects)
    allowed = session.file.pipeline.stream.rejected_share
    if records < FEWEST_FOR_A_SHARE or rejected <= allowed * records:
        return []
    decision = Decision(
        question="intake",
        yes=False,
        because=f"{rejected} of {records} records were rejected ({allowed:.0%} is usual at most), "
        f"the last because: {batch.rejects[-1].reason}",
        facts={"records": records, "rejected": rejected, "rejected_share": allowed},
    )
    session.display.happened(session.state.position, "rejected", decision.because, "red")
    return [session.decided(decision)]


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
