"""A program on a tether: it ends when whoever started it does, however that ended.

Prefect's server and its workers outlive a parent that is killed. Run as ``python -m
flows.stack.tied_process GRACE_S PROGRAM...``, the program is asked to end when stdin closes, which
the system sees to even after a SIGKILL, and is killed, with all that it started, when the grace is
over. Not for people; see `start`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

_STDIN = 0


def start(
    words: Sequence[str],
    environment: Mapping[str, str],
    log: IO[bytes],
    cwd: Path | None = None,
    grace_s: float = 10.0,
) -> subprocess.Popen[bytes]:
    """Start a Python module (`words`: its name and arguments) on a tether; what it says is logged.

    The process that is returned is the tether's: it has the program's exit code, and `cut` ends
    both.
    """
    tether = [sys.executable, "-m", "flows.stack.tied_process", str(grace_s), *words]
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH", "")]))
    return subprocess.Popen(
        tether,
        cwd=cwd,
        env={**environment, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        # A Ctrl-C in the terminal is for who holds the tether.
        start_new_session=True,
    )


def cut(process: subprocess.Popen[bytes]) -> None:
    """Let the program end."""
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


def main(grace_s: float, words: Sequence[str]) -> int:
    """Run the program until it ends, or stdin closes; its exit code."""
    child = subprocess.Popen(
        [sys.executable, "-m", *words], stdin=subprocess.DEVNULL, start_new_session=True
    )
    end = _End(child, grace_s)
    threading.Thread(target=_end_with_parent, args=(end,), daemon=True).start()
    # A second way to let go of the tether: the same as closing stdin.
    signal.signal(signal.SIGTERM, lambda *_: end.begin())
    code = child.wait()
    end.over()
    return code if code >= 0 else 128 - code


def _end_with_parent(end: _End) -> None:
    # Not sys.stdin: its lock, held in a thread, would abort an interpreter that ends.
    while os.read(_STDIN, 4096):
        pass
    end.begin()


class _End:
    """The end of a program and of all that it started: asked for first, then made."""

    def __init__(self, child: subprocess.Popen[bytes], grace_s: float) -> None:
        self._child = child
        self._grace_s = grace_s
        self._asking: threading.Thread | None = None

    def begin(self) -> None:
        """Ask, in a thread of its own: a handler of a signal must not wait."""
        if self._asking is None:
            self._asking = threading.Thread(target=self._ask)
            self._asking.start()

    def over(self) -> None:
        """The program has ended; what it started has the rest of the grace, if any."""
        if self._asking is not None:
            self._asking.join()
        _signal_all(self._child, signal.SIGKILL)

    def _ask(self) -> None:
        over_s = time.monotonic() + self._grace_s
        there = _signal_all(self._child, signal.SIGTERM)
        pause = threading.Event()
        while there and time.monotonic() < over_s:
            pause.wait(0.05)
            there = _signal_all(self._child, 0)
        _signal_all(self._child, signal.SIGKILL)


def _signal_all(child: subprocess.Popen[bytes], number: int) -> bool:
    """Whether anybody was there to be signalled."""
    try:
        os.killpg(child.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main(float(sys.argv[1]), sys.argv[2:]))
