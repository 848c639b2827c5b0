"""When a deferred retrain asks the gate again: at the forecast's time, else ever more seldom.

Never later than the request's deadline, so that what is decided there is decided on time, or than
the least that a run must stay away.
"""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field


class Backoff(BaseModel):
    """How long a run waits that found the gate closed, where no forecast says for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    least_s: float = Field(
        default=30.0,
        ge=2,
        le=3600,
        allow_inf_nan=False,
        # Seen with Prefect 3.8: "this borrower is already holding one of this CapacityLimiter's
        # tokens" ends the whole worker. It takes runs up to 10 s before their time by default.
        description="It stays away for this long at least, whatever forecast and deadline say: a "
        "worker ends that is given a run whose process has not ended yet.",
    )
    first_s: float = Field(
        default=60.0, gt=0, allow_inf_nan=False, description="Seconds before it asks again."
    )
    most_s: float = Field(
        default=900.0,
        gt=0,
        allow_inf_nan=False,
        description="It waits twice as long each time, and never longer than this.",
    )


def again_in_s(
    deferrals: int, patience: Backoff, forecast_s: float | None, deadline_left_s: float | None
) -> float:
    """Seconds until the gate is asked again, after so many `deferrals` (1: the first).

    `forecast_s` and `deadline_left_s` are seconds from now; None and NaN are unknown.
    """
    # Beyond 2**32 times the first wait, the most is reached whatever the knobs are.
    patient_s = min(patience.first_s * 2.0 ** min(max(deferrals, 1) - 1, 32), patience.most_s)
    wait_s = patient_s if _unknown(forecast_s) else float(forecast_s or 0.0)
    if not _unknown(deadline_left_s):
        # At the deadline itself, and not a moment before it.
        wait_s = min(wait_s, float(deadline_left_s or 0.0))
    return max(wait_s, patience.least_s)


def _unknown(value: float | None) -> bool:
    return value is None or math.isnan(value)
