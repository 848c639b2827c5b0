"""The configuration of the forecast: the table [forecast] of a pipeline file."""

from __future__ import annotations

from pydantic import Field

from power.core.frozen_model import FiniteModel
from power.forecast.thermal_model import ThermalConfig


class ForecastConfig(FiniteModel):
    """The table [forecast]: how sure a forecast must be, and of what."""

    enabled: bool = Field(default=True, description="false: the gate's thresholds decide alone.")
    keep_margin_c: float = Field(
        default=0.0,
        ge=-50,
        le=100,
        description="Margin that must remain at a job's hottest moment; in a run, where a fit "
        "pauses at it, at least the gate's pause_margin_c.",
    )
    standard_errors: float = Field(
        default=1.0,
        ge=0,
        le=10,
        description="Distance to keep from that margin, in standard errors.",
    )
    min_readings: int = Field(
        default=30, ge=2, le=1_000_000, description="Readings before the model of a device is used."
    )
    settled_readings: int = Field(
        default=5,
        ge=1,
        le=10_000,
        description="Of these, in a row, since one was missing or did not fit.",
    )
    min_checks: int = Field(default=10, ge=1, le=100_000, description="Checks needed per horizon.")
    check_every_s: float = Field(
        default=10.0, gt=0, le=3600, description="How often a forecast is made for a later check."
    )
    remember_checks: int = Field(
        default=100, ge=1, le=100_000, description="About how many checks the running error covers."
    )
    max_error_c: float = Field(
        default=2.5,
        gt=0,
        le=50,
        description="A forecast with a larger root mean square error is not trusted.",
    )
    max_standard_error_c: float = Field(
        default=5.0,
        gt=0,
        le=100,
        description="A forecast with a larger standard error is not trusted.",
    )
    remember_runs: int = Field(
        default=20, ge=1, le=10_000, description="About how many past runs a job's profile covers."
    )
    look_ahead_s: float = Field(
        default=3600.0, gt=0, le=86_400, description="How far ahead a cool moment is searched."
    )
    rest_c: float = Field(
        default=3.0,
        gt=0,
        le=50,
        description="A device is at rest if waiting would cool it by no more than this.",
    )
    thermal: ThermalConfig = Field(
        default_factory=ThermalConfig,
        description="The assumptions about a device before it is read.",
    )
