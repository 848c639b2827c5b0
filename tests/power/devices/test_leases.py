"""Leases of devices: one job each, and none outlives its process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from power.devices.leases import LeaseFolderUnusable, Leases
from tests import ROOT

HOLD = """
import sys
from pathlib import Path
from power.devices.leases import Leases
lease = Leases(Path(sys.argv[1])).take("GPU-a", "prices")
print(lease is not None, flush=True)
sys.stdin.read()
"""


def holding(folder: Path) -> subprocess.Popen[str]:
    """A process that holds GPU-a, once its first line was read."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "True" == process.stdout.readline().strip()
    return process


def test_a_device_is_one_jobs_at_a_time(tmp_path: Path) -> None:
    """The second one gets nothing until the first gives it back; other devices are free."""
    leases = Leases(tmp_path / "devices")
    first = leases.take("GPU-a", "elec2")
    assert first is not None
    assert Leases(tmp_path / "devices").take("GPU-a", "prices") is None
    assert leases.holder("GPU-a").startswith("elec2 (process ")
    other = leases.take("GPU-b", "prices")
    assert other is not None
    other.release()
    first.release()
    first.release()
    with leases.held("GPU-a", "prices") as again:
        assert again is not None
    with leases.held("GPU-a", "prices") as afterwards:
        assert afterwards is not None


def test_a_lease_dies_with_its_holder(tmp_path: Path) -> None:
    """Killed, a process gives its device back at once; while it lives it is named."""
    process = holding(tmp_path)
    try:
        leases = Leases(tmp_path)
        assert leases.take("GPU-a", "elec2") is None
        assert f"prices (process {process.pid})" == leases.holder("GPU-a")
        process.send_signal(signal.SIGKILL)
        process.wait()
        lease = leases.take("GPU-a", "elec2")
        assert lease is not None
        lease.release()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("uuid", ["../../etc/passwd", "/dev/null", "..", "MIG-GPU-1/2/3", ".x"])
def test_no_name_of_a_device_leads_out_of_the_folder(uuid: str, tmp_path: Path) -> None:
    """A driver's word is not a path."""
    folder = tmp_path / "devices"
    lease = Leases(folder).take(uuid, "elec2")
    assert lease is not None
    assert {"devices"} == {path.name for path in tmp_path.iterdir()}
    assert all(path.is_file() for path in folder.iterdir())
    lease.release()


def test_a_holder_that_left_no_word_is_another_process(tmp_path: Path) -> None:
    """Nothing there, or nothing that makes sense."""
    leases = Leases(tmp_path)
    assert "another process" == leases.holder("GPU-a")
    (tmp_path / "GPU-a.lock").write_text("{")
    assert "another process" == leases.holder("GPU-a")


def test_a_folder_that_cannot_be_written_promises_nothing(tmp_path: Path) -> None:
    """It says what, why, and what to do."""
    (tmp_path / "devices").write_text("a file where a folder should be")
    with pytest.raises(LeaseFolderUnusable, match="the lease of GPU-a cannot be taken"):
        Leases(tmp_path / "devices").take("GPU-a", "elec2")
