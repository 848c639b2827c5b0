"""Candidates are fitted in order, one is chosen, and if it wins it learns the hold-out too."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.batch import batch_model, evaluation
from models.batch.batch_model import BatchAnswersNothing, BatchCannotLearn
from models.batch.evaluation import Challenge
from models.batch.promotion import Comparison
from models.batch.recipe_config import BatchRecipe
from models.core import metrics
from models.core.metrics import Measure
from models.core.record_schema import Label, LabelKind
from tests import ROOT
from tests.models.makers import make_frame, make_schema, make_window

OWN = """
import numpy as np

class Fails:
    def fit(self, matrix, targets):
        raise RuntimeError("out of order")
    def predict(self, matrix):
        return matrix[:, 0]

class Silent:
    def fit(self, matrix, targets):
        return self
    def predict(self, matrix):
        return np.full(len(matrix), np.nan)

class Forgets:
    '''The mean of its first 240 targets; of more, a number far away, or nothing.'''
    far = 1e9
    def fit(self, matrix, targets):
        self.mean = targets.mean() if len(targets) <= 240 else self.far
        return self
    def predict(self, matrix):
        return np.full(len(matrix), self.mean)

class Breaks(Forgets):
    def fit(self, matrix, targets):
        if len(targets) > 240:
            raise RuntimeError("too many")
        return super().fit(matrix, targets)

class GoesSilent(Forgets):
    far = np.nan
"""


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Path]:
    """A folder with models of one's own, forgotten after the test."""
    (tmp_path / "own_candidates.py").write_text(OWN)
    yield tmp_path
    sys.modules.pop("own_candidates", None)


def beaten(comparison: Comparison) -> bool:
    """A challenger is promoted if it beats the baseline."""
    return comparison.challenger_loss < comparison.baseline_loss


def challenge(count: int = 300, kind: LabelKind = "float", **changes: Any) -> Challenge:
    """A challenge on the default window by the quickest recipe."""
    frame, labels = make_window(count, label_kind=kind)
    given: dict[str, Any] = {
        "recipe": BatchRecipe(recipe="linear"),
        "schema": make_schema("regression" if kind == "float" else "classification", kind),
        "clock": lambda: 0.0,
    }
    return evaluation.evaluate(frame, labels, **(given | changes))


def tried(found: Challenge) -> list[tuple[str, int]]:
    """The recipe and the rows of each candidate."""
    return [(each.candidate.recipe.recipe, len(each.candidate.rows)) for each in found.trials]


def test_recipes_compete_on_one_window_and_windows_with_the_best_recipe() -> None:
    """A class of an and of two signs is beyond a linear model; the shorter window was no better."""
    chance = np.random.default_rng(0)
    rows: list[Any] = [
        {"height": float(a), "colour": None, "weight": float(b)}
        for a, b in chance.normal(size=(1_000, 2))
    ]
    labels: list[Label] = ["same" if row["height"] * row["weight"] > 0 else "not" for row in rows]
    schema = make_schema()
    found = evaluation.evaluate(
        make_frame(rows, schema), labels, recipe=BatchRecipe(), schema=schema, clock=lambda: 0.0
    )
    boosting = "hist_gradient_boosting"
    assert [("linear", 800), (boosting, 800), (boosting, 400)] == tried(found)
    assert (boosting, 1) == (found.recipe, found.chosen)
    assert 2_000 == found.fitted_rows


def test_shorter_windows_are_tried_as_long_as_they_are_better() -> None:
    """A relation that turned a hundred rows before the hold-out leads down to the newest rows."""
    frame, labels = make_window(2_000)
    turned = [
        each if row >= 1_400 else ("low" if each == "high" else "high")
        for row, each in enumerate(labels)
    ]
    found = evaluation.evaluate(
        frame,
        turned,
        recipe=BatchRecipe(recipe="linear"),
        schema=make_schema(),
        clock=lambda: 0.0,
    )
    assert [1_600, 800, 400, 200] == [rows for _, rows in tried(found)]
    assert 1_400 == found.first_row
    assert found.scores["holdout:challenger"]["accuracy"] > 0.9


def test_a_candidate_that_fails_leaves_the_others_in_the_contest(beside: Path) -> None:
    """Why is kept beside it; if none is left, the first failure is the answer."""
    recipe = BatchRecipe(recipes=("own_candidates:Fails", "own_candidates:Silent", "linear"))
    found = challenge(recipe=recipe, beside=beside)
    assert "linear" == found.recipe
    assert "RuntimeError: out of order" in found.trials[0].failure
    assert "no finite answer" in found.trials[1].failure
    assert "" == found.trials[found.chosen].failure
    alone = BatchRecipe(recipes=("own_candidates:Fails", "own_candidates:Silent"))
    with pytest.raises(BatchCannotLearn, match="out of order"):
        challenge(recipe=alone, beside=beside)
    with pytest.raises(BatchAnswersNothing, match="no finite answer"):
        challenge(recipe=BatchRecipe(recipe="own_candidates:Silent"), beside=beside)


def test_what_will_be_promoted_is_fitted_on_all_rows() -> None:
    """Scores and reference are those of the model before, which never saw the hold-out."""
    plain, found = challenge(), challenge(promotes=beaten)
    assert (240, False) == (plain.rows, plain.refitted)
    assert plain.model is plain.scored
    assert (300, True, 0) == (found.rows, found.refitted, found.first_row)
    assert plain.scores == found.scores
    assert plain.reference.to_csv() == found.reference.to_csv()
    frame, labels = make_window(300, label_kind="float")
    measure = metrics.measure("mae", "regression")
    assert plain.model.predict(frame).values == found.scored.predict(frame).values
    schema = make_schema("regression", "float")
    whole = batch_model.fit(frame, labels, BatchRecipe(recipe="linear"), schema, measure=measure)
    assert whole.predict(frame).values == found.model.predict(frame).values
    assert (240, 540) == (plain.fitted_rows, found.fitted_rows)


def test_a_refit_begins_where_its_candidate_did() -> None:
    """The rows before a change are no more part of it than before."""
    frame, labels = make_window(1_000, label_kind="float")
    jumped: list[Label] = [*labels[:600], *(-1_000 * float(label) for label in labels[600:])]
    found = evaluation.evaluate(
        frame,
        jumped,
        recipe=BatchRecipe(recipe="linear"),
        schema=make_schema("regression", "float"),
        clock=lambda: 0.0,
        changed=600,
        promotes=beaten,
    )
    assert (600, 400, True) == (found.first_row, found.rows, found.refitted)
    assert 800 == found.parts.newest


@pytest.mark.parametrize("knobs", [{"refit": False}, {}])
def test_a_challenger_that_is_not_promoted_is_not_fitted_again(knobs: dict[str, Any]) -> None:
    """The fit would be for nothing. Nor is any, where the pipeline file says so."""
    promotes = beaten if knobs else (lambda _: False)
    found = challenge(recipe=BatchRecipe(recipe="linear", **knobs), promotes=promotes)
    assert (240, False) == (found.rows, found.refitted)


@pytest.mark.parametrize("name", ["Forgets", "Breaks", "GoesSilent"])
def test_a_refit_that_fails_leaves_the_model_before_it(beside: Path, name: str) -> None:
    """It raised, or cannot answer, or would not win with its loss on the rows that it learned."""
    recipe = BatchRecipe(recipe=f"own_candidates:{name}")

    def promotes(comparison: Comparison) -> bool:
        return comparison.challenger_loss < 10 * comparison.baseline_loss

    found = challenge(recipe=recipe, beside=beside, promotes=promotes)
    assert (240, False) == (found.rows, found.refitted)
    assert found.model is found.scored


def test_the_answer_on_unlabelled_rows_is_of_the_model_before_the_refit() -> None:
    """A reference has the answers of one model, which saw none of the rows."""
    found = challenge(promotes=beaten, reference_rows=300)
    frame, _ = make_window(5, seed=7, label_kind="float")
    schema = make_schema("regression", "float")
    more = evaluation.with_unlabelled(
        found, range(0, 600, 2), frame, [591, 593, 595, 597, 599], schema=schema, reference_rows=305
    )
    answered = more.reference["prediction"][more.reference["class"].isna()].tolist()
    assert found.scored.predict(frame).values == answered


@pytest.mark.parametrize(
    ("measure", "loss"),
    [
        (None, "squared_error"),
        (Measure("mae"), "absolute_error"),
        (Measure("rmse"), "squared_error"),
        (Measure("r2"), "squared_error"),
        (Measure("pinball", 0.9), "quantile"),
    ],
)
def test_boosting_fits_for_the_metric(measure: Measure | None, loss: str) -> None:
    """And a person's loss comes before that."""
    frame, labels = make_window(label_kind="float")
    schema = make_schema("regression", "float")
    made = batch_model.fit(frame, labels, BatchRecipe(), schema, measure=measure)
    assert loss == made.estimator.loss
    assert (0.9 if loss == "quantile" else None) == made.estimator.quantile
    own = BatchRecipe(params={"loss": "gamma"})
    shifted: list[Label] = [abs(float(each)) + 1.0 for each in labels]
    assert "gamma" == batch_model.fit(frame, shifted, own, schema, measure=measure).estimator.loss


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e9])
def test_far_targets_have_no_pull_on_a_linear_model_by_mae(unit: float) -> None:
    """One row in twenty is a thousand times too large; the unit of the target does not matter."""
    frame, labels = make_window(1_000, label_kind="float")
    schema = make_schema("regression", "float")
    spoilt: list[Label] = [
        unit * float(each) * (1_000.0 if row % 20 == 0 else 1.0) for row, each in enumerate(labels)
    ]
    losses = {}
    for name in ("mae", "rmse"):
        measure = metrics.measure(name, "regression")
        made = batch_model.fit(frame, spoilt, BatchRecipe(recipe="linear"), schema, measure=measure)
        errors = np.array(made.predict(frame).values) / unit - np.array(labels)
        losses[name] = float(np.abs(errors).mean())
    assert losses["mae"] < losses["rmse"] / 10


def test_the_baseline_is_the_best_constant_by_the_metric() -> None:
    """The mean by RMSE, the quantile by pinball loss: no model is promoted for being one."""
    labels: list[Label] = [float(each) for each in (0, 1, 2, 3, 94)]
    frame, _ = make_window(1)
    found = {
        name: batch_model.baseline(labels, "regression", Measure(name, 0.75)).predict(frame).values
        for name in ("mae", "rmse", "r2", "pinball")
    }
    assert {"mae": [2.0], "rmse": [20.0], "r2": [20.0], "pinball": [3.0]} == found


def test_the_choice_does_not_depend_on_the_order_of_sets() -> None:
    """Two processes with other hash seeds fit the same candidates and choose the same one."""
    code = """
from tests.models.makers import make_schema, make_window
from models.batch import evaluation
from models.batch.recipe_config import BatchRecipe
frame, labels = make_window(600)
found = evaluation.evaluate(frame, labels, recipe=BatchRecipe(min_rows=50), schema=make_schema(),
    clock=lambda: 0.0, promotes=lambda _: True)
print([(each.candidate.recipe.model_dump_json(), len(each.candidate.rows), each.loss)
    for each in found.trials], found.chosen)
print(found.model.predict(frame).probabilities.tobytes().hex()[:4000])
"""
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PATH": "", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert 1 == len(told)
