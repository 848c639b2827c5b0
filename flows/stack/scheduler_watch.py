"""Check whether a server's scheduler works, once, or repeatedly while `up` runs.

`flows.stack.prefect_client` reads the facts, and `observability.scheduler_health` judges them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from flows.config import settings
from flows.stack.prefect_client import Server, ServerUnavailable
from observability import scheduler_health
from observability.core.decision import Decision


def check(server: Server) -> Decision:
    """Whether it schedules what is deployed on it. Raises ServerUnavailable."""
    return scheduler_health.judge(server.seen(datetime.now(UTC)))


def describe(decision: Decision, server: Server) -> str:
    """The decision as text; with its log and the remedy where the scheduler has a problem."""
    errors = bool(decision.facts["log_errors"])
    if decision.yes and not errors:
        return decision.because
    where = f"its log: {server.log}" if server.log else f"look in the log of {server.page}"
    if decision.yes:
        return f"{decision.because}; {where}"
    remedy = (
        "What is scheduled does not start. A server that was started just now: check again in a "
        "minute. Otherwise make sure that PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED is not false "
        "where the server runs, and that its libraries are those of requirements.lock; then restart"
    )
    return f"{decision.because}; {where}. {remedy}"


class Watch:
    """The newest decision that differs from the one before; `news` returns it once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[object, ...] | None = None
        self._news: Decision | None = None

    def put(self, decision: Decision) -> None:
        """Take in a decision."""
        facts = decision.facts
        known = (decision.yes, bool(facts["waiting"]), bool(facts["log_errors"]))
        with self._lock:
            if known != self._known:
                self._known, self._news = known, decision

    def news(self) -> Decision | None:
        """A decision that was not returned yet; None where there is none."""
        with self._lock:
            news, self._news = self._news, None
        return news

    def forget(self) -> None:
        """The server was started again: the next decision counts as new."""
        with self._lock:
            self._known = self._news = None


@contextmanager
def watching(server: Server) -> Iterator[Watch]:
    """Check repeatedly inside the block, in a thread, so that nothing waits for the server."""
    watch, over = Watch(), threading.Event()
    pause_s = settings.Settings().scheduler_check_s

    def run() -> None:
        while not over.is_set():
            try:
                watch.put(check(server))
            except ServerUnavailable:
                # `up` restarts and reports a server that ended.
                watch.forget()
            over.wait(pause_s)

    threading.Thread(target=run, name="scheduler watch", daemon=True).start()
    try:
        yield watch
    finally:
        over.set()
