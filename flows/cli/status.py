"""The status of the pipelines of a home, from the headers of their checkpoints.

No model is unpickled and the history is not opened, so an analyst's open session, a run in progress
or a missing library does not prevent an answer. A known Prefect server is asked whether it
schedules, with a short timeout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.learning import label_report
from flows.retraining import retrain_request
from flows.run.session import AlreadyRunning, locked
from flows.run.state import ServiceTotals
from models.persistence import checkpoint
from observability.core import cli_output
from observability.core.paths import PIPELINE_NAME, PipelinePlaces, Places
from power.policy import gate

_NO_SERVICE = vars(ServiceTotals())


@dataclass(frozen=True)
class ServerStatus:
    """The Prefect server of a home, and whether it schedules."""

    page: str
    up: bool
    """Whether this home is up (`thermodrift up`); else PREFECT_API_URL names the server."""
    pipelines: Sequence[str]
    """Those that are up; they need not have begun."""
    clock: Mapping[str, Any]
    """The decision; ``yes`` is None where the server did not answer."""
    told: str
    """The same as text."""


def collect(home: Path, known: ServerStatus | None = None) -> list[dict[str, Any]]:
    """One document per pipeline of the home, by name, with the state of a known scheduler."""
    folder = Places(home).pipelines
    begun = [each.name for each in folder.iterdir() if each.is_dir()] if folder.is_dir() else []
    names = {*begun, *(known.pipelines if known is not None else ())}
    clock = {} if known is None else {"clock": known.clock}
    return [
        {**_status(Places(home).pipeline(name)), **clock}
        for name in sorted(names)
        if PIPELINE_NAME.fullmatch(name)
    ]


def _status(places: PipelinePlaces) -> dict[str, Any]:
    try:
        known = checkpoint.header(places.checkpoint)
        known["labels"] = label_report.collect(places, known.get("reads_labels", {}))
    except FileNotFoundError:
        return {"pipeline": places.name, "state": "not begun"}
    except OSError as error:
        return {"pipeline": places.name, "state": "unreadable", "because": str(error)}
    try:
        with locked(places, wait_s=0):
            return {**known, "state": "resting"}
    except AlreadyRunning:
        return {**known, "state": "running"}
    except OSError:
        # Another user's home may be readable but not lockable.
        return {**known, "state": "unknown"}


def server(home: Path) -> ServerStatus | None:
    """The server of a home that is up, or that PREFECT_API_URL names; None where there is none."""
    from flows.stack import local_stack, scheduler_watch
    from flows.stack.prefect_client import ServerUnavailable

    found = local_stack.server_of(home)
    if found is None:
        return None
    server, pipelines = found
    up = bool(pipelines)
    try:
        decision = scheduler_watch.check(server)
    except ServerUnavailable as error:
        document = {"yes": None, "because": str(error)}
        return ServerStatus(server.page, up, pipelines, document, str(error))
    told = scheduler_watch.describe(decision, server)
    return ServerStatus(server.page, up, pipelines, decision.model_dump(), told)


def render(found: Sequence[dict[str, Any]], known: ServerStatus | None = None) -> None:
    """Print the documents, and the state of their server."""
    out = cli_output.stdout()
    if known is not None:
        out.print(
            f"{'up' if known.up else 'server'}: {known.page}", highlight=False, soft_wrap=True
        )
        out.print(f"clock: {known.told}", highlight=False, markup=False, soft_wrap=True)
    if not found:
        out.print("nothing has run here yet; `thermodrift init` writes a pipeline to start from")
        return
    cli_output.print_table(
        [
            "pipeline",
            "state",
            "position",
            "served",
            "champion",
            "alarms",
            "retrains",
            "intake",
            "open request",
        ],
        [
            (
                each["pipeline"],
                each["state"],
                each.get("position"),
                each.get("scores", {}).get("served"),
                each.get("champion"),
                each.get("totals", {}).get("alarms"),
                each.get("totals", {}).get("retrains"),
                each.get("intake", {}).get("state"),
                _open_request(each.get("open_request"), each.get("reads_from", "nvml")),
            )
            for each in found
        ],
    )
    for each in found:
        totals = each.get("totals", {})
        if totals.get("deferrals"):
            deferrals = retrain_request.deferrals(totals, each.get("reads_from", "nvml"))
            out.print(
                f"{each['pipeline']}: {deferrals}", markup=False, highlight=False, soft_wrap=True
            )
        if each.get("candidate"):
            told = describe_candidate(each["pipeline"], each["candidate"])
            out.print(told, markup=False, highlight=False, soft_wrap=True)
        intake = each.get("intake")
        if intake is not None and intake["state"] != "well":
            out.print(f"{each['pipeline']}: {describe(intake)}", markup=False, soft_wrap=True)
        if told := label_report.describe_service(each.get("service", _NO_SERVICE)):
            out.print(f"{each['pipeline']}: {told}", markup=False, highlight=False, soft_wrap=True)
        for told in label_report.describe_unlabelled(each):
            out.print(f"{each['pipeline']}: {told}", markup=False, highlight=False, soft_wrap=True)
        if labels := each.get("labels"):
            told = label_report.describe(labels)
            out.print(f"{each['pipeline']}: {told}", markup=False, highlight=False, soft_wrap=True)
        for vote in each.get("unknown_votes", []):
            out.print(
                f"{each['pipeline']}: drift unknown, {vote['vote']}, since {vote['since']:,}: "
                f"{vote['because']}; known with: {vote['remedy']}",
                markup=False,
                soft_wrap=True,
            )
        if each["state"] == "unreadable":
            out.print(each["because"], markup=False, soft_wrap=True)


def describe(intake: Mapping[str, Any]) -> str:
    """The state of a pipeline's intake, and what to do where it is not well."""
    if intake["state"] == "stopped":
        how = f"the run ended before position {intake['stopped_at']:,}"
    elif intake["state"] == "ill":
        how = (
            f"{intake['last_batch_rejected']} of the last {intake['last_batch_records']} records "
            "were rejected"
        )
    else:
        return "its records fit"
    return f"{how}: {intake['because']}. What to do: {intake['remedy']}"


def describe_candidate(pipeline: str, candidate: Mapping[str, Any]) -> str:
    """A version that won and waits for a person's word, since when, with its gain."""
    gain = candidate["gain"]
    won = (
        "no champion serves yet" if gain is None else f"it saves {gain:.3g} of the baseline's loss"
    )
    return (
        f"{pipeline}: version {candidate['version']} has won and waits for a person's word since "
        f"position {candidate['since']:,} ({won}); let it serve: thermodrift models promote "
        f"{pipeline} {candidate['version']}"
    )


def _open_request(request: dict[str, Any] | None, reads_from: str) -> str | None:
    if request is None:
        return None
    cause = request.get("cause")
    why = f", last {gate.describe_cause(cause, reads_from)}" if cause else ""
    return f"a retrain, deferred {request['deferrals']} times{why}: {request['why_deferred']}"
