"""Decide under which power limit the next heavy job runs.

Pure: it knows no clock, no disk and no driver; `power.devices.power_limit` sets the limit. A cap
lowers the clock and so the voltage: a job takes longer, and up to a point it uses less energy. That
point depends on the device and the job, so it is measured: the first runs try one cap each, the
mildest first; afterwards the objective chooses among the measurements. Where something is unknown,
the answer is a "no" that says what to do: the job runs under the present limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from observability.core.decision import Decision, Fact
from power.core.device_readings import PLAUSIBLE, FrozenState
from power.core.frozen_model import FiniteModel
from power.devices.device import PRIVILEGE, Device

Watts = float
Points = Mapping[Watts | None, "CapPoint"]
"""The measurements of one device by cap; None: no cap."""
Objective = Literal["least_energy", "least_cost", "least_energy_within"]

_OPT_IN: Final = "to have jobs capped, set enabled = true in [cap]"
_SEE_PROBE: Final = "see thermodrift gpu probe"
_NO_ENERGY: Final = f"tells neither energy nor power, so no cap can be measured: {_SEE_PROBE}"
_J_PER_KWH: Final = 3.6e6


class CapConfig(FiniteModel):
    """The table [cap]: whether heavy jobs run under a lower power limit, and under which."""

    enabled: bool = Field(default=False, description="Whether jobs run under a lower limit.")
    objective: Objective = Field(
        default="least_energy_within",
        description="What a cap is chosen for: least_energy, least_cost (of energy and of the "
        "machine's time), or least_energy_within max_slowdown.",
    )
    max_slowdown: float = Field(
        default=0.1,
        ge=0,
        le=10,
        description="With least_energy_within: by which share of its time uncapped a job may take "
        "longer.",
    )
    shares: tuple[float, ...] = Field(
        default=(1.0, 0.9, 0.8, 0.7, 0.6, 0.5),
        min_length=1,
        max_length=100,
        description="Caps that are tried, as shares of the device's highest limit. No cap at all "
        "is always among what may be chosen.",
    )
    price_per_kwh: float = Field(
        default=0.0, ge=0, le=1e9, description="Price per kWh for least_cost."
    )
    price_per_hour: float = Field(
        default=0.0,
        ge=0,
        le=1e9,
        description="With least_cost: what an hour of the machine costs, in the same currency.",
    )
    measure: bool = Field(
        default=True,
        description="Whether caps that were not measured yet are tried before choosing, one per "
        "run, the mildest first.",
    )
    measure_runs: int = Field(default=1, ge=1, le=1_000, description="Runs to measure a cap.")
    remember_runs: int = Field(
        default=20, ge=1, le=1_000_000, description="About how many runs a mean covers."
    )

    @model_validator(mode="after")
    def _make_sense_together(self) -> Self:
        odd = [share for share in self.shares if not 0 < share <= 1]
        if odd:
            raise ValueError(f"shares are above 0 and at most 1; came: {odd}")
        if self.objective == "least_cost" and not self.price_per_kwh + self.price_per_hour:
            raise ValueError(
                "least_cost needs a price: set price_per_kwh, price_per_hour or both in [cap]"
            )
        return self


class CapPoint(FrozenState):
    """What a unit of work took on one device under one cap: a mean over past runs."""

    uuid: str = Field(description="The device.")
    cap_w: Watts | None = Field(description="The cap, watts; None: no cap was set.")
    seconds: float = Field(description="Seconds per unit of work.")
    energy_j: float = Field(description="Joules per unit of work.")
    runs: int = Field(ge=1, description="Runs learned from.")


class CapRun(NamedTuple):
    """The measurement of one run.

    `cap_w` is the cap in watts that was in force throughout (`Capping.held`); None: no cap. `work`
    is the run's size in a unit by which runs can be compared, such as rows.
    """

    uuid: str
    cap_w: Watts | None
    seconds: float | None
    energy_j: float | None
    work: float


def learn(points: Sequence[CapPoint], run: CapRun, cap_config: CapConfig) -> tuple[CapPoint, ...]:
    """Return the points after one more run; an incomplete measurement changes nothing."""
    seconds, energy_j = _per_unit(run.seconds, run.work), _per_unit(run.energy_j, run.work)
    if seconds is None or energy_j is None:
        return tuple(points)
    others = tuple(each for each in points if (each.uuid, each.cap_w) != (run.uuid, run.cap_w))
    before = _points_of(points, run.uuid).get(run.cap_w)
    if before is None:
        first = CapPoint(uuid=run.uuid, cap_w=run.cap_w, seconds=seconds, energy_j=energy_j, runs=1)
        return (*others, first)
    share = 1 / min(before.runs + 1, cap_config.remember_runs)
    after = before.model_copy(
        update={
            "seconds": before.seconds + share * (seconds - before.seconds),
            "energy_j": before.energy_j + share * (energy_j - before.energy_j),
            "runs": before.runs + 1,
        }
    )
    return (*others, after)


def choose(points: Sequence[CapPoint], device: Device, cap_config: CapConfig) -> Decision:
    """Decide whether the next job on `device` runs under a cap; `watts` reads it from the answer.

    A "no" without an obstacle is a choice too: no cap is best, or is measured now.
    """
    facts, limits = _facts(device, cap_config), _limits_or_obstacle(device)
    if not cap_config.enabled:
        return _answer(None, f"capping is off: {_OPT_IN}", facts)
    if isinstance(limits, str):
        return _answer(None, limits, facts)
    if device.energy_j is None and device.power_w is None:
        return _answer(None, f"{device.uuid} {_NO_ENERGY}", facts)
    known, caps = _points_of(points, device.uuid), _candidates(limits, cap_config)
    for cap_w in caps:
        point, at = known.get(cap_w), "uncapped" if cap_w is None else f"at_{cap_w:g}_w"
        if point is not None:
            facts |= {f"seconds_{at}": point.seconds, f"energy_j_{at}": point.energy_j}
        facts[f"runs_{at}"] = 0 if point is None else point.runs
    if len(caps) == 1:
        shares = ", ".join(f"{share:g}" for share in cap_config.shares)
        because = (
            f"no share in [cap] ({shares}) is below the limit of {limits.now_w:g} W and within the "
            f"range of {limits}: give smaller ones, if the range has room"
        )
        return _answer(None, because, facts)
    if cap_config.measure:
        for cap_w in caps:
            runs = known[cap_w].runs if cap_w in known else 0
            if runs < cap_config.measure_runs:
                counted = f"{runs} of {cap_config.measure_runs} runs of it are known (measure_runs)"
                because = f"{_named(cap_w)} is measured: {counted}"
                return _answer(cap_w, because, facts | {"measuring": True})
            # A lower cap than one that is too slow is too slow as well.
            if not _is_allowed(known[cap_w], known, cap_config):
                break
    return _best(known, caps, cap_config, facts)


def lowest(device: Device, cap_config: CapConfig) -> Decision:
    """Choose the lowest allowed cap, for a job that must run although the device is warm.

    It serves `at_deadline = "capped"`, which is an opt-in of its own: `enabled` and measurements do
    not matter. A yes without watts means that the present limit is already that low.
    """
    facts, limits = _facts(device, cap_config), _limits_or_obstacle(device)
    if isinstance(limits, str):
        return _answer(None, limits, facts)
    cap_w = _candidates(limits, cap_config)[-1]
    if cap_w is None:
        because = f"its limit of {limits.now_w:g} W is as low as [cap] shares ask for"
        return _answer(None, because, facts).model_copy(update={"yes": True})
    because = f"the lowest that [cap] shares and the device's range of {limits} allow"
    return _answer(cap_w, f"{_named(cap_w)} is {because}", facts)


class Saving(NamedTuple):
    """What a job takes under the best cap, as shares of what it takes without one."""

    energy_share: float
    time_share: float


def saving(points: Sequence[CapPoint], cap_config: CapConfig) -> Saving | None:
    """Return what capping is known to save, on the device where it saves most energy.

    None where capping is off, or no cap was measured beside a run without one.
    """
    if not cap_config.enabled:
        return None
    found = [
        Saving(point.energy_j / uncapped.energy_j, point.seconds / uncapped.seconds)
        for point in points
        if point.cap_w is not None
        for uncapped in [_points_of(points, point.uuid).get(None)]
        if uncapped is not None
    ]
    return min(found, default=None)


def allowed(device: Device, cap_config: CapConfig) -> tuple[Watts, ...]:
    """Return the caps that may be set on `device` now, mildest first; none if capping is off."""
    limits = _limits_or_obstacle(device)
    if not cap_config.enabled or isinstance(limits, str):
        return ()
    return tuple(cap_w for cap_w in _candidates(limits, cap_config) if cap_w is not None)


def watts(decision: Decision) -> Watts | None:
    """Return the cap that a decision of this module names, in watts; None: set no cap."""
    cap_w = decision.facts.get("cap_w")
    return float(cap_w) if decision and cap_w is not None else None


def cost(point: CapPoint, cap_config: CapConfig) -> float:
    """Return what a unit of work costs at this point, in the currency of the prices."""
    by_energy = point.energy_j / _J_PER_KWH * cap_config.price_per_kwh
    return by_energy + point.seconds / 3600 * cap_config.price_per_hour


class _LimitRange(NamedTuple):
    """A device's present limit, and the range that it accepts."""

    now_w: Watts
    least_w: Watts
    most_w: Watts

    def __str__(self) -> str:
        return f"{self.least_w:g} to {self.most_w:g} W"


def _limits_or_obstacle(device: Device) -> _LimitRange | str:
    """Return the limits of a device that may be capped, or why it may not and what to do."""
    if device.unreadable is not None:
        return f"{device.uuid} cannot be read ({device.unreadable}): {_SEE_PROBE}"
    now_w, least_w = device.power_limit_w, device.power_limit_min_w
    most_w, highest_w = device.power_limit_max_w, PLAUSIBLE["power_limit_w"][1]
    if (
        (now_w is None or least_w is None or most_w is None)
        or not 0 < least_w <= most_w <= highest_w
        or not 0 < now_w < math.inf
    ):
        return f"{device.uuid} does not tell its limit and the range of it: {_SEE_PROBE}"
    if not device.may_set_limit:
        return f"this process may not set a limit: {PRIVILEGE}, or set enabled = false in [cap]"
    return _LimitRange(now_w, least_w, most_w)


def _candidates(limits: _LimitRange, cap_config: CapConfig) -> tuple[Watts | None, ...]:
    """Return what may be chosen: first None for no cap, then caps, the mildest first.

    Caps are whole watts within the device's range and below the present limit: a person who lowered
    the limit had a reason.
    """
    asked_w = (float(round(share * limits.most_w)) for share in cap_config.shares)
    caps = {min(max(cap_w, limits.least_w), limits.most_w) for cap_w in asked_w}
    return (None, *sorted((cap_w for cap_w in caps if cap_w < limits.now_w), reverse=True))


def _best(
    known: Points, caps: Sequence[Watts | None], cap_config: CapConfig, facts: Mapping[str, Fact]
) -> Decision:
    uncapped = known.get(None)
    if uncapped is None:
        because = (
            "what a job takes without a cap was not measured: set measure = true in [cap], and the "
            "next run is"
        )
        return _answer(None, because, facts)
    points = [known[cap_w] for cap_w in caps if cap_w in known]
    by_cost = cap_config.objective == "least_cost"
    # Of two that are equally good `min` takes the first, which is the milder one.
    best = min(
        (point for point in points if _is_allowed(point, known, cap_config)),
        key=lambda point: cost(point, cap_config) if by_cost else point.energy_j,
    )
    objective = cap_config.objective.replace("_", " ")
    if cap_config.objective == "least_energy_within":
        objective = f"least energy within {_percent(cap_config.max_slowdown)} slow-down"
    because = (
        f"{_named(best.cap_w)} is best for {objective} among {len(points)} measured: "
        f"{_percent(best.energy_j / uncapped.energy_j)} of the energy and "
        f"{_percent(best.seconds / uncapped.seconds)} of the time of a job without a cap"
    )
    return _answer(best.cap_w, because, facts)


def _is_allowed(point: CapPoint, known: Points, cap_config: CapConfig) -> bool:
    uncapped = known.get(None)
    if cap_config.objective != "least_energy_within" or uncapped is None or point.cap_w is None:
        return True
    return point.seconds <= (1 + cap_config.max_slowdown) * uncapped.seconds


def _points_of(points: Sequence[CapPoint], uuid: str) -> dict[Watts | None, CapPoint]:
    return {point.cap_w: point for point in points if point.uuid == uuid}


def _facts(device: Device, cap_config: CapConfig) -> dict[str, Fact]:
    return {
        "uuid": device.uuid,
        "power_limit_w": device.power_limit_w,
        "power_limit_min_w": device.power_limit_min_w,
        "power_limit_max_w": device.power_limit_max_w,
        "may_set_limit": device.may_set_limit,
        "enabled": cap_config.enabled,
        "objective": cap_config.objective,
        "max_slowdown": cap_config.max_slowdown,
        "price_per_kwh": cap_config.price_per_kwh,
        "price_per_hour": cap_config.price_per_hour,
        "shares": ", ".join(f"{share:g}" for share in cap_config.shares),
        "measure": cap_config.measure,
        "measure_runs": cap_config.measure_runs,
        "measuring": False,
    }


def _answer(cap_w: Watts | None, because: str, facts: Mapping[str, Fact]) -> Decision:
    most_w = facts["power_limit_max_w"]
    share = None if cap_w is None or not isinstance(most_w, (int, float)) else cap_w / most_w
    named: dict[str, Fact] = {"cap_w": cap_w, "share": share}
    return Decision(
        question="power_cap", yes=cap_w is not None, because=because, facts={**named, **facts}
    )


def _named(cap_w: Watts | None) -> str:
    return "no cap" if cap_w is None else f"a cap of {cap_w:g} W"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _per_unit(amount: float | None, work: float) -> float | None:
    """Return a finite number above zero, or None."""
    if amount is None or not (0 < amount < math.inf and 0 < work < math.inf):
        return None
    per_unit = amount / work
    return per_unit if 0 < per_unit < math.inf else None
