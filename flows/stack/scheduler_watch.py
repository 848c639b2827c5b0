"""Whether a server schedules: asked once, or again and again while `up` runs.

`flows.stack.prefect_client` asks, and `observability.scheduler_health` judges.
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


def asked(server: Server) -> Decision:
    """Whether it schedules what is deployed on it. Raises Unheard."""
    return scheduler_health.judge(server.seen(datetime.now(UTC)))


def describe(decision: Decision, server: Server) -> str:
    """The answer for people; with where to look and what to do, where all is not well."""
    errors = bool(decision.facts["log_errors"])
    if decision.yes and not errors:
        return decision.because
    where = f"its log: {server.log}" if server.log else f"look in the log of {server.page}"
    if decision.yes:
        return f"{decision.because}; {where}"
    remedy = (
        "What is scheduled does not start. A server that was started just now: ask again in a "
        "minute. Else see that PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED is not false where the "
        "server runs, that its libraries are those of requirements.lock, and start it again"
    )
    return f"{decision.because}; {where}. {remedy}"


class Watch:
    """The newest answer that differs from the one before; `news` returns it once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[object, ...] | None = None
        self._news: Decision | None = None

    def put(self, decision: Decision) -> None:
        """Take note of an answer."""
        facts = decision.facts
        known = (decision.yes, bool(facts["waiting"]), bool(facts["log_errors"]))
        with self._lock:
            if known != self._known:
                self._known, self._news = known, decision

    def news(self) -> Decision | None:
        """An answer that was not returned yet; None where there is none."""
        with self._lock:
            news, self._news = self._news, None
        return news

    def forget(self) -> None:
        """The server was started again: its next answer is news, whatever it is."""
        with self._lock:
            self._known = self._news = None


@contextmanager
def watching(server: Server) -> Iterator[Watch]:
    """Ask again and again inside the block, in a thread, so that nothing waits for the server."""
    watch, over = Watch(), threading.Event()
    pause_s = settings.Settings().scheduler_check_s

    def look() -> None:
        while not over.is_set():
            try:
                watch.put(asked(server))
            except ServerUnavailable:
                # `up` starts again, and reports, a server that ended.
                watch.forget()
            over.wait(pause_s)

    threading.Thread(target=look, name="clock", daemon=True).start()
    try:
        yield watch
    finally:
        over.set()
