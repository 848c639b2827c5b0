"""A disk of a few megabytes that can really be full: a tmpfs in a mount namespace of its own.

Linux alone, as root or where users may make namespaces; elsewhere `make` skips the test and says
why. Nothing of it is seen outside, and nothing is left: it goes with the process that holds it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests import ROOT
from tests.flows.makers import environment_of

HOLD = 'mount -t tmpfs -o "size=$2" tmpfs "$1" && echo mounted && exec cat'
"""`cat` ends when our pipe to it closes, however we end."""


def fill(filler: Path, leave_bytes: int = 0) -> None:
    """Write zeros to `filler` until its disk is full, then give `leave_bytes` back."""
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
        file.truncate(max(0, file.tell() - leave_bytes))


class SmallDisk:
    """The disk: `inside` is its path for commands run on it, `seen` the same for this process."""

    def __init__(self, inside: Path, holder: subprocess.Popen[str]) -> None:
        self.inside = inside
        self.seen = Path(f"/proc/{holder.pid}/root{inside}")
        users = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        self._enter = ["nsenter", f"--target={holder.pid}", "--mount", *users, "env", "-C"]

    def fill(self, leave_bytes: int = 0) -> None:
        """Write until nothing fits any more, then give `leave_bytes` back."""
        fill(self.seen / "filler", leave_bytes)

    def free(self) -> None:
        """Give all the space back."""
        (self.seen / "filler").unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """How much is free."""
        return shutil.disk_usage(self.seen).free

    def mount(self, folder: Path, size: str) -> None:
        """Put another disk on `folder`, a path on this one."""
        self._as_root("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))

    def remount(self, options: str) -> None:
        """Mount it again with other options: ``ro``, ``rw``, ``size=9m``."""
        self._as_root("mount", "-o", f"remount,{options}", str(self.inside))

    def _as_root(self, *words: str) -> None:
        subprocess.run([*self._enter, "/", *words], check=True, capture_output=True)

    def start(self, *words: object, **environment: str) -> subprocess.Popen[str]:
        """Start the command line on the disk, as a user does."""
        return self.python("-m", "thermodrift", *words, **environment)

    def python(self, *words: object, **environment: str) -> subprocess.Popen[str]:
        """Start Python on the disk."""
        return subprocess.Popen(
            [*self._enter, str(ROOT), sys.executable, *map(str, words)],
            env=environment_of(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@contextmanager
def mounted(folder: Path, size: str = "16m") -> Iterator[SmallDisk]:
    """A disk of that size on `folder`. Skips the test where none can be had."""
    for tool in ("unshare", "nsenter", "mount"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} here to mount a small disk with")
    users: Sequence[str] = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    with subprocess.Popen(
        ["unshare", *users, "--mount", "sh", "-c", HOLD, "sh", str(folder), size],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline().strip() != "mounted":
            why = holder.stderr.read().strip().splitlines()
            pytest.skip(f"no small disk can be mounted here: {' '.join(why[:1])}")
        try:
            yield SmallDisk(folder, holder)
        finally:
            assert holder.stdin is not None
            holder.stdin.close()
