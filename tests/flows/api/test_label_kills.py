"""Service and learner killed again and again while labels come: each example is learned once."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from flows.run import bootstrap
from flows.run.state import PipelineState
from models.core.record_schema import Features
from models.inbox.inbox import open_reader
from models.persistence.signing import SigningKey
from models.prediction_log import prediction_log
from tests import ROOT
from tests.flows.api.makers import WAIT_S, Learned, make_learned
from tests.flows.api.test_server import serving
from tests.flows.makers import environment_of, make_records
from tests.pace import until

ASKED, TOGETHER = 240, 6
SERVICE_FAULTS = ("inbox.after_commit=kill:9", "inbox.inside_commit=kill:20", "")
"""Each start of the service is armed with the next one; the last one runs to the end."""
LEARNER_FAULTS = (
    "loop.after_predictions=kill:1",
    "loop.after_checkpoint=kill:2",
    "atomic_file.before_rename=kill:4",
    "loop.after_history=kill:2",
)


class Client:
    """Asks and labels through services that die; what is not acknowledged it sends again."""

    def __init__(self, learned: Learned) -> None:
        self._learned = learned
        self._stack = ExitStack()
        self._faults = list(SERVICE_FAULTS)
        self._service: httpx.Client | None = None
        self.process: subprocess.Popen[str] | None = None
        self.killed = 0
        self.positions: dict[str, int] = {}
        """Acknowledged positions of joined examples, by id."""

    def send(self, route: str, body: dict[str, Any]) -> httpx.Response:
        """Send until it is answered."""
        while True:
            if self._service is None:
                self._start()
            assert self._service is not None
            try:
                return self._service.post(route, json=body)
            except httpx.HTTPError:
                assert self.process is not None
                assert -signal.SIGKILL == self.process.wait(WAIT_S)
                self.killed += 1
                self.close()

    def label(self, truths: list[tuple[str, Any]]) -> None:
        """Label, and keep what was acknowledged."""
        labels = [{"id": id_, "label": each} for id_, each in truths]
        answer = self.send("/label", {"labels": labels})
        assert 200 == answer.status_code, answer.text
        for each in answer.json()["outcomes"]:
            assert each["outcome"] in {"joined", "duplicate"}
            if each["outcome"] == "joined":
                assert each["id"] not in self.positions
            self.positions[each["id"]] = each["position"]

    def close(self) -> None:
        """End the service that runs."""
        self._stack.close()
        self._service = None

    def _start(self) -> None:
        faults = self._faults.pop(0) if self._faults else ""
        self.process, said = self._stack.enter_context(
            serving(self._learned, THERMODRIFT_FAULTS=faults)
        )
        self._service = self._stack.enter_context(
            httpx.Client(base_url=said["address"], timeout=WAIT_S, trust_env=False)
        )


def traffic(client: Client, records: list[dict[str, Any]], first: threading.Event) -> None:
    """Ask in groups, and label each late: in another order, and every fifth a second time."""
    chance = random.Random(7)
    late: list[tuple[str, Any]] = []
    for start in range(0, len(records), TOGETHER):
        group = records[start : start + TOGETHER]
        ids = [f"r{start + index}" for index in range(len(group))]
        rows = [{key: each[key] for key in ("load", "site")} for each in group]
        asked = client.send("/predict", {"records": rows, "ids": ids})
        # 409: it was recorded, and the service died before it said so.
        assert asked.status_code in {200, 409}, asked.text
        late += [(id_, each["label"]) for id_, each in zip(ids, group, strict=True)]
        chance.shuffle(late)
        ready, late = late[: len(late) // 2], late[len(late) // 2 :]
        client.label(ready)
        client.label(ready[::5] or ready)
        if start >= len(records) // 3:
            first.set()
    client.label(late)


def run(learned: Learned, faults: str) -> int:
    """A whole run in a process of its own; returns how it ended."""
    words = ["--home", str(learned.home), "run", str(learned.file), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "thermodrift", *words],
        cwd=ROOT,
        env=environment_of(THERMODRIFT_FAULTS=faults),
        capture_output=True,
        text=True,
    )
    assert faults or 0 == done.returncode, done.stderr
    return done.returncode


def state_of(learned: Learned) -> PipelineState:
    """What a pipeline knows."""
    key = SigningKey.open(learned.places.key)
    return bootstrap.load(learned.places.pipeline("small"), key)


def log_of(learned: Learned) -> list[dict[str, Any]]:
    """All that was logged of examples."""
    folder = learned.places.pipeline("small").predictions
    rows: list[dict[str, Any]] = prediction_log.read(folder, 600, 10_000).to_pylist()
    return rows


@contextmanager
def closing(client: Client) -> Iterator[Client]:
    """The client, which leaves no service behind."""
    try:
        yield client
    finally:
        client.close()


@pytest.mark.slow
def test_killed_on_both_sides_each_label_is_learned_once(tmp_path: Path) -> None:
    """What was acknowledged, what joined and what was learned are the same, and in one order.

    The models are those of a run that nothing disturbed, which reads the same inbox.
    """
    learned = make_learned(
        tmp_path / "own", None, records=600, stream={"then": "service:small", "batch": 50}
    )
    undisturbed = learned.copy(tmp_path / "undisturbed")
    records = make_records(ASKED, seed=21)
    ended: list[int] = []
    first = threading.Event()
    with ThreadPoolExecutor(1) as others, closing(Client(learned)) as client:
        sending = others.submit(traffic, client, records, first)
        until(lambda: first.is_set() or sending.done(), "the first labels")
        for faults in LEARNER_FAULTS:
            ended.append(run(learned, faults))
        sending.result()
        # Once more from outside, as a power cut would.
        assert client.process is not None
        client.process.kill()
        client.process.wait(WAIT_S)
        client.close()
        client.label([(f"r{index}", each["label"]) for index, each in enumerate(records)])
    run(learned, "")
    assert client.killed >= 2
    assert [-signal.SIGKILL] * len(ended) == ended
    with open_reader(learned.places.pipeline("small").inbox) as reader:
        examples = reader.joined(0, 10_000)
    assert {each.id: each.position for each in examples} == client.positions
    assert {f"r{index}" for index in range(ASKED)} == client.positions.keys()
    truth = {f"r{index}": each["label"] for index, each in enumerate(records)}
    log = log_of(learned)
    assert [600 + each.position for each in examples] == [row["position"] for row in log]
    assert [truth[each.id] for each in examples] == [row["label"] for row in log]
    for each, row in zip(examples, log, strict=True):
        assert each.answers["served"]["value"] == row["served"]
        assert each.versions["champion"] == row["model_version"]
    state = state_of(learned)
    assert (600 + ASKED, 600 + ASKED) == (state.position, state.totals.learned)
    assert ASKED == state.service.scored
    # A service that was killed leaves its newest commits in the log beside the file.
    for left in learned.places.pipeline("small").root.glob("inbox.sqlite*"):
        shutil.copy(left, undisturbed.places.pipeline("small").root / left.name)
    undisturbed.learn()
    other = state_of(undisturbed)
    assert vars(other.service) == vars(state.service)
    assert other.totals.learned == state.totals.learned
    assert [vars(each) for each in other.learner.tallies.values()] == [
        vars(each) for each in state.learner.tallies.values()
    ]
    assert np.allclose(other.learner.blend.weights, state.learner.blend.weights, rtol=1e-9)
    rows: list[Features] = [{"load": index / 10, "site": "a"} for index in range(10)]
    for name, member in state.learner.online.members.items():
        same = other.learner.online.members[name]
        assert [same.predict(row) for row in rows] == [member.predict(row) for row in rows]
