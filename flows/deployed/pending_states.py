"""How deployed runs ended, kept in the home until Prefect's server knows it.

A run's work is done before the server is told, and either process may die in between. The server
then shows the run as running for ever, or as crashed, though its work is on disk. So the run writes
its final state to a file first, and the next run on this home reports it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State, StateType
from prefect.states import Completed, Failed

from observability.core import atomic_file, failpoints
from observability.core.paths import Places

_mine: dict[str, Path] = {}
"""Files that this process wrote, by run: Prefect's hooks know only the run."""


@dataclass(frozen=True)
class PendingState:
    """How a run ended, as its state says it."""

    run_id: str
    well: bool
    """Completed; otherwise Failed."""
    name: str | None
    because: str
    at_s: float
    """Seconds since 1970."""
    host: str
    pid: int

    def state(self) -> State:
        """The state to report to the server."""
        if self.well:
            return Completed(name=self.name, message=self.because)
        return Failed(message=self.because)

    def may_still_be_reported(self, bound_s: float) -> bool:
        """Whether the run's own process, which ends within `bound_s` seconds, may still report it.

        Of a process on another host only the bound is known.
        """
        if self.host == socket.gethostname():
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return False
            except PermissionError:
                # The process is there, and another user's.
                pass
        return time.time() < self.at_s + bound_s


def save(home: Path, run_id: str, well: bool, name: str | None, because: str) -> State:
    """Write down how a run ended, before its server is told; the state to end with.

    A full disk does not change how the run ends. If the server is then not told either, its list is
    wrong until the next run, as after a kill.
    """
    ended = PendingState(
        run_id, well, name, because, time.time(), socket.gethostname(), os.getpid()
    )
    path = _path(home, run_id)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_file.write(path, json.dumps(asdict(ended)).encode())
        failpoints.point("run.after_state_saved")
    _mine[run_id] = path
    return ended.state()


def acknowledge(flow: Any, run: Any, state: Any) -> None:
    """Prefect calls this hook once the server knows how the run ended."""
    path = _mine.pop(str(run.id), None)
    if path is not None:
        path.unlink(missing_ok=True)


def waiting(home: Path) -> list[PendingState]:
    """Final states that no server is known to have, oldest first."""
    found = []
    for path in Places(home).pending_states.glob("*.json"):
        # A file that cannot be read, or was removed meanwhile, changes nothing.
        with suppress(FileNotFoundError, ValueError, TypeError):
            found.append(PendingState(**json.loads(path.read_text(encoding="utf-8"))))
    return sorted(found, key=lambda each: each.at_s)


def forget(home: Path, run_id: str) -> None:
    """Remove a state: the server knows it, or knows no such run, or the run is repeated."""
    _path(home, run_id).unlink(missing_ok=True)


def is_stale(state: State) -> bool:
    """Whether the server needs correcting: it shows the run as still running, or crashed."""
    return state.type in (StateType.RUNNING, StateType.CRASHED)


def _path(home: Path, run_id: str) -> Path:
    return Places(home).pending_states / f"{run_id}.json"
