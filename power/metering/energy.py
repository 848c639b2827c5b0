"""How much energy did the devices use while a job ran? Two surveys and a duration give joules.

Pure: knows no clock and no driver. What cannot be known is None, never zero, with the reason. It
counts whole devices: what else ran on them meanwhile is in it, and what processors used is not.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from power.core.device_readings import PLAUSIBLE, GpuReading, Joules, Survey, Watts, plausible_j

Source = Literal["counter", "counter and power", "power"]
_MOST_W: Final = PLAUSIBLE["power_w"][1]


class Energy(NamedTuple):
    """What was used, what it was read from, and the sentence to that. None is unknown."""

    joules: Joules | None
    source: Source | None
    because: str


def used(before: Survey, after: Survey, seconds: float, *, uuid: str | None = None) -> Energy:
    """Joules that the devices of both surveys used in a job of `seconds` between them.

    A driver is read once a second or so, and not at the job's two ends. So a device's counter gives
    its mean power over the time between its two readings, and that times `seconds` is what it used:
    a long job is hardly touched by this, and a short one is not billed for a whole second. Where
    the counter says nothing (it is missing, went backwards because the driver was loaded again, or
    was not read anew), the mean of both power readings stands in. One device that tells neither
    leaves the sum unknown. `uuid` names the one device that counts, a whole one even where it names
    a MIG instance, which has no counter; None counts them all.
    """
    for survey, when in ((before, "before"), (after, "after")):
        if survey.driver != "present":
            return _unknown(f"nothing was read {when} the job: {survey.because}")
    if not 0 < seconds < float("inf"):
        return _unknown(f"a job of {seconds} s has no energy to speak of")
    pairs = _pairs(before, after, uuid)
    if not pairs:
        return _unknown(f"{uuid or 'no device'} was not read both before and after the job")
    total_j, sources = 0.0, set[str]()
    for first, last in pairs:
        mean_w, source = _mean_w(first, last)
        if mean_w is None:
            return _unknown(f"{last.uuid} tells neither energy nor power")
        total_j += mean_w * seconds
        sources.add(source)
    source = _SOURCES[frozenset(sources)]
    count = f"{len(pairs)} device{'' if len(pairs) == 1 else 's'}"
    return Energy(total_j, source, f"{total_j:.0f} J on {count} in {seconds:.1f} s, by {source}")


_SOURCES: Final[dict[frozenset[str], Source]] = {
    frozenset({"counter"}): "counter",
    frozenset({"power"}): "power",
    frozenset({"counter", "power"}): "counter and power",
}


def _unknown(because: str) -> Energy:
    return Energy(None, None, because)


def _pairs(before: Survey, after: Survey, uuid: str | None) -> list[tuple[GpuReading, GpuReading]]:
    """Each device's last reading before the job and its last reading after it."""
    first = {reading.uuid: reading for reading in before.readings}
    last = {reading.uuid: reading for reading in after.readings}
    wanted = [
        name for name in first.keys() & last.keys() if uuid is None or last[name].answers_to(uuid)
    ]
    return [(first[name], last[name]) for name in sorted(wanted)]


def _mean_w(first: GpuReading, last: GpuReading) -> tuple[Watts | None, str]:
    by_counter = _by_counter(first, last)
    if by_counter is not None:
        return by_counter, "counter"
    powers = [_plausible_w(reading.power_w) for reading in (first, last)]
    known = [power_w for power_w in powers if power_w is not None]
    return (sum(known) / 2 if len(known) == 2 else None), "power"


def _by_counter(first: GpuReading, last: GpuReading) -> Watts | None:
    began_j, ended_j = plausible_j(first.energy_j), plausible_j(last.energy_j)
    over_s = last.read_at_s - first.read_at_s
    if began_j is None or ended_j is None or not 0 < over_s < float("inf"):
        return None
    return _plausible_w((ended_j - began_j) / over_s)


def _plausible_w(power_w: Watts | None) -> Watts | None:
    return power_w if power_w is not None and 0 <= power_w <= _MOST_W else None
