"""Whose turn a pipeline is, when several runs want it: long work steps aside for short work.

A pipeline belongs to one process at a time. On a server its learning, its looks and its retrains
are processes of their own, and learning may go on for minutes. So whoever waits for the pipeline
holds the turn meanwhile, and learning asks between two batches whether somebody does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flows.config.pipeline import PipelineFile
from flows.run.power_source import PowerSource
from flows.run.progress import Display
from flows.run.session import AlreadyRunning, opened
from flows.run.shutdown import Stop
from flows.run.unit_of_work import UnitOfWork
from observability.core.paths import PipelinePlaces, Places


@contextmanager
def taken(
    file: PipelineFile,
    home: Path,
    stop: Stop,
    display: Display,
    limit: int | None = None,
    wait_s: float = 60.0,
    power: PowerSource | None = None,
    run_id: str | None = None,
) -> Iterator[UnitOfWork]:
    """The pipeline, opened, once it is ours.

    Waits up to `wait_s` seconds in the queue, and as long again at its head; raises AlreadyRunning
    after that, and what `session.opened` raises. `power` and `run_id` are as there.
    """
    places = Places(home).pipeline(file.name)
    places.root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            with FileLock(places.turn, timeout=wait_s):
                work = stack.enter_context(
                    opened(file, home, stop, display, limit, power, wait_s, run_id)
                )
        except Timeout as error:
            raise AlreadyRunning(
                f"{wait_s:g} s were not enough to get a turn at pipeline {file.name}: others wait "
                "for it too; what is wanted stays wanted and is taken up by the next run"
            ) from error
        yield work


def wanted(places: PipelinePlaces) -> bool:
    """Whether somebody waits for the pipeline."""
    try:
        with FileLock(places.turn, timeout=0):
            return False
    except Timeout:
        return True
