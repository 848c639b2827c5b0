"""The configuration of the forecast: the table [forecast] of a pipeline file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from power.forecast.thermal_model import ThermalRules


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
