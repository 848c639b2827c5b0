"""Read rejected records again by a corrected pipeline file: those that fit now are brought back.

Each is predicted, learned if it has a label, and logged at its position, once: the checkpoint knows
which positions are rejects, and one that was brought back is none any more. It owes the log and the
history what was predicted, as it owes them everything. What is brought back is learned now, after
the records that came meanwhile, and by the models of now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
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
from models.core.position_ranges import PositionRanges
from models.online.learner import PredictionRows, RecordRefused
from models.stream import intake_health
from models.stream.source import Batch, Cursor, Records
from observability.core import cli_output
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from observability.history.records import ReplayRecord
from power.core.gate_config import GateConfig

MARKS_AT_ONCE = 10
"""Stretches between two marks (a batch, in a stream of up to 4,096 batches) that are one commit."""


class RecordsMoved(BadConfiguration):
    """Read by the corrected file, the records of the stream lie elsewhere than they did."""


@dataclass
class _ReplayProgress:
    """What became of the rejects that were read again."""

    rejects: int
    """That there were."""
    fitted: int = 0
    learned: int = 0
    refused: list[int] = field(default_factory=list)
    """Positions of those that fit, and on which the online model raised."""
    stopped: bool = False


def replay(path: Path, home: Path, stop: Stop) -> dict[str, Any]:
    """Try all rejects of a pipeline again; how it went.

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
        tried = _ReplayProgress(len(work.state.intake.rejects))
        if tried.rejects:
            _try_all(work, tried)
        return _document(work, tried)


def _try_all(work: UnitOfWork, tried: _ReplayProgress) -> None:
    work.commit([run_record.run_record(work, "started")])
    work.sync_champion()
    with work.run.display.doing("replaying"):
        for left, right in _stretches(work):
            if work.run.stop():
                tried.stopped = True
                break
            _try(work, left, right, tried)
            done = work.state.intake.rejects.between(0, right.position)
            behind = tried.fitted + len(done)
            work.run.display.at(right.position, behind / tried.rejects, 0.0, "")
    _look_at_the_last_batch(work)
    told = f"{tried.fitted} of {tried.rejects} rejects fitted when they were read again"
    run_record.end(work, RunEnd("stopped" if tried.stopped else "finished", told))


def _stretches(work: UnitOfWork) -> Iterator[tuple[Cursor, Cursor]]:
    """From mark to mark through all that was consumed: the same ones whatever is replayed yet."""
    marks = [*work.state.marks, work.state.cursor]
    edges = [*marks[:-1:MARKS_AT_ONCE], marks[-1]]
    if edges[0].position > 0:
        edges.insert(0, Cursor())
    yield from pairwise(edges)


def _try(work: UnitOfWork, left: Cursor, right: Cursor, tried: _ReplayProgress) -> None:
    wanted = work.state.intake.rejects.between(left.position, right.position)
    if not wanted:
        return
    batch = work.run.stream.between(left.position, right.position, work.state.marks)
    if not _reaches(work, batch, right):
        raise RecordsMoved(
            f"{work.run.file.path}: read by this file, the records {left.position} to "
            f"{right.position - 1} of the stream lie elsewhere than when they were consumed: "
            "nothing of them is brought back. Undo what changes where a record ends (encoding, "
            "delimiter, format), or start a pipeline under another name"
        )
    for records, by_champion in _parts(work, batch, wanted):
        _bring_back(work, records, by_champion, tried)
        if tried.stopped:
            return


def _reaches(work: UnitOfWork, batch: Batch, right: Cursor) -> bool:
    """Whether a stretch ends where it did, but for blank lines, which are no records."""
    if batch.last != right.position:
        return False
    if batch.after.offset == right.offset:
        return True
    ahead = [work.run.stream.read(cursor, 1).after for cursor in (batch.after, right)]
    return (ahead[0].position, ahead[0].offset) == (ahead[1].position, ahead[1].offset)


def _parts(
    work: UnitOfWork, batch: Batch, wanted: PositionRanges
) -> Iterator[tuple[Records, bool]]:
    """The rejects that fit now, and whether the champion may answer them: not where it was made
    from rows of their positions.

    A window that was read after the correction had them: the champion knows their labels.
    """
    champion = work.state.champion
    made = range(0)
    if champion is not None:
        manifest = work.run.registry.manifest(champion)
        made = range(manifest.train_from, manifest.holdout_to)
    places = set(wanted)
    fit = [index for index, place in enumerate(batch.positions) if place in places]
    for known, indexes in groupby(fit, key=lambda index: batch.positions[index] in made):
        yield batch.take(list(indexes)), champion is not None and not known


def _bring_back(
    work: UnitOfWork, records: Records, by_champion: bool, tried: _ReplayProgress
) -> None:
    """Learn records; one on which the model raises stays a reject, and those around it do not.

    As in learning, a model that raises is put back, and goes only up to that record.
    """
    while records.positions:
        try:
            log, end = _learned(work, records, by_champion), len(records.positions)
        except RecordRefused as error:
            work.rollback()
            end = error.index
            tried.refused.append(records.positions[end])
            log = _learned(work, records.slice(0, end), by_champion)
        if len(log):
            _keep(work, records.slice(0, len(log)), by_champion, log)
            tried.fitted += len(log)
            tried.learned += log.learned
        if len(log) < end:
            tried.stopped = True
            return
        records = records.slice(end + 1)


def _learned(work: UnitOfWork, records: Records, by_champion: bool) -> PredictionRows:
    answers, silent = None, None
    if by_champion:
        answers, silent = learn_batch.champion_predictions(work, records)
    log = work.state.learner.learn(records.rows, records.labels, answers, work.run.stop)
    if silent is not None:
        work.add_rows([work.decision_row(silent)])
    return log


def _keep(work: UnitOfWork, records: Records, by_champion: bool, log: PredictionRows) -> None:
    """One durable step: models, counts and the set of rejects; the log and the history are owed."""
    state, totals = work.state, work.state.totals
    state.new_rows += log.learned
    totals.learned += log.learned
    totals.unlabelled += len(log) - log.learned
    totals.rejected -= len(log)
    totals.replayed += len(log)
    state.intake.rejects = state.intake.rejects.minus(records.positions)
    version = state.champion if by_champion else None
    # Whole answers are for the scores of a batch; the log on disk does not have them.
    kept = replace(log, answers={})
    replayed = Replayed(tuple(records.positions), kept, (version,) * len(log))
    rows = [
        work.run.row(ReplayRecord, position=place, labelled=label is not None)
        for place, label in zip(records.positions, log.labels, strict=True)
    ]
    work.commit(rows, replayed=replayed)


def _look_at_the_last_batch(work: UnitOfWork) -> None:
    """Say no more that the last batch was ill, where its rejects are brought back."""
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


def _document(work: UnitOfWork, tried: _ReplayProgress) -> dict[str, Any]:
    return {
        "pipeline": work.run.name,
        "outcome": "stopped" if tried.stopped else "finished",
        "rejects": tried.rejects,
        "fitted": tried.fitted,
        "learned": tried.learned,
        "unlabelled": tried.fitted - tried.learned,
        "still_rejected": len(work.state.intake.rejects),
        "refused_by_the_model": tried.refused,
        "logged_nowhere": work.statistics.logged_nowhere,
        "rejected_in_all": work.state.totals.rejected,
        "replayed_in_all": work.state.totals.replayed,
        "history_trouble": work.history_trouble or None,
    }


def render(document: dict[str, Any]) -> None:
    """Print how it went, for people."""
    out = cli_output.stdout()
    if not document["rejects"]:
        out.print(f"{document['pipeline']}: there are no rejects that could be read again")
    else:
        out.print(
            f"{document['pipeline']}: {document['outcome']}; {document['fitted']:,} of "
            f"{document['rejects']:,} rejects fit now: {document['learned']:,} were learned, "
            f"{document['unlabelled']:,} have no label and were predicted alone; "
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
