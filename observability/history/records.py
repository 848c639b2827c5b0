"""Rows of the history, one frozen model per table. Pure.

Rows are only appended; the present state (an open request, the champion) is a view over them.
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
    """A decision; a "no" is recorded as a "yes" is."""

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
        """Return the row of `decision`."""
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
    """A run started or ended. A crashed run has no end."""

    table: ClassVar[str] = "run_rows"
    at: AwareDatetime
    pipeline: str
    run_id: str
    event: Literal["started", "ended"]
    position: int = Field(description="Next position of the stream at that moment.")
    outcome: str | None = Field(
        default=None,
        description="How it ended: finished, limit_reached, stopped, failed, schema_mismatch.",
    )
    because: str | None = None
    records: int | None = Field(default=None, description="Records that this run processed.")
    learned: int | None = None
    rejected: int | None = None
    seconds: float | None = None
    cpu_s: float | None = Field(
        default=None, description="Seconds of processor time of the run's own process."
    )
    host: str | None = Field(default=None, description="Name of the machine.")
    unlabelled: int | None = Field(default=None, description="Predicted records that had no label.")
    replayed: int | None = Field(
        default=None, description="Earlier rejects that were accepted when they were replayed."
    )


class CostRecord(Record):
    """The cost of one heavy job. None is unknown, never zero."""

    table: ClassVar[str] = "cost_rows"
    at: AwareDatetime = Field(description="When the work began.")
    pipeline: str
    run_id: str
    request_id: str
    position: int
    work: Literal["fit"] = Field(description="The kind of heavy job.")
    version: str | None = Field(default=None, description="The fitted model; None: there is none.")
    seconds: float
    cpu_s: float | None = None
    joules: float | None = Field(
        default=None, description="Energy of the gate's devices during the job."
    )
    energy_source: str | None = Field(default=None, description="The source of the energy reading.")
    uuid: str | None = Field(default=None, description="The device; None: none, or more than one.")
    mean_power_w: float | None = Field(default=None, description="Of all devices together.")
    peak_power_w: float | None = Field(
        default=None, description="The sum of each device's highest power."
    )
    peak_temperature_c: float | None = Field(default=None, description="Of the hottest device.")
    lowest_margin_c: float | None = Field(
        default=None, description="Of the device with the least, as the gate computes it."
    )
    throttled_s: float | None = Field(
        default=None, description="Seconds in which a device was throttled by heat."
    )
    unread_s: float | None = Field(default=None, description="Seconds without a known temperature.")
    deferred_s: float | None = Field(
        default=None, description="Seconds that its request waited for the gate."
    )
    paused_s: float | None = Field(
        default=None, description="Of its seconds, those in which it was paused to cool."
    )
    cap_w: float | None = Field(
        default=None, description="Power limit set for it, watts; None: none was set."
    )
    interrupt_strategy: str | None = Field(
        default=None, description="How the fit could be interrupted when its device grew hot."
    )
    work_rows: int | None = Field(default=None, description="Rows that it was fitted on.")
    price: float | None = Field(
        default=None, description="In `currency`, the facility's PUE included."
    )
    currency: str | None = None
    carbon_g: float | None = Field(default=None, description="Grams, the facility's PUE included.")
    pue: float | None = Field(
        default=None, description="The factor of the energy in price and grams."
    )


class ForecastRecord(Record):
    """A forecast of a device's margin, and the margin that was measured at its time."""

    table: ClassVar[str] = "forecast_rows"
    at: AwareDatetime = Field(description="When the forecast was compared with the measurement.")
    pipeline: str
    run_id: str
    position: int = Field(description="Next position of the stream at that moment.")
    uuid: str
    kind: Literal["margin at horizon", "lowest margin of a job"]
    horizon_s: float = Field(
        description="How far ahead the forecast was, seconds; for a job, its duration."
    )
    predicted_c: float = Field(description="The margin that was predicted, degrees.")
    standard_error_c: float | None = Field(
        default=None, description="Standard error of the forecast, degrees."
    )
    actual_c: float = Field(description="The margin that was measured, degrees.")


class RequestRecord(Record):
    """A retrain was requested, or the state of that request changed."""

    table: ClassVar[str] = "request_rows"
    at: AwareDatetime
    pipeline: str
    run_id: str
    request_id: str
    event: Literal[
        "requested",
        "deferred",
        "started",
        "promoted",
        "rejected",
        "candidate",
        "reused",
        "skipped",
        "no_model",
    ]
    position: int
    because: str
    deadline_s: float | None = Field(
        default=None, description="Seconds after the request at which a deferral ends."
    )
    waited_s: float | None = Field(
        default=None, description="Seconds since the request, on the gate's clock."
    )


class ModelRecord(Record):
    """A batch model was stored, promoted, rejected, made a candidate, or rolled back to."""

    table: ClassVar[str] = "model_rows"
    at: AwareDatetime
    pipeline: str
    run_id: str
    version: str
    event: Literal["stored", "promoted", "rejected", "candidate", "rolled_back"]
    position: int
    recipe: str | None = None
    rows: int | None = None
    train_from: int | None = Field(default=None, description="First position it was trained on.")
    train_to: int | None = Field(default=None, description="Position after the last trained one.")
    fit_s: float | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    because: str | None = None


class ExpectationRecord(Record):
    """What a retrain was expected to bring, and what came. Gains are per record.

    The unit is the baseline's loss in the pipeline's metric, on the hold-out of the last
    comparison; None is unknown.
    """

    table: ClassVar[str] = "expectation_rows"
    at: AwareDatetime
    pipeline: str
    run_id: str
    request_id: str
    event: Literal["expected", "compared", "followed"]
    position: int
    evidence: str = Field(
        description="What for: first, loss, growth, person, labels, alarm or archive."
    )
    metric: str
    expected_gain: float | None = None
    horizon_records: float | None = Field(
        default=None, description="Records for which the gain was expected."
    )
    cost_records: float | None = Field(
        default=None, description="Expected cost, in records' worth of the baseline's loss."
    )
    version: str | None = Field(default=None, description="The challenger, or the archived one.")
    replaced: str | None = Field(default=None, description="The champion that it replaced.")
    compared_gain: float | None = Field(
        default=None, description="Gain on the hold-out; 0 where it was not promoted."
    )
    followed_gain: float | None = Field(
        default=None, description="Mean gain over the records that came after."
    )
    followed_records: int | None = None


class ScoreRecord(Record):
    """The score of a member over a range of positions."""

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
        default=None, description="Records of the range with a prediction and a label."
    )


class RejectRecord(Record):
    """A record of the stream that was rejected, and why: no model has learned from it."""

    table: ClassVar[str] = "reject_rows"
    at: AwareDatetime
    pipeline: str
    run_id: str
    position: int
    reason: str = Field(description="Why, as a sentence for people.")
    kind: str | None = Field(
        default=None, description="The class of the reason, for programs; None: unknown."
    )
    raw: str


class ReplayRecord(Record):
    """A rejected record was replayed and accepted, so it is no longer a reject."""

    table: ClassVar[str] = "replay_rows"
    at: AwareDatetime
    pipeline: str
    run_id: str
    position: int
    labelled: bool = Field(description="Whether it had a label and was learned.")


class GpuReadingRecord(Record):
    """A reading of one device; None is unknown, never zero."""

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
    margin_source: str | None = Field(
        default=None,
        description="What the margin was computed from: margin, threshold, maximum, unknown.",
    )
    clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    discarded: int | None = Field(
        default=None, description="Impossible values of this reading, which are unknown."
    )
    unreadable: str | None = Field(
        default=None, description="Why nothing could be read; None: something was."
    )
