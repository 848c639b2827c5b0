"""Predict how warm a job would make a device, and when the device is cool enough for it.

Pure: readings, limits and a memory go in, a Decision comes out. `thermal_model` fits the device;
this file predicts the margin at the job's hottest moment, and compares such predictions with later
readings to measure their error.

While the forecast is not good enough it says so, and `admission.admit` leaves the answer to the
gate's two thresholds. A trusted forecast may refuse a job that the gate would admit, and admit one
that the gate would keep waiting between pause and resume margin; it never overrules the gate for a
device that is at the pause margin, slowing down, unread, stale or implausible.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from pydantic import Field

from observability.core.decision import Decision, Fact
from power.core import device_readings
from power.core.device_readings import DeviceReading
from power.core.frozen_model import FrozenModel
from power.core.gate_config import GateConfig
from power.forecast import thermal_model
from power.forecast.config import ForecastConfig
from power.forecast.job_profile import Job
from power.forecast.thermal_model import ConstrainedEstimate, ThermalModel

HORIZONS_S: Final = (60.0, 300.0)
"""How far ahead forecasts are checked, seconds."""
_MOMENTS: Final = 20
_WAITS: Final = 40
_JUST_A_SPIKE: Final = 3


class PendingForecast(FrozenModel):
    """A forecast that is not checked yet."""

    made_s: float = Field(description="When it was made.")
    values: tuple[float, ...] = Field(description="The model's estimate at that time.")


class ForecastErrors(FrozenModel):
    """The error of the forecasts at one horizon, as far as they were checked."""

    horizon_s: float = Field(description="How far ahead, seconds.")
    checks: int = Field(default=0, description="Forecasts compared with a reading.")
    mean_square_c2: float = Field(default=0.0, description="Running mean of the squared error.")
    pending: tuple[PendingForecast, ...] = Field(
        default=(), description="Forecasts not yet checked, in order."
    )

    @property
    def rmse_c(self) -> float | None:
        """Root mean square error in degrees; None before the first check."""
        return math.sqrt(self.mean_square_c2) if self.checks else None


class ThermalState(FrozenModel):
    """The memory of one device between two readings: its model, and the error of its forecasts."""

    model: ThermalModel = Field(default_factory=ThermalModel, description="The fitted device.")
    errors: tuple[ForecastErrors, ...] = Field(
        default=tuple(ForecastErrors(horizon_s=each) for each in HORIZONS_S),
        description="The errors of its forecasts, per horizon.",
    )
    forecast_at_s: float | None = Field(default=None, description="Moment of the last forecast.")


class ForecastCheck(NamedTuple):
    """A forecast that was compared with a reading."""

    horizon_s: float
    """How far ahead it was made, seconds."""
    predicted_c: float
    """The margin that it predicted for now, given the power used meanwhile, degrees."""
    actual_c: float
    """The margin that was read, degrees."""

    @property
    def error_c(self) -> float:
        """Predicted minus actual margin, degrees."""
        return self.predicted_c - self.actual_c


class LearnResult(NamedTuple):
    """The memory after one more reading, and the forecasts that were checked by it."""

    known: ThermalState
    checked: tuple[ForecastCheck, ...] = ()


class Forecast(NamedTuple):
    """The predicted effect of a job on a device's margin."""

    margin_c: float
    """Lowest expected margin, degrees."""
    standard_error_c: float
    lowest_at_s: float
    """When it is lowest, seconds into the job."""
    sure_margin_c: float
    """Lowest value of the margin minus `standard_errors` standard errors, degrees."""
    ready_in_s: float | None
    """Seconds until the margin suffices: 0 is now, None is not within `look_ahead_s`."""
    because: str


def learn(
    known: ThermalState, reading: DeviceReading, limits: GateConfig, rules: ForecastConfig
) -> LearnResult:
    """Return the memory of a device after one more reading; forecasts that are due are checked.

    A forecast is checked given the power that was used meanwhile: the check tests the device's
    model, not a prediction of the load.
    """
    before = known.model
    model = thermal_model.learn(before, reading, limits, rules.thermal)
    if model is before:
        return LearnResult(known)
    if model.read_at_s == before.read_at_s:
        return LearnResult(known.model_copy(update={"model": model}))
    errors, noted_s, checked = known.errors, known.forecast_at_s, list[ForecastCheck]()
    if model.began_s != before.began_s or model.margin_source != before.margin_source:
        # The heat in the device is unknown again, so earlier forecasts cannot be checked.
        errors = tuple(each.model_copy(update={"pending": ()}) for each in errors)
        noted_s = None
    margin_c = device_readings.plausible(device_readings.margin(reading, limits)[0], "margin_c")
    # A reading that does not fit is a spike of the sensor, unless the next ones agree with it.
    if margin_c is not None and not 0 < model.misfits < _JUST_A_SPIKE:
        tried = [_checked(each, model, margin_c, rules) for each in errors]
        errors = tuple(each for each, _ in tried)
        checked = [each for _, found in tried for each in found]
    due = noted_s is None or reading.read_at_s - noted_s >= rules.check_every_s
    if due and model.in_a_row >= rules.settled_readings:
        noted_s = reading.read_at_s
        errors = _with_notes(errors, model, rules)
    return LearnResult(
        ThermalState(model=model, errors=errors, forecast_at_s=noted_s), tuple(checked)
    )


def teaches(paused_s: float, resumed: bool, limit_held: bool) -> Decision:
    """Does a run of a job say how long such a job takes, and what power it draws?

    `resumed` says whether it went on with what an earlier attempt had fitted, `limit_held` whether
    the power limit that was set for it stayed until its end.
    """
    because = "it ran from beginning to end, as it was planned"
    if paused_s:
        because = f"it was paused for {paused_s:.0f} s"
    elif resumed:
        because = "it went on with what an earlier attempt had fitted"
    elif not limit_held:
        because = "its power limit was changed while it ran"
    facts: dict[str, Fact] = {"paused_s": paused_s, "resumed": resumed, "limit_held": limit_held}
    yes = not paused_s and not resumed and limit_held
    return Decision(question="profile", yes=yes, because=because, facts=facts)


def forecast(model: ThermalModel, job: Job, rules: ForecastConfig) -> Forecast:
    """Predict the margin if `job` began now, and if it is too low, when the job could begin.

    The job is assumed to last `standard_errors` of its duration longer than expected. While it
    waits, the device is assumed to use its present power. Raises ValueError for a device without a
    reading.
    """
    if not model.values:
        raise ValueError("a device that was never read has no forecast: learn a reading first")
    known = thermal_model.estimate(model)
    longest_s = job.seconds + rules.standard_errors * job.seconds_spread
    moments = np.concatenate(([0.0], np.geomspace(min(1.0, longest_s / 2), longest_s, _MOMENTS)))

    def sure_c(seen: thermal_model.Outlook) -> thermal_model.Array:
        """The lowest margin that is sure, by wait."""
        sure: thermal_model.Array = np.min(
            seen.margin_c - rules.standard_errors * seen.standard_error_c, axis=1
        )
        return sure

    now = _outlook(model, known, job, np.zeros(1), moments, rules)
    lowest = int(np.argmin(now.margin_c[0]))
    margin_c = float(now.margin_c[0, lowest])
    standard_error_c = float(now.standard_error_c[0, lowest])
    lowest_at_s = float(moments[lowest])
    sure_now_c = float(sure_c(now)[0])
    words = (
        f"the margin would fall to {margin_c:.1f} ± {standard_error_c:.1f} °C after "
        f"{lowest_at_s:.0f} s of a job of {job.power_w:.0f} W"
    )
    if sure_now_c >= rules.keep_margin_c:
        ready_in_s: float | None = 0.0
        because = f"{words}, and {rules.keep_margin_c:g} °C must be left"
    else:
        waits_s = _waits_s(rules)
        later = _outlook(model, known, job, waits_s, moments, rules)
        enough = np.flatnonzero(sure_c(later) >= rules.keep_margin_c)
        ready_in_s = float(waits_s[enough[0]]) if enough.size else None
        outcome = f"not enough within {rules.look_ahead_s:.0f} s"
        if ready_in_s is not None:
            outcome = f"enough in about {ready_in_s:.0f} s"
        because = (
            f"{words}, {rules.keep_margin_c:g} °C must be left; while it draws "
            f"{model.power_w:.0f} W, it is {outcome}"
        )
    return Forecast(margin_c, standard_error_c, lowest_at_s, sure_now_c, ready_in_s, because)


def trusted(
    known: ThermalState, job: Job | None, limits: GateConfig, rules: ForecastConfig, now_s: float
) -> Decision:
    """Decide whether the forecast of `job` is good enough to be used; a no says what is missing."""
    age_s = math.inf if known.model.read_at_s is None else now_s - known.model.read_at_s
    problem = (
        (None if rules.enabled else "it is switched off (enabled = false in [forecast])")
        or _not_read(known.model, age_s, limits, rules)
        or ("no run of this job has been measured yet" if job is None else None)
        or _not_proven(known, job, rules)
    )
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
    errors = ", ".join(
        f"{each.rmse_c:.1f} °C over {each.horizon_s:g} s"
        for each in known.errors
        if each.rmse_c is not None
    )
    because = problem or f"its forecasts were off by {errors} (root mean square)"
    return Decision(question="forecast_trust", yes=problem is None, because=because, facts=facts)


def unsettled(known: ThermalState, rules: ForecastConfig) -> bool:
    """Whether a forecast of the device lacks nothing but some more readings in a row.

    This is so after the device was not read for a while: its model stays valid, but its present
    heat must be read again.
    """
    model = known.model
    enough = model.readings >= rules.min_readings
    return rules.enabled and enough and model.in_a_row < rules.settled_readings


def judge(
    known: ThermalState, job: Job | None, limits: GateConfig, rules: ForecastConfig, now_s: float
) -> Decision:
    """Decide whether `job` could begin at `now_s` and keep its margin to the end.

    `facts["trusted"]` says whether the forecast is good enough; if not, the answer is no with the
    reason.
    """
    trust = trusted(known, job, limits, rules, now_s)
    facts: dict[str, Fact] = {
        "trusted": trust.yes,
        "keep_margin_c": rules.keep_margin_c,
        "standard_errors": rules.standard_errors,
        **trust.facts,
    }
    if job is None or not trust.yes:
        because = f"the forecast is not trusted: {trust.because}"
        return Decision(question="forecast", yes=False, because=because, facts=facts)
    found = forecast(known.model, job, rules)
    facts |= {
        "margin_c": found.margin_c,
        "standard_error_c": found.standard_error_c,
        "sure_margin_c": found.sure_margin_c,
        "lowest_at_s": found.lowest_at_s,
        "ready_in_s": found.ready_in_s,
    }
    yes, because = found.ready_in_s == 0.0, found.because
    if found.standard_error_c > rules.max_standard_error_c:
        yes, facts["trusted"] = False, False
        because = (
            f"the forecast is not trusted: {found.margin_c:.1f} ± {found.standard_error_c:.1f} °C "
            f"is too unsure, at most ± {rules.max_standard_error_c:g} °C would do"
        )
    return Decision(question="forecast", yes=yes, because=because, facts=facts)


def at_rest(
    known: ThermalState, limits: GateConfig, rules: ForecastConfig, now_s: float
) -> Decision:
    """Decide whether the device is about as cool as waiting can make it.

    That is the best moment for an unknown job, and for one that no wait makes safe. A no has
    ``rest_in_s``, the seconds until the predicted yes, if the model can predict it.
    """
    model = known.model
    age_s = math.inf if model.read_at_s is None else now_s - model.read_at_s
    facts: dict[str, Fact] = {"age_s": age_s, "rest_c": rules.rest_c, "readings": model.readings}
    problem = _not_read(model, age_s, limits, rules)
    if problem is not None:
        return Decision(question="rest", yes=False, because=problem, facts=facts)
    waits_s = np.concatenate(([0.0], _waits_s(rules)))
    resting = Job(power_w=model.power_w, seconds=1.0)
    seen = _outlook(model, thermal_model.estimate(model), resting, waits_s, np.zeros(1), rules)
    gain_c = float(np.max(seen.margin_c) - seen.margin_c[0, 0])
    because = (
        f"waiting would cool it by {gain_c:.1f} °C more while it draws {model.power_w:.0f} W; up "
        f"to {rules.rest_c:g} °C counts as rest"
    )
    facts["gain_c"] = gain_c
    rested = np.flatnonzero(np.max(seen.margin_c) - seen.margin_c[:, 0] <= rules.rest_c)
    facts["rest_in_s"] = float(waits_s[rested[0]])
    return Decision(question="rest", yes=gain_c <= rules.rest_c, because=because, facts=facts)


def _not_read(
    model: ThermalModel, age_s: float, limits: GateConfig, rules: ForecastConfig
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


def _not_proven(known: ThermalState, job: Job | None, rules: ForecastConfig) -> str | None:
    """Return what is missing in the checks; a short job needs no proof of long forecasts."""
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
    known: ConstrainedEstimate,
    job: Job,
    waits_s: thermal_model.Array,
    moments_s: thermal_model.Array,
    rules: ForecastConfig,
) -> thermal_model.Outlook:
    """Return margins of shape (waits, moments)."""
    return thermal_model.outlook(
        model,
        known,
        (model.power_w, job.power_w),
        job.power_spread_w,
        waits_s[:, None],
        moments_s[None, :],
        rules.thermal,
    )


def _waits_s(rules: ForecastConfig) -> thermal_model.Array:
    return np.geomspace(min(5.0, rules.look_ahead_s), rules.look_ahead_s, _WAITS)


def _with_notes(
    errors: tuple[ForecastErrors, ...], model: ThermalModel, rules: ForecastConfig
) -> tuple[ForecastErrors, ...]:
    """Add a forecast for a later check at each horizon at which the model is sure.

    The model is sure if the standard error is small for a device that goes to its reference power
    now. After idling alone it is not: that forecast would not be used, so it is not checked.
    """
    known = thermal_model.estimate(model)
    note = PendingForecast(made_s=model.read_at_s or 0.0, values=tuple(known.values.tolist()))
    full = Job(power_w=model.reference_w, seconds=1.0)
    moments_s = np.array([each.horizon_s for each in errors])
    spreads_c = _outlook(model, known, full, np.zeros(1), moments_s, rules).standard_error_c[0]
    return tuple(
        each.model_copy(update={"pending": (*each.pending, note)})
        if spread_c <= rules.max_standard_error_c
        else each
        for each, spread_c in zip(errors, spreads_c.tolist(), strict=True)
    )


def _checked(
    errors: ForecastErrors, model: ThermalModel, margin_c: float, rules: ForecastConfig
) -> tuple[ForecastErrors, list[ForecastCheck]]:
    """Compare the forecasts that are due with `margin_c`, which was read now."""
    now_s = model.read_at_s or 0.0
    due = [each for each in errors.pending if now_s - each.made_s >= errors.horizon_s]
    if not due:
        return errors, []
    found = list[ForecastCheck]()
    checks, mean_square_c2 = errors.checks, errors.mean_square_c2
    for each in due:
        over_s = now_s - each.made_s
        # After a long time without readings it would be a forecast over another horizon.
        if over_s <= 2 * errors.horizon_s:
            foretold_c = thermal_model.margin_since(model, each.values, over_s)
            found.append(ForecastCheck(errors.horizon_s, foretold_c, margin_c))
            checks += 1
            off_c2 = found[-1].error_c ** 2
            mean_square_c2 += (off_c2 - mean_square_c2) / min(checks, rules.remember_checks)
    after = ForecastErrors(
        horizon_s=errors.horizon_s,
        checks=checks,
        mean_square_c2=mean_square_c2,
        pending=errors.pending[len(due) :],
    )
    return after, found
