"""A version in the shadow answers every request, is logged beside what serves, and never serves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.api import server
from flows.api.shadow import shadow_log, shadowing
from flows.api.shadow.shadow_log import NoShadowLog, ShadowAnswer, ShadowLog, ShadowLogDamaged
from flows.cli import shadow_report
from models.batch.batch_model import BatchAnswersNothing, BatchModel
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from tests.flows.api.makers import Learned, Running, held, running
from tests.flows.api.test_following import register
from tests.pace import until

RECORD = {"record": {"load": 0.3, "site": "a"}}
VERSION = "challenger"


@pytest.fixture
def own(learned: Learned, tmp_path: Path) -> Learned:
    """A pipeline of the test's own, with a version beside its champion: it always says "busy"."""
    found = learned.copy(tmp_path / "own")
    register(found, VERSION)
    return found


@pytest.fixture
def served(own: Learned) -> Iterator[Running]:
    """Its service, with that version in the shadow."""
    with running(own, shadow=[f"small={VERSION}"]) as found:
        yield found


def answers(own: Learned) -> list[dict[str, Any]]:
    """The comparison of all versions."""
    shadows: list[dict[str, Any]] = shadow_report.collect(own.file, own.home)["shadows"]
    return shadows


def figure(served: Running, name: str, **labels: str) -> float:
    """A value of /metrics."""
    registry = served.service.metrics.registry
    return registry.get_sample_value(name, {"pipeline": "small", **labels}) or 0.0


def test_a_shadow_is_logged_beside_what_is_served_and_compared_once_labels_come(
    own: Learned, served: Running
) -> None:
    """The answers are those that are served without it; its own are only in the log."""
    loads = [-0.5, 0.1, 0.9, 1.5]
    body = {"records": [{"load": each} for each in loads], "ids": [*"abcd"]}
    with served.client() as client:
        said = client.post("/predict", json=body).json()
        assert 200 == client.post("/predict", json=RECORD).status_code
        labels = [{"id": id_, "label": "busy"} for id_ in "abc"]
        assert {"joined": 3} == client.post("/label", json={"labels": labels}).json()["counts"]
        client.post("/label", json={"labels": [{"id": "a", "label": "idle"}]})
        for path in ("/readyz", "/model"):
            told = client.get(path).json()
            shadows = told.get("shadows") or told["pipelines"]["small"]["shadows"]
            assert [{"version": VERSION, "ready": True, "trouble": None}] == shadows
    with running(own) as alone, alone.client() as client:
        assert said["predictions"] == client.post("/predict", json=body).json()["predictions"]
    served.service.close()
    (found,) = answers(own)
    values = [row["prediction"] for row in said["predictions"]]
    assert (VERSION, 5, 3) == tuple(found[key] for key in ("version", "answers", "labelled"))
    assert sum(value == "busy" for value in values[:3]) / 3 == pytest.approx(found["served"])
    # The baseline of ["busy", "idle"] says the first of two equal classes.
    assert 1.0 == found["shadow"]
    assert 5.0 == figure(served, "thermodrift_shadow_answers_total", version=VERSION)
    assert 1.0 == figure(served, "thermodrift_shadow_ready", version=VERSION)


def test_a_request_that_comes_again_is_one_answer_of_the_shadow(
    own: Learned, served: Running
) -> None:
    """It would count twice."""
    with served.client() as client:
        for _ in range(2):
            assert 200 == client.post("/predict", json={**RECORD, "id": "a"}).status_code
    served.service.close()
    assert [1] == [each["answers"] for each in answers(own)]


def test_a_shadow_delays_no_answer_and_what_it_cannot_keep_up_with_is_counted(
    own: Learned, served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread is held up; predictions are answered, and beyond the bound it sees none."""
    monkeypatch.setattr(shadowing, "MOST_WAITING", 3)
    shadows = served.service.pipelines["small"].shadows
    with held(shadows._worker), served.client() as client:
        for _ in range(5):
            assert 200 == client.post("/predict", json=RECORD).status_code
        assert 2.0 == figure(served, "thermodrift_shadow_dropped_total")
    served.service.close()
    assert [3] == [each["answers"] for each in answers(own)]


def test_a_service_that_ends_waits_for_its_shadows_only_so_long(
    own: Learned, served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left then is dropped, and counted."""
    monkeypatch.setattr(shadowing, "CLOSE_WITHIN_S", -1.0)
    shadows = served.service.pipelines["small"].shadows
    ending = threading.Thread(target=shadows.close)
    with held(shadows._worker), served.client() as client:
        assert 200 == client.post("/predict", json=RECORD).status_code
        ending.start()
        until(lambda: shadows._over_s < float("inf"), "the end that has begun")
    ending.join()
    assert 1.0 == figure(served, "thermodrift_shadow_dropped_total")
    with pytest.raises(NoShadowLog):
        answers(own)


def test_a_shadow_that_fails_fails_alone(
    own: Learned, served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of the service says why, and the figures count it."""
    (shadow,) = served.service.pipelines["small"].shadows.shadows

    class Broken(BatchModel):
        def predict(self, frame: Any) -> Any:
            raise BatchAnswersNothing("it diverged")

    monkeypatch.setattr(shadow, "model", Broken("classification", ("busy",), None, None, None))
    with served.client() as client:
        for _ in range(2):
            assert 200 == client.post("/predict", json=RECORD).status_code
    until(lambda: figure(served, "thermodrift_shadow_failures_total") == 2.0, "its failures")
    assert 1 == served.said.count(f"small: shadow {VERSION}: it diverged"), "once"
    served.service.close()
    with pytest.raises(NoShadowLog, match=r"serve\.shadow"):
        answers(own)


def test_a_log_that_cannot_be_written_fails_alone(own: Learned, served: Running) -> None:
    """As on a full disk: here a folder is in its place."""
    Places(own.home).pipeline("small").shadow.mkdir()
    with served.client() as client:
        assert 200 == client.post("/predict", json=RECORD).status_code
    until(lambda: figure(served, "thermodrift_shadow_failures_total") == 1.0, "its failure")
    assert "the log of shadows" in served.said[-1]


def test_a_version_that_cannot_be_loaded_is_said_and_tried_again(own: Learned) -> None:
    """Not there, and damaged: the service is ready all the same; no path is shown."""
    with running(own, shadow=["small=later", "other=v1"]) as served, served.client() as client:
        told = client.get("/readyz")
        assert 200 == told.status_code
        (shadow,) = told.json()["pipelines"]["small"]["shadows"]
        assert not shadow["ready"]
        assert "NoSuchModel" in shadow["trouble"]
        assert "shadow other=v1: pipeline 'other' is not served here" in served.said[0]
        assert 0.0 == figure(served, "thermodrift_shadow_ready", version="later")
        register(own, "later")
        (loaded,) = served.service.pipelines["small"].shadows.shadows
        served.service.look()
        assert loaded.model is None, "not before its time"
        loaded.tried_s -= shadowing.RETRY_S
        served.service.look()
        assert loaded.model is not None
        assert "small: version later answers in the shadow" in served.said


def test_a_model_that_was_changed_is_never_loaded(own: Learned) -> None:
    """It is verified as a champion is."""
    (Places(own.home).pipeline("small").models / f"{VERSION}.model").write_bytes(b"x")
    with running(own, shadow=[f"small={VERSION}"]) as served:
        (shadow,) = served.service.pipelines["small"].shadows.shadows
        assert shadow.model is None
        assert "is not the file that its manifest describes" in "".join(served.said)


def test_the_log_keeps_its_newest_answers(tmp_path: Path) -> None:
    """And each label once."""
    log = ShadowLog(tmp_path / "shadow.sqlite", most_rows=3)
    for number in range(5):
        log.record([ShadowAnswer(str(number), 1.0, "v", None, 0, 1.0, 1.5)])
        log.label([(str(number), 2.0)], 2.0)
        log.label([(str(number), 9.0)], 3.0)
    log.close()
    (found,) = shadow_log.compare(tmp_path / "shadow.sqlite", "regression")
    assert (3, 3, 0.5, 1.0, 0.5) == tuple(
        found[key] for key in ("answers", "labelled", "difference", "served", "shadow")
    )


def test_people_read_a_table(
    own: Learned, served: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without labels the scores are unknown."""
    with served.client() as client:
        client.post("/predict", json=RECORD)
    served.service.close()
    shadow_report.render(shadow_report.collect(own.file, own.home))
    out = capsys.readouterr().out
    assert VERSION[:5] in out
    assert "accuracy" in out


def test_a_log_that_cannot_be_read_says_what_to_do(own: Learned) -> None:
    """It is for comparing alone, so it may go."""
    Places(own.home).pipeline("small").shadow.write_text("no database, and long enough for one")
    with pytest.raises(ShadowLogDamaged, match="remove it"):
        shadow_report.collect(own.file, own.home)


def test_options_and_settings_name_pipeline_and_version(tmp_path: Path) -> None:
    """The option comes before the home's file."""
    home = Places(tmp_path)
    home.settings.write_text('[serve]\nshadow = ["small=v1"]\n', encoding="utf-8")
    assert ("small=v1",) == server.configured(home).shadow
    assert ("small=v2",) == server.configured(home, shadow=("small=v2",)).shadow
    with pytest.raises(BadConfiguration, match="shadow"):
        server.configured(home, shadow=("v2",))
