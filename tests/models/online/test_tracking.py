"""Fixed share: the stated bound holds on whatever losses come, and blocks change nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.online.tracking import LAST_SHARE, SHARES, FixedShare, Flags, Floats, Mixture

SLACK = 1e-7
"""For rounding, relative to the bound."""


class Game(NamedTuple):
    """What n records bring to some experts, and the sequence of experts that is compared with."""

    losses: Floats
    awake: Flags
    learned: Flags
    scale: Floats
    comparator: list[int]
    """The expert that is compared with, record by record."""


def make_game(
    seed: int, count: int = 60, experts: int = 4, switches: int = 2, largest: float = 1.0
) -> Game:
    """A game that an adversary likes: losses at the edges, sleepers, a scale that jumps."""
    chance = np.random.default_rng(seed)
    edges = chance.integers(0, 2, (count, experts)).astype(float)
    losses: Floats = largest * np.where(
        chance.random((count, experts)) < 0.7, edges, chance.random()
    )
    awake = chance.random((count, experts)) < chance.choice([1.0, 0.8, 0.3])
    learned = chance.random(count) < chance.choice([1.0, 0.7])
    jumping = 10.0 ** chance.integers(-3, 4, count)
    steady = chance.random(count) < 0.8
    scale = np.asarray(np.where(steady, jumping[0], jumping), dtype=np.float64)
    return Game(losses, awake, learned, scale, best_sequence(losses, awake, learned, switches))


def together(experts: int) -> Flags:
    """One group of all experts."""
    return np.ones((1, experts), dtype=bool)


def best_sequence(losses: Floats, awake: Flags, learned: Flags, switches: int) -> list[int]:
    """The experts with the least loss in total, which change at most `switches` times.

    A record on which an expert sleeps counts for it as one on which it loses the half.
    """
    cost = np.where(awake, losses, 0.5) * learned[:, None]
    count, experts = cost.shape
    best = np.zeros((count + 1, switches + 1, experts))
    for index in range(count - 1, -1, -1):
        for left in range(switches + 1):
            follow = best[index + 1, left]
            if left:
                follow = np.minimum(follow, best[index + 1, left - 1].min())
            best[index, left] = cost[index] + follow
    left, present = switches, int(best[0, switches].argmin())
    chosen = []
    for index in range(count):
        chosen.append(present)
        stay = best[index + 1, left, present]
        if left and best[index + 1, left - 1].min() < stay:
            left -= 1
            present = int(best[index + 1, left].argmin())
    return chosen


def changes(comparator: Sequence[int]) -> list[int]:
    """The records at which another expert begins."""
    pairs = enumerate(itertools.pairwise(comparator), start=1)
    return [index for index, (before, after) in pairs if before != after]


def counted(game: Game) -> list[int]:
    """The records that are learned, and that somebody predicts."""
    return [*np.flatnonzero(game.learned & game.awake.any(axis=1))]


def terms(game: Game, rate: float, share: float, ranges: bool = True) -> float:
    """The right side of the bound in the docstring of `models.online.tracking`."""
    rows = counted(game)
    if not rows:
        return 0.0
    scale = game.scale[rows]
    followed = [game.comparator[row] for row in rows]
    rises = np.maximum(np.diff(scale), 0.0).sum()
    at_switches = sum(scale[index] for index in changes(followed))
    experts = game.losses.shape[1]
    total = math.log(experts / share) * (scale[0] + rises + at_switches) / rate
    total += math.log(1.0 / (1.0 - share)) * scale.sum() / rate
    if ranges:
        spread = [np.ptp(game.losses[row, game.awake[row]]) for row in rows]
        total += rate / 8.0 * float((np.square(spread) / scale).sum())
    return float(total)


def regrets(game: Game, before: Floats) -> Floats:
    """By pair, how much more the weighted mean lost than the comparator, where it is awake."""
    total = np.zeros(before.shape[2])
    for row in counted(game):
        here = game.awake[row]
        if here[game.comparator[row]]:
            weights = before[row][here] / before[row][here].sum(axis=0)
            total += game.losses[row, here] @ weights - game.losses[row, game.comparator[row]]
    return total


RATES = (0.1, 0.5, 2.0, 8.0)
games = st.builds(
    make_game,
    st.integers(0, 10**6),
    st.integers(1, 80),
    st.integers(2, 6),
    st.integers(0, 4),
    st.sampled_from([1.0, 1e-3, 50.0]),
)


def without_sleep(game: Game) -> Game:
    """The same where everybody predicts and every label comes."""
    awake, learned = np.ones_like(game.awake), np.ones_like(game.learned)
    comparator = best_sequence(game.losses, awake, learned, 2)
    return game._replace(awake=awake, learned=learned, comparator=comparator)


@given(games, st.booleans())
@settings(max_examples=80)
def test_no_sequence_of_losses_breaks_the_bound(game: Game, all_awake: bool) -> None:
    """With losses as they are, against the best sequence with so many switches, at every pair.

    A comparator that sleeps is not compared with: its records only cost the shares.
    """
    game = (without_sleep(game) if all_awake else game)._replace(scale=np.ones(len(game.losses)))
    tracked = FixedShare(RATES, SHARES, together(game.losses.shape[1]))
    found = regrets(game, tracked.run(game.losses, game.awake, game.learned))
    pairs = itertools.product(RATES, SHARES)
    for regret, (rate, share) in zip(found, pairs, strict=True):
        assert regret <= terms(game, rate, share) * (1 + SLACK)


@given(games, st.booleans())
@settings(max_examples=80)
def test_no_scale_that_changes_breaks_the_bound(game: Game, all_awake: bool) -> None:
    """Whatever it does, if it is known before the record: a rise costs, and a fall is free."""
    game = without_sleep(game) if all_awake else game
    tracked = FixedShare(RATES, SHARES, together(game.losses.shape[1]))
    found = regrets(game, tracked.run(game.losses, game.awake, game.learned, game.scale))
    pairs = itertools.product(RATES, SHARES)
    for regret, (rate, share) in zip(found, pairs, strict=True):
        assert regret <= terms(game, rate, share) * (1 + SLACK)


def test_an_adversary_who_hits_whoever_leads_is_bounded_too() -> None:
    """The expert with the largest weight loses every time: this is the worst there is."""
    tracked = FixedShare((0.5,), (1e-2,), together(3))
    losses, before = np.zeros((2_000, 3)), []
    for row in losses:
        row[tracked.weights[:, 0].argmax()] = 1.0
        before.append(tracked.run(row[None], np.ones((1, 3), bool), np.ones(1, bool)))
    awake, learned = np.ones_like(losses, dtype=bool), np.ones(len(losses), dtype=bool)
    for switches in (0, 5, 20):
        comparator = best_sequence(losses, awake, learned, switches)
        game = Game(losses, awake, learned, np.ones(len(losses)), comparator)
        (regret,) = regrets(game, np.concatenate(before))
        assert 0.0 < regret <= terms(game, 0.5, 1e-2)


def test_an_expert_that_becomes_good_has_the_weight_soon() -> None:
    """A thousand bad records do not count after some tens of good ones: a share is for that."""
    losses = np.repeat([[0.0, 1.0], [1.0, 0.0]], [1_000, 40], axis=0)
    tracked = FixedShare((0.5,), (1e-3,), together(2))
    tracked.run(losses, np.ones_like(losses, dtype=bool), np.ones(len(losses), dtype=bool))
    assert tracked.weights[1, 0] > 0.99


def test_who_sleeps_keeps_its_share_of_the_weight() -> None:
    """Neither a gain nor a loss, up to the share that is spread."""
    tracked = FixedShare((2.0,), (1e-4,), together(3))
    losses = np.tile([1.0, 0.0, 7.0], (100, 1))
    awake = np.tile([True, True, False], (100, 1))
    tracked.run(losses, awake, np.ones(100, dtype=bool))
    assert tracked.weights[2, 0] == pytest.approx(1 / 3, abs=0.01)
    assert tracked.weights.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("learned", [True, False])
def test_nobody_awake_or_no_label_leaves_no_trace(learned: bool) -> None:
    """Such records do not even spread the share."""
    tracked = FixedShare(RATES, SHARES, together(3))
    tracked.run(np.array([[0.0, 1.0, 1.0]]), np.ones((1, 3), bool), np.ones(1, bool))
    known = tracked.weights.copy()
    tracked.run(np.ones((5, 3)), np.full((5, 3), not learned), np.full(5, learned))
    assert np.array_equal(known, tracked.weights)


sizes = st.sampled_from([0.0, 1e-300, 1.0, 1e6, 1e300])


@given(
    st.lists(
        st.tuples(
            *[sizes] * 3, *[st.booleans()] * 3, st.sampled_from([1e-300, 1.0, 1e300, math.inf])
        ),
        min_size=1,
        max_size=20,
    )
)
@example([(1e6, 1e300, 1.0, True, True, False, 1e-300)])
def test_no_size_of_losses_makes_a_weight_anything_but_a_weight(
    records: list[tuple[float, float, float, bool, bool, bool, float]],
) -> None:
    """Also where all that are awake lose 1e300 and another one sleeps: weights sum to 1."""
    table = np.array([each[:3] for each in records])
    awake = np.array([each[3:6] for each in records])
    tracked = FixedShare(RATES, SHARES, together(3))
    before = tracked.run(
        table, awake, np.ones(len(table), dtype=bool), np.array([each[6] for each in records])
    )
    for weights in (before, tracked.weights):
        assert (weights > 0.0).all()
        assert np.allclose(weights.sum(axis=-2), 1.0)


Codes = NDArray[np.intp]


def half_brier(labels: Codes, classes: int) -> Callable[[Floats], Floats]:
    """The loss function of a `Mixture` for these labels."""
    truth = np.eye(classes)[labels][:, None]

    def loss(shares: Floats) -> Floats:
        return np.asarray(((shares - truth) ** 2).sum(axis=2) / 2.0)

    return loss


class Forecasts(NamedTuple):
    """Probabilities of some experts, shape (n, experts, classes), and what came."""

    shares: Floats
    labels: Codes
    game: Game


def make_forecasts(seed: int, count: int, experts: int, classes: int, switches: int) -> Forecasts:
    """Experts that are sure, hardly sure, right and wrong in turn; some sleep."""
    chance = np.random.default_rng(seed)
    sharp = chance.choice([0.05, 0.5, 5.0], (count, experts, 1))
    shares = chance.dirichlet(np.ones(classes), (count, experts)) ** (1.0 / sharp)
    shares /= shares.sum(axis=2, keepdims=True)
    labels = chance.integers(0, classes, count)
    losses = half_brier(labels, classes)(shares)
    game = make_game(seed, count, experts, switches)
    comparator = best_sequence(losses, game.awake, game.learned, switches)
    game = game._replace(losses=losses, comparator=comparator, scale=np.ones(count))
    return Forecasts(shares, labels, game)


forecasts = st.builds(
    make_forecasts,
    st.integers(0, 10**6),
    st.integers(1, 80),
    st.integers(2, 5),
    st.integers(2, 4),
    st.integers(0, 3),
)


@given(forecasts)
@settings(max_examples=80)
def test_half_the_brier_score_of_the_mean_pays_nothing_for_its_range(given_: Forecasts) -> None:
    """At the rate 1/2 it is exp-concave: the mixed prediction needs no last term."""
    shares, labels, game = given_
    tracked = FixedShare((0.5,), (1e-3,), together(shares.shape[1]))
    before = tracked.run(game.losses, game.awake, game.learned)[:, :, 0] * game.awake
    loss = half_brier(labels, shares.shape[2])
    mixed = np.einsum("ne,nec->nc", before, shares)
    total = before.sum(axis=1)
    mixed[total > 0] /= total[total > 0, None]
    lost = loss(mixed[:, None])[:, 0]
    regret = sum(
        lost[row] - game.losses[row, game.comparator[row]]
        for row in counted(game)
        if game.awake[row, game.comparator[row]]
    )
    assert regret <= terms(game, 0.5, 1e-3, ranges=False) * (1 + SLACK)


def served_losses(made: Mixture, given_: Forecasts) -> Floats:
    """Half the Brier score of what the mixture serves, shape (n,)."""
    shares, labels, game = given_
    loss = half_brier(labels, shares.shape[2])
    served = made.run(shares, game.awake, game.learned, loss)[:, 0]
    return np.asarray(loss(np.nan_to_num(served)[:, None])[:, 0])


@given(forecasts)
@settings(max_examples=50)
def test_the_mixture_is_bounded_against_each_of_its_pairs_and_so_against_each_expert(
    given_: Forecasts,
) -> None:
    """The choice of rate and share costs ln(pairs / share) / rate, and the shares."""
    shares, labels, game = given_
    rates = (0.5, 2.0, 8.0)
    made = Mixture(together(shares.shape[1]), rates, 0.5)
    lost = served_losses(made, given_)
    rows = counted(game)
    pairs = len(rates) * len(SHARES)
    choice = math.log(pairs / LAST_SHARE) / 0.5
    choice += len(rows) * math.log(1.0 / (1.0 - LAST_SHARE)) / 0.5
    alone = FixedShare(rates, SHARES, together(shares.shape[1]))
    weights = alone.run(game.losses, game.awake, game.learned) * game.awake[:, :, None]
    loss = half_brier(labels, shares.shape[2])
    for pair in range(pairs):
        mine = weights[:, :, pair]
        total = mine.sum(axis=1, keepdims=True)
        mixed = np.einsum("ne,nec->nc", mine / np.where(total > 0, total, 1.0), shares)
        its = loss(mixed[:, None])[:, 0]
        assert lost[rows].sum() <= its[rows].sum() + choice + SLACK
    compared = [row for row in rows if game.awake[row, game.comparator[row]]]
    if len(compared) == len(rows):
        best = sum(game.losses[row, game.comparator[row]] for row in rows)
        bounds = [terms(game, 0.5, share, ranges=False) for share in SHARES]
        assert lost[rows].sum() <= best + min(bounds) + choice + SLACK


@given(forecasts)
def test_a_mixture_answers_wherever_anybody_does(given_: Forecasts) -> None:
    """NaN only where nobody predicts; elsewhere probabilities that sum to 1."""
    shares, labels, game = given_
    made = Mixture(together(shares.shape[1]), (0.5, 2.0), 0.5)
    loss = half_brier(labels, shares.shape[2])
    served = made.run(
        np.where(game.awake[:, :, None], shares, np.nan), game.awake, game.learned, loss
    )[:, 0]
    silent = ~game.awake.any(axis=1)
    assert np.isnan(served[silent]).all()
    assert np.allclose(served[~silent].sum(axis=1), 1.0, atol=1e-9)


@given(forecasts, st.lists(st.integers(0, 80), max_size=4), st.booleans())
def test_it_does_not_matter_how_records_are_divided_into_blocks(
    given_: Forecasts, cuts: list[int], scaled: bool
) -> None:
    """Weights and served predictions are the same to the last bit."""
    shares, labels, game = given_
    scale = game.scale * (1.0 + np.arange(len(labels))) if scaled else None
    one, many = (Mixture(together(shares.shape[1]), RATES, 0.1) for _ in range(2))

    def run(made: Mixture, rows: slice) -> Floats:
        loss = half_brier(labels[rows], shares.shape[2])
        part = None if scale is None else scale[rows]
        return made.run(shares[rows], game.awake[rows], game.learned[rows], loss, part)

    whole = run(one, slice(None))
    edges = sorted({0, len(labels), *(cut for cut in cuts if cut < len(labels))})
    parts = [run(many, slice(*pair)) for pair in itertools.pairwise(edges)]
    assert np.array_equal(whole, np.concatenate(parts), equal_nan=True)
    assert np.array_equal(one.lower.weights, many.lower.weights)
    assert np.array_equal(one.upper.weights, many.upper.weights)
