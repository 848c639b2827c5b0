"""All members' error tests together: references, pairs, what stands, and what is forgotten."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observability.drift.error_monitor import ErrorFinding, ErrorMonitor

Losses = Mapping[str, np.ndarray]


def make_monitor(bounded: bool = True, reference_records: int = 500) -> ErrorMonitor:
    """A monitor that has heard nothing."""
    return ErrorMonitor(bounded=bounded, reference_records=reference_records)


def make_losses(records: int, seed: int = 0, **shares: float) -> dict[str, np.ndarray]:
    """Losses of 0 and 1 of each member, at its share; NaN is a member without an answer."""
    chance = np.random.default_rng(seed)
    return {
        name: np.full(records, math.nan)
        if math.isnan(share)
        else (chance.random(records) < share).astype(np.float64)
        for name, share in shares.items()
    }


def hear(monitor: ErrorMonitor, losses: Losses, size: int = 100) -> None:
    """Tell it the losses in batches, right after what it has heard."""
    first, count = monitor.position, len(next(iter(losses.values())))
    for start in range(0, count, size):
        part = {name: each[start : start + size].tolist() for name, each in losses.items()}
        monitor.observe(range(first + start, first + min(start + size, count)), part)


def with_champion(share: float = 0.1, online: float = 0.15, held_out: int = 500) -> ErrorMonitor:
    """A champion since position 2,000, whose hold-out was the newest rows before."""
    monitor = make_monitor()
    hear(monitor, make_losses(2_000, batch=math.nan, online=online, served=online))
    losses = make_losses(held_out, seed=1, batch=share)["batch"].tolist()
    monitor.reset("batch", 2_000, range(2_000 - held_out, 2_000), losses)
    return monitor


def found(monitor: ErrorMonitor) -> dict[tuple[str, str], ErrorFinding]:
    """What it found, by member and by whom it was paired with."""
    return {(each.member, each.against): each for each in monitor.evidence()}


def test_a_champion_that_goes_on_as_it_was_is_no_finding() -> None:
    """5,000 records at the error of its hold-out."""
    monitor = with_champion()
    hear(monitor, make_losses(5_000, seed=2, batch=0.1, online=0.15, served=0.1))
    assert ((), {}) == (monitor.evidence(), monitor.fired)


def test_a_champion_whose_errors_rise_is_found_with_its_numbers() -> None:
    """Before, now, since when, and at which position that was enough."""
    monitor = with_champion()
    hear(monitor, make_losses(1_000, seed=2, batch=0.1, online=0.15, served=0.1))
    hear(monitor, make_losses(600, seed=3, batch=0.35, online=0.15, served=0.1))
    own = found(monitor)["batch", ""]
    assert ("errors", 20_000.0) == (own.kind, own.threshold)
    assert 3_000 < own.seen_at < 3_300
    assert 3_000 == pytest.approx(own.change, abs=40)
    assert 0.1 == pytest.approx(own.mean_before, abs=0.03)
    assert 0.35 == pytest.approx(own.mean_now or 0.0, abs=0.06)
    assert own.mean_before < own.mean_allowed < 0.2
    assert "the mean loss of batch went from" in own.because
    assert "errors" in monitor.fired


def test_a_champion_that_another_member_beats_is_found_whatever_became_of_its_own_errors() -> None:
    """It errs as it did; but the online member, that was worse, is better now."""
    monitor = with_champion(share=0.2, online=0.25)
    hear(monitor, make_losses(3_000, seed=4, batch=0.2, online=0.05, served=0.1))
    pair = found(monitor)["batch", "online"]
    assert {"relative errors"} == {each.kind for each in monitor.evidence()}
    assert pair.mean_before < 0.05
    assert 0.15 == pytest.approx(pair.mean_now or 0.0, abs=0.05)
    assert "the loss of batch less that of online went from" in pair.because


def test_a_lead_that_shrinks_is_no_finding_while_it_is_a_lead() -> None:
    """The other member learned; the champion is still the better one."""
    monitor = with_champion(share=0.1, online=0.4)
    hear(monitor, make_losses(4_000, seed=5, batch=0.1, online=0.12, served=0.1))
    assert () == monitor.evidence()


def test_a_champion_that_was_beaten_on_its_hold_out_already_must_lose_more() -> None:
    """What was known when it was promoted is no news."""
    monitor = with_champion(share=0.2, online=0.1)
    hear(monitor, make_losses(4_000, seed=6, batch=0.2, online=0.1, served=0.1))
    assert () == monitor.evidence()


def test_a_champion_without_a_hold_out_is_compared_with_its_first_losses() -> None:
    """Until then nothing is known of it, and that is told."""
    monitor = with_champion(held_out=0)
    assert "batch" in monitor.untested()
    hear(monitor, make_losses(1_000, seed=2, batch=0.1, online=0.15, served=0.1))
    assert () == monitor.untested()
    hear(monitor, make_losses(600, seed=3, batch=0.5, online=0.15, served=0.1))
    assert {("batch", ""), ("batch", "online")} <= {*found(monitor)}


def test_a_baseline_is_no_evidence_alone_and_a_champion_must_beat_it() -> None:
    """A world in which no change is a worse guess is not one in which a model errs."""
    monitor = make_monitor()
    hear(monitor, make_losses(1_500, baseline=0.1))
    hear(monitor, make_losses(1_500, seed=1, baseline=0.6))
    assert ((), ()) == (monitor.evidence(), monitor.untested())
    monitor.reset(
        "batch", 3_000, range(2_500, 3_000), make_losses(500, batch=0.3)["batch"].tolist()
    )
    hear(monitor, make_losses(1_000, seed=2, batch=0.3, baseline=0.05))
    assert ("batch", "baseline") in found(monitor)


def test_the_served_answer_is_not_paired_with_the_champion_inside_it() -> None:
    """It is made of the champion's answers; its own past is what it is compared with."""
    monitor = with_champion()
    assert ("batch", "online") in monitor.tests
    assert ("batch", "served") not in monitor.tests
    assert ("served", "") in monitor.tests


def test_what_was_found_is_news_once_and_stands_while_it_lasts() -> None:
    """A look acknowledges it; the next look finds it again; a world that comes back ends it."""
    monitor = with_champion()
    hear(monitor, make_losses(400, seed=3, batch=0.5, online=0.15, served=0.1))
    assert "errors" in monitor.fired
    monitor.acknowledge()
    hear(monitor, make_losses(200, seed=4, batch=0.5, online=0.15, served=0.1))
    assert ({}, True) == (monitor.fired, ("batch", "") in found(monitor))
    hear(monitor, make_losses(3_000, seed=5, batch=0.08, online=0.15, served=0.1))
    assert () == monitor.evidence()


def test_what_rose_and_fell_between_two_looks_is_found_all_the_same() -> None:
    """Nobody looked while it stood."""
    monitor = with_champion()
    hear(monitor, make_losses(200, seed=3, batch=0.9, online=0.15, served=0.1))
    hear(monitor, make_losses(3_000, seed=5, batch=0.0, online=0.15, served=0.1))
    assert ("batch", "") in found(monitor)
    monitor.acknowledge()
    assert () == monitor.evidence()


def test_a_member_that_learns_online_begins_anew_after_a_look() -> None:
    """It adapts by itself: its next losses are what it is compared with."""
    monitor = make_monitor()
    hear(monitor, make_losses(2_000, online=0.1))
    hear(monitor, make_losses(500, seed=1, online=0.5))
    assert ("online", "") in found(monitor)
    monitor.acknowledge()
    assert ((), ("online",)) == (monitor.evidence(), monitor.untested())
    hear(monitor, make_losses(3_000, seed=2, online=0.5))
    assert ((), ()) == (monitor.evidence(), monitor.untested())


def test_a_new_champion_is_not_judged_by_what_the_old_one_lost() -> None:
    """Its tests, and those of its pairs, begin anew; what is known of others stays."""
    monitor = with_champion()
    hear(monitor, make_losses(600, seed=3, batch=0.5, online=0.15, served=0.1))
    monitor.reset(
        "batch", 2_600, range(2_400, 2_600), make_losses(200, batch=0.1)["batch"].tolist()
    )
    assert ((), {}) == (monitor.evidence(), monitor.standing)
    assert 0.0 == monitor.tests["batch", ""].evidence
    assert monitor.tests["online", ""].evidence > 0.0


def test_absolute_errors_are_counted_in_units_of_their_own_reference() -> None:
    """Of any size: a unit a million times larger changes nothing, and one outlier is no rise."""
    for unit in (1e-6, 1.0, 1e6):
        monitor = make_monitor(bounded=False)
        chance = np.random.default_rng(0)
        hear(monitor, {"online": unit * np.abs(chance.standard_normal(3_000))})
        hear(monitor, {"online": np.array([1e300])})
        assert () == monitor.evidence()
        hear(monitor, {"online": 2.5 * unit * np.abs(chance.standard_normal(600))})
        assert ("online", "") in found(monitor)


def test_a_reference_without_an_error_makes_any_error_count() -> None:
    """Nobody was ever wrong; then everybody is."""
    monitor = make_monitor(bounded=False)
    hear(monitor, {"online": np.zeros(2_000)})
    assert () == monitor.evidence()
    hear(monitor, {"online": np.full(200, 1e-9)})
    assert ("online", "") in found(monitor)


MEMBERS = ("batch", "online", "baseline")
loss = st.one_of(st.floats(0, 1), st.just(math.nan), st.just(1.0))


@given(
    st.lists(st.tuples(loss, loss, loss), min_size=1, max_size=450),
    st.lists(st.integers(1, 449), max_size=5),
    st.integers(0, 400),
)
@settings(max_examples=25, deadline=None)
def test_it_knows_the_same_however_records_are_batched_and_pickled(
    losses: list[tuple[float, float, float]], cuts: list[int], champion_at: int
) -> None:
    """To the last bit, over references that begin, a new champion, and a checkpoint at each cut."""
    reset = min(champion_at, len(losses))

    def told(edges: list[int]) -> list[object]:
        monitor = ErrorMonitor(bounded=True, false_alarm_records=100, reference_records=100)
        for first, last in itertools.pairwise(edges):
            if first == reset:
                monitor.reset("batch", first, range(120), [0.1, 0.0, 0.2] * 40)
            part = dict(zip(MEMBERS, zip(*losses[first:last], strict=True), strict=True))
            monitor.observe(range(first, last), part)
            monitor = pickle.loads(pickle.dumps(monitor))
        return [monitor.evidence(), monitor.fired, monitor.standing, monitor.untested()]

    few = sorted({0, reset, len(losses)})
    many = sorted({*few, *(cut for cut in cuts if cut < len(losses))})
    assert told(few) == told(many)
