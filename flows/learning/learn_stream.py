"""Learn batch after batch, until something ends it. The local loop and deployed runs call this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from flows.learning import learn_batch
from flows.run import run_record
from flows.run.run_record import RunEnd
from flows.run.unit_of_work import UnitOfWork
from models.core import scoring
from observability.history.records import RunRecord

End = Literal["finished", "limit", "due", "stopped", "yielded"]
"""The stream's end, the limit, other work that is due, a signal, or another run that waits."""


def until(
    work: UnitOfWork,
    due: Callable[[], object] = lambda: False,
    has_waiters: Callable[[], bool] = lambda: False,
) -> End:
    """Learn what is new; returns what ended it.

    `due` says whether other work is due; it is called between batches, where the stream is aligned.
    `has_waiters` says whether another run waits for the pipeline; it is called from the second
    batch on. Raises IntakeStopped before a stream of another shape, after recording the run's end.
    """
    work.sync_champion()
    try:
        while True:
            if work.run.stop():
                return "stopped"
            if work.run.limit is not None and work.records >= work.run.limit:
                return "limit"
            if learn_batch.aligned(work) and due():
                return "due"
            if work.records and has_waiters():
                return "yielded"
            ended = learn_batch.learn(work).ended
            learning_s = work.statistics.learning_s
            work.run.display.at(
                work.state.position,
                work.run.stream.done_fraction(work.state.cursor),
                work.records / learning_s if learning_s else 0.0,
                score(work),
            )
            if ended:
                return "finished"
    except learn_batch.IntakeStopped as stopped:
        # A run that meets the same shape again, and has learned nothing, leaves no row.
        if not any(isinstance(each, RunRecord) for each in work.pending_rows):
            run_record.end(work, RunEnd("schema_mismatch", stopped.because))
        raise


def run_end(work: UnitOfWork, end: End) -> RunEnd:
    """How the run ended, for its row in the history."""
    position = work.state.position
    if end == "stopped":
        return RunEnd("stopped", f"a signal stopped it at position {position}")
    if end == "limit":
        return RunEnd("limit_reached", f"its limit of records is reached at position {position}")
    if end == "due":
        return RunEnd("finished", f"a drift check is due at position {position}")
    if end == "yielded":
        return RunEnd("finished", f"another run waits for the pipeline at position {position}")
    if not work.records:
        return RunEnd("finished", f"nothing new: the stream was finished at position {position}")
    return RunEnd("finished", f"the stream ends at position {position}")


def score(work: UnitOfWork) -> str:
    """The score of the served prediction over all that was learned; empty where nothing was."""
    served = work.state.learner.tallies["served"].mean
    return "" if served is None else f"{scoring.metric_name(work.state.schema.task)} {served:.4g}"
