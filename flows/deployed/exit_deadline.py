"""A run's end within a bound: what it did is on disk, and Prefect's server is dead or slow.

Prefect's client tries for more than ten minutes to tell a server how a run ended, and holds the
worker's slot meanwhile. Nothing of ours waits for that: after `BOUND_S` the process ends. The run
then shows as crashed, and what it did is found in the home by the next one.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flows.config import prefect_env
from observability.core.errors import TryAgainLater

BOUND_S = 30.0
"""Seconds from the end of a run's work to the end of its process."""

_leaving: list[threading.Timer] = []


@contextmanager
def bounded(bound_s: float = BOUND_S) -> Iterator[None]:
    """When the block is left, however it is, this process ends within `bound_s` seconds.

    Only where the process is there for this one run; `said` calls it off.
    """
    try:
        yield
    finally:
        if prefect_env.is_a_deployed_run():
            timer = threading.Timer(bound_s, _leave, (bound_s,))
            timer.daemon = True
            timer.start()
            _leaving.append(timer)


def said(flow: Any, run: Any, state: Any) -> None:
    """The server has heard how the run ended: a hook for Prefect to call."""
    while _leaving:
        _leaving.pop().cancel()


def _leave(bound_s: float) -> None:
    told = (
        f"thermodrift: Prefect's server did not hear within {bound_s:g} s how this run ended; what "
        "it did is on disk, and the next run goes on from it\n"
    )
    os.write(sys.stderr.fileno(), told.encode())
    os._exit(TryAgainLater.exit_code)
