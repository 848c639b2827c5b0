"""Door to the disk: a file is either the old one or the new one, whole, whatever is cut when.

Every file that thermodrift must not lose goes through `write`: aside, fsync, rename, fsync of the
folder. What the disk refuses is told with the file, and with how much is free. Nothing here knows
what the bytes mean.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from observability.core import failpoints

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM}


def write(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, durably, so that no reader ever sees half of it.

    Raises OSError where the disk refuses, as `refusal` tells it; then `path` is what it was before.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.aside")
    try:
        failpoints.point("durable.before_write")
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        failpoints.point("durable.before_rename")
        aside.replace(path)
    except OSError as error:
        _drop(aside)
        raise refusal(error, path) from error
    except BaseException:
        _drop(aside)
        raise
    failpoints.point("durable.after_rename")
    sync_folder(path.parent)


def ensure_room(folder: Path, room_bytes: int) -> None:
    """Return if so many bytes more can be written in `folder`, now; else raise OSError.

    Tried by writing them: what the system says is free knows nothing of quotas and rights.
    """
    trial = folder / f".room.{os.getpid()}.aside"
    try:
        trial.write_bytes(bytes(room_bytes))
    except OSError as error:
        _drop(trial)
        raise refusal(error, folder) from error
    _drop(trial)


def refusal(error: OSError, path: Path) -> OSError:
    """`error` as one that names `path`, and says what is free there if the disk is full."""
    told = error.strerror or str(error)
    if error.errno in _FULL:
        told = f"{told} ({_free(path)})"
    return OSError(error.errno, told, str(path)) if error.errno else OSError(f"{path}: {told}")


def remedy(error: OSError) -> str:
    """What a person can do about a disk that refused."""
    if error.errno in _FULL:
        return "make space there"
    if error.errno in _DENIED:
        return "give this user rights there, or set another home"
    if error.errno == errno.EROFS:
        return "mount it to be written, or set another home"
    return "put this right"


def _free(path: Path) -> str:
    try:
        disk = os.statvfs(path if path.is_dir() else path.parent)
    except OSError:
        return "how much is free cannot be told"
    # Some file systems count no inodes: they give 0 for both.
    if disk.f_files and not disk.f_favail:
        return "no more files can be made: the file system has no inode left"
    return f"{disk.f_bavail * disk.f_frsize / 1e6:.1f} MB are free"


def _drop(aside: Path) -> None:
    # A disk that is read-only refuses even to remove what is not there.
    with suppress(OSError):
        aside.unlink()


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable, as fsync of a file does not."""
    _sync(folder)


def sync_file(path: Path) -> None:
    """Make durable what somebody else wrote into a file, and has closed."""
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep_asides(folder: Path) -> None:
    """Remove what writers that were killed left aside. Call it under the folder's lock."""
    for aside in folder.glob(".*.aside"):
        aside.unlink(missing_ok=True)
