"""Learning by a deployed run: between two batches it releases the pipeline to a run that waits.

The state is on disk after every batch, so releasing the pipeline loses nothing that was learned and
costs only the time to open it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flows.config.overrides import over
from flows.config.pipeline import PipelineFile
from flows.learning import drift_check, learn_stream, unlabelled_check
from flows.learning.learn_stream import End
from flows.run import run_queue, run_record
from flows.run.progress import Display
from flows.run.shutdown import Stop
from power.core.gate_config import GateConfig


@dataclass(frozen=True)
class LearnResult:
    """What a run has learned, and why it ended."""

    outcome: End
    position: int
    records: int
    drift_check_due: bool
    because: str


def run_learn(
    file: PipelineFile,
    home: Path,
    run_id: str,
    stop: Stop,
    display: Display,
    limit: int | None,
    stop_for_drift_check: bool,
) -> LearnResult:
    """Learn to the stream's end, up to `limit` records, a drift check that is due, or a signal.

    Raises AlreadyRunning where another run keeps the pipeline, and what `session.opened` raises.
    """
    # Learning asks nothing of the devices, so none is opened.
    file = over(file, gate=GateConfig(source="off"))
    done = 0
    while True:
        left = None if limit is None else limit - done
        with run_queue.acquire(file, home, stop, display, left, run_id=run_id) as work:
            # Joins the first batch's commit: a run that learns nothing leaves no row.
            work.add_rows([run_record.run_record(work, "started")])
            end = learn_stream.until(
                work,
                lambda: stop_for_drift_check and drift_check.due(work),
                lambda: run_queue.has_waiters(work.run.places),
            )
            ended = learn_stream.run_end(work, end)
            looked = unlabelled_check.look(work) if end == "finished" else None
            if work.records or looked is not None:
                run_record.end(work, ended)
        done += work.records
        if end == "yielded":
            continue
        position, because = work.state.position, ended.because
        if done:
            because = (
                f"learned {done} records up to position {position} ({learn_stream.score(work)}); "
                + because
            )
        if done and work.history_trouble:
            because += f"; the history's rows wait: {work.history_trouble}"
        if done and work.metrics_trouble:
            because += f"; {work.metrics_trouble}"
        return LearnResult(end, position, done, bool(drift_check.due(work)), because)
