"""A program on a tether: it ends when whoever started it does, however that ended.

Prefect's server and its workers outlive a parent that is killed. Run as
``python -m flows.tethered GRACE_S PROGRAM...``, the program is asked to end when stdin closes,
which the system sees to even after a SIGKILL, and is killed, with all that it started, when the
grace is over. Not for people; see `start`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO


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
    tether = [sys.executable, "-m", "flows.tethered", str(grace_s), *words]
    root = str(Path(__file__).resolve().parent.parent)
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
    threading.Thread(target=_end_with_parent, args=(child, grace_s), daemon=True).start()
    # A second way to let go of the tether: the same as closing stdin.
    signal.signal(signal.SIGTERM, lambda *_: _end(child, grace_s))
    code = child.wait()
    _kill_all(child)
    return code if code >= 0 else 128 - code


def _end_with_parent(child: subprocess.Popen[bytes], grace_s: float) -> None:
    sys.stdin.buffer.read()
    _end(child, grace_s)


def _end(child: subprocess.Popen[bytes], grace_s: float) -> None:
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(timeout=grace_s)
    except subprocess.TimeoutExpired:
        _kill_all(child)


def _kill_all(child: subprocess.Popen[bytes]) -> None:
    """The program, and what it started and left: they share a group that is named for it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main(float(sys.argv[1]), sys.argv[2:]))
