"""Kill a service and its learner while labels come late; count what was learned twice, or never.

    python -m benchmarks.late_labels [--predictions 300000] [--kills 10] [--seed 0]

A pipeline has learned a small file, and goes on with what its service is asked: real `thermodrift
serve` and `thermodrift run` processes, in turn killed by SIGKILL at random moments, so many times
each. The client asks in groups under ids of its own, and repeats what was not acknowledged. Each
label comes late, in another order, and every tenth a second time. Afterwards one run goes to the
end. Prints one JSON line: the kills, the rates, and what must be 0: labels that were acknowledged
and are not joined, examples that were learned twice, or never, or with another label.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from models.inbox.inbox import open_reader
from models.inbox.records import Joined
from models.prediction_log import prediction_log
from observability.core.paths import Places

ROOT = Path(__file__).resolve().parent.parent
PAST = 2_000
TOGETHER = 250
"""Records of one request."""
LATE = 5_000
"""Predictions that wait for their label, in the mean."""
PIPELINE = """
[pipeline]
name = "late"
task = "classification"
[stream]
path = "past.jsonl"
target = "y"
then = "service:late"
[gate]
source = "off"
[online]
members = ["linear", "linear_fast"]
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "THERMODRIFT_NO_COLOR": "1"}


def made(chance: random.Random) -> dict[str, Any]:
    """One record: two numbers, a category, and a label that depends on them."""
    x, z = chance.gauss(0, 1), chance.gauss(0, 1)
    site = chance.choice("abc")
    return {"x": x, "z": z, "site": site, "y": "high" if x + z + (site == "a") > 0 else "low"}


class Killed:
    """One command that is started again and again, and killed at random moments."""

    def __init__(self, words: list[str], kills: int, chance: random.Random) -> None:
        self.words = [sys.executable, "-m", "thermodrift", *words]
        self.left, self.kills = kills, 0
        self.chance = chance

    def start(self, **options: Any) -> subprocess.Popen[str]:
        """A new process of it."""
        return subprocess.Popen(
            self.words, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.DEVNULL, text=True, **options
        )

    def kill(self, process: subprocess.Popen[str]) -> None:
        """End it as a power cut would."""
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.left, self.kills = self.left - 1, self.kills + 1


class Service:
    """The service, which a thread kills while it is asked."""

    def __init__(self, command: Killed, every_s: float) -> None:
        self.command, self.every_s = command, every_s
        self.process: subprocess.Popen[str] | None = None
        self.client: httpx.Client | None = None
        self.again = 0
        """Requests that had to be repeated."""
        self._answers, self._end = threading.Event(), threading.Event()
        self._killer = threading.Thread(target=self._kill)
        self._killer.start()

    def send(self, route: str, body: dict[str, Any]) -> Any:
        """Send until it is answered."""
        while True:
            try:
                if self.client is None:
                    self._start()
                assert self.client is not None
                answer = self.client.post(route, json=body)
                # 409: it was recorded under these ids by a bundle that is gone, and not answered.
                if answer.status_code in {200, 409}:
                    return answer.json()
                if answer.status_code not in {429, 503}:
                    raise RuntimeError(f"{route}: {answer.status_code} {answer.text[:300]}")
            except (httpx.HTTPError, json.JSONDecodeError):
                self.client = None
            self.again += 1

    def close(self) -> None:
        """End the thread and the service."""
        self._end.set()
        self._killer.join()
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _start(self) -> None:
        if self.process is not None:
            self.process.wait()
        self.process = self.command.start(stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line and self.process.wait() != -signal.SIGKILL:
            raise RuntimeError(f"the service ended with {self.process.returncode}")
        said = json.loads(line)
        self.client = httpx.Client(base_url=said["address"], timeout=120.0, trust_env=False)
        self._answers.set()

    def _kill(self) -> None:
        while self.command.left and not self._end.is_set():
            # Not while it starts: that would kill a service that has nothing to lose.
            if not self._answers.wait(1.0):
                continue
            self._end.wait(self.every_s * self.command.chance.uniform(0.5, 1.5))
            if self.process is not None and self._answers.is_set():
                self._answers.clear()
                self.command.kill(self.process)


def ask(
    service: Service, records: int, chance: random.Random, truth: dict[str, str]
) -> Counter[str]:
    """Ask and label everything; returns how often each outcome was answered."""
    outcomes: Counter[str] = Counter()
    waiting: list[str] = []

    def label(ids: list[str]) -> None:
        labels = [{"id": id_, "label": truth[id_]} for id_ in ids]
        for start in range(0, len(labels), TOGETHER):
            found = service.send("/label", {"labels": labels[start : start + TOGETHER]})
            outcomes.update(each["outcome"] for each in found["outcomes"])

    for first in range(0, records, TOGETHER):
        rows = [made(chance) for _ in range(min(TOGETHER, records - first))]
        ids = [f"p{first + index}" for index in range(len(rows))]
        truth.update({id_: row.pop("y") for id_, row in zip(ids, rows, strict=True)})
        service.send("/predict", {"records": rows, "ids": ids})
        waiting += ids
        if len(waiting) > LATE:
            chance.shuffle(waiting)
            ready, waiting = waiting[:TOGETHER], waiting[TOGETHER:]
            label([*ready, *ready[::10]])
    label(waiting)
    return outcomes


def learn(command: Killed, over: threading.Event, every_s: float) -> None:
    """Run the learner again and again until the client is done, killing it at random moments."""
    while not over.is_set() or command.left:
        process = command.start(stdout=subprocess.DEVNULL)
        try:
            process.wait(every_s * command.chance.uniform(0.5, 1.5) if command.left else None)
        except subprocess.TimeoutExpired:
            command.kill(process)


def measure(folder: Path, predictions: int, kills: int, seed: int) -> dict[str, Any]:
    """All of it; see the module's docstring."""
    chance = random.Random(seed)
    with (folder / "past.jsonl").open("w") as past:
        past.writelines(json.dumps(made(chance)) + "\n" for _ in range(PAST))
    (folder / "late.toml").write_text(PIPELINE)
    home, file = str(folder / "home"), str(folder / "late.toml")
    words = ["--home", home, "run", file, "--json"]
    Killed(words, 0, chance).start(stdout=subprocess.DEVNULL).wait()
    # Moments between kills, so that all of them fit into the time that asking takes.
    every_s = max(predictions / 3_000 / max(kills, 1), 6.0)
    learner = Killed(words, kills, random.Random(seed + 1))
    serve = ["--home", home, "serve", file, "--port", "0", "--json"]
    service = Service(Killed(serve, kills, random.Random(seed + 2)), every_s)
    over, truth = threading.Event(), dict[str, str]()
    learning = threading.Thread(target=learn, args=(learner, over, every_s))
    began_s = time.monotonic()
    learning.start()
    try:
        outcomes = ask(service, predictions, chance, truth)
    finally:
        over.set()
        service.close()
        learning.join()
    asked_s = time.monotonic() - began_s
    last = learner.start(stdout=subprocess.PIPE)
    told = json.loads(last.communicate()[0])
    return {
        "predictions": predictions,
        "asked_and_labelled_s": round(asked_s, 1),
        "kills_of_the_service": service.command.kills,
        "kills_of_the_learner": learner.kills,
        "requests_repeated": service.again,
        "outcomes": dict(outcomes),
        **compared(Places(Path(home)), truth, told),
    }


def compared(home: Places, truth: dict[str, str], told: dict[str, Any]) -> dict[str, int]:
    """What must be 0, and what was learned."""
    places = home.pipeline("late")
    examples: list[Joined] = []
    with open_reader(places.inbox) as reader:
        # One read ends after some megabytes.
        while more := reader.joined(len(examples), 10_000):
            examples += more
    rows = prediction_log.read(places.predictions, PAST, PAST + len(examples) + 1)
    logged = Counter(rows["position"].to_pylist())
    labels = dict(zip(rows["position"].to_pylist(), rows["label"].to_pylist(), strict=True))
    expected = {PAST + each.position: truth[each.id] for each in examples}
    return {
        "learned": told["position"] - PAST,
        "not_joined": len(truth.keys() - {each.id for each in examples}),
        "joined_twice": len(examples) - len({each.id for each in examples}),
        "learned_twice": sum(count - 1 for count in logged.values()),
        "never_learned": len(expected.keys() - logged.keys()),
        "another_label": sum(labels.get(place) != label for place, label in expected.items()),
    }


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictions", type=int, default=300_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), asked.predictions, asked.kills, asked.seed)
    sys.stdout.write(json.dumps({"benchmark": "late_labels", **found}) + "\n")


if __name__ == "__main__":
    main()
