"""How versions that answer in the shadow compare with what was served."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.api.shadow import shadow_log
from flows.config import pipeline
from observability.core import cli_output
from observability.core.paths import Places


def collect(path: Path, home: Path) -> dict[str, Any]:
    """The comparison of each version, over all that the log still has. Raises NoShadowLog."""
    file = pipeline.read(path)
    task = file.pipeline.pipeline.task
    return {
        "pipeline": file.name,
        "metric": "accuracy" if task == "classification" else "mae",
        "shadows": shadow_log.compare(Places(home).pipeline(file.name).shadow, task),
    }


def render(document: dict[str, Any]) -> None:
    """Print the comparison for people."""
    metric = document["metric"]
    differs = "other answers" if metric == "accuracy" else "mean difference"
    cli_output.print_table(
        [
            "version",
            "answers",
            "until",
            differs,
            "labelled",
            f"served {metric}",
            f"shadow {metric}",
        ],
        [
            (
                each["version"],
                each["answers"],
                datetime.fromtimestamp(each["until"], UTC).isoformat(timespec="seconds"),
                each["difference"],
                each["labelled"],
                each["served"],
                each["shadow"],
            )
            for each in document["shadows"]
        ],
    )
