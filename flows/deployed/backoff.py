"""When a deferred retrain asks the gate again: by the forecast, else with growing delays."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field


class Backoff(BaseModel):
    """How long a run that found the gate closed waits, where no forecast says for how long."""

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
        self, deferrals: int, forecast_s: float | None, deadline_left_s: float | None
    ) -> float:
        """Seconds until the gate is asked again, after so many `deferrals` (1: the first).

        `forecast_s` and `deadline_left_s` are seconds from now; None and NaN are unknown. The
        result is never after the deadline, so that a request is decided at its deadline, and never
        below `least_s`.
        """
        if forecast_s is None or math.isnan(forecast_s):
            # After 32 doublings the delay is at `most_s` whatever the knobs are.
            forecast_s = min(self.first_s * 2.0 ** min(max(deferrals, 1) - 1, 32), self.most_s)
        if deadline_left_s is not None and not math.isnan(deadline_left_s):
            forecast_s = min(forecast_s, deadline_left_s)
        return max(forecast_s, self.least_s)
