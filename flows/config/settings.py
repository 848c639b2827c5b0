"""Where things live and what the environment says: the only reader of the environment.

THERMODRIFT_HOME      where everything is kept (default: .thermodrift in the working folder)
THERMODRIFT_LEASES    where devices are leased, for homes that share a machine (default: the home)
THERMODRIFT_CACHE     where is kept what can be made again (default: this user's cache)
THERMODRIFT_STAND_IN  devices to pretend instead of asking NVIDIA's library: tests, demonstrations
THERMODRIFT_FAULTS    fault points that a test arms, such as atomic_file.before_rename=kill:3
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from power.devices.fake_nvml import StandIn

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
"""Nothing is sent anywhere: evidently and Prefect both report home unless told not to."""

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
    faults: str = Field(default="", description="Armed fault points: for tests of recovery.")


def silence_telemetry() -> None:
    """Turn off the telemetry of our dependencies; call it before they are imported."""
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


def stand_in() -> StandIn | None:
    """The devices to pretend, where the environment names some. Raises BadConfiguration."""
    path = Settings().stand_in
    return None if path is None else StandIn.load(path)
