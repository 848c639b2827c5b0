"""Locks between processes: whose they are, and who may release them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from observability.core import file_lock


def test_any_thread_may_release_a_lock(tmp_path: Path) -> None:
    """A server that is closed by another thread than it was opened by leaves no lock behind."""
    path = tmp_path / "lock"
    lock = file_lock.acquire(path)
    assert file_lock.is_held(path)
    other = threading.Thread(target=lock.release)
    other.start()
    other.join()
    assert not file_lock.is_held(path)


def test_a_lock_belongs_to_one_handle(tmp_path: Path) -> None:
    """A second one is refused in the same process too, and is told who has it."""
    path = tmp_path / "lock"
    with file_lock.held(path, holder="the first"):
        with pytest.raises(file_lock.LockBusy) as refused:
            file_lock.acquire(path)
        assert "the first" == refused.value.holder
    file_lock.acquire(path).release()
