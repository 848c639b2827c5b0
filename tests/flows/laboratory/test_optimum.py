"""The optimum of dynamic programming is that of trying every schedule."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain, combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from flows.laboratory import optimum
from flows.laboratory.optimum import Candidate
from tests import ROOT

ROWS = 12
LOSSES = st.lists(st.integers(0, 20), min_size=ROWS, max_size=ROWS)


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    """Up to six candidates in the order of their fits; some take long to be ready."""
    begins = sorted(draw(st.sets(st.integers(1, ROWS - 1), max_size=6)))
    found = []
    for begin in begins:
        serves = min(begin + draw(st.integers(0, 4)), ROWS)
        losses = np.array(draw(LOSSES), dtype=np.float64)[: ROWS - serves]
        found.append(Candidate(begin, serves, losses))
    return found


def schedules(found: Sequence[Candidate]) -> Iterator[tuple[int, ...]]:
    """Every schedule that is possible: no fit begins before the one before it serves."""
    indexes = range(len(found))
    for chosen in chain.from_iterable(combinations(indexes, n) for n in range(len(found) + 1)):
        pairs = pairwise(chosen)
        if all(
            found[j].begins >= found[i].serves and found[j].serves > found[i].serves
            for i, j in pairs
        ):
            yield chosen


def loss_of(
    stand_in: NDArray[np.float64], found: Sequence[Candidate], chosen: Sequence[int]
) -> float:
    """The loss of a schedule, record by record."""
    total = 0.0
    for row in range(len(stand_in)):
        serving = [found[index] for index in chosen if found[index].serves <= row]
        total += serving[-1].losses[row - serving[-1].serves] if serving else stand_in[row]
    return float(total)


@given(LOSSES, candidates(), st.sampled_from([0.0, 1.0, 5.0, 30.0]))
def test_no_schedule_is_cheaper(stand_in: list[int], found: list[Candidate], price: float) -> None:
    """At any price, and for any number of fits, trying all schedules finds none that is cheaper."""
    losses = np.array(stand_in, dtype=np.float64)
    tried = {chosen: loss_of(losses, found, chosen) for chosen in schedules(found)}
    best = optimum.cheapest(losses, found, price)
    assert min(loss + price * len(chosen) for chosen, loss in tried.items()) == best.cost
    assert tried[best.chosen] == best.loss
    for each in optimum.front(losses, found):
        of_as_many = [loss for chosen, loss in tried.items() if len(chosen) == len(each.chosen)]
        assert min(of_as_many) == each.loss == tried[each.chosen]


@given(LOSSES, candidates())
def test_a_higher_price_never_buys_more_fits(stand_in: list[int], found: list[Candidate]) -> None:
    """Fits become fewer and the cost higher as the price rises."""
    losses = np.array(stand_in, dtype=np.float64)
    best = [optimum.cheapest(losses, found, price) for price in (0.0, 2.0, 8.0, 1e9)]
    assert sorted(best, key=lambda each: -len(each.chosen)) == best
    assert sorted(best, key=lambda each: each.cost) == best
    assert () == best[-1].chosen


def test_without_candidates_the_stand_in_serves() -> None:
    """There is one schedule, without a fit."""
    only = optimum.front(np.array([1.0, 2.0]), [])
    assert [((), 3.0)] == [(each.chosen, each.loss) for each in only]


CASES = json.loads((ROOT / "tests/flows/laboratory/retrainopt.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES["cases"], ids=range(len(CASES["cases"])))
def test_the_distribution_retrainopt_finds_the_same(case: dict[str, object]) -> None:
    """Costs and schedules that `benchmarks/optimum.py` has written from its exact planner.

    There a model serves from the step on at which it is trained.
    """
    stand_in = np.array(case["stand_in"], dtype=np.float64)
    losses = case["losses"]
    assert isinstance(losses, list)
    found = [Candidate(step, step, np.array(each)) for step, each in enumerate(losses)]
    price = case["price"]
    assert isinstance(price, float)
    best = optimum.cheapest(stand_in, found, price)
    assert case["cost"] == pytest.approx(best.cost, rel=1e-12)
    assert case["retrained_at"] == list(best.chosen)
