"""The whole loop on one machine: learn a batch, look at the world, retrain when it is worth it.

Reads like the picture in docs/architecture.md. What happens at a position depends only on the
checkpoint and the stream, so a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from prefect import flow

from flows.config import pipeline
from flows.learning import drift_check, learn_batch
from flows.loop import summary
from flows.retraining import retrain
from flows.run.progress import Display
from flows.run.run_record import Ended, run_record
from flows.run.session import Session, opened
from flows.run.shutdown import Stop, StopRequested
from models.core import scoring


@flow(name="thermodrift-run", persist_result=False)
def cycle(pipeline_file: Path, home: Path, limit: int | None = None) -> dict[str, Any]:
    """Run a pipeline from its checkpoint to the end of the stream, a limit, or a signal.

    Returns the summary. Raises what `session.opened` and the models raise.
    """
    file = pipeline.read(pipeline_file)
    stop = Stop()
    with (
        stop.listening(),
        Display(file.name) as display,
        opened(file, home, stop, display, limit) as session,
    ):
        session.commit([run_record(session, "started")])
        try:
            ended = _ended(session)
        except learn_batch.IntakeStopped as stopped:
            end_ill(session, stopped)
            raise
        except Exception as error:
            _note_failure(session, error)
            raise
        session.tell_warnings("a library", None)
        session.commit([run_record(session, "ended", ended)])
        session.fold()
        session.settle()
        return summary.of(session, ended.outcome, ended.because)


def _ended(session: Session) -> Ended:
    try:
        return _loop(session)
    except StopRequested:
        # A fit or a report was broken off: nothing of it was kept, and it is still owed.
        session.restore()
        return _stopped(session)


def _loop(session: Session) -> Ended:
    stream_ended = False
    while True:
        if learn_batch.aligned(session) or stream_ended:
            _look(session)
        if session.stop():
            return _stopped(session)
        if stream_ended:
            return _finished(session)
        if session.limit is not None and session.records >= session.limit:
            return Ended(
                "limit_reached", f"went through the {session.limit} records that were asked for"
            )
        stream_ended = learn_batch.learn(session).ended
        _show(session)


def _look(session: Session) -> None:
    session.settle()
    if drift_check.due(session):
        drift_check.watch(session)
    if retrain.due(session):
        retrain.retrain(session)
    session.fold()


def _finished(session: Session) -> Ended:
    position = session.state.position
    if session.records == 0:
        return Ended("finished", f"nothing new: the stream was finished at position {position}")
    return Ended("finished", f"the stream ends at position {position}")


def _stopped(session: Session) -> Ended:
    return Ended("stopped", f"a signal asked for it at position {session.state.position}")


def _show(session: Session) -> None:
    state = session.state
    served = state.learner.tallies["served"].mean
    name = scoring.metric(state.schema.task)
    session.display.at(
        state.position,
        session.stream.done_fraction(state.cursor),
        session.records / session.learning_s if session.learning_s else 0.0,
        "" if served is None else f"{name} {served:.4g}",
    )


def end_ill(session: Session, stopped: learn_batch.IntakeStopped) -> None:
    """Write down that the run ended before a stream of another shape."""
    session.commit([run_record(session, "ended", Ended("schema_mismatch", stopped.because))])
    session.fold()
    session.settle()


def _note_failure(session: Session, error: Exception) -> None:
    """Tell history that the run failed; where even that fails, the run shows as having no end."""
    failed = run_record(session, "ended", Ended("failed", f"{type(error).__name__}: {error}"))
    with suppress(OSError):
        session.history.commit([failed], f"{session.name}.{session.run_id}.failed")
