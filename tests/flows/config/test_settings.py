"""The environment: it names the home, sends nothing anywhere, and brings no Prefect of its own."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from flows.config import prefect_env, settings
from flows.config.settings import Settings
from tests.flows.makers import environment_of, thermodrift

CLIENT = """
import json, sys
from pathlib import Path
from flows.config import prefect_env
prefect_env.prepare_prefect(Path(sys.argv[1]))
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:4242/api"}):
    found = get_current_settings()
print(json.dumps({
    "url": found.api.url,
    "key": found.api.key.get_secret_value(),
    "home": str(found.home),
    "task_retries": found.tasks.default_retries,
    "flow_retries": found.flows.default_retries,
    "persist": found.results.persist_by_default,
    "analytics": found.server.analytics_enabled,
}))
"""


def test_the_home_is_here_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newcomer needs to set nothing; an empty variable is none."""
    monkeypatch.delenv("THERMODRIFT_HOME", raising=False)
    assert Path(".thermodrift") == Settings().home
    monkeypatch.setenv("THERMODRIFT_HOME", "")
    assert Path(".thermodrift") == Settings().home
    monkeypatch.setenv("THERMODRIFT_HOME", "/srv/thermodrift")
    assert Path("/srv/thermodrift") == Settings().home


def test_a_home_on_the_command_line_comes_before_the_environments(tmp_path: Path) -> None:
    """The real command looks where the option says, else where the variable says."""

    def home_of(*words: str) -> str:
        done = thermodrift(*words, "doctor", "--json", cwd=tmp_path, THERMODRIFT_HOME="theirs")
        told: list[dict[str, str]] = json.loads(done.stdout)
        return next(each["told"] for each in told if each["what"] == "home")

    assert home_of().startswith(f"{tmp_path / 'theirs'} is not there yet")
    assert home_of("--home", "mine").startswith(f"{tmp_path / 'mine'} is not there yet")


def test_other_peoples_telemetry_is_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """evidently and Prefect send nothing, even where a person had told them to."""
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "true")
    settings.silence_telemetry()
    assert ("1", "false") == (
        os.environ["DO_NOT_TRACK"],
        os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"],
    )


SILENCED = """
import os, sys, thermodrift
sys.argv = ["thermodrift", "--home", sys.argv[1], "status", "--json"]
try:
    thermodrift.main()
finally:
    sys.stderr.write(os.environ["DO_NOT_TRACK"] + str({"evidently", "prefect"} & set(sys.modules)))
"""


def test_telemetry_is_off_before_anything_that_has_some_is_imported(tmp_path: Path) -> None:
    """The front desk does it for every command, first of all."""
    done = subprocess.run(
        [sys.executable, "-c", SILENCED, str(tmp_path)],
        env=environment_of(),
        capture_output=True,
        text=True,
    )
    assert "1set()" == done.stderr


def test_the_embedded_server_knows_nothing_of_the_users_prefect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its environment is the user's without a single setting of theirs, and it is silent."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "postgresql://theirs")
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "true")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/theirs")
    given = prefect_env.prefect_server_environment(Path("/home/prefect/elec2.db"), "us:word")
    assert "/opt/theirs" == given["LD_LIBRARY_PATH"]
    assert "1" == given["DO_NOT_TRACK"]
    assert {
        "PREFECT_HOME": "/home/prefect",
        "PREFECT_PROFILES_PATH": "/home/prefect/profiles.toml",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_API_AUTH_STRING": "us:word",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": (
            "sqlite+aiosqlite:///file:/home/prefect/elec2.db?uri=true"
        ),
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
    } == {key: value for key, value in given.items() if key.startswith("PREFECT_")}


def test_warnings_as_errors_are_for_people_and_not_for_the_api(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A warning inside uvicorn would keep the API from starting at all."""
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    given = prefect_env.prefect_server_environment(Path("/home/p.db"), "us:word")
    assert "PYTHONWARNINGS" not in given


@pytest.mark.parametrize("name", ["ho me", "50%", "a%41b", "what?", "#1", "größe"])
def test_the_database_lies_where_it_should_whatever_the_home_is_called(
    tmp_path: Path, name: str
) -> None:
    """A path is no URL: what looks like a part of one in a folder's name is none."""
    database = tmp_path / name / "elec2.db"
    database.parent.mkdir()
    url = prefect_env.prefect_server_environment(database, "us:word")[
        "PREFECT_SERVER_DATABASE_CONNECTION_URL"
    ]
    named = make_url(url)
    assert ("file:", "true") == (named.database[:5] if named.database else "", named.query["uri"])
    connection = sqlite3.connect(named.database or "", uri=True)
    (listed,) = connection.execute("PRAGMA database_list").fetchall()
    connection.close()
    assert str(database) == listed[2]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Prefect's client is told in a folder and a home full of a user's own settings."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / ".prefect").mkdir()
    (folder / ".prefect" / "profiles.toml").write_text(
        'active = "theirs"\n[profiles.theirs]\n'
        'PREFECT_API_URL = "http://127.0.0.1:9/api"\nPREFECT_API_KEY = "of the profile"\n'
    )
    (folder / ".env").write_text(
        "PREFECT_API_URL=http://127.0.0.1:9/api\nPREFECT_API_KEY=of-dot-env\n"
        "PREFECT_TASKS_DEFAULT_RETRIES=7\nPREFECT_SERVER_ANALYTICS_ENABLED=true\n"
    )
    (folder / "prefect.toml").write_text(
        "[flows]\ndefault_retries = 3\n[results]\npersist_by_default = true\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, str(folder / "ours")],
        cwd=folder,
        env=environment_of(
            HOME=str(folder),
            PREFECT_API_KEY="of the environment",
            PREFECT_HOME=str(folder / ".prefect"),
            PREFECT_PROFILE="theirs",
        ),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"folder": folder}


def test_a_run_talks_to_our_own_api_and_keeps_its_files_in_our_home(
    client: dict[str, Any],
) -> None:
    """Neither profile nor environment nor a file in the folder sends it anywhere else."""
    assert "http://127.0.0.1:4242/api" == client["url"]
    assert "" == client["key"]
    assert str(client["folder"] / "ours") == client["home"]
    assert client["analytics"] is False


def test_a_run_is_not_tried_again_and_pickles_no_result_because_a_user_likes_that(
    client: dict[str, Any],
) -> None:
    """A second try would go on from a half-changed state: each record changes the models once."""
    assert (0, 0) == (client["task_retries"], client["flow_retries"])
    assert client["persist"] is False


@pytest.mark.parametrize("told", [None, "", "0,2"])
def test_devices_are_those_that_cuda_may_use(
    monkeypatch: pytest.MonkeyPatch, told: str | None
) -> None:
    """Unset means all, and empty means none: they are not the same."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if told is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    assert told == settings.visible_devices()
