"""Waiting on a machine that may be busy: for events, and with bounds that know the load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")
PATIENCE_S = 300.0
"""Bound on what takes some seconds, or a minute beside others; reached only by what is broken."""
_WORK_S = 0.05


def until(question: Callable[[], Answer | None], what: str, within_s: float = PATIENCE_S) -> Answer:
    """The first answer that is not empty; asked less and less often, down to once a second.

    Each question takes processor time, which on a busy machine what is waited for needs.
    """
    over_s, pause_s = time.monotonic() + within_s, 0.01
    pause = threading.Event()
    while time.monotonic() < over_s:
        answer = question()
        if answer:
            return answer
        pause.wait(pause_s)
        pause_s = min(1.0, 1.2 * pause_s)
    raise AssertionError(f"{what} did not come within {within_s:g} s")


def stretched(bound_s: float) -> float:
    """What is promised to take `bound_s` on a quiet machine, as this one is loaded right now.

    The load is the time that some work takes over the processor's time for it. What is promised
    goes through several processes, each of which waits for its turn: it counts twice.
    """
    began_s, worked_s = time.perf_counter(), time.thread_time()
    while time.thread_time() - worked_s < _WORK_S:
        pass
    load = (time.perf_counter() - began_s) / _WORK_S
    return bound_s * max(1.0, 2 * load - 1)
