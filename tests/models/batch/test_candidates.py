"""Which recipes and windows compete; of those that chance may order, the simplest is chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.batch import candidates, holdout
from models.batch.candidates import Candidate, Trial
from models.batch.recipe_config import BatchRecipe
from models.core import metrics
from models.core.metrics import Measure
from models.core.prediction import BatchPrediction
from models.core.record_schema import Label

CHANCE = np.random.default_rng(0)


def make_parts(rows: int = 1_000) -> holdout.HoldoutSplit:
    """Values in time order, the newest fifth held out."""
    return holdout.split([1.0] * rows, "regression", rows - rows // 5)


def make_trial(answers: BatchPrediction | None, labels: Sequence[Label], measure: Measure) -> Trial:
    """A trial with these answers, scored as a challenge does it; None: it has failed."""
    candidate = Candidate(BatchRecipe(), np.arange(10))
    if answers is None:
        return Trial(candidate, math.nan, failure="it failed")
    rarer = metrics.counted(labels) if measure.task == "classification" else None
    return Trial(candidate, measure.loss(metrics.value(labels, answers, measure, rarer)), answers)


def values(*numbers: float) -> BatchPrediction:
    """A prediction in regression."""
    return BatchPrediction([*numbers], None)


def shares(ones: Sequence[float]) -> BatchPrediction:
    """Probabilities of the class 1, of the classes 0 and 1."""
    table = np.array([[1 - each, each] for each in ones])
    return BatchPrediction([int(each > 0.5) for each in ones], table, (0, 1))


def first_of(pairs: Sequence[tuple[float, ...]], name: str = "mae", **knobs: Any) -> int:
    """The choice among models with these errors, row by row."""
    measure = metrics.measure(name, "regression", **knobs)
    labels: list[Label] = [0.0] * len(pairs[0])
    trials = [make_trial(values(*each), labels, measure) for each in pairs]
    return candidates.choose(trials, labels, measure)


def test_by_mae_boosting_competes_with_both_losses() -> None:
    """Absolute errors resist far targets; squared ones learn faster where there are none."""
    mae, rmse = metrics.measure("mae", "regression"), metrics.measure("rmse", "regression")
    two = BatchRecipe(recipes=("linear", "hist_gradient_boosting"), params={"max_iter": 7})
    assert [
        ("linear", {}),
        ("hist_gradient_boosting", {"max_iter": 7, "loss": "squared_error"}),
        ("hist_gradient_boosting", {"max_iter": 7}),
    ] == [(each.recipe, each.params) for each in candidates.recipes(two, mae)]
    assert ["linear", "hist_gradient_boosting"] == [
        each.recipe for each in candidates.recipes(two, rmse)
    ]


def test_a_loss_of_a_persons_own_is_the_only_one() -> None:
    """[batch.params] comes first."""
    own = BatchRecipe(recipe="hist_gradient_boosting", params={"loss": "poisson"})
    measure = metrics.measure("mae", "regression")
    assert [{"loss": "poisson"}] == [each.params for each in candidates.recipes(own, measure)]


def test_one_recipe_alone_or_several() -> None:
    """`recipe` is the case of one; params belong to it, and of several it is the last one."""
    assert ("linear", "hist_gradient_boosting") == BatchRecipe().recipes
    assert ("sgd",) == BatchRecipe(recipe="sgd").recipes
    several = BatchRecipe(recipes=("sgd", "random_forest"), params={"n_estimators": 3})
    assert "random_forest" == several.recipe
    assert ({}, {"n_estimators": 3}) == (
        several.alone("sgd").params,
        several.alone("random_forest").params,
    )
    chosen = BatchRecipe(recipe="sgd", recipes=("sgd", "random_forest"))
    assert "sgd" == chosen.recipe
    assert chosen == BatchRecipe.model_validate(chosen.model_dump(mode="json"))
    assert chosen == BatchRecipe.model_validate(chosen)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"recipes": []}, "at least 1"),
        ({"recipes": ["sgd", "sgd"]}, "name each recipe once"),
        ({"recipes": ["sgd"], "recipe": "linear"}, "must be one of recipes"),
        ({"recipes": "sgd"}, "tuple"),
    ],
)
def test_recipes_that_say_nothing_clear_are_refused(wrong: dict[str, Any], reason: str) -> None:
    """With what was allowed and what came."""
    with pytest.raises(ValidationError, match=reason):
        BatchRecipe.model_validate(wrong)


def test_windows_are_the_whole_and_ever_newer_shares_of_it() -> None:
    """Down to min_rows."""
    first, shorter = candidates.windows(make_parts(), None, BatchRecipe())
    assert [(0, 800)] == [(int(each[0]), len(each)) for each in first]
    assert [(400, 400), (600, 200)] == [(int(each[0]), len(each)) for each in shorter]
    none = candidates.windows(make_parts(), None, BatchRecipe(recent_share=1.0))[1]
    assert () == none


@pytest.mark.parametrize(
    ("changed", "first"), [(300, [300, 0]), (770, [770, 0]), (771, [0]), (0, [0]), (850, [0])]
)
def test_after_a_change_the_rows_since_then_come_first(changed: int, first: list[int]) -> None:
    """With the whole window beside: a change may be a false alarm. Too few rows are no window."""
    found, shorter = candidates.windows(make_parts(), changed, BatchRecipe(min_rows=100))
    assert first == [int(each[0]) for each in found]
    assert all(int(each[0]) >= first[0] for each in shorter)


def test_of_two_that_differ_by_chance_the_simpler_one_is_chosen() -> None:
    """Within one standard error of the difference on the same rows."""
    noise = CHANCE.normal(size=400)
    near = tuple((CHANCE.permutation(noise) * 1.001).tolist())
    assert 0 == first_of([near, tuple(noise.tolist())])
    far = tuple((noise * 1.5).tolist())
    assert 1 == first_of([far, tuple(noise.tolist())])
    assert 0 == first_of([tuple(noise.tolist()), far])


@pytest.mark.parametrize("name", ["mae", "rmse", "r2", "pinball"])
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e200])
def test_the_unit_of_the_target_does_not_matter(name: str, unit: float) -> None:
    """Neither its size, nor that squares of it are beyond all numbers."""
    labels = CHANCE.normal(size=200)
    measure = metrics.measure(name, "regression", quantile=0.9)
    truth: list[Label] = [float(each * unit) for each in labels]
    models = [labels * 0.2, labels * 0.9, labels * 0.9]
    trials = []
    for answers in models:
        plain = make_trial(values(*answers.tolist()), labels.tolist(), measure)
        scaled = values(*(answers * unit).tolist())
        trials.append(Trial(plain.candidate, plain.loss, scaled))
    assert 1 == candidates.choose(trials, truth, measure)


@pytest.mark.parametrize(
    "name", ["brier", "log_loss", "accuracy", "f1", "roc_auc", "average_precision"]
)
def test_every_metric_of_classes_can_choose(name: str) -> None:
    """Row by row where the metric is a mean over rows, and else by the bootstrap."""
    labels: list[Label] = [*([0, 0, 0, 1] * 100)]
    good = shares([0.9 if each else 0.1 for each in labels])
    some = shares([(0.6 if row % 3 else 0.3) if each else 0.2 for row, each in enumerate(labels)])
    some = some if name in ("brier", "log_loss", "accuracy") else shares([0.5, 0.4] * 200)
    measure = metrics.measure(name, "classification")
    trials = [make_trial(each, labels, measure) for each in (some, good, good)]
    assert 1 == candidates.choose(trials, labels, measure)


def test_a_class_that_a_model_does_not_know_counts_against_it() -> None:
    """It had no probability at all."""
    labels: list[Label] = [0, 1, 2, 2] * 50
    three = np.tile([0.25, 0.25, 0.5], (200, 1))
    knows = BatchPrediction([2] * 200, three, (0, 1, 2))
    for name in ("brier", "log_loss"):
        measure = metrics.measure(name, "classification")
        trials = [make_trial(each, labels, measure) for each in (shares([0.5] * 200), knows)]
        assert 1 == candidates.choose(trials, labels, measure)


def test_rows_that_leave_a_metric_undefined_choose_the_simpler_one() -> None:
    """Of two rows, half of the samples are of one class: nothing is known against the first."""
    measure = metrics.measure("roc_auc", "classification")
    labels: list[Label] = [0, 1]
    trials = [
        make_trial(each, labels, measure) for each in (shares([0.5, 0.5]), shares([0.1, 0.9]))
    ]
    assert 0 == candidates.choose(trials, labels, measure)


def test_a_failed_candidate_is_never_chosen_while_another_one_answers() -> None:
    """An unknown loss is chosen before a failure only, and if all failed, the first is named."""
    labels: list[Label] = [0.0, 1.0]
    mae = metrics.measure("mae", "regression")
    failed, good = (make_trial(each, labels, mae) for each in (None, values(0.0, 5.0)))
    unknown = Trial(good.candidate, math.nan, good.answers)
    assert 1 == candidates.choose([failed, good], labels, mae)
    assert 1 == candidates.choose([unknown, good], labels, mae)
    assert 1 == candidates.choose([failed, unknown], labels, mae)
    assert 0 == candidates.choose([failed, failed], labels, mae)


def test_a_single_row_has_no_standard_error() -> None:
    """Then the least loss decides."""
    assert 1 == first_of([(2.0,), (1.0,)])


@given(errors=st.lists(st.lists(st.floats(0, 1e6), min_size=5, max_size=5), min_size=1, max_size=6))
def test_the_chosen_one_is_near_the_best_and_the_first_of_these(errors: list[list[float]]) -> None:
    """Whatever the losses: at most a standard error above the least, and no simpler one is."""
    index = first_of([tuple(each) for each in errors])
    table = np.array(errors)
    best = table[int(np.argmin([float(np.abs(each).mean()) for each in table]))]

    def within(row: int) -> bool:
        gap = table[row] - best
        return bool(gap.mean() <= gap.std(ddof=1) / math.sqrt(5) + 1e-9 * (1 + best.mean()))

    assert within(index)
    least = int(np.argmin(table.mean(axis=1)))
    assert index <= least or table[index].mean() == pytest.approx(table[least].mean())
