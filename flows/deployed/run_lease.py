"""Whose a kind of work is: one run of each kind per pipeline, and what a killed one left behind.

A claim is a lock of the operating system, which dies with its process, and a small file that says
which run holds it. A run that ends removes the file; so a file whose lock is free belongs to a run
that was killed, or to one that waits to come back. Prefect's server knows neither: to it a killed
run runs for ever.
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

Kind = Literal["learn", "watch", "retrain"]
KINDS: tuple[Kind, ...] = ("learn", "watch", "retrain")


class Claimed(TryAgainLater):
    """Another run does this work for this pipeline."""


@dataclass(frozen=True)
class Claim:
    """Which run has the work, and since when."""

    kind: Kind
    run_id: str
    """Prefect's id of the flow run."""
    since_s: float
    """Seconds since 1970."""
    host: str
    pid: int
    back_at_s: float | None = None
    """When a run without a process comes back, in seconds since 1970; None while it works."""


class Held:
    """A claim in our hands."""

    def __init__(self, path: Path, claim: Claim, before: Claim | None) -> None:
        self._path = path
        self.claim = claim
        self.before = before
        """What an earlier run left: it was killed, or it waits."""
        self.leaves: Claim | None = None
        """What stays of it when we let go."""

    def wait_until(self, back_at_s: float) -> None:
        """Keep the work for this run, which comes back at `back_at_s` in a process of its own."""
        self.leaves = replace(self.claim, back_at_s=back_at_s)

    def give_back(self) -> None:
        """Leave the work to the run that waited for it before."""
        self.leaves = self.before


@contextmanager
def held(places: PipelinePlaces, kind: Kind, run_id: str) -> Iterator[Held]:
    """Hold the claim inside the block. Raises Claimed where another process has it."""
    places.claims.mkdir(parents=True, exist_ok=True)
    with _locked(places, kind):
        path = _path(places, kind)
        mine = Claim(kind, run_id, time.time(), socket.gethostname(), os.getpid())
        holding = Held(path, mine, _read(path))
        _write(path, mine)
        try:
            yield holding
        finally:
            _write(path, holding.leaves)


def left(places: PipelinePlaces, kind: Kind) -> Claim | None:
    """What a run of this kind left that is not there any more; None where one is, or nothing is."""
    if not _path(places, kind).exists():
        return None
    try:
        with _locked(places, kind):
            return _read(_path(places, kind))
    except Claimed:
        return None


def clear(places: PipelinePlaces, claim: Claim) -> None:
    """Forget a claim that was left, unless somebody has taken the work up since."""
    try:
        with _locked(places, claim.kind):
            if _read(_path(places, claim.kind)) == claim:
                _write(_path(places, claim.kind), None)
    except Claimed:
        return


def busy(places: PipelinePlaces, kind: Kind) -> bool:
    """Whether a process is at this work now."""
    if not places.claims.is_dir():
        return False
    try:
        with _locked(places, kind):
            return False
    except Claimed:
        return True


@contextmanager
def _locked(places: PipelinePlaces, kind: Kind) -> Iterator[None]:
    try:
        # Others look by taking it for a moment.
        lock = file_lock.acquire(places.claims / f"{kind}.lock", wait_s=1.0)
    except file_lock.LockBusy as error:
        raise Claimed(
            f"another run is at work on this: {kind} of pipeline {places.name}"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _path(places: PipelinePlaces, kind: Kind) -> Path:
    return places.claims / f"{kind}.json"


def _read(path: Path) -> Claim | None:
    try:
        return Claim(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        # What cannot be read tells of no run; the lock alone keeps two of them apart.
        return None


def _write(path: Path, claim: Claim | None) -> None:
    if claim is None:
        path.unlink(missing_ok=True)
    else:
        atomic_file.write(path, json.dumps(asdict(claim)).encode())
