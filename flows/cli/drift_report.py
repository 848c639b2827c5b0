"""A drift check on demand: the reading, the decision, and evidently's page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from flows.cli import run_summary
from flows.config import pipeline
from flows.learning import drift_check
from flows.learning.drift_check import Windows
from flows.run.progress import Display
from flows.run.session import opened
from flows.run.shutdown import Stop
from flows.run.unit_of_work import UnitOfWork
from observability.core import cli_output
from observability.core.errors import ThermodriftError
from observability.core.paths import Places
from observability.drift import drift


class NothingToCompare(ThermodriftError, LookupError):
    """There is no champion, and so no reference."""


def collect(
    pipeline_file: Path, home: Path, *, page: bool, at: int | None = None
) -> dict[str, Any]:
    """Measure and judge as the pipeline would now; the pipeline itself is not changed.

    `at` is a position of the past. What the tests of errors found then is in the history, and not
    repeated. Raises NothingToCompare where there was no champion, or where the rows are gone, and
    AlreadyRunning while the pipeline runs.
    """
    file = pipeline.read(pipeline_file)
    if not Places(home).pipeline(file.name).checkpoint.exists():
        raise NothingToCompare(
            f"pipeline {file.name} has not run in {home} yet; run it, or name its home (--home)"
        )
    with Display(file.name) as display, opened(file, home, Stop(), display) as work:
        windows = _windows(work, at)
        reading = drift_check.measure(work, windows)
        decision = drift.judge(reading, file.pipeline.drift)
        known = work.state.unknown
        return {
            "pipeline": file.name,
            "position": windows.position,
            "champion": windows.champion.version,
            "drift": decision.yes,
            "because": decision.because,
            "reading": reading.model_dump(),
            "unknown_votes": [
                {
                    "since": known[each.vote].since if each.vote in known else windows.position,
                    **each.model_dump(),
                }
                for each in drift.unknown_votes(reading, file.pipeline.drift)
            ],
            "kinds": decision.facts["kinds"],
            "nature": decision.facts["nature"],
            "change_estimate": decision.facts["change_estimate"],
            "thresholds": {
                each.name: drift.threshold_of(each, file.pipeline.drift) for each in reading.columns
            },
            "page": drift_check.page(work, windows, reading) if page else None,
        }


def _windows(work: UnitOfWork, at: int | None) -> Windows:
    """What is compared. Raises NothingToCompare."""
    name, position = work.run.name, work.state.position
    if at is not None and at > position:
        raise NothingToCompare(f"pipeline {name} is at position {position}, and not at {at} yet")
    try:
        windows = drift_check.read_windows(work, at)
    except FileNotFoundError as error:
        raise NothingToCompare(f"pipeline {name}, position {at}: {error}") from error
    if windows is None:
        when = "yet" if at is None else f"before position {at}"
        raise NothingToCompare(
            f"pipeline {name} has no champion {when}, so there is no reference to compare "
            "with; run it until the first retrain"
        )
    return windows


def render(document: dict[str, Any]) -> None:
    """Print the comparison for people."""
    verdict = "drift" if document["drift"] else "no alarm"
    out = cli_output.stdout()
    out.print(f"[bold]{document['pipeline']}[/] at {document['position']:,}: {verdict}")
    out.print(document["because"], markup=False)
    cli_output.print_table(
        ["column", "role", "method", "score", "threshold"],
        [
            (
                each["name"],
                each["role"],
                each["method"],
                each["unknown_because"]
                if each["score"] is None or math.isnan(each["score"])
                else each["score"],
                document["thresholds"][each["name"]],
            )
            for each in document["reading"]["columns"]
        ],
    )
    run_summary.render_unknown_votes(document["unknown_votes"])
    if document["page"]:
        out.print(f"page: {document['page']}", soft_wrap=True, highlight=False, markup=False)
