"""Door to the disk: a file is either the old one or the new one, whole, whatever is cut when.

Every file that thermodrift must not lose goes through `write`: aside, fsync, rename, fsync of the
folder. Nothing here knows what the bytes mean.
"""

from __future__ import annotations

import os
from pathlib import Path

from observability import faults


def write(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, durably, so that no reader ever sees half of it.

    Raises OSError where the disk refuses; then `path` is what it was before.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.aside")
    faults.point("durable.before_write")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        faults.point("durable.before_rename")
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    faults.point("durable.after_rename")
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable, as fsync of a file does not."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep_asides(folder: Path) -> None:
    """Remove what writers that were killed left aside. Call it under the folder's lock."""
    for aside in folder.glob(".*.aside"):
        aside.unlink(missing_ok=True)
