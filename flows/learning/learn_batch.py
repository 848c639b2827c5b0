"""Learn one batch: predict, learn, log, checkpoint. One task per batch, never one per record."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.run.session import Session
from flows.run.state import Seen
from models.batch.batch_model import BatchAnswersNothing
from models.core import metrics, record_schema, scoring
from models.core.prediction import BatchPrediction
from models.online import online_model
from models.online.learner import Log, RecordRefused
from models.prediction_log import prediction_log
from models.stream import intake_health
from models.stream.source import Batch, Notice, Records, Reject, thin
from observability.core.decision import Decision
from observability.core.errors import BadConfiguration, ThermodriftError
from observability.history.records import Record, RejectRecord, ScoreRecord

T = TypeVar("T")

MOST_REFUSED = 100
"""Records in a row that a model may refuse before the run ends: it refuses them all."""
MOST_RANGES = 10_000
"""Ranges of rejected positions that a checkpoint keeps, so that they can be read again."""
RAW_PER_BATCH = 10_000_000
"""Characters of raw text that a batch's rejects keep at the most, shared among them."""


class ModelRefusesEverything(ThermodriftError, RuntimeError):
    """The online model raised on record after record: the fault is the model's."""


class IntakeStopped(BadConfiguration):
    """The stream has another shape than it began with: the run ended before it was consumed."""

    def __init__(self, message: str, because: str) -> None:
        super().__init__(message)
        self.because = because


@dataclass(frozen=True)
class Learned:
    """What a batch brought: how many records it went through, and whether the stream ended."""

    records: int
    ended: bool


@task(name="learn", cache_policy=NO_CACHE, persist_result=False)
def learn(session: Session) -> Learned:
    """Go through the next batch of the stream, up to the next multiple of the batch size.

    Raises IntakeStopped before a batch of another shape, of which nothing is then consumed.
    """
    began_s = time.monotonic()
    state = session.state
    batch = session.stream.read(state.cursor, _size(session))
    session.unfinished_bytes = batch.unfinished
    if batch.last == batch.first:
        return Learned(0, ended=True)
    # What warned before belongs to no model that answers here.
    session.tell_warnings("a library", None)
    _stop_before_another_shape(session, batch)
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


def _stop_before_another_shape(session: Session, batch: Batch) -> None:
    """Ask whether this batch may be consumed; where it may not, keep why, and raise."""
    options, intake = session.file.pipeline.stream, session.state.intake
    batches = [batch]
    while intake_health.wants_another(batches, options):
        ahead = session.stream.read(batches[-1].after)
        if ahead.last == ahead.first:
            break
        batches.append(ahead)
    decision = intake_health.judge(batches, intake.in_a_row, options)
    if decision.facts["outcome"] != "stopped":
        return
    known = (intake.stopped_at, intake.because) == (batch.first, decision.because)
    remedy = str(decision.facts["remedy"])
    intake.stopped_at, intake.because, intake.remedy = batch.first, decision.because, remedy
    # A run that meets it again, the file unchanged, has nothing new to tell.
    if not known:
        session.commit([session.decided(decision)])
    session.display.happened(batch.first, "stopped", decision.because, "red")
    by_shape = "rejected_share" in decision.facts
    rejects = "; [stream] rejected_share = 1 rejects them all" if by_shape else ""
    raise IntakeStopped(
        f"{session.file.path}: {decision.because}. What to do: {remedy}{rejects}. Nothing is "
        f"consumed from position {batch.first} on: run again and it goes on there",
        decision.because,
    )


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
    answers, silent = champions_answers(session, batch)
    recipes = session.file.pipeline
    session.tell_warnings(f"the champion {session.state.champion}", recipes.batch.recipe)
    try:
        log = session.state.learner.learn(batch.rows, batch.labels, answers, session.stop)
    except RecordRefused as error:
        session.restore()
        if error.index == 0:
            return _refused(session, batch, error), Log()
        return _go_through(session, _cut(session, batch, error.index))
    session.tell_warnings("the online model", recipes.online.recipe)
    session.refused_in_a_row = 0 if log.learned else session.refused_in_a_row
    if silent is not None:
        # Only now: a batch that was gone back on is answered again, and told once.
        session.asides.append(session.decided(silent))
        session.display.happened(session.state.position, "silent", silent.because, "red")
    if len(log) < len(batch.positions):
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
    reject = Reject(position, "model", f"the online model raised {error}", raw)
    until = _ending_at(session, batch, position + 1, 0)
    return replace(until, rejects=[*until.rejects, reject])


def champions_answers(
    session: Session, records: Records
) -> tuple[BatchPrediction | None, Decision | None]:
    """The champion's prediction of all records; or, of a champion that fails, what to say."""
    champion = session.champion()
    if champion is None or not records.positions:
        return None, None
    try:
        return champion.predict(record_schema.frame(records.table, session.state.schema)), None
    except BatchAnswersNothing as error:
        because = f"no batch prediction: {error}"
        return None, Decision(question="answers", yes=False, because=because)


def _cut(session: Session, batch: Batch, learned: int) -> Batch:
    """The batch up to where a signal or a refusal stopped the learner."""
    return _ending_at(session, batch, batch.positions[learned], learned)


def _ending_at(session: Session, batch: Batch, end: int, rows: int) -> Batch:
    """The batch up to position `end` (exclusive), which is `rows` of its rows."""
    notices: tuple[Notice, ...] = ()
    if end == batch.first:
        after = session.state.cursor
    else:
        part = session.stream.read(session.state.cursor, end - batch.first)
        after, notices = part.after, part.notices
    kept = batch.slice(0, rows)
    return replace(
        batch,
        positions=kept.positions,
        table=kept.table,
        last=end,
        rejects=[each for each in batch.rejects if each.position < end],
        after=after,
        ended=False,
        notices=notices,
    )


def _keep(session: Session, batch: Batch, log: Log) -> None:
    """Write the log, then the checkpoint with everything that this batch changed."""
    if batch.last == batch.first:
        return
    state = session.state
    write_log = partial(
        prediction_log.write,
        session.places.predictions,
        session.name,
        batch,
        (batch.first, batch.last),
        log,
        state.champion,
    )
    state.marks = thin([*state.marks, state.cursor])
    state.cursor = batch.after
    state.new_rows += log.learned
    state.totals.records += batch.last - batch.first
    state.totals.learned += log.learned
    state.totals.unlabelled += len(log) - log.learned
    state.change_position = _change_position(session, batch)
    state.totals.rejected += len(batch.rejects)
    rows = [
        *_scores(session, batch, log),
        *_rejects(session, batch),
        *_intake(session, batch),
        *_noticed(session, batch),
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
        log = log.labelled()
        labels = [label for label in log.labels if label is not None]
        rarer = metrics.counted(labels) if kind == "classification" else None
        for member, _, _ in tuple(found):
            answers, answered = log.answers[member], log.predicted[member]
            value = metrics.of_answers(labels, answers, answered, measure, rarer)
            found.append((member, measure.name, value))
    return [
        session.row(
            ScoreRecord,
            position_from=batch.first,
            position_to=batch.last,
            member=member,
            metric=metric,
            value=value,
            scored=scoring.count(log.predicted[member], log.labels),
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
        session.row(
            RejectRecord,
            position=each.position,
            kind=each.kind,
            reason=each.reason,
            raw=each.raw[:room],
        )
        for each in batch.rejects
    ]


def _intake(session: Session, batch: Batch) -> list[Record]:
    """Keep how well the batch fitted, and say it aloud where more than usual of it did not."""
    intake = session.state.intake
    decision = intake_health.told(batch, session.file.pipeline.stream)
    intake.records, intake.rejected = batch.last - batch.first, len(batch.rejects)
    intake.in_a_row = intake_health.in_a_row(batch, intake.in_a_row)
    intake.rejects = intake.rejects.plus(each.position for each in batch.rejects).newest(
        MOST_RANGES
    )
    intake.stopped_at, intake.because, intake.remedy = None, "", ""
    if decision is None:
        return []
    intake.because, intake.remedy = decision.because, str(decision.facts["remedy"])
    session.display.happened(session.state.position, "rejected", decision.because, "red")
    return [session.decided(decision)]


def _noticed(session: Session, batch: Batch) -> list[Record]:
    """Count what is unusual and costs no record, and tell of it when it comes first."""
    known = session.state.intake.notices
    rows: list[Record] = []
    for notice in batch.notices:
        seen = known.get((notice.kind, notice.column))
        if seen is not None:
            seen.count += notice.count
            continue
        known[notice.kind, notice.column] = Seen(notice.position, notice.count, notice.example)
        decision = _notice(notice)
        session.display.happened(notice.position, "noticed", decision.because, "yellow")
        rows.append(session.decided(decision))
    return rows


def _notice(notice: Notice) -> Decision:
    what = {
        "new column": "is new and is left out",
        "unfit cell": "has a cell that does not fit and is taken as missing",
        "leading zeros": "is read as numbers and has digits with a leading zero",
        "empty column": "has no value any more, though it had some when the stream began",
    }[notice.kind]
    return Decision(
        question="intake",
        yes=True,
        because=f"from position {notice.position} on, column {notice.column!r} {what} "
        f"(such as {notice.example}); this is told once",
        facts={
            "outcome": "noticed",
            "notice": notice.kind,
            "column": notice.column,
            "first_position": notice.position,
            "records": notice.count,
            "example": notice.example,
        },
    )


def _revived(session: Session) -> list[Record]:
    """A member that answered NaN stays deaf for ever: begin it anew, and say so."""
    state, pipeline = session.state, session.file.pipeline
    silent = state.learner.online.silent
    if not silent:
        return []
    state.learner.online = online_model.build(pipeline.online, state.schema, session.file.folder)
    decision = Decision(
        question="revive",
        yes=True,
        because=f"the online member {pipeline.online.recipe} gave {silent} answers that are not "
        "finite and would never recover; it begins anew, the other members carry on",
        facts={"answers_not_finite": silent},
    )
    session.display.happened(state.position, "revived", decision.because, "red")
    return [session.decided(decision)]
