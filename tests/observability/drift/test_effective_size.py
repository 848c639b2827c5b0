"""How many independent values a series is worth: known processes, and what no series may do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from observability.drift.effective_size import autocorrelation_time


def make_runs(memory: float, count: int = 20_000, seed: int = 0) -> np.ndarray:
    """A process whose value is `memory` of its last one, and chance."""
    values = np.random.default_rng(seed).normal(size=count)
    for place in range(1, count):
        values[place] += memory * values[place - 1]
    return values


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.8, 0.95])
def test_a_process_of_known_memory_has_its_time(memory: float) -> None:
    """(1 + m) / (1 - m) values count as one, and the estimate is near that."""
    expected = (1 + memory) / (1 - memory)
    assert expected == pytest.approx(autocorrelation_time(make_runs(memory)), rel=0.25)


def test_values_that_alternate_count_as_independent() -> None:
    """Their mean is known better than that of independent ones, which nobody may rely on."""
    assert 1.0 == autocorrelation_time(np.array([0.0, 1.0] * 50))


@pytest.mark.parametrize("values", [[], [3.0], [2.0] * 9])
def test_nothing_that_varies_is_nothing_that_runs(values: list[float]) -> None:
    """No value, one, or a constant: no correlation is known."""
    assert 1.0 == autocorrelation_time(np.array(values))


@given(arrays.arrays(np.float64, st.integers(0, 60), elements=st.floats(0, 1)))
def test_it_is_at_least_one_and_at_most_the_length(values: np.ndarray) -> None:
    """So that an effective number is between one and the number of values."""
    assert 1.0 <= autocorrelation_time(values) <= max(len(values), 1)
