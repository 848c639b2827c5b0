"""Learn one batch: predict, learn, log, checkpoint. One task per batch, never one per record."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.learning import error_reference
from flows.run.state import ReportedNotices
from flows.run.unit_of_work import UnitOfWork
from models.batch.batch_model import BatchAnswersNothing
from models.core import record_schema, scoring
from models.core.prediction import BatchPrediction, GivenAnswers
from models.online import learning_health, online_model, prediction_rows, prequential
from models.online.learner import SERVED
from models.online.online_model import RecordRefused
from models.online.prediction_rows import PredictionRows
from models.prediction_log import prediction_log
from models.stream import intake_health
from models.stream.source import Batch, Notice, Records, Reject, StreamChanged, downsample
from observability.core.decision import Decision
from observability.core.errors import BadConfiguration, ThermodriftError
from observability.history.records import Record, RejectRecord, ScoreRecord

MOST_RANGES = 10_000
"""Most ranges of rejected positions that a checkpoint keeps for a replay."""
RAW_PER_BATCH = 10_000_000
"""Most characters of raw text that all rejects of a batch keep together."""


class ModelRefusesEverything(ThermodriftError, RuntimeError):
    """The online model raised on record after record: the fault is the model's."""


class IntakeStopped(BadConfiguration):
    """The stream has another shape than it began with; none of that part was consumed."""

    def __init__(self, message: str, because: str) -> None:
        super().__init__(message)
        self.because = because


@dataclass(frozen=True)
class BatchResult:
    """How many records a batch had, and whether the stream ended with it."""

    records: int
    ended: bool


@task(name="learn", cache_policy=NO_CACHE, persist_result=False)
def learn(work: UnitOfWork) -> BatchResult:
    """Learn the next batch of the stream, up to the next multiple of the batch size.

    Raises IntakeStopped before a batch of another shape, of which nothing is then consumed.
    """
    began_s = time.monotonic()
    state = work.state
    size = work.run.file.pipeline.stream.batch
    size -= state.position % size
    if work.run.limit is not None:
        size = min(size, work.run.limit - work.records)
    batch = work.run.stream.read(state.cursor, size)
    work.statistics.unfinished_bytes = batch.unfinished
    if batch.last == batch.first:
        return BatchResult(0, ended=True)
    # Warnings until here are not of the models that learn and predict below.
    work.report_warnings("a library")
    _check_shape(work, batch)
    batch, log = _learn_up_to_refusal(work, batch)
    _commit(work, batch, log)
    work.statistics.learning_s += time.monotonic() - began_s
    return BatchResult(batch.last - batch.first, ended=batch.ended)


def aligned(work: UnitOfWork) -> bool:
    """Whether the position is a multiple of the batch size: only there is the state judged.

    Batches end there wherever a limit or a signal ended a run before, so that the decisions about a
    stream do not depend on how often its run was stopped. Nor does its log, except for the last bit
    where a batch model's linear algebra predicts fewer rows at once.
    """
    return work.state.position % work.run.file.pipeline.stream.batch == 0


def _check_shape(work: UnitOfWork, batch: Batch) -> None:
    """Decide whether this batch may be consumed; if not, record why, and raise IntakeStopped."""
    options, intake = work.run.file.pipeline.stream, work.state.intake
    batches = [batch]
    while intake_health.wants_another(batches, options):
        ahead = work.run.stream.read(batches[-1].after)
        if ahead.last == ahead.first:
            break
        batches.append(ahead)
    decision = intake_health.judge(batches, intake.in_a_row, options)
    if decision.facts["outcome"] != "stopped":
        return
    known = (intake.stopped_at, intake.because) == (batch.first, decision.because)
    remedy = str(decision.facts["remedy"])
    intake.stopped_at, intake.because, intake.remedy = batch.first, decision.because, remedy
    # A run that meets the same shape again, the file unchanged, records nothing.
    if not known:
        work.commit([work.decision_row(decision)])
    work.run.display.log_event(batch.first, "stopped", decision.because, "red")
    by_shape = "rejected_share" in decision.facts
    rejects = "; [stream] rejected_share = 1 rejects them all" if by_shape else ""
    raise IntakeStopped(
        f"{work.run.file.path}: {decision.because}. What to do: {remedy}{rejects}. Nothing is "
        f"consumed from position {batch.first} on: run again and it goes on there",
        decision.because,
    )


def _learn_up_to_refusal(work: UnitOfWork, batch: Batch) -> tuple[Batch, PredictionRows]:
    """Learn the batch, or its part up to a record on which the model raises.

    A model that raises has half learned the record. So the learner goes back to its checkpoint, the
    batch ends before the record, and in the next call the record is a batch of its own that is
    rejected. No record is learned more than twice, however many records are refused.
    """
    error_reference.follow_champion(work)
    if not batch.positions:
        # All of its records are rejects: not a byte of what was learned changes.
        return batch, PredictionRows()
    given = answered_then(work, batch)
    answers, failure = champion_predictions(work, batch)
    recipes = work.run.file.pipeline
    work.report_warnings(f"the champion {work.state.champion}", ", ".join(recipes.batch.recipes))
    try:
        log = work.state.learner.learn(
            batch.rows,
            batch.labels,
            answers,
            work.run.stop,
            batch.positions,
            given,
            work.state.champion,
        )
    except RecordRefused as error:
        work.rollback()
        if error.index == 0:
            nothing = prediction_rows.nothing(work.state.learner.names)
            return _rejected(work, batch, error), nothing
        batch = _ending_at(work, batch, batch.positions[error.index], error.index)
        return _learn_up_to_refusal(work, batch)
    work.report_warnings("the online members", ", ".join(recipes.online.members))
    if log.learned:
        work.statistics.refused_in_a_row = 0
    if failure is not None:
        # Only now: after a rollback the batch is predicted again, and the failure recorded once.
        work.add_rows([work.decision_row(failure)])
        work.run.display.log_event(work.state.position, "silent", failure.because, "red")
    if len(log) < len(batch.positions):
        # A signal stopped the learner.
        batch = _ending_at(work, batch, batch.positions[len(log)], len(log))
    return batch, log


def _rejected(work: UnitOfWork, batch: Batch, error: RecordRefused) -> Batch:
    """The batch up to and including its first row, which becomes a reject."""
    position = batch.positions[0]
    work.statistics.refused_in_a_row += 1
    hopeless = learning_health.refuses_everything(
        work.statistics.refused_in_a_row, error.member, position, str(error)
    )
    if hopeless:
        raise ModelRefusesEverything(
            f"{hopeless.because}. They are in rejects; correct the model and run again"
        ) from error
    raw = repr({**batch.rows[0], work.state.schema.target: batch.labels[0]})
    reject = Reject(position, "model", f"the online member {error.member} raised {error}", raw)
    until = _ending_at(work, batch, position + 1, 0)
    return replace(until, rejects=[*until.rejects, reject])


def champion_predictions(
    work: UnitOfWork, records: Records
) -> tuple[BatchPrediction | None, Decision | None]:
    """The champion's prediction of all records; or, where it fails, the decision to record.

    None where a service has answered them all: then nobody asks what the champion would answer now.
    """
    champion = work.champion()
    if champion is None or all(each is not None for each in answered_then(work, records)):
        return None, None
    try:
        return champion.predict(record_schema.frame(records.table, work.state.schema)), None
    except BatchAnswersNothing as error:
        return None, learning_health.champion_answers(str(error))


def answered_then(work: UnitOfWork, records: Records) -> list[GivenAnswers | None]:
    """What this pipeline's service had answered for each record; None: it was not asked.

    Another pipeline's answers are not those of this one's members.
    """
    lineage = work.state.lineage
    return [
        each if each is not None and each.lineage == lineage else None
        for each in records.given or [None] * len(records.positions)
    ]


def versions(work: UnitOfWork, records: Records, now: str | None) -> list[str | None]:
    """The champion that answered each record: when the service was asked, or `now`."""
    return [now if each is None else each.champion for each in answered_then(work, records)]


def count_answered(work: UnitOfWork, records: Records, log: PredictionRows) -> None:
    """Count what was answered then, and who slept."""
    service, then = work.state.service, answered_then(work, records)
    service.scored += len(then) - then.count(None)
    service.foreign += sum(
        each is not None and each.lineage != work.state.lineage for each in records.given
    )
    service.other_champion += sum(
        each is not None and each.champion != work.state.champion for each in then
    )
    for name, count in log.asleep.items():
        service.asleep[name] = service.asleep.get(name, 0) + count


def _ending_at(work: UnitOfWork, batch: Batch, end: int, rows: int) -> Batch:
    """The batch up to position `end` (exclusive), which is `rows` of its rows."""
    notices: tuple[Notice, ...] = ()
    if end == batch.first:
        after = work.state.cursor
    else:
        part = work.run.stream.read(work.state.cursor, end - batch.first)
        _refuse_moved(work, batch, part)
        after, notices = part.after, part.notices
    kept = batch.slice(0, rows)
    return replace(
        batch,
        positions=kept.positions,
        table=kept.table,
        given=kept.given,
        last=end,
        rejects=[each for each in batch.rejects if each.position < end],
        after=after,
        ended=False,
        notices=notices,
    )


def _refuse_moved(work: UnitOfWork, batch: Batch, again: Batch) -> None:
    """Raise StreamChanged where the end of the file has moved since the batch was read.

    The examples of a service begin there, so the records of the batch would have other positions.
    """
    place = batch.after.inbox
    if place is None or again.last <= place.begins:
        return
    if again.after.inbox is None or again.after.inbox.begins != place.begins:
        raise StreamChanged(
            f"{work.run.stream.path} grew while the first labelled predictions after it were "
            f"learned: it had ended at record {place.begins}. Nothing of this batch was kept: run "
            "again"
        )


def _commit(work: UnitOfWork, batch: Batch, log: PredictionRows) -> None:
    """Write the log, then the checkpoint with everything that this batch changed."""
    if batch.last == batch.first:
        return
    state = work.state
    write_log = partial(
        prediction_log.write,
        work.run.places.predictions,
        work.run.name,
        batch,
        (batch.first, batch.last),
        log,
        versions(work, batch, state.champion),
    )
    state.marks = downsample([*state.marks, state.cursor])
    state.cursor = batch.after
    state.new_rows += log.learned
    state.totals.records += batch.last - batch.first
    state.totals.learned += log.learned
    if log.learned:
        state.learned_at = work.run.now()
    state.totals.unlabelled += len(log) - log.learned
    count_answered(work, batch, log)
    state.change_position = _change_position(work, batch)
    state.totals.rejected += len(batch.rejects)
    rows: list[Record] = [
        *_scores(work, batch, log),
        *(
            work.run.row(
                RejectRecord,
                position=each.position,
                kind=each.kind,
                reason=each.reason,
                raw=each.raw[: RAW_PER_BATCH // len(batch.rejects)],
            )
            for each in batch.rejects
        ),
        *_update_intake(work, batch),
    ]
    if aligned(work):
        served = state.learner.tallies[SERVED]
        state.stretches.add(served.count, served.total)
        # Nowhere else, so that a run that was stopped within a batch decides the same.
        rows += [*_reset_members(work), *_moved_threshold(work)]
    work.commit(rows, log=write_log, logged=(batch.first, batch.last), wait=False)


def _reset_members(work: UnitOfWork) -> list[Record]:
    """Begin anew every online member that diverged; the rows of these decisions."""
    state, pipeline = work.state, work.run.file.pipeline
    rows: list[Record] = []
    for name, member in [*state.learner.online.members.items()]:
        reset = learning_health.must_be_reset(
            name, member.non_finite_count, state.learner.divergences[name]
        )
        if reset:
            anew = online_model.build_member(
                name,
                pipeline.online,
                state.schema,
                pipeline.pipeline.measure,
                work.run.file.folder,
            )
            state.learner.replace(name, anew, state.position)
            work.run.display.log_event(state.position, "reset", reset.because, "red")
            rows.append(work.decision_row(reset))
    return rows


def _moved_threshold(work: UnitOfWork) -> list[Record]:
    """Report a threshold of the served class that has moved far."""
    threshold = work.state.learner.threshold
    moved = None if threshold is None else threshold.moved()
    if threshold is None or not moved:
        return []
    threshold.reported = threshold.value
    work.run.display.log_event(work.state.position, "threshold", moved.because, "cyan")
    return [work.decision_row(moved)]


def _change_position(work: UnitOfWork, batch: Batch) -> int | None:
    """Where the labels last left what was known.

    A change that is certain now may have begun in an earlier batch: then its position is counted
    back, as if no record of that had been rejected.
    """
    seen = work.state.learner.novelty
    if seen.changed_at is None:
        return None
    ago = seen.learned - seen.changed_at
    learned = [
        position
        for position, label in zip(batch.positions, batch.labels, strict=True)
        if label is not None
    ]
    if ago <= len(learned):
        return learned[-ago]
    known = work.state.change_position
    back = batch.first - (ago - len(learned))
    # The position of an older change was found when it became certain.
    return known if known is not None and known >= back else max(back, 0)


def _scores(work: UnitOfWork, batch: Batch, log: PredictionRows) -> list[Record]:
    """Of each member that predicted this batch: accuracy or mae, and the judged metric.

    What cannot be computed is NULL in the history, such as ROC AUC of one class alone.
    """
    kind = work.state.schema.task
    means = {who: scoring.mean(kind, rows.predicted, log.labels) for who, rows in log.by.items()}
    found = [
        (member, scoring.metric_name(kind), value)
        for member, value in means.items()
        if value is not None
    ]
    measure = work.state.learner.measure
    if measure.name != scoring.metric_name(kind):
        log = log.labelled()
        labels = [label for label in log.labels if label is not None]
        found += [
            (member, measure.name, prequential.score(labels, log.by[member], measure))
            for member, _, _ in found
        ]
    return [
        work.run.row(
            ScoreRecord,
            position_from=batch.first,
            position_to=batch.last,
            member=member,
            metric=metric,
            value=value,
            scored=scoring.count(log.by[member].predicted, log.labels),
        )
        for member, metric, value in found
    ]


def _update_intake(work: UnitOfWork, batch: Batch) -> list[Record]:
    """Update how well the stream fits; the rows of new notices, and of unusually many rejects."""
    intake = work.state.intake
    decision = intake_health.describe(batch, work.run.file.pipeline.stream)
    intake.records, intake.rejected = batch.last - batch.first, len(batch.rejects)
    intake.in_a_row = intake_health.in_a_row(batch, intake.in_a_row)
    intake.rejects = intake.rejects.plus(each.position for each in batch.rejects).newest(
        MOST_RANGES
    )
    intake.stopped_at, intake.because, intake.remedy = None, "", ""
    rows: list[Record] = []
    if decision is not None:
        intake.because, intake.remedy = decision.because, str(decision.facts["remedy"])
        work.run.display.log_event(work.state.position, "rejected", decision.because, "red")
        rows.append(work.decision_row(decision))
    for notice in batch.notices:
        known = intake.notices.get((notice.kind, notice.column))
        if known is not None:
            known.count += notice.count
            continue
        intake.notices[notice.kind, notice.column] = ReportedNotices(
            notice.position, notice.count, notice.example
        )
        noticed = intake_health.noticed(notice)
        work.run.display.log_event(notice.position, "noticed", noticed.because, "yellow")
        rows.append(work.decision_row(noticed))
    return rows
