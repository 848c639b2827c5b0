"""The whole loop on one machine: learn a batch, check for drift, retrain when it is worth it.

docs/architecture.md shows it as a picture. What happens at a position depends only on the
checkpoint and the stream, so a run that was killed goes on with the same results.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.config import pipeline
from flows.learning import drift_check, learn_batch, learn_stream, unlabelled_check
from flows.learning.learn_stream import End
from flows.loop import summary
from flows.retraining import retrain
from flows.run import run_record
from flows.run.progress import Display
from flows.run.session import opened
from flows.run.shutdown import Stop, StopRequested


@flow(name="thermodrift-run", persist_result=False)
def run_loop(pipeline_file: Path, home: Path, limit: int | None = None) -> dict[str, Any]:
    """Run a pipeline from its checkpoint to the end of the stream, a limit, or a signal.

    Returns the summary. Raises what `session.opened` and the models raise.
    """
    file = pipeline.read(pipeline_file)
    stop = Stop()
    with (
        stop.listening(),
        Display(file.name) as display,
        opened(file, home, stop, display, limit) as work,
    ):
        work.commit([run_record.run_record(work, "started")])
        end: End = "due"
        try:
            # Work that is due where the last run ended comes first, and at the end of this one too.
            while True:
                if not stop() and (end == "finished" or learn_batch.aligned(work)):
                    if drift_check.due(work):
                        drift_check.check(work)
                    if retrain.due(work):
                        retrain.retrain(work)
                    work.flush()
                if end != "due":
                    break
                end = learn_stream.until(
                    work, lambda: drift_check.due(work) or retrain.unasked(work)
                )
            if end == "finished":
                unlabelled_check.look(work)
        except StopRequested:
            # A fit or a report was interrupted: nothing of it was kept, and it is done again.
            work.rollback()
            end = "stopped"
        except learn_batch.IntakeStopped:
            raise
        except Exception as error:
            run_record.end_failed(work, error)
            raise
        ended = learn_stream.run_end(work, end)
        run_record.end(work, ended)
        return summary.collect(work, ended.outcome, ended.because)
