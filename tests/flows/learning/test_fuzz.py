"""Ten thousand fuzzed records through the whole loop: each is learned or rejected, whole.

Retrains, promotions and drift looks happen on the way, on whatever the damage left. The loop is
driven in this process, without Prefect, which has no part in it.
"""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from random import Random
from typing import Any

import pytest

from flows.run.state import PipelineState
from models.core.record_schema import Task
from models.online.learner import Learner
from models.persistence import checkpoint
from models.persistence.signing import SigningKey
from models.prediction_log import prediction_log
from models.stream.source import Cursor, Stream, StreamOptions
from observability.core.paths import Places
from observability.history.store import History
from tests.flows.makers import NAME, make_pipeline
from tests.flows.plain_loop import Run
from tests.models.stream.mangle import mangle

RECORDS = 10_000
SHARE = 0.3
"""Of the records are damaged, the head apart, from which the schema is inferred."""
HEAD = 1_000
MEMBERS = ("online", "batch", "baseline", "served")

CALMER: dict[str, Any] = {
    # Three batches in a row of which so much is damaged would end the run.
    "stream": {"batch": 500, "rejected_share": 1},
    "drift": {"every": 2_000, "window": 1_000},
    "worth": {"min_rows": 400, "cooldown_records": 2_000},
}
NO_RETRAIN: dict[str, Any] = {"worth": {"min_rows": 10_000_000}}


def fuzz(path: Path, seed: int) -> None:
    """Damage a share of the lines of a stream, its head apart."""
    chance = Random(seed)
    lines = path.read_bytes().splitlines()
    path.write_bytes(
        b"".join(
            (mangle(line, chance) if place > HEAD and chance.random() < SHARE else line) + b"\n"
            for place, line in enumerate(lines)
        )
    )


def logged(home: Path) -> dict[str, list[Any]]:
    """The prediction log, column by column."""
    found: dict[str, list[Any]] = prediction_log.read(
        Places(home).pipeline(NAME).predictions, 0, 10**9
    ).to_pydict()
    return found


def rejects(home: Path) -> list[dict[str, Any]]:
    """The rejects that history tells of, in their order."""
    found: list[dict[str, Any]] = (
        History(home).ask("SELECT position, reason, raw FROM rejects ORDER BY position").to_pylist()
    )
    return found


def learner_of(home: Path) -> Learner:
    """What the checkpoint holds of the models."""
    places = Places(home)
    state = checkpoint.load(places.pipeline(NAME).checkpoint, SigningKey.open(places.key))
    assert isinstance(state, PipelineState)
    return state.learner


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_ten_thousand_fuzzed_records_are_each_learned_or_rejected(
    run: Run, tmp_path: Path, task: Task, ending: str
) -> None:
    """Nothing is unhandled, lost or doubled, and no answer is missing once there is one.

    Damage may leave a label blank: such a record is predicted, and not learned.
    """
    tables: dict[str, Any] = {**CALMER, "stream": {**CALMER["stream"], "path": f"stream.{ending}"}}
    # Some damage joins lines to one record, some splits them.
    path = make_pipeline(tmp_path, RECORDS + 1_000, task, **tables)
    fuzz(tmp_path / f"stream.{ending}", seed=11)
    told = run(path, tmp_path / "home")
    assert told["records"] >= RECORDS
    parts = told["learned"] + told["unlabelled"] + told["rejected"]
    assert told["records"] == parts == told["position"]
    assert min(told["learned"] / RECORDS, told["rejected"] / (RECORDS * SHARE)) > 0.3
    assert told["retrains"] > 1
    log, refused = logged(tmp_path / "home"), rejects(tmp_path / "home")
    fitting = told["learned"] + told["unlabelled"]
    assert (fitting, told["rejected"]) == (len(log["position"]), len(refused))
    places = sorted([*log["position"], *(each["position"] for each in refused)])
    assert list(range(told["records"])) == places
    assert [] == [each for each in refused if not (each["reason"] and each["raw"])]
    assert None not in log["served"][1:]
    assert told["unlabelled"] == log["label"].count(None)
    for name in (*MEMBERS, "label", "served_probability"):
        assert all(math.isfinite(each) for each in log[name] if isinstance(each, float))


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_rejects_leave_not_a_byte_of_the_models_changed(
    run: Run, tmp_path: Path, task: Task, ending: str
) -> None:
    """Hundreds of rejects after a few hundred records: the learner pickles to the same bytes."""
    home, stream = tmp_path / "home", tmp_path / f"stream.{ending}"
    path = make_pipeline(
        tmp_path, 600, task, stream={"path": stream.name, "rejected_share": 1}, **NO_RETRAIN
    )
    run(path, home)
    before = pickle.dumps(pickle.loads(pickle.dumps(learner_of(home))))
    bad = _only_rejects(stream, task, count=300)
    with stream.open("ab") as file:
        file.write(b"".join(bad))
    told = run(path, home)
    assert (600, 300) == (told["learned"], told["rejected"])
    assert before == pickle.dumps(learner_of(home))


def _only_rejects(stream: Path, task: Task, count: int) -> list[bytes]:
    """Damaged lines of a stream, each of which is one record that is rejected."""
    chance = Random(5)
    options = StreamOptions(path=stream.name, target="label")
    schema = Stream(stream, task, options).schema
    lines = stream.read_bytes().splitlines(keepends=True)
    head, body = (lines[:1], lines[1:]) if stream.suffix == ".csv" else ([], lines)
    trial = stream.with_stem("trial")
    found: list[bytes] = []
    while len(found) < count:
        line = mangle(chance.choice(body).rstrip(b"\n"), chance) + b"\n"
        trial.write_bytes(b"".join([*head, line]))
        batch = Stream(trial, task, options, schema).read(Cursor())
        # An open quote would reach over the lines that come after it.
        if (len(batch.rejects), len(batch.rows), line.count(b'"') % 2) == (1, 0, 0):
            found.append(line)
    return found


MODEL = '''"""Learns each record, and then raises on those it does not like."""
from river import base

class Picky(base.Classifier):
    def __init__(self):
        self.seen = {}

    def learn_one(self, x, y):
        self.seen[y] = self.seen.get(y, 0) + 1
        if x["load"] > 1.2:
            raise ValueError("too loaded")

    def predict_proba_one(self, x):
        total = sum(self.seen.values())
        return {label: count / total for label, count in self.seen.items()}
'''


def test_what_a_model_refuses_is_as_if_it_had_not_come(run: Run, tmp_path: Path) -> None:
    """It had learned half of the record; the answers to all others are those without it."""
    logs = []
    for name, kept in (("with", lambda load: True), ("without", lambda load: load <= 1.2)):
        folder = tmp_path / name
        folder.mkdir()
        # Python keeps modules by their name.
        (folder / f"picky_{name}.py").write_text(MODEL)
        recipe = {"members": [f"picky_{name}:Picky"]}
        shape = {"path": "stream.jsonl", "batch": 50}
        path = make_pipeline(folder, 400, stream=shape, online=recipe, **NO_RETRAIN)
        lines = (folder / "stream.jsonl").read_text().splitlines(keepends=True)
        loads = [json.loads(line)["load"] for line in lines]
        (folder / "stream.jsonl").write_text(
            "".join(
                line
                for line, load in zip(lines, loads, strict=True)
                if load is not None and kept(load)
            )
        )
        told = run(path, folder / "home")
        log = logged(folder / "home")
        logs.append({member: log[member] for member in ("label", "online", "served")})
    assert 0 == told["rejected"]
    refused = rejects(tmp_path / "with" / "home")
    assert len(refused) > 5
    assert all("ValueError: too loaded" in each["reason"] for each in refused)
    assert logs[0] == logs[1]
