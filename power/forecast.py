"""How warm would this job make this device, and if too warm, when is it cool enough?

Pure: readings, limits and a memory in, a Decision out. `thermal` fits the device; this file keeps
what is known of the job from its past runs, says what margin would be left at the job's hottest
moment, and keeps book of how wrong such sayings were, on readings that came later.

Where the forecast is not yet good enough it says so, and `admit` leaves the answer to the gate's
two thresholds. Where it is, it may say no to a job that the gate would let in, and yes to one that
the gate would keep waiting between pause and resume margin; it never overrules a device that is
at the pause margin, slowing down, unread, stale or implausible.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from observability.decision import Decision, Fact
from power import gate, thermal
from power.gate import GateLimits, GpuReading, Judged
from power.thermal import Guess, ThermalModel, ThermalRules

HORIZONS_S: Final = (60.0, 300.0)
"""How far ahead the forecast is held against what came, seconds."""

_LONGEST_S: Final = 31_536_000.0
_MOMENTS: Final = 20
_WAITS: Final = 40
_JUST_A_SPIKE: Final = 3


class ForecastRules(BaseModel):
    """The knobs of the forecast: how sure it must be, and of what."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    enabled: bool = Field(
        default=True, description="false: the gate's two thresholds decide alone."
    )
    keep_margin_c: float = Field(
        default=0.0,
        ge=-50,
        le=100,
        description="Margin to be left at a job's hottest moment; in a run, where a fit pauses at "
        "it, at least the gate's pause_margin_c.",
    )
    standard_errors: float = Field(
        default=1.0, ge=0, le=10, description="How many standard errors it stays clear of that."
    )
    min_readings: int = Field(
        default=30, ge=2, le=1_000_000, description="Readings before a device counts as known."
    )
    settled_readings: int = Field(
        default=5, ge=1, le=10_000, description="Of these, in a row, since something was off."
    )
    min_checks: int = Field(
        default=10, ge=1, le=100_000, description="Forecasts held against readings, per horizon."
    )
    check_every_s: float = Field(
        default=10.0, gt=0, le=3600, description="How often a forecast is noted down to be checked."
    )
    remember_checks: int = Field(
        default=100, ge=1, le=100_000, description="About how many checks the running error spans."
    )
    max_error_c: float = Field(
        default=2.5, gt=0, le=50, description="A root mean square error above this is not trusted."
    )
    max_standard_error_c: float = Field(
        default=5.0, gt=0, le=100, description="A forecast less sure than this is not trusted."
    )
    remember_runs: int = Field(
        default=20, ge=1, le=10_000, description="About how many past runs a job's profile spans."
    )
    look_ahead_s: float = Field(
        default=3600.0, gt=0, le=86_400, description="How far ahead a cool moment is looked for."
    )
    rest_c: float = Field(
        default=3.0,
        gt=0,
        le=50,
        description="A device that waiting would cool by no more than this is at rest.",
    )
    thermal: ThermalRules = Field(
        default_factory=ThermalRules, description="What is believed of a device before it is read."
    )


class Job(BaseModel):
    """What a job will ask of a device."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    power_w: float = Field(ge=0, le=20_000, description="Mean power of the device in it, watts.")
    seconds: float = Field(gt=0, le=_LONGEST_S, description="How long it takes.")
    power_spread_w: float = Field(default=0.0, ge=0, description="Standard error of its power.")
    seconds_spread: float = Field(default=0.0, ge=0, description="Standard error of its length.")

    def capped(self, cap_w: float, exponent: float = 1.0) -> Job:
        """The same work under a power cap: slower by (power / cap) ** `exponent`.

        At 1, work slows down by as much as its power is cut, and none does worse than that.
        """
        if cap_w >= self.power_w:
            return self
        slower = (self.power_w / max(cap_w, 1.0)) ** exponent
        # The hardware holds a cap, so the spread of power is gone with it.
        return Job(
            power_w=cap_w,
            seconds=min(self.seconds * slower, _LONGEST_S),
            seconds_spread=self.seconds_spread * slower,
        )


class JobProfile(BaseModel):
    """What past runs of one kind of job took. A fresh one knows none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    runs: int = Field(default=0, ge=0, description="Runs learned from.")
    mean_w: float = Field(default=0.0, description="Running mean of their mean power, watts.")
    mean_s: float = Field(default=0.0, description="Running mean of their length, seconds.")
    variance_w2: float = Field(default=0.0, ge=0, description="Running variance of the power.")
    variance_s2: float = Field(default=0.0, ge=0, description="Running variance of the length.")

    cap_runs: int = Field(default=0, ge=0, description="Runs under a cap learned from.")
    cap_exponent: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Time grows with the cut of power to this exponent; 1 until it is measured.",
    )

    def job(self) -> Job | None:
        """The job to expect, or None where none has run yet.

        One more run is invented that lies a twentieth off: one alone says nothing of the spread.
        """
        if not self.runs:
            return None
        invented_w2, invented_s2 = (0.05 * self.mean_w) ** 2, (0.05 * self.mean_s) ** 2
        weight = 1 / (self.runs + 1)
        return Job(
            power_w=self.mean_w,
            seconds=self.mean_s,
            power_spread_w=math.sqrt((1 - weight) * self.variance_w2 + weight * invented_w2),
            seconds_spread=math.sqrt((1 - weight) * self.variance_s2 + weight * invented_s2),
        )


class Noted(BaseModel):
    """A forecast that waits for its moment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made_s: float = Field(description="When it was made.")
    values: tuple[float, ...] = Field(description="The model's best guess at that time.")


class Errors(BaseModel):
    """How wrong the forecasts were at one horizon, as far as their moments have come."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    horizon_s: float = Field(description="How far ahead, seconds.")
    checks: int = Field(default=0, description="Forecasts held against a reading.")
    mean_square_c2: float = Field(default=0.0, description="Running mean of the squared error.")
    noted: tuple[Noted, ...] = Field(default=(), description="Forecasts not yet checked, in order.")

    @property
    def rmse_c(self) -> float | None:
        """Root mean square error in degrees, or None before the first check."""
        return math.sqrt(self.mean_square_c2) if self.checks else None


class Known(BaseModel):
    """All that is kept of one device between two readings: its model, and how good it proved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ThermalModel = Field(default_factory=ThermalModel, description="The fitted device.")
    errors: tuple[Errors, ...] = Field(
        default=tuple(Errors(horizon_s=each) for each in HORIZONS_S),
        description="Its errors, per horizon.",
    )
    noted_s: float | None = Field(default=None, description="When a forecast was last noted.")


class Checked(NamedTuple):
    """A forecast whose moment has come."""

    horizon_s: float
    """How far ahead it was made, seconds."""
    foretold_c: float
    """The margin that it gave for now, by the power drawn meanwhile, degrees."""
    came_c: float
    """The margin that was read."""

    @property
    def error_c(self) -> float:
        """Foretold minus came, degrees."""
        return self.foretold_c - self.came_c


class Learned(NamedTuple):
    """What is known after one more reading, and the forecasts that it was the test of."""

    known: Known
    checked: tuple[Checked, ...] = ()


class Forecast(NamedTuple):
    """What a job would do to a device's margin."""

    margin_c: float
    """Lowest margin to be expected, degrees."""
    standard_error_c: float
    lowest_at_s: float
    """When it is lowest, seconds into the job."""
    sure_margin_c: float
    """Lowest of margin less `standard_errors` standard errors, degrees."""
    ready_in_s: float | None
    """Seconds until there is enough: 0 is now, None not within `look_ahead_s`."""
    because: str


def learn(known: Known, reading: GpuReading, limits: GateLimits, rules: ForecastRules) -> Learned:
    """What is known of a device after one more reading of it; forecasts that are due are checked.

    A forecast is checked given the power that was drawn meanwhile: it is the device's model that is
    on trial, not whether somebody foresaw the load.
    """
    before = known.model
    model = thermal.learn(before, reading, limits, rules.thermal)
    if model is before:
        return Learned(known)
    if model.read_at_s == before.read_at_s:
        return Learned(known.model_copy(update={"model": model}))
    errors, noted_s, checked = known.errors, known.noted_s, list[Checked]()
    if model.began_s != before.began_s or model.rung != before.rung:
        # What was in the device is unknown again: nothing that was foreseen can be held against it.
        errors = tuple(each.model_copy(update={"noted": ()}) for each in errors)
        noted_s = None
    margin_c = thermal.plausible(gate.margin(reading, limits)[0], "margin_c")
    # A reading that fits nothing is a spike of the sensor, unless the next ones say it again.
    if margin_c is not None and not 0 < model.misfits < _JUST_A_SPIKE:
        tried = [_checked(each, model, margin_c, rules) for each in errors]
        errors = tuple(each for each, _ in tried)
        checked = [each for _, found in tried for each in found]
    if model.in_a_row >= rules.settled_readings and _is_time(noted_s, reading.read_at_s, rules):
        noted_s = reading.read_at_s
        errors = _with_notes(errors, model, rules)
    return Learned(Known(model=model, errors=errors, noted_s=noted_s), tuple(checked))


def learn_job(
    profile: JobProfile, mean_w: float | None, seconds: float | None, rules: ForecastRules
) -> JobProfile:
    """The profile after one more run of this kind; a run that was not measured teaches nothing."""
    power_w = thermal.plausible(mean_w, "power_w")
    if power_w is None or seconds is None or not 0 < seconds <= _LONGEST_S:
        return profile
    share = 1 / min(profile.runs + 1, rules.remember_runs)
    off_w, off_s = power_w - profile.mean_w, seconds - profile.mean_s
    return profile.model_copy(
        update={
            "runs": profile.runs + 1,
            "mean_w": profile.mean_w + share * off_w,
            "mean_s": profile.mean_s + share * off_s,
            "variance_w2": (1 - share) * (profile.variance_w2 + share * off_w**2),
            "variance_s2": (1 - share) * (profile.variance_s2 + share * off_s**2),
        }
    )


def learn_capped(
    profile: JobProfile, mean_w: float | None, seconds: float | None, rules: ForecastRules
) -> JobProfile:
    """The profile after a run under a power cap: how much did the cut of power slow it down?

    The first guess, that time grows as power falls, counts as one run.
    """
    power_w = thermal.plausible(mean_w, "power_w")
    known = profile.runs > 0 and power_w is not None and 0 < power_w < 0.98 * profile.mean_w
    if not known or power_w is None or seconds is None or not 0 < seconds <= _LONGEST_S:
        return profile
    told = math.log(seconds / profile.mean_s) / math.log(profile.mean_w / power_w)
    share = 1 / min(profile.cap_runs + 2, rules.remember_runs)
    exponent = profile.cap_exponent + share * (min(max(told, 0.0), 1.0) - profile.cap_exponent)
    return profile.model_copy(update={"cap_runs": profile.cap_runs + 1, "cap_exponent": exponent})


def forecast(model: ThermalModel, job: Job, rules: ForecastRules) -> Forecast:
    """What margin `job` would leave if it began now, and when it could begin if that is too little.

    The job is taken for longer than it should last, by `standard_errors` of its length. While it
    waits the device is taken to draw what it draws now. Raises ValueError for a device never read.
    """
    if not model.values:
        raise ValueError("a device that was never read has no forecast: learn a reading first")
    known = thermal.guess(model)
    longest_s = job.seconds + rules.standard_errors * job.seconds_spread
    moments = np.concatenate(([0.0], np.geomspace(min(1.0, longest_s / 2), longest_s, _MOMENTS)))
    now = _outlook(model, known, job, np.zeros(1), moments, rules)
    margins, errors = now.margin_c[0], now.standard_error_c[0]
    lowest = int(np.argmin(margins))
    sure_c = float(np.min(margins - rules.standard_errors * errors))
    ready_in_s = (
        0.0 if sure_c >= rules.keep_margin_c else _ready_in_s(model, known, job, moments, rules)
    )
    told = Forecast(
        margin_c=float(margins[lowest]),
        standard_error_c=float(errors[lowest]),
        lowest_at_s=float(moments[lowest]),
        sure_margin_c=sure_c,
        ready_in_s=ready_in_s,
        because="",
    )
    return told._replace(because=_in_words(told, model, job, rules))


def trusted(
    known: Known, job: Job | None, limits: GateLimits, rules: ForecastRules, now_s: float
) -> Decision:
    """Whether the forecast of `job` is good enough to be gone by; a no says what is missing."""
    age_s = math.inf if known.model.read_at_s is None else now_s - known.model.read_at_s
    problem = (
        (None if rules.enabled else "it is switched off (enabled = false in [forecast])")
        or _not_read(known.model, age_s, limits, rules)
        or ("no run of this job has been measured yet" if job is None else None)
        or _not_proven(known, job, rules)
    )
    facts = _facts(known, job, age_s)
    told = ", ".join(
        f"{each.rmse_c:.1f} °C over {each.horizon_s:g} s"
        for each in known.errors
        if each.rmse_c is not None
    )
    because = problem or f"its forecasts were off by {told} (root mean square)"
    return Decision(question="forecast_trust", yes=problem is None, because=because, facts=facts)


def unsettled(known: Known, rules: ForecastRules) -> bool:
    """Whether only some readings in a row are missing, in what is known of a device, to go by it.

    So after it was not read for a while: what was learned of it stays, how warm it is must be read.
    """
    model = known.model
    enough = model.readings >= rules.min_readings
    return rules.enabled and enough and model.in_a_row < rules.settled_readings


def judge(
    known: Known, job: Job | None, limits: GateLimits, rules: ForecastRules, now_s: float
) -> Decision:
    """Answer whether `job` could begin at `now_s` and keep its margin to the end.

    `facts["trusted"]` says whether to go by it; what is not trusted is a no, with the reason.
    """
    trust = trusted(known, job, limits, rules, now_s)
    facts: dict[str, Fact] = {
        "trusted": trust.yes,
        "keep_margin_c": rules.keep_margin_c,
        "standard_errors": rules.standard_errors,
        **trust.facts,
    }
    if job is None or not trust.yes:
        return _answer(False, f"the forecast is not trusted: {trust.because}", facts)
    told = forecast(known.model, job, rules)
    facts |= {
        "margin_c": told.margin_c,
        "standard_error_c": told.standard_error_c,
        "sure_margin_c": told.sure_margin_c,
        "lowest_at_s": told.lowest_at_s,
        "ready_in_s": told.ready_in_s,
    }
    if told.standard_error_c > rules.max_standard_error_c:
        because = (
            f"the forecast is not trusted: {told.margin_c:.1f} ± {told.standard_error_c:.1f} °C is "
            f"too unsure, at most ± {rules.max_standard_error_c:g} °C would do"
        )
        return _answer(False, because, facts | {"trusted": False})
    return _answer(told.ready_in_s == 0.0, told.because, facts)


def at_rest(known: Known, limits: GateLimits, rules: ForecastRules, now_s: float) -> Decision:
    """Answer whether the device is about as cool as waiting can make it.

    The best moment for a job of which nothing is known, and for one that no wait makes safe. A no
    has ``rest_in_s``, the seconds until it should be a yes, where what is known of it tells.
    """
    model = known.model
    age_s = math.inf if model.read_at_s is None else now_s - model.read_at_s
    facts: dict[str, Fact] = {"age_s": age_s, "rest_c": rules.rest_c, "readings": model.readings}
    problem = _not_read(model, age_s, limits, rules)
    if problem is not None:
        return Decision(question="rest", yes=False, because=problem, facts=facts)
    waits_s = np.concatenate(([0.0], _waits_s(rules)))
    resting = Job(power_w=model.power_w, seconds=1.0)
    seen = _outlook(model, thermal.guess(model), resting, waits_s, np.zeros(1), rules)
    gain_c = float(np.max(seen.margin_c) - seen.margin_c[0, 0])
    because = (
        f"waiting would cool it by {gain_c:.1f} °C more while it draws {model.power_w:.0f} W; up "
        f"to {rules.rest_c:g} °C counts as rest"
    )
    facts["gain_c"] = gain_c
    rested = np.flatnonzero(np.max(seen.margin_c) - seen.margin_c[:, 0] <= rules.rest_c)
    facts["rest_in_s"] = float(waits_s[rested[0]])
    return Decision(question="rest", yes=gain_c <= rules.rest_c, because=because, facts=facts)


def admit(gated: Judged, thermal_says: Decision, limits: GateLimits) -> Decision:
    """Join the gate's answer for a device with the forecast's for a job on it.

    A forecast that is not trusted leaves it to the gate. A trusted no is a no. A trusted yes also
    opens between pause and resume margin, where the gate would wait for the device to cool.
    """
    gate_says = gated.decision
    facts = {f"gate_{name}": fact for name, fact in gate_says.facts.items()}
    facts |= {f"forecast_{name}": fact for name, fact in thermal_says.facts.items()}
    facts |= {"gate": gate_says.yes, "forecast": thermal_says.yes}
    cause = gate_says.facts.get("cause")
    uuid = gate_says.facts.get("uuid")
    if not isinstance(uuid, str) or thermal_says.facts.get("trusted") is not True:
        yes = gate_says.yes
        because = f"{gate_says.because} ({thermal_says.because})"
    elif not gate_says.yes and not _only_warm(gated, uuid, limits):
        yes, because = False, gate_says.because
    else:
        yes, because = thermal_says.yes, thermal_says.because
        # A gate that is closed for heat says so; where it is open, only the forecast is against it.
        cause = cause or "forecast"
    facts["cause"] = None if yes else cause
    return Decision(question="admission", yes=yes, because=because, facts=facts)


def _only_warm(gated: Judged, uuid: str, limits: GateLimits) -> bool:
    """Whether a closed device is closed for no other reason than a margin below resume."""
    device = gated.state.device(uuid)
    reading, age_s = device.trusted, gated.decision.facts.get("age_s")
    if reading is None or reading != device.latest or not isinstance(age_s, float):
        return False
    margin_c = gate.margin(reading, limits)[0]
    return (
        0 <= age_s <= limits.max_age_s
        and margin_c is not None
        and margin_c > limits.pause_margin_c
        and not gate.closing_reasons(reading.throttle_reasons)
        and not gate.dwells(device, limits, reading.read_at_s + age_s)
    )


def _answer(yes: bool, because: str, facts: dict[str, Fact]) -> Decision:
    return Decision(question="forecast", yes=yes, because=because, facts=facts)


def _facts(known: Known, job: Job | None, age_s: float) -> dict[str, Fact]:
    facts: dict[str, Fact] = {
        "age_s": age_s,
        "readings": known.model.readings,
        "readings_in_a_row": known.model.in_a_row,
        "job_power_w": job.power_w if job else None,
        "job_power_spread_w": job.power_spread_w if job else None,
        "job_seconds": job.seconds if job else None,
        "job_seconds_spread": job.seconds_spread if job else None,
    }
    for each in known.errors:
        facts[f"rmse_{each.horizon_s:g}_s_c"] = each.rmse_c
        facts[f"checks_{each.horizon_s:g}_s"] = each.checks
    return facts


def _not_read(
    model: ThermalModel, age_s: float, limits: GateLimits, rules: ForecastRules
) -> str | None:
    if not model.values:
        return "the device has told no power together with a margin yet"
    if not 0 <= age_s <= limits.max_age_s:
        return (
            f"its last reading is {age_s:.1f} s old, must be 0 to {limits.max_age_s:g} s "
            "(max_age_s in [gate])"
        )
    if model.readings < rules.min_readings:
        return f"{model.readings} of {rules.min_readings} readings that it needs"
    if model.in_a_row < rules.settled_readings:
        return (
            f"{model.in_a_row} of {rules.settled_readings} readings in a row since one was "
            "missing or did not fit"
        )
    return None


def _not_proven(known: Known, job: Job | None, rules: ForecastRules) -> str | None:
    """What the errors say against going by it; a short job needs no proof of long forecasts."""
    shortest = min(each.horizon_s for each in known.errors)
    for each in known.errors:
        if job is not None and each.horizon_s > shortest and job.seconds <= shortest:
            continue
        if each.rmse_c is None or each.checks < rules.min_checks:
            return (
                f"{each.checks} of {rules.min_checks} forecasts over {each.horizon_s:g} s that "
                "it needs have been checked"
            )
        if each.rmse_c > rules.max_error_c:
            return (
                f"its forecasts over {each.horizon_s:g} s were off by {each.rmse_c:.1f} °C, must "
                f"be at most {rules.max_error_c:g} °C"
            )
    return None


def _outlook(
    model: ThermalModel,
    known: Guess,
    job: Job,
    waits_s: thermal.Array,
    moments_s: thermal.Array,
    rules: ForecastRules,
) -> thermal.Outlook:
    """Margins of shape (waits, moments)."""
    return thermal.outlook(
        model,
        known,
        (model.power_w, job.power_w),
        job.power_spread_w,
        waits_s[:, None],
        moments_s[None, :],
        rules.thermal,
    )


def _ready_in_s(
    model: ThermalModel, known: Guess, job: Job, moments_s: thermal.Array, rules: ForecastRules
) -> float | None:
    """The first wait of a grid after which the margin is sure to be kept."""
    waits_s = _waits_s(rules)
    seen = _outlook(model, known, job, waits_s, moments_s, rules)
    sure_c = np.min(seen.margin_c - rules.standard_errors * seen.standard_error_c, axis=1)
    enough = np.flatnonzero(sure_c >= rules.keep_margin_c)
    return float(waits_s[enough[0]]) if enough.size else None


def _waits_s(rules: ForecastRules) -> thermal.Array:
    return np.geomspace(min(5.0, rules.look_ahead_s), rules.look_ahead_s, _WAITS)


def _in_words(told: Forecast, model: ThermalModel, job: Job, rules: ForecastRules) -> str:
    words = (
        f"the margin would fall to {told.margin_c:.1f} ± {told.standard_error_c:.1f} °C after "
        f"{told.lowest_at_s:.0f} s of a job of {job.power_w:.0f} W"
    )
    if told.ready_in_s == 0.0:
        return f"{words}, and {rules.keep_margin_c:g} °C must be left"
    while_w = f"while it draws {model.power_w:.0f} W"
    if told.ready_in_s is None:
        hopeless = f"not enough within {rules.look_ahead_s:.0f} s"
        return f"{words}, {rules.keep_margin_c:g} °C must be left; {while_w}, it is {hopeless}"
    return (
        f"{words}, {rules.keep_margin_c:g} °C must be left; {while_w}, it is enough in about "
        f"{told.ready_in_s:.0f} s"
    )


def _is_time(noted_s: float | None, now_s: float, rules: ForecastRules) -> bool:
    return noted_s is None or now_s - noted_s >= rules.check_every_s


def _with_notes(
    errors: tuple[Errors, ...], model: ThermalModel, rules: ForecastRules
) -> tuple[Errors, ...]:
    """The errors with a new forecast to check at each horizon that the model is sure of.

    Sure is what it would be if the device went to its reference power now. A device that has only
    idled is not: nobody would go by that forecast, so its error is not held against the model.
    """
    known = thermal.guess(model)
    note = Noted(made_s=model.read_at_s or 0.0, values=tuple(known.values.tolist()))
    full = Job(power_w=model.reference_w, seconds=1.0)
    moments_s = np.array([each.horizon_s for each in errors])
    spreads_c = _outlook(model, known, full, np.zeros(1), moments_s, rules).standard_error_c[0]
    return tuple(
        each.model_copy(update={"noted": (*each.noted, note)})
        if spread_c <= rules.max_standard_error_c
        else each
        for each, spread_c in zip(errors, spreads_c.tolist(), strict=True)
    )


def _checked(
    errors: Errors, model: ThermalModel, margin_c: float, rules: ForecastRules
) -> tuple[Errors, list[Checked]]:
    """The running error once the forecasts that are due were held against `margin_c`, read now."""
    now_s = model.read_at_s or 0.0
    due = [each for each in errors.noted if now_s - each.made_s >= errors.horizon_s]
    if not due:
        return errors, []
    found = list[Checked]()
    checks, mean_square_c2 = errors.checks, errors.mean_square_c2
    for each in due:
        over_s = now_s - each.made_s
        # Where nothing could be read for long, it would be a forecast over another time.
        if over_s <= 2 * errors.horizon_s:
            foretold_c = thermal.margin_since(model, each.values, over_s)
            found.append(Checked(errors.horizon_s, foretold_c, margin_c))
            checks += 1
            off_c2 = found[-1].error_c ** 2
            mean_square_c2 += (off_c2 - mean_square_c2) / min(checks, rules.remember_checks)
    after = Errors(
        horizon_s=errors.horizon_s,
        checks=checks,
        mean_square_c2=mean_square_c2,
        noted=errors.noted[len(due) :],
    )
    return after, found
