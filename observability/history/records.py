"""Rows of the history, one frozen model per table. Pure.

Rows are only ever appended; what is true now (an open request, the champion) is a view over them.
Times are aware UTC. Positions are 0-based places in the pipeline's stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from observability.core.decision import Decision, Fact


class Record(BaseModel):
    """One row of one table."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    table: ClassVar[str]


class DecisionRecord(Record):
    """Something was asked and answered; the "no" is as much a row as the "yes"."""

    table: ClassVar[str] = "decision_rows"
    decided_at: AwareDatetime
    pipeline: str
    run_id: str
    position: int = Field(description="Next position of the stream when it was decided.")
    question: str
    yes: bool
    because: str
    facts: Mapping[str, Fact]

    @classmethod
    def of(
        cls, decision: Decision, *, decided_at: datetime, pipeline: str, run_id: str, position: int
    ) -> DecisionRecord:
        """The row of `decision`."""
        return cls(
            decided_at=decided_at,
            pipeline=pipeline,
            run_id=run_id,
            position=position,
            question=decision.question,
            yes=decision.yes,
            because=decision.because,
            facts=decision.facts,
        )


class RunRecord(Record):
    """A run started or ended. A run that was killed has no end."""

    table: ClassVar[str] = "run_rows"
    at: AwareDatetime
    pipeline: str
    run_id: str
    event: Literal["started", "ended"]
    position: int = Field(description="Next position of the stream at that moment.")
    outcome: str | None = Field(
        default=None, description="How it ended: finished, limit, stopped, failed, ill_intake."
    )
    because: str | None = None
    records: int | None = Field(default=None, description="Records that this run went through.")
    learned: int | None = None
    rejected: int | None = None
    seconds: float | None = None
    cpu_s: float | None = Field(
        default=None, description="Seconds of processor time of the run's own process."
    )
    host: str | None = Field(default=None, description="Name of the machine that it ran on.")
    unlabelled: int | None = Field(
        default=None, description="Records that were predicted and had no label."
    )
    replayed: int | None = Field(
        default=None, description="Earlier rejects that fitted when they were read again."
    )


class CostRecord(Record):
    """What one heavy job cost. None is unknown, never zero."""

    table: ClassVar[str] = "cost_rows"
    at: AwareDatetime = Field(description="When the work began.")
    pipeline: str
    run_id: str
    request_id: str
    position: int
    work: Literal["fit"] = Field(description="Which kind of heavy job.")
    version: str | None = Field(default=None, description="The model that came of it, if one did.")
    seconds: float
    cpu_s: float | None = None
    joules: float | None = Field(
        default=None, description="Energy of the devices that the gate watches, meanwhile."
    )
    energy_source: str | None = Field(default=None, description="What the energy was read from.")
    uuid: str | None = Field(
        default=None, description="The device; None where there was none, or more than one."
    )
    mean_power_w: float | None = Field(default=None, description="Of all devices together.")
    peak_power_w: float | None = Field(
        default=None, description="The sum of each device's highest power."
    )
    peak_temperature_c: float | None = Field(default=None, description="Of the hottest device.")
    lowest_margin_c: float | None = Field(
        default=None, description="Of the device that had the least, as the gate counts it."
    )
    throttled_s: float | None = Field(
        default=None, description="Seconds that a device slowed down for heat."
    )
    unread_s: float | None = Field(
        default=None, description="Seconds of which nobody knows how warm the devices were."
    )
    deferred_s: float | None = Field(
        default=None, description="Seconds that its request had waited for the gate."
    )
    paused_s: float | None = Field(
        default=None, description="Of its seconds, those in which it stood still to cool."
    )
    cap_w: float | None = Field(
        default=None, description="Power limit that was set for it, watts; None: none was."
    )
    guarded: str | None = Field(default=None, description="How its heat was watched meanwhile.")
    work_rows: int | None = Field(default=None, description="Rows that it was fitted on.")
    price: float | None = Field(
        default=None, description="In `currency`, the facility's PUE in it."
    )
    currency: str | None = None
    carbon_g: float | None = Field(default=None, description="Grams, the facility's PUE in it.")
    pue: float | None = Field(
        default=None, description="What energy was multiplied by for price and grams."
    )


class ForecastRecord(Record):
    """A forecast of a device's margin whose moment has come, and what came."""

    table: ClassVar[str] = "forecast_rows"
    at: AwareDatetime = Field(description="When it was held against what came.")
    pipeline: str
    run_id: str
    position: int = Field(description="Next position of the stream at that moment.")
    uuid: str
    kind: Literal["margin at horizon", "lowest margin of a job"]
    horizon_s: float = Field(
        description="How far ahead it was made, seconds; for a job, how long that took."
    )
    foretold_c: float = Field(description="The margin that was foretold, degrees.")
    standard_error_c: float | None = Field(
        default=None, description="How sure it said to be, degrees."
    )
    came_c: float = Field(description="The margin that came, degrees.")


class RequestRecord(Record):
    """A retrain that is wanted, and each thing that became of it."""

    table: ClassVar[str] = "request_rows"
    at: AwareDatetime
    pipeline: str
    run_id: str
    request_id: str
    event: Literal["asked", "deferred", "started", "promoted", "kept", "skipped", "refused"]
    position: int
    because: str
    deadline_s: float | None = Field(
        default=None, description="Seconds after asking at which a deferral ends."
    )
    waited_s: float | None = Field(
        default=None, description="Seconds since asking, on the gate's clock."
    )


class ModelRecord(Record):
    """A batch model was stored, crowned, kept out, or brought back."""

    table: ClassVar[str] = "model_rows"
    at: AwareDatetime
    pipeline: str
    run_id: str
    version: str
    event: Literal["stored", "promoted", "kept", "rolled_back"]
    position: int
    recipe: str | None = None
    rows: int | None = None
    train_from: int | None = Field(default=None, description="First position it was trained on.")
    train_to: int | None = Field(default=None, description="Position after the last trained one.")
    fit_s: float | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    because: str | None = None


class ScoreRecord(Record):
    """What a member scored over a range of positions."""

    table: ClassVar[str] = "score_rows"
    at: AwareDatetime
    pipeline: str
    run_id: str
    position_from: int
    position_to: int = Field(description="Position after the last scored one.")
    member: str = Field(
        description="served, online, batch, baseline; holdout:champion, older:challenger, ..."
    )
    metric: str
    value: float
    scored: int | None = Field(
        default=None, description="Records of the range that were answered and have a label."
    )


class RejectRecord(Record):
    """A record of the stream that changed no model, and why."""

    table: ClassVar[str] = "reject_rows"
    at: AwareDatetime
    pipeline: str
    run_id: str
    position: int
    reason: str = Field(description="Why, in a sentence for people.")
    kind: str | None = Field(
        default=None, description="The class of the reason, for programs; None: not known."
    )
    raw: str


class ReplayRecord(Record):
    """A rejected record was read again, fitted, and is no reject any more."""

    table: ClassVar[str] = "replay_rows"
    at: AwareDatetime
    pipeline: str
    run_id: str
    position: int
    labelled: bool = Field(description="Whether it had a label, and was learned.")


class GpuReadingRecord(Record):
    """What one device said at one moment; None is unknown, never zero."""

    table: ClassVar[str] = "gpu_reading_rows"
    at: AwareDatetime
    pipeline: str
    run_id: str
    source: str = Field(description="nvml, cpu, or the name of a recorded trace.")
    uuid: str
    elapsed_s: float | None = None
    temperature_c: float | None = None
    memory_temperature_c: float | None = None
    margin_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    utilization: float | None = None
    throttle_reasons: str | None = None
    energy_j: float | None = Field(
        default=None, description="Joules used since the driver was loaded."
    )
    rung: str | None = Field(
        default=None, description="What the margin rests on: margin, threshold, maximum, unknown."
    )
    clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    discarded: int | None = Field(
        default=None, description="Values of this reading that could not be, and are unknown."
    )
    unreadable: str | None = Field(
        default=None, description="Why nothing could be read of it; None where something was."
    )
