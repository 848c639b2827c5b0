"""Adapter for leases of devices: one job per device, by a lock that ends with its process.

Two admitted jobs must never rely on the same headroom. A lease is a lock on a file
of the device's name, so it ends with the process that holds it, however that ends. Who holds one
stands in a file beside it, for people. Every process that shares the folder is kept apart by it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from observability.core import atomic_file
from observability.core.errors import ThermodriftError
from observability.core.paths import device_file


class LeaseFolderUnusable(ThermodriftError, OSError):
    """The folder of the leases cannot be written, so no device can be reserved."""


class Lease:
    """A device that is reserved for one job, until `release` or the end of this process."""

    def __init__(self, uuid: str, lock: FileLock, holder: Path) -> None:
        self.uuid = uuid
        self._lock, self._holder = lock, holder

    def release(self) -> None:
        """Give the device back. Doing it twice is doing it once."""
        if self._lock.is_locked:
            # Before the lock: afterwards the file may be another one's.
            with suppress(OSError):
                self._holder.unlink(missing_ok=True)
            self._lock.release()


class Leases:
    """The leases in one folder, which the processes of a machine share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, uuid: str, who: str) -> Lease | None:
        """Return the lease of `uuid` for `who`, or None if another job has it. Never waits.

        Raises LeaseFolderUnusable.
        """
        lock_path = self._path(uuid, "lock")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileLock(lock_path, timeout=0)
            lock.acquire()
        except Timeout:
            return None
        except OSError as error:
            raise LeaseFolderUnusable(
                f"the lease of {uuid} cannot be taken: {error}; {atomic_file.remedy(error)}"
            ) from error
        holder = self._path(uuid, "holder")
        # A full disk holds a lock, if not the name of its holder.
        with suppress(OSError):
            holder.write_text(json.dumps({"pid": os.getpid(), "for": who}), encoding="utf-8")
        return Lease(uuid, lock, holder)

    def holder(self, uuid: str) -> str:
        """Return in words who has the lease of `uuid`. Call it after `take` returned None."""
        try:
            told = json.loads(self._path(uuid, "holder").read_text(encoding="utf-8"))
            return f"{told['for']} (process {told['pid']})"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    @contextmanager
    def held(self, uuid: str, who: str) -> Iterator[Lease | None]:
        """Hold a lease during a block; see `take`."""
        lease = self.take(uuid, who)
        try:
            yield lease
        finally:
            if lease is not None:
                lease.release()

    def _path(self, uuid: str, ending: str) -> Path:
        return device_file(self._folder, uuid, f".{ending}")
