"""Monitor the machine's devices during a run: a thread reads them for the gate and the forecast.

The thread takes a snapshot whenever the adapter has news, so that the thermostat sees every reading
and the forecast learns from each, not only when a caller asks. What is known of the devices is
stored in the home. The monitor decides nothing: gate and forecast do.

If an adapter raises an error, its driver counts as unreadable, and it is called again. If the
thread dies, its last snapshot does no harm: readings grow old, and each caller takes a new one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

from power.core.device_readings import DeviceReading, DeviceSnapshot
from power.core.gate_config import GateConfig
from power.devices.device import Device, DeviceAdapter
from power.forecast import device_state_file, forecast
from power.forecast.config import ForecastConfig
from power.forecast.forecast import ForecastCheck, ThermalState
from power.policy import gate
from power.policy.gate import GateResult, GateState

MOST_CHECKS = 10_000
"""How many checks of forecasts are kept for the next caller: the newest."""
_READING_TIMEOUT_S, _LONGEST_WAIT_S = 3.0, 30.0
"""For each reading that an answer needs, and for all of them."""
MOST_UNASKED = 1_000
"""How many readings before the first call of `judge` are kept for it: the newest."""
_POLL_S = 0.25
"""Between two snapshots without news, and so about how long closing takes."""
_KEEP_EVERY_S = 60.0


class ForecastTrial(NamedTuple):
    """A check of a forecast of a device."""

    uuid: str
    checked: ForecastCheck


class MonitorView(NamedTuple):
    """A snapshot of the devices, with the results of the gate and the forecast."""

    survey: DeviceSnapshot
    judged: GateResult
    known: dict[str, ThermalState]
    now_s: float
    """Seconds on the gate's clock."""
    trials: tuple[ForecastTrial, ...] = ()
    """Forecasts that were checked since the last call of `judge`."""


class DeviceMonitor:
    """Reads an adapter while it is open, in a thread. Thread-safe."""

    def __init__(
        self,
        adapter: DeviceAdapter,
        gate_config: GateConfig,
        forecast_config: ForecastConfig,
        folder: Path | None = None,
    ) -> None:
        """`folder` stores what is known of the devices between runs; None: nothing is stored."""
        self._adapter, self._gate_config, self._forecast_config, self._folder = (
            adapter,
            gate_config,
            forecast_config,
            folder,
        )
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)
        self._listeners: list[Callable[[MonitorView], None]] = []
        self._known = {} if folder is None else device_state_file.load(folder)
        self._state = GateState()
        self._unasked: list[DeviceReading] | None = []
        """The readings before the first call of `judge`, which brings the gate's memory."""
        self._seen: dict[str, DeviceReading] = {}
        self._counts: dict[str, int] = {}
        self._trials: list[ForecastTrial] = []
        self._saved_s = time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join()
        self._save()

    def judge(self, before: GateState, gate_config: GateConfig) -> MonitorView:
        """Judge a new snapshot, by `gate_config` from now on.

        It waits up to 30 s if that may change a no. `before` is the gate's memory at the start of
        this process. The method waits until each closed device has had `good_readings` readings.
        The first call also waits for two more things, which would otherwise need another process:
        for the readings after which a known device's forecast counts again, and for the end of
        `dwell_s` if nothing else keeps a device closed.
        """
        with self._lock:
            self._gate_config = gate_config
            first = self._unasked is not None
            if self._unasked is not None:
                # The memory is older than all readings of this process.
                read = DeviceSnapshot(readings=tuple(self._unasked), driver="present", because="")
                self._state = gate.judge(read, before, gate_config, time.monotonic()).state
                self._unasked = None
            view = self.view()
            began_s = view.now_s
            while self._may_change(view, gate_config, view.now_s - began_s, first=first):
                # The thread reports new readings; without it, this loop takes snapshots itself.
                self._news.wait(_POLL_S)
                view = self.view()
            trials, self._trials = self._trials, []
        return view._replace(trials=tuple(trials))

    def view(self) -> MonitorView:
        """Take a snapshot, judge it, and pass it to all listeners."""
        with self._lock:
            now_s = time.monotonic()
            snapshot = self._snapshot(now_s)
            judged = gate.judge(snapshot, self._state, self._gate_config, now_s)
            self._state = judged.state
            for reading in snapshot.readings:
                self._learn(reading)
            view = MonitorView(snapshot, judged, dict(self._known), now_s)
            for listener in self._listeners:
                listener(view)
            return view

    def device(self, uuid: str) -> Device | None:
        """Return the device as the adapter reports it; None if there is no such device."""
        with self._lock:
            return next((each for each in self._adapter.devices() if each.uuid == uuid), None)

    @contextmanager
    def subscribe(self, listener: Callable[[MonitorView], None]) -> Iterator[None]:
        """Pass every snapshot of the block to `listener`, in the thread that took it."""
        with self._lock:
            self._listeners.append(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)

    def _follow(self) -> None:
        while not self._over.is_set():
            self._adapter.wait_for_news(_POLL_S)
            # A snapshot without news matters too: readings grow old.
            view = self.view()
            if view.survey.driver == "unreadable":
                # A failing adapter may report news at once, again and again.
                self._over.wait(_POLL_S)
            if time.monotonic() - self._saved_s >= _KEEP_EVERY_S:
                self._save()

    def _snapshot(self, now_s: float) -> DeviceSnapshot:
        try:
            return self._adapter.survey(now_s)
        except Exception as error:  # noqa: BLE001 - any error of an adapter fails closed
            because = f"what reads it failed: {type(error).__name__}: {error}"
            return DeviceSnapshot(driver="unreadable", because=because)

    def _learn(self, reading: DeviceReading) -> None:
        seen = self._seen.get(reading.uuid)
        if seen is not None and seen.read_at_s == reading.read_at_s:
            # A repetition of the same reading.
            return
        self._seen[reading.uuid] = reading
        self._news.notify_all()
        if self._unasked is not None:
            self._unasked.append(reading)
            del self._unasked[:-MOST_UNASKED]
        self._counts[reading.uuid] = self._counts.get(reading.uuid, 0) + 1
        before = self._known.get(reading.uuid, ThermalState())
        learned = forecast.learn(before, reading, self._gate_config, self._forecast_config)
        self._known[reading.uuid] = learned.known
        self._trials.extend(ForecastTrial(reading.uuid, each) for each in learned.checked)
        del self._trials[:-MOST_CHECKS]

    def _may_change(
        self, view: MonitorView, gate_config: GateConfig, waited_s: float, *, first: bool
    ) -> bool:
        """Whether a few more seconds may change the answer of the gate or the forecast."""
        if view.survey.driver != "present" or waited_s >= _LONGEST_WAIT_S:
            return False
        decision = view.judged.decision
        if first and waited_s < self._forecast_config.settled_readings * _READING_TIMEOUT_S:
            read = [each.uuid for each in view.survey.readings if each.unreadable is None]
            if any(forecast.unsettled(self._known[uuid], self._forecast_config) for uuid in read):
                return True
        if first and not decision:
            counted = [
                each for each in view.judged.state.devices if each.answers_to(gate_config.uuid)
            ]
            waits_s = [gate.opens_in_s(each, gate_config, view.now_s) for each in counted]
            opens_in_s = min((each for each in waits_s if each is not None), default=math.inf)
            if waited_s + opens_in_s + _READING_TIMEOUT_S <= _LONGEST_WAIT_S:
                return True
        timeout_s = gate_config.good_readings * _READING_TIMEOUT_S
        return waited_s < timeout_s and gate.needs_readings(
            view.survey, decision, self._counts, gate_config
        )

    def _save(self) -> None:
        self._saved_s = time.monotonic()
        if self._folder is None:
            return
        with self._lock:
            known = dict(self._known)
        # What a full disk cannot store is learned again.
        with suppress(OSError):
            device_state_file.save(self._folder, known)
