"""What is deployed for a pipeline, as the document that `prefect deploy` reads.

`thermodrift up` deploys it. The commented prefect.yaml at the top of the source is this very
document for the example; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LIGHT, HEAVY = "thermodrift-light", "thermodrift-heavy"
LIMITS: Mapping[str, int] = {LIGHT: 4, HEAVY: 2}
"""Each pool, and the runs that its worker does at once on one machine.

Two in the heavy one, so that a run which only finds that another is at work need not wait for it.
"""
EVERY_S = 60
"""Seconds between two runs of `learn`, and of `watch`."""
RECORDS = 20_000
"""Records that one run of `learn` goes through."""


def document(pipelines: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """The deployments of pipelines (name: file), whose runs work in `folder`."""
    return {
        "name": "thermodrift",
        "pull": [],
        "deployments": [
            *(each for name, path in pipelines.items() for each in _of(name, path, folder)),
            {
                "name": "home",
                "entrypoint": "flows.deployed.entrypoints.upkeep",
                "work_pool": _pool(LIGHT, folder),
                "schedules": [{"cron": "15 4 * * *"}],
            },
        ],
    }


def _of(name: str, path: Path, folder: Path) -> Sequence[dict[str, Any]]:
    mine = {"name": name, "tags": [name]}
    file = {"pipeline": str(path)}
    return (
        {
            **mine,
            "entrypoint": "flows.deployed.entrypoints.learn",
            "work_pool": _pool(LIGHT, folder),
            "parameters": {**file, "limit": RECORDS},
            "schedules": [{"interval": EVERY_S}],
            "triggers": [_trigger(name, ["thermodrift.drift_check.completed"])],
        },
        {
            **mine,
            "entrypoint": "flows.deployed.entrypoints.watch",
            "work_pool": _pool(LIGHT, folder),
            "parameters": file,
            "schedules": [{"interval": EVERY_S}],
            "triggers": [_trigger(name, ["thermodrift.drift_check.due"])],
        },
        {
            **mine,
            "entrypoint": "flows.deployed.entrypoints.retrain",
            "work_pool": _pool(HEAVY, folder),
            "parameters": file,
            "triggers": [
                _trigger(
                    name,
                    ["thermodrift.drift.detected", "thermodrift.retrain.requested"],
                    {"thermodrift.request": "*"},
                    ("request_id",),
                )
            ],
        },
    )


def _pool(name: str, folder: Path) -> dict[str, Any]:
    return {
        "name": name,
        "job_variables": {
            "working_dir": str(folder),
            "env": {
                "DO_NOT_TRACK": "1",
                "PREFECT_CLIENT_MAX_RETRIES": "3",
                "PREFECT_API_REQUEST_TIMEOUT": "20",
            },
        },
    }


def _trigger(
    name: str,
    events: list[str],
    labels: Mapping[str, str] | None = None,
    told: Sequence[str] = (),
) -> dict[str, Any]:
    return {
        "type": "event",
        "enabled": True,
        "expect": events,
        "match": {"prefect.resource.id": f"thermodrift.pipeline.{name}", **(labels or {})},
        "parameters": {
            key: f"{{{{ event.payload.{key} }}}}" for key in ("pipeline", *told, "home")
        },
    }
