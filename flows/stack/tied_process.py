"""Run a program that ends with its parent, together with all processes that it started.

Prefect's server and its workers outlive a parent that is killed. So they are started by ``python -m
flows.stack.tied_process GRACE_S MODULE...``: once the parent has ended, that process terminates the
module's process group, and kills it after the grace period. `start` uses it; users do not.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from observability.core import parent_watch


def start(
    words: Sequence[str],
    environment: Mapping[str, str],
    log: IO[bytes],
    cwd: Path | None = None,
    grace_s: float = 10.0,
) -> subprocess.Popen[bytes]:
    """Start a Python module (`words`: its name and arguments), whose output goes to `log`.

    The process that is returned is in between: it has the module's exit code, and both end after
    `parent_watch.release`.
    """
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        [sys.executable, "-m", "flows.stack.tied_process", str(grace_s), *words],
        cwd=cwd,
        env={**environment, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def main(grace_s: float, words: Sequence[str]) -> int:
    """Run the module until it ends, the parent ends, or a SIGTERM comes; its exit code."""
    child = subprocess.Popen(
        [sys.executable, "-m", *words], stdin=subprocess.DEVNULL, start_new_session=True
    )
    requested = threading.Event()

    def end() -> None:
        requested.wait()
        over_s = time.monotonic() + grace_s
        there = _signal_group(child.pid, signal.SIGTERM)
        while there and time.monotonic() < over_s:
            time.sleep(0.05)
            there = _signal_group(child.pid, 0)
        _signal_group(child.pid, signal.SIGKILL)

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    parent_watch.on_parent_exit(requested.set)
    signal.signal(signal.SIGTERM, lambda *_: requested.set())
    code = child.wait()
    if requested.is_set():
        # Processes that the module started have the rest of the grace period.
        ending.join()
    _signal_group(child.pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _signal_group(group: int, number: int) -> bool:
    """Whether the group still had a process."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main(float(sys.argv[1]), sys.argv[2:]))
