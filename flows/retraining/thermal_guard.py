"""Keeps watch over a device while a fit runs on it: pauses the fit on a closed gate, or ends it.

Hears every look of the follower, lets the gate judge the device anew from open, and answers the
fit's question between two of its rounds: go on, wait, or give the device back. It decides nothing
but how long it waits, which is a knob. Where no look comes any more, the last one grows old, and
the gate closes on that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from models.batch.fit_guard import Preempted
from observability.core.decision import Decision
from power.core.device_readings import DeviceSnapshot
from power.core.gate_config import GateConfig
from power.monitoring.device_monitor import MonitorView
from power.policy import admission, gate
from power.policy.gate import GateState

_GLANCE_S = 0.25
_NOTHING_NEW = DeviceSnapshot(driver="present", because="no newer look")


class ThermalGuard:
    """The guard of one fit on one device; `hear` is called from another thread."""

    def __init__(
        self,
        uuid: str,
        state: GateState,
        limits: GateConfig,
        paused: Callable[[str], None] = lambda because: None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`state` is the gate's when the job was admitted; `paused` is told why a pause begins.

        `clock` is the one of the looks, in seconds; None: the machine's monotonic one.
        """
        self._uuid, self._limits, self._told = uuid, limits, paused
        self._clock = clock or time.monotonic
        # It was let in, by the thermostat or between its margins: what closes it now is news.
        self._state = gate.opened(state, uuid)
        self._unread: Decision | None = None
        """What the gate says where the last look had no driver to read by."""
        self._news = threading.Condition()
        self.paused_s = 0.0
        self.pauses = 0

    def on_snapshot(self, look: MonitorView) -> None:
        """Take in a look at the devices."""
        with self._news:
            judged = gate.judge(look.survey, self._state, self._limits, look.now_s)
            self._state = judged.state
            self._unread = None if look.survey.driver == "present" else judged.decision
            self._news.notify_all()

    def __call__(self, done: float, /) -> None:
        """Return while the device is open; wait while it is closed; raise GiveBack past the bound.

        `done` is the share of the fit that is done.
        """
        answer = self.answer
        if answer:
            return
        self.pauses += 1
        self._told(f"paused at {done:.0%}: {answer.because}")
        before_s, began_s = self.paused_s, self._clock()
        try:
            self._wait(done, began_s)
        finally:
            # However it ends: a signal may break it off.
            self.paused_s = before_s + self._clock() - began_s

    def _wait(self, done: float, began_s: float) -> None:
        with self._news:
            while not (answer := self.answer):
                paused_s = self._clock() - began_s
                keeps = admission.keeps_device(done, paused_s, answer, self._limits)
                if not keeps:
                    cause = keeps.facts["cause"]
                    raise Preempted(keeps.because, cause if isinstance(cause, str) else None)
                # Signals are heard between two waits.
                self._news.wait(min(_GLANCE_S, self._limits.max_pause_s - paused_s))

    @property
    def answer(self) -> Decision:
        """What the gate says of the device now."""
        with self._news:
            if self._unread is not None:
                return self._unread
            now_s = self._clock()
            judged = gate.judge(_NOTHING_NEW, self._state, self._limits, now_s)
            self._state = judged.state
            return gate.device_decision(self._state.device(self._uuid), self._limits, now_s)
