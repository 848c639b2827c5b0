"""Learn what is new, in shifts: between two batches, whoever waits for the pipeline gets it.

The state is on disk after every batch, so to step aside costs what it costs to open the pipeline
again, and nothing that was learned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flows.config.overrides import over
from flows.config.pipeline import PipelineFile
from flows.learning import drift_check, learn_batch
from flows.loop import local_loop
from flows.run import run_queue, run_record
from flows.run.progress import Display
from flows.run.run_record import Ended
from flows.run.session import Session
from flows.run.shutdown import Stop
from models.core import scoring
from observability.history.records import RunRecord
from power.core.gate_config import GateLimits


@dataclass(frozen=True)
class Shift:
    """What learning brought until it ended, or stepped aside."""

    outcome: str
    """finished, limit, look, stopped or aside."""
    position: int
    records: int
    score: str
    """How the served prediction does, over all that was learned."""
    look_due: bool
    """Whether it is time to look for drift."""
    trouble: str
    """Why the history could not take the rows in yet; empty where it did."""


def learned(
    file: PipelineFile,
    home: Path,
    run_id: str,
    stop: Stop,
    display: Display,
    limit: int | None,
    to_look: bool,
) -> Shift:
    """Learn to the stream's end, up to `limit` records, a look that is due, or a signal.

    Raises AlreadyRunning where the pipeline is not to be had, and what `session.opened` raises.
    """
    # Learning asks nothing of the devices, so none is opened.
    file = over(file, gate=GateLimits(source="off"))
    done = 0
    while True:
        left = None if limit is None else limit - done
        with run_queue.taken(file, home, stop, display, left) as session:
            session.run_id = run_id
            shift = _shift(session, to_look, lambda: run_queue.wanted(session.places))
        done += shift.records
        if shift.outcome != "aside":
            return replace(shift, records=done)


def _shift(session: Session, to_look: bool, wanted: Callable[[], bool]) -> Shift:
    # Joins the first batch's commit: a run that learns nothing leaves no row.
    session.asides.append(run_record.run_record(session, "started"))
    session.adopt_champion()
    try:
        outcome = _go_on(session, to_look, wanted)
    except learn_batch.IntakeStopped as stopped:
        # A run that met it again, and learned nothing, leaves no row.
        if not any(isinstance(each, RunRecord) for each in session.asides):
            local_loop.end_ill(session, stopped)
        raise
    if session.records:
        ended = Ended("stopped" if outcome == "stopped" else "finished", _because(outcome))
        session.tell_warnings("a library", None)
        session.commit([run_record.run_record(session, "ended", ended)])
        session.fold()
        session.settle()
    state = session.state
    served = state.learner.tallies["served"].mean
    name = scoring.metric(state.schema.task)
    return Shift(
        outcome,
        state.position,
        session.records,
        "" if served is None else f"{name} {served:.4g}",
        drift_check.due(session),
        session.history_trouble,
    )


def _go_on(session: Session, to_look: bool, wanted: Callable[[], bool]) -> str:
    while True:
        if session.stop():
            return "stopped"
        if session.limit is not None and session.records >= session.limit:
            return "limit"
        if to_look and learn_batch.aligned(session) and drift_check.due(session):
            return "look"
        if session.records and wanted():
            return "aside"
        if learn_batch.learn(session).ended:
            return "finished"


def _because(outcome: str) -> str:
    return {
        "finished": "the stream has no more records yet",
        "limit": "it went through the records that it was to go through",
        "look": "it is time to look for drift",
        "stopped": "a signal asked for it",
        "aside": "another run waited for the pipeline",
    }[outcome]


def told(shift: Shift) -> str:
    """How it went, in a sentence."""
    if not shift.records:
        return f"nothing new: at position {shift.position} {_because(shift.outcome)}"
    trouble = f"; the history's rows wait: {shift.trouble}" if shift.trouble else ""
    return (
        f"learned {shift.records} records up to position {shift.position} ({shift.score}); "
        f"{_because(shift.outcome)}{trouble}"
    )
