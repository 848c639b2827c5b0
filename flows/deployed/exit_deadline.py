"""A run's process ends within a bound, also where Prefect's server is dead or slow.

Prefect's client tries for more than ten minutes to report to a server how a run ended, and holds
the worker's slot meanwhile. So the process ends after `Settings.exit_within_s`. The server then
shows the run as crashed, and the next run reports how it really ended
(`flows.deployed.pending_states`).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flows.config import prefect_env, settings
from observability.core.errors import TryAgainLater

_timers: list[threading.Timer] = []


@contextmanager
def exit_within() -> Iterator[None]:
    """Once the block is left, by a return or an error, this process ends within the bound.

    This holds only for a process that does this one run and nothing else. `cancel` cancels it.
    """
    bound_s = settings.Settings().exit_within_s

    def leave() -> None:
        told = (
            f"thermodrift: Prefect's server did not answer within {bound_s:g} s when this run "
            "ended; what it did is on disk, and the next run goes on from it\n"
        )
        os.write(sys.stderr.fileno(), told.encode())
        os._exit(TryAgainLater.exit_code)

    try:
        yield
    finally:
        if prefect_env.is_a_deployed_run():
            timer = threading.Timer(bound_s, leave)
            timer.daemon = True
            timer.start()
            _timers.append(timer)


def cancel(flow: Any, run: Any, state: Any) -> None:
    """Prefect calls this hook once the server knows how the run ended."""
    while _timers:
        _timers.pop().cancel()
