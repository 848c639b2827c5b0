"""Learn the power and the duration of a job from its past runs."""

from __future__ import annotations

import math
from typing import Final

from pydantic import Field

from power.core import device_readings
from power.core.frozen_model import FiniteModel
from power.forecast.config import ForecastConfig

_LONGEST_S: Final = 31_536_000.0


class Job(FiniteModel):
    """The expected power and duration of a job on a device."""

    power_w: float = Field(ge=0, le=20_000, description="Mean power of its device, watts.")
    seconds: float = Field(gt=0, le=_LONGEST_S, description="Its duration.")
    power_spread_w: float = Field(default=0.0, ge=0, description="Standard error of its power.")
    seconds_spread: float = Field(default=0.0, ge=0, description="Standard error of its duration.")

    def capped(self, cap_w: float, exponent: float = 1.0) -> Job:
        """Return the same work under a cap in watts: slower by (power / cap) ** `exponent`.

        With an exponent of 1 the work slows down by as much as its power is cut, which is the worst
        case.
        """
        if cap_w >= self.power_w:
            return self
        slower = (self.power_w / max(cap_w, 1.0)) ** exponent
        # The hardware keeps the power at the cap, so there is no spread of power.
        return Job(
            power_w=cap_w,
            seconds=min(self.seconds * slower, _LONGEST_S),
            seconds_spread=self.seconds_spread * slower,
        )


class JobProfile(FiniteModel):
    """The measurements of past runs of one kind of job. A new one is empty."""

    runs: int = Field(default=0, ge=0, description="Measured runs.")
    mean_w: float = Field(default=0.0, description="Running mean of their mean power, watts.")
    mean_s: float = Field(default=0.0, description="Running mean of their duration, seconds.")
    variance_w2: float = Field(default=0.0, ge=0, description="Running variance of the power.")
    variance_s2: float = Field(default=0.0, ge=0, description="Running variance of the duration.")

    cap_runs: int = Field(default=0, ge=0, description="Measured runs under a cap.")
    cap_exponent: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Time grows with the cut of power to this exponent; 1 until it is measured.",
    )

    def job(self) -> Job | None:
        """Return the expected job, or None before the first run.

        A fictitious run that deviates by a twentieth is added, because a single run says nothing
        about the spread.
        """
        if not self.runs:
            return None
        added_w2, added_s2 = (0.05 * self.mean_w) ** 2, (0.05 * self.mean_s) ** 2
        weight = 1 / (self.runs + 1)
        return Job(
            power_w=self.mean_w,
            seconds=self.mean_s,
            power_spread_w=math.sqrt((1 - weight) * self.variance_w2 + weight * added_w2),
            seconds_spread=math.sqrt((1 - weight) * self.variance_s2 + weight * added_s2),
        )


def learn_job(
    profile: JobProfile,
    mean_w: float | None,
    seconds: float | None,
    forecast_config: ForecastConfig,
) -> JobProfile:
    """Return the profile after one more run; one that was not measured changes nothing."""
    power_w = device_readings.plausible(mean_w, "power_w")
    if power_w is None or seconds is None or not 0 < seconds <= _LONGEST_S:
        return profile
    share = 1 / min(profile.runs + 1, forecast_config.remember_runs)
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
    profile: JobProfile,
    mean_w: float | None,
    seconds: float | None,
    forecast_config: ForecastConfig,
) -> JobProfile:
    """Return the profile after a run under a power cap: it measures how much the cap slows it down.

    The initial exponent of 1 (time grows as power falls) counts as one run.
    """
    power_w = device_readings.plausible(mean_w, "power_w")
    if power_w is None or seconds is None or not 0 < seconds <= _LONGEST_S:
        return profile
    if not profile.runs or not 0 < power_w < 0.98 * profile.mean_w:
        return profile
    measured = math.log(seconds / profile.mean_s) / math.log(profile.mean_w / power_w)
    share = 1 / min(profile.cap_runs + 2, forecast_config.remember_runs)
    exponent = profile.cap_exponent + share * (min(max(measured, 0.0), 1.0) - profile.cap_exponent)
    return profile.model_copy(update={"cap_runs": profile.cap_runs + 1, "cap_exponent": exponent})
