"""How deployed runs ended, kept in the home until Prefect's server has heard it.

A run's work is done before its server is told, and either may die in between: to the server such a
run runs for ever, or crashed, though all that it did is on disk. So its ending is written down
first, and the next run on this home says it in its place.
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


@dataclass(frozen=True)
class Untold:
    """How a run ended, in the words of its state."""

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
        """What the server is to be told."""
        if self.well:
            return Completed(name=self.name, message=self.because)
        return Failed(message=self.because)

    def may_still_be_told(self, bound_s: float) -> bool:
        """Whether its own process may be there, which ends within `bound_s` seconds."""
        if self.host == socket.gethostname() and not _is_there(self.pid):
            return False
        return time.time() < self.at_s + bound_s


def begin(home: Path, run_id: str) -> None:
    """Forget how an earlier attempt of this run ended: it is tried again."""
    _path(home, run_id).unlink(missing_ok=True)


def kept(home: Path, run_id: str, well: bool, name: str | None, because: str) -> State:
    """Write down how a run ended, before its server is told; the state that tells it.

    A disk that takes no more is no reason to end otherwise: then only the server's picture is wrong
    if it does not hear, as a killed run's is until the next one.
    """
    ended = Untold(run_id, well, name, because, time.time(), socket.gethostname(), os.getpid())
    path = _path(home, run_id)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_file.write(path, json.dumps(asdict(ended)).encode())
        failpoints.point("run.after_ending")
    _mine[run_id] = path
    return ended.state()


def heard(flow: Any, run: Any, state: Any) -> None:
    """The server has heard how the run ended: a hook for Prefect to call."""
    path = _mine.pop(str(run.id), None)
    if path is not None:
        path.unlink(missing_ok=True)


def waiting(home: Path) -> list[Untold]:
    """Endings that no server is known to have heard, oldest first."""
    found = []
    for path in Places(home).untold.glob("*.json"):
        # What cannot be read, or is told meanwhile, leaves the picture as it is.
        with suppress(FileNotFoundError, ValueError, TypeError):
            found.append(Untold(**json.loads(path.read_text(encoding="utf-8"))))
    return sorted(found, key=lambda each: each.at_s)


def forget(home: Path, ended: Untold) -> None:
    """The server knows it now, or knows no such run."""
    _path(home, ended.run_id).unlink(missing_ok=True)


def mends(state: State) -> bool:
    """Whether the server's picture of a run is wrong: it runs for it, or crashed."""
    return state.type in (StateType.RUNNING, StateType.CRASHED)


def _path(home: Path, run_id: str) -> Path:
    return Places(home).untold / f"{run_id}.json"


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # It is, and somebody else's.
        return True
    return True
