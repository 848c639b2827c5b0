"""The reference of a champion's errors: what it lost on rows that it had not learned from."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from flows.learning import error_reference
from flows.run import bootstrap
from flows.run.state import PipelineState
from models.persistence.signing import SigningKey
from models.registry.registry import Manifest, Registry
from observability.core.paths import Places
from observability.drift.error_monitor import CHAMPION
from tests.flows.makers import NAME, make_pipeline
from tests.flows.nursery import Nursery

RECORDS = 1_600
"""Their world turns round at half of them, after what is tried here."""


def after_a_run(
    nursery: Nursery, folder: Path, *, refit: bool, limit: int
) -> tuple[PipelineState, Manifest]:
    """The state after `limit` records, and the manifest of its first champion, of 600 rows."""
    path = make_pipeline(
        folder,
        RECORDS,
        online={"members": ["linear"]},
        batch={"window": 600, "min_rows": 600, "older_rows": 0, "refit": refit},
        worth={"decide": "person", "min_rows": 600},
    )
    done = nursery.loop(path, folder / "home", limit=limit)
    assert done.returncode == 0, done.stderr
    places, key = Places(folder / "home").pipeline(NAME), SigningKey.open(folder / "home" / "key")
    (manifest,) = Registry(places, key).ls()
    state = bootstrap.load(places, key)
    assert manifest.version == state.champion
    assert refit == manifest.refitted
    return state, manifest


def test_a_champion_that_knows_all_rows_is_compared_with_what_it_lost_before(
    nursery: Nursery, tmp_path: Path
) -> None:
    """Its errors are tested from its first record on, and its pairs with the other members too."""
    state, manifest = after_a_run(nursery, tmp_path, refit=True, limit=700)
    kept = state.held_out[manifest.version]
    assert tuple(range(manifest.holdout_from, manifest.holdout_to)) == kept.positions
    expected = manifest.scores["holdout:challenger"]["brier"]
    assert expected == pytest.approx(math.fsum(kept.losses) / len(kept.losses))
    tests = state.learner.errors.tests
    assert expected == pytest.approx(tests[CHAMPION, ""].reference.mean)
    assert len(kept.losses) == tests[CHAMPION, ""].reference.count
    assert (CHAMPION, "linear") in tests


def test_a_hold_out_that_was_not_learned_is_read_again_and_not_kept(
    nursery: Nursery, tmp_path: Path
) -> None:
    """The champion itself can say what it loses there, whoever promoted it."""
    state, manifest = after_a_run(nursery, tmp_path, refit=False, limit=700)
    assert {} == state.held_out
    tests = state.learner.errors.tests
    expected = manifest.scores["holdout:challenger"]["brier"]
    assert expected == pytest.approx(tests[CHAMPION, ""].reference.mean)


def test_losses_are_kept_of_few_versions_and_of_the_champion_longest(
    nursery: Nursery, tmp_path: Path
) -> None:
    """A checkpoint stays small, however many candidates wait for a person's word."""
    state, manifest = after_a_run(nursery, tmp_path, refit=True, limit=700)
    for version in ("v1", "v2", "v3", "v4"):
        error_reference.keep(state, version, [7, 8], [{"busy": 1.0}, {}], ["busy", "idle"])
    assert {"v3", "v4", manifest.version} == state.held_out.keys()
    (known, unknown) = state.held_out["v4"].losses
    assert 0.0 == known
    assert math.isnan(unknown)
