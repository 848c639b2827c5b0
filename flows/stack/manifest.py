"""The deployments of a pipeline, as the document that `prefect deploy` reads.

`thermodrift up` deploys it. The commented prefect.yaml at the top of the source is the same
document for the example; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

LIGHT, HEAVY = "thermodrift-light", "thermodrift-heavy"
LIMITS: Mapping[str, int] = {LIGHT: 4, HEAVY: 2}
"""Each pool, and the concurrent runs of its worker on one machine.

The heavy one has two, so that a run which only finds that another one works need not wait for it.
"""
RECORDS = 20_000
"""Most records of one run of `learn`."""


def document(pipelines: Mapping[str, Path], folder: Path, every_s: int = 60) -> dict[str, Any]:
    """The deployments of pipelines (name: file), whose runs work in `folder`.

    `learn` and `watch` start every `every_s` seconds.
    """
    job = {
        "working_dir": str(folder),
        "env": {
            "DO_NOT_TRACK": "1",
            "PREFECT_CLIENT_MAX_RETRIES": "3",
            "PREFECT_API_REQUEST_TIMEOUT": "20",
        },
    }
    light, heavy = ({"name": pool, "job_variables": job} for pool in (LIGHT, HEAVY))
    found: list[dict[str, Any]] = []
    for name, path in pipelines.items():
        for flow, pool, parameters, trigger in (
            ("learn", light, {"limit": RECORDS}, _trigger(name, "drift_check.completed")),
            ("watch", light, {}, _trigger(name, "drift_check.due")),
            ("retrain", heavy, {}, _retrain_trigger(name)),
        ):
            found.append(
                {
                    "name": name,
                    "tags": [name],
                    "entrypoint": f"flows.deployed.entrypoints.{flow}",
                    "work_pool": pool,
                    "parameters": {"pipeline": str(path), **parameters},
                    "triggers": [trigger],
                }
            )
            if flow != "retrain":
                found[-1]["schedules"] = [{"interval": every_s}]
    upkeep = {
        "name": "home",
        "entrypoint": "flows.deployed.entrypoints.upkeep",
        "work_pool": light,
        "schedules": [{"cron": "15 4 * * *"}],
    }
    return {"name": "thermodrift", "pull": [], "deployments": [*found, upkeep]}


def _trigger(name: str, *events: str) -> dict[str, Any]:
    return {
        "type": "event",
        "enabled": True,
        "expect": [f"thermodrift.{event}" for event in events],
        "match": {"prefect.resource.id": f"thermodrift.pipeline.{name}"},
        "parameters": {key: f"{{{{ event.payload.{key} }}}}" for key in ("pipeline", "home")},
    }


def _retrain_trigger(name: str) -> dict[str, Any]:
    """Only events with a request's label start a retrain, which is told the request's id."""
    trigger = _trigger(name, "drift.detected", "retrain.requested")
    trigger["match"]["thermodrift.request"] = "*"
    trigger["parameters"]["request_id"] = "{{ event.payload.request_id }}"
    return trigger
