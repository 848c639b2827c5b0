"""`thermodrift up`: one box with everything, on screen, and gone without a trace."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import psutil  # type: ignore[import-untyped]  # it publishes no types
import pytest

from tests.flows.makers import ROOT, environment_of, make_pipeline, thermodrift
from tests.flows.prefect_server import PATIENCE_S, until


class Up:
    """A `thermodrift up` of a test."""

    def __init__(self, home: Path, *words: object, **environment: str) -> None:
        self.home, self.told = home, home.parent / "told"
        with self.told.open("wb") as told:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "thermodrift", "--home", str(home), "up", "--json"]
                + [str(each) for each in words],
                cwd=ROOT,
                env=environment_of(**environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=told,
                text=True,
            )

    def document(self) -> dict[str, Any]:
        """What it prints once all is up."""
        assert self.process.stdout is not None
        lines: list[str] = []
        while not lines or lines[-1] != "}\n":
            line = self.process.stdout.readline()
            assert line, self.told.read_text()
            lines.append(line)
        document: dict[str, Any] = json.loads("".join(lines))
        return document

    def family(self) -> list[psutil.Process]:
        """What it started, and what that started."""
        children: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return children


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, dict[str, Any]]]:
    """A box with a server of its own, and what it said of itself."""
    folder = tmp_path_factory.mktemp("box")
    up = Up(folder / "home", make_pipeline(folder, 300), "--port", 0)
    try:
        yield up, up.document()
    finally:
        up.process.kill()
        up.process.communicate()


def ready(told: dict[str, Any]) -> bool:
    """Whether both pools have a worker that answers."""
    basic = base64.b64encode(word(told).encode()).decode()
    request = Request(f"{told['api']}/work_pools/filter", data=b"{}", method="POST")
    request.add_header("Authorization", f"Basic {basic}")
    request.add_header("Content-Type", "application/json")
    with urlopen(request, timeout=10) as answer:
        pools = json.loads(answer.read())
    return ["READY", "READY"] == [pool["status"] for pool in pools]


def word(told: dict[str, Any]) -> str:
    """What a box's server asks for."""
    return Path(told["auth"]).read_text().strip()


def test_one_box_has_everything(box: tuple[Up, dict[str, Any]]) -> None:
    """Server, pools, deployments and workers are there, and each is told, also by `status`."""
    up, told = box
    assert {f"thermodrift-{flow}/small" for flow in ("learn", "watch", "retrain")} < set(
        told["deployments"]
    )
    assert 0o600 == Path(told["auth"]).stat().st_mode & 0o777
    with urlopen(told["server"], timeout=10) as page:
        assert b"<html" in page.read().lower()
    until(lambda: ready(told), "two workers that are ready")
    assert told["server"] in thermodrift("--home", up.home, "status").stdout


def test_a_home_is_up_once(box: tuple[Up, dict[str, Any]], tmp_path: Path) -> None:
    """A second one is told so, and may try again later."""
    up, _ = box
    again = thermodrift("--home", up.home, "up", make_pipeline(tmp_path, 10), "--port", 0)
    assert 75 == again.returncode
    assert "this home is up already" in again.stderr


def test_a_box_that_is_killed_leaves_no_worker(
    box: tuple[Up, dict[str, Any]], tmp_path: Path
) -> None:
    """It uses the server that is configured, which stays; its own processes end with it."""
    _, first = box
    path, home = make_pipeline(tmp_path, 300, name="killed"), tmp_path / "home"
    up = Up(home, path, PREFECT_API_URL=first["api"], PREFECT_API_AUTH_STRING=word(first))
    told = up.document()
    assert (first["api"], None) == (told["api"], told["auth"])
    family = up.family()
    up.process.send_signal(signal.SIGKILL)
    up.process.communicate()
    gone, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert (len(family), []) == (len(gone), alive)
    assert ready(first)


def test_a_configured_server_that_refuses_says_what_to_do(
    box: tuple[Up, dict[str, Any]], tmp_path: Path
) -> None:
    """A wrong word is told as such, with the two names to look at."""
    _, first = box
    path = make_pipeline(tmp_path, 10)
    done = thermodrift(
        "--home",
        tmp_path / "home",
        "up",
        path,
        PREFECT_API_URL=first["api"],
        PREFECT_API_AUTH_STRING="tests:guess",
    )
    assert 1 == done.returncode
    assert "401" in done.stderr
    assert "PREFECT_API_AUTH_STRING" in done.stderr


def test_a_port_that_is_taken_is_told(box: tuple[Up, dict[str, Any]], tmp_path: Path) -> None:
    """Try again later, or name another."""
    port = str(urlsplit(box[1]["api"]).port)
    path = make_pipeline(tmp_path, 10)
    done = thermodrift("--home", tmp_path / "home", "up", path, "--port", port)
    assert 75 == done.returncode
    assert f"port {port} is taken" in done.stderr


def test_ctrl_c_ends_a_box_and_leaves_nothing(box: tuple[Up, dict[str, Any]]) -> None:
    """All its processes are gone when it is; it has told of each part what became of it."""
    up, _ = box
    family = up.family()
    up.process.send_signal(signal.SIGINT)
    up.process.communicate(timeout=PATIENCE_S)
    assert 0 == up.process.returncode, up.told.read_text()
    assert ([], []) == (
        [each for each in family if each.is_running()],
        list(up.home.glob("*/up.json")),
    )
    lines = up.told.read_text()
    assert "server: running" in lines
    assert "worker thermodrift-heavy: stopped" in lines
