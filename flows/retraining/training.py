"""The fit itself: rows are read, a challenger is fitted under watch, and what it cost is metered.

`prepare` needs the pipeline, `fit` needs it no more: what it works on lies in `Prepared`, so that
the online member may learn on meanwhile. What is prepared is of one position, whatever the stream
has come to when the fit ends.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from flows.config import settings
from flows.retraining import retrain_request
from flows.retraining.admit import Admission
from flows.retraining.thermal_guard import ThermalGuard
from flows.run.cost_meter import Cost, Meter
from flows.run.power_source import PowerSource
from flows.run.progress import Display
from flows.run.shutdown import Stop, StopRequested
from flows.run.state import FitWindow
from flows.run.unit_of_work import UnitOfWork
from models.batch import batch_model, evaluation
from models.batch.batch_model import (
    BatchAnswersNothing,
    BatchCannotLearn,
    BatchModel,
    TooLittleToLearn,
)
from models.batch.evaluation import Challenge, UnfinishedChallenge
from models.batch.fit_guard import Preempted
from models.batch.recipe_config import BatchRecipe
from models.core import library_warnings, record_schema
from models.core.library_warnings import CollectedWarnings
from models.core.metrics import Measure
from models.core.record_schema import Label, Schema
from models.registry import partial_fits
from models.registry.partial_fits import FitIdentity
from models.registry.registry import Manifest
from observability.core.errors import ThermodriftError
from observability.drift import retrain_policy
from observability.history.records import RequestRecord
from power.devices.power_limit import PowerLimitResult
from power.monitoring.thermal_trace import Sample, ThermalTrace

if TYPE_CHECKING:
    import pandas as pd

    from power.monitoring.device_monitor import MonitorView

_NOTHING_CAME = (BatchCannotLearn, BatchAnswersNothing)
"""A fit that brings no model is an answer: the request is settled, the others carry on."""


@dataclass(frozen=True)
class Prepared:
    """All that a challenge needs, and the places in the stream that it is about."""

    position: int
    frame: pd.DataFrame
    labels: Sequence[Label]
    positions: Sequence[int]
    """Of the window's rows, in order."""
    unlabelled: tuple[pd.DataFrame, Sequence[int]]
    """Rows of the window without a label, which are of its reference alone, and their places."""
    older: tuple[pd.DataFrame, Sequence[Label]] | None
    older_span: tuple[int, int]
    """From and to (exclusive) of the older window; empty where there is none."""
    champion: BatchModel | None
    champion_version: str | None
    recipe: BatchRecipe
    schema: Schema
    beside: Path
    reference_rows: int
    new_rows: int
    """Records learned between the fit before and `position`."""
    started: RequestRecord
    """Made before the fit: how long a request waited is not how long it was worked on."""
    work: FitIdentity
    """What this fit is of, for what is kept of it where it is given back."""
    measure: Measure
    seen: NDArray[np.bool_] | None
    """Of the window's rows, whether the champion was trained on them; None without a champion."""
    changed: int | None
    """Row of the window since which the labels are out of what was known before."""
    partial: UnfinishedChallenge | None
    """What an earlier attempt has fitted of it."""


@dataclass(frozen=True)
class Fitted:
    """What came of a fit: a challenge, a failure, or the device given back; and its cost."""

    challenge: Challenge | None = None
    failure: str | None = None
    given_back: Preempted | None = None
    cost: Cost | None = None
    """None where nothing ran."""
    paused_s: float = 0.0
    capping: PowerLimitResult | None = None
    """What became of the power limit; None where none was to be set."""
    warned: CollectedWarnings = field(default_factory=CollectedWarnings)
    """What libraries, and the model itself, warned of meanwhile."""
    guarded: str | None = None
    """How it was watched; None where nothing was fitted to the end."""
    course: tuple[Sample, ...] = ()
    """How warm its device was meanwhile."""

    @property
    def cap_w(self) -> float | None:
        """The power limit that was in force, watts."""
        return None if self.capping is None else self.capping.cap_w


class FitInterrupted(Exception):
    """A signal broke the fit off: it is owed, and comes again."""

    def __init__(self, fitted: Fitted) -> None:
        super().__init__("a signal broke the fit off")
        self.fitted = fitted


def prepare(work: UnitOfWork, admitted: Admission) -> Prepared:
    """Read the newest window and an older one. Raises TooLittleToLearn."""
    state, recipe = work.state, work.run.file.pipeline.batch
    until = _until(work, admitted)
    first = max(0, until.position - recipe.window)
    read = work.run.stream.between(first, until.position, state.marks)
    window = read.labelled()
    waiting = read.unlabelled()
    champion = None if state.champion is None else work.run.registry.manifest(state.champion)
    if champion is not None:
        _refuse_seen_holdout(champion, recipe, window.positions)
    this_fit = FitIdentity(
        pipeline=work.run.name, position=until.position, recipe=recipe, record_schema=state.schema
    )
    older_from, older_to = _older(champion, recipe, first)
    older = work.run.stream.between(older_from, older_to, state.marks).labelled()
    return Prepared(
        position=until.position,
        frame=record_schema.frame(window.table, state.schema),
        labels=window.labels,
        positions=window.positions,
        unlabelled=(record_schema.frame(waiting.table, state.schema), waiting.positions),
        older=(
            (record_schema.frame(older.table, state.schema), older.labels)
            if older.positions
            else None
        ),
        older_span=(older_from, older_to),
        champion=work.champion(),
        champion_version=state.champion,
        recipe=recipe,
        schema=state.schema,
        beside=work.run.file.folder,
        reference_rows=work.run.file.pipeline.drift.reference_rows,
        new_rows=until.new_rows,
        started=retrain_request.request_event(
            work, admitted.request, "started", admitted.request.because
        ),
        work=this_fit,
        measure=work.run.file.pipeline.pipeline.measure,
        seen=None if champion is None else _seen(champion, window.positions),
        changed=_changed(work, window.positions),
        partial=partial_fits.find(
            work.run.places.fit_checkpoint, this_fit, work.run.signing_key, work.run.file.folder
        ).partial,
    )


def fit(
    prepared: Prepared, admitted: Admission, power: PowerSource, display: Display, stop: Stop
) -> Fitted:
    """Fit the challenger on the device that was given, and meter it.

    Raises BrokenOff where a signal asked for the end.
    """
    if stop():
        raise FitInterrupted(Fitted())
    watch = _Watch.over(admitted, power, display)
    outcome = _Outcome()
    uuid = None if admitted.lease is None else admitted.lease.uuid
    try:
        with (
            display.doing("retraining"),
            power.capped(uuid, admitted.cap_w) as outcome.capping,
            power.subscribe(watch.hear),
            settings.job_sees(uuid),
            watch.meter.running(),
            library_warnings.collect(outcome.warned),
            # Innermost: a signal breaks off the fit, and nothing that makes up for one.
            stop.breakable(),
        ):
            _refuse_uncapped(admitted, outcome.capping)
            outcome.challenge = _challenge(prepared, watch.vigil, uuid)
    except StopRequested as stopped:
        raise FitInterrupted(_fitted(outcome, watch)) from stopped
    except Preempted as stopped:
        outcome.given_back = stopped
    except (TooLittleToLearn, _LimitNotSet) as error:
        # Found out before anything was fitted: nothing was begun, and nothing spent.
        return Fitted(failure=str(error), capping=outcome.capping)
    except _NOTHING_CAME as error:
        outcome.failure = str(error)
    return _fitted(outcome, watch)


class _LimitNotSet(ThermodriftError, RuntimeError):
    """A job that may run under a lower power limit alone has not got it."""


def _refuse_uncapped(admitted: Admission, capping: PowerLimitResult | None) -> None:
    """A device whose gate is closed takes the job capped, or not at all."""
    if admitted.only_capped and capping is not None and capping.cap_w is None:
        raise _LimitNotSet(
            "the gate of the device is closed for a job without a lower power limit, and its limit "
            f"could not be lowered: {capping.begun.because}"
        )


@dataclass
class _Outcome:
    """What is known of a fit while it goes on."""

    challenge: Challenge | None = None
    failure: str | None = None
    given_back: Preempted | None = None
    capping: PowerLimitResult | None = None
    warned: CollectedWarnings = field(default_factory=CollectedWarnings)


@dataclass(frozen=True)
class _Watch:
    """Who hears of the devices while the fit goes on."""

    meter: Meter
    vigil: ThermalGuard | None
    course: ThermalTrace | None

    @classmethod
    def over(cls, admitted: Admission, power: PowerSource, display: Display) -> Self:
        """What is heard of the device that was given; of none, what is metered alone."""
        meter = Meter(power, admitted.look.survey, admitted.uuid)
        if admitted.lease is None:
            return cls(meter, None, None)
        course = ThermalTrace(admitted.lease.uuid, admitted.limits, admitted.look.now_s)
        course.on_snapshot(admitted.look)
        return cls(meter, _vigil(admitted, display), course)

    def hear(self, look: MonitorView) -> None:
        """Take in a look; called from the follower's thread."""
        self.meter.saw(look.survey)
        for each in (self.vigil, self.course):
            if each is not None:
                each.on_snapshot(look)


def _fitted(outcome: _Outcome, watch: _Watch) -> Fitted:
    return Fitted(
        challenge=outcome.challenge,
        failure=outcome.failure,
        given_back=outcome.given_back,
        cost=watch.meter.cost,
        paused_s=watch.vigil.paused_s if watch.vigil else 0.0,
        capping=outcome.capping,
        warned=outcome.warned,
        guarded=outcome.challenge.guarded if outcome.challenge else None,
        course=watch.course.samples() if watch.course else (),
    )


def _until(work: UnitOfWork, admitted: Admission) -> FitWindow:
    """Where the window ends: here, or where that of a fit ended which was given back half done."""
    state, begun = work.state, admitted.request.begun
    window = work.run.file.pipeline.batch.window
    if begun is not None and retrain_policy.keeps_window(begun.position, state.position, window):
        return begun
    return FitWindow(state.position, state.new_rows)


def _vigil(admitted: Admission, display: Display) -> ThermalGuard | None:
    """The guard of the fit; none where a person wants it anyhow."""
    if admitted.lease is None or admitted.against_the_gate:
        return None
    return ThermalGuard(
        admitted.lease.uuid,
        admitted.look.judged.state,
        admitted.limits,
        lambda because: display.log_event(admitted.position, "paused", because, "red"),
    )


def _challenge(prepared: Prepared, vigil: ThermalGuard | None, uuid: str | None) -> Challenge:
    fought = evaluation.evaluate(
        prepared.frame,
        prepared.labels,
        recipe=prepared.recipe,
        schema=prepared.schema,
        clock=time.perf_counter,
        champion=prepared.champion,
        older=prepared.older,
        beside=prepared.beside,
        reference_rows=prepared.reference_rows,
        guard=vigil,
        partial=prepared.partial,
        device=uuid,
        measure=prepared.measure,
        seen=prepared.seen,
        changed=prepared.changed,
    )
    return evaluation.with_unlabelled(
        fought,
        prepared.positions,
        *prepared.unlabelled,
        schema=prepared.schema,
        reference_rows=prepared.reference_rows,
    )


def _refuse_seen_holdout(champion: Manifest, recipe: BatchRecipe, positions: Sequence[int]) -> None:
    """Rows that the champion was trained on say nothing about who is better.

    With constant knobs a hold-out lies behind all training; a larger one may reach back.
    """
    trained_to = champion.train_to
    train, _ = batch_model.split(len(positions), recipe)
    if train.stop < len(positions) and positions[train.stop] < trained_to:
        raise TooLittleToLearn(
            f"the hold-out would begin at position {positions[train.stop]}, among rows that the "
            f"champion was trained on (up to {trained_to}); it is fair from position "
            f"{trained_to + len(positions) - train.stop} on, or with a smaller batch.holdout"
        )


def _seen(champion: Manifest, positions: Sequence[int]) -> NDArray[np.bool_]:
    """Whether the champion was trained on each of these positions."""
    places = np.asarray(positions, dtype=np.int64)
    before = (places < champion.train_to) & ~np.isin(places, champion.apart)
    seen: NDArray[np.bool_] = before | np.isin(places, champion.joined)
    return seen


def _changed(work: UnitOfWork, positions: Sequence[int]) -> int | None:
    """The row of the window at which the labels left what was known; None where none did in it."""
    changed = work.state.change_position
    if changed is None or not len(positions) or changed < positions[0]:
        return None
    return int(np.searchsorted(np.asarray(positions, dtype=np.int64), changed))


def _older(champion: Manifest | None, recipe: BatchRecipe, window_first: int) -> tuple[int, int]:
    """Positions from before both the window and what the champion was trained on.

    Neither has seen them, so what is forgotten is not mistaken for what was learned by heart.
    """
    end = window_first if champion is None else min(window_first, champion.train_from)
    return max(0, end - recipe.older_rows), end
