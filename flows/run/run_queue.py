"""Whose turn a pipeline is, when several runs want it: long work steps aside for short work.

A pipeline belongs to one process at a time. On a server its learning, its looks and its retrains
are processes of their own, and learning may go on for minutes. So whoever waits for the pipeline
holds the turn meanwhile, and learning asks between two batches whether somebody does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows.config.pipeline import PipelineFile
from flows.run.power_source import PowerSource
from flows.run.progress import Display
from flows.run.session import AlreadyRunning, Session, opened
from flows.run.shutdown import Stop
from observability.core import file_lock
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
) -> Iterator[Session]:
    """The pipeline, opened, once it is ours.

    Waits up to `wait_s` seconds in the queue, and as long again at its head; raises AlreadyRunning
    after that, and what `session.opened` raises. `power` is as there.
    """
    places = Places(home).pipeline(file.name)
    places.root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            with file_lock.held(places.turn, wait_s):
                session = stack.enter_context(
                    opened(file, home, stop, display, limit, power, wait_s)
                )
        except file_lock.LockBusy as error:
            raise AlreadyRunning(
                f"{wait_s:g} s were not enough to get a turn at pipeline {file.name}: others wait "
                "for it too; what is wanted stays wanted and is taken up by the next run"
            ) from error
        yield session


def wanted(places: PipelinePlaces) -> bool:
    """Whether somebody waits for the pipeline."""
    return file_lock.is_held(places.turn)
