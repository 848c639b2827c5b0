"""Shutdown on SIGTERM and Ctrl-C: checkpoint and end within a stated time.

At the first signal learning stops at the next record, a fit or a report is interrupted (the next
run does it again), and the checkpoint is written. A second Ctrl-C ends the process at once. Where a
call into a library does not return, the process is ended after `HARD_END_S`: what was acknowledged
is on disk by then, and the next run goes on from it.
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
"""Seconds from the signal to the end of a process that does not react to it."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(BaseException):
    """Interrupts a fit or a report. It is a BaseException, so that no library catches it."""


class Stop:
    """Whether a signal asked this process to end; call it to know."""

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
        """Handle SIGTERM and SIGINT inside the block; only the main thread can do this.

        Inside the block of another Stop it takes over, with the signals that one has received.
        """
        handlers = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        outer = getattr(handlers[signal.SIGINT], "__self__", None)
        self.requested = self.requested or (isinstance(outer, Stop) and outer.requested)
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        descriptor = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        watchdog = threading.Thread(target=self._watch, args=(receiver,), daemon=True)
        watchdog.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._over.set()
            # The watchdog ends when the socket is closed.
            sender.close()
            watchdog.join()
            receiver.close()

    @contextmanager
    def breakable(self) -> Iterator[None]:
        """Work that a signal may interrupt at any bytecode: raises StopRequested inside."""
        self._breakable = True
        try:
            if self.requested:
                raise StopRequested
            yield
        finally:
            self._breakable = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Python's handler: it runs between two bytecodes of the main thread, perhaps late."""
        if self.requested:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.requested = True
        if self._breakable:
            raise StopRequested

    def _watch(self, receiver: socket.socket) -> None:
        """C code wakes this thread at once, even while the main thread is inside a library call."""
        while number := receiver.recv(1):
            if number[0] in _SIGNALS and not self._over.wait(self._hard_end_s):
                self._hard_end()
                return


def _exit_at_once() -> None:
    told = b"thermodrift: stopped inside a call that did not return; what was learned is on disk\n"
    os.write(sys.stderr.fileno(), told)
    os._exit(0)
