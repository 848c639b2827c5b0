"""What is labelled late becomes the stream: learned once, scored by what was answered then."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.cli import run_summary, status
from flows.config import pipeline
from flows.learning import learn_batch, reject_replay
from flows.run import bootstrap
from flows.run.progress import Display
from flows.run.session import opened
from flows.run.shutdown import Stop
from flows.run.state import PipelineState
from models.inbox.inbox import open_reader
from models.persistence import checkpoint
from models.persistence.signing import SigningKey
from models.prediction_log import prediction_log
from models.serving.bundle import Predicted
from models.stream.source import NothingToBeginWith, StreamChanged
from observability.core import failpoints
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from tests.flows.asked import ask, features, label
from tests.flows.loop.test_resume import left_behind
from tests.flows.makers import ask as history
from tests.flows.makers import make_pipeline, make_records
from tests.flows.nursery import Nursery
from tests.flows.plain_loop import Run, without_prefect

PAST, LATE = 600, 300
SERVED = {"then": "service:small"}


@dataclass(frozen=True)
class Late:
    """A pipeline that learned its file, was asked about more, and has not learned the labels."""

    file: Path
    home: Path
    records: list[dict[str, Any]]
    """What it was asked about, with the labels, in the order in which these came."""
    answers: dict[str, Predicted]

    @property
    def ids(self) -> list[str]:
        """In the order of the labels."""
        return [str(index) for index in range(LATE)]

    def copy(self, folder: Path) -> Late:
        """The same in a folder of its own."""
        shutil.copytree(self.file.parent, folder)
        return Late(folder / self.file.name, folder / "home", self.records, self.answers)

    def log(self) -> list[dict[str, Any]]:
        """The logged predictions of what was asked."""
        folder = Places(self.home).pipeline("small").predictions
        rows: list[dict[str, Any]] = prediction_log.read(folder, PAST, PAST + LATE).to_pylist()
        return rows

    def state(self) -> PipelineState:
        """What the pipeline knows."""
        return bootstrap.load(
            Places(self.home).pipeline("small"), SigningKey.open(Places(self.home).key)
        )


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Late:
    """Half was asked before the last retrain and half after it; labels came in another order."""
    from flows.loop import local_loop

    folder = tmp_path_factory.mktemp("late") / "own"
    folder.mkdir()
    file, home = make_pipeline(folder, PAST, stream=SERVED), folder / "home"
    records = make_records(LATE, seed=11)
    ids, rows = [str(index) for index in range(LATE)], features(records)
    with without_prefect():
        local_loop.run_loop.fn(file, home, 300)
        answers = ask(file, home, rows[::2], ids[::2])
        local_loop.run_loop.fn(file, home, None)
        answers += ask(file, home, rows[1::2], ids[1::2])
    label(home, "small", [(id_, each["label"]) for id_, each in zip(ids, records, strict=True)])
    return Late(file, home, records, dict(zip([*ids[::2], *ids[1::2]], answers, strict=True)))


def test_a_later_run_learns_them_at_the_next_positions(
    late: Late, tmp_path: Path, run: Run
) -> None:
    """Each once; the file's end is their beginning, and a run that follows finds nothing new."""
    own = late.copy(tmp_path / "own")
    summary = run(own.file, own.home)
    assert (PAST + LATE, PAST + LATE) == (summary["position"], summary["learned"])
    assert [each["label"] for each in late.records] == [row["label"] for row in own.log()]
    again = run(own.file, own.home)
    assert (0, PAST + LATE) == (again["run"]["records"], again["position"])
    assert "nothing new" in again["because"]


def test_the_log_has_what_was_answered_then(late: Late, tmp_path: Path, run: Run) -> None:
    """Of every member, with the champion that answered: half are of an older one."""
    own = late.copy(tmp_path / "own")
    run(own.file, own.home)
    versions = []
    for id_, row in zip(own.ids, own.log(), strict=True):
        said = late.answers[id_]
        assert said.value == row["served"]
        logged = {name: row[name] for name in ("online", "batch", "baseline")}
        logged |= dict(row["members"])
        assert logged == {name: said.members[name]["value"] for name in logged}
        assert said.probabilities is not None
        assert said.probabilities[str(said.value)] == row["served_probability"]
        versions.append(row["model_version"])
    assert len({*versions[::2]}) == len({*versions[1::2]}) == 1
    assert versions[0] != versions[1]


def test_the_scores_of_the_history_are_of_then(late: Late, tmp_path: Path, run: Run) -> None:
    """The mean of what was served when it was asked, however well the models of now would do."""
    own = late.copy(tmp_path / "own")
    run(own.file, own.home)
    rows = history(
        own.home,
        "SELECT sum(value * scored) / sum(scored) AS mean FROM scores WHERE member = 'served' "
        f"AND metric = 'accuracy' AND position_from >= {PAST}",
    )
    hits = [
        late.answers[id_].value == each["label"]
        for id_, each in zip(own.ids, late.records, strict=True)
    ]
    assert rows[0]["mean"] == pytest.approx(sum(hits) / LATE)


def test_what_slept_is_counted(late: Late, tmp_path: Path, run: Run) -> None:
    """Of another champion than serves now: its errors say nothing of this one."""
    own = late.copy(tmp_path / "own")
    run(own.file, own.home, 100)
    counted = own.state().service
    assert (100, 50, 0, {}) == (
        counted.scored,
        counted.other_champion,
        counted.foreign,
        counted.asleep,
    )


def test_summary_and_status_say_what_was_learned_and_what_waits(
    late: Late, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """As numbers for programs, and in sentences for people."""
    own = late.copy(tmp_path / "own")
    ask(own.file, own.home, features(make_records(5)), ["a", "b", "c", "d", "e"])
    summary = run(own.file, own.home, 100)
    assert (100, 50) == (summary["service"]["scored"], summary["service"]["other_champion"])
    labels = summary["labels"]
    assert (5, LATE, LATE - 100) == (labels["waiting"], labels["joined"], labels["not_learned"])
    (found,) = status.collect(own.home)
    assert (summary["service"], LATE - 100) == (found["service"], found["labels"]["not_learned"])
    run_summary.render(summary, str(own.file))
    status.render([found])
    said = " ".join(capsys.readouterr().out.split())
    assert 2 == said.count("100 records were scored by what the service answered then")
    assert 2 == said.count("5 predictions wait for a label")
    assert 2 == said.count(f"{LATE} labels came, {LATE - 100} of them are not learned yet")


def test_labels_that_come_while_it_learns_come_with_the_next_run(
    late: Late, tmp_path: Path, run: Run
) -> None:
    """However it is cut: the log is the same."""
    own, other = late.copy(tmp_path / "own"), late.copy(tmp_path / "other")
    run(own.file, own.home)
    for count in (37, 100, 63, None):
        run(other.file, other.home, count)
    assert own.log() == other.log()
    more = make_records(20, seed=12)
    ask(own.file, own.home, features(more), [f"more{index}" for index in range(20)])
    assert PAST + LATE == run(own.file, own.home)["position"]
    label(own.home, "small", [(f"more{i}", each["label"]) for i, each in enumerate(more)])
    assert PAST + LATE + 20 == run(own.file, own.home)["position"]


def test_another_pipeline_learns_the_same_labels(late: Late, tmp_path: Path, run: Run) -> None:
    """From position 0 on, by its own predictions: it was not the one who was asked."""
    own = late.copy(tmp_path / "own")
    text = own.file.read_text().replace('name = "small"', 'name = "second"')
    text = text.replace('path = "stream.csv"', 'path = "service:small"')
    other = own.file.with_name("second.toml")
    other.write_text(text.replace('then = "service:small"\n', ""))
    summary = run(other, own.home)
    assert (LATE, LATE) == (summary["position"], summary["learned"])
    places = Places(own.home).pipeline("second")
    log = prediction_log.read(places.predictions, 0, LATE).to_pylist()
    assert [each["label"] for each in late.records] == [row["label"] for row in log]
    assert None is log[0]["served"] is log[0]["batch"]
    state = bootstrap.load(places, SigningKey.open(Places(own.home).key))
    assert (0, LATE) == (state.service.scored, state.service.foreign)


def test_a_pipeline_that_has_learned_may_go_on_with_its_service_alone(
    late: Late, tmp_path: Path, run: Run
) -> None:
    """The file of its past may go; retrains and drift checks have what came since."""
    own = late.copy(tmp_path / "own")
    text = own.file.read_text().replace('then = "service:small"\n', "")
    own.file.write_text(text.replace('"stream.csv"', '"service:small"'))
    (own.file.parent / "stream.csv").unlink()
    assert PAST + LATE == run(own.file, own.home)["position"]


def test_a_pipeline_that_could_never_begin_is_told_what_to_write(tmp_path: Path, run: Run) -> None:
    """Its own service cannot answer before it has learned something."""
    file = make_pipeline(tmp_path)
    file.write_text(file.read_text().replace('"stream.csv"', '"service:small"'))
    for begin in (
        lambda: run(file, tmp_path / "home"),
        lambda: bootstrap.validate_stream(
            pipeline.read(file), Places(tmp_path / "home").pipeline("small")
        ),
    ):
        with pytest.raises(BadConfiguration, match='then = "service:small"') as caught:
            begin()
        assert 78 == caught.value.exit_code


def test_a_second_pipeline_waits_for_the_first_label(tmp_path: Path, run: Run) -> None:
    """Nothing is wrong with its file: exit code 75."""
    file = make_pipeline(tmp_path)
    file.write_text(file.read_text().replace('"stream.csv"', '"service:first"'))
    with pytest.raises(NothingToBeginWith, match="service:first"):
        run(file, tmp_path / "home")


def test_a_file_that_grew_too_late_ends_the_run(late: Late, tmp_path: Path, run: Run) -> None:
    """Before anything is learned at the wrong place; taken back, it goes on."""
    own = late.copy(tmp_path / "own")
    run(own.file, own.home, 100)
    stream = own.file.parent / "stream.csv"
    before = stream.read_text()
    stream.write_text(before + "0.5,a,busy\n")
    with pytest.raises(StreamChanged, match=f"passed at record {PAST}"):
        run(own.file, own.home)
    stream.write_text(before)
    assert PAST + LATE == run(own.file, own.home)["position"]


@pytest.mark.usefixtures("without_prefect")
def test_a_file_that_grows_at_the_very_end_moves_no_example(late: Late, tmp_path: Path) -> None:
    """A part of a batch is read again, when a signal or a refusal cut it."""
    own = late.copy(tmp_path / "own")
    stream = own.file.parent / "stream.csv"
    with (
        Display("small") as display,
        opened(pipeline.read(own.file), own.home, Stop(), display) as work,
    ):
        with stream.open("a") as file:
            file.write("0.5,a,busy\n" * 30)
        batch = work.run.stream.read(work.state.cursor, 80)
        cut = learn_batch._ending_at(work, batch, PAST + 50, 50)
        assert (PAST + 50, PAST + 30) == (cut.after.position, cut.after.of_file.position)
        with stream.open("a") as file:
            file.write("0.5,a,busy\n")
        with pytest.raises(StreamChanged, match=f"ended at record {PAST + 30}.*run again"):
            learn_batch._ending_at(work, batch, PAST + 50, 50)
        assert PAST + 20 == learn_batch._ending_at(work, batch, PAST + 20, 20).after.position


def test_an_example_that_was_rejected_is_replayed_as_it_was_answered(
    late: Late, tmp_path: Path, run: Run
) -> None:
    """With the champion of then, however often the models have changed since."""
    own = late.copy(tmp_path / "own")
    before = own.file.read_text()
    narrow = before.replace("batch = 100", "batch = 100\nlargest = 0.5\nrejected_share = 1")
    own.file.write_text(narrow)
    rejected = run(own.file, own.home)["rejected"]
    assert 50 < rejected < LATE
    own.file.write_text(before)
    told = reject_replay.replay(own.file, own.home, Stop())
    assert (rejected, rejected, 0) == (told["rejects"], told["learned"], told["still_rejected"])
    log = own.log()
    assert [late.answers[id_].value for id_ in own.ids] == [row["served"] for row in log]
    assert 2 == len({row["model_version"] for row in log})
    assert LATE == own.state().service.scored


POINTS = ("loop.after_predictions", "loop.after_checkpoint", "loop.after_history")


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_each_example_is_learned_once(
    late: Late, tmp_path: Path, nursery: Nursery, point: str, after: int
) -> None:
    """Across the end of the file, too: the outcome equals that of an undisturbed run."""
    own, killed = late.copy(tmp_path / "own"), late.copy(tmp_path / "killed")
    for each in (own, killed):
        # The first batch is of the file and of the service: the file may grow until then.
        with (each.file.parent / "stream.csv").open("a") as stream:
            stream.writelines(f"0.{index},a,busy\n" for index in range(30))
    until = PAST + 30 + LATE
    assert 0 == nursery.loop(own.file, own.home).returncode
    ended = nursery.loop(killed.file, killed.home, f"{point}=kill:{after}")
    assert -signal.SIGKILL == ended.returncode, ended.stderr
    done = nursery.loop(killed.file, killed.home)
    assert 0 == done.returncode, done.stderr
    assert left_behind(own.home, "small", until) == left_behind(killed.home, "small", until)
    assert until == json.loads(done.stdout)["learned"]


def test_the_points_are_those_of_the_loop() -> None:
    """A further one is tried here as well."""
    assert {*POINTS} == {each for each in failpoints.POINTS if each.startswith("loop.")}


def test_no_example_is_forgotten(late: Late, tmp_path: Path, run: Run) -> None:
    """Nobody knows which pipelines will read them."""
    own = late.copy(tmp_path / "own")
    run(own.file, own.home)
    places = Places(own.home).pipeline("small")
    with open_reader(places.inbox) as reader:
        assert (LATE, 0) == (reader.counts().joined, reader.counts().first_position)
    assert PAST + LATE == checkpoint.header(places.checkpoint)["position"]
