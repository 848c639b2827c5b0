"""A run's summary as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.config.settings import DEFAULT_HOME
from flows.retraining import retrain_request
from observability.core import cli_output

_TOLD = {
    "served": "served: the blend of the other three",
    "online": "online: learns from every record",
    "batch": "batch: the champion, retrained on demand",
    "baseline": "baseline: nothing changes",
}

_MOST_UNKNOWN = 3
"""Unknown votes that the story tells of."""


def render(summary: Mapping[str, Any], file: str) -> None:
    """Print the story of a run on stdout."""
    run, out = summary["run"], cli_output.stdout()
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
        f"{retrain_request.deferrals(summary, summary['reads_from'])}",
        soft_wrap=True,
    )
    render_unknown_votes(summary["unknown_votes"])
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
    cli_output.print_table(
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
        cli_output.stdout().print(
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
    if owed := summary["open_request"]:
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


def render_unknown_votes(votes: Sequence[Mapping[str, Any]]) -> None:
    """Say what drift could not tell, since when, and what would change that."""
    for each in votes[:_MOST_UNKNOWN]:
        cli_output.stdout().print(
            f"Drift unknown, {each['vote']}, since {each['since']:,}: {each['because']}; known "
            f"with: {each['remedy']}",
            soft_wrap=True,
            markup=False,
        )
    if len(votes) > _MOST_UNKNOWN:
        cli_output.stdout().print(f"and {len(votes) - _MOST_UNKNOWN} votes more (--json)")


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
    cli_output.stdout().print(told, soft_wrap=True)


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
    out = cli_output.stdout()
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
