"""Kill workers, runs and the server of deployed flows at random moments; count what is lost.

    python -m benchmarks.kills_served [--kills 20] [--records 4000] [--seed 0]

A small stream is learned, looked at and retrained on by the shipped deployments, on a real server
with real workers. Each kill is a SIGKILL of a worker with all that it started, of the process of
one run, or of the server; what was killed is started again, a run is not. Afterwards everything is
let go to its end. Prints one JSON line: the kills by whom they met, and what must be 0: records
missing from the prediction log or in it twice, requests that were not settled in the end, models
that do not verify.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it publishes no types

from models.prediction_log import prediction_log
from observability.core.paths import Places
from observability.history.store import History
from tests.flows.deployed.makers import begin
from tests.flows.makers import NAME, make_pipeline, thermodrift
from tests.flows.prefect_server import POOLS, PrefectServer, Worker, deployed, served
from tests.pace import until

VICTIMS = ("worker", "run", "server")


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--records", type=int, default=4_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), asked.kills, asked.records, asked.seed)))  # noqa: T201 - the figure is the output


def measure(folder: Path, kills: int, records: int, seed: int) -> dict[str, Any]:
    """Kill so often while the pipeline works, let it end, and count."""
    chance = random.Random(seed)
    path = make_pipeline(folder, records)
    with served(folder / "server") as server:
        deployed(server, folder / "home")
        box = _Box(server, path, folder / "home")
        try:
            met = Counter(box.killed(chance) for _ in range(kills))
            box.finish(records)
        finally:
            box.stop()
    return {"benchmark": "kills_served", "kills": kills, "met": met, **_lost(path, records)}


class _Box:
    """A server's workers, and the work that they are given."""

    def __init__(self, server: PrefectServer, path: Path, home: Path) -> None:
        self._server, self._path, self._home = server, path, home
        self._workers = {pool: Worker(server, pool, home, 4) for pool in POOLS}

    def stop(self) -> None:
        """End the workers."""
        for each in self._workers.values():
            each.stop()

    def killed(self, chance: random.Random) -> str:
        """Give it work, and kill somebody amid it."""
        for flow in chance.sample(("learn", "watch", "retrain"), 2):
            self._ask_for(flow)
        time.sleep(chance.uniform(0.5, 6.0))
        victim = chance.choice(VICTIMS)
        if victim == "server":
            self._server.kill()
            self._server.start()
            return victim
        if victim == "run":
            return victim if self._kill_a_run(chance) else "nobody"
        pool = chance.choice(POOLS)
        self._workers[pool].kill()
        self._workers[pool] = Worker(self._server, pool, self._home, 4)
        return victim

    def finish(self, records: int) -> None:
        """Learn to the end, look, and retrain until nothing is open."""

        def over() -> bool:
            for flow in ("learn", "watch", "retrain"):
                self._server.ended(self._ask_for(flow, limit=500), 240)
            status = self._status()
            return status.get("position") == records and status.get("open_request") is None

        until(over, "the end of all work", 900)

    def _ask_for(self, flow: str, limit: int = 200) -> str:
        knobs: dict[str, Any] = {"limit": limit} if flow == "learn" else {}
        return begin(self._server, flow, self._path, **knobs)

    def _kill_a_run(self, chance: random.Random) -> bool:
        """Kill the process of one run, whatever it is at: importing, learning, fitting, ending."""
        until_s = time.monotonic() + 10
        while not (runs := self._runs()):
            if time.monotonic() > until_s:
                return False
            time.sleep(0.05)
        with suppress(psutil.NoSuchProcess):
            chance.choice(runs).kill()
            return True
        return False

    def _runs(self) -> list[psutil.Process]:
        parents = [each.process.pid for each in self._workers.values()]
        return [
            process
            for parent in parents
            for process in psutil.Process(parent).children(recursive=True)
            # The worker itself is on a tether, and is the one child of that.
            if process.ppid() not in parents
        ]

    def _status(self) -> dict[str, Any]:
        done = thermodrift("--home", self._home, "status", "--json")
        found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        return found[0] if found else {}


def _lost(path: Path, records: int) -> dict[str, Any]:
    home = path.parent / "home"
    log = prediction_log.read(Places(home).pipeline(NAME).predictions, 0, records)
    logged = Counter(log["position"].to_pylist())
    states = Counter(
        row["state"] for row in History(home).ask("SELECT state FROM requests").to_pylist()
    )
    verified = thermodrift("--home", home, "models", "verify", NAME)
    return {
        "records": records,
        "records_lost": records - len(logged),
        "records_twice": sum(count - 1 for count in logged.values()),
        "requests": states,
        "requests_lost": sum(states[name] for name in ("requested", "deferred", "started")),
        "models_half_written": int(verified.returncode != 0),
    }


if __name__ == "__main__":
    main()
