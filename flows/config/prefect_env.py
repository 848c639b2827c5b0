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
    # The command line reports an error once.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
}
"""These are set although most are defaults: Prefect also reads `.env` and `prefect.toml`.

A repeated task would go on from a half-changed state; a run recovers from its checkpoint.
"""

PROMPT = {
    # The default is 10 s, which is most of the time from an alarm to its retrain.
    "PREFECT_WORKER_QUERY_SECONDS": "0.5",
    # A run that is fetched before its time holds a slot of its worker until then.
    "PREFECT_WORKER_PREFETCH_SECONDS": "1",
    # Else a run of a flow begins by asking what the server's version is.
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
}
"""A worker with these starts a run within seconds of its event."""
DATABASE = "server.db"
"""The database of a permanent server, in its folder."""


def _environment(folder: Path) -> dict[str, str]:
    """The environment of this process, with Prefect's settings only for `folder`.

    Python's warnings have their default: as errors they would keep Prefect from starting.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("PREFECT_") and key != "PYTHONWARNINGS"
    }
    return {**kept, **_own_prefect(folder)}


def prefect_server_environment(database: Path, password: str) -> dict[str, str]:
    """The environment of an embedded Prefect API that keeps its runs in `database`.

    Settings of the user's own Prefect do not apply: only one run uses it.
    """
    return {
        **_environment(database.parent),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": _sqlite(database),
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_SERVER_UI_ENABLED": "false",
        # No blocks are made there, and registering their types takes a second.
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
    }


def lasting_server_environment(folder: Path, password: str) -> dict[str, str]:
    """The environment of a permanent Prefect server with its page, which keeps all in `folder`.

    The user may change the server's own settings (``PREFECT_SERVER_...``), such as its database.
    """
    theirs = {key: value for key, value in os.environ.items() if key.startswith("PREFECT_SERVER_")}
    return {
        **_environment(folder),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": _sqlite(folder / DATABASE),
        "PREFECT_SERVER_UI_ENABLED": "true",
        **theirs,
        **QUIET,
        "PREFECT_SERVER_API_AUTH_STRING": password,
    }


def lasting_database(folder: Path) -> Path | None:
    """The database of that server; None where the environment names another one."""
    named = "PREFECT_SERVER_DATABASE_CONNECTION_URL" in os.environ
    return None if named else folder / DATABASE


def worker_environment(folder: Path, url: str, password: str, home: Path) -> dict[str, str]:
    """The environment of workers, and of `prefect deploy`, for the server at `url`."""
    return {
        **_environment(folder),
        **{key: value for key, value in OURS.items() if key != "PREFECT_LOGGING_LEVEL"},
        "PREFECT_API_URL": url,
        "PREFECT_API_AUTH_STRING": password,
        **PROMPT,
        "THERMODRIFT_HOME": str(home),
    }


def service_environment(folder: Path) -> dict[str, str]:
    """The environment of a program that needs no server; it gets no password of one."""
    return _environment(folder)


def configured_server() -> tuple[str, str] | None:
    """URL and auth string of the Prefect server that the environment names, if any."""
    url = os.environ.get("PREFECT_API_URL", "")
    return (url, os.environ.get("PREFECT_API_AUTH_STRING", "")) if url else None


def _own_prefect(folder: Path) -> dict[str, str]:
    return {
        **QUIET,
        "PREFECT_HOME": str(folder),
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
    }


def _sqlite(database: Path) -> str:
    # SQLite's own URI can express every character: SQLAlchemy 2.0 ends a plain path at a question
    # mark.
    return f"sqlite+aiosqlite:///file:{quote(str(database))}?uri=true"


def prepare_prefect(home: Path) -> None:
    """Give Prefect's client our own home before Prefect is first imported.

    So a run on this machine does not depend on the user's own profiles and servers of Prefect.
    """
    for key in [key for key in os.environ if key.startswith("PREFECT_")]:
        del os.environ[key]
    os.environ.update({**_own_prefect(home), **OURS})


def is_a_deployed_run() -> bool:
    """Whether this process was started to do one flow run of a Prefect server, and nothing else."""
    return "PREFECT__FLOW_RUN_ID" in os.environ
