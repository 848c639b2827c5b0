"""Follows the machine's devices while a run goes on: reads them, lets the gate judge, and learns.

A thread looks whenever the door has news, so that the thermostat sees its readings in a row and the
forecast learns from each, not only from those of the moments in which somebody asks. What is known
of the devices is kept in the home. It decides nothing: gate and forecast do.

A door that fails is a driver that does not answer, and is asked again. Should the thread die all
the same, nobody goes on by its last look: readings grow old, and whoever asks looks for himself.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

from power.core.device_readings import GpuReading, Survey
from power.core.gate_config import GateLimits
from power.devices.device import Device, Door
from power.forecast import device_state_file, forecast
from power.forecast.config import ForecastRules
from power.forecast.forecast import Checked, Known
from power.policy import gate
from power.policy.gate import GateState, Judged

MOST_CHECKS = 10_000
"""Checks of forecasts that wait to be asked for; a run that never asks keeps the newest."""
_PATIENCE_S, _LONGEST_WAIT_S = 3.0, 30.0
"""For each reading that an answer needs, and for all that it needs."""
MOST_UNASKED = 1_000
"""Readings before the first question that count for it; a run that never asks keeps the newest."""
_GLANCE_S = 0.25
"""Between two looks where nothing is new, and so about how long closing takes."""
_KEEP_EVERY_S = 60.0


class Trial(NamedTuple):
    """A forecast of a device that a reading was the test of."""

    uuid: str
    checked: Checked


class Look(NamedTuple):
    """What was seen of the devices at one moment, and what the gate and the forecast make of it."""

    survey: Survey
    judged: Judged
    known: dict[str, Known]
    now_s: float
    """Seconds on the gate's clock."""
    trials: tuple[Trial, ...] = ()
    """Forecasts that were checked since the last question."""


class Follower:
    """Reads a door for as long as it is open; whoever asks gets the last look. Thread-safe."""

    def __init__(
        self, door: Door, limits: GateLimits, rules: ForecastRules, folder: Path | None = None
    ) -> None:
        """`folder` is where what is known of the devices is kept between runs; None: nowhere."""
        self._door, self._limits, self._rules, self._folder = door, limits, rules, folder
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)
        self._listeners: list[Callable[[Look], None]] = []
        self._known = {} if folder is None else device_state_file.load(folder)
        self._state = GateState()
        self._unasked: list[GpuReading] | None = []
        """What was read before somebody first asked, and said what the gate remembers."""
        self._seen: dict[str, GpuReading] = {}
        self._counts: dict[str, int] = {}
        self._trials: list[Trial] = []
        self._kept_s = time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join()
        self._keep()

    def judge(self, before: GateState, limits: GateLimits) -> Look:
        """The look of now, by `limits` from here on. Waits for seconds, where they may change it.

        `before` is what the gate remembered when this process began. A closed device that opens
        after some good readings is looked at as often, once, before the answer stands. At the first
        question two things more are waited for, which would else cost another process: that what is
        known of a device counts again after nobody had read it, and the end of `dwell_s` where
        nothing else is in the way.
        """
        with self._lock:
            self._limits = limits
            first = self._unasked is not None
            self._remember(before)
            look = self.look()
            began_s = look.now_s
            while self._has_yet_to_say(look, limits, look.now_s - began_s, first=first):
                # The thread looks at what is new, and lets us know; alone we look all the same.
                self._news.wait(_GLANCE_S)
                look = self.look()
            trials, self._trials = self._trials, []
        return look._replace(trials=tuple(trials))

    def look(self) -> Look:
        """Look now, and let everyone know."""
        with self._lock:
            now_s = time.monotonic()
            survey = self._survey(now_s)
            judged = gate.judge(survey, self._state, self._limits, now_s)
            self._state = judged.state
            for reading in survey.readings:
                self._learn(reading)
            look = Look(survey, judged, dict(self._known), now_s)
            for listener in self._listeners:
                listener(look)
            return look

    def device(self, uuid: str) -> Device | None:
        """What the door tells of a device; None where it is not there."""
        with self._lock:
            return next((each for each in self._door.devices() if each.uuid == uuid), None)

    @contextmanager
    def heard_by(self, listener: Callable[[Look], None]) -> Iterator[None]:
        """Hand every look of the block to `listener`, in the thread that looked."""
        with self._lock:
            self._listeners.append(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)

    def _follow(self) -> None:
        while not self._over.is_set():
            self._door.wait_for_news(_GLANCE_S)
            # Nothing new is news too: readings grow old.
            look = self.look()
            if look.survey.driver == "unreadable":
                # Its door may fail before it knows that its news was shown: no reason to hurry.
                self._over.wait(_GLANCE_S)
            if time.monotonic() - self._kept_s >= _KEEP_EVERY_S:
                self._keep()

    def _survey(self, now_s: float) -> Survey:
        try:
            return self._door.survey(now_s)
        except Exception as error:  # noqa: BLE001 - whatever a door's fault is, it fails closed
            because = f"what reads it failed: {type(error).__name__}: {error}"
            return Survey(driver="unreadable", because=because)

    def _remember(self, before: GateState) -> None:
        """Take what the gate remembered for what was before all that was read since."""
        if self._unasked is None:
            return
        seen = Survey(readings=tuple(self._unasked), driver="present", because="read meanwhile")
        self._state = gate.judge(seen, before, self._limits, time.monotonic()).state
        self._unasked = None

    def _learn(self, reading: GpuReading) -> None:
        seen = self._seen.get(reading.uuid)
        if seen is not None and seen.read_at_s == reading.read_at_s:
            # Told again, not read again.
            return
        self._seen[reading.uuid] = reading
        self._news.notify_all()
        if self._unasked is not None:
            self._unasked.append(reading)
            del self._unasked[:-MOST_UNASKED]
        self._counts[reading.uuid] = self._counts.get(reading.uuid, 0) + 1
        before = self._known.get(reading.uuid, Known())
        learned = forecast.learn(before, reading, self._limits, self._rules)
        self._known[reading.uuid] = learned.known
        self._trials.extend(Trial(reading.uuid, each) for each in learned.checked)
        del self._trials[:-MOST_CHECKS]

    def _has_yet_to_say(
        self, look: Look, limits: GateLimits, waited_s: float, *, first: bool
    ) -> bool:
        """Whether some seconds more may change what the gate or the forecast says."""
        if look.survey.driver != "present" or waited_s >= _LONGEST_WAIT_S:
            return False
        if first and waited_s < self._rules.settled_readings * _PATIENCE_S:
            known = [self._known[each.uuid] for each in _read(look)]
            if any(forecast.unsettled(each, self._rules) for each in known):
                return True
        if look.judged.decision.yes:
            return False
        if first and waited_s + _opens_in_s(look, limits) + _PATIENCE_S <= _LONGEST_WAIT_S:
            return True
        return waited_s < limits.good_readings * _PATIENCE_S and any(
            self._counts[each.uuid] < limits.good_readings for each in _read(look)
        )

    def _keep(self) -> None:
        self._kept_s = time.monotonic()
        if self._folder is None:
            return
        with self._lock:
            known = dict(self._known)
        # What a full disk does not take is learned again.
        with suppress(OSError):
            device_state_file.save(self._folder, known)


def _read(look: Look) -> list[GpuReading]:
    return [each for each in look.survey.readings if each.unreadable is None]


def _opens_in_s(look: Look, limits: GateLimits) -> float:
    """Seconds until the first device opens that closed too lately; infinity where none will."""
    counted = [each for each in look.judged.state.devices if each.answers_to(limits.uuid)]
    waits_s = [gate.opens_in_s(each, limits, look.now_s) for each in counted]
    return min((each for each in waits_s if each is not None), default=math.inf)
