"""Locks between processes: the operating system's own, which end with the process that holds them.

All locks of thermodrift are taken here. The file of a lock names its holder, for the messages of
processes that wait, and stays when the lock is released. A lock belongs to the handle that
`acquire` returns, any thread may release it, and a child process does not inherit it by accident.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

Lock = FileLock
"""A held lock. `release` releases it, and may be called twice."""


class LockBusy(Exception):
    """Another process holds the lock. Callers turn this into an error of their own."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is held by another process")
        self.holder = ""
        """The holder's text in the file; empty where it cannot be read."""
        with suppress(OSError, UnicodeDecodeError):
            self.holder = path.read_text(encoding="utf-8").strip()


def acquire(path: Path, wait_s: float = 0.0, holder: str = "") -> Lock:
    """Take the lock of the file `path`, which is created if it is missing.

    Args:
        path: file of the lock; its folder must exist.
        wait_s: seconds to wait for another holder.
        holder: text about the holder for the file; empty: the process id.

    Raises LockBusy after `wait_s`, and OSError where the file cannot be opened.
    """
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout as cause:
        raise LockBusy(path) from cause
    with suppress(OSError):  # On a full disk the lock is held, and only its text is missing.
        path.write_text(holder or str(os.getpid()), encoding="utf-8")
    return lock


@contextmanager
def held(path: Path, wait_s: float = 0.0, holder: str = "") -> Iterator[None]:
    """Hold the lock during the block. Arguments and errors are those of `acquire`."""
    lock = acquire(path, wait_s, holder)
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Return whether another process holds the lock; to find out, it is taken for a moment."""
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
