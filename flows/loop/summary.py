"""The summary of a run, as one JSON document; `flows.cli.run_summary` shows it to people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from flows.config.pipeline import PipelineFile
from flows.learning import label_report
from flows.run import schema_report
from flows.run.checkpoint_header import (
    estimate,
    judged,
    reads_labels,
    unknown_votes,
    unlabelled_look,
)
from flows.run.cost_meter import Cost
from flows.run.state import IntakeState, ServiceTotals, Totals
from flows.run.unit_of_work import UnitOfWork
from models.core import scoring
from models.online import learner
from models.persistence import checkpoint
from observability.core.paths import Places
from observability.history.store import History


def collect(work: UnitOfWork, outcome: str, because: str) -> dict[str, Any]:
    """The summary of a run that has ended; counts are over the life of the pipeline.

    `scores` are means over the whole stream: accuracy, or mean absolute error; null for a member
    that never answered. `scored` says over how many records: a member that came late has fewer.
    `columns` says how each column of the stream is read, and why. `judged` holds the same of the
    metric `judged_by`, over `judged_over` records each (ROC AUC and average precision: the newest
    5,000); null is unknown. `calibration` says how far the served probabilities are from the shares
    of hits that they promise (`models.online.calibration`). `champion_value` is what is lost per
    record with the champion that serves and without it (`models.online.champion_value`), null until
    300 records or where the metric is no mean over records. `threshold` is the probability from
    which the rarer of two classes is served, null where the likelier class is. `unknown_votes` are
    those that the last drift check could not cast: vote, position since which, because, and remedy.
    `open_request` is the retrain request that is open, or null. `candidate` is the version that won
    and waits for a person's word: version, position since which, gain and because, or null. `run`
    holds what this run alone did, and what it cost: `cpu_s` of processor time, and what its `fits`
    took in seconds and joules, and at the rates of the home's file, PUE included, in money and in
    grams of carbon dioxide. Each sum is null where the part of any fit is unknown; `energy` says
    what joules were read from, or why they were not. `deferrals` is the total, and
    `deferred_because` its parts by cause (`power.policy.gate.Cause`). `history_trouble` says what
    the run found lost or corrupt in the history, and why the history could not take in all rows;
    null where all is well. `service` counts the records that a service had been asked about
    (`flows.run.state.ServiceTotals`), and `labels` says what still waits for labels and how long
    they take (`flows.learning.label_report`), null where nothing was predicted by a service.
    `unlabelled_look` is the last look at rows without a label (`observability.drift.unlabelled`),
    and `estimate` the score that is expected of them, with its own past error
    (`models.core.score_stretches`); null where there is none. `metrics_trouble`
    says why figures could not be handed on as the home's file wants it, or null.
    """
    state, statistics = work.state, work.statistics
    request, candidate = state.request, state.worth.candidate
    return {
        "pipeline": work.run.name,
        "outcome": outcome,
        "because": because,
        "position": state.position,
        **vars(state.totals),
        "reads_from": work.run.file.pipeline.gate.reads_from,
        "metric": scoring.metric_name(state.schema.task),
        "scores": {who: each.mean for who, each in state.learner.tallies.items()},
        "scored": {who: each.count for who, each in state.learner.tallies.items()},
        **judged(state.learner),
        "unknown_votes": unknown_votes(state),
        "champion": state.champion,
        "open_request": None if request is None else asdict(request),
        "candidate": None if candidate is None else asdict(candidate),
        "unfinished_bytes": statistics.unfinished_bytes,
        "columns": schema_report.columns(state.schema),
        "intake": state.intake.brief(),
        "service": vars(state.service),
        "unlabelled_look": unlabelled_look(state),
        "estimate": estimate(state),
        "labels": label_report.collect(
            work.run.places, reads_labels(work.run.file.pipeline.stream, state)
        ),
        "home": str(work.run.home.home),
        "history": work.run.history.where,
        "history_trouble": "; ".join(filter(None, [*work.history_damage, work.history_trouble]))
        or None,
        "metrics_trouble": work.metrics_trouble or None,
        "run": {
            "run_id": work.run.run_id,
            "records": work.records,
            "seconds": statistics.seconds,
            "records_per_second": (
                work.records / statistics.learning_s if statistics.learning_s else None
            ),
            "cpu_s": statistics.cpu_s,
            "warnings": statistics.warnings,
            **_fits(statistics.costs),
        },
    }


def collect_unbegun(file: PipelineFile, home: Places) -> dict[str, Any]:
    """The summary of a run that a signal ended before it began: what the checkpoint says."""
    try:
        known = checkpoint.header(home.pipeline(file.name).checkpoint)
    except FileNotFoundError:
        known = {}
    names = learner.names(file.pipeline.online.members, file.pipeline.pipeline.task)
    nobody, never = dict.fromkeys(names), dict.fromkeys(names, 0)
    return {
        "pipeline": file.name,
        "outcome": "stopped",
        "because": "a signal stopped it before the first record",
        "position": known.get("position", 0),
        **(vars(Totals()) | known.get("totals", {})),
        "reads_from": file.pipeline.gate.reads_from,
        "metric": scoring.metric_name(file.pipeline.pipeline.task),
        "scores": known.get("scores", nobody),
        "scored": known.get("scored", never),
        "judged_by": known.get("judged_by", file.pipeline.pipeline.measure.name),
        "judged": known.get("judged", nobody),
        "judged_over": known.get("judged_over", never),
        "threshold": known.get("threshold"),
        "calibration": known.get("calibration"),
        "champion_value": known.get("champion_value"),
        "unknown_votes": known.get("unknown_votes", []),
        "champion": known.get("champion"),
        "open_request": known.get("open_request"),
        "candidate": known.get("candidate"),
        "intake": known.get("intake", IntakeState().brief()),
        "service": known.get("service", vars(ServiceTotals())),
        "unlabelled_look": known.get("unlabelled_look"),
        "estimate": known.get("estimate"),
        "labels": None,
        "unfinished_bytes": 0,
        "columns": [],
        "home": str(home.home),
        "history": History(home.home).where,
        "history_trouble": None,
        "metrics_trouble": None,
        "run": {
            "run_id": None,
            "records": 0,
            "seconds": 0.0,
            "records_per_second": None,
            "cpu_s": None,
            "warnings": 0,
            **_fits([]),
        },
    }


def _fits(costs: Sequence[Cost]) -> dict[str, Any]:
    """What all fits of a run cost. A sum of a part would be taken for the sum of all."""
    energies = [cost.energy for cost in costs]
    currencies = {cost.bill.currency for cost in costs}
    unknown = [energy.because for energy in energies if energy.joules is None]
    sources = sorted({energy.source for energy in energies if energy.source is not None})
    return {
        "fits": len(costs),
        "fit_s": sum((cost.seconds for cost in costs), 0.0),
        "fit_joules": _sum([each.joules for each in energies]),
        "energy": unknown[0] if unknown else ", ".join(sources) or None,
        "fit_price": _sum([cost.bill.price for cost in costs]),
        # A run reads its rates once, so its prices are in one currency.
        "currency": currencies.pop() if len(currencies) == 1 else None,
        "fit_carbon_g": _sum([cost.bill.carbon_g for cost in costs]),
    }


def _sum(amounts: Sequence[float | None]) -> float | None:
    """Their sum; unknown where any is."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known, 0.0) if len(known) == len(amounts) else None
