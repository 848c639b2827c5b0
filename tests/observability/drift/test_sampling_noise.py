"""Thresholds from sampling noise: the false-alarm rate that was asked for, whatever the columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.drift import sampling_noise

COLUMNS = 6


def make_scores(chance: np.random.Generator, pairs: int, kind: str) -> np.ndarray:
    """Scores of pairs of windows of an unchanged world, as a test of this kind gives them."""
    if kind == "distance":
        return np.abs(chance.normal(size=pairs)) * 0.03 + 0.01
    return chance.uniform(size=pairs)


@pytest.mark.parametrize("kind", ["distance", "p-value"])
@pytest.mark.parametrize("columns", [1, COLUMNS])
def test_an_unchanged_world_is_an_alarm_as_seldom_as_asked(kind: str, columns: int) -> None:
    """Of 4,000 looks one in a hundred is allowed, over all columns together; at most two come."""
    chance = np.random.default_rng(1)
    names = [f"c{column}" for column in range(columns)]
    directions = dict.fromkeys(names, kind == "distance")
    alarms, looks = 0, 20
    for _ in range(200):
        scores = {name: make_scores(chance, sampling_noise.PAIRS, kind) for name in names}
        limits = sampling_noise.thresholds(scores, directions, 0.01)
        for _ in range(looks):
            now = {name: make_scores(chance, 1, kind)[0] for name in names}
            alarms += any(
                now[name] >= limits[name] if directions[name] else now[name] <= limits[name]
                for name in names
            )
    assert alarms / (200 * looks) < 0.02


def test_a_column_that_never_varies_drifts_with_any_difference() -> None:
    """Its noise is none: an equal window is at no distance, and any other is over the threshold."""
    scores = {"still": np.zeros(40), "moved": np.linspace(0.0, 0.1, 40)}
    limits = sampling_noise.thresholds(scores, dict.fromkeys(scores, True), 0.01)
    assert 0.0 < limits["still"] < 1e-4
    assert limits["moved"] > 0.1
    alone = sampling_noise.thresholds({"still": np.ones(40)}, {"still": False}, 0.01)
    assert 1.0 - 1e-4 < alone["still"] < 1.0


def test_without_a_column_there_is_no_threshold() -> None:
    """Nothing was scored."""
    assert {} == sampling_noise.thresholds({}, {}, 0.01)


@given(st.floats(0.001, 0.19), st.floats(0.001, 0.19), st.booleans())
def test_fewer_false_alarms_need_a_score_further_out(
    one: float, other: float, larger_is_drift: bool
) -> None:
    """Monotone in the knob, in the direction of the method."""
    scores = {"x": np.linspace(0.1, 0.9, sampling_noise.PAIRS)}
    seldom, often = (
        sampling_noise.thresholds(scores, {"x": larger_is_drift}, share)["x"]
        for share in sorted((one, other))
    )
    assert seldom >= often if larger_is_drift else seldom <= often


def test_values_in_runs_are_drawn_in_blocks() -> None:
    """Independent ones are drawn singly; a block never takes more than an eighth of a window."""
    chance = np.random.default_rng(0)
    assert 1 == sampling_noise.block_length(chance.normal(size=2000), 1000)
    slow = np.cumsum(chance.normal(size=2000))
    assert 125 == sampling_noise.block_length(slow, 1000)
    runs = np.repeat(chance.normal(size=400), 5)
    assert 10 <= sampling_noise.block_length(runs, 1000) <= 40
    assert 1 == sampling_noise.block_length(slow, 4)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40))
def test_a_drawn_window_has_its_size_and_consists_of_blocks(
    count: int, size: int, block: int
) -> None:
    """Every index is one of the reference's, and the next one follows it within a block."""
    drawn = sampling_noise.draw(np.random.default_rng(3), count, size, block)
    assert (size,) == drawn.shape
    assert drawn.min() >= 0
    assert drawn.max() < count
    inside = np.flatnonzero(np.arange(1, size) % block)
    assert ((drawn[inside] + 1) % count == drawn[inside + 1]).all()
