"""What the environment says: the only reader of it.

`Settings` has our variables; each is THERMODRIFT_ and the field's name in capitals. The rest of
this module makes environments for Prefect's programs, in which a user's own Prefect has no say.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from power.devices.fake_nvml import FakeNvml

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
"""Evidently and Prefect both send telemetry unless told not to."""

DEFAULT_HOME = Path(".thermodrift")


class Settings(BaseSettings):
    """What can be set from outside, apart from the pipeline file."""

    model_config = SettingsConfigDict(
        env_prefix="THERMODRIFT_", env_ignore_empty=True, extra="ignore", frozen=True
    )
    home: Path = Field(
        default=DEFAULT_HOME, description="Folder that keeps models, checkpoints, history."
    )
    leases: Path | None = Field(
        default=None,
        description="Folder of the devices' leases, the same for all homes of a machine.",
    )
    cache: Path | None = Field(
        default=None,
        description="Folder of what can be made again, such as an empty database for Prefect.",
    )
    stand_in: Path | None = Field(
        default=None,
        description="JSON of a stand-in for NVIDIA's library (power/devices/fake_nvml.py): no GPU "
        "is asked.",
    )
    faults: str = Field(
        default="",
        description="Fault points that a test arms, such as atomic_file.before_rename=kill:3.",
    )
    server_timeout_s: float = Field(
        default=5.0,
        gt=0,
        description="Seconds that one request of a run to Prefect's server may take.",
    )
    exit_within_s: float = Field(
        default=30.0,
        gt=0,
        description="Seconds from the end of a deployed run's work to the end of its process.",
    )
    schedule_s: int = Field(
        default=60,
        ge=1,
        description="Seconds between two runs of `learn`, and of `watch`, that `up` deploys.",
    )
    scheduler_check_s: float = Field(
        default=15.0,
        gt=0,
        description="Seconds between two questions of `up` whether its server schedules.",
    )


def silence_telemetry() -> None:
    """Turn off the telemetry of the libraries in use; call it before they are imported."""
    os.environ.update(QUIET)


@contextmanager
def job_sees(uuid: str | None) -> Iterator[None]:
    """Show the one GPU that a job was given to whatever uses CUDA first inside the block.

    What CUDA has already seen of the machine stays seen: a fit in a process that used a GPU before
    is told its device by the factory's `device` alone. Of MIG instances the person's choice stands.
    """
    before = visible_devices()
    if uuid is None or not uuid.startswith("GPU-") or "MIG-" in (before or ""):
        yield
        return
    os.environ["CUDA_VISIBLE_DEVICES"] = uuid
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def visible_devices() -> str | None:
    """The devices that this process may use, as CUDA was told; None: all."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def lease_folder() -> Path | None:
    """Where devices are leased among several homes; None: each home keeps to itself."""
    return Settings().leases


def cache_folder() -> Path:
    """Where is kept what can be made again; it need not be there."""
    return Settings().cache or user_cache_path("thermodrift", appauthor=False)


def stand_in() -> FakeNvml | None:
    """The devices to pretend, where the environment names some. Raises BadConfiguration."""
    path = Settings().stand_in
    return None if path is None else FakeNvml.load(path)
