"""Work of the laboratory on all cores: independent steps in processes, each leaving a file.

A process that works for the laboratory ends with the command, in whatever way that ends, so that no
fit goes on after a Ctrl-C or a kill.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

Tick = Callable[[str], None]
"""Called with the name of the work of which a step has ended."""


@dataclass(frozen=True)
class Work(Generic[Result]):
    """Steps that may run side by side, and a last one that needs them all. All can be pickled."""

    name: str
    first: Sequence[Callable[[], object]]
    last: Callable[[], Result]

    @property
    def steps(self) -> int:
        """How many steps it has."""
        return len(self.first) + 1


def cores() -> int:
    """How many processes work at once, unless it is said: one for each core."""
    return os.cpu_count() or 1


def done(works: Sequence[Work[Result]], jobs: int, tick: Tick = lambda _: None) -> list[Result]:
    """The results of all works, in their order; with one job in this process itself."""
    if jobs == 1:
        found = []
        for work in works:
            for step in work.first:
                step()
                tick(work.name)
            found.append(work.last())
            tick(work.name)
        return found
    # Threads of a fit in the parent would be lost in a fork.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        return _in_processes(pool, works, tick)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown()


def _in_processes(
    pool: ProcessPoolExecutor, works: Sequence[Work[Result]], tick: Tick
) -> list[Result]:
    missing = {number: len(work.first) for number, work in enumerate(works)}
    waiting: dict[Future[Any], tuple[int, bool]] = {}
    found: dict[int, Result] = {}
    for number, work in enumerate(works):
        for step in work.first:
            waiting[pool.submit(step)] = (number, False)
        if not work.first:
            waiting[pool.submit(work.last)] = (number, True)
    while waiting:
        ended, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in ended:
            number, is_last = waiting.pop(future)
            result = future.result()
            tick(works[number].name)
            if is_last:
                found[number] = result
                continue
            missing[number] -= 1
            if not missing[number]:
                waiting[pool.submit(works[number].last)] = (number, True)
    return [found[number] for number in range(len(works))]


def _begin() -> None:
    """In a process of the crew: end with the parent, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
