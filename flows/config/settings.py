"""Settings from the environment; `flows.config.prefect_env` reads Prefect's own variables.

Each variable of `Settings` is THERMODRIFT_ and the field's name in capitals.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from power.devices.fake_nvml import FakeNvml

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
"""Evidently and Prefect both send telemetry unless these are set."""

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
    fake_nvml: Path | None = Field(
        default=None,
        description="JSON file that replaces NVIDIA's library (power/devices/fake_nvml.py): no GPU "
        "is read.",
    )
    faults: str = Field(
        default="",
        description="Fault points that a test arms, such as atomic_file.before_rename=kill:3.",
    )
    token: SecretStr = Field(
        default=SecretStr(""),
        description="What a caller of the prediction service must know; [serve] says for what.",
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
        description="Seconds between two checks of `up` whether its server schedules.",
    )


def silence_telemetry() -> None:
    """Turn off the telemetry of the libraries in use; call it before they are imported."""
    os.environ.update(QUIET)


@contextmanager
def visible_device(uuid: str | None) -> Iterator[None]:
    """Make one GPU the only one that CUDA sees, where CUDA is first used inside the block.

    In a process that has used a GPU before, CUDA keeps its devices: then only the factory's
    `device` names the GPU of a fit. A choice of MIG instances by the user is kept.
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
    """The devices that this process may use, by CUDA's variable; None: all."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def lease_folder() -> Path | None:
    """Where devices are leased among several homes; None: each home keeps to itself."""
    return Settings().leases


def cache_folder() -> Path:
    """The folder of what can be made again; it may not exist yet."""
    return Settings().cache or user_cache_path("thermodrift", appauthor=False)


def fake_nvml() -> FakeNvml | None:
    """The fake devices that the environment names, if any. Raises BadConfiguration."""
    path = Settings().fake_nvml
    return None if path is None else FakeNvml.load(path)


def token() -> str | None:
    """The token of the prediction service that the environment names, if any."""
    return Settings().token.get_secret_value() or None
