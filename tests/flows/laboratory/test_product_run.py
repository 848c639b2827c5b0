"""The laboratory runs the product itself, and its figures are those of `thermodrift run`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.config import pipeline
from flows.laboratory import members, product_run, records, simulation
from flows.laboratory.product_run import ProductRun
from flows.laboratory.records import LabConfig
from models.core.record_schema import Task
from models.prediction_log import prediction_log
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from tests.flows.makers import NAME, make_pipeline

AT_ONCE = LabConfig(records_per_s=0.0, every=100)
"""Nothing arrives while a model is fitted, as in a run over a file."""


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_rule_of_the_product_serves_what_a_run_serves(
    task: Task, tmp_path: Path, run: Callable[..., dict[str, Any]]
) -> None:
    """Record by record the laboratory serves what `thermodrift run` has logged, and fits as often.

    So its row of the product is no imitation.
    """
    path = make_pipeline(tmp_path, 1_000, task)
    summary = run(path, tmp_path / "home")
    log = prediction_log.read(Places(tmp_path / "home").pipeline(NAME).predictions, 0, 1_000)
    read = records.read(pipeline.read(path), AT_ONCE)
    found = product_run.run(read, tmp_path / "scratch", {})
    champion = simulation.champion_answers(read, found.serving(read, AT_ONCE))
    served = members.serve(read, members.learn(read), champion)
    if task == "classification":
        told = [
            None if np.isnan(row).all() else read.classes[int(np.nanargmax(row))] for row in served
        ]
        assert log["served"].to_pylist() == told
    else:
        logged = np.array([np.nan if v is None else v for v in log["served"].to_pylist()])
        np.testing.assert_allclose(served, logged, rtol=1e-9)
    assert summary["retrains"] == len(found.retrains) >= 2
    assert summary["promotions"] == len(found.promoted)
    assert summary["alarms"] == len(found.alarms)


def test_a_run_comes_back_from_its_arrays(tmp_path: Path) -> None:
    """A finished piece is read as what was written."""
    found = ProductRun(
        (product_run.Retrain(200, "Promoted", 0.5, "v1"),), (400, 600), 5, {"v1": np.ones((3, 2))}
    )
    back = ProductRun.from_arrays(dict(found.to_arrays()))
    assert (found.retrains, found.alarms, found.checks) == (back.retrains, back.alarms, back.checks)
    np.testing.assert_array_equal(found.answers["v1"], back.answers["v1"])


def test_a_version_that_serves_again_costs_no_fit_and_no_wait(tmp_path: Path) -> None:
    """It answers as it did when it was promoted first, and at once."""
    read = records.read(pipeline.read(make_pipeline(tmp_path, 1_000, "regression")), AT_ONCE)
    first, other = np.arange(200.0, 1_000.0), np.full(600, -1.0)
    found = ProductRun(
        (
            product_run.Retrain(200, "Promoted", 0.5, "v1"),
            product_run.Retrain(300, "Rejected", 0.5, None),
            product_run.Retrain(400, "Promoted", 0.5, "v2"),
            product_run.Retrain(600, "Reused", 0.0, "v1"),
        ),
        (400, 600),
        5,
        {"v1": first, "v2": other},
    )
    assert [200, 300, 400] == [each.position for each in found.fits]
    assert [200, 400, 600] == [each.position for each in found.promoted]
    late = LabConfig(records_per_s=100.0, wait_s=1.0)
    assert [350, 550, 600] == [each.since for each in found.serving(read, late)]
    answers = simulation.champion_answers(read, found.serving(read, AT_ONCE))
    np.testing.assert_array_equal(answers[200:400], first[:200])
    assert {-1.0} == set(answers[400:600])
    np.testing.assert_array_equal(answers[600:], first[400:])


def test_knobs_are_checked_as_in_a_pipeline_file(tmp_path: Path) -> None:
    """A knob that there is not is refused, with its name."""
    file = pipeline.read(make_pipeline(tmp_path, 50))
    changed = product_run.with_knobs(file, {"worth": {"cooldown_records": 7}})
    assert 7 == changed.pipeline.worth.cooldown_records
    assert file.pipeline.batch == changed.pipeline.batch
    with pytest.raises(BadConfiguration, match="cooldown_rekords"):
        product_run.with_knobs(file, {"worth": {"cooldown_rekords": 7}})
