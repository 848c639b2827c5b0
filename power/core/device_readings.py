"""Readings of a device: their units, their plausible bounds, and the margin that follows from them.

Pure: it knows no clock and no driver."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from power.core.gate_config import GateLimits

Joules = float
Watts = float

MOST_J: Final = 1e13
"""A counter beyond this is no counter: 20 kW for sixteen years."""


def plausible_j(energy_j: Joules | None) -> Joules | None:
    """A counter's value where it can be one, else None."""
    return energy_j if energy_j is not None and 0 <= energy_j <= MOST_J else None


Driver = Literal["present", "absent", "unreadable"]
Rung = Literal["margin", "threshold", "maximum", "unknown"]
"""What a margin rests on: the device's own margin, its temperature against the device's own
slowdown threshold, against the configured maximum, or nothing."""

PLAUSIBLE: Final[Mapping[str, tuple[float, float]]] = {
    # 644245923 degrees and minus 2 watts have been reported by real drivers. Beyond these bounds a
    # device that answers at all does not exist, so the number says nothing about the device.
    "temperature_c": (-50.0, 150.0),
    "memory_temperature_c": (-50.0, 150.0),
    "margin_c": (-100.0, 200.0),
    "power_w": (0.0, 20_000.0),
    "power_limit_w": (0.0, 20_000.0),
    "utilization": (0.0, 100.0),
}

THROTTLE_BITS: Final[Mapping[int, str]] = {
    # NVML's mask of reasons for lower clocks, as `nvidia-smi` prints it in hexadecimal.
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}

_CLOSING_REASON = re.compile(r"therm|slowdown|brake")
"""Heat, or the hardware defending itself. A power cap or an idle clock is no reason to wait."""

Centigrade = float
"""A difference of temperatures in degrees."""


class Kept(BaseModel):
    """A value that checkpoints keep: one that an earlier version wrote lacks newer fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Take what was kept; what it does not know yet has its default."""
        known = state["__dict__"]
        newer = {
            name: field.get_default(call_default_factory=True, validated_data=known)
            for name, field in type(self).model_fields.items()
            if name not in known
        }
        super().__setstate__(state | {"__dict__": known | newer})


def _rung_of(told: Mapping[str, Any]) -> Rung:
    return "unknown" if told.get("margin_c") is None else "margin"


class Telling(Kept):
    """What a device can tell of itself. None is unknown, never zero."""

    temperature_c: float | None = Field(
        default=None, description="Core of the GPU or CPU, degrees Celsius."
    )
    memory_temperature_c: float | None = Field(default=None, description="Memory, degrees Celsius.")
    margin_c: float | None = Field(
        default=None, description="Degrees left until the hardware slows down; negative beyond."
    )
    margin_source: Rung = Field(
        default_factory=_rung_of,
        description="What the margin rests on: margin (told by the device), threshold (its own "
        "slowdown temperature minus its temperature), maximum (the configured one), or unknown.",
    )
    slowdown_offset_c: float | None = Field(
        default=None, description="T.Limit at which this model slows down, degrees."
    )
    threshold_c: float | None = Field(
        default=None, description="Temperature at which the device slows down, where that is told."
    )
    power_w: float | None = Field(default=None, description="Draw, watts.")
    power_limit_w: float | None = Field(default=None, description="Enforced limit, watts.")
    power_limit_min_w: float | None = Field(
        default=None, description="Lowest limit that the device takes, watts."
    )
    power_limit_max_w: float | None = Field(
        default=None, description="Highest limit that the device takes, watts."
    )
    utilization: float | None = Field(default=None, description="Busy share of time, percent.")
    clock_mhz: float | None = Field(default=None, description="Clock of the cores, megahertz.")
    memory_clock_mhz: float | None = Field(
        default=None, description="Clock of the memory, megahertz."
    )
    memory_used_bytes: int | None = Field(default=None, description="Memory in use, bytes.")
    memory_total_bytes: int | None = Field(default=None, description="Memory that it has, bytes.")
    throttle_reasons: str | None = Field(
        default=None, description="Reasons for lower clocks: names joined by '|', or NVML's mask."
    )
    energy_j: float | None = Field(
        default=None, description="Joules used since its counter began. No word on heat."
    )
    discarded: int = Field(
        default=0,
        ge=0,
        description="Values of this reading that could not be (blank sentinels, nonsense): each "
        "is unknown.",
    )
    unreadable: str | None = Field(
        default=None, description="Why nothing could be read of it; None where something was."
    )
    mig: tuple[str, ...] = Field(
        default=(),
        description="Its MIG instances, which have no sensors: their heat is the whole device's.",
    )


class GpuReading(Telling):
    """What one device said at one moment."""

    uuid: str = Field(min_length=1, description="The device's own name, stable across reboots.")
    read_at_s: float = Field(description="Seconds on the gate's clock when it was read.")

    def answers_to(self, uuid: str) -> bool:
        """Whether `uuid` names this device, or a MIG instance on it."""
        return uuid == self.uuid or uuid in self.mig


class Survey(BaseModel):
    """What a door saw of all devices: the readings, in the order they were taken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    readings: tuple[GpuReading, ...] = ()
    driver: Driver = Field(
        description="absent: this machine has none; unreadable: it is there and does not answer."
    )
    because: str = Field(description="Where the readings are from, or why there are none.")


def margin(reading: Telling, limits: GateLimits) -> tuple[Centigrade | None, Rung]:
    """The margin to go by in degrees, and what it was computed from.

    The device's own margin comes first, then its temperature against its own threshold (both are
    the door's to tell), then the configured maximum temperature, then nothing.
    """
    if reading.margin_c is not None:
        return (
            reading.margin_c,
            "margin" if reading.margin_source == "unknown" else reading.margin_source,
        )
    if limits.max_temperature_c is not None and reading.temperature_c is not None:
        return limits.max_temperature_c - reading.temperature_c, "maximum"
    return None, "unknown"


def standing(reading: GpuReading, limits: GateLimits) -> GpuReading:
    """The reading with the margin that the gate goes by, and the source of that margin."""
    margin_c, margin_source = margin(reading, limits)
    return reading.model_copy(update={"margin_c": margin_c, "margin_source": margin_source})


def closing_reasons(throttle_reasons: str | None) -> tuple[str, ...]:
    """The reasons for lower clocks that mean heat, out of names or of NVML's mask.

    A reason that nobody has named yet does not close the gate: the margin does when it must.
    """
    words = re.split(r"[|;,+\s]+", (throttle_reasons or "").strip().lower())
    names = [name for word in words for name in _names(word)]
    return tuple(name for name in names if _CLOSING_REASON.search(name))


def _names(word: str) -> list[str]:
    if not re.fullmatch(r"0x[0-9a-f]+", word):
        return [word]
    mask = int(word, 16)
    return [name for bit, name in THROTTLE_BITS.items() if mask & bit]


def plausible(value: float | None, name: str) -> float | None:
    """The value, or None where it is unknown or nothing that a device could be."""
    least, most = PLAUSIBLE[name]
    return value if value is not None and least <= value <= most else None
