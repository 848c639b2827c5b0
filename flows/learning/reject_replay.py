"""Read rejected records again with a corrected pipeline file, and replay those that fit now.

Each is predicted, learned if it has a label, and logged at its position, once: the checkpoint knows
which positions are rejects, and a replayed one is none any more. The rows of the log and of the
history are pending effects of the checkpoint. Replayed records are learned now, after the records
that came meanwhile, by the present models.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from flows.config import pipeline
from flows.config.overrides import over
from flows.learning import learn_batch
from flows.run import run_record
from flows.run.progress import Display
from flows.run.run_record import RunEnd
from flows.run.session import opened
from flows.run.shutdown import Stop
from flows.run.state import Replayed
from flows.run.unit_of_work import UnitOfWork
from models.online.online_model import RecordRefused
from models.online.prediction_rows import PredictionRows
from models.stream import intake_health
from models.stream.source import Batch, Cursor, Records
from observability.core import cli_output
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from observability.history.records import ReplayRecord
from power.core.gate_config import GateConfig

MARKS_AT_ONCE = 10
"""Spans between two marks (a batch, in a stream of up to 4,096 batches) that are one commit."""


class RecordsMoved(BadConfiguration):
    """With the corrected file, the records of the stream are at other places than before."""


@dataclass
class _ReplayProgress:
    """The results of the rejects that were read again."""

    rejects: int
    """Rejects before the replay."""
    fitted: int = 0
    learned: int = 0
    refused: list[int] = field(default_factory=list)
    """Positions of those that fit, but on which the online model raised."""
    stopped: bool = False


def replay(path: Path, home: Path, stop: Stop) -> dict[str, Any]:
    """Read all rejects of a pipeline again; returns the results.

    Raises AlreadyRunning while the pipeline runs, RecordsMoved, BadConfiguration, and what
    `session.opened` raises.
    """
    # Replaying asks nothing of the devices, so none is opened.
    file = over(pipeline.read(path), gate=GateConfig(source="off"))
    if not Places(home).pipeline(file.name).checkpoint.exists():
        raise BadConfiguration(
            f"pipeline {file.name} has not run in {home} yet: it has no rejects; run it, or name "
            "its home (--home)"
        )
    with Display(file.name) as display, opened(file, home, stop, display) as work:
        progress = _ReplayProgress(len(work.state.intake.rejects))
        if progress.rejects:
            _replay_all(work, progress)
        return {
            "pipeline": work.run.name,
            "outcome": "stopped" if progress.stopped else "finished",
            "rejects": progress.rejects,
            "fitted": progress.fitted,
            "learned": progress.learned,
            "unlabelled": progress.fitted - progress.learned,
            "still_rejected": len(work.state.intake.rejects),
            "refused_by_the_model": progress.refused,
            "logged_nowhere": work.statistics.logged_nowhere,
            "rejected_in_all": work.state.totals.rejected,
            "replayed_in_all": work.state.totals.replayed,
            "history_trouble": work.history_trouble or None,
        }


def _replay_all(work: UnitOfWork, progress: _ReplayProgress) -> None:
    work.commit([run_record.run_record(work, "started")])
    work.sync_champion()
    with work.run.display.doing("replaying"):
        # From mark to mark through all that was consumed: the same spans in every replay.
        marks = work.state.cursors
        edges = [*marks[:-1:MARKS_AT_ONCE], marks[-1]]
        if edges[0].position > 0:
            edges.insert(0, Cursor())
        for left, right in pairwise(edges):
            if work.run.stop():
                progress.stopped = True
                break
            _replay_span(work, left, right, progress)
            left_over = len(work.state.intake.rejects.between(0, right.position))
            done = (progress.fitted + left_over) / progress.rejects
            work.run.display.at(right.position, done, 0.0, "")
    _update_intake(work)
    because = f"{progress.fitted} of {progress.rejects} rejects fitted when they were read again"
    run_record.end(work, RunEnd("stopped" if progress.stopped else "finished", because))


def _replay_span(work: UnitOfWork, left: Cursor, right: Cursor, progress: _ReplayProgress) -> None:
    wanted = work.state.intake.rejects.between(left.position, right.position)
    if not wanted:
        return
    batch = work.run.stream.between(left.position, right.position, work.state.cursors)
    if not _reaches(work, batch, right):
        raise RecordsMoved(
            f"{work.run.file.path}: with this file, the records {left.position} to "
            f"{right.position - 1} of the stream are at other places than when they were consumed: "
            "none of them is replayed. Undo what changes where a record ends (encoding, "
            "delimiter, format), or start a pipeline under another name"
        )
    champion = work.state.champion
    made_from = range(0)
    if champion is not None:
        # A window that was read after the correction had these records, so the champion knows their
        # labels: it does not predict them.
        manifest = work.run.registry.manifest(champion)
        made_from = range(manifest.train_from, manifest.holdout_to)
    rejected = set(wanted)
    fit = [index for index, position in enumerate(batch.positions) if position in rejected]
    for known, indexes in groupby(fit, key=lambda index: batch.positions[index] in made_from):
        by_champion = champion is not None and not known
        _replay_records(work, batch.take(list(indexes)), by_champion, progress)
        if progress.stopped:
            return


def _reaches(work: UnitOfWork, batch: Batch, right: Cursor) -> bool:
    """Whether a span ends where it did, apart from blank lines, which are no records."""
    if batch.last != right.position:
        return False
    if batch.after.offset == right.offset:
        return True
    ahead = [work.run.stream.read(cursor, 1).after for cursor in (batch.after, right)]
    return (ahead[0].position, ahead[0].offset) == (ahead[1].position, ahead[1].offset)


def _replay_records(
    work: UnitOfWork, records: Records, by_champion: bool, progress: _ReplayProgress
) -> None:
    """Learn records; one on which the model raises stays a reject, and the others do not.

    As in learning, a model that raises goes back to the checkpoint, and learns up to that record.
    """
    while records.positions:
        try:
            log, end = _learned(work, records, by_champion), len(records.positions)
        except RecordRefused as error:
            work.rollback()
            end = error.index
            progress.refused.append(records.positions[end])
            log = _learned(work, records.slice(0, end), by_champion)
        if len(log):
            _commit(work, records.slice(0, len(log)), by_champion, log)
            progress.fitted += len(log)
            progress.learned += log.learned
        if len(log) < end:
            progress.stopped = True
            return
        records = records.slice(end + 1)


def _learned(work: UnitOfWork, records: Records, by_champion: bool) -> PredictionRows:
    answers, failure = None, None
    if by_champion:
        answers, failure = learn_batch.champion_predictions(work, records)
    log = work.state.learner.learn(
        records.rows,
        records.labels,
        answers,
        work.run.stop,
        given=learn_batch.answered_then(work, records),
        champion=work.state.champion,
    )
    if failure is not None:
        work.add_rows([work.decision_row(failure)])
    return log


def _commit(work: UnitOfWork, records: Records, by_champion: bool, log: PredictionRows) -> None:
    """One commit: models, counts and the set of rejects; log and history are pending effects."""
    state, totals = work.state, work.state.totals
    state.new_rows += log.learned
    totals.learned += log.learned
    totals.unlabelled += len(log) - log.learned
    totals.rejected -= len(log)
    totals.replayed += len(log)
    state.intake.rejects = state.intake.rejects.minus(records.positions)
    versions = learn_batch.versions(work, records, state.champion if by_champion else None)
    learn_batch.count_answered(work, records, log)
    # The log on disk has no whole answers; those are only for the scores of a batch.
    replayed = Replayed(tuple(records.positions), log.without_wholes(), tuple(versions))
    rows = [
        work.run.row(ReplayRecord, position=place, labelled=label is not None)
        for place, label in zip(records.positions, log.labels, strict=True)
    ]
    work.commit(rows, replayed=replayed)


def _update_intake(work: UnitOfWork) -> None:
    """Clear the report of the last batch, where its rejects were replayed."""
    intake, position = work.state.intake, work.state.position
    left = intake.rejects.between(position - intake.records, position)
    intake.rejected = len(left)
    if intake.rejects.spans and intake.rejects.spans[-1][1] == position:
        first, last = intake.rejects.spans[-1]
        intake.in_a_row = min(intake.in_a_row, last - first)
    else:
        intake.in_a_row = 0
    options = work.run.file.pipeline.stream
    ill = intake_health.is_ill_share(intake.records, len(left), options)
    if intake.stopped_at is None and not ill:
        intake.because = intake.remedy = ""


def render(document: dict[str, Any]) -> None:
    """Print the results for people."""
    out = cli_output.stdout()
    if not document["rejects"]:
        out.print(f"{document['pipeline']}: there are no rejects that could be read again")
    else:
        out.print(
            f"{document['pipeline']}: {document['outcome']}; {document['fitted']:,} of "
            f"{document['rejects']:,} rejects fit now: {document['learned']:,} were learned, "
            f"{document['unlabelled']:,} have no label and were only predicted; "
            f"{document['still_rejected']:,} stay rejects",
            soft_wrap=True,
        )
    unknown = document["rejected_in_all"] - document["still_rejected"]
    if unknown:
        out.print(
            f"{unknown:,} older rejects cannot be read again: the checkpoint does not know their "
            "positions",
            soft_wrap=True,
        )
    if document["refused_by_the_model"]:
        out.print(
            f"the online model raised on {len(document['refused_by_the_model']):,} that fit",
            soft_wrap=True,
        )
    if document["logged_nowhere"]:
        out.print(
            f"{document['logged_nowhere']:,} predictions are in no log: the files of their "
            "positions are removed or damaged",
            soft_wrap=True,
        )
    if document["history_trouble"]:
        out.print(f"Trouble with the history: {document['history_trouble']}", soft_wrap=True)
