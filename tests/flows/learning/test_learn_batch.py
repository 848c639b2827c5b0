"""Learning batch by batch: what a model refuses, what the stream refuses, and what is said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.config import pipeline, template
from flows.deployed import learn_run
from flows.learning import learn_batch
from flows.learning.learn_batch import ModelRefusesEverything
from flows.run.progress import Display
from flows.run.session import opened
from flows.run.shutdown import Stop
from models.core import user_code
from models.online.learning_health import MOST_REFUSED
from models.prediction_log import prediction_log
from observability.core.paths import Places
from tests.flows.makers import ask
from tests.flows.nursery import Nursery
from tests.flows.plain_loop import without_prefect
from tests.models.makers import make_dummy, put

RECORDS = 1_000

PICKY = """
from river import dummy

class Picky(dummy.NoChangeClassifier):
    # It learns half of the record before it raises.
    def learn_one(self, x, y):
        super().learn_one(x, y)
        if x["x"] in {refused}:
            raise RuntimeError("I do not like it")
"""


def make_picky(folder: Path, refused: str, batch: int = 200) -> Path:
    """A stream whose column x counts the records, and a model that raises on some of them."""
    rows = "".join(f"{index},{index // 3 % 2}\n" for index in range(RECORDS))
    (folder / "stream.csv").write_text("x,y\n" + rows)
    module = f"picky_{abs(hash(str(folder)))}"
    (folder / f"{module}.py").write_text(PICKY.format(refused=refused))
    path = folder / "picky.toml"
    path.write_text(
        '[pipeline]\nname = "picky"\ntask = "classification"\n'
        f'[stream]\npath = "stream.csv"\ntarget = "y"\nbatch = {batch}\n'
        f'[online]\nmembers = ["{module}:Picky"]\n[gate]\nsource = "off"\n'
    )
    return path


def spoil(stream: Path, places: Iterable[int]) -> None:
    """Give the records at `places` of a CSV stream a cell more than its header has."""
    lines = stream.read_text().splitlines()
    for place in places:
        lines[place + 1] = lines[place + 1].replace(",", ",oops,")
    stream.write_text("\n".join(lines) + "\n")


def learn_all(path: Path, home: Path) -> dict[str, Any]:
    """Learn the whole stream, without looking at the world; the totals."""
    with opened(pipeline.read(path), home, Stop(), Display("test")) as work:
        work.commit([])
        while not learn_batch.learn.fn(work).ended:
            pass
        work.wait()
        return vars(work.state.totals)


@pytest.mark.parametrize("batch", [200, 1_000])
def test_a_model_that_refuses_some_records_learns_all_others(batch: int, tmp_path: Path) -> None:
    """One in ten is refused, the first, the last and neighbours among them: each is a reject."""
    refused = {0, 1, 2, 999, *range(5, RECORDS, 10)}
    path = make_picky(tmp_path, repr(refused), batch)
    totals = learn_all(path, tmp_path / "home")
    assert (len(refused), RECORDS - len(refused)) == (totals["rejected"], totals["learned"])
    log = prediction_log.read(Places(tmp_path / "home").pipeline("picky").predictions, 0, RECORDS)
    assert sorted(set(range(RECORDS)) - refused) == log["position"].to_pylist()
    rejects = ask(tmp_path / "home", "SELECT position, reason FROM rejects ORDER BY position")
    assert sorted(refused) == [row["position"] for row in rejects]
    (member,) = pipeline.read(path).pipeline.online.members
    assert {f"the online member {member} raised RuntimeError: I do not like it"} == {
        row["reason"] for row in rejects
    }


def test_what_is_refused_leaves_no_trace_in_the_model(tmp_path: Path) -> None:
    """A model that has half learned a record is put back: it answers as if it had never come."""
    odd = {index for index in range(RECORDS) if index % 50 == 7}
    with_odd, without_odd = tmp_path / "with", tmp_path / "without"
    with_odd.mkdir()
    without_odd.mkdir()
    learn_all(make_picky(with_odd, repr(odd)), with_odd / "home")
    path = make_picky(without_odd, "set()")
    lines = (without_odd / "stream.csv").read_text().splitlines(keepends=True)
    kept = [line for index, line in enumerate(lines) if index - 1 not in odd]
    (without_odd / "stream.csv").write_text("".join(kept))
    learn_all(path, without_odd / "home")

    def served(home: Path) -> list[Any]:
        folder = Places(home).pipeline("picky").predictions
        found: list[Any] = prediction_log.read(folder, 0, RECORDS)["served_probability"].to_pylist()
        return found

    assert served(without_odd / "home") == served(with_odd / "home")


BLIND = """
from river import dummy

class Blind(dummy.NoChangeClassifier):
    def predict_proba_one(self, x):
        answers = super().predict_proba_one(x)
        return {label: float("nan") for label in answers} if 310 <= x["x"] < 320 else answers
"""


def test_a_member_is_reset_where_a_batch_ends_however_often_its_run_was_stopped(
    nursery: Nursery, tmp_path: Path
) -> None:
    """Stopped within the batch, the member goes on until where it is reset without that."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
        path = make_picky(folder, "set()")
        path.write_text(path.read_text().replace(":Picky", ":Blind"))
        next(folder.glob("picky_*.py")).write_text(BLIND)
    assert 0 == nursery.loop(whole / "picky.toml", whole / "home").returncode
    assert 0 == nursery.loop(stopped / "picky.toml", stopped / "home", limit=350).returncode
    assert 0 == nursery.loop(stopped / "picky.toml", stopped / "home").returncode

    def left(home: Path) -> tuple[list[Any], list[Any]]:
        resets = ask(home, "SELECT position FROM decisions WHERE question = 'revive' AND yes")
        folder = Places(home).pipeline("picky").predictions
        log = prediction_log.read(folder, 0, RECORDS)["online"].to_pylist()
        return [row["position"] for row in resets], log

    assert [400] == left(whole / "home")[0]
    assert left(whole / "home") == left(stopped / "home")


def test_a_model_that_refuses_everything_ends_the_run(tmp_path: Path) -> None:
    """The fault is the model's; the message says so, and what was refused is kept."""
    path = make_picky(tmp_path, "range(300, 1000)")
    with pytest.raises(ModelRefusesEverything, match="records in a row, last on position 400"):
        learn_all(path, tmp_path / "home")
    (row,) = ask(tmp_path / "home", "SELECT count(*) AS refused FROM rejects")
    assert MOST_REFUSED == row["refused"]


def test_a_stream_that_turns_ill_is_said_aloud(tmp_path: Path) -> None:
    """When more is rejected than is usual, history says how much, and why most of them were."""
    path = make_picky(tmp_path, "set()")
    spoil(tmp_path / "stream.csv", [*range(450, 600), *range(650, 800)])
    totals = learn_all(path, tmp_path / "home")
    assert (700, 300) == (totals["learned"], totals["rejected"])
    said = ask(
        tmp_path / "home",
        "SELECT position, because FROM decisions WHERE question = 'intake' ORDER BY position",
    )
    assert [600, 800] == [row["position"] for row in said]
    assert "150 of 200 records were rejected for their shape (20% is" in said[0]["because"]
    assert "most often because: 2 cells were expected (150 times, such as 3)" in said[0]["because"]


def test_the_sample_recovers_from_its_own_drift(nursery: Nursery, tmp_path: Path) -> None:
    """What init writes shows the product at work: after the change a new champion is promoted."""
    template.write(tmp_path)
    done = nursery.loop(tmp_path / "pipeline.toml", tmp_path / "home")
    assert done.returncode == 0, done.stderr
    promoted = ask(
        tmp_path / "home",
        "SELECT position FROM decisions WHERE question = 'promotion' AND yes ORDER BY position",
    )
    assert promoted[-1]["position"] > 6_000
    (right,) = ask(
        tmp_path / "home",
        "SELECT avg((served = label)::INT) AS served, avg((online = label)::INT) AS online,"
        " avg((batch = label)::INT) AS batch FROM predictions WHERE position >= 10000",
    )
    assert right["served"] >= min(right["online"], right["batch"])
    assert right["batch"] > 0.6


FAILING = """
from sklearn.dummy import DummyClassifier

class Failing(DummyClassifier):
    def predict_proba(self, X):
        raise RuntimeError("I have lost my voice")
"""


def test_a_champion_that_fails_takes_no_row_away_from_a_deployed_run(tmp_path: Path) -> None:
    """What came up before the first batch stays: each run has its start, and says the silence once.

    The online model raises in the batch too, so that the batch is answered more than once.
    """
    (tmp_path / "failing_voice.py").write_text(FAILING)
    path = make_picky(tmp_path, "{150}")
    path.write_text(path.read_text() + '[batch]\nrecipe = "failing_voice:Failing"\n')
    home = tmp_path / "home"
    with opened(pipeline.read(path), home, Stop(), Display("test")) as work:
        made = make_dummy()
        broken = replace(made, estimator=user_code.find("failing_voice:Failing", tmp_path)())
        put(work.run.registry, pipeline="picky", model=broken)
        work.run.registry.promote("v1", "by hand")
    with without_prefect():
        for run_id in ("one", "two"):
            file = pipeline.read(path)
            learn_run.run_learn(
                file, home, run_id, Stop(), Display("test"), 200, stop_for_drift_check=False
            )
    runs = ask(home, "SELECT run_id, started_at, position_from, position_to FROM runs ORDER BY ALL")
    assert [("one", 0, 200), ("two", 200, 400)] == [
        (row["run_id"], row["position_from"], row["position_to"]) for row in runs
    ]
    assert all(row["started_at"] for row in runs)
    silences = ask(home, "SELECT position FROM decisions WHERE question = 'answers' ORDER BY ALL")
    # Before the record that the online model refuses, and after it; then one batch.
    assert [0, 151, 200] == [row["position"] for row in silences]
