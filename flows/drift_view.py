"""How far the world has moved, on demand: the reading, the decision, and evidently's page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from flows import pipeline, watch
from flows.progress import Display
from flows.session import opened
from flows.stopping import Stop
from observability import console, drift
from observability.errors import ThermodriftError
from observability.places import Places


class NothingToCompare(ThermodriftError, LookupError):
    """There is no champion, hence no reference."""


def of(pipeline_file: Path, home: Path, *, page: bool) -> dict[str, Any]:
    """Measure and judge as the pipeline would at this moment; it decides and learns nothing.

    Raises NothingToCompare while there is no champion, AlreadyRunning while it runs.
    """
    file = pipeline.read(pipeline_file)
    if not Places(home).pipeline(file.name).checkpoint.exists():
        raise NothingToCompare(
            f"pipeline {file.name} has not run in {home} yet; run it, or name its home (--home)"
        )
    with Display(file.name) as display, opened(file, home, Stop(), display) as session:
        reading = watch.measure(session)
        if reading is None:
            raise NothingToCompare(
                f"pipeline {file.name} has no champion yet, so there is no reference to compare "
                "with; run it until the first retrain"
            )
        decision = drift.judge(reading, file.pipeline.drift)
        return {
            "pipeline": file.name,
            "position": session.state.position,
            "champion": session.state.champion,
            "drift": decision.yes,
            "because": decision.because,
            "reading": reading.model_dump(),
            "thresholds": {
                kind: file.pipeline.drift.threshold(kind) for kind in ("number", "category")
            },
            "page": watch.page(session) if page else None,
        }


def tell(document: dict[str, Any]) -> None:
    """Print the comparison for people."""
    verdict = "drift" if document["drift"] else "no alarm"
    out = console.stdout()
    out.print(f"[bold]{document['pipeline']}[/] at {document['position']:,}: {verdict}")
    out.print(document["because"], markup=False)
    console.print_table(
        ["column", "role", "method", "score", "threshold"],
        [
            (
                each["name"],
                each["role"],
                each["method"],
                _known(each["score"]) or each["unknown_because"],
                document["thresholds"][each["kind"]],
            )
            for each in document["reading"]["columns"]
        ],
    )
    if document["page"]:
        out.print(f"page: {document['page']}", soft_wrap=True, highlight=False, markup=False)


def _known(score: float | None) -> float | None:
    return None if score is None or math.isnan(score) else score
