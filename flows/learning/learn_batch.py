"""Learn one batch: predict, learn, log, checkpoint. One task per batch, never one per record."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.run.state import ReportedNotices
from flows.run.unit_of_work import UnitOfWork
from models.batch.batch_model import BatchAnswersNothing
from models.core import metrics, record_schema, scoring
from models.core.prediction import BatchPrediction
from models.online import learning_health, online_model
from models.online.learner import PredictionRows, RecordRefused
from models.prediction_log import prediction_log
from models.stream import intake_health
from models.stream.source import Batch, Notice, Records, Reject, downsample
from observability.core.decision import Decision
from observability.core.errors import BadConfiguration, ThermodriftError
from observability.history.records import Record, RejectRecord, ScoreRecord

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
class BatchResult:
    """What a batch brought: how many records it went through, and whether the stream ended."""

    records: int
    ended: bool


@task(name="learn", cache_policy=NO_CACHE, persist_result=False)
def learn(work: UnitOfWork) -> BatchResult:
    """Go through the next batch of the stream, up to the next multiple of the batch size.

    Raises IntakeStopped before a batch of another shape, of which nothing is then consumed.
    """
    began_s = time.monotonic()
    state = work.state
    batch = work.run.stream.read(state.cursor, _size(work))
    work.statistics.unfinished_bytes = batch.unfinished
    if batch.last == batch.first:
        return BatchResult(0, ended=True)
    # What warned before belongs to no model that answers here.
    work.report_warnings("a library")
    _stop_before_another_shape(work, batch)
    batch, log = _go_through(work, batch)
    _keep(work, batch, log)
    work.statistics.learning_s += time.monotonic() - began_s
    return BatchResult(batch.last - batch.first, ended=batch.ended)


def aligned(work: UnitOfWork) -> bool:
    """Whether the stream stands at a multiple of the batch size, where the world is looked at.

    Batches end there however a run was cut before, by a limit or a signal, so that what is decided
    about a stream does not depend on how often its run was stopped. Nor does its log, but for the
    last bit where a batch model's linear algebra answers fewer rows at once.
    """
    return work.state.position % work.run.file.pipeline.stream.batch == 0


def _stop_before_another_shape(work: UnitOfWork, batch: Batch) -> None:
    """Ask whether this batch may be consumed; where it may not, keep why, and raise."""
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
    # A run that meets it again, the file unchanged, has nothing new to tell.
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


def _size(work: UnitOfWork) -> int:
    batch = work.run.file.pipeline.stream.batch
    size = batch - work.state.position % batch
    if work.run.limit is not None:
        size = min(size, work.run.limit - work.records)
    return size


def _go_through(work: UnitOfWork, batch: Batch) -> tuple[Batch, PredictionRows]:
    """Learn the batch, or its part up to a record on which the model raises; then that record.

    A model that raises has half learned the record. So the learner goes back to its checkpoint, the
    batch ends before the record, and at the next turn the record is a batch of its own that is
    rejected: nothing is learned more than twice over, however many records are refused.
    """
    answers, silent = champion_predictions(work, batch)
    recipes = work.run.file.pipeline
    work.report_warnings(f"the champion {work.state.champion}", recipes.batch.recipe)
    try:
        log = work.state.learner.learn(batch.rows, batch.labels, answers, work.run.stop)
    except RecordRefused as error:
        work.rollback()
        if error.index == 0:
            return _refused(work, batch, error), PredictionRows()
        return _go_through(work, _cut(work, batch, error.index))
    work.report_warnings("the online model", recipes.online.recipe)
    if log.learned:
        work.statistics.refused_in_a_row = 0
    if silent is not None:
        # Only now: a batch that was gone back on is answered again, and told once.
        work.add_rows([work.decision_row(silent)])
        work.run.display.log_event(work.state.position, "silent", silent.because, "red")
    if len(log) < len(batch.positions):
        batch = _cut(work, batch, len(log))
    return batch, log


def _refused(work: UnitOfWork, batch: Batch, error: RecordRefused) -> Batch:
    """The batch up to and with its first row, which becomes a reject."""
    position, recipe = batch.positions[0], work.run.file.pipeline.online.recipe
    work.statistics.refused_in_a_row += 1
    hopeless = learning_health.refuses_everything(
        work.statistics.refused_in_a_row, recipe, position, str(error)
    )
    if hopeless:
        raise ModelRefusesEverything(
            f"{hopeless.because}. They are in rejects; correct the model and run again"
        ) from error
    raw = repr({**batch.rows[0], work.state.schema.target: batch.labels[0]})
    reject = Reject(position, "model", f"the online model raised {error}", raw)
    until = _ending_at(work, batch, position + 1, 0)
    return replace(until, rejects=[*until.rejects, reject])


def champion_predictions(
    work: UnitOfWork, records: Records
) -> tuple[BatchPrediction | None, Decision | None]:
    """The champion's prediction of all records; or, of a champion that fails, what to say."""
    champion = work.champion()
    if champion is None or not records.positions:
        return None, None
    try:
        return champion.predict(record_schema.frame(records.table, work.state.schema)), None
    except BatchAnswersNothing as error:
        return None, learning_health.champion_answers(str(error))


def _cut(work: UnitOfWork, batch: Batch, learned: int) -> Batch:
    """The batch up to where a signal or a refusal stopped the learner."""
    return _ending_at(work, batch, batch.positions[learned], learned)


def _ending_at(work: UnitOfWork, batch: Batch, end: int, rows: int) -> Batch:
    """The batch up to position `end` (exclusive), which is `rows` of its rows."""
    notices: tuple[Notice, ...] = ()
    if end == batch.first:
        after = work.state.cursor
    else:
        part = work.run.stream.read(work.state.cursor, end - batch.first)
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


def _keep(work: UnitOfWork, batch: Batch, log: PredictionRows) -> None:
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
        state.champion,
    )
    state.marks = downsample([*state.marks, state.cursor])
    state.cursor = batch.after
    state.new_rows += log.learned
    state.totals.records += batch.last - batch.first
    state.totals.learned += log.learned
    state.totals.unlabelled += len(log) - log.learned
    state.change_position = _change_position(work, batch)
    state.totals.rejected += len(batch.rejects)
    rows = [
        *_scores(work, batch, log),
        *_rejects(work, batch),
        *_intake(work, batch),
        *_noticed(work, batch),
        *_revived(work),
        *_threshold(work),
    ]
    work.commit(rows, log=write_log, logged=(batch.first, batch.last), wait=False)


def _change_position(work: UnitOfWork, batch: Batch) -> int | None:
    """Where the labels last left what was known.

    A change that is sure now may have begun in an earlier batch: then its place is counted back,
    as if no record of that had been rejected.
    """
    seen = work.state.learner.novelty
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
    known = work.state.change_position
    back = batch.first - (ago - len(learned))
    # Of an older change the place was found when it was sure.
    return known if known is not None and known >= back else max(back, 0)


def _scores(work: UnitOfWork, batch: Batch, log: PredictionRows) -> list[Record]:
    """Of each member that answered over this batch: accuracy or mae, and the judged metric.

    What the batch cannot tell is NULL in the history: ROC AUC where one class came alone.
    """
    kind = work.state.schema.task
    means = {who: scoring.mean(kind, log.predicted[who], log.labels) for who in log.predicted}
    found = [
        (member, scoring.metric_name(kind), value)
        for member, value in means.items()
        if value is not None
    ]
    measure = work.state.learner.measure
    if measure.name != scoring.metric_name(kind):
        log = log.labelled()
        labels = [label for label in log.labels if label is not None]
        rarer = metrics.counted(labels) if kind == "classification" else None
        for member, _, _ in tuple(found):
            answers, answered = log.answers[member], log.predicted[member]
            value = metrics.of_answers(labels, answers, answered, measure, rarer)
            found.append((member, measure.name, value))
    return [
        work.run.row(
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


def _threshold(work: UnitOfWork) -> list[Record]:
    """Say that the threshold of the served class has moved far since that was last said."""
    cut = work.state.learner.threshold
    moved = cut.moved() if cut is not None else None
    if cut is None or not moved:
        return []
    cut.told = cut.value
    work.run.display.log_event(work.state.position, "threshold", moved.because, "cyan")
    return [work.decision_row(moved)]


def _rejects(work: UnitOfWork, batch: Batch) -> list[Record]:
    room = RAW_PER_BATCH // max(1, len(batch.rejects))
    return [
        work.run.row(
            RejectRecord,
            position=each.position,
            kind=each.kind,
            reason=each.reason,
            raw=each.raw[:room],
        )
        for each in batch.rejects
    ]


def _intake(work: UnitOfWork, batch: Batch) -> list[Record]:
    """Keep how well the batch fitted, and say it aloud where more than usual of it did not."""
    intake = work.state.intake
    decision = intake_health.describe(batch, work.run.file.pipeline.stream)
    intake.records, intake.rejected = batch.last - batch.first, len(batch.rejects)
    intake.in_a_row = intake_health.in_a_row(batch, intake.in_a_row)
    intake.rejects = intake.rejects.plus(each.position for each in batch.rejects).newest(
        MOST_RANGES
    )
    intake.stopped_at, intake.because, intake.remedy = None, "", ""
    if decision is None:
        return []
    intake.because, intake.remedy = decision.because, str(decision.facts["remedy"])
    work.run.display.log_event(work.state.position, "rejected", decision.because, "red")
    return [work.decision_row(decision)]


def _noticed(work: UnitOfWork, batch: Batch) -> list[Record]:
    """Count what is unusual and costs no record, and tell of it when it comes first."""
    known = work.state.intake.notices
    rows: list[Record] = []
    for notice in batch.notices:
        seen = known.get((notice.kind, notice.column))
        if seen is not None:
            seen.count += notice.count
            continue
        known[notice.kind, notice.column] = ReportedNotices(
            notice.position, notice.count, notice.example
        )
        decision = intake_health.noticed(notice)
        work.run.display.log_event(notice.position, "noticed", decision.because, "yellow")
        rows.append(work.decision_row(decision))
    return rows


def _revived(work: UnitOfWork) -> list[Record]:
    """Begin the online member anew where its answers are not finite, and say so."""
    state, pipeline = work.state, work.run.file.pipeline
    reset = learning_health.must_be_reset(pipeline.online.recipe, state.learner.online.silent)
    if not reset:
        return []
    state.learner.online = online_model.build(pipeline.online, state.schema, work.run.file.folder)
    work.run.display.log_event(state.position, "revived", reset.because, "red")
    return [work.decision_row(reset)]
