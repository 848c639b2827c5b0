"""Gathers what waits into one call of a worker thread.

While the worker is at one call, what comes meanwhile waits, and is the next call. What comes in one
turn of the event loop is one call too. So at one connection a request waits for nothing, and at
many of them one call answers many.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, NamedTuple, TypeVar

from observability.core.errors import TryAgainLater

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class QueueFull(TryAgainLater):
    """Too much waits already; nothing of the request was done."""


class _Waiting(NamedTuple, Generic[Asked, Answer]):
    asked: Asked
    size: int
    answer: asyncio.Future[Answer | Exception]


class Gatherer(Generic[Asked, Answer]):
    """Calls `work` in `worker` with everything that waits; used in one event loop.

    `work` returns an answer, or the error to raise, for each that was asked, in order. Most
    `most_together` in size are given to one call (a larger one goes alone), and most
    `most_waiting` wait.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Asked]], Sequence[Answer | Exception]],
        worker: Executor,
        most_waiting: int,
        most_together: int,
    ) -> None:
        self._work = work
        self._worker = worker
        self._most_waiting = most_waiting
        self._most_together = most_together
        self._queue: deque[_Waiting[Asked, Answer]] = deque()
        self._running: asyncio.Task[None] | None = None
        self.waiting = 0
        """The size of all that wait."""

    async def ask(self, asked: Asked, size: int) -> Answer:
        """The answer of `work`. Raises QueueFull at once where too much waits, and its error."""
        if self.waiting + size > self._most_waiting and self.waiting:
            raise QueueFull(
                f"{self.waiting} records wait for their turn, and at most {self._most_waiting} "
                "may: ask again later, or ask for fewer at once"
            )
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer | Exception] = loop.create_future()
        self._queue.append(_Waiting(asked, size, answer))
        self.waiting += size
        if self._running is None:
            # The task begins in the next turn, when all requests of this one have come.
            self._running = loop.create_task(self._run())
        found = await answer
        if isinstance(found, Exception):
            raise found
        return found

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._queue:
                taken = self._take()
                asked = [each.asked for each in taken]
                try:
                    answers = await loop.run_in_executor(self._worker, self._work, asked)
                except Exception as error:  # noqa: BLE001 - it is raised to each that asked
                    answers = [error] * len(taken)
                self.waiting -= sum(each.size for each in taken)
                for each, answer in zip(taken, answers, strict=True):
                    # A client may have gone meanwhile.
                    if not each.answer.done():
                        each.answer.set_result(answer)
        finally:
            self._running = None

    def _take(self) -> list[_Waiting[Asked, Answer]]:
        taken = [self._queue.popleft()]
        size = taken[0].size
        while self._queue and size + self._queue[0].size <= self._most_together:
            size += self._queue[0].size
            taken.append(self._queue.popleft())
        return taken
