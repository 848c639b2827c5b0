"""The fit itself: rows are read, a challenger is fitted under a thermal guard, its cost is metered.

`prepare` needs the pipeline; `fit` works on `Prepared` alone, so that the online member may learn
meanwhile. What is prepared belongs to one position, wherever the stream is when the fit ends.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flows.config import settings
from flows.learning import worth_check
from flows.retraining import retrain_request
from flows.retraining.admit import Admission
from flows.retraining.thermal_guard import ThermalGuard
from flows.run.cost_meter import Cost, Meter
from flows.run.power_source import PowerSource
from flows.run.progress import Display
from flows.run.shutdown import Stop, StopRequested
from flows.run.state import FitWindow
from flows.run.unit_of_work import UnitOfWork
from models.batch import batch_model, evaluation, holdout, promotion
from models.batch.batch_model import (
    BatchAnswersNothing,
    BatchCannotLearn,
    BatchModel,
    TooLittleToLearn,
)
from models.batch.challenger import UnfinishedChallenge
from models.batch.evaluation import Challenge
from models.batch.fit_guard import Preempted
from models.batch.promotion import Comparison, PromotionConfig
from models.batch.recipe_config import BatchRecipe
from models.core import library_warnings, record_schema
from models.core.library_warnings import CollectedWarnings
from models.core.metrics import Measure
from models.core.record_schema import Label, Schema
from models.registry import partial_fits
from models.registry.partial_fits import FitIdentity
from observability.core.errors import ThermodriftError
from observability.history.records import RequestRecord
from observability.worth import worth
from power.devices.power_limit import PowerLimitResult
from power.monitoring.thermal_trace import Sample, ThermalTrace

if TYPE_CHECKING:
    import pandas as pd

    from power.monitoring.device_monitor import MonitorView

_NO_MODEL = (BatchCannotLearn, BatchAnswersNothing)
"""Errors that close the request without a model; the models that are there go on."""


@dataclass(frozen=True)
class Prepared:
    """All that a challenge needs, and the positions in the stream that it is about."""

    position: int
    frame: pd.DataFrame
    labels: Sequence[Label]
    positions: Sequence[int]
    """Of the window's rows, in order."""
    unlabelled: tuple[pd.DataFrame, Sequence[int]]
    """Rows of the window without a label, for its reference alone, and their positions."""
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
    """Made before the fit, so that the time of the fit does not count as waiting."""
    work: FitIdentity
    """What this fit is of, for the fit checkpoint where it is preempted."""
    measure: Measure
    seen: NDArray[np.bool_] | None
    """Of the window's rows, whether the champion was trained on them; None without a champion."""
    changed: int | None
    """Row of the window at which the last known change of the data begins."""
    promotion: PromotionConfig
    partial: UnfinishedChallenge | None
    """What an earlier attempt has fitted of it."""


@dataclass
class Fitted:
    """The result of a fit: a challenge, a failure, or a preemption; and its cost."""

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
    samples: tuple[Sample, ...] = ()
    """The margin of its device meanwhile."""

    @property
    def cap_w(self) -> float | None:
        """The power limit that was in force, watts."""
        return None if self.capping is None else self.capping.cap_w


class FitInterrupted(Exception):
    """A signal interrupted the fit; the request stays open."""

    def __init__(self, fitted: Fitted) -> None:
        super().__init__("a signal interrupted the fit")
        self.fitted = fitted


class _LimitNotSet(ThermodriftError, RuntimeError):
    """A fit that may only run under a lower power limit has not got that limit."""


def _require_limit(admitted: Admission, capping: PowerLimitResult | None) -> None:
    if admitted.only_capped and capping is not None and capping.cap_w is None:
        raise _LimitNotSet(
            "the gate of the device is closed for a job without a lower power limit, and its limit "
            f"could not be lowered: {capping.begun.because}"
        )


def prepare(work: UnitOfWork, admitted: Admission) -> Prepared:
    """Read the newest window and an older one. Raises TooLittleToLearn."""
    state, recipe = work.state, work.run.file.pipeline.batch
    # The window ends here, or where that of a preempted fit ended.
    until, begun = FitWindow(state.position, state.new_rows), admitted.request.begun
    if begun is not None and worth.keeps_window(begun.position, state.position, recipe.window):
        until = begun
    first = max(0, until.position - recipe.window)
    read = work.run.stream.between(first, until.position, state.cursors)
    window = read.labelled()
    unlabelled = read.unlabelled()
    positions = np.asarray(window.positions, dtype=np.int64)
    champion = None if state.champion is None else work.run.registry.manifest(state.champion)
    seen: NDArray[np.bool_] | None = None
    # The older window is from before both the window and what the champion was trained on. Neither
    # model has seen its rows, so forgetting is not mistaken for an overfit champion.
    older_to = first
    if champion is not None:
        _, held_out = batch_model.split(len(positions), recipe)
        unseen = promotion.unseen_holdout(
            window.positions, held_out.start, champion.train_to, work.run.file.pipeline.promotion
        )
        if not unseen:
            raise TooLittleToLearn(unseen.because)
        seen = positions < champion.train_to
        if not champion.refitted:
            seen &= ~np.isin(positions, champion.apart)
            seen |= np.isin(positions, champion.joined)
        older_to = min(first, champion.train_from)
    began = worth_check.concept_began(state)
    older_from, older_to = holdout.older(older_to, recipe.older_rows, began)
    older = work.run.stream.between(older_from, older_to, state.cursors).labelled()
    this_fit = FitIdentity(
        pipeline=work.run.name, position=until.position, recipe=recipe, record_schema=state.schema
    )
    return Prepared(
        position=until.position,
        frame=record_schema.frame(window.table, state.schema),
        labels=window.labels,
        positions=window.positions,
        unlabelled=(record_schema.frame(unlabelled.table, state.schema), unlabelled.positions),
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
        seen=seen,
        changed=holdout.latest_change(window.positions, (began,)),
        promotion=work.run.file.pipeline.promotion,
        partial=partial_fits.find(
            work.run.places.fit_checkpoint, this_fit, work.run.signing_key, work.run.file.folder
        ).partial,
    )


def fit(
    prepared: Prepared, admitted: Admission, power: PowerSource, display: Display, stop: Stop
) -> Fitted:
    """Fit the challenger on the device that was given, and meter it.

    Raises FitInterrupted where a signal asked for the end.
    """
    fitted = Fitted()
    if stop():
        raise FitInterrupted(fitted)
    meter = Meter(power, admitted.view.survey, admitted.uuid)
    guard, trace = None, None
    uuid = None if admitted.lease is None else admitted.lease.uuid
    if uuid is not None:
        trace = ThermalTrace(uuid, admitted.limits, admitted.view.now_s)
        trace.on_snapshot(admitted.view)
        if not admitted.against_the_gate:
            guard = ThermalGuard(
                uuid,
                admitted.view.judged.state,
                admitted.limits,
                lambda because: display.log_event(admitted.position, "paused", because, "red"),
            )

    def promotes(comparison: Comparison) -> bool:
        """Only what will be promoted is worth a refit."""
        return promotion.judge(comparison, prepared.promotion).yes

    def on_snapshot(view: MonitorView) -> None:
        """Called from the device monitor's thread."""
        meter.on_snapshot(view.survey)
        for each in (guard, trace):
            if each is not None:
                each.on_snapshot(view)

    try:
        with (
            display.doing("retraining"),
            power.capped(uuid, admitted.cap_w) as fitted.capping,
            power.subscribe(on_snapshot),
            settings.visible_device(uuid),
            meter.running(),
            library_warnings.collect(fitted.warned),
            # Innermost: a signal interrupts the fit alone, and no cleanup around it.
            stop.breakable(),
        ):
            _require_limit(admitted, fitted.capping)
            challenge = evaluation.evaluate(
                prepared.frame,
                prepared.labels,
                recipe=prepared.recipe,
                schema=prepared.schema,
                clock=time.perf_counter,
                champion=prepared.champion,
                older=prepared.older,
                beside=prepared.beside,
                reference_rows=prepared.reference_rows,
                guard=guard,
                partial=prepared.partial,
                device=uuid,
                measure=prepared.measure,
                seen=prepared.seen,
                changed=prepared.changed,
                promotes=promotes,
            )
            fitted.challenge = evaluation.with_unlabelled(
                challenge,
                prepared.positions,
                *prepared.unlabelled,
                schema=prepared.schema,
                reference_rows=prepared.reference_rows,
            )
    except StopRequested as stopped:
        raise FitInterrupted(fitted) from stopped
    except Preempted as preempted:
        fitted.given_back = preempted
    except (TooLittleToLearn, _LimitNotSet) as error:
        # This is found before anything is fitted: nothing was begun, and nothing spent.
        return Fitted(failure=str(error), capping=fitted.capping)
    except _NO_MODEL as error:
        fitted.failure = str(error)
    finally:
        fitted.cost = meter.cost
        fitted.paused_s = guard.paused_s if guard else 0.0
        fitted.samples = trace.samples() if trace else ()
    return fitted
