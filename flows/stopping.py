"""SIGTERM and Ctrl-C: finish what is begun, checkpoint, and end well, within a stated time.

The first signal asks: learning stops at the next record, a fit or a report is broken off (it is
owed and comes again), the checkpoint is written. The second signal ends at once. Where even the
first is not heard, because one call into a library does not come back, the process is ended after
`HARD_END_S`: what was acknowledged is on disk by then, and the next run goes on from it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

HARD_END_S = 8.0
"""Seconds from the signal to the end of a process that does not hear it."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(BaseException):
    """Breaks off a fit or a report. A BaseException, so that no library swallows it."""


class Stop:
    """Whether somebody asked this process to end. Calling it answers."""

    def __init__(self) -> None:
        self.requested = False
        self._breakable = False

    def __call__(self) -> bool:
        """True once a signal came."""
        return self.requested

    @contextmanager
    def listening(self, hard_end: Callable[[], None] | None = None) -> Iterator[None]:
        """Hear SIGTERM and SIGINT; only the main thread can. `hard_end` replaces os._exit."""
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            signal.signal(number, self._hear)
        self._hard_end = hard_end or _exit_at_once
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            timer = getattr(self, "_timer", None)
            if timer is not None:
                timer.cancel()

    @contextmanager
    def breakable(self) -> Iterator[None]:
        """Work that may be broken off at any bytecode: raises StopRequested inside."""
        self._breakable = True
        try:
            if self.requested:
                raise StopRequested
            yield
        finally:
            self._breakable = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.requested = True
        self._timer: Any = threading.Timer(HARD_END_S, self._hard_end)
        self._timer.daemon = True
        self._timer.start()
        if self._breakable:
            raise StopRequested


def _exit_at_once() -> None:
    os._exit(0)
