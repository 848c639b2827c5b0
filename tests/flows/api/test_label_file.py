"""The service follows a file of labels: each is joined once, early ones wait, and all is said."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from flows.api.label_file import RETRY_S, LabelFollower
from flows.config import pipeline
from flows.run import bootstrap
from models.core.record_schema import Label
from models.inbox.inbox import Answered, open_reader
from models.inbox.records import LabelResult
from models.persistence.signing import SigningKey
from models.serving.fake_inbox import FakeInbox
from models.stream.label_file import LabelFileConfig
from observability.core import failpoints
from tests.flows.api.makers import WAIT_S, Learned, make_learned, running
from tests.flows.api.test_server import serving
from tests.pace import until

FILE = {"path": "labels.csv", "key": "order"}


class Followed:
    """A file of labels, and what follows it; time stands still but for what a test says."""

    def __init__(self, learned: Learned, **config: Any) -> None:
        file = pipeline.read(learned.file)
        labels = LabelFileConfig.model_validate({**FILE, **config})
        self.file = file.model_copy(
            update={"pipeline": file.pipeline.model_copy(update={"labels": labels})}
        )
        self.path = file.folder / str(labels.path)
        self.places = learned.places.pipeline("small")
        self.schema = bootstrap.load(self.places, SigningKey.open(learned.places.key)).schema
        self.inbox = FakeInbox()
        self.said: list[str] = []
        self.counted: list[LabelResult] = []
        self.joined: list[tuple[str, Label]] = []
        self.now_s = 1_000.0
        self.follower = self.restarted()

    def restarted(self) -> LabelFollower:
        """What follows it after a restart of the service."""
        self.follower = LabelFollower(
            self.file,
            self.places,
            lambda: self.schema,
            self.inbox,
            self.counted.extend,
            self.joined.extend,
            self.said.append,
            lambda: self.now_s,
        )
        return self.follower

    def predict(self, *ids: str) -> None:
        """Let predictions wait for their labels."""
        self.inbox.record([Answered(each, self.now_s, {"load": 1}, {}, {}) for each in ids])

    def look(self, after_s: float = 0.0) -> dict[str, Any]:
        """Look some time later; returns what is known then."""
        self.now_s += after_s
        self.follower.look()
        return self.follower.status()

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        """What was counted."""
        return [(each.id, each.outcome) for each in self.counted]


@pytest.fixture
def followed(learned: Learned, tmp_path: Path) -> Followed:
    """The file of a pipeline of the test's own; three predictions wait."""
    found = Followed(learned.copy(tmp_path / "own"))
    found.predict("1", "2", "3")
    return found


def test_it_labels_what_the_file_names_and_follows_it_as_it_grows(followed: Followed) -> None:
    """Other columns do not count; a label that is blank may come later."""
    followed.path.write_text("order,label,note\n1,busy,x\n2,,y\n")
    status = followed.look()
    assert {"joined": 1, "without_label": 1, "rejected": 0} == status["outcomes"]
    with followed.path.open("a") as file:
        file.write("2,idle,late\n1,busy,again\n1,idle,otherwise\n")
    status = followed.look()
    assert (None, 5, 0) == (status["trouble"], status["position"], status["early"])
    assert {"1": "busy", "2": "idle"} == followed.inbox.labels
    assert [
        ("1", "joined"),
        ("2", "joined"),
        ("1", "duplicate"),
        ("1", "conflicting"),
    ] == followed.outcomes


def test_after_a_restart_it_goes_on_where_it_was(followed: Followed) -> None:
    """Nothing is labelled again."""
    followed.path.write_text("order,label\n1,busy\n")
    followed.look()
    followed.restarted()
    with followed.path.open("a") as file:
        file.write("2,idle\n")
    assert 2 == followed.look()["position"]
    assert [("1", "joined"), ("2", "joined")] == followed.outcomes


def test_a_label_that_is_faster_than_its_prediction_waits_for_it(followed: Followed) -> None:
    """Also over a restart: it is on disk with the place in the file."""
    followed.path.write_text("order,label\nnew,busy\n1,idle\n")
    assert 1 == followed.look()["early"]
    assert [("1", "joined")] == followed.outcomes
    followed.restarted()
    followed.predict("new")
    assert 0 == followed.look()["early"]
    assert ("new", "joined") == followed.outcomes[-1]
    assert "busy" == followed.inbox.labels["new"]


def test_it_is_not_asked_about_early_labels_all_the_time(followed: Followed) -> None:
    """Each try is a look into the inbox for each of them."""
    followed.path.write_text("order,label\nnew,busy\n")
    followed.look()
    followed.look(RETRY_S)
    followed.predict("new")
    assert 1 == followed.look(RETRY_S / 2)["early"]
    assert 0 == followed.look(RETRY_S / 2)["early"]


def test_labels_are_given_up_when_they_are_too_many_or_too_old(
    learned: Learned, tmp_path: Path
) -> None:
    """The oldest first; they are counted as unknown, and it is said."""
    followed = Followed(learned.copy(tmp_path / "own"), most_early=2, early_s=60.0)
    followed.path.write_text("order,label\na,busy\nb,busy\nc,busy\n")
    assert 2 == followed.look()["early"]
    assert [("a", "unknown")] == followed.outcomes
    assert "1 labels of" in followed.said[-1]
    assert "given up: no prediction of their ids is known" in followed.said[-1]
    assert 2 == followed.look(60.0)["early"]
    assert 0 == followed.look(11.0)["early"]
    assert [(each, "unknown") for each in "abc"] == followed.outcomes


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "parquet"])
def test_every_format_of_a_stream_is_one_of_labels(
    learned: Learned, tmp_path: Path, ending: str
) -> None:
    """Ids that are numbers there name the predictions that were asked with them as text."""
    followed = Followed(learned.copy(tmp_path / "own"), path=f"labels.{ending}", target="came")
    followed.predict("7", "8")
    table = pd.DataFrame({"order": [7, 8], "note": ["x", "y"], "came": ["busy", "idle"]})
    if ending == "parquet":
        table.to_parquet(followed.path, index=False)
    elif ending == "jsonl":
        rows = table.to_dict("records")
        followed.path.write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    else:
        table.to_csv(followed.path, index=False)
    assert None is followed.look()["trouble"]
    assert {"7": "busy", "8": "idle"} == followed.inbox.labels


def test_half_a_line_is_no_label(followed: Followed) -> None:
    """What is written by and by would be joined for good: it waits for the end of its line."""
    followed.path.write_text("order,label\n1,busy\n2,idle\n3,bu")
    assert 4 == followed.look()["unfinished_bytes"]
    with followed.path.open("a") as file:
        file.write("sy")
    assert 2 == followed.look()["position"]
    with followed.path.open("a") as file:
        file.write("\n")
    assert 0 == followed.look()["unfinished_bytes"]
    assert {"1": "busy", "2": "idle", "3": "busy"} == followed.inbox.labels


def test_an_id_that_no_prediction_can_have_does_not_stop_the_others(followed: Followed) -> None:
    """It is a row that names no label."""
    followed.path.write_text(f"order,label\n{'x' * 300},busy\n1,busy\n")
    status = followed.look()
    assert (None, 1) == (status["trouble"], status["outcomes"]["rejected"])
    assert "column 'order' names no prediction" in followed.said[0]
    assert {"1": "busy"} == followed.inbox.labels


def test_a_file_that_was_rewritten_is_read_anew_once_its_place_is_removed(
    followed: Followed,
) -> None:
    """Without a restart of the service."""
    followed.path.write_text("order,label\n1,busy\n2,busy\n")
    followed.look()
    followed.path.write_text("order,label\n3,idle\n")
    assert followed.look()["trouble"]
    followed.places.labels.unlink()
    assert None is followed.look()["trouble"]
    assert "idle" == followed.inbox.labels["3"]


def test_who_compares_versions_hears_of_the_labels_too(followed: Followed) -> None:
    """Those that joined, and no duplicates."""
    followed.path.write_text("order,label\n1,busy\n1,busy\nnew,idle\n")
    followed.look()
    assert [("1", "busy")] == followed.joined


def test_a_row_that_names_no_label_is_counted_and_said(followed: Followed) -> None:
    """The others are labelled."""
    followed.path.write_text("order,label\n,busy\n1,busy,too,many\n2,idle\n")
    status = followed.look()
    assert {"joined": 1, "without_label": 0, "rejected": 2} == status["outcomes"]
    assert "2 rows of" in followed.said[0]
    assert "before row 3 name no label; the first: " in followed.said[0]


def test_what_is_wrong_with_the_file_is_said_once_and_tried_again(followed: Followed) -> None:
    """The service goes on; what was joined stays."""
    for _ in range(2):
        assert str(followed.path.parent) not in followed.look()["trouble"]
        assert "labels.path: " in followed.said[0]
        assert "labels.csv is not there" in followed.said[0]
    assert 1 == len(followed.said)
    followed.path.write_text("order,label\n1,busy\n")
    assert None is followed.look()["trouble"]
    followed.path.write_text("order,label\n2,busy\n3,busy\n")
    followed.look()
    assert "remove labels.json from the pipeline's folder" in followed.said[-1]
    assert {"1": "busy"} == followed.inbox.labels
    followed.places.labels.write_text("{")
    followed.restarted()
    followed.look()
    assert "remove it, and the file is read from its beginning" in followed.said[-1]
    followed.places.labels.unlink()
    assert None is followed.look()["trouble"]
    assert {"1": "busy", "2": "busy", "3": "busy"} == followed.inbox.labels


def test_another_file_is_read_from_its_beginning(followed: Followed) -> None:
    """The place in the one before it says nothing of this one."""
    followed.path.write_text("order,label\n1,busy\n2,busy\n")
    followed.look()
    other = followed.file.pipeline.labels.model_copy(update={"path": "other.csv"})
    followed.file = followed.file.model_copy(
        update={"pipeline": followed.file.pipeline.model_copy(update={"labels": other})}
    )
    followed.path.with_name("other.csv").write_text("order,label\n3,idle\n")
    followed.restarted()
    assert 1 == followed.look()["position"]
    assert "idle" == followed.inbox.labels["3"]


def test_a_key_that_is_the_label_is_refused(learned: Learned, tmp_path: Path) -> None:
    """A prediction cannot be named by what came true."""
    followed = Followed(learned.copy(tmp_path / "own"), key="label")
    followed.path.write_text("label\nbusy\n")
    followed.look()
    assert "name the column of the label as labels.target" in followed.said[0]


@pytest.fixture
def _disarmed() -> Iterator[None]:
    yield
    failpoints.disarm()


@pytest.mark.usefixtures("_disarmed")
def test_what_was_joined_before_its_place_was_written_is_a_duplicate(followed: Followed) -> None:
    """Nothing is lost, and nothing joins twice."""
    followed.path.write_text("order,label\n1,busy\nnew,idle\n")
    failpoints.arm("labels.after_join", "raise")
    followed.look()
    assert "no space left on device" in followed.said[-1]
    failpoints.disarm()
    followed.predict("new")
    assert (None, 2, 0) == tuple(followed.look()[key] for key in ("trouble", "position", "early"))
    assert [("1", "joined"), ("1", "duplicate"), ("new", "joined")] == followed.outcomes


def test_readiness_and_figures_count_them(tmp_path: Path) -> None:
    """Beside what serves; a pipeline without such a file says nothing of one."""
    learned = make_learned(tmp_path, 100, labels=FILE)
    with running(learned) as served, served.client() as client:
        client.post("/predict", json={"id": "1", "record": {"load": 0.3, "site": "a"}})
        (tmp_path / "labels.csv").write_text("order,label\n1,busy\n2,busy\n")
        served.service.look()
        status = client.get("/readyz").json()["pipelines"]["small"]["labels"]
        assert (2, 1, None) == (status["position"], status["early"], status["trouble"])
        assert 1 == status["outcomes"]["joined"]
        counted = 'thermodrift_labels_total{outcome="joined",pipeline="small"} 1.0'
        assert counted in client.get("/metrics").text


@pytest.mark.slow
def test_killed_amid_the_file_each_label_joins_once(tmp_path: Path) -> None:
    """A real service, killed when it has joined a batch and not written its place."""
    learned = make_learned(tmp_path, 100, labels=FILE)
    record = {"load": 0.3, "site": "a"}
    ids = [str(index) for index in range(20)]
    with serving(learned, THERMODRIFT_FAULTS="labels.after_join=kill:1") as (process, said):
        body = {"records": [record] * 20, "ids": ids}
        assert 200 == httpx.post(f"{said['address']}/predict", json=body).status_code
        written = "order,label\n" + "".join(f"{each},busy\n" for each in [*ids[:10], "early"])
        (tmp_path / "labels.csv").write_text(written)
        assert -signal.SIGKILL == process.wait(WAIT_S)
    assert not learned.places.pipeline("small").labels.exists()

    def done() -> bool:
        answer = httpx.get(f"{said['address']}/readyz").json()
        return bool(answer["pipelines"]["small"]["labels"]["position"] == 21)

    with serving(learned) as (_, said):
        with (tmp_path / "labels.csv").open("a") as file:
            file.writelines(f"{each},idle\n" for each in ids[10:])
        until(done, "the end of the file")
        httpx.post(f"{said['address']}/predict", json={"id": "early", "record": record})
    with open_reader(learned.places.pipeline("small").inbox) as reader:
        assert ids == [each.id for each in reader.joined(0, 100)]
