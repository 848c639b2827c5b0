"""What the disk refuses: nothing half is left, and the error names the file and what is free."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from observability.core import atomic_file, failpoints


@pytest.fixture(autouse=True)
def _disarmed() -> None:
    failpoints.disarm()


@pytest.mark.parametrize("point", ["atomic_file.before_write", "atomic_file.before_rename"])
def test_a_refused_write_leaves_the_old_file_alone(point: str, tmp_path: Path) -> None:
    """The old content stays, nothing lies aside, and the error names the file."""
    path = tmp_path / "state"
    atomic_file.write(path, b"old")
    failpoints.arm(point, "raise")
    with pytest.raises(OSError, match="no space left on device") as error:
        atomic_file.write(path, b"new")
    failpoints.disarm()
    assert b"old" == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())
    assert (errno.ENOSPC, str(path)) == (error.value.errno, error.value.filename)
    assert "MB are free" in str(error.value)


@pytest.mark.parametrize(
    ("number", "kind", "told", "remedy"),
    [
        (errno.ENOSPC, OSError, "MB are free", "make space there"),
        (errno.EDQUOT, OSError, "MB are free", "make space there"),
        (errno.EACCES, PermissionError, "", "give this user rights there"),
        (errno.EPERM, PermissionError, "", "give this user rights there"),
        (errno.EROFS, OSError, "", "mount it to be written"),
        (errno.EIO, OSError, "", "put this right"),
    ],
)
def test_each_refusal_has_its_remedy(
    number: int, kind: type[OSError], told: str, remedy: str, tmp_path: Path
) -> None:
    """What is free is told where that is the reason, and only there."""
    found = atomic_file.refusal(OSError(number, os.strerror(number)), tmp_path / "file")
    assert isinstance(found, kind)
    assert str(found).startswith(f"[Errno {number}] {os.strerror(number)}")
    assert told in str(found)
    assert bool(told) == ("free" in str(found))
    assert atomic_file.remedy(found).startswith(remedy)


def test_a_refusal_without_a_number_keeps_its_words(tmp_path: Path) -> None:
    """Some libraries raise an OSError of text alone."""
    found = atomic_file.refusal(OSError("the disk is odd"), tmp_path / "file")
    assert f"{tmp_path / 'file'}: the disk is odd" == str(found)
    assert "put this right" == atomic_file.remedy(found)


@pytest.mark.parametrize(
    ("inodes", "told"),
    [
        ({"f_files": 10, "f_favail": 0}, "no inode left"),
        ({"f_files": 0, "f_favail": 0}, "2.0 MB are free"),
        ({"f_files": 10, "f_favail": 3}, "2.0 MB are free"),
    ],
)
def test_a_disk_without_inodes_is_no_riddle(
    inodes: dict[str, int], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has megabytes free, and no file more can be made; not all file systems count inodes."""
    disk = SimpleNamespace(f_bavail=2_000, f_frsize=1_000, **inodes)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    found = atomic_file.refusal(OSError(errno.ENOSPC, "No space left on device"), tmp_path / "file")
    assert told in str(found)


def test_a_place_that_is_gone_has_no_figure(tmp_path: Path) -> None:
    """The first error is told, not one that comes from asking about it."""
    gone = tmp_path / "gone" / "file"
    found = atomic_file.refusal(OSError(errno.ENOSPC, "No space left on device"), gone)
    assert "the free space is unknown" in str(found)


def test_room_is_tried_and_given_back(tmp_path: Path) -> None:
    """Nothing of the trial is left, whether there was room or not."""
    atomic_file.ensure_room(tmp_path, 1_000)
    assert [] == list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="nowhere"):
        atomic_file.ensure_room(tmp_path / "nowhere", 1_000)
