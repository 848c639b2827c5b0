"""Signals: the first asks, work that may be broken off is, and who does not hear is ended."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from flows.run.shutdown import Stop, StopRequested

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def handlers_stay() -> Iterator[None]:
    """Whatever a test does, the process hears signals afterwards as it did before."""
    before = [signal.getsignal(number) for number in SIGNALS]
    threads = threading.active_count()
    yield
    assert before == [signal.getsignal(number) for number in SIGNALS]
    assert -1 == signal.set_wakeup_fd(-1)
    assert threads == threading.active_count()


def make_stop(hard_end_s: float = 5.0, ended: threading.Event | None = None) -> Stop:
    """A Stop whose hard end is an event."""
    return Stop(hard_end_s, (ended or threading.Event()).set)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks(number: signal.Signals) -> None:
    """Nothing is broken off: whoever asks is told, and ends when it suits."""
    stop = make_stop()
    with stop.listening():
        assert not stop()
        signal.raise_signal(number)
        assert stop()
    assert stop()


@pytest.mark.parametrize("number", SIGNALS)
def test_breakable_work_is_broken_off(number: signal.Signals) -> None:
    """A fit or a report ends in the middle, with an exception that no library takes for its own."""
    stop, reached = make_stop(), []

    def work() -> None:
        try:
            signal.raise_signal(number)
            reached.append("the rest of the work")
        except Exception:  # noqa: BLE001 - a library that swallows everything it can
            reached.append("swallowed")

    with stop.listening(), pytest.raises(StopRequested), stop.breakable():
        work()
    assert [] == reached
    assert stop()


def test_work_after_a_breakable_block_is_not_broken_off() -> None:
    """A checkpoint that is being written is written to its end."""
    stop = make_stop()
    with stop.listening():
        with stop.breakable():
            pass
        signal.raise_signal(signal.SIGTERM)
        assert stop()


def test_work_that_fails_is_not_breakable_any_more() -> None:
    """The block was left by an error, and still it was left."""
    stop = make_stop()
    with stop.listening():
        with pytest.raises(ZeroDivisionError), stop.breakable():
            raise ZeroDivisionError
        signal.raise_signal(signal.SIGTERM)
        assert stop()


def test_breakable_work_is_not_begun_after_the_signal() -> None:
    """Whoever was asked to stop before a fit does not begin it."""
    stop, begun = make_stop(), []
    with stop.listening():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopRequested), stop.breakable():
            begun.append("a fit")
    assert [] == begun


@pytest.mark.parametrize("first", SIGNALS)
def test_a_second_interrupt_ends_at_once(first: signal.Signals) -> None:
    """A person who presses Ctrl-C again means it."""
    stop = make_stop()
    with stop.listening():
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("first", SIGNALS)
def test_a_second_termination_changes_nothing(first: signal.Signals) -> None:
    """Schedulers send SIGTERM to a process and to its group: once is what is meant."""
    stop = make_stop()
    with stop.listening():
        signal.raise_signal(first)
        signal.raise_signal(signal.SIGTERM)
        assert stop()


@pytest.mark.parametrize("number", SIGNALS)
def test_whoever_does_not_hear_is_ended_after_the_bound(number: signal.Signals) -> None:
    """The hard end comes from another thread: the main one may be deep in a library."""
    ended = threading.Event()
    with make_stop(hard_end_s=0.01, ended=ended).listening():
        signal.raise_signal(number)
        assert ended.wait(120)


def test_whoever_ends_in_time_is_not_ended() -> None:
    """The bound is for the block alone: what follows it is not cut short."""
    ended = threading.Event()
    with make_stop(ended=ended).listening():
        signal.raise_signal(signal.SIGTERM)
    assert not ended.is_set()


@pytest.mark.parametrize(
    ("numbers", "ends"),
    [([], False), ([signal.SIGUSR1, signal.SIGCHLD], False), ([signal.SIGUSR1, *SIGNALS], True)],
)
def test_the_bound_counts_from_a_signal_to_stop_and_from_no_other(
    numbers: list[signal.Signals], ends: bool
) -> None:
    """A child that ends, or a signal of a library's own, is no reason to end the process."""
    ended = threading.Event()
    heard, tell = socket.socketpair()
    tell.send(bytes(numbers))
    tell.close()
    with heard:
        make_stop(hard_end_s=0.0, ended=ended)._watch(heard)
    assert ends == ended.is_set()


def test_an_error_in_the_block_gives_the_signals_back() -> None:
    """Handlers are restored however the block is left (the fixture looks)."""
    with pytest.raises(ZeroDivisionError), make_stop().listening():
        raise ZeroDivisionError


def test_an_inner_stop_hears_and_the_outer_one_hears_again_afterwards() -> None:
    """The command listens around the flow, which listens itself."""
    outer, inner = make_stop(), make_stop()
    with outer.listening():
        with inner.listening():
            signal.raise_signal(signal.SIGTERM)
        assert inner()
        assert not outer()
        signal.raise_signal(signal.SIGTERM)
        assert outer()


@pytest.mark.parametrize("number", SIGNALS)
def test_an_inner_stop_knows_what_the_outer_one_has_heard(number: signal.Signals) -> None:
    """A signal that comes while the flow is still being imported is not lost."""
    outer, inner = make_stop(), make_stop()
    with outer.listening():
        signal.raise_signal(number)
        with inner.listening():
            assert inner()
            with pytest.raises(StopRequested), inner.breakable():
                pass


def test_only_the_main_thread_can_listen() -> None:
    """Another thread is refused, and nothing is left behind by the attempt."""
    refused: list[Exception] = []

    def listen() -> None:
        try:
            with make_stop().listening():
                pass
        except ValueError as error:
            refused.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert 1 == len(refused)
