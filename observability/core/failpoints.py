"""Failpoints: named places in the code where a test may kill or delay the process, or raise.

They are part of the product, so that the promises of docs/guarantees.md are tested on the code that
users run. A point that is not armed costs one dictionary look-up. `POINTS` declares all names, and
a test runs every one of them.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass

POINTS: dict[str, str] = {
    "atomic_file.before_write": "before the temporary file is written",
    "atomic_file.before_rename": "the temporary file is on disk, the old file still has the name",
    "atomic_file.after_rename": "the new file has its name",
    "history.before_outbox": "before a commit is written into the outbox",
    "history.before_flush": "waiting commits are about to be flushed",
    "history.inside_flush": "rows are inserted, the transaction is still open",
    "history.before_checkpoint": "committed and counted, in DuckDB's write-ahead log alone",
    "history.after_flush": "flushed and committed, the outbox files are still there",
    "inbox.inside_commit": "predictions and labels are written, the transaction is still open",
    "inbox.after_commit": "predictions and labels are committed, their callers do not know it yet",
    "labels.after_join": "labels of a file are joined, its cursor is still the old one",
    "loop.after_predictions": "predictions are logged, the checkpoint is still the old one",
    "loop.after_checkpoint": "the checkpoint is new, the history does not have its rows yet",
    "loop.after_history": "checkpoint and history are done, the next batch is not begun",
    "retrain.before_fit": "a retrain is admitted and about to fit",
    "retrain.after_store": "the challenger is stored, it is not judged yet",
    "registry.before_promotion": "the checkpoint names the new champion, the pointer the old one",
    "run.after_state_saved": "a deployed run has saved how it ended, its server does not know yet",
    "power_limit.before_set": "a device's old power limit is on disk, the new one is not set yet",
    "power_limit.after_set": "the new power limit is set, the work has not begun",
    "power_limit.before_forget": "the old power limit is restored, its file is still there",
    "replay.before_swap": "a log file with a replayed record is written under a temporary name",
    "replay.after_swap": "the log has the replayed record, the history does not have it yet",
    "upkeep.before_swap": "log files are merged into a temporary file and keep their names",
    "upkeep.inside_removal": "old rows are removed, the transaction is still open",
    "upkeep.inside_swap": "the merged file has its name, its parts are still there",
}


@dataclass
class _Armed:
    action: str
    countdown: int


_armed: dict[str, _Armed] = {}


def arm(point: str, action: str, after: int = 1) -> None:
    """Make `point` do `action` when it is passed for the `after`-th time, and each time after.

    Actions: ``kill`` (SIGKILL, as a power cut would), ``raise`` (OSError: no space left on
    device), ``delay`` (a tenth of a second, to widen a race).
    """
    if point not in POINTS:
        raise ValueError(f"no failpoint is named {point!r}; there are: {', '.join(POINTS)}")
    if action not in {"kill", "raise", "delay"}:
        raise ValueError(f"a failpoint can kill, raise or delay; came: {action!r}")
    _armed[point] = _Armed(action, after)


def arm_from(text: str) -> None:
    """Arm from text such as ``atomic_file.before_rename=kill:3,history.after_flush=raise``."""
    for part in filter(None, text.split(",")):
        point, _, rest = part.partition("=")
        action, _, after = rest.partition(":")
        arm(point, action, int(after or 1))


def disarm() -> None:
    """Disarm every point."""
    _armed.clear()


def point(name: str) -> None:
    """Pass a failpoint: nothing happens unless a test has armed it."""
    armed = _armed.get(name)
    if armed is None:
        return
    armed.countdown -= 1
    if armed.countdown > 0:
        return
    if armed.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif armed.action == "raise":
        raise OSError(errno.ENOSPC, f"failpoint {name}: no space left on device")
    else:
        time.sleep(0.1)
