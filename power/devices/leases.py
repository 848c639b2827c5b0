"""Adapter for leases of devices: one job per device, by a lock that ends with its process.

Two jobs that were both admitted must never count on the same headroom. A lease is a lock on a file
of the device's name, so it ends with the process that holds it, however that process ends. The file
says who holds it. All processes that use the same folder exclude each other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from observability.core import atomic_file, file_lock
from observability.core.errors import ThermodriftError
from observability.core.paths import device_file


class LeaseFolderUnusable(ThermodriftError, OSError):
    """The folder of the leases cannot be written, so no device can be reserved."""


class Lease:
    """A device that is reserved for one job, until `release` or the end of this process."""

    def __init__(self, uuid: str, lock: file_lock.Lock) -> None:
        self.uuid = uuid
        self._lock = lock

    def release(self) -> None:
        """Give the device back. To call it twice does no harm."""
        self._lock.release()


class Leases:
    """The leases in one folder, which the processes of a machine share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, uuid: str, who: str) -> Lease | None:
        """Return the lease of `uuid` for `who`, or None if another job has it. Never waits.

        Raises LeaseFolderUnusable.
        """
        holder = json.dumps({"pid": os.getpid(), "for": who})
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return Lease(uuid, file_lock.acquire(self._path(uuid), holder=holder))
        except file_lock.LockBusy:
            return None
        except OSError as error:
            raise LeaseFolderUnusable(
                f"the lease of {uuid} cannot be taken: {error}; {atomic_file.remedy(error)}"
            ) from error

    def holder(self, uuid: str) -> str:
        """Return in words who has the lease of `uuid`. Call it after `take` returned None."""
        try:
            told = json.loads(self._path(uuid).read_text(encoding="utf-8"))
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

    def _path(self, uuid: str) -> Path:
        return device_file(self._folder, uuid, ".lock")
