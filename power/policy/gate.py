"""May a heavy job start on this machine now? Readings, limits and a memory give a Decision.

Pure: knows no clock, no disk and no driver. Readings come from the doors (`nvml`, `replay`), the
moment is an argument, and the memory between two judgements is a value that the caller keeps.
It fails closed: what is hot, stale, unknown or impossible is a "no" that says its numbers.

The thermostat has two thresholds, so that it does not flutter: a device closes at once at or below
the pause margin, and opens again only at the resume margin. Pausing at 10 and resuming at 20
degrees are the habits of NVIDIA's own profiler guard, which however opens without a sensor. Once
closed it stays closed for a while, and urgency moves the resume margin towards the pause margin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from pydantic import Field

from observability.core.decision import Decision, Fact
from power.core.device_readings import (
    PLAUSIBLE,
    GpuReading,
    Kept,
    Rung,
    Survey,
    closing_reasons,
    margin,
)
from power.core.gate_config import GateLimits

Cause = Literal[
    "too_warm", "slowdown", "settling", "unreadable", "no_driver", "stale", "implausible",
    "no_margin", "not_read", "not_found", "forecast", "leased", "override",
]  # fmt: skip
"""Why the gate or the admission says no: one word for one state, in the fact ``cause``."""

CAUSES: Final[Mapping[Cause, str]] = {
    "too_warm": "the {device} was too warm",
    "slowdown": "the {device} was slowing itself down",
    "settling": "the {device} was not cool for long enough",
    "unreadable": "the {device} could not be read",
    "no_driver": "there was no {device} to read",
    "stale": "the last reading of the {device} was too old",
    "implausible": "the {device} told what cannot be true",
    "no_margin": "the {device} told nothing to count a margin from",
    "not_read": "the {device} was not read yet",
    "not_found": "the {device} of [gate] uuid was not there",
    "forecast": "the {device} would have become too warm",
    "leased": "the {device} was leased to another job",
    "override": "a person kept the gate closed",
}
"""The one wording of each cause, for whoever counts and tells deferrals."""

UNKNOWN: Final = "unknown"
"""The cause of a no whose judge named none, or of which an earlier version kept none."""

_TOLD: Final = {
    *("temperature_c", "memory_temperature_c", "power_w", "power_limit_w", "utilization"),
    *("clock_mhz", "throttle_reasons", "unreadable"),
}
"""What of a reading is told among a decision's facts, beside its margin and its age."""


class DeviceState(Kept):
    """What the gate remembers of one device."""

    uuid: str
    open: bool = False
    good_readings: int = Field(default=0, description="Readings in a row at the resume margin.")
    latest: GpuReading | None = Field(default=None, description="The last reading, as it came.")
    trusted: GpuReading | None = Field(
        default=None, description="The last plausible one: what jumps are measured from."
    )
    why: str = Field(default="it has not been read yet", description="Why it is open or closed.")
    cause: Cause | None = Field(
        default="not_read", description="The same in one word; None where it is open."
    )
    closed_at_s: float | None = Field(
        default=None, description="When it was last closed after it had been open."
    )
    discarded: int = Field(
        default=0,
        ge=0,
        description="Values so far that could not be: sentinels, absurdities, impossible jumps.",
    )

    def answers_to(self, uuid: str | None) -> bool:
        """Whether it is the device that counts, or a MIG instance on it; None: any is."""
        if uuid is None or uuid == self.uuid:
            return True
        return self.latest is not None and self.latest.answers_to(uuid)


class GateState(Kept):
    """The gate's memory between two judgements. A fresh one knows no device: it is closed."""

    devices: tuple[DeviceState, ...] = ()

    def device(self, uuid: str) -> DeviceState:
        """What is remembered of `uuid`; a device never seen is closed."""
        return next((each for each in self.devices if each.uuid == uuid), DeviceState(uuid=uuid))


class Judged(NamedTuple):
    """An answer, and the memory to hand to the next judgement."""

    decision: Decision
    state: GateState


def judge(survey: Survey, state: GateState, limits: GateLimits, now_s: float) -> Judged:
    """Answer whether heavy work may start at `now_s` (seconds on the readings' clock).

    Every reading moves the memory of its device, in the order given; the same reading handed in
    again counts once. Yes, if at least one device (or the one named in `limits.uuid`) is open.
    """
    if limits.source == "off":
        return Judged(_answer(True, None, 'the gate is off: source = "off" in [gate]', {}), state)
    if survey.driver != "present":
        return _without_readings(survey, state, limits, now_s)
    remembered = {device.uuid: device for device in state.devices}
    for reading in survey.readings:
        before = remembered.get(reading.uuid, DeviceState(uuid=reading.uuid))
        remembered[reading.uuid] = _after(before, reading, limits, now_s)
    after = GateState(
        devices=tuple(_unless_stale(device, limits, now_s) for device in remembered.values())
    )
    return Judged(_decide(survey, after, limits, now_s), after)


def told(decision: Decision) -> str:
    """What the gate answers, in the sentence that all who tell of it use."""
    return f"the gate is {'open' if decision else 'closed'}: {decision.because}"


def in_words(cause: str | None, reads_from: str) -> str:
    """The one wording of a cause; `reads_from` is the source of the readings."""
    words = next((text for known, text in CAUSES.items() if known == cause), None)
    if words is None:
        return "of a cause that is not known"
    return f"because {words.format(device='CPU' if reads_from == 'cpu' else 'GPU')}"


def counted(causes: Mapping[str, int], reads_from: str) -> str:
    """How often each cause kept work from starting, in words, the most frequent first."""
    ranked = sorted(causes.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count} {in_words(cause, reads_from)}" for cause, count in ranked if count)


def asks_again(
    asked_at: int, position: int, replayed: bool, why_deferred: str, cause: str | None
) -> Decision:
    """Could the gate say something else than when it was asked last, at the position `asked_at`?

    At one position a recorded trace says one thing; live readings move on by themselves.
    """
    if not replayed or asked_at < position:
        because = f"the readings may have changed since the gate was asked at position {asked_at}"
        return Decision(question="gate", yes=True, because=because, facts={"cause": cause})
    because = f"{why_deferred} (the trace says the same until more is learned)"
    return Decision(question="gate", yes=False, because=because, facts={"cause": cause})


def opened(state: GateState, uuid: str) -> GateState:
    """The memory with `uuid` open, because a job was let in on it: what closes it now is news."""
    device = state.device(uuid).model_copy(
        update={"open": True, "why": "a job was let in", "cause": None}
    )
    others = tuple(each for each in state.devices if each.uuid != uuid)
    return GateState(devices=(*others, device))


def dwells(device: DeviceState, limits: GateLimits, now_s: float) -> bool:
    """Whether a device closed so lately that it must stay closed (`dwell_s`)."""
    return not device.open and _dwell_left_s(device, limits, now_s) > 0


def opens_in_s(device: DeviceState, limits: GateLimits, now_s: float) -> float | None:
    """Seconds until a closed device opens where only `dwell_s` is in its way; None where more is.

    Provided that it stays as cool as it was read last, and goes on being read.
    """
    if device.open or device.good_readings < limits.good_readings:
        return None
    return _dwell_left_s(device, limits, now_s)


def answer_of(device: DeviceState, limits: GateLimits, now_s: float) -> Decision:
    """What the gate says of one device alone, as it was judged last."""
    because = f"{_named(device, limits)} is {'open' if device.open else 'closed'}: {device.why}"
    if not device.open:
        because += f"; {_what_opens(limits)}"
    return _answer(device.open, device.cause, because, _facts(device, limits, now_s))


def _after(
    before: DeviceState, reading: GpuReading, limits: GateLimits, now_s: float
) -> DeviceState:
    """The memory of a device once it has seen one more reading."""
    if repr(reading) == repr(before.latest):
        # Told again, not read again. (Compared as text, since NaN is not equal to itself.)
        return before
    problem = _not_of_now(reading, now_s)
    if problem:
        # A moment that cannot be is not taken as the moment to measure the next reading from.
        return _closed(before, "implausible", problem, now_s)
    at_s = reading.read_at_s
    problem = _out_of_order(reading, before)
    if problem:
        return _closed(before, "implausible", problem, at_s).model_copy(
            update={"latest": reading, "trusted": None}
        )
    current = _unless_stale(before, limits, reading.read_at_s).model_copy(
        update={"latest": reading, "discarded": before.discarded + reading.discarded}
    )
    if reading.unreadable is not None:
        return _closed(current, "unreadable", _silent(reading.unreadable, current), at_s)
    odd = _implausible(reading) or _jumps(reading, current, limits)
    if odd:
        seen = current.discarded + len(odd)
        return _closed(current, "implausible", "; ".join(odd), at_s).model_copy(
            update={"discarded": seen}
        )
    return _thermostat(current, reading, limits).model_copy(update={"trusted": reading})


def _thermostat(device: DeviceState, reading: GpuReading, limits: GateLimits) -> DeviceState:
    """Two thresholds over a plausible reading; between them the device stays as it is."""
    at_s = reading.read_at_s
    reasons = closing_reasons(reading.throttle_reasons)
    if reasons:
        why = f"the hardware is slowing down ({', '.join(reasons)})"
        return _closed(device, "slowdown", why, at_s)
    margin_c, margin_source = margin(reading, limits)
    if margin_c is None:
        why = "it tells no margin and no max_temperature_c is set in [gate]"
        return _closed(device, "no_margin", why, at_s)
    measured = f"its margin is {margin_c:.1f} °C{_against(reading, margin_source, limits)}"
    if margin_c <= limits.pause_margin_c:
        why = f"{measured}, at or below the pause margin of {limits.pause_margin_c:g} °C"
        return _closed(device, "too_warm", why, at_s)
    if margin_c < limits.resume_margin_c:
        kept = "stays open" if device.open else "stays closed"
        why = f"{measured}, between pause and resume margin: it {kept}"
        good = device.good_readings if device.open else 0
        cause = None if device.open else "too_warm"
        return device.model_copy(update={"good_readings": good, "why": why, "cause": cause})
    good = min(device.good_readings + 1, limits.good_readings)
    why = f"{measured}, at or above the resume margin of {limits.resume_margin_c:g} °C"
    if limits.good_readings > 1:
        why += f" ({good} of {limits.good_readings} readings in a row)"
    opened = device.open or good >= limits.good_readings
    left_s = 0.0 if device.open else _dwell_left_s(device, limits, at_s)
    if opened and left_s > 0:
        opened = False
        why += f", but it closed {limits.dwell_s - left_s:.0f} s ago and stays closed for "
        why += f"{limits.dwell_s:g} s (dwell_s)"
    cause = None if opened else "settling"
    told = {"open": opened, "good_readings": good, "why": why, "cause": cause}
    return device.model_copy(update=told)


def _against(reading: GpuReading, margin_source: Rung, limits: GateLimits) -> str:
    if margin_source == "maximum":
        return f" to max_temperature_c = {limits.max_temperature_c:g}"
    if margin_source == "threshold" and reading.threshold_c is not None:
        return f" to its own threshold of {reading.threshold_c:g} °C"
    return ""


def _silent(why: str, device: DeviceState) -> str:
    """That nothing was read, and how long ago something was."""
    told = f"it cannot be read ({why})"
    if device.trusted is None or device.latest is None:
        return f"{told}; no good reading of it is known"
    age_s = device.latest.read_at_s - device.trusted.read_at_s
    return f"{told}; its last good reading was {age_s:.1f} s old then"


def _closed(device: DeviceState, cause: Cause, why: str, at_s: float) -> DeviceState:
    told: dict[str, object] = {"open": False, "good_readings": 0, "why": why, "cause": cause}
    if device.open:
        told["closed_at_s"] = at_s if math.isfinite(at_s) else None
    return device.model_copy(update=told)


def _dwell_left_s(device: DeviceState, limits: GateLimits, at_s: float) -> float:
    """Seconds that a device must still stay closed. A clock that began anew counts for nothing."""
    if device.closed_at_s is None or at_s < device.closed_at_s:
        return 0.0
    return max(device.closed_at_s + limits.dwell_s - at_s, 0.0)


def _not_of_now(reading: GpuReading, now_s: float) -> str | None:
    if not math.isfinite(reading.read_at_s):
        return f"its last reading has no time ({reading.read_at_s})"
    if reading.read_at_s > now_s:
        ahead_s = reading.read_at_s - now_s
        return f"its last reading is from {ahead_s:.1f} s in the future: the clocks disagree"
    return None


def _out_of_order(reading: GpuReading, before: DeviceState) -> str | None:
    if before.latest is None or reading.read_at_s > before.latest.read_at_s:
        return None
    if reading.read_at_s == before.latest.read_at_s:
        return f"two readings of {reading.read_at_s:.1f} s say different things"
    back_s = before.latest.read_at_s - reading.read_at_s
    return f"its readings went back in time by {back_s:.1f} s: the clock started again"


def _implausible(reading: GpuReading) -> list[str]:
    told = ((name, getattr(reading, name), *bounds) for name, bounds in PLAUSIBLE.items())
    return [
        f"its {name} of {value:.10g} is impossible (plausible: {least:g} to {most:g})"
        for name, value, least, most in told
        if value is not None and not least <= value <= most
    ]


def _jumps(reading: GpuReading, device: DeviceState, limits: GateLimits) -> list[str]:
    if device.trusted is None:
        return []
    # Sensors answer in whole degrees: over less than a second one degree would look like a leap.
    over_s = max(reading.read_at_s - device.trusted.read_at_s, 1.0)
    pairs = (
        (name, getattr(reading, name), getattr(device.trusted, name))
        for name in ("temperature_c", "margin_c")
    )
    return [
        f"its {name} jumped from {then:g} to {now:g} within {over_s:.1f} s"
        for name, now, then in pairs
        if now is not None
        and then is not None
        and abs(now - then) > limits.max_jump_c_per_s * over_s
    ]


def _unless_stale(device: DeviceState, limits: GateLimits, now_s: float) -> DeviceState:
    """The device as it is at `now_s`, with no newer reading: closed where the last one is old."""
    if device.latest is None or device.latest.unreadable is not None:
        # What could not be read has closed it already, and says more than an age does.
        return device
    age_s = now_s - device.latest.read_at_s
    if 0 <= age_s <= limits.max_age_s:
        return device
    cause: Cause = "implausible" if age_s < 0 else "stale"
    if age_s < 0:
        why = f"its last reading is from {-age_s:.1f} s in the future: the clocks disagree"
    else:
        why = f"its last reading is {age_s:.1f} s old, older than max_age_s = {limits.max_age_s:g}"
    # It closed when it became too old, whenever somebody looked.
    return _closed(device, cause, why, device.latest.read_at_s + limits.max_age_s)


def _without_readings(survey: Survey, state: GateState, limits: GateLimits, now_s: float) -> Judged:
    on_cpu = limits.reads_from == "cpu"
    if survey.driver == "absent":
        what = "no CPU sensor" if on_cpu else "no GPU driver"
        knob, choice = "no_driver", limits.no_driver
        cause: Cause = "no_driver"
    else:
        what = f"the {'CPU sensor' if on_cpu else 'GPU driver'} is unreadable"
        knob, choice = "unreadable", limits.unreadable
        cause = "unreadable"
    yes = choice == "go"
    because = f'{what} ({survey.because}), and {knob} = "{choice}" in [gate]'
    if not yes:
        because += f'; it opens when devices can be read, or with {knob} = "go"'
    facts: dict[str, Fact] = {"driver": survey.driver, knob: choice}
    # Nothing is known of a device that cannot be read: after this it must earn its opening again.
    after = GateState(devices=tuple(_closed(each, cause, what, now_s) for each in state.devices))
    return Judged(_answer(yes, cause, because, facts), after)


def _decide(survey: Survey, state: GateState, limits: GateLimits, now_s: float) -> Decision:
    counted = [each for each in state.devices if each.answers_to(limits.uuid)]
    if not counted:
        return _nothing_known(survey, state, limits)
    opened = sum(each.open for each in counted)
    chosen = max(counted, key=lambda each: (each.open, _rank(each, limits)))
    alone = answer_of(chosen, limits, now_s)
    because = alone.because
    if len(counted) > 1:
        because += f" ({opened} of {len(counted)} devices open)"
    facts = {**alone.facts, "devices": len(counted), "devices_open": opened}
    return _answer(chosen.open, chosen.cause, because, facts)


def _named(device: DeviceState, limits: GateLimits) -> str:
    if limits.uuid in (None, device.uuid):
        return device.uuid
    return f"{device.uuid}, whose heat is that of the MIG instance {limits.uuid},"


def _nothing_known(survey: Survey, state: GateState, limits: GateLimits) -> Decision:
    cause: Cause = "not_read" if limits.uuid is None else "not_found"
    if limits.uuid is None:
        because = f"no device has been read yet ({survey.because}); {_what_opens(limits)}"
    else:
        seen = ", ".join(each.uuid for each in state.devices) or "none"
        because = (
            f"{limits.uuid} is not among the devices read ({seen}); "
            f"correct uuid in [gate], or bring the device back"
        )
    facts: dict[str, Fact] = {"driver": survey.driver, "uuid": limits.uuid, "devices": 0}
    return _answer(False, cause, because, facts)


def _rank(device: DeviceState, limits: GateLimits) -> float:
    """The coolest device is the one to speak of; an unknown margin is the last."""
    margin_c = margin(device.latest, limits)[0] if device.latest else None
    return -math.inf if margin_c is None or not math.isfinite(margin_c) else margin_c


def _what_opens(limits: GateLimits) -> str:
    row = f" in {limits.good_readings} readings in a row" if limits.good_readings > 1 else ""
    return f"it opens at a margin of {limits.resume_margin_c:g} °C or more{row}"


def _facts(device: DeviceState, limits: GateLimits, now_s: float) -> dict[str, Fact]:
    facts: dict[str, Fact] = {
        "driver": "present",
        "uuid": device.uuid,
        "pause_margin_c": limits.pause_margin_c,
        "resume_margin_c": limits.resume_margin_c,
        "max_age_s": limits.max_age_s,
        "good_readings": device.good_readings,
        "good_readings_needed": limits.good_readings,
        "discarded": device.discarded,
    }
    reading = device.latest
    if reading is None:
        return facts
    margin_c, margin_source = margin(reading, limits)
    good = device.trusted
    return facts | {
        "margin_c": margin_c,
        "margin_source": margin_source,
        "age_s": now_s - reading.read_at_s,
        "good_age_s": None if good is None else now_s - good.read_at_s,
        **reading.model_dump(include=_TOLD),
    }


def _answer(yes: bool, cause: Cause | None, because: str, facts: Mapping[str, Fact]) -> Decision:
    told = {**facts, "cause": None if yes else cause}
    return Decision(question="gate", yes=yes, because=because, facts=told)
