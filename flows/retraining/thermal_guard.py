"""The thermal guard pauses or preempts a fit when the gate of its device closes.

It receives every view of the device monitor, lets the gate judge the device, and is called by the
fit between two rounds: the fit goes on, waits, or gives the device back. How long it waits is a
knob. Where no newer view comes, the last reading becomes stale, and the gate closes for that.
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

_POLL_S = 0.25
_NO_READINGS = DeviceSnapshot(driver="present", because="no newer reading")


class ThermalGuard:
    """The guard of one fit on one device; `on_snapshot` is called from another thread."""

    def __init__(
        self,
        uuid: str,
        state: GateState,
        limits: GateConfig,
        paused: Callable[[str], None] = lambda because: None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`state` is the gate's at admission; `paused` is called with the reason of each pause.

        `clock` is the one of the views, in seconds; None: the machine's monotonic one.
        """
        self._uuid, self._limits, self._on_pause = uuid, limits, paused
        self._clock = clock or time.monotonic
        # The fit was admitted, perhaps between the two margins: the guard starts with an open gate.
        self._state = gate.opened(state, uuid)
        self._unread: Decision | None = None
        """The gate's answer where the last view had no readable driver."""
        self._changed = threading.Condition()
        self.paused_s = 0.0
        self.pauses = 0

    def on_snapshot(self, view: MonitorView) -> None:
        """Take in a view of the devices."""
        with self._changed:
            judged = gate.judge(view.survey, self._state, self._limits, view.now_s)
            self._state = judged.state
            self._unread = None if view.survey.driver == "present" else judged.decision
            self._changed.notify_all()

    def __call__(self, done: float, /) -> None:
        """Return while the device is open; wait while it is closed; raise Preempted past the bound.

        `done` is the share of the fit that is done.
        """
        answer = self.answer
        if answer:
            return
        self.pauses += 1
        self._on_pause(f"paused at {done:.0%}: {answer.because}")
        before_s, began_s = self.paused_s, self._clock()
        try:
            with self._changed:
                while not (answer := self.answer):
                    paused_s = self._clock() - began_s
                    keeps = admission.keeps_device(done, paused_s, answer, self._limits)
                    if not keeps:
                        cause = keeps.facts["cause"]
                        raise Preempted(keeps.because, cause if isinstance(cause, str) else None)
                    # Signals are handled between two waits.
                    self._changed.wait(min(_POLL_S, self._limits.max_pause_s - paused_s))
        finally:
            # A signal may interrupt the wait.
            self.paused_s = before_s + self._clock() - began_s

    @property
    def answer(self) -> Decision:
        """The gate's answer about the device now."""
        with self._changed:
            if self._unread is not None:
                return self._unread
            now_s = self._clock()
            judged = gate.judge(_NO_READINGS, self._state, self._limits, now_s)
            self._state = judged.state
            return gate.device_decision(self._state.device(self._uuid), self._limits, now_s)
