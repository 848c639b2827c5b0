"""Ends a child process together with its parent, in whatever way the parent ends.

The parent starts its child with a pipe as standard input, and keeps the other end. The system
closes that end when the parent ends, even after a SIGKILL, and the child then ends itself. The
child has a session of its own (`start_new_session`), so a Ctrl-C in the terminal reaches only the
parent. Linux could send a signal instead (PR_SET_PDEATHSIG), but it does so as soon as the *thread*
ends that started the child.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_STDIN = 0


def on_parent_exit(act: Callable[[], None]) -> None:
    """In the child: call `act` in a thread, once the parent has ended or has released this process.

    It is a thread, so that a library call that hangs cannot keep an orphan alive.
    """

    def wait() -> None:
        # Not sys.stdin: if a thread holds its lock, an interpreter that ends is aborted.
        while os.read(_STDIN, 4096):
            pass
        act()

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()


def exit_with_parent() -> None:
    """In the child: end this process at once when its parent has ended."""
    on_parent_exit(lambda: os._exit(0))


def release(process: subprocess.Popen[Any]) -> None:
    """In the parent: close the pipe, which asks the child to end. Does not wait for that."""
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
