"""What did a job ask of its devices? Their readings, one by one, give its power and its heat.

Pure: one more reading in, the account after it out. It knows no clock and no driver, and decides
nothing. What cannot be known is None, never zero, and a value that no device could have is unknown.

An account is of one device over one job, from the reading before its begin to the one after its
end; `together` joins those of several. Between two readings power is the counter's mean where the
device has a counter, else the mean of what was told at both ends; a slowdown told at one of the two
ends alone counts for half of the time between. Nobody knows what happened while a device could not
be read, or for longer than the gate lets a reading count (`max_age_s`): that time is told apart,
and only a counter says what was drawn in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from power.core import device_readings
from power.core.device_readings import Centigrade, GpuReading, Joules, Watts, plausible, plausible_j
from power.core.gate_config import GateLimits
from power.metering.energy import Energy, Source

LATEST_S: Final = 1e12
"""A moment beyond this is on no clock: 31,000 years."""


class Account(BaseModel):
    """What is known of one device over one job. A fresh one knows nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uuid: str | None = Field(default=None, description="The device, once it was read.")
    readings: int = Field(default=0, description="Moments at which it was read, or should be.")
    began_s: float | None = Field(default=None, description="The first of them, seconds.")
    read_at_s: float | None = Field(default=None, description="The last of them, seconds.")
    highest_w: Watts | None = Field(default=None, description="Most power that was told.")
    peak_temperature_c: Centigrade | None = Field(default=None, description="Hottest that it was.")
    lowest_margin_c: Centigrade | None = Field(
        default=None, description="Least margin, counted as the gate counts it."
    )
    gaps: int = Field(default=0, description="Times at which it was lost sight of.")

    legible: bool = Field(default=False, description="Whether the last reading told anything.")
    power_w: Watts | None = Field(default=None, description="The last reading's power.")
    slowed: bool | None = Field(default=None, description="Whether it told a slowdown.")
    counter_j: Joules | None = Field(default=None, description="The last count that was told.")
    counter_s: float = Field(default=0.0, description="When that was, seconds.")
    counted_j: Joules = Field(default=0.0, description="Used, by the counter.")
    counted_s: float = Field(default=0.0, description="Seconds that the counter told of.")
    summed_j: Joules = Field(default=0.0, description="Used, by power, where no counter tells.")
    summed_s: float = Field(default=0.0, description="Seconds of that.")
    since_j: Joules = Field(default=0.0, description="By power, until the counter tells better.")
    since_s: float = Field(default=0.0, description="Seconds of that.")
    slowed_s: float = Field(default=0.0, description="Seconds slowed down, of those watched.")
    watched_s: float = Field(default=0.0, description="Seconds of which slowdowns were told.")
    missed_s: float = Field(default=0.0, description="Seconds of which nobody knows.")
    in_gap: bool = Field(default=False, description="Whether it is lost sight of.")

    def after(self, reading: GpuReading, limits: GateLimits) -> Account:
        """The account once it has seen one more reading of its device.

        A reading without a moment (NaN, infinite) is none. One of the last moment or of an earlier
        one moves no clock: it was told again, or told late, and its values count for the highest
        and the lowest alone. So a clock that began anew needs a new account. Raises ValueError for
        another device's reading.
        """
        if self.uuid not in (None, reading.uuid):
            raise ValueError(
                f"this is the account of {self.uuid}, and {reading.uuid} was read: keep one "
                "account for each device, and join them with account.together"
            )
        # Written so that NaN is refused as well.
        if not abs(reading.read_at_s) <= LATEST_S:
            return self
        told = _told(reading, limits)
        known = self._with_extremes(told, reading.uuid)
        if self.read_at_s is None or self.began_s is None:
            return known._at(reading.read_at_s, told).model_copy(
                update={"began_s": reading.read_at_s}
            )
        if reading.read_at_s <= self.read_at_s:
            return known
        over_s = reading.read_at_s - self.read_at_s
        known = known._watched(told, over_s, limits)._powered(told, over_s, reading.read_at_s)
        return known._at(reading.read_at_s, told)

    @property
    def mean_power_w(self) -> Watts | None:
        """Mean over the time whose power is known; None where none is."""
        known_s = self.counted_s + self.summed_s + self.since_s
        if known_s <= 0:
            return None
        return (self.counted_j + self.summed_j + self.since_j) / known_s

    @property
    def peak_power_w(self) -> Watts | None:
        """Most that was told, and no less than the mean; None where power was never told.

        Not the counter's mean between two readings: a counter moves some ten times a second, so
        over a second that is a tenth off, and the highest of many such would be all error.
        """
        return None if self.highest_w is None else _most(self.highest_w, self.mean_power_w)

    @property
    def source(self) -> Source | None:
        """What the mean power was read from."""
        if self.mean_power_w is None:
            return None
        if not self.counted_s:
            return "power"
        return "counter and power" if self.summed_s + self.since_s > 0 else "counter"

    @property
    def throttled_s(self) -> float | None:
        """Seconds that the hardware slowed down for heat; None where it never told of that."""
        return self.slowed_s if self.watched_s > 0 else None

    @property
    def unread_s(self) -> float | None:
        """Seconds of which nobody knows how warm it was; None before a second reading."""
        return self.missed_s if self.readings > 1 else None

    def _with_extremes(self, told: _Told, uuid: str) -> Account:
        return self.model_copy(
            update={
                "uuid": uuid,
                "highest_w": _most(self.highest_w, told.power_w),
                "peak_temperature_c": _most(self.peak_temperature_c, told.temperature_c),
                "lowest_margin_c": _least(self.lowest_margin_c, told.margin_c),
            }
        )

    def _watched(self, told: _Told, over_s: float, limits: GateLimits) -> Account:
        """What the time since the last reading says of slowdowns, or that nobody saw it."""
        if over_s > limits.max_age_s or not (self.legible and told.legible):
            return self.model_copy(
                update={
                    "missed_s": self.missed_s + over_s,
                    "gaps": self.gaps + (not self.in_gap),
                    "in_gap": True,
                }
            )
        seen: dict[str, float | bool] = {"in_gap": False}
        if self.slowed is not None and told.slowed is not None:
            share = (self.slowed + told.slowed) / 2
            seen |= {
                "slowed_s": self.slowed_s + share * over_s,
                "watched_s": self.watched_s + over_s,
            }
        return self.model_copy(update=seen)

    def _powered(self, told: _Told, over_s: float, now_s: float) -> Account:
        """What the time since the last reading says of power; call it after `_watched`."""
        since_j, since_s = self.since_j, self.since_s
        if not self.in_gap and self.power_w is not None and told.power_w is not None:
            since_j += (self.power_w + told.power_w) / 2 * over_s
            since_s += over_s
        if told.energy_j is None:
            return self.model_copy(update={"since_j": since_j, "since_s": since_s})
        fresh: dict[str, float | None] = {
            "counter_j": told.energy_j,
            "counter_s": now_s,
            "since_j": 0.0,
            "since_s": 0.0,
        }
        counted_s = now_s - self.counter_s
        counted_w = _counted_w(self.counter_j, told.energy_j, counted_s)
        if counted_w is None:
            # The first count, or the driver was loaded again: what power told since then stands.
            fresh |= {"summed_j": self.summed_j + since_j, "summed_s": self.summed_s + since_s}
        else:
            fresh |= {
                "counted_j": self.counted_j + counted_w * counted_s,
                "counted_s": self.counted_s + counted_s,
            }
        return self.model_copy(update=fresh)

    def _at(self, read_at_s: float, told: _Told) -> Account:
        first = {"counter_j": told.energy_j, "counter_s": read_at_s} if not self.readings else {}
        return self.model_copy(
            update={
                "readings": self.readings + 1,
                "read_at_s": read_at_s,
                "legible": told.legible,
                "power_w": told.power_w,
                "slowed": told.slowed,
                **first,
            }
        )


class Figures(NamedTuple):
    """What a job asked of all its devices together. None is unknown, never zero."""

    uuid: str | None = None
    """The device; None where there was none, or more than one."""
    devices: int = 0
    readings: int = 0
    """Of the device that was read least often."""
    mean_power_w: Watts | None = None
    """Of all devices together."""
    source: Source | None = None
    """What that was read from."""
    peak_power_w: Watts | None = None
    """The sum of each device's peak: no more was seen to be drawn at once."""
    peak_temperature_c: Centigrade | None = None
    """Of the hottest device that told one."""
    lowest_margin_c: Centigrade | None = None
    """Of the device that had the least."""
    throttled_s: float | None = None
    """Of the device that slowed down for the longest: the job goes at its pace."""
    unread_s: float | None = None
    """Of the device that was out of sight for the longest."""
    gaps: int = 0

    def energy(self, seconds: float) -> Energy:
        """What the devices used in a job of so many `seconds`: their mean power, times that."""
        if self.mean_power_w is None or self.source is None:
            return Energy(None, None, "the power of its devices was not told while it ran")
        if not 0 < seconds < float("inf"):
            return Energy(None, None, f"a job of {seconds} s has no energy to speak of")
        joules = self.mean_power_w * seconds
        count = f"{self.devices} device{'' if self.devices == 1 else 's'}"
        because = (
            f"{joules:.0f} J on {count} in {seconds:.1f} s, by {self.source}, "
            f"from {self.readings} readings"
        )
        return Energy(joules, self.source, because)


NONE_READ: Final = Figures()
"""Of a job of which nothing was read."""


def together(accounts: Iterable[Account]) -> Figures:
    """The figures of a job from its devices' accounts; one that was never read is left out.

    A sum of which one device's part is unknown would pass for the whole: it is unknown. The highest
    and the lowest are those of the devices that told any.
    """
    read = [each for each in accounts if each.readings]
    if not read:
        return NONE_READ
    sources = {each.source for each in read}
    return Figures(
        uuid=read[0].uuid if len(read) == 1 else None,
        devices=len(read),
        readings=min(each.readings for each in read),
        mean_power_w=_sum(each.mean_power_w for each in read),
        source=None if None in sources else _joined(sources),
        peak_power_w=_sum(each.peak_power_w for each in read),
        peak_temperature_c=_most(*(each.peak_temperature_c for each in read)),
        lowest_margin_c=_least(*(each.lowest_margin_c for each in read)),
        throttled_s=_most(*(each.throttled_s for each in read)),
        unread_s=_most(*(each.unread_s for each in read)),
        gaps=sum(each.gaps for each in read),
    )


class _Told(NamedTuple):
    """What of a reading can be believed."""

    legible: bool
    power_w: Watts | None = None
    energy_j: Joules | None = None
    temperature_c: Centigrade | None = None
    margin_c: Centigrade | None = None
    slowed: bool | None = None


def _told(reading: GpuReading, limits: GateLimits) -> _Told:
    if reading.unreadable is not None:
        return _Told(legible=False)
    temperature_c = plausible(reading.temperature_c, "temperature_c")
    margin_c, margin_source = device_readings.margin(reading, limits)
    if margin_source == "maximum" and temperature_c is None:
        # A margin that is counted from what cannot be is no better than that.
        margin_c = None
    reasons = reading.throttle_reasons
    return _Told(
        legible=True,
        power_w=plausible(reading.power_w, "power_w"),
        energy_j=plausible_j(reading.energy_j),
        temperature_c=temperature_c,
        margin_c=plausible(margin_c, "margin_c"),
        slowed=None if reasons is None else bool(device_readings.closing_reasons(reasons)),
    )


def _counted_w(before_j: Joules | None, now_j: Joules, over_s: float) -> Watts | None:
    return None if before_j is None else plausible((now_j - before_j) / over_s, "power_w")


def _joined(sources: set[Source | None]) -> Source:
    one = next(iter(sources))
    return "counter and power" if len(sources) > 1 or one is None else one


def _sum(values: Iterable[float | None]) -> float | None:
    each = list(values)
    known = [value for value in each if value is not None]
    return sum(known) if len(known) == len(each) else None


def _most(*values: float | None) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _least(*values: float | None) -> float | None:
    return min((value for value in values if value is not None), default=None)
