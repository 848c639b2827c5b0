"""The history's rows of a retrain: its cost, scores, model, power limit and forecast.

This module only makes rows: it decides nothing and commits nothing.
"""

from __future__ import annotations

from typing import Literal

from flows.retraining import retrain_request
from flows.retraining.admit import Admission
from flows.retraining.training import Fitted
from flows.run.cost_meter import Cost
from flows.run.state import OpenRequest
from flows.run.unit_of_work import UnitOfWork
from models.registry.registry import Manifest
from observability.core.decision import Decision
from observability.history.records import (
    CostRecord,
    ForecastRecord,
    ModelRecord,
    Record,
    ScoreRecord,
)


def cost(
    work: UnitOfWork, admitted: Admission, fitted: Fitted, version: str | None = None
) -> list[Record]:
    """What a fit cost, whatever its result; where none ran, what became of the power limit."""
    capping = fitted.capping
    limits = [] if capping is None else [capping.begun, capping.ended]
    limit_rows: list[Record] = [work.decision_row(each) for each in limits if each is not None]
    if fitted.cost is None:
        return limit_rows
    billed = fitted.cost.billed(work.run.history.rates)
    work.statistics.costs.append(billed)
    figures, price = billed.figures, billed.bill
    row = work.run.row(
        CostRecord,
        at=billed.at,
        request_id=admitted.request.request_id,
        position=admitted.position,
        work="fit",
        version=version,
        seconds=billed.seconds,
        cpu_s=billed.cpu_s,
        joules=billed.energy.joules,
        energy_source=billed.energy.source,
        uuid=figures.uuid,
        mean_power_w=figures.mean_power_w,
        peak_power_w=figures.peak_power_w,
        peak_temperature_c=figures.peak_temperature_c,
        lowest_margin_c=figures.lowest_margin_c,
        throttled_s=figures.throttled_s,
        unread_s=figures.unread_s,
        deferred_s=_deferred_s(work, admitted.request, billed),
        paused_s=fitted.paused_s,
        cap_w=fitted.cap_w,
        interrupt_strategy=fitted.challenge.guarded if fitted.challenge else None,
        work_rows=fitted.challenge.fitted_rows if fitted.challenge else None,
        price=price.price,
        currency=price.currency,
        carbon_g=price.carbon_g,
        pue=price.pue,
    )
    return [row, *_forecast(work, admitted, billed), *limit_rows]


def _deferred_s(work: UnitOfWork, request: OpenRequest, cost: Cost) -> float:
    """Seconds from the request until the fit began, on its clock; 0 if it was never deferred."""
    if not request.deferrals:
        return 0.0
    if work.run.power.replayed:
        return retrain_request.waited_s(work, request)
    return max(0.0, cost.at.timestamp() - request.asked_s)


def _forecast(work: UnitOfWork, admitted: Admission, cost: Cost) -> list[Record]:
    """The lowest margin that was predicted of this fit, beside the lowest that was read."""
    facts, actual_c = admitted.decision.facts, cost.figures.lowest_margin_c
    predicted_c = facts.get("forecast_margin_c")
    if facts.get("forecast_trusted") is not True or predicted_c is None or actual_c is None:
        return []
    return [
        work.run.row(
            ForecastRecord,
            position=admitted.position,
            uuid=admitted.uuid,
            kind="lowest margin of a job",
            horizon_s=cost.seconds,
            predicted_c=predicted_c,
            standard_error_c=facts.get("forecast_standard_error_c"),
            actual_c=actual_c,
        )
    ]


def scores(work: UnitOfWork, manifest: Manifest, older: tuple[int, int]) -> list[Record]:
    """What each contestant scored on the hold-out, and on the older window."""
    newest = (manifest.holdout_from, manifest.holdout_to)
    spans = {
        "holdout": (min((newest[0], *manifest.apart)), newest[1]),
        "newest": newest,
        "older": older,
    }
    return [
        work.run.row(
            ScoreRecord,
            position_from=position_from,
            position_to=position_to,
            member=who,
            metric=metric,
            value=value,
        )
        for who, scores in manifest.scores.items()
        for position_from, position_to in [spans[who.partition(":")[0]]]
        for metric, value in scores.items()
        if value is not None
    ]


def model(
    work: UnitOfWork,
    manifest: Manifest,
    promoted: Decision,
    ending: Literal["promoted", "rejected", "candidate"],
) -> list[Record]:
    """That a version was stored, and what became of it."""
    known = {**manifest.recorded, "position": work.state.position, "because": promoted.because}
    return [work.run.row(ModelRecord, event=event, **known) for event in ("stored", ending)]
