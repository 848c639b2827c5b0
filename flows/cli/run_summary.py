"""A run's summary as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.cli import status
from flows.config.settings import DEFAULT_HOME
from flows.learning import label_report
from flows.retraining import retrain_request
from observability.core import cli_output

_MEMBERS = {
    "served": "served: the blend of all members",
    "online": "online: the best online member of late",
    "batch": "batch: the champion, retrained on demand",
    "baseline": "baseline: nothing changes",
    "median": "baseline: the recent median",
}

_MOST_UNKNOWN = 3
"""Unknown votes that are shown."""


def render(summary: Mapping[str, Any], file: str) -> None:
    """Print the summary of a run on stdout."""
    run, out = summary["run"], cli_output.stdout()
    out.print()
    out.print(f"[bold]{summary['pipeline']}[/]: {summary['outcome']}, {summary['because']}")
    rate = run["records_per_second"]
    out.print(
        f"{run['records']:,} records in {run['seconds']:.1f} s"
        + (f", {rate:,.0f}/s while learning" if rate else "")
        + f"; {summary['learned']:,} learned and {summary['rejected']:,} rejected in all"
        + (
            f", {summary['unlabelled']:,} without a label only predicted"
            if summary["unlabelled"]
            else ""
        )
    )
    _render_cost(run)
    _render_scores(summary)
    out.print(
        f"{summary['alarms']} drift alarms, {summary['retrains']} retrains, "
        f"{summary['promotions']} promotions"
        + (f" ({summary['reused']} of an archived version)" if summary["reused"] else "")
        + f"; {retrain_request.deferrals(summary, summary['reads_from'])}",
        soft_wrap=True,
    )
    render_unknown_votes(summary["unknown_votes"])
    for note in _notes(summary):
        out.print(note, soft_wrap=True)
    _render_next_commands(summary, file)


def _render_scores(summary: Mapping[str, Any]) -> None:
    """The members, the best first, by accuracy or MAE and by the judged metric."""
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
                _MEMBERS.get(who, who),
                f"{score:.4f}" if metric == "accuracy" else score,
                *([_format_score(summary["judged"][who])] if both else []),
                f"{summary['scored'][who]:>9,}",
            )
            for who, score in ranked
        ],
    )
    calibration = summary["calibration"]
    if calibration is not None and calibration["error"] is not None:
        cli_output.stdout().print(
            f"served probabilities are {calibration['error']:.3f} from the share of hits that they "
            "promise, in the mean"
        )
    if value := summary["champion_value"]:
        cli_output.stdout().print(
            f"without the champion, what is served would lose {value['adds']:+.3g} by {by} in the "
            f"mean (standard error {value['error']:.2g}, over its {value['records']:,} newest "
            "records)"
        )
    if summary["threshold"] is not None:
        cli_output.stdout().print(
            f"the rarer class is served from a probability of {summary['threshold']:.3g} on, which "
            f"suits {by}"
        )


def _notes(summary: Mapping[str, Any]) -> Iterator[str]:
    """What the user should know or do, a line each, for rich."""
    from rich.markup import escape

    if warned := summary["run"]["warnings"]:
        yield (
            f"Libraries warned {warned:,} times while models learned and predicted; the first "
            "warning of each is in decisions (question = 'warnings')"
        )
    if request := summary["open_request"]:
        yield (
            f"[yellow]A retrain request is open[/] since position {request['asked_position']:,} "
            f"({escape(request['because'])}); run again and the gate is asked again"
        )
    if summary["candidate"]:
        told = status.describe_candidate(summary["pipeline"], summary["candidate"])
        yield f"[yellow]A version waits[/]: {escape(told)}"
    if summary["history_trouble"]:
        yield f"[yellow]Trouble with the history[/]: {escape(summary['history_trouble'])}"
    if summary["metrics_trouble"]:
        yield f"[yellow]Trouble with the metrics[/]: {escape(summary['metrics_trouble'])}"
    intake = summary["intake"]
    if intake["state"] != "well":
        yield f"[yellow]The stream no longer fits its schema[/]: {escape(intake['because'])}"
    for notice in intake["notices"]:
        yield (
            f"[yellow]Noticed[/] ({notice['kind']}): {escape(repr(notice['column']))}, from "
            f"position {notice['position']:,} on, in {notice['count']:,} records"
        )
    if told := label_report.describe_service(summary["service"]):
        yield f"Labels that came late: {escape(told)}"
    yield from map(escape, label_report.describe_unlabelled(summary))
    if summary["labels"]:
        yield f"Labels: {escape(label_report.describe(summary['labels']))}"
    if summary["unfinished_bytes"]:
        yield (
            f"[yellow]The last {summary['unfinished_bytes']} bytes of the stream are no whole "
            "record yet[/]; they are read once their line is complete"
        )


def render_unknown_votes(votes: Sequence[Mapping[str, Any]]) -> None:
    """Print the drift votes that are unknown, since when, and what would make them known."""
    for each in votes[:_MOST_UNKNOWN]:
        cli_output.stdout().print(
            f"Drift unknown, {each['vote']}, since {each['since']:,}: {each['because']}; known "
            f"with: {each['remedy']}",
            soft_wrap=True,
            markup=False,
        )
    if len(votes) > _MOST_UNKNOWN:
        cli_output.stdout().print(f"and {len(votes) - _MOST_UNKNOWN} votes more (--json)")


def _format_score(value: float | None) -> str:
    if value is None:
        return "unknown"
    # Errors in the target's unit may be large, other scores are near 1: the width stays the same.
    return f"{value:.5f}" if abs(value) < 100 else f"{value:.5g}"


def _render_cost(run: Mapping[str, Any]) -> None:
    if run["cpu_s"] is None:
        return
    text = f"{run['cpu_s']:.1f} s of processor time"
    if run["fits"]:
        joules, price, carbon_g = run["fit_joules"], run["fit_price"], run["fit_carbon_g"]
        energy = "an unknown amount of energy" if joules is None else f"{joules:,.0f} J"
        count = f"{run['fits']} fit{'' if run['fits'] == 1 else 's'}"
        text += f"; {count} took {run['fit_s']:.1f} s and {energy}"
        known = [
            *([f"{_amount(price)} {run['currency']}"] if price is not None else []),
            *([f"{_amount(carbon_g)} g of CO2"] if carbon_g is not None else []),
        ]
        text += f" ({', '.join(known)})" if known else ""
    cli_output.stdout().print(text, soft_wrap=True)


def _amount(value: float) -> str:
    """Two decimals; a small amount is not rounded to zero."""
    return "under 0.01" if 0 < value < 0.01 else f"{value:,.2f}"


def _render_next_commands(summary: Mapping[str, Any], file: str) -> None:
    out = cli_output.stdout()
    question = (
        "SELECT position, question, yes, because FROM decisions WHERE question <> 'drift' "
        f"AND pipeline = '{summary['pipeline']}' ORDER BY decided_at"
    )
    home = Path(summary["home"])
    here = "thermodrift" if home == DEFAULT_HOME.resolve() else f"thermodrift --home {home}"
    out.print("\nWhere to look next:", style="bold")
    for command, what in (
        (f'{here} history sql "{question}"', "what was decided, and why"),
        (f"{here} history tables", "everything else that can be asked"),
        (f"{here} drift show {file}", "how far the data has drifted"),
        (f"{here} models ls {summary['pipeline']}", "models, and which one serves"),
        *(
            [(f"{here} rejects {file}", "which records were rejected, and why")]
            if summary["rejected"]
            else []
        ),
    ):
        out.print(f"  {command}", soft_wrap=True, highlight=False, markup=False)
        out.print(f"      {what}", style="dim")
