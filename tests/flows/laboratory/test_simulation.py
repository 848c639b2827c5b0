"""A simulated policy is honest: it serves no model before that one was ready."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.config import pipeline
from flows.laboratory import candidates, records, simulation
from flows.laboratory.candidates import FittedCandidate
from flows.laboratory.records import LabConfig, StreamRecords
from flows.laboratory.simulation import Served
from observability.core.errors import BadConfiguration
from tests.flows.makers import make_pipeline

ROWS = 1_000


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> StreamRecords:
    """A stream of values in memory."""
    path = make_pipeline(tmp_path_factory.mktemp("read"), ROWS, "regression")
    return records.read(pipeline.read(path), LabConfig())


def made(row: int, fit_s: float, value: float = 0.0) -> FittedCandidate:
    """A candidate that always answers one value."""
    return FittedCandidate(row, row, fit_s, np.full(ROWS - row, value))


FITS = st.lists(st.floats(0.0, 4.0), min_size=9, max_size=9)


@given(FITS, st.floats(0.0, 300.0), st.floats(0.0, 1.0))
def test_a_model_never_serves_before_it_was_ready(
    fits: list[float], records_per_s: float, wait_s: float
) -> None:
    """It waits, it is fitted, and records go on arriving; and one fit is done at a time."""
    config = LabConfig(records_per_s=records_per_s, wait_s=wait_s, every=100)
    found = [made(100 * number, fit_s) for number, fit_s in enumerate(fits, start=1)]
    for asks in simulation.policies(config).values():
        chosen = simulation.chosen(asks, found, config)
        for each, model in zip(chosen, simulation.serving(chosen, config), strict=True):
            assert model.since >= each.row + (each.fit_s + wait_s) * records_per_s - 1e-6
        for before, then in pairwise(chosen):
            assert then.row >= before.ready(config)


def test_what_serves_is_the_newest_model_that_is_ready(read: StreamRecords) -> None:
    """Before the first one nothing answers; each serves until the next one is ready."""
    first = Served(200, 100, made(100, 0, 1.0).answers)
    second = Served(500, 300, made(300, 0, 2.0).answers)
    too_late = Served(2_000, 900, np.zeros(100))
    answers = simulation.champion_answers(read, [first, second, too_late])
    assert np.isnan(answers[:200]).all()
    assert {1.0} == set(answers[200:500])
    assert {2.0} == set(answers[500:])


def fitted_at(name: str, config: LabConfig) -> list[int]:
    """The rows at which a policy fits, of candidates that take no time."""
    found = [made(row, 0.0) for row in range(100, ROWS, 100)]
    asks = simulation.policies(config)[name]
    return [each.row for each in simulation.chosen(asks, found, config)]


def test_each_policy_fits_when_it_says() -> None:
    """Never means the first champion alone; an amount doubles; a schedule is kept."""
    config = LabConfig(every=100)
    assert [100] == fitted_at("never", config)
    assert [100, 200, 400, 800] == fitted_at("amount", config)
    assert [100, 600] == fitted_at("every 500", config)
    assert "every 500" not in simulation.policies(LabConfig(every=300))


def test_a_fit_that_takes_long_makes_a_schedule_late() -> None:
    """A policy that asks while a fit runs gets the next candidate after it."""
    config = LabConfig(every=100, records_per_s=100.0)
    found = [made(row, 2.5) for row in range(100, ROWS, 100)]
    chosen = simulation.chosen(lambda *_: True, found, config)
    assert [100, 400, 700] == [each.row for each in chosen]


def test_a_candidate_is_the_products_own_fit(tmp_path: Path) -> None:
    """It answers every record from its position on, and comes back from its file."""
    file = pipeline.read(make_pipeline(tmp_path, ROWS))
    read = records.read(file, LabConfig())
    assert [200, 400, 600, 800] == candidates.positions(read, LabConfig(every=200))
    found = candidates.fit(read, 400)
    assert found is not None
    assert (400, (600, 2)) == (found.row, found.answers.shape)
    np.testing.assert_allclose(found.answers.sum(axis=1), 1.0)
    back = candidates.from_arrays(dict(candidates.to_arrays(found)))
    assert back is not None
    assert (found.position, found.row, found.fit_s) == (back.position, back.row, back.fit_s)
    assert candidates.fit(read, 20) is None
    assert candidates.from_arrays(dict(candidates.to_arrays(None))) is None


def test_losses_are_what_the_metric_says(tmp_path: Path) -> None:
    """Errors for accuracy, half the squared error for Brier; what is unknown as it is told."""
    path = make_pipeline(tmp_path, ROWS)
    read = records.read(pipeline.read(path), LabConfig())
    sure = np.eye(2)[read.codes]
    unsure = read.unanswered()
    assert ("accuracy", 0.0, 1.0) == (read.loss, read.losses(sure).max(), read.losses(unsure).min())
    assert {0.25} == set(read.losses(unsure, np.full(ROWS, 0.25)))
    assert 1.0 == read.score(0.0)
    path.write_text(path.read_text().replace('name = "small"', 'name = "small"\nmetric = "brier"'))
    proper = records.read(pipeline.read(path), LabConfig())
    assert "brier" == proper.loss
    np.testing.assert_allclose(proper.losses(np.full((ROWS, 2), 0.5)), 0.25)


def test_a_value_is_cut_to_the_labels_before(read: StreamRecords) -> None:
    """As the blend cuts every member: what a model extrapolates costs no more than that."""
    lost = read.losses(np.full(ROWS, 1e9))
    before = np.maximum.accumulate(read.values)[:-1]
    np.testing.assert_allclose(lost[1:], np.abs(before - read.values[1:]))
    assert lost[0] == pytest.approx(1e9 - read.values[0])


def test_a_stream_that_is_too_short_is_refused(tmp_path: Path) -> None:
    """A hundred records tell nothing."""
    with pytest.raises(BadConfiguration, match="100 labelled records"):
        records.read(pipeline.read(make_pipeline(tmp_path, 100)), LabConfig())
