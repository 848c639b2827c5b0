"""What is remembered of past retrains."""

from __future__ import annotations

from typing import Any

import pytest

from observability.history import schema
from observability.worth import memory
from observability.worth.learning_curve import SizeScore
from observability.worth.memory import Candidate, Change, Expectation, Level, Memory

LEVEL = Level("v1", 1000, 0.5, 0.25, 800, 200)


def make_expectation(**overrides: Any) -> Expectation:
    """A retrain for a loss of a tenth, of which 0.07 was expected to come."""
    default: dict[str, Any] = {
        "request_id": "r1",
        "position": 1000,
        "evidence": "loss",
        "raw_gain": 0.1,
        "gain": 0.07,
    }
    return Expectation(**default | overrides)


def test_what_came_after_says_more_than_the_hold_out_once_enough_has_come() -> None:
    """Nothing is known before the comparison."""
    waiting = make_expectation()
    assert waiting.realised is None
    compared = make_expectation(compared=0.05)
    assert 0.05 == compared.realised
    assert 0.05 == compared.follow(0.01, memory.FEWEST_FOLLOWED - 1).realised
    followed = compared.follow(0.01, 100).follow(0.04, 200)
    assert followed.realised == pytest.approx(0.03)
    assert 300 == followed.followed_records
    assert compared == compared.follow(0.5, 0)


def test_the_view_of_the_history_counts_what_came_after_from_the_same_number_on() -> None:
    """The two rooms state it apart."""
    assert schema.FEWEST_FOLLOWED == memory.FEWEST_FOLLOWED


def test_after_rejected_challengers_less_of_the_same_loss_is_expected_to_come() -> None:
    """Each kind of evidence has a share of its own."""
    known = Memory()
    assert memory.PRIOR_SHARE == known.share_that_comes("loss")
    for each in range(4):
        known = known.expect(make_expectation(request_id=f"r{each}"))
        known = known.settle(f"r{each}", compared=0.0)
    assert known.share_that_comes("loss") < memory.PRIOR_SHARE / 2
    assert memory.PRIOR_SHARE == known.share_that_comes("growth")
    assert (4, 0.0) == known.calibration[:2]


def test_a_bounded_number_is_remembered() -> None:
    """A checkpoint does not grow with the stream."""
    known = Memory()
    for each in range(100):
        known = known.expect(make_expectation(request_id=str(each)))
        known = known.scored([SizeScore(each + 1, 0.5, each)], LEVEL)
        known = known.changed(Change(each, None))
    sizes = {len(known.expectations), len(known.sizes), len(known.changes)}
    assert {memory.KEPT} == sizes
    assert known.newest is not None
    assert "99" == known.newest.request_id
    assert known.curve is not None


def test_settling_an_unknown_request_changes_nothing() -> None:
    """A request may be older than what is remembered."""
    known = Memory().expect(make_expectation())
    assert known == known.settle("r2", compared=0.3)
    assert Memory().newest is None


def test_changes_are_in_order_and_end_a_loss() -> None:
    """A change that was answered twice is one change."""
    known = Memory(loss_since=700).changed(Change(800, "v1")).changed(Change(800, "v2"))
    assert (Change(800, "v1"),) == known.changes
    assert known.loss_since is None
    assert 800 == known.last_change
    # What was rather noise counts in part, and is not where the concept began.
    doubtful = known.changed(Change(900, "v3", 0.2)).changed(Change(950, "v3", 0.0))
    assert [800, 900] == [each.position for each in doubtful.changes]
    assert 800 == doubtful.last_change
    assert Memory().last_change is None


def test_versions_that_served_before_a_change_are_scored_first() -> None:
    """They know a concept that may come back; the newest of the others fill the rest."""
    known = Memory(changes=(Change(1, "v1"), Change(2, "v2"), Change(3, None), Change(4, "gone")))
    assert ["v2", "v1", "v5", "v4", "v3"] == known.archive(["v1", "v2", "v3", "v4", "v5"])
    assert [] == known.archive([])


@pytest.mark.parametrize(("promoted", "compared"), [("v2", 0.2), ("v1", None), (None, None)])
def test_a_persons_word_ends_the_wait_of_a_candidate(
    promoted: str | None, compared: float | None
) -> None:
    """If it is for the candidate, its gain has come; otherwise it was compared with another."""
    known = Memory(candidate=Candidate("v2", 5, 0.2, "it won")).expect(
        make_expectation(version="v2")
    )
    after = known.by_hand(promoted, "v0")
    assert after.candidate is None
    assert after.newest is not None
    assert compared == after.newest.compared
    assert ("v0" if compared else None) == after.newest.replaced


def test_a_season_is_told_by_the_versions_that_served() -> None:
    """A challenger that was not promoted served nobody, and a request without one neither."""
    starts = [("v1", "first"), ("v2", "loss"), *[("v1", "archive"), ("v2", "archive")] * 2]
    known = Memory().expect(make_expectation(evidence="rule"))
    for index, (version, evidence) in enumerate(starts):
        known = known.expect(
            make_expectation(
                position=1_000 * index,
                version=version,
                evidence=evidence,
                replaced=None if evidence == "first" else "v0",
            )
        ).expect(make_expectation(position=1_000 * index + 500, version="v9"))
    assert (2_000, 2_000, 4) == known.season
