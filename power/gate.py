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
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from observability.decision import Decision, Fact

Driver = Literal["present", "absent", "unreadable"]
Source = Literal["nvml", "cpu", "trace", "off"]
Rung = Literal["margin", "threshold", "maximum", "unknown"]
"""What a margin rests on: the device's own margin, its temperature against the device's own
slowdown threshold, against the configured maximum, or nothing."""

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

_TOLD: Final = {
    *("temperature_c", "memory_temperature_c", "power_w", "power_limit_w", "utilization"),
    *("clock_mhz", "throttle_reasons", "unreadable"),
}
"""What of a reading is told among a decision's facts, beside its margin and its age."""

LONGEST_OVERRIDE: Final = timedelta(days=7)
"""A person who forgets an override must not have switched the gate off for good."""

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
    rung: Rung = Field(
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


class GateLimits(BaseModel):
    """The knobs of the table [gate]: when a device counts as cool enough for heavy work."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    source: Literal["auto", "nvml", "cpu", "trace", "off"] = Field(
        default="auto",
        description="Where readings come from; auto is the trace if one is named, else nvml.",
    )
    trace: str | None = Field(default=None, description="Path of a recorded GPU trace (CSV).")
    trace_s_per_record: float = Field(
        default=0.1,
        gt=0,
        le=86_400,
        description="Seconds of the trace that one record of the stream stands for.",
    )
    uuid: str | None = Field(
        default=None, min_length=1, description="The one device that counts; none: any may open."
    )
    pause_margin_c: float = Field(
        default=10.0, ge=-50, le=100, description="At or below this margin a device closes at once."
    )
    resume_margin_c: float = Field(
        default=20.0, ge=-50, le=100, description="At or above this margin a device may open again."
    )
    max_temperature_c: float | None = Field(
        default=None,
        ge=20,
        le=120,
        description="Where a device tells neither margin nor threshold, count from this one.",
    )
    max_age_s: float = Field(
        default=60.0, gt=0, le=86_400, description="A reading older than this counts for nothing."
    )
    max_jump_c_per_s: float = Field(
        default=100.0,
        gt=0,
        le=10_000,
        # A die holds about one joule per degree and steps by 30 degrees within a second when work
        # begins; three times that is a sensor's mistake.
        description="A faster change of temperature or margin is a sensor's mistake.",
    )
    good_readings: int = Field(
        default=1, ge=1, le=10_000, description="Readings in a row that open a closed device."
    )
    dwell_s: float = Field(
        default=10.0,
        ge=0,
        le=86_400,
        description="A device that closed stays closed for at least this long.",
    )
    no_driver: Literal["go", "wait"] = Field(
        default="go", description="What a machine does that has no driver, or no sensor."
    )
    unreadable: Literal["wait", "go"] = Field(
        default="wait", description="What a machine does whose driver or sensors do not answer."
    )
    deadline_s: float = Field(
        default=3600.0, ge=0, le=31_536_000, description="How long a deferred retrain may wait."
    )
    at_deadline: Literal["skip", "capped", "run"] = Field(
        default="skip",
        description="What becomes of a retrain that waited until its deadline; capped: it runs "
        "under the lowest power limit of [cap], and is skipped where none can be set.",
    )
    urgency_of_waiting: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="How far waiting until the deadline moves the resume margin towards the pause "
        "margin: 0 not at all, 1 all the way. It grows with the wait.",
    )
    urgency_of_drift: float = Field(
        default=0.25, ge=0, le=1, description="The same for the worst drift, from the beginning."
    )
    max_pause_s: float = Field(
        default=120.0,
        ge=0,
        le=86_400,
        description="How long a fit pauses while its device is closed, before it gives it back.",
    )

    @model_validator(mode="after")
    def _make_sense_together(self) -> Self:
        if self.resume_margin_c < self.pause_margin_c:
            raise ValueError(
                f"resume_margin_c ({self.resume_margin_c:g}) must be at or above pause_margin_c "
                f"({self.pause_margin_c:g}): a gate cannot open at a margin that closes it"
            )
        if self.source == "trace" and self.trace is None:
            raise ValueError('source = "trace" needs a trace: name the CSV in [gate] trace')
        return self

    def at_urgency(self, urgency: float) -> Self:
        """The same limits with the resume margin moved by `urgency` (0 to 1), never past pause.

        What is not a number urges nothing.
        """
        share = min(max(urgency, 0.0), 1.0) if math.isfinite(urgency) else 0.0
        band_c = self.resume_margin_c - self.pause_margin_c
        resume_c = max(self.resume_margin_c - share * band_c, self.pause_margin_c)
        return self.model_copy(update={"resume_margin_c": resume_c})

    @property
    def reads_from(self) -> Source:
        """The source to open, with "auto" resolved."""
        if self.source == "auto":
            return "nvml" if self.trace is None else "trace"
        return self.source


class Override(BaseModel):
    """A person's word that stands in place of the gate's answer, for a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    open: bool = Field(description="What the gate shall answer.")
    set_at: AwareDatetime
    until: AwareDatetime = Field(description="When it expires, a week after it was set at most.")
    because: str = Field(min_length=1, max_length=500, description="Why, in the person's words.")

    @model_validator(mode="after")
    def _expires(self) -> Self:
        if not self.set_at < self.until <= self.set_at + LONGEST_OVERRIDE:
            raise ValueError(
                f"until must be after set_at and at most {LONGEST_OVERRIDE.days} days later; came "
                f"{self.until.isoformat()} for one set at {self.set_at.isoformat()}"
            )
        return self


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


def overridden(decision: Decision, override: Override | None, now: datetime) -> Decision:
    """The gate's answer, or a person's where an override of `now` stands in its place."""
    if override is None or not override.set_at <= now < override.until:
        return decision
    said = "open" if override.open else "closed"
    because = (
        f"a person keeps the gate {said} until {override.until.isoformat(timespec='seconds')} "
        f"({override.because}); by itself it would say: {decision.because}"
    )
    facts: dict[str, Fact] = {
        **decision.facts,
        "cause": None if override.open else "override",
        "override": said,
        "override_until": override.until.isoformat(),
        "gate_without_override": decision.yes,
    }
    return decision.model_copy(update={"yes": override.open, "because": because, "facts": facts})


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


def at_deadline(waited_s: float, limits: GateLimits) -> Decision:
    """Decide whether a deferred request has come to its end; yes says what becomes of it.

    `waited_s` is seconds since the request was asked for. A wait that is not a number is no proof
    that the time is over: the request keeps waiting.
    """
    over = waited_s >= limits.deadline_s
    facts: dict[str, Fact] = {
        "waited_s": waited_s,
        "deadline_s": limits.deadline_s,
        "at_deadline": limits.at_deadline,
    }
    waited = f"waited {waited_s:.0f} s of at most {limits.deadline_s:.0f} s"
    if not over:
        because = f"{waited}: it keeps waiting, then at_deadline = {limits.at_deadline!r} applies"
    elif limits.at_deadline == "run":
        because = f"{waited}: it runs, though the gate is closed (at_deadline = 'run')"
    elif limits.at_deadline == "capped":
        because = f"{waited}: it runs under a power limit (at_deadline = 'capped')"
    else:
        because = f"{waited}: it is skipped (at_deadline = 'skip')"
    return Decision(question="deadline", yes=over, because=because, facts=facts)


def urgency(waited_s: float, severity: float, limits: GateLimits) -> float:
    """How urgent a request is, 0 to 1: by how long it waits, and by how bad the drift is (0 to 1).

    What is not a number urges nothing.
    """
    waits = waited_s / limits.deadline_s if limits.deadline_s > 0 else 1.0
    parts = ((limits.urgency_of_waiting, waits), (limits.urgency_of_drift, severity))
    told = sum(weight * min(max(share, 0.0), 1.0) for weight, share in parts if share == share)
    return min(told, 1.0)


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


def margin(reading: Telling, limits: GateLimits) -> tuple[Centigrade | None, Rung]:
    """The margin to go by in degrees, and the rung it rests on.

    The device's own margin comes first, then its temperature against its own threshold (both are
    the door's to tell), then the configured maximum temperature, then nothing.
    """
    if reading.margin_c is not None:
        return reading.margin_c, "margin" if reading.rung == "unknown" else reading.rung
    if limits.max_temperature_c is not None and reading.temperature_c is not None:
        return limits.max_temperature_c - reading.temperature_c, "maximum"
    return None, "unknown"


def standing(reading: GpuReading, limits: GateLimits) -> GpuReading:
    """The reading with the margin that the gate goes by, and the rung which that rests on."""
    margin_c, rung = margin(reading, limits)
    return reading.model_copy(update={"margin_c": margin_c, "rung": rung})


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
    margin_c, rung = margin(reading, limits)
    if margin_c is None:
        why = "it tells no margin and no max_temperature_c is set in [gate]"
        return _closed(device, "no_margin", why, at_s)
    measured = f"its margin is {margin_c:.1f} °C{_against(reading, rung, limits)}"
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


def _against(reading: GpuReading, rung: Rung, limits: GateLimits) -> str:
    if rung == "maximum":
        return f" to max_temperature_c = {limits.max_temperature_c:g}"
    if rung == "threshold" and reading.threshold_c is not None:
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
    margin_c, rung = margin(reading, limits)
    good = device.trusted
    return facts | {
        "margin_c": margin_c,
        "rung": rung,
        "age_s": now_s - reading.read_at_s,
        "good_age_s": None if good is None else now_s - good.read_at_s,
        **reading.model_dump(include=_TOLD),
    }


def _answer(yes: bool, cause: Cause | None, because: str, facts: Mapping[str, Fact]) -> Decision:
    told = {**facts, "cause": None if yes else cause}
    return Decision(question="gate", yes=yes, because=because, facts=told)
