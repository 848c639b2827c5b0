"""One thread writes for many: the calls that wait while a commit is on its way share the next one.

A commit waits for the disk, and waiting once for a hundred calls costs what waiting once for one
does. A call returns when the commit that holds its own work is done, and never before. Nothing here
knows SQL, or what the work is.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from models.inbox.errors import InboxClosed
from observability.core.errors import ThermodriftError

Answer = TypeVar("Answer")


class Transaction(Protocol):
    """What the thread writes to."""

    def begin(self) -> None:
        """Begin a transaction."""

    def commit(self) -> None:
        """Make durable what was done since `begin`."""

    def rollback(self) -> None:
        """Undo what was done since `begin`; also where nothing was begun."""

    def failure(self, error: Exception) -> Exception:
        """Return what a caller is told of an error that ended its transaction."""


class _Job:
    """A call that waits for its commit."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.future: Future[Any] = Future()
        self.answer: Any = None
        self.refusal: ThermodriftError | None = None

    def run(self) -> None:
        # A refusal comes before the work has changed anything: the others' work is not undone.
        try:
            self.answer = self.work()
        except ThermodriftError as error:
            self.refusal = error

    def settle(self) -> None:
        if self.refusal is not None:
            self.future.set_exception(self.refusal)
        else:
            self.future.set_result(self.answer)


class GroupWriter:
    """The thread, and the queue of the calls that wait for it."""

    def __init__(self, transaction: Transaction, most_in_group: int) -> None:
        self._transaction = transaction
        self._most_in_group = most_in_group
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        # A process that ends without closing is like a killed one: what was acknowledged is there.
        self._thread = threading.Thread(target=self._serve, name="inbox-writer", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """How many calls wait for the thread, without those of the group that it is at."""
        return self._queue.qsize()

    def run(self, work: Callable[[], Answer]) -> Answer:
        """Do `work` in the thread and return its answer, after the commit.

        Work that raises a ThermodriftError must have changed nothing: that call alone fails. After
        any other error the whole group is undone, and each of its calls raises `failure`. Raises
        InboxClosed after `close`.
        """
        job = _Job(work)
        with self._closing:
            if self._closed:
                raise InboxClosed("the inbox is closed: open it again to write into it")
            self._queue.put(job)
        answer: Answer = job.future.result()
        return answer

    def close(self) -> None:
        """Finish what waits, and end the thread. It may be called twice."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (job := self._queue.get()) is not None:
            self._commit_group(job)

    def _commit_group(self, first: _Job) -> None:
        group = [first]
        try:
            self._transaction.begin()
            first.run()
            while len(group) < self._most_in_group and (job := self._next_waiting()) is not None:
                group.append(job)
                job.run()
            self._transaction.commit()
        except Exception as error:  # noqa: BLE001 - each caller is told, and the thread lives on
            self._transaction.rollback()
            for job in group:
                job.future.set_exception(self._transaction.failure(error))
        else:
            for job in group:
                job.settle()

    def _next_waiting(self) -> _Job | None:
        try:
            job = self._queue.get_nowait()
        except queue.Empty:
            return None
        if job is None:
            self._queue.put(None)  # The end is the last entry, and stays it.
        return job
