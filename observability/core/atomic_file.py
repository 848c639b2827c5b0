"""Atomic writes: after a kill or a power cut a file is whole, the old one or the new one.

Every file that thermodrift must not lose is written by `write`: temporary file, fsync, rename,
fsync of the folder. Errors of the disk name the file, and how much space is free. Nothing here
knows what the bytes mean.
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

    Raises the OSError of `refusal` where the disk refuses; then `path` is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        failpoints.point("atomic_file.before_write")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        failpoints.point("atomic_file.before_rename")
        temporary.replace(path)
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError):
            raise refusal(error, path) from error
        raise
    failpoints.point("atomic_file.after_rename")
    sync_folder(path.parent)


def ensure_room(folder: Path, room_bytes: int) -> None:
    """Raise OSError unless `room_bytes` more bytes can be written in `folder` now.

    It writes them to find out: the free space that the system reports ignores quotas and rights.
    """
    probe = folder / f".room.{os.getpid()}.tmp"
    try:
        probe.write_bytes(bytes(room_bytes))
    except OSError as error:
        raise refusal(error, folder) from error
    finally:
        _remove(probe)


def refusal(error: OSError, path: Path) -> OSError:
    """Return an error like `error` that names `path`, and the free space if the disk is full."""
    text = error.strerror or str(error)
    if error.errno in _FULL:
        text = f"{text} ({_free(path)})"
    return OSError(error.errno, text, str(path)) if error.errno else OSError(f"{path}: {text}")


def remedy(error: OSError) -> str:
    """Return what a person can do about a disk that refused."""
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
        return "the free space is unknown"
    # A file system that does not count inodes reports 0 for both.
    if disk.f_files and not disk.f_favail:
        return "no more files can be created: the file system has no inode left"
    return f"{disk.f_bavail * disk.f_frsize / 1e6:.1f} MB are free"


def _remove(temporary: Path) -> None:
    # A read-only disk refuses even to remove a file that does not exist.
    with suppress(OSError):
        temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable, which fsync of a file does not do."""
    _sync(folder)


def sync_file(path: Path) -> None:
    """Make durable what other code has written into a file and closed."""
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files of killed writers. The caller holds the folder's lock."""
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)
