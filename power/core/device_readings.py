"""Readings of a device: their units, their plausible bounds, and the margin that they give.

Pure: it knows no clock and no driver.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import Field

from power.core.frozen_model import FrozenModel
from power.core.gate_config import GateConfig

Joules = float
Watts = float

MOST_J: Final = 1e13
"""No counter exceeds this: it is 20 kW for sixteen years."""


def plausible_j(energy_j: Joules | None) -> Joules | None:
    """Return the counter's value in joules if it is plausible, else None."""
    return energy_j if energy_j is not None and 0 <= energy_j <= MOST_J else None


Driver = Literal["present", "absent", "unreadable"]
MarginSource = Literal["margin", "threshold", "maximum", "unknown"]
"""The source of a margin: the device's own margin, its own slowdown threshold minus its
temperature, the configured maximum minus its temperature, or none."""

PLAUSIBLE: Final[Mapping[str, tuple[float, float]]] = {
    # 644245923 degrees and minus 2 watts have been reported by real drivers. No device that answers
    # can be beyond these bounds, so such a number says nothing about the device.
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
"""Heat, or hardware that protects itself. A power cap or an idle clock is no reason to wait."""

Centigrade = float
"""A temperature, or a difference of temperatures, in degrees Celsius."""


class FrozenState(FrozenModel):
    """A value that checkpoints store; one from an earlier version may lack newer fields."""

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Restore the stored fields, and set those that are missing to their defaults."""
        known = state["__dict__"]
        newer = {
            name: field.get_default(call_default_factory=True, validated_data=known)
            for name, field in type(self).model_fields.items()
            if name not in known
        }
        super().__setstate__(state | {"__dict__": known | newer})


class DeviceMetrics(FrozenState):
    """The metrics that a device can report. None is unknown, never zero."""

    temperature_c: float | None = Field(default=None, description="Core of the GPU or CPU, °C.")
    memory_temperature_c: float | None = Field(default=None, description="Memory, °C.")
    margin_c: float | None = Field(
        default=None, description="Degrees left to slowdown; < 0 beyond."
    )
    margin_source: MarginSource = Field(
        default_factory=lambda told: "unknown" if told.get("margin_c") is None else "margin",
        description="What the margin rests on: margin (reported by the device), threshold (its own "
        "slowdown temperature minus its temperature), maximum (the configured one), or unknown.",
    )
    slowdown_offset_c: float | None = Field(
        default=None, description="T.Limit at the slowdown, °C."
    )
    threshold_c: float | None = Field(default=None, description="Temperature of the slowdown, °C.")
    power_w: float | None = Field(default=None, description="Draw, watts.")
    power_limit_w: float | None = Field(default=None, description="Enforced limit, watts.")
    power_limit_min_w: float | None = Field(
        default=None, description="Lowest accepted limit, watts."
    )
    power_limit_max_w: float | None = Field(
        default=None, description="Highest accepted limit, watts."
    )
    utilization: float | None = Field(default=None, description="Busy share of time, percent.")
    clock_mhz: float | None = Field(default=None, description="Clock of the cores, MHz.")
    memory_clock_mhz: float | None = Field(default=None, description="Clock of the memory, MHz.")
    memory_used_bytes: int | None = Field(default=None, description="Memory in use, bytes.")
    memory_total_bytes: int | None = Field(default=None, description="Installed memory, bytes.")
    throttle_reasons: str | None = Field(
        default=None, description="Reasons for lower clocks: names joined by '|', or NVML's mask."
    )
    energy_j: float | None = Field(default=None, description="Its counter of used energy, joules.")
    discarded: int = Field(
        default=0,
        ge=0,
        description="Impossible values in this reading (blanks, nonsense); each is unknown.",
    )
    unreadable: str | None = Field(default=None, description="Why it could not be read, or None.")
    mig: tuple[str, ...] = Field(
        default=(),
        description="Its MIG instances; they have no sensors, so the device's heat is theirs.",
    )


class DeviceReading(DeviceMetrics):
    """The metrics of one device at one moment."""

    uuid: str = Field(min_length=1, description="The device's identifier, stable across reboots.")
    read_at_s: float = Field(description="Seconds on the gate's clock when it was read.")

    def answers_to(self, uuid: str) -> bool:
        """Whether `uuid` names this device, or a MIG instance on it."""
        return uuid == self.uuid or uuid in self.mig


class DeviceSnapshot(FrozenModel):
    """A snapshot of all devices: their readings, in the order in which they were taken."""

    readings: tuple[DeviceReading, ...] = ()
    driver: Driver = Field(
        description="absent: this machine has none; unreadable: it exists and does not answer."
    )
    because: str = Field(description="Where the readings come from, or why there are none.")


def margin(
    reading: DeviceMetrics, gate_config: GateConfig
) -> tuple[Centigrade | None, MarginSource]:
    """Return the effective margin in degrees, and its source.

    The device's own margin comes first, then its own threshold minus its temperature (the adapter
    reports both), then the configured maximum minus its temperature, then None.
    """
    if reading.margin_c is not None:
        return (
            reading.margin_c,
            "margin" if reading.margin_source == "unknown" else reading.margin_source,
        )
    if gate_config.max_temperature_c is not None and reading.temperature_c is not None:
        return gate_config.max_temperature_c - reading.temperature_c, "maximum"
    return None, "unknown"


def with_effective_margin(reading: DeviceReading, gate_config: GateConfig) -> DeviceReading:
    """Return the reading with the effective margin and its source."""
    margin_c, margin_source = margin(reading, gate_config)
    return reading.model_copy(update={"margin_c": margin_c, "margin_source": margin_source})


def closing_reasons(throttle_reasons: str | None) -> tuple[str, ...]:
    """Return the reasons for lower clocks that mean heat; `throttle_reasons` is names or a mask.

    A reason without a name yet does not close the gate; the margin does so when necessary.
    """
    names = list[str]()
    for word in re.split(r"[|;,+\s]+", (throttle_reasons or "").strip().lower()):
        if re.fullmatch(r"0x[0-9a-f]+", word):
            mask = int(word, 16)
            names += [name for bit, name in THROTTLE_BITS.items() if mask & bit]
        else:
            names.append(word)
    return tuple(name for name in names if _CLOSING_REASON.search(name))


def plausible(value: float | None, name: str) -> float | None:
    """Return the value if it is within `PLAUSIBLE[name]`, else None."""
    least, most = PLAUSIBLE[name]
    return value if value is not None and least <= value <= most else None
