"""Decide whether heavy work may start on this machine now.

Pure: readings, limits and the memory of the last judgement go in, a Decision and the new memory
come out. It knows no clock, no disk and no driver; adapters (`nvml`, `trace`) read, and the caller
passes the moment and keeps the memory. It fails closed: a device that is hot, stale, unknown or
implausible is a "no" that states its numbers.

The thermostat has two thresholds, so that it does not flutter: a device closes at once at or below
the pause margin, and opens again only at the resume margin. NVIDIA's own profiler guard also pauses
at 10 and resumes at 20 degrees, but it opens where there is no sensor. A closed device stays closed
for `dwell_s`, and urgency moves the resume margin towards the pause margin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from pydantic import Field

from observability.core.decision import Decision, Fact
from power.core.device_readings import (
    PLAUSIBLE,
    DeviceMetrics,
    DeviceReading,
    DeviceSnapshot,
    FrozenState,
    MarginSource,
    closing_reasons,
    margin,
)
from power.core.gate_config import GateConfig

Cause = Literal[
    "too_warm", "slowdown", "settling", "unreadable", "no_driver", "stale", "implausible",
    "no_margin", "not_read", "not_found", "forecast", "leased", "override",
]  # fmt: skip
"""Why the gate or the admission says no: one name per state, stored as the fact ``cause``."""

CAUSES: Final[Mapping[Cause, str]] = {
    "too_warm": "the {device} was too warm",
    "slowdown": "the {device} was slowing itself down",
    "settling": "the {device} was not cool for long enough",
    "unreadable": "the {device} could not be read",
    "no_driver": "there was no {device} to read",
    "stale": "the last reading of the {device} was too old",
    "implausible": "the {device} reported values that cannot be true",
    "no_margin": "the {device} reported nothing to count a margin from",
    "not_read": "the {device} was not read yet",
    "not_found": "the {device} of [gate] uuid was not there",
    "forecast": "the {device} would have become too warm",
    "leased": "the {device} was leased to another job",
    "override": "a person kept the gate closed",
}
"""The text of each cause, the same in every report of deferrals."""

UNKNOWN: Final = "unknown"
"""The cause of a "no" without a cause, or of one that an earlier version recorded without it."""

_READING_FACTS: Final = {
    *("temperature_c", "memory_temperature_c", "power_w", "power_limit_w", "utilization"),
    *("clock_mhz", "throttle_reasons", "unreadable"),
}
_FUTURE: Final = "its last reading is from {:.1f} s in the future: the clocks disagree"


class DeviceState(FrozenState):
    """What the gate remembers of one device."""

    uuid: str
    open: bool = False
    good_readings: int = Field(default=0, description="Readings in a row at the resume margin.")
    latest: DeviceReading | None = Field(default=None, description="The last reading, unchanged.")
    trusted: DeviceReading | None = Field(default=None, description="The last plausible reading.")
    why: str = Field(default="it has not been read yet", description="Why it is open or closed.")
    cause: Cause | None = Field(default="not_read", description="Why it is closed; else None.")
    closed_at_s: float | None = Field(default=None, description="When it last closed, seconds.")
    discarded: int = Field(
        default=0,
        ge=0,
        description="Impossible values so far: sentinels, absurd numbers, impossible jumps.",
    )

    def answers_to(self, uuid: str | None) -> bool:
        """Whether `uuid` is None, or names this device or a MIG instance on it."""
        if uuid is None or uuid == self.uuid:
            return True
        return self.latest is not None and self.latest.answers_to(uuid)


class GateState(FrozenState):
    """The gate's memory between two judgements. A new one knows no device, so it is closed."""

    devices: tuple[DeviceState, ...] = ()

    def device(self, uuid: str) -> DeviceState:
        """Return what is remembered of `uuid`; a device that was never seen is closed."""
        return next((each for each in self.devices if each.uuid == uuid), DeviceState(uuid=uuid))


class GateResult(NamedTuple):
    """A decision, and the memory for the next judgement."""

    decision: Decision
    state: GateState


def judge(
    snapshot: DeviceSnapshot, state: GateState, gate_config: GateConfig, now_s: float
) -> GateResult:
    """Decide whether heavy work may start at `now_s` (seconds on the readings' clock).

    Every reading updates the memory of its device, in the order given; a repeated reading counts
    once. The answer is yes if at least one device (or the one named in `limits.uuid`) is open.
    """
    if gate_config.source == "off":
        return GateResult(
            _answer(True, None, 'the gate is off: source = "off" in [gate]', {}), state
        )
    if snapshot.driver != "present":
        return _without_readings(snapshot, state, gate_config, now_s)
    remembered = {device.uuid: device for device in state.devices}
    for reading in snapshot.readings:
        before = remembered.get(reading.uuid, DeviceState(uuid=reading.uuid))
        remembered[reading.uuid] = _after(before, reading, gate_config, now_s)
    after = GateState(
        devices=tuple(_unless_stale(device, gate_config, now_s) for device in remembered.values())
    )
    return GateResult(_decide(snapshot, after, gate_config, now_s), after)


def in_short(decision: Decision) -> str:
    """Return the gate's answer as the sentence that all commands print."""
    return f"the gate is {'open' if decision else 'closed'}: {decision.because}"


def describe_cause(cause: str | None, reads_from: str) -> str:
    """Return the text of a cause; `reads_from` is the source of the readings."""
    words = next((text for known, text in CAUSES.items() if known == cause), None)
    if words is None:
        return "of a cause that is not known"
    return f"because {words.format(device='CPU' if reads_from == 'cpu' else 'GPU')}"


def describe_causes(causes: Mapping[str, int], reads_from: str) -> str:
    """Return how often each cause deferred work, in words, the most frequent first."""
    ranked = sorted(causes.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(
        f"{count} {describe_cause(cause, reads_from)}" for cause, count in ranked if count
    )


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
    """Return the memory with `uuid` open, because a job was admitted to it."""
    device = state.device(uuid).model_copy(
        update={"open": True, "why": "a job was let in", "cause": None}
    )
    others = tuple(each for each in state.devices if each.uuid != uuid)
    return GateState(devices=(*others, device))


def dwells(device: DeviceState, gate_config: GateConfig, now_s: float) -> bool:
    """Whether a device closed so recently that `dwell_s` still keeps it closed."""
    return not device.open and _dwell_left_s(device, gate_config, now_s) > 0


def opens_in_s(device: DeviceState, gate_config: GateConfig, now_s: float) -> float | None:
    """Return the seconds until a closed device opens, if only `dwell_s` keeps it closed; else None.

    This assumes that its margin stays as it is and that it can still be read.
    """
    if device.open or device.good_readings < gate_config.good_readings:
        return None
    return _dwell_left_s(device, gate_config, now_s)


def needs_readings(
    snapshot: DeviceSnapshot, decision: Decision, counts: Mapping[str, int], gate_config: GateConfig
) -> bool:
    """Whether more readings may change a "no": a closed device opens after `good_readings`.

    `counts` has the number of readings so far by device. A device that cannot be read is not
    waited for.
    """
    return (
        not decision
        and snapshot.driver == "present"
        and any(
            each.unreadable is None and counts.get(each.uuid, 0) < gate_config.good_readings
            for each in snapshot.readings
        )
    )


def usable_margin_source(device: DeviceMetrics) -> MarginSource:
    """Return what a margin of this device can rest on; "maximum" needs max_temperature_c."""
    if device.margin_source == "unknown" and device.temperature_c is not None:
        return "maximum"
    return device.margin_source


def device_decision(device: DeviceState, gate_config: GateConfig, now_s: float) -> Decision:
    """Return the gate's answer for one device alone, as it was judged last."""
    name = device.uuid
    if gate_config.uuid not in (None, device.uuid):
        name = f"{device.uuid}, whose heat is that of the MIG instance {gate_config.uuid},"
    because = f"{name} is {'open' if device.open else 'closed'}: {device.why}"
    if not device.open:
        because += f"; {_what_opens(gate_config)}"
    facts: dict[str, Fact] = {
        "driver": "present",
        "uuid": device.uuid,
        "pause_margin_c": gate_config.pause_margin_c,
        "resume_margin_c": gate_config.resume_margin_c,
        "max_age_s": gate_config.max_age_s,
        "good_readings": device.good_readings,
        "good_readings_needed": gate_config.good_readings,
        "discarded": device.discarded,
    }
    if device.latest is not None:
        margin_c, margin_source = margin(device.latest, gate_config)
        good = device.trusted
        facts |= {
            "margin_c": margin_c,
            "margin_source": margin_source,
            "age_s": now_s - device.latest.read_at_s,
            "good_age_s": None if good is None else now_s - good.read_at_s,
            **device.latest.model_dump(include=_READING_FACTS),
        }
    return _answer(device.open, device.cause, because, facts)


def _after(
    before: DeviceState, reading: DeviceReading, gate_config: GateConfig, now_s: float
) -> DeviceState:
    """Return the memory of a device after one more reading."""
    latest, at_s = before.latest, reading.read_at_s
    # A repeated reading. It is compared as text, because NaN is not equal to itself.
    if repr(reading) == repr(latest):
        return before
    # A reading at an impossible moment does not become `latest`.
    if not math.isfinite(at_s):
        return _closed(before, "implausible", f"its last reading has no time ({at_s})", now_s)
    if at_s > now_s:
        return _closed(before, "implausible", _FUTURE.format(at_s - now_s), now_s)
    if latest is not None and not at_s > latest.read_at_s:
        back_s = latest.read_at_s - at_s
        why = f"its readings went back in time by {back_s:.1f} s: the clock started again"
        if at_s == latest.read_at_s:
            why = f"two readings of {at_s:.1f} s say different things"
        return _closed(before, "implausible", why, at_s).model_copy(
            update={"latest": reading, "trusted": None}
        )
    current = _unless_stale(before, gate_config, at_s).model_copy(
        update={"latest": reading, "discarded": before.discarded + reading.discarded}
    )
    trusted = current.trusted
    if reading.unreadable is not None:
        why = f"it cannot be read ({reading.unreadable})"
        if trusted is None:
            why += "; no good reading of it is known"
        else:
            why += f"; its last good reading was {at_s - trusted.read_at_s:.1f} s old then"
        return _closed(current, "unreadable", why, at_s)
    odd = _impossible_values(reading, trusted, gate_config)
    if odd:
        return _closed(current, "implausible", "; ".join(odd), at_s).model_copy(
            update={"discarded": current.discarded + len(odd)}
        )
    return _thermostat(current, reading, gate_config).model_copy(update={"trusted": reading})


def _thermostat(
    device: DeviceState, reading: DeviceReading, gate_config: GateConfig
) -> DeviceState:
    """Apply the two thresholds to a plausible reading; between them the device stays as it is."""
    at_s = reading.read_at_s
    reasons = closing_reasons(reading.throttle_reasons)
    if reasons:
        why = f"the hardware is slowing down ({', '.join(reasons)})"
        return _closed(device, "slowdown", why, at_s)
    margin_c, margin_source = margin(reading, gate_config)
    if margin_c is None:
        why = "it tells no margin and no max_temperature_c is set in [gate]"
        return _closed(device, "no_margin", why, at_s)
    measured = f"its margin is {margin_c:.1f} °C"
    if margin_source == "maximum":
        measured += f" to max_temperature_c = {gate_config.max_temperature_c:g}"
    elif margin_source == "threshold" and reading.threshold_c is not None:
        measured += f" to its own threshold of {reading.threshold_c:g} °C"
    if margin_c <= gate_config.pause_margin_c:
        why = f"{measured}, at or below the pause margin of {gate_config.pause_margin_c:g} °C"
        return _closed(device, "too_warm", why, at_s)
    if margin_c < gate_config.resume_margin_c:
        stays = "stays open" if device.open else "stays closed"
        why = f"{measured}, between pause and resume margin: it {stays}"
        good = device.good_readings if device.open else 0
        cause = None if device.open else "too_warm"
        return device.model_copy(update={"good_readings": good, "why": why, "cause": cause})
    good = min(device.good_readings + 1, gate_config.good_readings)
    why = f"{measured}, at or above the resume margin of {gate_config.resume_margin_c:g} °C"
    if gate_config.good_readings > 1:
        why += f" ({good} of {gate_config.good_readings} readings in a row)"
    opens = device.open or good >= gate_config.good_readings
    left_s = 0.0 if device.open else _dwell_left_s(device, gate_config, at_s)
    if opens and left_s > 0:
        opens = False
        why += f", but it closed {gate_config.dwell_s - left_s:.0f} s ago and stays closed for "
        why += f"{gate_config.dwell_s:g} s (dwell_s)"
    cause = None if opens else "settling"
    return device.model_copy(
        update={"open": opens, "good_readings": good, "why": why, "cause": cause}
    )


def _closed(device: DeviceState, cause: Cause, why: str, at_s: float) -> DeviceState:
    update: dict[str, object] = {"open": False, "good_readings": 0, "why": why, "cause": cause}
    if device.open:
        update["closed_at_s"] = at_s if math.isfinite(at_s) else None
    return device.model_copy(update=update)


def _dwell_left_s(device: DeviceState, gate_config: GateConfig, at_s: float) -> float:
    """Return the seconds that a device must still stay closed; none after the clock restarted."""
    if device.closed_at_s is None or at_s < device.closed_at_s:
        return 0.0
    return max(device.closed_at_s + gate_config.dwell_s - at_s, 0.0)


def _impossible_values(
    reading: DeviceReading, trusted: DeviceReading | None, gate_config: GateConfig
) -> list[str]:
    """Describe the values that no device can have; without any, those that jumped impossibly."""
    odd = [
        f"its {name} of {value:.10g} is impossible (plausible: {least:g} to {most:g})"
        for name, (least, most) in PLAUSIBLE.items()
        if (value := getattr(reading, name)) is not None and not least <= value <= most
    ]
    if odd or trusted is None:
        return odd
    # Sensors report whole degrees: within less than a second, one degree would look like a jump.
    over_s = max(reading.read_at_s - trusted.read_at_s, 1.0)
    return [
        f"its {name} jumped from {then:g} to {now:g} within {over_s:.1f} s"
        for name in ("temperature_c", "margin_c")
        if (now := getattr(reading, name)) is not None
        and (then := getattr(trusted, name)) is not None
        and abs(now - then) > gate_config.max_jump_c_per_s * over_s
    ]


def _unless_stale(device: DeviceState, gate_config: GateConfig, now_s: float) -> DeviceState:
    """Close the device if its last reading is too old at `now_s`."""
    if device.latest is None or device.latest.unreadable is not None:
        # An unreadable device is closed already, and its reason says more than an age does.
        return device
    age_s = now_s - device.latest.read_at_s
    if 0 <= age_s <= gate_config.max_age_s:
        return device
    cause: Cause = "implausible" if age_s < 0 else "stale"
    why = f"its last reading is {age_s:.1f} s old, older than max_age_s = {gate_config.max_age_s:g}"
    if age_s < 0:
        why = _FUTURE.format(-age_s)
    # It closed when the reading became too old, not when somebody noticed.
    return _closed(device, cause, why, device.latest.read_at_s + gate_config.max_age_s)


def _without_readings(
    snapshot: DeviceSnapshot, state: GateState, gate_config: GateConfig, now_s: float
) -> GateResult:
    on_cpu = gate_config.reads_from == "cpu"
    knob, choice = "unreadable", gate_config.unreadable
    what = f"the {'CPU sensor' if on_cpu else 'GPU driver'} is unreadable"
    cause: Cause = "unreadable"
    if snapshot.driver == "absent":
        knob, choice, cause = "no_driver", gate_config.no_driver, "no_driver"
        what = "no CPU sensor" if on_cpu else "no GPU driver"
    because = f'{what} ({snapshot.because}), and {knob} = "{choice}" in [gate]'
    if choice == "wait":
        because += f'; it opens when devices can be read, or with {knob} = "go"'
    facts: dict[str, Fact] = {"driver": snapshot.driver, knob: choice}
    # Nothing is known of a device that cannot be read: its good readings count anew afterwards.
    after = GateState(devices=tuple(_closed(each, cause, what, now_s) for each in state.devices))
    return GateResult(_answer(choice == "go", cause, because, facts), after)


def _decide(
    snapshot: DeviceSnapshot, state: GateState, gate_config: GateConfig, now_s: float
) -> Decision:
    counted = [each for each in state.devices if each.answers_to(gate_config.uuid)]
    if not counted:
        facts: dict[str, Fact] = {"driver": snapshot.driver, "uuid": gate_config.uuid, "devices": 0}
        if gate_config.uuid is None:
            because = (
                f"no device has been read yet ({snapshot.because}); {_what_opens(gate_config)}"
            )
            return _answer(False, "not_read", because, facts)
        seen = ", ".join(each.uuid for each in state.devices) or "none"
        because = (
            f"{gate_config.uuid} is not among the devices read ({seen}); "
            f"correct uuid in [gate], or bring the device back"
        )
        return _answer(False, "not_found", because, facts)

    def rank(device: DeviceState) -> tuple[bool, float]:
        """Open devices come first, then the coolest; an unknown margin is the last."""
        margin_c = margin(device.latest, gate_config)[0] if device.latest else None
        if margin_c is None or not math.isfinite(margin_c):
            margin_c = -math.inf
        return device.open, margin_c

    best = max(counted, key=rank)
    opened = sum(each.open for each in counted)
    alone = device_decision(best, gate_config, now_s)
    because = alone.because
    if len(counted) > 1:
        because += f" ({opened} of {len(counted)} devices open)"
    facts = {**alone.facts, "devices": len(counted), "devices_open": opened}
    return _answer(best.open, best.cause, because, facts)


def _what_opens(gate_config: GateConfig) -> str:
    row = (
        f" in {gate_config.good_readings} readings in a row"
        if gate_config.good_readings > 1
        else ""
    )
    return f"it opens at a margin of {gate_config.resume_margin_c:g} °C or more{row}"


def _answer(yes: bool, cause: Cause | None, because: str, facts: Mapping[str, Fact]) -> Decision:
    all_facts = {**facts, "cause": None if yes else cause}
    return Decision(question="gate", yes=yes, because=because, facts=all_facts)
