"""Adapter for a supervised child process: it reads its messages, and restarts it when it is lost.

It is for tools that may hang for ever or crash their process, and it does not interpret the
messages. Closing the child's standard input asks it to end, which also happens when this process
dies; the child is always reaped, so nothing is left behind. Nothing here polls: a caller's `look`
supervises.
"""

from __future__ import annotations

import math
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from observability.core import parent_watch

Message = TypeVar("Message")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
"""The backoff before a restart: it doubles each time, until a message is well."""


class ChildProcess:
    """A started process. A thread calls `heard(line)` and `ended(code, last_words)`.

    `last_words` is the last line for which `heard` returned False: text that a library printed, or
    the end of a traceback.
    """

    def __init__(
        self,
        command: Sequence[str],
        heard: Callable[[str], bool],
        ended: Callable[[int, str], None],
    ) -> None:
        self._heard, self._ended = heard, ended
        # It has its own session: Ctrl-C in the terminal reaches only this process, which ends it.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def kill(self) -> None:
        """Kill it without waiting: a process that hangs in a driver may take a long time."""
        self._process.kill()

    def request_stop(self) -> None:
        """Ask it to end, without waiting."""
        parent_watch.release(self._process)

    def stop(self, patience_s: float) -> None:
        """Ask it to end, then kill it; wait at most `patience_s` for each."""
        self.request_stop()
        self._listener.join(patience_s)
        if self._listener.is_alive():
            self.kill()
            self._listener.join(patience_s)

    def _listen(self) -> None:
        last_words = ""
        with self._process:
            for line in self._process.stdout or ():
                text = line.strip()
                if text and not self._heard(text):
                    last_words = text
        self._ended(self._process.returncode, last_words)


@dataclass(frozen=True)
class Heard(Generic[Message]):
    """The last message of a supervised process, and its failure since.

    `message` is the same object until there is a newer one. `at_s` is when it was received; before
    the first message, when the process was started.
    """

    message: Message | None
    at_s: float
    failure: str | None


class Supervisor(Generic[Message]):
    """Keeps a process running, and stores its last message.

    `read` turns a line into a message, or None if it is none; `is_well` says whether a message
    reports success. A process without a message for `hang_s` seconds (`start_s` until one is well)
    is killed, and restarted once it is gone; `clock` must also be the clock of `now_s`. `news` is
    notified of each message; several processes may share it.
    """

    def __init__(
        self,
        command: Sequence[str],
        read: Callable[[str], Message | None],
        is_well: Callable[[Message], bool],
        *,
        clock: Callable[[], float],
        hang_s: float,
        start_s: float,
        news: threading.Condition | None = None,
    ) -> None:
        self._command, self._read, self._is_well = command, read, is_well
        self._clock, self._hang_s, self._start_s = clock, hang_s, start_s
        self._news = threading.Condition() if news is None else news
        self._child: ChildProcess | None = None
        self._closed = self._answered = self._was_well = self._killed = False
        self._start_at_s, self._pause_s = -math.inf, _FIRST_PAUSE_S
        self._started_at_s = 0.0
        self._heard: Heard[Message] = Heard(None, 0.0, None)
        self._shown = self._heard

    @property
    def pid(self) -> int | None:
        """The process id; None without a process."""
        with self._news:
            return None if self._child is None else self._child.pid

    def start(self, now_s: float) -> None:
        """Start the process if there is none and its backoff is over. Never waits."""
        with self._news:
            # A killed process that hangs in a driver still exists: no second one is started.
            if self._closed or self._child is not None or now_s < self._start_at_s:
                return
            self._answered = self._was_well = self._killed = False
            self._started_at_s = now_s
            if self._heard.message is None:
                self._heard = Heard(None, now_s, self._heard.failure)
            try:
                self._child = ChildProcess(self._command, self._hear, self._end)
            except OSError as error:
                self._fail(f"it cannot be started ({error})")
                self._postpone(now_s)

    def look(self, now_s: float) -> Heard[Message]:
        """Return the last message and the failure since. Starts and kills it; never waits."""
        with self._news:
            self.start(now_s)
            self._stop_if_silent(now_s)
            self._shown = self._heard
            return self._heard

    def wait_for_news(self, timeout_s: float) -> bool:
        """Wait for something that no look has returned; False after `timeout_s` seconds."""
        with self._news:
            return self._news.wait_for(self.has_news, timeout_s)

    def request_stop(self) -> None:
        """Ask the process to end, and start none again, without waiting."""
        with self._news:
            self._closed = True
            if self._child is not None:
                self._child.request_stop()

    def close(self, patience_s: float) -> None:
        """End the process, and start none again. Waits at most twice `patience_s`."""
        with self._news:
            self._closed = True
            child = self._child
        if child is not None:
            child.stop(patience_s)

    def has_news(self) -> bool:
        """Whether there is something that no look has returned."""
        now, shown = self._heard, self._shown
        return now.message is not shown.message or now.failure != shown.failure

    def _postpone(self, now_s: float) -> None:
        self._start_at_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _fail(self, failure: str) -> None:
        self._heard = Heard(self._heard.message, self._heard.at_s, failure)

    def _hear(self, line: str) -> bool:
        message = self._read(line)
        if message is None:
            return False
        with self._news:
            self._heard = Heard(message, self._clock(), None)
            self._answered = True
            if self._is_well(message):
                self._was_well = True
                self._pause_s = _FIRST_PAUSE_S
            self._news.notify_all()
        return True

    def _end(self, code: int, last_words: str) -> None:
        with self._news:
            self._child = None
            self._postpone(self._clock())
            said_why = code == 0 and self._answered
            if not (self._killed or said_why):
                words = f": {last_words}" if last_words else ""
                self._fail(f"it died (exit code {code}{words}) and is restarted")
            self._news.notify_all()

    def _stop_if_silent(self, now_s: float) -> None:
        silent_s = now_s - max(self._started_at_s, self._heard.at_s)
        patience_s = self._hang_s if self._was_well else self._start_s
        if self._child is None or self._killed or silent_s <= patience_s:
            return
        self._killed = True
        self._fail(f"it sent nothing for {silent_s:.0f} s, was stopped and is restarted")
        self._child.kill()
