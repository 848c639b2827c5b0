"""The command: what it prints, how it ends, and what it refuses, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.api import server
from models.inbox.records import Answered
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from observability.core.serve_config import ServeConfig
from tests import ROOT
from tests.flows.api.makers import TOKEN, WAIT_S, Learned, held, running
from tests.flows.makers import environment_of, thermodrift
from tests.pace import until

RECORD = {"record": {"load": 0.3, "site": "a"}}


@contextmanager
def serving(learned: Learned, *options: str, **environment: str) -> Iterator[Any]:
    """The command as a user starts it, with its line of JSON."""
    words = ["--home", str(learned.home), "serve", str(learned.file), "--port", "0", "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "thermodrift", *words, *options],
        cwd=ROOT,
        env=environment_of(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        guard = threading.Timer(WAIT_S, process.kill)
        guard.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            yield process, json.loads(line)
        finally:
            guard.cancel()
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_address_answers_and_ends_on_a_signal(
    learned: Learned, number: signal.Signals
) -> None:
    """One line when it is ready, pages too; the exit code of good order; a whole log."""
    with serving(learned) as (process, said), httpx.Client(base_url=said["address"]) as client:
        assert (["small"], True) == (said["pipelines"], said["ready"])
        assert 200 == client.post("/predict", json=RECORD, timeout=WAIT_S).status_code
        page = client.get("/", follow_redirects=True, timeout=WAIT_S)
        assert "What should I do now?" in page.text
        process.send_signal(number)
        out, log = process.communicate(timeout=WAIT_S)
    assert (0, "") == (process.returncode, out)
    assert "small: serves position 600, champion v000000200\n" == log


def test_a_line_of_the_log_moves_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A name or a reason may hold escape sequences; a traceback keeps its lines."""
    server._say("small: \x1b[31mred\x07 \u202eodd\n  next \u00e9")
    assert "small: \\x1b[31mred\\x07 \\u202eodd\n  next \u00e9\n" == capsys.readouterr().err


def test_requests_in_flight_are_answered_before_it_ends(learned: Learned) -> None:
    """Those that came before the signal; none is cut off, and no new one is taken."""

    def refuses() -> bool:
        try:
            httpx.get(f"{served.url}/healthz")
        except httpx.ConnectError:
            return True
        return False

    with (
        running(learned) as served,
        served.client() as client,
        ThreadPoolExecutor(1) as callers,
    ):
        with held(served.service._workers[0]):
            asked = callers.submit(client.post, "/predict", json=RECORD)
            until(lambda: served.service.pipelines["small"].predictions.waiting, "the request")
            served.server.should_exit = True
            until(refuses, "the end of listening")
        assert 200 == asked.result().status_code


@pytest.mark.slow
def test_the_token_of_the_environment_is_asked_for(learned: Learned) -> None:
    """And it is nowhere in what is printed."""
    with serving(learned, THERMODRIFT_TOKEN=TOKEN) as (process, said):
        body = {"labels": [{"id": "a", "label": "busy"}]}
        assert 401 == httpx.post(f"{said['address']}/label", json=body).status_code
        headers = {"authorization": f"Bearer {TOKEN}"}
        assert 200 == httpx.post(f"{said['address']}/label", json=body, headers=headers).status_code
        process.terminate()
        out, log = process.communicate(timeout=WAIT_S)
    assert TOKEN not in out + log


@pytest.mark.slow
def test_what_it_cannot_do_it_refuses(learned: Learned, tmp_path: Path) -> None:
    """With the exit code and the message that say what to correct."""
    file, home = str(learned.file), ("--home", str(learned.home))
    elsewhere = thermodrift(*home, "serve", file, "--host", "0.0.0.0")
    assert (78, "") == (elsewhere.returncode, elsewhere.stdout)
    assert "there is no token" in elsewhere.stderr
    nowhere = thermodrift(*home, "serve", str(tmp_path / "no.toml"), "--port", "0")
    assert 78 == nowhere.returncode
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = thermodrift(*home, "serve", file, "--port", str(other.getsockname()[1]))
    assert 75 == taken.returncode
    assert "another process listens on 127.0.0.1 port" in taken.stderr
    twice = thermodrift(*home, "serve", file, file, "--port", "0")
    assert 78 == twice.returncode
    assert "named twice" in twice.stderr
    assert 2 == thermodrift(*home, "serve").returncode


def test_people_read_one_line_with_the_address(
    learned: Learned, capsys: pytest.CaptureFixture[str]
) -> None:
    """Programs ask for JSON."""
    with running(learned) as served:
        for as_json in (False, True):
            server._announce(served.url, served.service, as_json=as_json)
        plain, document = capsys.readouterr().out.splitlines()
    assert f"serving small on {served.url}" == plain
    assert {"address": served.url, "pipelines": ["small"], "ready": True} == json.loads(document)


def test_options_come_before_the_homes_file(tmp_path: Path) -> None:
    """What is not given is the file's; what neither says has its default."""
    home = Places(tmp_path)
    home.settings.write_text('[serve]\nport = 9000\nhosts = ["a.example.org"]\nfollow_s = 2.0\n')
    assert ServeConfig(port=9000, hosts=("a.example.org",), follow_s=2.0) == server.configured(home)
    assert 1 == server.configured(home, port=1, host=None).port
    home.settings.write_text("[serve]\nport = 70_000\n")
    with pytest.raises(BadConfiguration, match=r"serve\.port.*came: 70000"):
        server.configured(home)


@pytest.mark.parametrize("host", ["no-such-name.invalid", "192.0.2.7"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    """The message names the option."""
    with (
        pytest.raises(BadConfiguration, match=r"serve\.host"),
        server.bound(ServeConfig(host=host, port=0)),
    ):
        pass


def test_the_address_can_be_of_the_new_kind() -> None:
    """In brackets, as a browser takes it."""
    with server.bound(ServeConfig(host="::1", port=0)) as listening:
        assert server.address(listening).startswith("http://[::1]:")


def test_the_bounds_of_the_inbox_are_those_of_the_homes_file(tmp_path: Path) -> None:
    """Of three predictions that may not all wait, the oldest expires."""
    home = Places(tmp_path)
    home.settings.write_text("[serve.inbox]\nmost_waiting = 2\n", encoding="utf-8")
    inbox = server.open_inbox(home.pipeline("small"), server.configured(home).inbox)
    with contextlib.closing(inbox):
        inbox.record([Answered(id_, 1.0, {}, {}, {}) for id_ in "ab"])
        inbox.record([Answered("c", 2.0, {}, {}, {})])
        outcomes = [each.outcome for each in inbox.label([("a", 1), ("c", 1)], at=3.0)]
    assert ["expired", "joined"] == outcomes


def test_the_quick_loop_and_parser_are_used(learned: Learned) -> None:
    """They come with what is asked for, and uvicorn falls back without a word."""
    with running(learned) as served:
        options = served.server.config
        assert "httptools" in options.http_protocol_class.__module__
        loop = options.get_loop_factory()
        assert loop is not None
        assert "uvloop" in loop.__module__
