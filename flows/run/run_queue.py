"""The queue of runs that wait for a pipeline: long work lets short work go first.

A pipeline belongs to one process at a time. On a server, learning, drift checks and retrains are
processes of their own, and learning may go on for minutes. So a run that waits for the pipeline
holds a second lock meanwhile, and learning checks between two batches whether that is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows.config.pipeline import PipelineFile
from flows.run.power_source import PowerSource
from flows.run.progress import Display
from flows.run.session import AlreadyRunning, opened
from flows.run.shutdown import Stop
from flows.run.unit_of_work import UnitOfWork
from observability.core import file_lock
from observability.core.paths import PipelinePlaces, Places


@contextmanager
def acquire(
    file: PipelineFile,
    home: Path,
    stop: Stop,
    display: Display,
    limit: int | None = None,
    wait_s: float = 60.0,
    power: PowerSource | None = None,
    run_id: str | None = None,
) -> Iterator[UnitOfWork]:
    """Open the pipeline once no other run has it.

    Waits up to `wait_s` seconds in the queue, and as long again at its head; raises AlreadyRunning
    after that, and what `session.opened` raises. `power` and `run_id` are as there.
    """
    places = Places(home).pipeline(file.name)
    places.root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            with file_lock.held(places.queue_lock, wait_s):
                work = stack.enter_context(
                    opened(file, home, stop, display, limit, power, wait_s, run_id)
                )
        except file_lock.LockBusy as error:
            raise AlreadyRunning(
                f"pipeline {file.name} was not free within {wait_s:g} s: other runs wait for it "
                "too; an open request stays open, and the next run takes it up"
            ) from error
        yield work


def has_waiters(places: PipelinePlaces) -> bool:
    """Whether a run waits for the pipeline."""
    return file_lock.is_held(places.queue_lock)
