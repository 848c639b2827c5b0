"""The watched process: heard, noticed when it dies or falls silent, never left behind."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil  # type: ignore[import-untyped]  # it publishes no types
import pytest

from power.devices.supervised_process import ChildProcess, Supervisor

BOUND_S = 60.0
"""Longer than anything here takes; a test that reaches it has failed."""
TALKS = "import sys\nprint('hello', flush=True)\nsys.stdin.read()"
SILENT = "import sys\nsys.stdin.read()"
DEAF = "import signal, time\nprint('hello', flush=True)\nsignal.pause()"


class Clock:
    """A clock that moves when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """A clock at 100 s."""
    return Clock()


@contextmanager
def watched(program: str, clock: Clock) -> Iterator[Supervisor[str]]:
    """A watched Python program that says 'hello' when it is well."""
    one = Supervisor(
        [sys.executable, "-c", program],
        lambda line: line if line in {"hello", "poorly"} else None,
        lambda message: message == "hello",
        clock=clock,
        hang_s=10.0,
        start_s=30.0,
    )
    try:
        yield one
    finally:
        # Some of the programs are deaf: there is no use in waiting for them to listen.
        one.close(0.2)


def test_what_it_says_is_heard_with_its_time(clock: Clock) -> None:
    """A message is handed out, the same object until there is a newer one."""
    with watched(TALKS, clock) as one:
        one.start(clock())
        assert one.wait_for_news(BOUND_S)
        heard = one.look(clock())
        assert ("hello", 100.0, None) == (heard.message, heard.at_s, heard.failure)
        assert not one.wait_for_news(0)
        assert heard.message is one.look(clock()).message


def test_looking_starts_it_and_never_waits(clock: Clock) -> None:
    """Before the first message there is none, and no failure either."""
    with watched(SILENT, clock) as one:
        heard = one.look(clock())
        assert (None, 100.0, None) == (heard.message, heard.at_s, heard.failure)
        assert one.pid is not None


def test_one_that_dies_is_told_with_its_last_words_and_started_again(clock: Clock) -> None:
    """After a pause on the clock there is a new process, and its message ends the trouble."""
    with watched("print('hello'); print('ouch'); raise SystemExit(3)", clock) as one:
        one.start(clock())
        pids = {one.pid}
        while one.look(clock()).failure is None:
            assert one.wait_for_news(BOUND_S)
        assert "died (exit code 3: ouch)" in str(one.look(clock()).failure)
        assert "hello" == one.look(clock()).message
        assert one.pid is None
        clock.now_s += 1.0
        one.look(clock())
        pids.add(one.pid)
        assert 2 == len(pids)


def test_a_message_of_a_dead_process_keeps_the_time_it_was_heard(clock: Clock) -> None:
    """A restart must not make an old message look new."""
    with watched("print('hello'); raise SystemExit(1)", clock) as one:
        one.start(clock())
        while one.pid is not None:
            assert one.wait_for_news(BOUND_S)
            one.look(clock())
        clock.now_s += 50.0
        heard = one.look(clock())
        assert 100.0 == heard.at_s
        # Nor is the new process blamed for the silence before it was there.
        assert "died (exit code 1)" in str(heard.failure)


def test_the_pauses_before_a_restart_grow_and_being_well_ends_that(clock: Clock) -> None:
    """1, 2, 4 ... seconds while it is poorly; 1 again after it was well."""

    def pauses(program: str, times: int) -> list[float]:
        found = []
        with watched(program, clock) as one:
            for _ in range(times):
                one.look(clock())
                _until_gone(one, clock)
                began_s = clock.now_s
                while one.pid is None:
                    clock.now_s += 0.5
                    one.look(clock())
                found.append(clock.now_s - began_s)
                _until_gone(one, clock)
        return found

    assert [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] == pauses("print('poorly')", 8)
    assert [1.0, 1.0] == pauses("print('hello')", 2)


def _until_gone(one: Supervisor[str], clock: Clock) -> None:
    pid = one.pid
    if pid is not None:
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], BOUND_S)
    while one.pid is not None:
        one.wait_for_news(0.01)
        one.look(clock())


def test_one_that_says_why_and_ends_well_has_not_failed(clock: Clock) -> None:
    """An answer followed by a clean end is an answer."""
    with watched("print('poorly')", clock) as one:
        one.look(clock())
        _until_gone(one, clock)
        heard = one.look(clock())
        assert ("poorly", None) == (heard.message, heard.failure)


def test_one_that_ends_well_without_a_word_has_failed(clock: Clock) -> None:
    """Silence and exit code 0 is no answer."""
    with watched("pass", clock) as one:
        one.look(clock())
        _until_gone(one, clock)
        assert "died (exit code 0)" in str(one.look(clock()).failure)


@pytest.mark.parametrize(
    ("program", "silence_s"), [(DEAF, 10.1), (SILENT, 30.1)], ids=["after a word", "from the start"]
)
def test_one_that_falls_silent_is_killed_reaped_and_replaced(
    clock: Clock, program: str, silence_s: float
) -> None:
    """The look that notices says so at once; nothing is left behind; another one is started."""
    with watched(program, clock) as one:
        one.start(clock())
        if program is DEAF:
            assert one.wait_for_news(BOUND_S)
        process = psutil.Process(one.pid)
        clock.now_s += silence_s - 0.2
        assert one.look(clock()).failure is None
        clock.now_s += 0.2
        assert f"sent nothing for {silence_s:.0f} s" in str(one.look(clock()).failure)
        _until_gone(one, clock)
        assert not process.is_running()
        assert "sent nothing" in str(one.look(clock()).failure)
        clock.now_s += 1.0
        one.look(clock())
        assert one.pid not in {None, process.pid}


def test_a_program_that_cannot_be_started_is_a_failure_and_not_an_exception(clock: Clock) -> None:
    """The caller is told and goes on; the next try waits for its pause."""
    one: Supervisor[str] = Supervisor(
        ["/nowhere/at/all"], str, bool, clock=clock, hang_s=1.0, start_s=math.inf
    )
    failure = one.look(clock()).failure
    assert failure is not None
    assert "cannot be started" in failure
    assert failure == one.look(clock()).failure
    one.close(0)


def test_a_closed_one_is_never_started_again(clock: Clock) -> None:
    """After close there is no process, whoever looks."""
    with watched(TALKS, clock) as one:
        one.start(clock())
        process = psutil.Process(one.pid)
        one.close(BOUND_S)
        assert not process.is_running()
        one.look(clock() + 1000)
        assert one.pid is None


def test_one_that_does_not_end_when_asked_is_killed() -> None:
    """Closing is bounded by the patience that it is given."""
    spoke, ended = threading.Event(), threading.Event()
    codes = []

    def hear(line: str) -> bool:
        spoke.set()
        return True

    def end(code: int, words: str) -> None:
        codes.append(code)
        ended.set()

    child = ChildProcess([sys.executable, "-c", DEAF], hear, end)
    assert spoke.wait(BOUND_S)
    # Ctrl-C in the terminal reaches a session: the child is in one of its own.
    assert os.getsid(0) != os.getsid(child.pid)
    child.stop(0.05)
    assert ended.wait(BOUND_S)
    assert [-signal.SIGKILL] == codes


def test_it_ends_when_its_parent_is_killed() -> None:
    """A parent that dies without a word leaves no process behind."""
    parent_program = (
        "import sys, time\n"
        "from power.devices.supervised_process import ChildProcess\n"
        f"child = ChildProcess([sys.executable, '-c', {TALKS!r}], lambda line: True, print)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", parent_program], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
        gone, alive = psutil.wait_procs([child], BOUND_S)
    assert ([child], []) == (gone, alive)
