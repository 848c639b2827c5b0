"""What the deployed flows cost: a storm of alarms, a deferral, and learning on a server.

    python -m benchmarks.deployed [--alarms 50] [--records 45000]

Prints one JSON line. `storm`: so many alarms at once for one request; how the runs ended, how many
of them retrained (must be 1), and seconds until the last had ended. `deferral`: processor seconds
of one attempt that finds the gate closed (its whole process), and slots of the worker that are held
while it waits (must be 0). `learning`: seconds and processor seconds of the flow `learn` over the
example, against the same functions without Prefect.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it publishes no types

from observability.history.store import History
from tests import ROOT
from tests.flows.deployed.makers import asked, begin, warm_until
from tests.flows.makers import environment_of, make_pipeline
from tests.flows.prefect_server import POOLS, PrefectServer, Worker, deployed, served, working
from tests.pace import until

EXAMPLE = ROOT / "examples/elec2.toml"
WITHOUT = """
import json, sys, time
from pathlib import Path
from flows.learning import learn_batch
from flows.config import pipeline
from flows.deployed import learn_run
from flows.run.progress import Display
from flows.run.shutdown import Stop
learn_batch.learn = learn_batch.learn.fn
began_s, cpu_s = time.monotonic(), time.process_time()
file = pipeline.read(Path(sys.argv[1]))
learn_run.run_learn(file, Path(sys.argv[2]), "run", Stop(), Display("x"), int(sys.argv[3]), False)
print(json.dumps([time.monotonic() - began_s, time.process_time() - cpu_s]))
"""


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--alarms", type=int, default=50)
    parser.add_argument("--records", type=int, default=45_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with served(place / "server") as server:
            deployed(server, place / "home")
            with working(server, POOLS, place / "home", 2) as workers:
                told = {
                    "storm": _storm(server, _folder(place, "storm"), given.alarms),
                    "deferral": _deferral(server, _folder(place, "warm"), workers[POOLS[1]]),
                    "learning": _learning(
                        server, _folder(place, "learning"), workers[POOLS[0]], given.records
                    ),
                }
    print(json.dumps(told))  # noqa: T201


def _folder(place: Path, name: str) -> Path:
    (place / name).mkdir()
    return place / name


def _storm(server: PrefectServer, folder: Path, alarms: int) -> dict[str, Any]:
    path = make_pipeline(folder, 400)
    asked(path)
    known = {each["id"] for each in server.runs("thermodrift-retrain")}
    payload = {"pipeline": str(path), "home": str(folder / "home"), "request_id": "storm"}
    began_s = time.monotonic()
    for _ in range(alarms):
        # The shipped trigger is the example's; the payload says which pipeline is meant.
        server.emit("thermodrift.drift.detected", "elec2", payload, thermodrift__request="storm")

    def ended() -> list[dict[str, Any]] | None:
        runs = server.runs("thermodrift-retrain")
        mine = [each for each in runs if each["id"] not in known]
        over = [each for each in mine if each["state_type"] in ("COMPLETED", "FAILED", "CRASHED")]
        return over if len(over) >= alarms else None

    names = Counter(each["state_name"] for each in until(ended, "the storm's end", 900))
    seconds = time.monotonic() - began_s
    started = History(folder / "home").ask(
        "SELECT count(*) AS fits FROM request_rows WHERE event = 'started'"
    )
    return {
        "alarms": alarms,
        "endings": dict(names),
        "retrains": started["fits"][0].as_py(),
        "seconds": round(seconds, 1),
    }


def _deferral(server: PrefectServer, folder: Path, worker: Worker) -> dict[str, Any]:
    path = warm_until(folder, 1_200)
    asked(path)
    until(lambda: not _busy(worker), "the end of what ran before")
    before_s = _children_s(worker)
    waiting = begin(server, "retrain", path, backoff={"first_s": 600.0, "most_s": 600.0})
    server.named(waiting, "AwaitingHeadroom")
    until(lambda: not _busy(worker), "the end of its process")
    return {
        "cpu_s_per_attempt": round(_children_s(worker) - before_s, 2),
        "slots_held_while_waiting": _busy(worker),
    }


def _learning(server: PrefectServer, folder: Path, worker: Worker, records: int) -> dict[str, Any]:
    until(lambda: not _busy(worker), "the end of what ran before")
    before_s = _children_s(worker)
    home = str(folder / "home")
    run_id = server.begin(
        "thermodrift-learn/elec2",
        pipeline=str(EXAMPLE),
        home=home,
        limit=records,
        stop_for_drift_check=False,
    )
    done = server.ended(run_id, 600)
    until(lambda: not _busy(worker), "the end of its process")
    alone = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(EXAMPLE), str(folder / "alone"), str(records)],
        cwd=ROOT,
        env=environment_of(),
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, cpu_s = json.loads(alone.stdout)
    flow_s = _at_s(done["end_time"]) - _at_s(done["start_time"])
    return {
        "records": records,
        "flow_s": round(flow_s, 2),
        "flow_process_cpu_s": round(_children_s(worker) - before_s, 2),
        "functions_s": round(seconds, 2),
        "functions_cpu_s": round(cpu_s, 2),
    }


def _at_s(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


def _family(worker: Worker) -> list[psutil.Process]:
    """The worker's own process, and those of its runs."""
    own: list[psutil.Process] = psutil.Process(worker.process.pid).children(recursive=True)
    return own


def _busy(worker: Worker) -> int:
    return len(_family(worker)) - 1


def _children_s(worker: Worker) -> float:
    """Processor seconds of all runs of a worker that have ended."""
    times = _family(worker)[0].cpu_times()
    return float(times.children_user + times.children_system)


if __name__ == "__main__":
    main()
