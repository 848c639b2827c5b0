"""What waits for labels is watched: its features, and what was answered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.cli import status
from flows.config import pipeline
from flows.deployed import learn_run
from flows.learning import unlabelled_check
from flows.run.progress import Display
from flows.run.session import opened
from flows.run.shutdown import Stop
from models.persistence import checkpoint
from observability.core.paths import Places
from tests.flows.asked import ask, features, label
from tests.flows.makers import ask as history
from tests.flows.makers import make_pipeline, make_records
from tests.flows.plain_loop import Run

PAST = 400
QUESTION = (
    "SELECT position, yes, because, (facts->>'current_rows')::INT AS rows, "
    "facts->>'prediction:prediction' AS prediction, facts->>'false_alarm_share' AS rate "
    "FROM decisions WHERE question = 'unlabelled drift' ORDER BY decided_at"
)


@dataclass
class Served:
    """A pipeline with a champion, of a stream that has not changed, and its service."""

    file: Path
    home: Path
    run: Run

    def ask(self, *records: dict[str, Any], first: int = 0) -> None:
        """Ask about records; nobody labels them."""
        ids = [f"w{first + index}" for index in range(len(records))]
        ask(self.file, self.home, features(records), ids)

    def looks(self) -> list[dict[str, Any]]:
        """What was decided of unlabelled rows."""
        self.run(self.file, self.home)
        return history(self.home, QUESTION)


@pytest.fixture
def served(tmp_path: Path, run: Run) -> Served:
    """The first half of the stream, before it changes."""
    # Its predictions are compared as well: so many are held out that there is a reference of them.
    file = make_pipeline(
        tmp_path,
        2 * PAST,
        stream={"then": "service:small"},
        worth={"min_rows": PAST},
        batch={"holdout": 0.4},
    )
    stream = tmp_path / "stream.csv"
    stream.write_text("".join(stream.read_text().splitlines(keepends=True)[: PAST + 1]))
    found = Served(file, tmp_path / "home", run)
    run(file, found.home)
    return found


def same(count: int, seed: int = 5) -> list[dict[str, Any]]:
    """Records of the world before its change."""
    return make_records(2 * count, seed=seed)[:count]


def other(count: int, seed: int = 5) -> list[dict[str, Any]]:
    """Records of the world after it."""
    return make_records(2 * count, seed=seed)[count:]


def test_rows_of_another_world_are_found_before_their_labels_come(served: Served) -> None:
    """One decision, of unlabelled rows; nothing is requested, and status says it."""
    served.ask(*other(250))
    (look,) = served.looks()
    assert (PAST, True, 200, "0.01") == (look["position"], look["yes"], look["rows"], look["rate"])
    assert "of the 200 newest of 250 unlabelled rows" in look["because"]
    assert "load" in look["because"]
    assert None is not look["prediction"]
    assert [] == history(served.home, f"FROM requests WHERE position_requested > {PAST}")
    header = checkpoint.header(Places(served.home).pipeline("small").checkpoint)
    assert None is header["open_request"]
    assert header["unlabelled_look"]["yes"]
    (found,) = status.collect(served.home)
    assert look["because"] == found["unlabelled_look"]["because"]


def test_rows_of_the_same_world_are_no_alarm(served: Served) -> None:
    """The no is recorded as well; it looks again after as many predictions."""
    served.ask(*same(250))
    (look,) = served.looks()
    assert not look["yes"]
    assert look == served.looks()[0]
    served.ask(*same(100, seed=6), first=250)
    assert 1 == len(served.looks())
    served.ask(*same(100, seed=7), first=350)
    assert 2 == len(served.looks())


def test_a_deployed_run_that_learns_nothing_looks_as_well(served: Served) -> None:
    """Then it has a row of its own, with an end; without a look it leaves none."""
    file = pipeline.read(served.file)
    runs = "SELECT outcome FROM runs WHERE run_id LIKE 'deployed%' ORDER BY started_at"
    with Display("small") as display:

        def learn(run_id: str) -> int:
            run = learn_run.run_learn(file, served.home, run_id, Stop(), display, None, True)
            return run.records

        assert 0 == learn("deployed-1")
        assert [] == history(served.home, runs)
        served.ask(*other(250))
        assert 0 == learn("deployed-2")
    assert [{"outcome": "finished"}] == history(served.home, runs)
    assert [True] == [each["yes"] for each in history(served.home, QUESTION)]


def test_few_rows_or_labelled_ones_are_not_looked_at(served: Served) -> None:
    """Labelled ones are the stream, which its own checks watch."""
    records = other(250)
    served.ask(*records)
    label(served.home, "small", [(f"w{i}", each["label"]) for i, each in enumerate(records[:200])])
    assert [] == served.looks()


def test_another_pipelines_service_is_not_looked_at(served: Served) -> None:
    """Its champion did not answer."""
    second = served.file.with_name("second.toml")
    text = served.file.read_text().replace('name = "small"', 'name = "second"')
    second.write_text(text)
    served.ask(*other(250))
    served.run(second, served.home)
    assert [] == history(served.home, QUESTION)


def test_what_it_expects_of_unlabelled_rows_is_said_with_its_own_error(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An estimate for people, on which nothing depends."""
    monkeypatch.setattr("models.core.score_stretches.RECORDS", 50)
    records = same(300)
    served.ask(*records)
    label(served.home, "small", [(f"w{i}", each["label"]) for i, each in enumerate(records[:250])])
    summary = served.run(served.file, served.home)
    # Batches end at every hundredth record, and so do stretches.
    assert ("accuracy", 1) == (summary["estimate"]["metric"], summary["estimate"]["stretches"])
    assert 0.0 <= summary["estimate"]["off_by"] < 0.3
    status.render(status.collect(served.home))
    said = " ".join(capsys.readouterr().out.split())
    assert "what waits for labels is expected to score accuracy" in said
    assert "was off by" in said


def test_only_what_the_champion_of_now_answered_counts_as_its_prediction(served: Served) -> None:
    """The features of all rows do."""
    served.ask(*same(30))
    file = pipeline.read(served.file)
    with Display("small") as display, opened(file, served.home, Stop(), display) as work:
        frame = unlabelled_check._frame(work, work.run.stream.waiting(20))
        assert (20, 20) == (len(frame), int(frame["prediction"].notna().sum()))
        assert work.state.schema.target not in frame
        work.state.champion = "another"
        frame = unlabelled_check._frame(work, work.run.stream.waiting(20))
        assert (20, 0) == (len(frame), int(frame["prediction"].notna().sum()))


def test_a_run_without_a_champion_looks_at_nothing(tmp_path: Path, run: Run) -> None:
    """There is no reference."""
    file = make_pipeline(tmp_path, 100, stream={"then": "service:small"})
    run(file, tmp_path / "home")
    ask(file, tmp_path / "home", features(same(250)), [str(index) for index in range(250)])
    run(file, tmp_path / "home")
    assert [] == history(tmp_path / "home", QUESTION)
