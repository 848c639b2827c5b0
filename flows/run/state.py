"""What a pipeline knows at one position, and its pending effects. No disk, no Prefect.

The state is checkpointed whole. What must happen outside because of it (a new champion, rows of
the history) is in it as `pending_effects`: the checkpoint is written first, then the effects are
applied. After a crash they are applied again; each has a name, so that this is idempotent.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from typing import Any

from models.core.position_ranges import PositionRanges
from models.core.record_schema import Schema
from models.core.score_stretches import ScoreStretches
from models.online.learner import Learner
from models.online.prediction_rows import PredictionRows
from models.stream.source import Cursor
from observability.history.records import Record
from observability.worth.memory import Level, Memory
from power.forecast.forecast import ThermalState
from power.forecast.job_profile import JobProfile
from power.policy.gate import GateState
from power.policy.power_cap import CapPoint


@dataclass(frozen=True)
class FitWindow:
    """The window of a fit that began and is not finished: it ends where the stream was then."""

    position: int
    new_rows: int
    """Records learned between the fit before and that position."""


@dataclass(frozen=True)
class UnknownVote:
    """A drift vote that the last drift check could not cast."""

    since: int
    """Position of the first of the consecutive checks that could not."""
    because: str
    remedy: str
    """What would make it known."""


@dataclass(frozen=True)
class Reuse:
    """An archived version that beat the champion on the newest rows."""

    version: str
    gain: float
    """What it saves against the champion, as a share of the baseline's loss."""
    level: Level
    """What it lost there."""


@dataclass(frozen=True)
class HeldOutLosses:
    """What a version lost on its hold-out before it was fitted on these rows too."""

    positions: tuple[int, ...]
    losses: tuple[float, ...]
    """In the order of the positions; NaN is not known."""


@dataclass
class OpenRequest:
    """A request for a retrain that is not closed."""

    request_id: str
    because: str
    asked_position: int
    asked_s: float
    """On the request clock: the trace's where there is one, else seconds since 1970."""
    deferrals: int = 0
    why_deferred: str = "the gate was not asked yet"
    cause: str | None = None
    """The cause of the last deferral (`power.policy.gate.Cause`)."""
    asked_gate_at: int = -1
    """Position at which the gate was asked last."""
    severity: float = 0.0
    """How severe the drift was that led to it, 0 to 1."""
    begun: FitWindow | None = None
    """The window of a preempted fit, which the next attempt keeps."""
    capped: bool = False
    """Whether it is worth its energy only under a lower power limit, or its device was warm."""
    reuse: Reuse | None = None
    """A version that serves again instead of a fit."""


@dataclass
class ReportedNotices:
    """A notice of the stream that was reported: where it began, and its count since."""

    position: int
    count: int
    example: str


@dataclass
class IntakeState:
    """How well the stream fits the schema that it began with."""

    records: int = 0
    """Of the batch that was consumed last."""
    rejected: int = 0
    """Of these, for any reason."""
    in_a_row: int = 0
    """Records rejected for their shape right before the position, without a break."""
    because: str = ""
    """What is wrong, where the last batch was ill or the run ended before the next one."""
    remedy: str = ""
    stopped_at: int | None = None
    """Where the last run ended because of the stream's shape; None once more was consumed."""
    notices: dict[tuple[str, str], ReportedNotices] = field(default_factory=dict)
    """By kind and column."""
    rejects: PositionRanges = field(default_factory=PositionRanges)
    """Positions that are rejects now, without the oldest where there are too many ranges."""

    def brief(self) -> dict[str, Any]:
        """The same as a document for JSON."""
        stopped = self.stopped_at is not None
        return {
            "state": "stopped" if stopped else "ill" if self.because else "well",
            "because": self.because or None,
            "remedy": self.remedy or None,
            "stopped_at": self.stopped_at,
            "last_batch_records": self.records,
            "last_batch_rejected": self.rejected,
            "can_be_replayed": len(self.rejects),
            "notices": [
                {"kind": kind, "column": column, **vars(seen)}
                for (kind, column), seen in sorted(self.notices.items())
            ],
        }


@dataclass
class Totals:
    """Counts over the life of the pipeline."""

    records: int = 0
    learned: int = 0
    unlabelled: int = 0
    """Records that were predicted and have no label yet."""
    rejected: int = 0
    alarms: int = 0
    retrains: int = 0
    promotions: int = 0
    deferrals: int = 0
    deferred_because: dict[str, int] = field(default_factory=dict)
    """The number of deferrals of each cause."""
    replayed: int = 0
    """Records that were rejected, and accepted when they were read again."""
    reused: int = 0
    """Of the promotions, those of an archived version, without a fit."""


@dataclass
class ServiceTotals:
    """What became of records that a service had been asked about, over the life of the pipeline."""

    scored: int = 0
    """Scored by what this pipeline's service had answered then."""
    other_champion: int = 0
    """Of these, answered by another champion than served when the label came, or by none."""
    asleep: dict[str, int] = field(default_factory=dict)
    """Of these, those that a member had not answered, by the member's name."""
    foreign: int = 0
    """Answered by the service of another pipeline: they are predicted when their labels come."""


@dataclass(frozen=True)
class UnlabelledLook:
    """The last look at predictions that wait for their labels."""

    recorded: int = 0
    """Predictions that the service had recorded by then."""
    position: int | None = None
    """Where the stream was; None: there was no look yet."""
    yes: bool = False
    because: str = ""


@dataclass(frozen=True)
class Replayed:
    """Predictions of records that were rejected before, which belong into the log."""

    positions: tuple[int, ...]
    log: PredictionRows
    versions: tuple[str | None, ...]
    """The champion that predicted, record by record."""


@dataclass(frozen=True)
class PendingEffects:
    """Effects that follow from a checkpoint: at most one promotion, and rows of history."""

    name: str
    records: tuple[Record, ...]
    promote: str | None = None
    logged: tuple[int, int] | None = None
    """The positions whose predictions belong to the rows; the end is exclusive."""
    replayed: Replayed | None = None
    """Predictions that belong to the rows, and into existing files of the log."""


@dataclass
class PipelineState:
    """Everything that a pipeline knows at `cursor.position`."""

    schema: Schema
    learner: Learner
    cursor: Cursor
    knobs: Mapping[str, Any]
    """The knobs that the learner was built with, to find later changes of the file."""
    marks: Sequence[Cursor] = ()
    """Earlier cursors, so that a training window is found without reading from the start."""
    lineage: str = field(default_factory=lambda: secrets.token_hex(4))
    """Distinguishes this pipeline from an earlier one of the same name whose folder was removed."""
    commits: int = 0
    champion: str | None = None
    tested_champion: str | None = None
    """The champion whose errors are tested."""
    held_out: dict[str, HeldOutLosses] = field(default_factory=dict)
    """Of the newest versions that were fitted on their hold-outs too, and that may serve."""
    column_thresholds: dict[tuple[object, ...], dict[str, float]] = field(default_factory=dict)
    """From which scores the columns have drifted, by champion and window sizes; the newest few."""
    drift_checked_at: int = 0
    """Position of the last drift check."""
    change_estimate: int | None = None
    """Where the change that was last found is estimated to have begun: older rows may mislead."""
    closed_at: int | None = None
    """Position where the last request was closed."""
    new_rows: int = 0
    """Records learned since the last fit."""
    learned_at: datetime | None = None
    """When a record was learned from last."""
    change_position: int | None = None
    """Where the labels last left what was known: a new class, values out of range."""
    request: OpenRequest | None = None
    gate: GateState = field(default_factory=GateState)
    gate_s: float = -1.0
    """The trace's clock when the gate was asked last."""
    last_fit_s: float | None = None
    job: JobProfile = field(default_factory=JobProfile)
    """Duration and power of a retrain of this pipeline, learned from past ones."""
    caps: tuple[CapPoint, ...] = ()
    """Time and energy of a unit of a retrain's work under each power limit that was tried."""
    known: dict[str, ThermalState] = field(default_factory=dict)
    """The thermal states of a recorded trace's devices; those of real ones are in the home."""
    intake: IntakeState = field(default_factory=IntakeState)
    unknown: dict[str, UnknownVote] = field(default_factory=dict)
    """Drift votes that the last check could not cast, by name."""
    worth: Memory = field(default_factory=Memory)
    """What retrains were expected to bring, and what came."""
    totals: Totals = field(default_factory=Totals)
    service: ServiceTotals = field(default_factory=ServiceTotals)
    unlabelled: UnlabelledLook = field(default_factory=UnlabelledLook)
    stretches: ScoreStretches = field(default_factory=ScoreStretches)
    """The scores of what was served, for an estimate of what has no label."""
    pending_effects: tuple[PendingEffects, ...] = ()

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Restore from a checkpoint; a field that it does not have gets its default."""
        for each in fields(self):
            if each.name not in kept and each.default_factory is not MISSING:
                kept[each.name] = each.default_factory()
        self.__dict__.update(kept)

    @property
    def position(self) -> int:
        """The next position of the stream."""
        return self.cursor.position

    @property
    def cursors(self) -> Sequence[Cursor]:
        """Where reading a range again may start, in order; the last is the present one."""
        return [*self.marks, self.cursor]
