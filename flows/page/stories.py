"""The stories of a service: read when something has changed, kept, and told again while busy.

The history is one file that one process at a time can open. So it is read at most once for all who
ask, for a small share of the time, and while another process has it the last answer is told, with
its age and the reason. `Stories` is used by one thread.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.page import present
from observability.core.errors import ThermodriftError
from observability.core.paths import Places
from observability.history.store import History
from observability.story import past, story
from observability.story.past import Past
from observability.story.story import Story
from observability.story.values import Live

SHARE_READING = 0.05
"""Most of the time for which the history is open for pages: after a slow answer they wait."""
LEAST_AGE_S = 1.0
"""An answer of that age or less is told again, whatever has changed."""
GREATEST_AGE_S = 60.0
"""An answer is not told again after this, though no file has changed."""
WAIT_S = 1.0
"""So long is waited for another process of thermodrift that has the history, in seconds."""

Serves = Callable[[str], Mapping[str, Any]]
"""What the service answers with, by pipeline."""
Stamp = tuple[object, ...]


@dataclass(frozen=True)
class _Kept:
    past: Past
    stamp: Stamp
    metric: str
    read_s: float
    """By the clock."""


class Stories:
    """The stories of the pipelines of one home. One thread at a time may call it."""

    def __init__(
        self,
        home: Places,
        files: Mapping[str, Path | None],
        serves: Serves | None = None,
        wait_s: float = WAIT_S,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`files` are the pipelines' TOML files by name, where they are known.

        `wait_s` is how long another process of thermodrift that has the history is waited for.
        """
        self.home = home
        self.files = dict(files)
        self._serves = serves
        self._wait_s = wait_s
        self._clock = clock
        self._now = now
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._failed: tuple[float, str] | None = None

    def tell(self, name: str, reach: str = "all") -> Story:
        """The newest story that can be told of a pipeline, at once or within some seconds."""
        now = self._now()
        serves = None if self._serves is None else self._serves(name)
        live = present.look(self.home, name, now, self.files.get(name), serves)
        found, trouble = self._read(name, reach, live, now)
        return story.tell(found, replace(live, stale_because=trouble), now)

    def decision(self, name: str, key: str) -> tuple[str, list[Mapping[str, Any]]]:
        """The SQL and the rows of a decision. Raises ValueError, and as `History.ask` does."""
        history = self._history()
        if history is None:
            return "", []
        sql, rows = past.decision(history, name, key)
        return sql, list(rows)

    def _read(self, name: str, reach: str, live: Live, now: datetime) -> tuple[Past, str]:
        """The past, and why it is not the newest; empty: it is."""
        kept, stamp = self._kept.get((name, reach)), self._stamp()
        if kept is not None and self._is_good(kept, stamp, live.metric):
            return kept.past, ""
        nothing = Past.nothing(name, live.metric, now, reach)
        if self._failed is not None and self._clock() - self._failed[0] <= LEAST_AGE_S:
            return (nothing if kept is None else kept.past), self._failed[1]
        try:
            history = self._history()
            if history is None:
                return nothing, ""
            found = past.read(history, name, live.metric, now, reach)
        except ThermodriftError as error:
            self._failed = (self._clock(), str(error))
            return (nothing if kept is None else kept.past), str(error)
        self._failed = None
        # What was read may have flushed commits, so the files are looked at again.
        self._kept[(name, reach)] = _Kept(found, self._stamp(), live.metric, self._clock())
        return found, ""

    def _is_good(self, kept: _Kept, stamp: Stamp, metric: str) -> bool:
        age_s = self._clock() - kept.read_s
        if metric != kept.metric:
            return False
        if age_s <= max(LEAST_AGE_S, kept.past.took_s / SHARE_READING):
            return True
        return stamp == kept.stamp and age_s <= GREATEST_AGE_S

    def _history(self) -> History | None:
        """A handle of the history; None before it has begun: no page must begin it."""
        history = History(self.home.home, timeout_s=self._wait_s)
        known = (self.home.history, self.home.watermark, self.home.outbox)
        is_here = history.where == str(self.home.history.absolute())
        return None if is_here and not any(each.exists() for each in known) else history

    def _stamp(self) -> Stamp:
        """What changes when the history does: its file, and the commits that wait."""
        waiting = sorted(each.name for each in self.home.outbox.glob("*.json"))
        try:
            found = self.home.history.stat()
        except OSError:
            return (None, *waiting)
        return (found.st_mtime_ns, found.st_size, *waiting)


def stamp_of(told: Story) -> str:
    """A text that changes with what a story tells, and not with its age."""
    live = replace(told.live, serves=None, waiting_commits=0)
    content = repr((told.past.told_at, live, [(a.state, a.commands) for a in told.answers]))
    return hashlib.sha256(content.encode()).hexdigest()[:16]
