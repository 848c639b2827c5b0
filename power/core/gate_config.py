"""The configuration of the power gate: the table [gate] of a pipeline file."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from power.core.frozen_model import FiniteModel

Source = Literal["nvml", "cpu", "trace", "off"]


class GateConfig(FiniteModel):
    """The table [gate]: when a device counts as cool enough for heavy work."""

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
        default=None, min_length=1, description="The only device that counts; none: all count."
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
        description="For a device that reports neither margin nor threshold: count from this one.",
    )
    max_age_s: float = Field(default=60.0, gt=0, le=86_400, description="Largest age of a reading.")
    max_jump_c_per_s: float = Field(
        default=100.0,
        gt=0,
        le=10_000,
        # A die stores about one joule per degree, and its temperature rises by 30 degrees within a
        # second when work begins; three times that is a sensor error.
        description="A faster change of temperature or margin is a sensor error.",
    )
    good_readings: int = Field(
        default=1, ge=1, le=10_000, description="Readings in a row to open again."
    )
    dwell_s: float = Field(
        default=10.0,
        ge=0,
        le=86_400,
        description="A closed device stays closed for at least this long.",
    )
    no_driver: Literal["go", "wait"] = Field(
        default="go", description="What to do on a machine without a driver, or without a sensor."
    )
    unreadable: Literal["wait", "go"] = Field(
        default="wait", description="What to do where the driver or the sensors do not answer."
    )
    deadline_s: float = Field(
        default=3600.0, ge=0, le=31_536_000, description="How long a deferred retrain may wait."
    )
    at_deadline: Literal["skip", "capped", "run"] = Field(
        default="skip",
        description="What happens to a retrain at its deadline; capped: it runs under the lowest "
        "power limit of [cap], and is skipped if none can be set.",
    )
    urgency_of_waiting: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="How far a wait until the deadline moves the resume margin towards the pause "
        "margin: 0 not at all, 1 completely. It grows with the wait.",
    )
    urgency_of_drift: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="The same for the strongest drift, from the beginning.",
    )
    max_pause_s: float = Field(
        default=120.0,
        ge=0,
        le=86_400,
        description="How long a fit pauses while its device is closed, before it releases it.",
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
        """Return limits whose resume margin is moved towards the pause margin by `urgency`, 0 to 1.

        NaN and infinity move nothing.
        """
        share = min(max(urgency, 0.0), 1.0) if math.isfinite(urgency) else 0.0
        band_c = self.resume_margin_c - self.pause_margin_c
        resume_c = max(self.resume_margin_c - share * band_c, self.pause_margin_c)
        return self.model_copy(update={"resume_margin_c": resume_c})

    @property
    def reads_from(self) -> Source:
        """The source of the readings, with "auto" resolved."""
        if self.source == "auto":
            return "nvml" if self.trace is None else "trace"
        return self.source
