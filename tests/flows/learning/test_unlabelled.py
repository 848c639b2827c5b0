"""Records without a label: predicted and logged, and neither learned, scored nor fitted on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.cli import status
from flows.config import pipeline
from flows.run.progress import Display
from flows.run.session import opened
from flows.run.shutdown import Stop
from models.core import scoring
from models.core.record_schema import Task
from models.online.online_model import DEFAULT_MEMBERS
from models.prediction_log import prediction_log
from observability.core.paths import Places
from tests.flows.makers import NAME, ask, make_pipeline, make_records, write_stream
from tests.flows.plain_loop import Run

RECORDS = 1_000
WAITING = frozenset({100, 300, 500, 700, 900})
MEMBERS = ("served", "online", "batch", "baseline")


def make_waiting(
    folder: Path, waiting: frozenset[int], task: Task = "classification", **tables: Any
) -> Path:
    """A pipeline whose stream has no label at the positions of `waiting`."""
    folder.mkdir(exist_ok=True)
    path = make_pipeline(folder, RECORDS, task, **tables)
    records = make_records(RECORDS, task)
    for place in waiting:
        records[place]["label"] = None
    write_stream(folder / "stream.csv", records)
    return path


def logged(home: Path) -> list[dict[str, Any]]:
    """The prediction log, row by row."""
    found: list[dict[str, Any]] = prediction_log.read(
        Places(home).pipeline(NAME).predictions, 0, RECORDS
    ).to_pylist()
    return found


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_records_whose_labels_are_missing_at_the_end_are_predicted(
    run: Run, tmp_path: Path, task: Task
) -> None:
    """They wait for their labels: none is a reject, all are answered, and the totals add up."""
    path = make_waiting(tmp_path, frozenset(range(850, RECORDS)), task)
    told = run(path, tmp_path / "home")
    assert (850, 150, 0) == (told["learned"], told["unlabelled"], told["rejected"])
    rows = logged(tmp_path / "home")
    assert list(range(RECORDS)) == [row["position"] for row in rows]
    assert [None] * 150 == [row["label"] for row in rows[850:]]
    assert [] == [row for row in rows[850:] if row["served"] is None or row["batch"] is None]
    (known,) = status.collect(tmp_path / "home")
    assert 150 == known["totals"]["unlabelled"]
    ended = ask(tmp_path / "home", "SELECT records, learned, unlabelled, rejected FROM runs")
    assert [(1000, 850, 150, 0)] == [tuple(row.values()) for row in ended]


def test_scores_are_of_the_records_that_have_a_label(run: Run, tmp_path: Path) -> None:
    """Whoever counts the log again gets the scores of each batch, and over how many they are."""
    path = make_waiting(tmp_path, frozenset(range(250, 300)) | frozenset(range(400, 500)))
    run(path, tmp_path / "home")
    rows = logged(tmp_path / "home")
    scores = ask(
        tmp_path / "home",
        "SELECT position_from, member, value, scored FROM scores "
        "WHERE NOT contains(member, ':') AND metric = 'accuracy'",
    )
    assert {*MEMBERS, *DEFAULT_MEMBERS} == {each["member"] for each in scores}
    for each in scores:
        part = rows[each["position_from"] : each["position_from"] + 100]
        answers = [{**row, **dict(row["members"])}[each["member"]] for row in part]
        labels = [row["label"] for row in part]
        assert scoring.count(answers, labels) == each["scored"] > 0
        assert scoring.mean("classification", answers, labels) == each["value"]
    assert 400 not in {each["position_from"] for each in scores}


def test_what_has_no_label_changes_nothing_that_is_learned(run: Run, tmp_path: Path) -> None:
    """The online member and the blend answer as on the stream that never had these records."""
    never: dict[str, Any] = {"worth": {"min_rows": 10_000_000}}
    with_them = make_waiting(tmp_path / "with", WAITING, **never)
    without = make_waiting(tmp_path / "without", frozenset(), **never)
    kept = [each for place, each in enumerate(make_records(RECORDS)) if place not in WAITING]
    write_stream(without.parent / "stream.csv", kept)
    logs = []
    for path in (with_them, without):
        run(path, path.parent / "home")
        rows = [row for row in logged(path.parent / "home") if row["label"] is not None]
        logs.append([[row[name] for name in ("label", "online", "served")] for row in rows])
    assert logs[0] == logs[1]


def test_a_fit_learns_from_labelled_records_and_its_reference_has_them_all(
    run: Run, tmp_path: Path
) -> None:
    """Nothing unlabelled is trained on or held out; later windows are compared with such as
    these, so that the reference is no smaller for them, and drift in the predictions is known."""
    small = {"every": 1_000, "min_rows": 200, "window": 1_000, "reference_rows": 1_000}
    table: dict[str, Any] = {
        "drift": {**small, "target_votes": False, "error_votes": False},
        "worth": {"min_rows": 100, "cooldown_records": 100},
        "batch": {"window": 1_000},
        "stream": {"batch": 500},
    }
    path = make_waiting(tmp_path, WAITING, **table)
    told = run(path, tmp_path / "home")
    assert 5 == told["unlabelled"]
    with opened(pipeline.read(path), tmp_path / "home", Stop(), Display("test")) as work:
        version = work.state.champion
        assert version is not None
        reference = work.run.registry.reference(work.run.registry.manifest(version))
        manifest = work.run.registry.manifest(version)
    # It begins with the rows that the better of two models was fitted on.
    span = RECORDS - manifest.train_from
    assert span == len(reference)
    inside = [place - manifest.train_from for place in sorted(WAITING)]
    assert [place for place in inside if place >= 0] == reference.index[
        reference["label"].isna()
    ].tolist()
    # 995 rows have a label: 796 are fitted on, 199 are held out.
    assert manifest.holdout_from == 800
    assert 200 == reference["prediction"].notna().sum()
