"""From the event to the first line of the retrain that it starts: ours against Prefect's defaults.

    python -m benchmarks.trigger [--times 10]

Starts a Prefect server, deploys prefect.yaml, and tells it of an event so many times, with a worker
in our settings and with one in Prefect's own, turn and turn about. Prints one JSON line: medians,
fastest and slowest, in seconds; `reaction_s` is to the moment when the run exists, `start_s` from
there to Running, which Prefect says just before the flow's first line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests import ROOT
from tests.flows.prefect_server import PrefectServer, deployed, served, working
from tests.pace import until

HEAVY = "thermodrift-heavy"
DEFAULTS = {"PREFECT_WORKER_QUERY_SECONDS": "10", "PREFECT_WORKER_PREFETCH_SECONDS": "10"}
SETTINGS: dict[str, dict[str, str]] = {"shipped": {}, "defaults": DEFAULTS}


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10)
    times = parser.parse_args().times
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SETTINGS}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        with served(Path(folder) / "server") as server:
            deployed(server, home)
            for name, settings in SETTINGS.items():
                with working(server, [HEAVY], home, 4, **settings):
                    # The first run of a worker is not the common one.
                    _one(server, home)
                    found[name] = [_one(server, home) for _ in range(times)]
    print(json.dumps({name: _told(each) for name, each in found.items()}))  # noqa: T201


def _one(server: PrefectServer, home: Path) -> dict[str, float]:
    """Seconds from one event to the run, and to its start."""
    known = {run["id"] for run in server.runs("thermodrift-retrain")}
    began_s = time.time()
    example = str(ROOT / "examples/elec2.toml")
    told = {"pipeline": example, "home": str(home), "request_id": "benchmark"}
    server.emit("thermodrift.retrain.requested", "elec2", told, thermodrift__request="benchmark")

    def started() -> dict[str, Any] | None:
        runs = server.runs("thermodrift-retrain")
        new = [run for run in runs if run["id"] not in known and run["start_time"]]
        return new[0] if new else None

    run = until(started, "the run")
    created_s, running_s = _seconds(run["created"]), _seconds(run["start_time"])
    server.ended(run["id"])
    return {
        "total_s": running_s - began_s,
        "reaction_s": created_s - began_s,
        "start_s": running_s - created_s,
    }


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).astimezone(UTC).timestamp()


def _told(found: Sequence[dict[str, float]]) -> dict[str, Any]:
    return {
        key: {
            "median": round(statistics.median(each[key] for each in found), 2),
            "fastest": round(min(each[key] for each in found), 2),
            "slowest": round(max(each[key] for each in found), 2),
        }
        for key in ("total_s", "reaction_s", "start_s")
    } | {"times": len(found)}


if __name__ == "__main__":
    main()
