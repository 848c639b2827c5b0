"""Open a pipeline for one run: lock it, load or begin its state, apply pending effects."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows.config.pipeline import PipelineFile
from flows.run import bootstrap
from flows.run.context import RunContext
from flows.run.power_source import PowerSource
from flows.run.progress import Display
from flows.run.shutdown import Stop
from flows.run.unit_of_work import UnitOfWork
from models.core import library_warnings
from models.persistence.signing import SigningKey
from models.prediction_log import prediction_log
from models.registry.registry import Registry
from observability.core import atomic_file, file_lock
from observability.core.errors import TryAgainLater
from observability.core.paths import PipelinePlaces, Places
from observability.history.store import History


class AlreadyRunning(TryAgainLater):
    """Another process runs this pipeline."""


@contextmanager
def opened(
    file: PipelineFile,
    home: Path,
    stop: Stop,
    display: Display,
    limit: int | None = None,
    power: PowerSource | None = None,
    wait_s: float = 1.0,
    run_id: str | None = None,
) -> Iterator[UnitOfWork]:
    """Lock the pipeline inside the block, and yield its unit of work.

    `power` is a source that outlives the block; None: one is opened for it. Waits up to `wait_s`
    seconds for a run that has the pipeline. Raises AlreadyRunning, BadConfiguration,
    StreamChanged, CheckpointUnusable and what the history and the signing key raise.
    """
    # Rejects hold raw data: only the user may read a home that is created here.
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    home_places = Places(home)
    places = home_places.pipeline(file.name)
    places.root.mkdir(parents=True, exist_ok=True)
    with locked(places, wait_s), ExitStack() as stack:
        if power is None:
            power = stack.enter_context(PowerSource.opened(file, home_places))
        key = SigningKey.open(home_places.key)
        state, stream = bootstrap.state_and_stream(file, places, key)
        for folder in (places.root, places.reports):
            atomic_file.remove_temporary_files(folder)
        prediction_log.sweep(places.predictions, state.position)
        run = RunContext(
            file=file,
            home=home_places,
            places=places,
            signing_key=key,
            registry=Registry(places, key),
            history=History(home),
            stream=stream,
            power=power,
            stop=stop,
            display=display,
            limit=limit,
            run_id=run_id or secrets.token_hex(6),
        )
        work = UnitOfWork(run, state)
        try:
            work.replay_pending()
            work.add_rows(work.decision_row(each) for each in power.take_restored())
            with library_warnings.collect(work.statistics.warned):
                yield work
        finally:
            work.close()


@contextmanager
def locked(places: PipelinePlaces, wait_s: float = 1.0) -> Iterator[None]:
    """Hold the pipeline by an OS lock, which ends with its process. Raises AlreadyRunning."""
    try:
        # `status` takes it for a moment.
        lock = file_lock.acquire(places.lock, wait_s)
    except file_lock.LockBusy as error:
        raise AlreadyRunning(
            f"pipeline {places.name} is being run by another process, which holds {places.lock}; "
            "wait for it to end, or stop it"
        ) from error
    try:
        yield
    finally:
        lock.release()
