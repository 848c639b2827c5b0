"""The environment that Prefect's servers, workers and clients are given."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from flows.config.settings import QUIET

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
DATABASE = "server.db"
"""Of a server that stays, in its folder."""


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
