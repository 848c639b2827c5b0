"""What a run has to tell: one document for machines, and the same as a story for people."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows import settling, stream_view
from flows.metering import Cost
from flows.pipeline import PipelineFile
from flows.session import Session, judged, unknown_votes
from flows.settings import DEFAULT_HOME
from flows.state import IntakeState, Totals
from models import checkpoint, scoring
from models.learner import MEMBERS
from observability import console
from observability.history import History
from observability.places import Places

_TOLD = {
    "served": "served: the blend of the other three",
    "online": "online: learns from every record",
    "batch": "batch: the champion, retrained on demand",
    "baseline": "baseline: nothing changes",
}

_MOST_UNKNOWN = 3
"""Unknown votes that the story tells of."""


def of(session: Session, outcome: str, because: str) -> dict[str, Any]:
    """The summary of a run that has ended; counts are over the life of the pipeline.

    `scores` are means over the whole stream: accuracy, or mean absolute error; null for a member
    that never answered. `scored` says over how many records: a member that came late has fewer.
    `columns` says how each column of the stream is read, and why.
    `judged` holds the same of the metric `judged_by`, over `judged_over` records each (ROC AUC and
    average precision: the newest 5,000); null is unknown. `threshold` is the probability from which
    the rarer of two classes is served, null where the likelier class is. `unknown_votes` are those
    that drift could not cast at the last look: vote, position since which, because, and remedy.
    `run` holds what this run alone did, and what it cost: `cpu_s` of processor time, and what its
    `fits` took in seconds and joules, and at the rates of the home's file, PUE included, in money
    and in grams of carbon dioxide. Each sum is null where the part of any fit is unknown; `energy`
    says what joules were read from, or why they were not. `deferrals` is the total, and
    `deferred_because` its parts by cause (`power.gate.Cause`). `history_trouble` says what the run
    found lost or torn in the history, and why that could not take in all rows; null where all is
    well.
    """
    state = session.state
    request = state.request
    return {
        "pipeline": session.name,
        "outcome": outcome,
        "because": because,
        "position": state.position,
        **vars(state.totals),
        "reads_from": session.file.pipeline.gate.reads_from,
        "metric": scoring.metric(state.schema.task),
        "scores": {who: state.learner.tallies[who].mean for who in ("served", *MEMBERS)},
        "scored": {who: state.learner.tallies[who].count for who in ("served", *MEMBERS)},
        **judged(state.learner),
        "unknown_votes": unknown_votes(state),
        "champion": state.champion,
        "owed": None if request is None else vars(request),
        "unfinished_bytes": session.unfinished_bytes,
        "columns": stream_view.columns(state.schema),
        "intake": state.intake.brief(),
        "home": str(session.home.home),
        "history": session.history.where,
        "history_trouble": _trouble(session),
        "run": {
            "run_id": session.run_id,
            "records": session.records,
            "seconds": time.monotonic() - session.started_monotonic_s,
            "records_per_second": (
                session.records / session.learning_s if session.learning_s else None
            ),
            "cpu_s": session.cpu_s,
            "warnings": session.warnings + session.warned.count,
            **_fits(session.costs),
        },
    }


def unbegun(file: PipelineFile, home: Places) -> dict[str, Any]:
    """The summary of a run that a signal ended before it began: what the checkpoint says."""
    try:
        known = checkpoint.brief(home.pipeline(file.name).checkpoint)
    except FileNotFoundError:
        known = {}
    return {
        "pipeline": file.name,
        "outcome": "stopped",
        "because": "a signal asked for it before the first record",
        "position": known.get("position", 0),
        **(vars(Totals()) | known.get("totals", {})),
        "reads_from": file.pipeline.gate.reads_from,
        "metric": scoring.metric(file.pipeline.pipeline.task),
        "scores": known.get("scores", dict.fromkeys(("served", *MEMBERS))),
        "scored": known.get("scored", dict.fromkeys(("served", *MEMBERS), 0)),
        "judged_by": known.get("judged_by", file.pipeline.pipeline.measure.name),
        "judged": known.get("judged", dict.fromkeys(("served", *MEMBERS))),
        "judged_over": known.get("judged_over", dict.fromkeys(("served", *MEMBERS), 0)),
        "threshold": known.get("threshold"),
        "unknown_votes": known.get("unknown_votes", []),
        "champion": known.get("champion"),
        "owed": known.get("request"),
        "intake": known.get("intake", IntakeState().brief()),
        "unfinished_bytes": 0,
        "columns": [],
        "home": str(home.home),
        "history": History(home.home).where,
        "history_trouble": None,
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


def _trouble(session: Session) -> str | None:
    """What this run found damaged in the history, and why that is behind, if it still is."""
    told = [*session.history_damage, session.history_trouble]
    return "; ".join(filter(None, told)) or None


def _fits(costs: Sequence[Cost]) -> dict[str, Any]:
    """What all fits of a run cost. A part of the joules would pass for all of them."""
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


def tell(summary: Mapping[str, Any], file: str) -> None:
    """Print the story of a run on stdout."""
    run, out = summary["run"], console.stdout()
    out.print()
    out.print(f"[bold]{summary['pipeline']}[/]: {summary['outcome']}, {summary['because']}")
    rate = run["records_per_second"]
    out.print(
        f"{run['records']:,} records in {run['seconds']:.1f} s"
        + (f", {rate:,.0f}/s while learning" if rate else "")
        + f"; {summary['learned']:,} learned and {summary['rejected']:,} rejected in all"
        + _unlabelled(summary["unlabelled"])
    )
    _tell_cost(run)
    _tell_scores(summary)
    out.print(
        f"{summary['alarms']} drift alarms, {summary['retrains']} retrains, "
        f"{summary['promotions']} promotions; "
        f"{settling.deferrals(summary, summary['reads_from'])}",
        soft_wrap=True,
    )
    tell_unknown(summary["unknown_votes"])
    for trouble in _troubles(summary):
        out.print(trouble, soft_wrap=True)
    _where_next(summary, file)


def _tell_scores(summary: Mapping[str, Any]) -> None:
    """The members, the best first, by accuracy or MAE and by what the pipeline is judged by."""
    metric, by = summary["metric"], summary["judged_by"]
    ranked = sorted(
        ((who, score) for who, score in summary["scores"].items() if score is not None),
        key=lambda pair: pair[1],
        reverse=metric == "accuracy",
    )
    both = by != metric
    console.print_table(
        ["member", metric, *([by] if both else []), "records"],
        [
            (
                _TOLD[who],
                f"{score:.4f}" if metric == "accuracy" else score,
                *([_score(summary["judged"][who])] if both else []),
                f"{summary['scored'][who]:>9,}",
            )
            for who, score in ranked
        ],
    )
    if summary["threshold"] is not None:
        console.stdout().print(
            f"the rarer class is served from a probability of {summary['threshold']:.3g} on, which "
            f"suits {by}"
        )


def _troubles(summary: Mapping[str, Any]) -> Iterator[str]:
    """What a person should know or do, a line each, for rich."""
    from rich.markup import escape

    if warned := summary["run"]["warnings"]:
        yield (
            f"Libraries warned {warned:,} times while models learned and answered; what each said "
            "first is in decisions (question = 'warnings')"
        )
    if owed := summary["owed"]:
        yield (
            f"[yellow]A retrain is owed[/] since position {owed['asked_position']:,} "
            f"({escape(owed['because'])}); run again and the gate is asked again"
        )
    if summary["history_trouble"]:
        yield f"[yellow]Trouble with the history[/]: {escape(summary['history_trouble'])}"
    intake = summary["intake"]
    if intake["state"] != "well":
        yield f"[yellow]The stream does not fit as it did[/]: {escape(intake['because'])}"
    for notice in intake["notices"]:
        yield (
            f"[yellow]Noticed[/] ({notice['kind']}): {escape(repr(notice['column']))}, from "
            f"position {notice['position']:,} on, in {notice['count']:,} records"
        )
    if summary["unfinished_bytes"]:
        yield (
            f"[yellow]The last {summary['unfinished_bytes']} bytes of the stream are no whole "
            "record yet[/]; they wait for the rest of their line"
        )


def _unlabelled(count: int) -> str:
    return f", {count:,} without a label predicted alone" if count else ""


def tell_unknown(votes: Sequence[Mapping[str, Any]]) -> None:
    """Say what drift could not tell, since when, and what would change that."""
    for each in votes[:_MOST_UNKNOWN]:
        console.stdout().print(
            f"Drift unknown, {each['vote']}, since {each['since']:,}: {each['because']}; known "
            f"with: {each['remedy']}",
            soft_wrap=True,
            markup=False,
        )
    if len(votes) > _MOST_UNKNOWN:
        console.stdout().print(f"and {len(votes) - _MOST_UNKNOWN} votes more (--json)")


def _score(value: float | None) -> str:
    if value is None:
        return "unknown"
    # Errors of values are in the target's unit, the others near 1: a column of one width.
    return f"{value:.5f}" if abs(value) < 100 else f"{value:.5g}"


def _tell_cost(run: Mapping[str, Any]) -> None:
    if run["cpu_s"] is None:
        return
    told = f"{run['cpu_s']:.1f} s of processor time"
    if run["fits"]:
        joules = run["fit_joules"]
        energy = "an unknown amount of energy" if joules is None else f"{joules:,.0f} J"
        count = f"{run['fits']} fit{'' if run['fits'] == 1 else 's'}"
        told += f"; {count} took {run['fit_s']:.1f} s and {energy}{_in_money(run)}"
    console.stdout().print(told, soft_wrap=True)


def _in_money(run: Mapping[str, Any]) -> str:
    """What the energy came to, in what is known of it; empty where nothing is."""
    price, carbon_g = run["fit_price"], run["fit_carbon_g"]
    told = [
        *([f"{_amount(price)} {run['currency']}"] if price is not None else []),
        *([f"{_amount(carbon_g)} g of CO2"] if carbon_g is not None else []),
    ]
    return f" ({', '.join(told)})" if told else ""


def _amount(value: float) -> str:
    """Two decimals; an amount that they would round away is told as small, not as none."""
    return "under 0.01" if 0 < value < 0.01 else f"{value:,.2f}"


def _where_next(summary: Mapping[str, Any], file: str) -> None:
    out = console.stdout()
    question = (
        "SELECT position, question, yes, because FROM decisions WHERE question <> 'drift' "
        f"AND pipeline = '{summary['pipeline']}' ORDER BY decided_at"
    )
    home = Path(summary["home"])
    here = "thermodrift" if home == DEFAULT_HOME.resolve() else f"thermodrift --home {home}"
    out.print("\nWhere to look next:", style="bold")
    for command, told in (
        (f'{here} history sql "{question}"', "what was decided, and why"),
        (f"{here} history tables", "everything else that can be asked"),
        (f"{here} drift show {file}", "how far the world has moved"),
        (f"{here} models ls {summary['pipeline']}", "models, and which one serves"),
        *(
            [(f"{here} rejects {file}", "which records were rejected, and why")]
            if summary["rejected"]
            else []
        ),
    ):
        out.print(f"  {command}", soft_wrap=True, highlight=False, markup=False)
        out.print(f"      {told}", style="dim")
