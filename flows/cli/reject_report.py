"""The rejected records of a pipeline, grouped by reason, from the history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.config import pipeline
from models.persistence import checkpoint
from models.stream import intake_health
from models.stream.source import Reject
from observability.core import cli_output
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from observability.history.store import History

_REASONS = """
SELECT kind, reason, count(*) AS records, min("position") AS first, max("position") AS last,
    arg_min(left(raw, 200), "position") AS raw
FROM rejects
WHERE pipeline = ? AND replayed_at IS NULL
GROUP BY kind, reason
ORDER BY first"""


def collect(path: Path, home: Path) -> dict[str, Any]:
    """What was rejected and not replayed: by reason, the most frequent first.

    Raises BadConfiguration for a pipeline that has not run, HistoryBusy, and what the history
    raises.
    """
    file = pipeline.read(path)
    try:
        known = checkpoint.header(Places(home).pipeline(file.name).checkpoint)
    except FileNotFoundError as error:
        raise BadConfiguration(
            f"pipeline {file.name} has not run in {home} yet: it has no rejects; run it, or name "
            "its home (--home)"
        ) from error
    # Reasons that differ in the value alone are one.
    kinds: dict[str, dict[str, Any]] = {}
    for each in History(home).ask(_REASONS, [file.name]).to_pylist():
        reject = Reject(each["first"], each["kind"], each["reason"], each["raw"])
        (reason,) = intake_health.reasons([reject])
        kind = kinds.setdefault(
            reason.what,
            {
                "kind": reason.kind,
                "reason": reason.what,
                "records": 0,
                "first": each["first"],
                "last": each["last"],
                "column": reason.column,
                "came": reason.example,
                "raw": each["raw"],
                "remedy": intake_health.remedy(reason, file.pipeline.stream.target),
            },
        )
        kind["records"] += each["records"]
        kind["last"] = max(kind["last"], each["last"])
    return {
        "pipeline": file.name,
        "rejected": known["totals"]["rejected"],
        "replayed": known["totals"].get("replayed", 0),
        "can_be_replayed": known.get("intake", {}).get("can_be_replayed", 0),
        "reasons": sorted(kinds.values(), key=lambda kind: -kind["records"]),
    }


def render(document: dict[str, Any], path: Path) -> None:
    """Print them for people."""
    out = cli_output.stdout()
    if not document["reasons"]:
        out.print(f"{document['pipeline']}: the history has no reject that was not replayed")
        return
    cli_output.print_table(
        ["records", "first", "last", "reason", "such as"],
        [
            tuple(each[name] for name in ("records", "first", "last", "reason", "raw"))
            for each in document["reasons"]
        ],
    )
    for remedy in dict.fromkeys(each["remedy"] for each in document["reasons"]):
        out.print(f"What to do: {remedy}", markup=False, soft_wrap=True)
    if document["can_be_replayed"]:
        out.print(
            f"then thermodrift rejects replay {path} reads {document['can_be_replayed']:,} of "
            "them again",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
