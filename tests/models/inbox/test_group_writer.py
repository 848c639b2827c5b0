"""One thread that writes for many, over a transaction that only counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from models.inbox.errors import InboxClosed, InvalidContent
from models.inbox.group_writer import GroupWriter
from tests.pace import PATIENCE_S, until


class Counted:
    """A transaction that notes what it is told, and fails where a test wants it to."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.fails_at = ""

    def begin(self) -> None:
        self._note("begin")

    def commit(self) -> None:
        self._note("commit")

    def rollback(self) -> None:
        self._note("rollback")

    def failure(self, error: Exception) -> Exception:
        return OSError(f"told: {error}")

    def _note(self, what: str) -> None:
        self.told.append(what)
        if what == self.fails_at:
            raise RuntimeError(what)


@contextmanager
def written(transaction: Counted, most_in_group: int = 100) -> Iterator[GroupWriter]:
    """A writer that is closed in any case."""
    writer = GroupWriter(transaction, most_in_group)
    try:
        yield writer
    finally:
        writer.close()


def held_up(writer: GroupWriter, count: int) -> None:
    """Let `count` calls wait while the first one is at work, and then go on."""
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    threads = [threading.Thread(target=writer.run, args=[hold])]
    threads += [threading.Thread(target=writer.run, args=[int]) for _ in range(count)]
    threads[0].start()
    assert begun.wait(PATIENCE_S)
    for thread in threads[1:]:
        thread.start()
    until(lambda: writer.queued == count, "every call waits")
    go_on.set()
    for thread in threads:
        thread.join()


def test_an_answer_comes_after_its_commit() -> None:
    """The caller has the answer of its work, and the commit is done."""
    transaction = Counted()
    with written(transaction) as writer:
        assert 7 == writer.run(lambda: 7)
        assert ["begin", "commit"] == transaction.told


@pytest.mark.parametrize(("most_in_group", "commits"), [(100, 1), (6, 1), (5, 2), (2, 3), (1, 6)])
def test_calls_that_wait_share_a_commit_up_to_the_bound(most_in_group: int, commits: int) -> None:
    """Six calls are committed in as few groups as the bound allows."""
    transaction = Counted()
    with written(transaction, most_in_group) as writer:
        held_up(writer, 5)
    assert ["begin", "commit"] * commits == transaction.told


@pytest.mark.parametrize("fails_at", ["begin", "commit"])
def test_every_caller_is_told_of_a_failure_and_the_next_call_works(fails_at: str) -> None:
    """The group is undone; the thread lives on."""
    transaction = Counted()
    with written(transaction) as writer:
        transaction.fails_at = fails_at
        with pytest.raises(OSError, match=f"told: {fails_at}"):
            writer.run(int)
        assert "rollback" == transaction.told[-1]
        transaction.fails_at = ""
        assert 7 == writer.run(lambda: 7)


def test_a_refusal_fails_its_own_call_and_undoes_nothing() -> None:
    """It came before the work had changed anything, so the commit goes on."""
    transaction = Counted()

    def refuse() -> None:
        raise InvalidContent("no")

    with written(transaction) as writer:
        with pytest.raises(InvalidContent, match="no"):
            writer.run(refuse)
        assert ["begin", "commit"] == transaction.told


def test_closing_finishes_what_waits() -> None:
    """Calls that were taken before are answered, and later ones are refused."""
    transaction = Counted()
    writer = GroupWriter(transaction, 1)
    begun, go_on, answers = threading.Event(), threading.Event(), []

    def hold() -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    holder = threading.Thread(target=writer.run, args=[hold])
    waiting = threading.Thread(target=lambda: answers.append(writer.run(lambda: 7)))
    closer = threading.Thread(target=writer.close)
    holder.start()
    assert begun.wait(PATIENCE_S)
    waiting.start()
    until(lambda: writer.queued == 1, "the call waits")
    closer.start()
    until(lambda: writer.queued == 2, "the end waits behind it")
    with pytest.raises(InboxClosed, match="open it again"):
        writer.run(int)
    go_on.set()
    for thread in (holder, waiting, closer):
        thread.join()
    assert [7] == answers
    writer.close()
