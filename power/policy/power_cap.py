"""Which power limit should the next heavy job have? Measured points and rules give a Decision.

Pure: knows no clock, no disk and no driver, and sets nothing; `limits` does. A cap lowers the clock
and so the voltage: a job takes longer, and up to a point less energy. Where that point lies depends
on the device and on the job, so it is measured: the first runs try one cap each, the mildest first,
and from then on the objective chooses among what they took. What is unknown is a "no" that says
what to do: the job then runs under the limit that is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from observability.core.decision import Decision, Fact
from power.core.device_readings import PLAUSIBLE, Kept
from power.devices.device import PRIVILEGE, Device

Watts = float
Objective = Literal["least_energy", "least_cost", "least_energy_within"]

_OPT_IN: Final = "to have jobs capped, set enabled = true in [cap]"
_SEE_PROBE: Final = "see thermodrift gpu probe"
_NO_ENERGY: Final = f"tells neither energy nor power, so no cap can be measured: {_SEE_PROBE}"
_J_PER_KWH: Final = 3.6e6


class CapRules(BaseModel):
    """The knobs of the table [cap]: whether heavy jobs run under a lower power limit, and which."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    enabled: bool = Field(
        default=False, description="Whether a job's device gets a lower limit while it runs."
    )
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
        default=0.0, ge=0, le=1e9, description="With least_cost: what a kilowatt hour costs."
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
    measure_runs: int = Field(
        default=1, ge=1, le=1_000, description="Runs after which a cap counts as measured."
    )
    remember_runs: int = Field(
        default=20, ge=1, le=1_000_000, description="About how many past runs a mean spans."
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


class CapPoint(Kept):
    """What a unit of work took on one device under one cap: the mean of past runs."""

    uuid: str = Field(description="The device.")
    cap_w: Watts | None = Field(description="The cap, watts; None: no cap was set.")
    seconds: float = Field(description="Seconds per unit of work.")
    energy_j: float = Field(description="Joules per unit of work.")
    runs: int = Field(ge=1, description="Runs learned from.")


class CapRun(NamedTuple):
    """What one run took. `work` is its size in any unit that runs can be compared by: rows, say.

    `cap_w` is the cap that was in force in the whole of it (`limits.Capping.held`); None: none.
    """

    uuid: str
    cap_w: Watts | None
    seconds: float | None
    energy_j: float | None
    work: float


def learn(points: Sequence[CapPoint], run: CapRun, rules: CapRules) -> tuple[CapPoint, ...]:
    """The points after one more run; one that was not measured in full teaches nothing."""
    seconds, energy_j = _per_unit(run.seconds, run.work), _per_unit(run.energy_j, run.work)
    if seconds is None or energy_j is None:
        return tuple(points)
    others = tuple(each for each in points if (each.uuid, each.cap_w) != (run.uuid, run.cap_w))
    before = _points_of(points, run.uuid).get(run.cap_w)
    if before is None:
        first = CapPoint(uuid=run.uuid, cap_w=run.cap_w, seconds=seconds, energy_j=energy_j, runs=1)
        return (*others, first)
    share = 1 / min(before.runs + 1, rules.remember_runs)
    after = before.model_copy(
        update={
            "seconds": before.seconds + share * (seconds - before.seconds),
            "energy_j": before.energy_j + share * (energy_j - before.energy_j),
            "runs": before.runs + 1,
        }
    )
    return (*others, after)


def choose(points: Sequence[CapPoint], device: Device, rules: CapRules) -> Decision:
    """Whether the next job on `device` runs under a cap; `watts` takes it from the answer.

    A "no" that names no trouble is a choice too: no cap is best, or is measured now.
    """
    facts, limits = _facts(device, rules), _limits_or_why_not(device)
    if not rules.enabled:
        return _answer(None, f"capping is off: {_OPT_IN}", facts)
    if isinstance(limits, str):
        return _answer(None, limits, facts)
    if device.energy_j is None and device.power_w is None:
        return _answer(None, f"{device.uuid} {_NO_ENERGY}", facts)
    known, caps = _points_of(points, device.uuid), _candidates(limits, rules)
    facts |= _measured_facts(known, caps)
    if len(caps) == 1:
        return _answer(None, _nothing_below(limits, rules), facts)
    unmeasured = _unmeasured(known, caps, rules)
    if rules.measure and unmeasured:
        cap_w = unmeasured[0]
        told = f"{_named(cap_w)} is measured: {_counted(known, cap_w, rules)}"
        return _answer(cap_w, told, facts | {"measuring": True})
    return _best(known, caps, rules, facts)


def lowest(device: Device, rules: CapRules) -> Decision:
    """The lowest cap that is allowed, for a job that must run though the device is warm.

    Asked for by `at_deadline = "capped"`, which is an opt-in of its own: `enabled` and what was
    measured play no part. Yes without watts: the limit that is there is already that low.
    """
    facts, limits = _facts(device, rules), _limits_or_why_not(device)
    if isinstance(limits, str):
        return _answer(None, limits, facts)
    cap_w = _candidates(limits, rules)[-1]
    if cap_w is None:
        because = f"its limit of {limits.now_w:g} W is as low as [cap] shares ask for"
        return _answer(None, because, facts).model_copy(update={"yes": True})
    told = f"the lowest that [cap] shares and the device's range of {limits} allow"
    return _answer(cap_w, f"{_named(cap_w)} is {told}", facts)


def allowed(device: Device, rules: CapRules) -> tuple[Watts, ...]:
    """The caps that may be set on `device` now, the mildest first; none where capping is off."""
    limits = _limits_or_why_not(device)
    if not rules.enabled or isinstance(limits, str):
        return ()
    return tuple(cap_w for cap_w in _candidates(limits, rules) if cap_w is not None)


def watts(decision: Decision) -> Watts | None:
    """The cap that a decision of this judge names, in watts; None: no cap is to be set."""
    cap_w = decision.facts.get("cap_w")
    return float(cap_w) if decision and cap_w is not None else None


class _Limits(NamedTuple):
    """The limit that a device has, and the range of those that it takes."""

    now_w: Watts
    least_w: Watts
    most_w: Watts

    def __str__(self) -> str:
        return f"{self.least_w:g} to {self.most_w:g} W"


def _limits(device: Device) -> _Limits | None:
    """What a device tells of its limits, where that can be."""
    now_w, least_w = device.power_limit_w, device.power_limit_min_w
    most_w = device.power_limit_max_w
    if now_w is None or least_w is None or most_w is None:
        return None
    can_be = 0 < least_w <= most_w <= PLAUSIBLE["power_limit_w"][1] and 0 < now_w < math.inf
    return _Limits(now_w, least_w, most_w) if can_be else None


def _candidates(limits: _Limits, rules: CapRules) -> tuple[Watts | None, ...]:
    """What may be chosen: None, no cap, first; then caps, the mildest first.

    Whole watts within the device's range, each below the limit that is there: a person who lowered
    it had a reason, and no cap goes above it.
    """
    asked_w = (float(round(share * limits.most_w)) for share in rules.shares)
    caps = {min(max(cap_w, limits.least_w), limits.most_w) for cap_w in asked_w}
    return (None, *sorted((cap_w for cap_w in caps if cap_w < limits.now_w), reverse=True))


def _unmeasured(
    known: Mapping[Watts | None, CapPoint], caps: Sequence[Watts | None], rules: CapRules
) -> list[Watts | None]:
    """What is still to be measured, the mildest first; nothing beyond one that is too slow."""
    found = []
    for cap_w in caps:
        point = known.get(cap_w)
        if point is None or point.runs < rules.measure_runs:
            found.append(cap_w)
        elif not _is_allowed(point, known, rules):
            break
    return found


def _best(
    known: Mapping[Watts | None, CapPoint],
    caps: Sequence[Watts | None],
    rules: CapRules,
    facts: Mapping[str, Fact],
) -> Decision:
    if None not in known:
        because = (
            "what a job takes without a cap was not measured: set measure = true in [cap], and the "
            "next run is"
        )
        return _answer(None, because, facts)
    points = [known[cap_w] for cap_w in caps if cap_w in known]
    allowed = [point for point in points if _is_allowed(point, known, rules)]
    # Of two that are as good, the milder one: it stands first.
    best = min(allowed, key=lambda point: _worth(point, rules))
    uncapped = known[None]
    told = (
        f"{_named(best.cap_w)} is best for {_objective(rules)} among {len(points)} measured: "
        f"{_percent(best.energy_j / uncapped.energy_j)} of the energy and "
        f"{_percent(best.seconds / uncapped.seconds)} of the time of a job without a cap"
    )
    return _answer(best.cap_w, told, facts)


def _is_allowed(point: CapPoint, known: Mapping[Watts | None, CapPoint], rules: CapRules) -> bool:
    uncapped = known.get(None)
    if rules.objective != "least_energy_within" or uncapped is None or point.cap_w is None:
        return True
    return point.seconds <= (1 + rules.max_slowdown) * uncapped.seconds


def _worth(point: CapPoint, rules: CapRules) -> float:
    """What is to be least."""
    if rules.objective == "least_cost":
        return cost(point, rules)
    return point.energy_j


def cost(point: CapPoint, rules: CapRules) -> float:
    """What a unit of work costs at this point, in the currency of the prices."""
    by_energy = point.energy_j / _J_PER_KWH * rules.price_per_kwh
    return by_energy + point.seconds / 3600 * rules.price_per_hour


def _limits_or_why_not(device: Device) -> _Limits | str:
    """The limits of a device that may be capped, or what keeps it from that and what to do."""
    if device.unreadable is not None:
        return f"{device.uuid} cannot be read ({device.unreadable}): {_SEE_PROBE}"
    limits = _limits(device)
    if limits is None:
        return f"{device.uuid} does not tell its limit and the range of it: {_SEE_PROBE}"
    if not device.may_set_limit:
        return f"this process may not set a limit: {PRIVILEGE}, or set enabled = false in [cap]"
    return limits


def _nothing_below(limits: _Limits, rules: CapRules) -> str:
    shares = ", ".join(f"{share:g}" for share in rules.shares)
    return (
        f"no share in [cap] ({shares}) is below the limit of {limits.now_w:g} W and within the "
        f"range of {limits}: give smaller ones, if the range has room"
    )


def _points_of(points: Sequence[CapPoint], uuid: str) -> dict[Watts | None, CapPoint]:
    return {point.cap_w: point for point in points if point.uuid == uuid}


def _facts(device: Device, rules: CapRules) -> dict[str, Fact]:
    return {
        "uuid": device.uuid,
        "power_limit_w": device.power_limit_w,
        "power_limit_min_w": device.power_limit_min_w,
        "power_limit_max_w": device.power_limit_max_w,
        "may_set_limit": device.may_set_limit,
        "enabled": rules.enabled,
        "objective": rules.objective,
        "max_slowdown": rules.max_slowdown,
        "price_per_kwh": rules.price_per_kwh,
        "price_per_hour": rules.price_per_hour,
        "shares": ", ".join(f"{share:g}" for share in rules.shares),
        "measure": rules.measure,
        "measure_runs": rules.measure_runs,
        "measuring": False,
    }


def _measured_facts(
    known: Mapping[Watts | None, CapPoint], caps: Sequence[Watts | None]
) -> dict[str, Fact]:
    """What was measured of each that may be chosen, per unit of work."""
    facts: dict[str, Fact] = {}
    for cap_w in caps:
        point, at = known.get(cap_w), "uncapped" if cap_w is None else f"at_{cap_w:g}_w"
        if point is not None:
            facts |= {f"seconds_{at}": point.seconds, f"energy_j_{at}": point.energy_j}
        facts[f"runs_{at}"] = 0 if point is None else point.runs
    return facts


def _answer(cap_w: Watts | None, because: str, facts: Mapping[str, Fact]) -> Decision:
    most_w = facts["power_limit_max_w"]
    share = None if cap_w is None or not isinstance(most_w, (int, float)) else cap_w / most_w
    named: dict[str, Fact] = {"cap_w": cap_w, "share": share}
    return Decision(
        question="power_cap", yes=cap_w is not None, because=because, facts={**named, **facts}
    )


def _named(cap_w: Watts | None) -> str:
    return "no cap" if cap_w is None else f"a cap of {cap_w:g} W"


def _counted(known: Mapping[Watts | None, CapPoint], cap_w: Watts | None, rules: CapRules) -> str:
    runs = known[cap_w].runs if cap_w in known else 0
    return f"{runs} of {rules.measure_runs} runs of it are known (measure_runs)"


def _objective(rules: CapRules) -> str:
    if rules.objective == "least_energy_within":
        return f"least energy within {_percent(rules.max_slowdown)} slow-down"
    return rules.objective.replace("_", " ")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _per_unit(amount: float | None, work: float) -> float | None:
    """A finite number above zero, or None where there is none."""
    if amount is None or not (0 < amount < math.inf and 0 < work < math.inf):
        return None
    per_unit = amount / work
    return per_unit if 0 < per_unit < math.inf else None
