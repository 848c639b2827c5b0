"""SIGTERM and Ctrl-C: finish what is begun, checkpoint, and end well, within a stated time.

The first signal asks: learning stops at the next record, a fit or a report is broken off (it is
owed and comes again), the checkpoint is written. A second Ctrl-C ends at once. Where even the
first is not heard, because one call into a library does not come back, the process is ended after
`HARD_END_S`: what was acknowledged is on disk by then, and the next run goes on from it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

HARD_END_S = 8.0
"""Seconds from the signal to the end of a process that does not hear it."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(BaseException):
    """Breaks off a fit or a report. A BaseException, so that no library swallows it."""


class Stop:
    """Whether somebody asked this process to end. Calling it answers."""

    def __init__(
        self, hard_end_s: float = HARD_END_S, hard_end: Callable[[], None] | None = None
    ) -> None:
        self.requested = False
        self._hard_end_s = hard_end_s
        self._hard_end = hard_end or _exit_at_once
        self._breakable = False
        self._over = threading.Event()

    def __call__(self) -> bool:
        """True once a signal came."""
        return self.requested

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear SIGTERM and SIGINT inside the block; only the main thread can.

        Inside another one's block it takes over, and knows what that one has heard.
        """
        handlers = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        outer = getattr(handlers[signal.SIGINT], "__self__", None)
        self.requested = self.requested or (isinstance(outer, Stop) and outer.requested)
        heard, tell = socket.socketpair()
        tell.setblocking(False)
        descriptor = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
        watchdog = threading.Thread(target=self._watch, args=(heard,), daemon=True)
        watchdog.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._over.set()
            # The end of the pipe is the watchdog's cue.
            tell.close()
            watchdog.join()
            heard.close()

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
        """Python's handler: runs between two bytecodes of the main thread, however late that is."""
        if self.requested:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.requested = True
        if self._breakable:
            raise StopRequested

    def _watch(self, heard: socket.socket) -> None:
        """Hears the same signal from C at once, even while the main thread is deep in a library."""
        while number := heard.recv(1):
            if number[0] in _SIGNALS and not self._over.wait(self._hard_end_s):
                self._hard_end()
                return


def _exit_at_once() -> None:
    told = b"thermodrift: stopped amid a call that did not return; what was learned is on disk\n"
    os.write(sys.stderr.fileno(), told)
    os._exit(0)
