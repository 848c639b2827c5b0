"""What waits for labels is said, and that quick labels are not the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.learning import label_report
from models.inbox.inbox import Answered, Inbox, InboxConfig
from observability.core.paths import PipelinePlaces
from tests.models.makers import make_places

NOW_S = 1_000_000.0


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PipelinePlaces:
    """Ten predictions; three got their labels after a minute, and seven wait for a day."""
    monkeypatch.setattr("time.time", lambda: NOW_S)
    places = make_places(tmp_path, "prices")
    with Inbox.open(places.inbox, InboxConfig(synchronous="normal")) as inbox:
        inbox.record(
            [Answered(str(index), NOW_S - 86_400, {"a": 1}, {}, {}) for index in range(10)]
        )
        inbox.label([(str(index), 1) for index in range(3)], NOW_S - 86_340)
    return places


def test_what_is_labelled_already_is_not_taken_for_the_whole(places: PipelinePlaces) -> None:
    """Half of the labelled ones took a minute; how long half of all take nobody can know yet."""
    found = label_report.collect(places, {"service": "prices", "examples": 1})
    assert found is not None
    assert (7, 3, 2, 0) == tuple(
        found[key] for key in ("waiting", "joined", "not_learned", "expired")
    )
    assert (60.0, None) == (found["half_of_labelled_within_s"], found["half_within_s"])
    shares = {each["within_s"]: each["share"] for each in found["labelled_within"]}
    assert pytest.approx(0.3) == shares[3_600.0]
    assert (
        "7 predictions wait for a label, the oldest for 1.0 d; 3 labels came, 2 of them are "
        "not learned yet; of all, fewer than half (estimated), of those that have one, half within "
        "1.0 min: the quick ones are not the whole"
    ) == label_report.describe(found)


def test_who_reads_another_inbox_has_nothing_to_learn_of_this_one(places: PipelinePlaces) -> None:
    """A count of what is not learned would be wrong, so there is none."""
    for reads in ({}, {"service": None, "examples": 0}, {"service": "other", "examples": 7}):
        found = label_report.collect(places, reads)
        assert found is not None
        assert None is found["not_learned"]
        assert "not learned" not in label_report.describe(found)
        assert 3 == found["joined"]


def test_a_service_that_nobody_knows_is_said(places: PipelinePlaces, tmp_path: Path) -> None:
    """Its name may be mistyped: it would be waited for in silence for ever."""
    reads = {"service": "pricse", "examples": 0}
    for known in (places, make_places(tmp_path / "other", "prices")):
        found = label_report.collect(known, reads)
        assert found is not None
        assert "no prediction of service:pricse was recorded" in label_report.describe(found)


def test_without_a_service_there_is_nothing_to_say(tmp_path: Path) -> None:
    """A pipeline need not be served."""
    assert None is label_report.collect(make_places(tmp_path, "prices"), {})


def test_an_inbox_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """Status goes on with the other pipelines."""
    places = make_places(tmp_path, "prices")
    places.root.mkdir(parents=True)
    places.inbox.write_bytes(b"x" * 4096)
    found = label_report.collect(places, {"service": "prices", "examples": 0})
    assert found is not None
    assert None is found["waiting"]
    assert "nothing is known of its labels" in label_report.describe(found)
    assert "cannot be read as an inbox" in label_report.describe(found)


def test_what_became_of_late_records_is_one_sentence() -> None:
    """Empty where a service was never asked."""
    nothing = {"scored": 0, "other_champion": 0, "asleep": {}, "foreign": 0}
    assert "" == label_report.describe_service(nothing)
    told = label_report.describe_service(
        {"scored": 1_200, "other_champion": 30, "asleep": {"batch": 20, "a": 1}, "foreign": 5}
    )
    assert (
        "1,200 records were scored by what the service answered then; 30 of them by another "
        "champion than served; asleep, because nothing was answered: a 1, batch 20; 5 asked "
        "of another pipeline, and predicted here when the label came"
    ) == told
