"""Learn what is new, in shifts: between two batches, whoever waits for the pipeline gets it.

The state is on disk after every batch, so to step aside costs what it costs to open the pipeline
again, and nothing that was learned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from flows.config.overrides import over
from flows.config.pipeline import PipelineFile
from flows.learning import drift_check, learn_stream
from flows.learning.learn_stream import End
from flows.run import run_queue, run_record
from flows.run.progress import Display
from flows.run.run_record import RunEnd
from flows.run.shutdown import Stop
from flows.run.unit_of_work import UnitOfWork
from power.core.gate_config import GateConfig


@dataclass(frozen=True)
class LearnResult:
    """What learning brought until it ended, or stepped aside."""

    outcome: End
    position: int
    records: int
    score: str
    """How the served prediction does, over all that was learned."""
    look_due: bool
    """Whether it is time to look for drift."""
    trouble: str
    """Why the history could not take the rows in yet; empty where it did."""


def run_learn(
    file: PipelineFile,
    home: Path,
    run_id: str,
    stop: Stop,
    display: Display,
    limit: int | None,
    to_look: bool,
) -> LearnResult:
    """Learn to the stream's end, up to `limit` records, a look that is due, or a signal.

    Raises AlreadyRunning where the pipeline is not to be had, and what `session.opened` raises.
    """
    # Learning asks nothing of the devices, so none is opened.
    file = over(file, gate=GateConfig(source="off"))
    done = 0
    while True:
        left = None if limit is None else limit - done
        with run_queue.acquire(file, home, stop, display, left, run_id=run_id) as work:
            shift = _shift(work, to_look)
        done += shift.records
        if shift.outcome != "aside":
            return replace(shift, records=done)


def _shift(work: UnitOfWork, to_look: bool) -> LearnResult:
    # Joins the first batch's commit: a run that learns nothing leaves no row.
    work.add_rows([run_record.run_record(work, "started")])
    end = learn_stream.until(
        work,
        lambda: to_look and drift_check.due(work),
        lambda: run_queue.has_waiters(work.run.places),
    )
    if work.records:
        run_record.end(work, RunEnd("stopped" if end == "stopped" else "finished", _because(end)))
    return LearnResult(
        end,
        work.state.position,
        work.records,
        learn_stream.score(work),
        bool(drift_check.due(work)),
        work.history_trouble,
    )


def _because(end: End) -> str:
    return {
        "finished": "the stream has no more records yet",
        "limit": "it went through the records that it was to go through",
        "due": "it is time to look for drift",
        "stopped": "a signal asked for it",
        "aside": "another run waited for the pipeline",
    }[end]


def describe(shift: LearnResult) -> str:
    """How it went, in a sentence."""
    if not shift.records:
        return f"nothing new: at position {shift.position} {_because(shift.outcome)}"
    trouble = f"; the history's rows wait: {shift.trouble}" if shift.trouble else ""
    return (
        f"learned {shift.records} records up to position {shift.position} ({shift.score}); "
        f"{_because(shift.outcome)}{trouble}"
    )
