"""A lock among thermodrift's processes of one home: the system's own, which dies with its holder.

A part of the door `history`. The holder writes its id into the lock's file, so that whoever has to
wait can be told for whom.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from observability.core import atomic_file
from observability.history.errors import HistoryBusy, HistoryUnwritable


@contextmanager
def held(lock: Path, wait_s: float, busy: Callable[[str], HistoryBusy]) -> Iterator[None]:
    """Hold the file `lock`; `busy` makes the error for the process id that holds it, or for ''.

    Raises that error after `wait_s` seconds, and HistoryUnwritable where the home cannot be
    written.
    """
    with ExitStack() as stack:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(lock, timeout=wait_s))
            with suppress(OSError):  # a full disk holds a lock, if not the name of its holder
                lock.write_text(str(os.getpid()))
        except Timeout as cause:
            raise busy(_pid_in(lock)) from cause
        except OSError as cause:
            raise HistoryUnwritable(
                f"{lock} cannot be locked: {cause}; {atomic_file.remedy(cause)}"
            ) from cause
        yield


def _pid_in(lock: Path) -> str:
    """The process that wrote its id into the lock's file, or nothing."""
    try:
        return lock.read_text().strip()
    except OSError:
        return ""
