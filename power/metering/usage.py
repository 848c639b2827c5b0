"""Measure what a job used: power, energy and heat of its devices, from their readings.

Pure: one more reading goes in, the new account comes out. It knows no clock and no driver, and
decides nothing. An unknown quantity is None, never zero, and an impossible value is unknown.

An account belongs to one device and one job, from the reading before its begin to the one after its
end; `combine` joins those of several devices. Between two readings, the power is the counter's
mean where the device has a counter, else the mean of both readings; a slowdown at only one of them
counts for half of the interval. What happened while a device could not be read, or for longer than
the gate accepts a reading (`max_age_s`), is unknown: that time is counted separately, and only a
counter says how much was used in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from pydantic import Field

from power.core import device_readings
from power.core.device_readings import (
    Centigrade,
    DeviceReading,
    Joules,
    Watts,
    plausible,
    plausible_j,
)
from power.core.frozen_model import FrozenModel
from power.core.gate_config import GateConfig
from power.metering.energy import Energy, Source

LATEST_S: Final = 1e12
"""No clock goes beyond this: it is 31,000 years in seconds."""


class DeviceUsage(FrozenModel):
    """The measurements of one device over one job. A new one is empty."""

    uuid: str | None = Field(default=None, description="The device, after its first reading.")
    readings: int = Field(default=0, description="Readings so far, also failed ones.")
    began_s: float | None = Field(default=None, description="Moment of the first, seconds.")
    read_at_s: float | None = Field(default=None, description="Moment of the last, seconds.")
    highest_w: Watts | None = Field(default=None, description="Highest power that was read.")
    peak_temperature_c: Centigrade | None = Field(default=None, description="Highest temperature.")
    lowest_margin_c: Centigrade | None = Field(
        default=None, description="Lowest margin of the gate."
    )
    gaps: int = Field(default=0, description="How often it could not be observed.")

    legible: bool = Field(default=False, description="Whether the last reading succeeded.")
    power_w: Watts | None = Field(default=None, description="The last reading's power.")
    slowed: bool | None = Field(default=None, description="Whether it reported a slowdown.")
    counter_j: Joules | None = Field(default=None, description="The counter's last value.")
    counter_s: float = Field(default=0.0, description="Moment of that, seconds.")
    counted_j: Joules = Field(default=0.0, description="Energy by the counter.")
    counted_s: float = Field(default=0.0, description="Seconds that the counter covers.")
    summed_j: Joules = Field(default=0.0, description="Energy by power, without a counter.")
    summed_s: float = Field(default=0.0, description="Seconds of that.")
    since_j: Joules = Field(default=0.0, description="By power, since the counter's last value.")
    since_s: float = Field(default=0.0, description="Seconds of that.")
    slowed_s: float = Field(default=0.0, description="Seconds slowed down, of watched_s.")
    watched_s: float = Field(default=0.0, description="Seconds with known slowdowns.")
    missed_s: float = Field(default=0.0, description="Seconds of which nothing is known.")
    in_gap: bool = Field(default=False, description="Whether it cannot be observed now.")

    def after(self, reading: DeviceReading, gate_config: GateConfig) -> DeviceUsage:
        """Return the account after one more reading of its device.

        A reading without a finite moment is ignored. One at the last moment or earlier is repeated
        or late: only its extremes count, so a clock that restarted needs a new account. Raises
        ValueError for a reading of another device.
        """
        if self.uuid not in (None, reading.uuid):
            raise ValueError(
                f"this is the account of {self.uuid}, and {reading.uuid} was read: keep one "
                "account for each device, and join them with account.together"
            )
        now_s = reading.read_at_s
        # Written so that NaN is ignored as well.
        if not abs(now_s) <= LATEST_S:
            return self
        sample = _sample(reading, gate_config)
        update: dict[str, Any] = {
            "uuid": reading.uuid,
            "highest_w": _most(self.highest_w, sample.power_w),
            "peak_temperature_c": _most(self.peak_temperature_c, sample.temperature_c),
            "lowest_margin_c": _least(self.lowest_margin_c, sample.margin_c),
        }
        if self.read_at_s is not None and now_s <= self.read_at_s:
            return self.model_copy(update=update)
        if self.read_at_s is None:
            update |= {"began_s": now_s, "counter_j": sample.energy_j, "counter_s": now_s}
        else:
            update |= self._interval(sample, now_s - self.read_at_s, now_s, gate_config)
        update |= {
            "readings": self.readings + 1,
            "read_at_s": now_s,
            "legible": sample.legible,
            "power_w": sample.power_w,
            "slowed": sample.slowed,
        }
        return self.model_copy(update=update)

    @property
    def mean_power_w(self) -> Watts | None:
        """Mean over the time whose power is known, watts; None if there is none."""
        known_s = self.counted_s + self.summed_s + self.since_s
        if known_s <= 0:
            return None
        return (self.counted_j + self.summed_j + self.since_j) / known_s

    @property
    def peak_power_w(self) -> Watts | None:
        """The highest power reading, at least the mean, watts; None without a power reading.

        It is not the counter's highest mean between two readings: a counter is updated about ten
        times a second, so over a second its mean is off by a tenth, and the highest of many such
        means would be mostly error.
        """
        return None if self.highest_w is None else _most(self.highest_w, self.mean_power_w)

    @property
    def source(self) -> Source | None:
        """The source of the mean power."""
        if self.mean_power_w is None:
            return None
        if not self.counted_s:
            return "power"
        return "counter and power" if self.summed_s + self.since_s > 0 else "counter"

    @property
    def throttled_s(self) -> float | None:
        """Seconds in which the hardware slowed down for heat; None if it does not report that."""
        return self.slowed_s if self.watched_s > 0 else None

    @property
    def unread_s(self) -> float | None:
        """Seconds of which the temperature is unknown; None before a second reading."""
        return self.missed_s if self.readings > 1 else None

    def _interval(
        self, sample: _Sample, over_s: float, now_s: float, gate_config: GateConfig
    ) -> dict[str, Any]:
        """Return the changes by the `over_s` seconds since the last reading."""
        in_gap = over_s > gate_config.max_age_s or not (self.legible and sample.legible)
        update: dict[str, Any] = {"in_gap": in_gap}
        if in_gap:
            update |= {"missed_s": self.missed_s + over_s, "gaps": self.gaps + (not self.in_gap)}
        elif self.slowed is not None and sample.slowed is not None:
            share = (self.slowed + sample.slowed) / 2
            update["slowed_s"] = self.slowed_s + share * over_s
            update["watched_s"] = self.watched_s + over_s
        since_j, since_s = self.since_j, self.since_s
        if not in_gap and self.power_w is not None and sample.power_w is not None:
            since_j += (self.power_w + sample.power_w) / 2 * over_s
            since_s += over_s
        if sample.energy_j is None:
            return update | {"since_j": since_j, "since_s": since_s}
        update |= {"counter_j": sample.energy_j, "counter_s": now_s, "since_j": 0.0, "since_s": 0.0}
        counted_s, counted_w = now_s - self.counter_s, None
        if self.counter_j is not None:
            counted_w = plausible((sample.energy_j - self.counter_j) / counted_s, "power_w")
        if counted_w is None:
            # The counter's first value, or the driver was reloaded: the energy by power counts.
            update["summed_j"] = self.summed_j + since_j
            update["summed_s"] = self.summed_s + since_s
        else:
            update["counted_j"] = self.counted_j + counted_w * counted_s
            update["counted_s"] = self.counted_s + counted_s
        return update


class JobUsage(NamedTuple):
    """The measurements of a job on all its devices together. None is unknown, never zero."""

    uuid: str | None = None
    """The device; None for no device or several."""
    devices: int = 0
    readings: int = 0
    """Of the device with the fewest."""
    mean_power_w: Watts | None = None
    """The sum over all devices."""
    source: Source | None = None
    """The source of the mean power."""
    peak_power_w: Watts | None = None
    """The sum of the devices' peaks: the highest power that they can have used at once."""
    peak_temperature_c: Centigrade | None = None
    """Of the hottest device with a known one."""
    lowest_margin_c: Centigrade | None = None
    """Of the device with the lowest."""
    throttled_s: float | None = None
    """Of the device that slowed down for the longest: it sets the pace of the job."""
    unread_s: float | None = None
    """Of the device that was unobserved for the longest."""
    gaps: int = 0

    def energy(self, seconds: float) -> Energy:
        """Return the energy of a job of `seconds`: the devices' mean power times that."""
        if self.mean_power_w is None or self.source is None:
            return Energy(None, None, "its devices reported no power while it ran")
        if not 0 < seconds < math.inf:
            return Energy(None, None, f"a job of {seconds} s has no energy")
        joules = self.mean_power_w * seconds
        count = f"{self.devices} device{'' if self.devices == 1 else 's'}"
        because = (
            f"{joules:.0f} J on {count} in {seconds:.1f} s, by {self.source}, "
            f"from {self.readings} readings"
        )
        return Energy(joules, self.source, because)


NONE_READ: Final = JobUsage()
"""The figures of a job without readings."""


def combine(accounts: Iterable[DeviceUsage]) -> JobUsage:
    """Return the figures of a job from its devices' accounts, without those that were never read.

    A sum is unknown if one device's part is unknown. Extremes are those of the known values.
    """
    read = [each for each in accounts if each.readings]
    if not read:
        return NONE_READ
    sources = {each.source for each in read}
    source: Source | None = sources.pop() if len(sources) == 1 else "counter and power"
    return JobUsage(
        uuid=read[0].uuid if len(read) == 1 else None,
        devices=len(read),
        readings=min(each.readings for each in read),
        mean_power_w=_sum(each.mean_power_w for each in read),
        source=None if None in sources else source,
        peak_power_w=_sum(each.peak_power_w for each in read),
        peak_temperature_c=_most(*(each.peak_temperature_c for each in read)),
        lowest_margin_c=_least(*(each.lowest_margin_c for each in read)),
        throttled_s=_most(*(each.throttled_s for each in read)),
        unread_s=_most(*(each.unread_s for each in read)),
        gaps=sum(each.gaps for each in read),
    )


class _Sample(NamedTuple):
    """The plausible values of a reading."""

    legible: bool
    power_w: Watts | None = None
    energy_j: Joules | None = None
    temperature_c: Centigrade | None = None
    margin_c: Centigrade | None = None
    slowed: bool | None = None


def _sample(reading: DeviceReading, gate_config: GateConfig) -> _Sample:
    if reading.unreadable is not None:
        return _Sample(legible=False)
    temperature_c = plausible(reading.temperature_c, "temperature_c")
    margin_c, margin_source = device_readings.margin(reading, gate_config)
    if margin_source == "maximum" and temperature_c is None:
        # This margin is computed from an impossible temperature.
        margin_c = None
    reasons = reading.throttle_reasons
    return _Sample(
        legible=True,
        power_w=plausible(reading.power_w, "power_w"),
        energy_j=plausible_j(reading.energy_j),
        temperature_c=temperature_c,
        margin_c=plausible(margin_c, "margin_c"),
        slowed=None if reasons is None else bool(device_readings.closing_reasons(reasons)),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    values = list(values)
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _most(*values: float | None) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _least(*values: float | None) -> float | None:
    return min((value for value in values if value is not None), default=None)
