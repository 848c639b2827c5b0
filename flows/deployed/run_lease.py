"""Only one run of each kind works on a pipeline; what a killed run left is found here.

A lease is a lock of the operating system, which is released with its process, and a small file that
says which run holds it. A run that ends removes the file. So a file whose lock is free belongs to a
run that was killed, or to one that waits to come back. Prefect's heartbeats and concurrency limits
cannot do this (docs/architecture.md says what was tried).
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from observability.core import atomic_file, file_lock
from observability.core.errors import TryAgainLater
from observability.core.paths import PipelinePlaces

RunKind = Literal["learn", "watch", "retrain"]
KINDS: tuple[RunKind, ...] = ("learn", "watch", "retrain")


class AlreadyLeased(TryAgainLater):
    """Another run does this work for this pipeline."""


@dataclass(frozen=True)
class RunLease:
    """Which run has the work, and since when."""

    kind: RunKind
    run_id: str
    """Prefect's id of the flow run."""
    since_s: float
    """Seconds since 1970."""
    host: str
    pid: int
    back_at_s: float | None = None
    """When a run without a process comes back, in seconds since 1970; None while it works."""


class HeldLease:
    """A lease that this process holds."""

    def __init__(self, lease: RunLease, before: RunLease | None) -> None:
        self.lease = lease
        self.before = before
        """What an earlier run left: it was killed, or it waits."""
        self.leaves: RunLease | None = None
        """What stays in the file when the lease is released."""

    def wait_until(self, back_at_s: float) -> None:
        """Keep the work for this run, which comes back at `back_at_s` in another process."""
        self.leaves = replace(self.lease, back_at_s=back_at_s)

    def give_back(self) -> None:
        """Leave the work to the run that waited for it before."""
        self.leaves = self.before


@contextmanager
def held(places: PipelinePlaces, kind: RunKind, run_id: str) -> Iterator[HeldLease]:
    """Hold the lease inside the block. Raises AlreadyLeased where another process has it."""
    places.run_leases.mkdir(parents=True, exist_ok=True)
    with _locked(places, kind) as path:
        mine = RunLease(kind, run_id, time.time(), socket.gethostname(), os.getpid())
        holding = HeldLease(mine, _read(path))
        _write(path, mine)
        try:
            yield holding
        finally:
            _write(path, holding.leaves)


def find_orphan(places: PipelinePlaces, kind: RunKind) -> RunLease | None:
    """What a run left that has no process now; None where one works, or nothing was left."""
    if not (places.run_leases / f"{kind}.json").exists():
        return None
    try:
        with _locked(places, kind) as path:
            return _read(path)
    except AlreadyLeased:
        return None


def clear(places: PipelinePlaces, lease: RunLease) -> None:
    """Remove a lease that was left, unless another run has the work by now."""
    try:
        with _locked(places, lease.kind) as path:
            if _read(path) == lease:
                _write(path, None)
    except AlreadyLeased:
        return


def busy(places: PipelinePlaces, kind: RunKind) -> bool:
    """Whether a process does this work now."""
    if not places.run_leases.is_dir():
        return False
    try:
        with _locked(places, kind):
            return False
    except AlreadyLeased:
        return True


@contextmanager
def _locked(places: PipelinePlaces, kind: RunKind) -> Iterator[Path]:
    try:
        # `busy` and `find_orphan` take it for a moment.
        lock = file_lock.acquire(places.run_leases / f"{kind}.lock", wait_s=1.0)
    except file_lock.LockBusy as error:
        raise AlreadyLeased(
            f"another run does this work: {kind} of pipeline {places.name}"
        ) from error
    try:
        yield places.run_leases / f"{kind}.json"
    finally:
        lock.release()


def _read(path: Path) -> RunLease | None:
    try:
        return RunLease(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        # An unreadable file names no run; the lock alone keeps two runs apart.
        return None


def _write(path: Path, lease: RunLease | None) -> None:
    if lease is None:
        path.unlink(missing_ok=True)
    else:
        atomic_file.write(path, json.dumps(asdict(lease)).encode())
