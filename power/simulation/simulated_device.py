"""A simulated device to try a gate on: two thermal nodes, throttling, and sensors that can fail.

Pure and public. The same seed gives the same device, readings and faults: randomness comes from a
numpy generator. `Plant.survey` answers like the adapters of real devices, so a plant can replace
one. It is no model of any product: the presets are devices with four kinds of cooling.

The physics: a die on a heatsink in air (two capacities, two resistances). Power follows load and
clock, `idle + load * (full - idle) * clock ** exponent`; work follows load and clock. A cap lowers
the clock until the power fits. At the slowdown temperature the hardware lowers its clock, to a half
by default, until it has cooled by some degrees. Fans turn faster on a warm heatsink, which no
linear model of the device can describe, and the air swings with the day and has steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from pydantic import Field

from power.core.device_readings import DeviceReading, DeviceSnapshot
from power.core.frozen_model import FiniteModel, FrozenModel

if TYPE_CHECKING:
    from numpy.random import Generator

Preset = Literal["air", "liquid", "immersion", "laptop"]

_STEP_S: Final = 1.0
"""The longest step of the integration: a third of the shortest time constant of any preset."""
_LEAST_CLOCK: Final = 0.2


class AmbientStep(FrozenModel):
    """A lasting change of the air: a door that opens, or a neighbouring device under load."""

    at_s: float = Field(ge=0, description="When it happens, seconds of the plant's clock.")
    by_c: float = Field(ge=-30, le=30, description="By how much the air gets warmer, degrees.")


class PlantKind(FiniteModel):
    """The properties of a simulated device."""

    name: str = Field(min_length=1, description="Its name.")
    idle_w: float = Field(gt=0, description="Power without load, watts.")
    full_w: float = Field(gt=0, description="Power at full load and clock, watts.")
    die_j_per_c: float = Field(gt=0, description="Heat capacity of the die, J/°C.")
    sink_j_per_c: float = Field(gt=0, description="Heat capacity of the heatsink, J/°C.")
    die_to_sink_c_per_w: float = Field(gt=0, description="Resistance from die to heatsink, °C/W.")
    sink_to_air_c_per_w: float = Field(gt=0, description="Resistance from heatsink to air, °C/W.")
    fan_gain: float = Field(
        default=0.0, ge=0, le=3, description="Share that full fans add to the heatsink's cooling."
    )
    fan_from_c: float = Field(default=40.0, description="Heatsink temperature for fans.")
    fan_span_c: float = Field(default=25.0, gt=0, description="Degrees from there to full fans.")
    air_c: float = Field(description="Mean temperature of the air, or of the coolant.")
    swing_c: float = Field(default=0.0, ge=0, le=30, description="Daily swing, to either side.")
    swing_from_s: float = Field(default=0.0, description="Time of day at the start, seconds.")
    steps: tuple[AmbientStep, ...] = Field(default=(), description="Steps of the air.")
    slowdown_c: float = Field(description="Die temperature at which the hardware slows down.")
    release_c: float = Field(default=4.0, gt=0, description="Degrees of cooling that end it.")
    slow_clock: float = Field(default=0.5, gt=0, lt=1, description="Clock while slowed down.")
    exponent: float = Field(default=2.5, ge=1, le=4, description="Power over clock: its exponent.")

    def ambient_c(self, at_s: float) -> float:
        """Return the temperature of the air at a moment, degrees Celsius."""
        swing_c = self.swing_c * math.sin(2 * math.pi * (at_s + self.swing_from_s) / 86_400)
        return self.air_c + swing_c + sum(each.by_c for each in self.steps if each.at_s <= at_s)


PRESETS: Final[Mapping[Preset, PlantKind]] = MappingProxyType(
    {
        "air": PlantKind(
            name="air",
            idle_w=40,
            full_w=350,
            die_j_per_c=60,
            sink_j_per_c=1600,
            die_to_sink_c_per_w=0.06,
            sink_to_air_c_per_w=0.17,
            fan_gain=0.3,
            air_c=26,
            swing_c=3,
            slowdown_c=87,
        ),
        "liquid": PlantKind(
            name="liquid",
            idle_w=70,
            full_w=700,
            die_j_per_c=120,
            sink_j_per_c=2600,
            die_to_sink_c_per_w=0.045,
            sink_to_air_c_per_w=0.05,
            air_c=32,
            swing_c=1.5,
            slowdown_c=87,
        ),
        "immersion": PlantKind(
            name="immersion",
            idle_w=60,
            full_w=500,
            die_j_per_c=90,
            sink_j_per_c=9000,
            die_to_sink_c_per_w=0.05,
            sink_to_air_c_per_w=0.07,
            air_c=40,
            swing_c=1,
            slowdown_c=90,
        ),
        "laptop": PlantKind(
            name="laptop",
            idle_w=8,
            full_w=90,
            die_j_per_c=14,
            sink_j_per_c=260,
            die_to_sink_c_per_w=0.25,
            sink_to_air_c_per_w=0.75,
            fan_gain=0.5,
            fan_from_c=35,
            air_c=25,
            swing_c=4,
            slowdown_c=92,
        ),
    }
)
"""Four kinds of cooling; each device overheats if full load lasts long enough."""


class Body(NamedTuple):
    """The physical state of a device at one moment, whatever its sensors report."""

    at_s: float
    die_c: float
    sink_c: float
    slowed: bool = False
    energy_j: float = 0.0
    work_s: float = 0.0
    """Work done, in seconds at full clock."""
    slowed_s: float = 0.0
    """Seconds under load in which the hardware slowed itself down."""
    hottest_c: float = -math.inf


class SensorFault(FrozenModel):
    """A fault of the sensors, and its time."""

    kind: Literal["stuck", "lost", "absurd"] = Field(
        description="stuck: repeats the last value; lost: no value; absurd: 644245923."
    )
    from_s: float = Field(ge=0, description="Its begin, seconds of the plant's clock.")
    until_s: float = Field(default=math.inf, description="Its end (exclusive).")


class Sensors(FrozenModel):
    """The accuracy of a simulated device's sensors."""

    noise_c: float = Field(default=1.0, ge=0, le=20, description="Largest error, degrees.")
    power_noise: float = Field(default=0.02, ge=0, le=0.5, description="Largest relative error.")
    whole_degrees: bool = Field(default=True, description="Whether degrees are rounded.")
    tells_margin: bool = Field(default=True, description="Whether it reports a margin.")
    counts_energy: bool = Field(default=True, description="Whether it has an energy counter.")
    faults: tuple[SensorFault, ...] = Field(default=(), description="Faults and their times.")


class Plant:
    """A simulated device with its own clock. Set `load` and `cap_w`, let it run, read it."""

    def __init__(
        self,
        kind: PlantKind,
        generator: Generator,
        sensors: Sensors | None = None,
        body: Body | None = None,
    ) -> None:
        """Begin at rest in its air at 0 s, or as `body`; `generator` draws the sensors' noise."""
        self.kind = kind
        self.sensors = sensors or Sensors()
        self.body = body or at_rest(kind)
        self.load = 0.0
        self.cap_w: float | None = None
        self._generator = generator
        self._told: tuple[float | None, float | None] = (None, None)

    def advance(self, seconds: float, load: float | None = None) -> DeviceReading:
        """Run for `seconds` at `load` (0 to 1, or as set before), then read the sensors."""
        if load is not None:
            self.load = load
        self.body = advanced(self.kind, self.body, seconds, self.load, self.cap_w)
        return self.reading()

    def work(self, work_s: float, seconds: float) -> None:
        """Run at the set load until `work_s` of work are done, or for `seconds` at most."""
        self.body = advanced(self.kind, self.body, seconds, self.load, self.cap_w, work_s)

    def survey(self, now_s: float) -> DeviceSnapshot:
        """Run until `now_s` at the set load, and answer like the adapter of a driver."""
        behind_s = now_s - self.body.at_s
        reading = self.advance(behind_s) if behind_s > 0 else self.reading()
        return DeviceSnapshot(
            readings=(reading,), driver="present", because=f"the plant {self.kind.name}"
        )

    def reading(self) -> DeviceReading:
        """Return the values of its sensors now."""
        sensors, body = self.sensors, self.body
        temperature_c, margin_c = self._temperatures()
        power_w = power_at(
            self.kind, self.load, clock(self.kind, body.slowed, self.load, self.cap_w)
        )
        off = sensors.power_noise * self._generator.uniform(-1.0, 1.0)
        return DeviceReading(
            uuid=f"PLANT-{self.kind.name}",
            read_at_s=body.at_s,
            temperature_c=temperature_c,
            margin_c=margin_c,
            power_w=power_w * (1 + off),
            power_limit_w=self.kind.full_w if self.cap_w is None else self.cap_w,
            utilization=100.0 * self.load,
            throttle_reasons="sw_thermal_slowdown" if body.slowed else "none",
            energy_j=body.energy_j if sensors.counts_energy else None,
        )

    def _temperatures(self) -> tuple[float | None, float | None]:
        """Return temperature and margin with noise and faults, degrees."""
        sensors = self.sensors
        # The noise is always drawn: a fault must not change the values after it.
        told_c = self.body.die_c + sensors.noise_c * self._generator.uniform(-1.0, 1.0)
        if sensors.whole_degrees:
            told_c = float(round(told_c))
        now_s = self.body.at_s
        kinds = {each.kind for each in sensors.faults if each.from_s <= now_s < each.until_s}
        if "lost" in kinds:
            return None, None
        if "absurd" in kinds:
            return 644_245_923.0, self.kind.slowdown_c - 644_245_923.0
        if "stuck" not in kinds or self._told == (None, None):
            margin_c = self.kind.slowdown_c - told_c if sensors.tells_margin else None
            self._told = told_c, margin_c
        return self._told


def at_rest(kind: PlantKind, at_s: float = 0.0) -> Body:
    """Return the state of a device that has idled for a long time in the air of that moment."""
    sink_c = kind.ambient_c(at_s)
    for _ in range(50):
        # The fans depend on the heatsink's temperature, so both are iterated.
        sink_c = kind.ambient_c(at_s) + kind.idle_w * _sink_to_air(kind, sink_c)
    die_c = sink_c + kind.idle_w * kind.die_to_sink_c_per_w
    return Body(at_s=at_s, die_c=die_c, sink_c=sink_c, hottest_c=die_c)


def clock(kind: PlantKind, slowed: bool, load: float, cap_w: float | None) -> float:
    """Return the clock that heat and cap permit at this load; 1 is the full clock."""
    allowed = kind.slow_clock if slowed else 1.0
    span_w = load * (kind.full_w - kind.idle_w)
    left_w = math.inf if cap_w is None else max(cap_w - kind.idle_w, 0.0)
    if span_w <= left_w:
        return allowed
    capped = (left_w / span_w) ** (1 / kind.exponent)
    return float(min(allowed, max(capped, _LEAST_CLOCK)))


def power_at(kind: PlantKind, load: float, at_clock: float) -> float:
    """Return the power at a load and a clock, watts."""
    return float(kind.idle_w + load * (kind.full_w - kind.idle_w) * at_clock**kind.exponent)


def advanced(
    kind: PlantKind,
    body: Body,
    seconds: float,
    load: float,
    cap_w: float | None,
    until_work_s: float = math.inf,
) -> Body:
    """Return the state after `seconds` at `load`, or when `until_work_s` of work are done."""
    at_s, die_c, sink_c, slowed, energy_j, work_s, slowed_s, hottest_c = body
    ends_s = at_s + seconds
    while ends_s - at_s > 1e-9 and until_work_s - work_s > 1e-9:
        at_clock = clock(kind, slowed, load, cap_w)
        step_s = min(_STEP_S, ends_s - at_s)
        speed = load * at_clock
        if speed * step_s > until_work_s - work_s:
            step_s = (until_work_s - work_s) / speed
        power_w = power_at(kind, load, at_clock)
        up_w = (die_c - sink_c) / kind.die_to_sink_c_per_w
        out_w = (sink_c - kind.ambient_c(at_s)) / _sink_to_air(kind, sink_c)
        die_c += step_s * (power_w - up_w) / kind.die_j_per_c
        sink_c += step_s * (up_w - out_w) / kind.sink_j_per_c
        at_s += step_s
        energy_j += step_s * power_w
        work_s += step_s * speed
        slowed_s += step_s if slowed and load > 0 else 0.0
        hottest_c = max(hottest_c, die_c)
        slowed = die_c > kind.slowdown_c - (kind.release_c if slowed else 0.0)
    return Body(at_s, die_c, sink_c, slowed, energy_j, work_s, slowed_s, hottest_c)


def varied(kind: PlantKind, generator: Generator) -> PlantKind:
    """Return a random device of this kind: parts, air and time of day are drawn."""

    def about(value: float, share: float) -> float:
        return value * float(generator.uniform(1 - share, 1 + share))

    return kind.model_copy(
        update={
            "full_w": about(kind.full_w, 0.08),
            "die_j_per_c": about(kind.die_j_per_c, 0.15),
            "sink_j_per_c": about(kind.sink_j_per_c, 0.2),
            "die_to_sink_c_per_w": about(kind.die_to_sink_c_per_w, 0.1),
            "sink_to_air_c_per_w": about(kind.sink_to_air_c_per_w, 0.1),
            "air_c": kind.air_c + float(generator.uniform(-3, 3)),
            "swing_from_s": float(generator.uniform(0, 86_400)),
            "steps": (
                AmbientStep(
                    at_s=float(generator.uniform(0, 14_400)), by_c=float(generator.uniform(-3, 3))
                ),
            ),
        }
    )


def _sink_to_air(kind: PlantKind, sink_c: float) -> float:
    fans = min(max((sink_c - kind.fan_from_c) / kind.fan_span_c, 0.0), 1.0)
    return kind.sink_to_air_c_per_w / (1 + kind.fan_gain * fans)
