"""Compute how much energy the devices used while a job ran, from two snapshots and a duration.

Pure: it knows no clock and no driver. An unknown quantity is None, never zero, with the reason.
Only whole devices are counted: other work on them is included, and what processors used is not.
"""

from __future__ import annotations

import math
from typing import Final, Literal, NamedTuple

from power.core.device_readings import (
    DeviceReading,
    DeviceSnapshot,
    Joules,
    Watts,
    plausible,
    plausible_j,
)

Source = Literal["counter", "counter and power", "power"]

_SOURCES: Final[dict[frozenset[str], Source]] = {
    frozenset({"counter"}): "counter",
    frozenset({"power"}): "power",
    frozenset({"counter", "power"}): "counter and power",
}


class Energy(NamedTuple):
    """The energy used, its source, and a sentence about it. None is unknown."""

    joules: Joules | None
    source: Source | None
    because: str


def used(
    before: DeviceSnapshot, after: DeviceSnapshot, seconds: float, *, uuid: str | None = None
) -> Energy:
    """Return the joules that the devices of both snapshots used in a job of `seconds`.

    A driver is read about once a second, not exactly at the job's ends. So a device's counter gives
    its mean power between its two readings, and that times `seconds` is what it used: a long job is
    hardly affected, and a short one is not charged for a whole second. Where the counter says
    nothing (it is missing, went backwards after a reload of the driver, or was not read again), the
    mean of both power readings is used. A device that reports neither makes the sum unknown. `uuid`
    names the only device that counts, the whole device even if it names a MIG instance, which has
    no counter; None counts all devices.
    """
    for survey, when in ((before, "before"), (after, "after")):
        if survey.driver != "present":
            return Energy(None, None, f"nothing was read {when} the job: {survey.because}")
    if not 0 < seconds < math.inf:
        return Energy(None, None, f"a job of {seconds} s has no energy")
    first = {reading.uuid: reading for reading in before.readings}
    last = {reading.uuid: reading for reading in after.readings}
    counted = sorted(
        name for name in first.keys() & last.keys() if uuid is None or last[name].answers_to(uuid)
    )
    if not counted:
        because = f"{uuid or 'no device'} was not read both before and after the job"
        return Energy(None, None, because)
    total_j, sources = 0.0, set[str]()
    for name in counted:
        mean_w, source = _mean_w(first[name], last[name])
        if mean_w is None:
            return Energy(None, None, f"{name} reports neither energy nor power")
        total_j += mean_w * seconds
        sources.add(source)
    source = _SOURCES[frozenset(sources)]
    count = f"{len(counted)} device{'' if len(counted) == 1 else 's'}"
    return Energy(total_j, source, f"{total_j:.0f} J on {count} in {seconds:.1f} s, by {source}")


def _mean_w(first: DeviceReading, last: DeviceReading) -> tuple[Watts | None, str]:
    """Return the mean power between two readings of a device, watts, and its source."""
    began_j, ended_j = plausible_j(first.energy_j), plausible_j(last.energy_j)
    over_s = last.read_at_s - first.read_at_s
    if began_j is not None and ended_j is not None and 0 < over_s < math.inf:
        counted_w = plausible((ended_j - began_j) / over_s, "power_w")
        if counted_w is not None:
            return counted_w, "counter"
    powers = [plausible(reading.power_w, "power_w") for reading in (first, last)]
    known = [power_w for power_w in powers if power_w is not None]
    return (sum(known) / 2 if len(known) == 2 else None), "power"
