"""Where things live and what the environment says: the only reader of the environment.

THERMODRIFT_HOME      where everything is kept (default: .thermodrift in the working folder)
THERMODRIFT_LEASES    where devices are leased, for homes that share a machine (default: the home)
THERMODRIFT_CACHE     where is kept what can be made again (default: this user's cache)
THERMODRIFT_STAND_IN  devices to pretend instead of asking NVIDIA's library: tests, demonstrations
THERMODRIFT_FAULTS    fault points that a test arms, such as durable.before_rename=kill:3
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from platformdirs import user_cache_path
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from power.twin import StandIn

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
"""Nothing is sent anywhere: evidently and Prefect both report home unless told not to."""

OURS = {
    "PREFECT_API_AUTH_STRING": "",
    "PREFECT_API_KEY": "",
    "PREFECT_FLOWS_DEFAULT_RETRIES": "0",
    "PREFECT_TASKS_DEFAULT_RETRIES": "0",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    # What went wrong is told once, by the front desk.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
}
"""Said aloud, though defaults: Prefect reads `.env` and `prefect.toml` where a person works, too.

A task that is tried again goes on from a half-changed state; ours recovers from the checkpoint.
"""

PROMPT = {
    # By default a worker asks for work every 10 s, which is most of the time from alarm to retrain.
    "PREFECT_WORKER_QUERY_SECONDS": "0.5",
    # A run that is fetched before its time holds a slot of its worker until then.
    "PREFECT_WORKER_PREFETCH_SECONDS": "1",
    # Else a run of a flow begins by asking what the server's version is.
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
}
"""What makes a worker take a run up within seconds of its event."""

DEFAULT_HOME = Path(".thermodrift")
DATABASE = "server.db"
"""Of a server that stays, in its folder."""


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
        description="JSON of a stand-in for NVIDIA's library (power/twin.py): no GPU is asked.",
    )
    faults: str = Field(default="", description="Armed fault points: for tests of recovery.")


def silence_telemetry() -> None:
    """Turn off the telemetry of our dependencies; call it before they are imported."""
    os.environ.update(QUIET)


def prefect_server_environment(database: Path, password: str) -> dict[str, str]:
    """The environment of an embedded Prefect API that keeps its runs in `database`.

    Settings of the user's own Prefect do not reach it: it is ours, and nobody else talks to it.
    """
    return {
        **_without_prefect(),
        **_own_prefect(database.parent),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": _sqlite(database),
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_SERVER_UI_ENABLED": "false",
        # Nobody makes blocks there, and to write all sorts of them down takes a second.
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
    }


def lasting_server_environment(folder: Path, password: str) -> dict[str, str]:
    """The environment of a Prefect server that is there for people, too, and keeps all in `folder`.

    A server's own settings (``PREFECT_SERVER_...``) are the user's to change: a PostgreSQL, say.
    """
    theirs = {key: value for key, value in os.environ.items() if key.startswith("PREFECT_SERVER_")}
    return {
        **_without_prefect(),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": _sqlite(folder / DATABASE),
        "PREFECT_SERVER_UI_ENABLED": "true",
        **theirs,
        **_own_prefect(folder),
        "PREFECT_SERVER_API_AUTH_STRING": password,
    }


def lasting_database(folder: Path) -> Path | None:
    """Where that server keeps its runs; None where the environment names a database of its own."""
    named = "PREFECT_SERVER_DATABASE_CONNECTION_URL" in os.environ
    return None if named else folder / DATABASE


def worker_environment(folder: Path, url: str, password: str, home: Path) -> dict[str, str]:
    """The environment of workers, and of who deploys, beside the server at `url`."""
    return {
        **_without_prefect(),
        **_own_prefect(folder),
        **{key: value for key, value in OURS.items() if key != "PREFECT_LOGGING_LEVEL"},
        "PREFECT_API_URL": url,
        "PREFECT_API_AUTH_STRING": password,
        **PROMPT,
        "THERMODRIFT_HOME": str(home),
    }


def configured_server() -> tuple[str, str] | None:
    """URL and auth string of the Prefect server that the environment names; None: none is named."""
    url = os.environ.get("PREFECT_API_URL", "")
    return (url, os.environ.get("PREFECT_API_AUTH_STRING", "")) if url else None


def _without_prefect() -> dict[str, str]:
    return {
        key: value
        for key, value in os.environ.items()
        # A warning inside its libraries is no reason for it not to start.
        if not key.startswith("PREFECT_") and key != "PYTHONWARNINGS"
    }


def _own_prefect(folder: Path) -> dict[str, str]:
    return {
        **QUIET,
        "PREFECT_HOME": str(folder),
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
    }


def _sqlite(database: Path) -> str:
    # SQLite's own form of a path, in which every character can be written: SQLAlchemy 2.0 takes a
    # question mark for the end of a plain one.
    return f"sqlite+aiosqlite:///file:{quote(str(database))}?uri=true"


def prepare_prefect(home: Path) -> None:
    """Point Prefect's client at our own home before it is first imported.

    A run on this machine is the same whatever profile or server the user's own Prefect knows.
    """
    for key in [key for key in os.environ if key.startswith("PREFECT_")]:
        del os.environ[key]
    os.environ.update(QUIET | OURS)
    os.environ["PREFECT_HOME"] = str(home)
    os.environ["PREFECT_PROFILES_PATH"] = str(home / "profiles.toml")


def is_a_deployed_run() -> bool:
    """Whether this process was started to do one flow run of a Prefect server, and nothing else."""
    return "PREFECT__FLOW_RUN_ID" in os.environ


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
