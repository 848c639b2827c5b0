"""Record how warm a device was during a fit: its margin over time, for people to look at.

It receives every snapshot of the device monitor, and returns a reduced number of samples. It
decides nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from power.core import device_readings
from power.core.device_readings import DeviceReading
from power.core.gate_config import GateConfig
from power.monitoring.device_monitor import MonitorView


class Sample(NamedTuple):
    """The metrics of a device at one moment. None is unknown."""

    seconds: float
    """Seconds since the fit was admitted."""
    margin_c: float | None
    temperature_c: float | None
    power_w: float | None


class ThermalTrace:
    """The trace of one device during one fit; `hear` is called from another thread."""

    def __init__(self, uuid: str, gate_config: GateConfig, from_s: float) -> None:
        """`from_s` is the moment of the admission, on the clock of the readings."""
        self._uuid, self._gate_config, self._from_s = uuid, gate_config, from_s
        self._readings: list[DeviceReading] = []

    def on_snapshot(self, view: MonitorView) -> None:
        """Record a snapshot of the devices; a repeated reading counts once."""
        for reading in view.survey.readings:
            last = self._readings[-1] if self._readings else None
            if reading.uuid == self._uuid and (last is None or reading.read_at_s > last.read_at_s):
                self._readings.append(reading)

    def samples(self, most: int = 60) -> tuple[Sample, ...]:
        """Return at most `most` moments, evenly spaced, with the last and the lowest margin."""
        moments = [
            Sample(
                each.read_at_s - self._from_s,
                device_readings.margin(each, self._gate_config)[0],
                each.temperature_c,
                each.power_w,
            )
            for each in self._readings
        ]
        if len(moments) <= most:
            return tuple(moments)
        step = (len(moments) - 1) / (most - 2)
        chosen = {round(number * step) for number in range(most - 1)}
        known = [place for place, each in enumerate(moments) if each.margin_c is not None]
        chosen |= {min(known, key=lambda place: moments[place].margin_c or 0.0)} if known else set()
        return tuple(moments[place] for place in sorted(chosen))
