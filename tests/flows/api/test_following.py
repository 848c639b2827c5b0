"""The bundle follows the loop: it answers as the loop would serve, and never half of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flows.api import following
from flows.api.following import RETRY_S, Follower
from flows.api.metrics import ServiceMetrics
from flows.config import pipeline
from flows.run import bootstrap
from flows.run.state import PendingEffects
from models.batch import batch_model
from models.core.answered import REST
from models.core.record_schema import Task
from models.persistence import checkpoint
from models.persistence.signing import SigningKey
from models.prediction_log import prediction_log
from models.registry.registry import ModelCard, Registry
from tests.flows.api.makers import Learned, Running, make_learned, running
from tests.flows.makers import make_pipeline, make_records
from tests.pace import until

RECORD = {"record": {"load": 0.3, "site": "a"}}


@pytest.fixture
def changing(learned: Learned, tmp_path: Path) -> Learned:
    """A pipeline of the test's own."""
    return learned.copy(tmp_path / "own")


@pytest.fixture
def served(changing: Learned) -> Iterator[Running]:
    """Its service; it looks when it is told to."""
    with running(changing) as found:
        yield found


def registry(learned: Learned) -> Registry:
    """The registry of a pipeline."""
    return Registry(learned.places.pipeline("small"), SigningKey.open(learned.places.key))


def register(learned: Learned, version: str) -> None:
    """Store a model under this version, as a retrain does."""
    models = registry(learned)
    champion = models.champion()
    assert champion is not None
    manifest = models.manifest(champion)
    card = ModelCard(**{name: getattr(manifest, name) for name in ModelCard.model_fields})
    model = batch_model.baseline(["busy", "idle"], "classification")
    models.register(version, model, models.reference(manifest), card)


def trouble(served: Running) -> str:
    """What is wrong with newer files, as the log has it; the service is ready all the same.

    Whoever asks hears that something is wrong, and no path of this machine.
    """
    with served.client() as client:
        answers = [client.get("/readyz"), client.get("/model")]
        assert 200 == client.post("/predict", json=RECORD).status_code
    assert [200, 200] == [each.status_code for each in answers]
    told = answers[0].json()["pipelines"]["small"]["trouble"]
    assert told == answers[1].json()["trouble"]
    follower = served.service.pipelines["small"].follower
    assert str(follower.places.root) not in "".join(each.text for each in answers)
    assert bool(told) == bool(follower.trouble)
    return follower.trouble


def failures(served: Running) -> float:
    """How many bundles could not be loaded."""
    name = "thermodrift_bundle_swap_failures_total"
    return served.service.metrics.registry.get_sample_value(name, {"pipeline": "small"}) or 0.0


def versions(served: Running) -> dict[str, Any]:
    """The versions that answer now."""
    with served.client() as client:
        found: dict[str, Any] = client.post("/predict", json=RECORD).json()["versions"]
    return found


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_answers_are_those_that_the_loop_then_logs(task: Task, tmp_path: Path) -> None:
    """Of the same records after the same checkpoint: served, champion, every member, exactly.

    The records have no labels yet, so the loop learns nothing between them.
    """
    learned = make_learned(tmp_path / "own", None, records=400, task=task)
    records = make_records(100, task, seed=8)
    rows = [{key: each[key] for key in ("load", "site")} for each in records]
    with running(learned) as served, served.client() as client:
        ids = [str(index) for index in range(100)]
        said = client.post("/predict", json={"records": rows, "ids": ids}).json()
        given = served.inbox().given
    assert 400 == said["versions"]["position"]
    with (learned.file.parent / "stream.csv").open("a") as stream:
        for row in rows:
            cells = ("" if cell is None else str(cell) for cell in row.values())
            stream.write(",".join([*cells, ""]) + "\n")
    assert 100 == learned.learn()["unlabelled"]
    log = prediction_log.read(learned.places.pipeline("small").predictions, 400, 500).to_pylist()
    assert said["versions"]["champion"] == log[0]["model_version"] is not None
    assert [row["served"] for row in log] == [row["prediction"] for row in said["predictions"]]
    for row, id_ in zip(log, ids, strict=True):
        answers = {name: each for name, each in given[id_].answers.items() if name != REST}
        logged = {**{name: row[name] for name in prediction_log.COLUMNS}, **dict(row["members"])}
        assert logged == {name: each["value"] for name, each in answers.items()}
        if task == "classification":
            assert row["served_probability"] == answers["served"]["probabilities"][row["served"]]


def test_before_the_first_checkpoint_it_is_live_and_not_ready(tmp_path: Path) -> None:
    """503 with the reason and what to do; from the first batch on it serves."""
    learned = Learned(make_pipeline(tmp_path), tmp_path / "home")
    with running(learned) as served, served.client() as client:
        assert 200 == client.get("/healthz").status_code
        assert not learned.home.exists()
        for answer in (client.get("/readyz"), client.post("/predict", json=RECORD)):
            assert 503 == answer.status_code
            assert "has no checkpoint" in answer.text
            assert "thermodrift run" in answer.text
            assert str(tmp_path) not in answer.text
        for path in ("/model", "/v2/models/small", "/v2/models/small/ready", "/v2/health/ready"):
            assert 503 == client.get(path).status_code
        assert 'thermodrift_bundle_ready{pipeline="small"} 0.0' in client.get("/metrics").text
        learned.learn(100)
        served.service.look()
        assert (None, 100) == tuple(versions(served)[key] for key in ("champion", "position"))
        assert 200 == client.get("/readyz").status_code
    assert [] == [each for each in served.said if "failed" in each]


def test_a_newer_checkpoint_serves_from_the_next_look_on(
    changing: Learned, served: Running
) -> None:
    """Its position is in every answer; an unchanged one is not loaded again."""
    before = served.service.pipelines["small"].follower.bundle
    served.service.look()
    assert before is served.service.pipelines["small"].follower.bundle
    changing.learn(100)
    served.service.look()
    assert 700 == versions(served)["position"]
    assert "" == trouble(served)
    assert 0 == failures(served)


def test_a_champion_that_a_person_promoted_serves(changing: Learned, served: Running) -> None:
    """The loop would sync with the pointer before its next batch."""
    register(changing, "by-hand")
    assert registry(changing).promote("by-hand", "a-person")
    served.service.look()
    assert ("by-hand", 600) == tuple(versions(served)[key] for key in ("champion", "position"))
    registry(changing).rollback("a-person-again")
    served.service.look()
    assert "v000000200" == versions(served)["champion"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be read"),
        (b"{}\n", "cannot be read"),
        (None, "is not what this home signed"),
    ],
    ids=["empty", "no checkpoint", "signed elsewhere"],
)
def test_a_broken_checkpoint_leaves_the_old_bundle(
    changing: Learned, served: Running, content: bytes | None, says: str
) -> None:
    """Which goes on serving; /readyz says so, the log has the reason, and the figures count it."""
    path = changing.places.pipeline("small").checkpoint
    whole = path.read_bytes()
    if content is None:
        content = checkpoint.content({}, SigningKey(b"x" * 32), {})
    path.write_bytes(content)
    served.service.look()
    assert says in trouble(served)
    assert 600 == versions(served)["position"]
    assert 1 == failures(served)
    assert "small: the old bundle goes on: CheckpointUnusable" in served.said[-1]
    path.write_bytes(whole)
    served.service.look()
    assert "" == trouble(served)


def test_a_champion_that_cannot_be_loaded_leaves_the_old_bundle(
    changing: Learned, served: Running
) -> None:
    """Its file is not the signed one: nothing of it is loaded."""
    register(changing, "broken")
    assert registry(changing).promote("broken", "a-person")
    (changing.places.pipeline("small").models / "broken.model").write_bytes(b"x")
    served.service.look()
    assert "is not the file that its manifest describes" in trouble(served)
    assert "v000000200" == versions(served)["champion"]


def test_a_checkpoint_that_is_gone_leaves_the_old_bundle(
    changing: Learned, served: Running
) -> None:
    """So does a key that is gone, and no other one is made in its place."""
    changing.places.pipeline("small").checkpoint.unlink()
    served.service.look()
    assert "FileNotFoundError" in trouble(served)
    changing.places.key.unlink()
    changing.places.pipeline("small").checkpoint.write_bytes(b"x")
    served.service.look()
    assert "is gone, and nothing can be verified without it" in trouble(served)
    assert not changing.places.key.exists()


def test_another_target_than_was_learned_is_told(changing: Learned) -> None:
    """A file that was changed since does not serve what it does not say."""
    text = changing.file.read_text()
    changing.file.write_text(text.replace('target = "label"', 'target = "site"'))
    with running(changing) as served, served.client() as client:
        told = client.post("/predict", json=RECORD)
    assert 503 == told.status_code
    assert "BadConfiguration" in told.json()["error"]
    assert "has learned classification of 'label'" in served.said[-1]


def test_a_promotion_that_is_not_applied_yet_serves_with_its_checkpoint(
    changing: Learned,
) -> None:
    """The next run applies it before its first record; one that is applied is not undone."""
    places, key = changing.places.pipeline("small"), SigningKey.open(changing.places.key)
    register(changing, "next")
    state = bootstrap.load(places, key)
    state.pending_effects = (PendingEffects("small.x.9", (), promote="next"),)
    checkpoint.save(places.checkpoint, state, key, {})
    file = pipeline.read(changing.file)
    assert "next" == following.load(file, changing.places).champion_version
    models = registry(changing)
    models.promote("next", "small.x.9")
    models.promote("v000000200", "a-person")
    assert "v000000200" == following.load(file, changing.places).champion_version


def test_what_failed_is_tried_again_after_a_while(changing: Learned) -> None:
    """A disk that was full for a minute needs no new checkpoint; a retry is told once."""
    now_s = [0.0]
    said: list[str] = []
    path = changing.places.pipeline("small").checkpoint
    whole = path.read_bytes()
    path.write_bytes(b"x")
    file = pipeline.read(changing.file)
    follower = Follower(
        file, changing.places, ServiceMetrics(), said.append, clock=lambda: now_s[0]
    )
    assert not follower.look()
    path.write_bytes(whole)
    follower._seen = following._Seen(
        following._stamp(path), following._stamp(following._pointer(follower.places))
    )
    assert not follower.look()
    now_s[0] = RETRY_S
    assert follower.look()
    assert ["small: nothing serves yet", "small: serves position 600"] == [
        each[: each.index(":", 7)] if "yet" in each else each[: each.index(",")] for each in said
    ]
    now_s[0] += 7
    assert 7 == follower.age_s


@pytest.mark.slow
def test_swaps_under_requests_mix_no_versions_and_fail_none(changing: Learned) -> None:
    """Each answer is that of the versions that it names, while the loop learns and promotes."""
    over = threading.Event()
    seen: dict[tuple[Any, ...], set[str]] = {}
    lock = threading.Lock()

    def hammer(served: Running) -> int:
        asked = 0
        with served.client() as client:
            while not over.is_set():
                answer = client.post("/predict", json={"records": [RECORD["record"]] * 3})
                assert 200 == answer.status_code, answer.text
                document = answer.json()
                with lock:
                    said = seen.setdefault(tuple(document["versions"].values()), set())
                    said |= {str(row["probabilities"]) for row in document["predictions"]}
                asked += 1
        return asked

    with running(changing, following=True, follow_s=0.01) as served, ThreadPoolExecutor(8) as pool:
        follower = served.service.pipelines["small"].follower
        hammering = [pool.submit(hammer, served) for _ in range(8)]
        try:
            for position in (700, 800, 900, 1000):
                changing.learn(100)
                until(
                    lambda at=position: follower.bundle and follower.bundle.position == at,  # type: ignore[misc]
                    f"position {position}",
                )
        finally:
            over.set()
        assert all(each.result() > 0 for each in hammering)
        assert 0 == failures(served)
    assert len(seen) >= 4
    assert {1} == {len(each) for each in seen.values()}
    assert len({next(iter(each)) for each in seen.values()}) > 1
