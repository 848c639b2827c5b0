"""What is known of a job: its power, its duration, and how both are learned from past jobs."""

from __future__ import annotations

import math
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from power.core import device_readings
from power.forecast.config import ForecastRules

_LONGEST_S: Final = 31_536_000.0


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


def learn_job(
    profile: JobProfile, mean_w: float | None, seconds: float | None, rules: ForecastRules
) -> JobProfile:
    """The profile after one more run of this kind; a run that was not measured teaches nothing."""
    power_w = device_readings.plausible(mean_w, "power_w")
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
    power_w = device_readings.plausible(mean_w, "power_w")
    known = profile.runs > 0 and power_w is not None and 0 < power_w < 0.98 * profile.mean_w
    if not known or power_w is None or seconds is None or not 0 < seconds <= _LONGEST_S:
        return profile
    told = math.log(seconds / profile.mean_s) / math.log(profile.mean_w / power_w)
    share = 1 / min(profile.cap_runs + 2, rules.remember_runs)
    exponent = profile.cap_exponent + share * (min(max(told, 0.0), 1.0) - profile.cap_exponent)
    return profile.model_copy(update={"cap_runs": profile.cap_runs + 1, "cap_exponent": exponent})
