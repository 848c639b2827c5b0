"""Keeps watch over a device while a fit runs on it: pauses the fit on a closed gate, or ends it.

Hears every look of the follower, lets the gate judge the device anew from open, and answers the
fit's question between two of its rounds: go on, wait, or give the device back. It decides nothing
but how long it waits, which is a knob.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flows.follower import Look
from models.guard import GiveBack
from observability.decision import Decision
from power import gate
from power.gate import GateLimits, GateState

_GLANCE_S = 0.25


class Vigil:
    """The guard of one fit on one device; `hear` is called from another thread."""

    def __init__(
        self,
        uuid: str,
        state: GateState,
        limits: GateLimits,
        paused: Callable[[str], None] = lambda because: None,
    ) -> None:
        """`state` is the gate's when the job was admitted; `paused` is told why a pause begins."""
        self._uuid, self._limits, self._told = uuid, limits, paused
        # It was let in, by the thermostat or between its margins: what closes it now is news.
        self._state = gate.opened(state, uuid)
        self._answer = gate.answer_of(self._state.device(uuid), limits, 0.0)
        self._news = threading.Condition()
        self.paused_s = 0.0
        self.pauses = 0

    def hear(self, look: Look) -> None:
        """Take in a look at the devices."""
        with self._news:
            judged = gate.judge(look.survey, self._state, self._limits, look.now_s)
            self._state = judged.state
            self._answer = (
                gate.answer_of(self._state.device(self._uuid), self._limits, look.now_s)
                if look.survey.driver == "present"
                else judged.decision
            )
            self._news.notify_all()

    def __call__(self, done: float, /) -> None:
        """Return while the device is open; wait while it is closed; raise GiveBack past the bound.

        `done` is the share of the fit that is done.
        """
        if self.answer:
            return
        self.pauses += 1
        self._told(f"paused at {done:.0%}: {self.answer.because}")
        began_s = time.monotonic()
        before_s = self.paused_s
        while not (answer := self.answer):
            lasted_s = time.monotonic() - began_s
            self.paused_s = before_s + lasted_s
            if lasted_s >= self._limits.max_pause_s:
                raise GiveBack(
                    f"a fit that was {done:.0%} done paused for {lasted_s:.0f} s of at most "
                    f"{self._limits.max_pause_s:g} s (max_pause_s) and gives the device back: "
                    f"{answer.because}"
                )
            with self._news:
                # Signals are heard between two waits.
                self._news.wait(min(_GLANCE_S, self._limits.max_pause_s - lasted_s))
        self.paused_s = before_s + time.monotonic() - began_s

    @property
    def answer(self) -> Decision:
        """What the gate says of the device now."""
        with self._news:
            return self._answer
