"""How warm the device was while a fit ran on it: its margin over the run, for people to look at.

Hears every look of the follower, and thins what it heard. It decides nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from power.core import device_readings
from power.core.device_readings import GpuReading
from power.core.gate_config import GateLimits
from power.monitoring.device_monitor import Look


class Moment(NamedTuple):
    """What the device told at one moment. None is unknown."""

    seconds: float
    """Since the fit was admitted."""
    margin_c: float | None
    temperature_c: float | None
    power_w: float | None


class Course:
    """The course of one device over one fit; `hear` is called from another thread."""

    def __init__(self, uuid: str, limits: GateLimits, from_s: float) -> None:
        """`from_s` is when the fit was admitted, on the clock of the readings."""
        self._uuid, self._limits, self._from_s = uuid, limits, from_s
        self._readings: list[GpuReading] = []

    def hear(self, look: Look) -> None:
        """Take in a look at the devices; a reading that is told again counts once."""
        for reading in look.survey.readings:
            last = self._readings[-1] if self._readings else None
            if reading.uuid == self._uuid and (last is None or reading.read_at_s > last.read_at_s):
                self._readings.append(reading)

    def moments(self, most: int = 60) -> tuple[Moment, ...]:
        """At most so many moments, evenly chosen, the last one and the lowest margin among them."""
        moments = [self._moment(each) for each in self._readings]
        if len(moments) <= most:
            return tuple(moments)
        step = (len(moments) - 1) / (most - 2)
        chosen = {round(number * step) for number in range(most - 1)}
        known = [place for place, each in enumerate(moments) if each.margin_c is not None]
        chosen |= {min(known, key=lambda place: moments[place].margin_c or 0.0)} if known else set()
        return tuple(moments[place] for place in sorted(chosen))

    def _moment(self, reading: GpuReading) -> Moment:
        margin_c, _ = device_readings.margin(reading, self._limits)
        seconds = reading.read_at_s - self._from_s
        return Moment(seconds, margin_c, reading.temperature_c, reading.power_w)
