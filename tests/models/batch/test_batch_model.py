"""Batch models learn from any window, answer in finite numbers, and are compared fairly."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads

from models.batch import batch_model, recipe_config, recipes
from models.batch import evaluation as challenges
from models.batch.batch_model import (
    BatchAnswersNothing,
    BatchCannotLearn,
    BatchModel,
    TooLittleToLearn,
)
from models.batch.recipe_config import BatchRecipe
from models.core import metrics
from models.core.metrics import Measure
from models.core.prediction import BatchPrediction
from models.core.record_schema import Label, LabelKind, Schema, Task
from models.persistence import serialization
from observability.core.errors import BadConfiguration
from tests import ROOT
from tests.models.makers import (
    make_dummy,
    make_frame,
    make_label,
    make_rows,
    make_schema,
    make_window,
)

RECIPES = ["hist_gradient_boosting", "random_forest", "linear", "sgd"]
KINDS: list[LabelKind] = ["str", "int", "float"]

OWN_MODEL = '''
import numpy as np

class Own:
    """Learns nothing but the codes that it was given; sure of the code of the first row."""
    def __init__(self, **given):
        self.given = given
        self.bad = None
    def fit(self, matrix, targets):
        self.shape = matrix.shape
        self.seen = np.unique(targets)
        self.first = targets[0]
        return self
    def predict(self, matrix):
        return np.full(len(matrix), self.first)

class WithProbabilities(Own):
    def predict_proba(self, matrix):
        return np.tile(np.where(self.seen == self.first, 0.75, 0.25), (len(matrix), 1))

class WithDecision(Own):
    def decision_function(self, matrix):
        return np.full(len(matrix), np.log(3.0))

class WithDecisions(Own):
    def decision_function(self, matrix):
        return np.tile(np.log([1.0, 2.0, 5.0]), (len(matrix), 1))

class NotFinite(Own):
    def predict_proba(self, matrix):
        return np.full((len(matrix), len(self.seen)), np.nan)
    def predict(self, matrix):
        return np.full(len(matrix), np.inf)

class NothingLikely(Own):
    def predict_proba(self, matrix):
        return np.zeros((len(matrix), len(self.seen)))

class WrongShape(Own):
    def predict_proba(self, matrix):
        return np.ones((len(matrix), 7)) / 7
    def predict(self, matrix):
        return np.ones(3)

class Raises(Own):
    def predict_proba(self, matrix):
        raise RuntimeError("out of order")

class CannotFit(Own):
    def fit(self, matrix, targets):
        raise RuntimeError("no device")

def takes_both(task, seed): return Own(task=task, seed=seed)
def takes_seed(*, seed): return Own(seed=seed)
def takes_anything(**keywords): return Own(**keywords)
def takes_device(seed, device): return Own(seed=seed, device=device)
def takes_nothing(): return Own()
def makes_nothing(): return object()
def fails(): raise ValueError("no licence")
def forest(task, seed):
    from sklearn.tree import DecisionTreeClassifier
    return DecisionTreeClassifier(random_state=seed)
'''


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Path]:
    """A folder with models of one's own, forgotten after the test."""
    (tmp_path / "own_models.py").write_text(OWN_MODEL)
    yield tmp_path
    sys.modules.pop("own_models", None)


def make_model(recipe: str = "linear", beside: Path | None = None, **changes: Any) -> BatchModel:
    """A model fitted on the default window."""
    kind: LabelKind = changes.pop("label_kind", "str")
    task: Task = "regression" if kind == "float" else "classification"
    frame, labels = make_window(label_kind=kind)
    wanted = BatchRecipe(recipe=recipe, **changes)
    return batch_model.fit(frame, labels, wanted, make_schema(task, kind), beside)


def make_prediction(
    values: Sequence[Label], probabilities: Any = None, labels: Sequence[Label] = ()
) -> BatchPrediction:
    """A prediction as a model would give it."""
    shares = None if probabilities is None else np.array(probabilities, dtype=np.float64)
    return BatchPrediction(list(values), shares, tuple(labels))


def make_ticks(*times_s: float) -> Any:
    """A clock that shows these times, one after another."""
    return iter(times_s).__next__


def challenge(count: int = 300, **changes: Any) -> challenges.Challenge:
    """A challenge on the default window by the quickest recipe."""
    frame, labels = make_window(count)
    given: dict[str, Any] = {
        "recipe": BatchRecipe(recipe="linear"),
        "schema": make_schema(),
        "clock": make_ticks(10.0, 12.5),
    }
    return challenges.evaluate(frame, labels, **(given | changes))


def test_the_recipes_by_name_are_known_without_scikit_learn() -> None:
    """A pipeline file is checked by these names alone, before anything slow is imported."""
    code = "import sys, models.batch.recipe_config; print('sklearn' in sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "False\n" == told.stdout


def test_each_recipe_by_name_has_an_estimator_of_its_own() -> None:
    """A name that is added and forgotten where estimators are made would get another's."""
    assert RECIPES == list(recipe_config.PLAIN)
    tasks: tuple[Task, ...] = ("classification", "regression")
    for task in tasks:
        made = [recipes.build(each, {}, task, 0, make_schema(), None) for each in RECIPES]
        assert len(RECIPES) == len({type(each.estimator) for each in made})


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_recipe_learns_what_can_be_learned(recipe: str, kind: LabelKind) -> None:
    """On rows it never saw it is far better than the dummy, and answers labels of their kind."""
    model = make_model(recipe, label_kind=kind)
    frame, labels = make_window(200, seed=1, label_kind=kind)
    dummy = batch_model.baseline(labels, model.task)
    prediction = model.predict(frame)
    measure = metrics.measure("auto", model.task)
    loss = metrics.value(labels, prediction, measure)
    least = metrics.value(labels, dummy.predict(frame), measure)
    assert loss < least / 2
    assert {type(label) for label in labels} == {type(value) for value in prediction.values}


@pytest.mark.parametrize("recipe", RECIPES)
def test_probabilities_are_of_every_class_in_order(recipe: str) -> None:
    """float64 of shape (n, classes), rows summing to 1, the value being the most probable."""
    model = make_model(recipe, label_kind="int")
    prediction = model.predict(make_window(50, seed=2)[0])
    assert (3, 7) == model.labels == prediction.labels
    assert prediction.probabilities is not None
    assert (50, 2) == prediction.probabilities.shape
    assert np.float64 == prediction.probabilities.dtype
    assert np.allclose(1, prediction.probabilities.sum(axis=1), atol=1e-12)
    best = [model.labels[code] for code in prediction.probabilities.argmax(axis=1)]
    assert best == prediction.values


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", ["str", "float"])
def test_strange_columns_and_strange_rows_are_answered(recipe: str, kind: LabelKind) -> None:
    """Empty, constant, huge and many-valued columns; then cells that are new, missing or huge."""
    task: Task = "regression" if kind == "float" else "classification"
    schema = make_schema(
        task,
        kind,
        {
            "height": "number",
            "empty": "number",
            "constant": "number",
            "huge": "number",
            "town": "category",
            "nowhere": "category",
            "always": "category",
        },
    )
    rows = [
        {
            "height": row["height"],
            "empty": None,
            "constant": 7.0,
            "huge": 1e308 if place == 5 else float(place % 3),
            "town": None if place % 11 == 0 else f"town {place % 290}",
            "nowhere": None,
            "always": "yes",
        }
        for place, row in enumerate(make_rows(600))
    ]
    labels = [make_label(row, kind) for row in make_rows(600)]
    model = batch_model.fit(make_frame(rows, schema), labels, BatchRecipe(recipe=recipe), schema)
    strange = [
        dict.fromkeys(schema.names),
        rows[1] | {"height": 1e308, "constant": -1e308, "huge": -1e308},
        rows[1] | {"empty": 3.0, "nowhere": "here", "always": "no", "town": "a town never seen"},
    ]
    prediction = model.predict(make_frame(strange, schema))
    assert 3 == len(prediction.values)
    if kind == "float":
        assert all(math.isfinite(float(value)) for value in prediction.values)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", ["str", "float"])
def test_the_same_seed_gives_the_same_model(recipe: str, kind: LabelKind) -> None:
    """A fit is repeatable to the last bit."""
    frame, _ = make_window(50, seed=4)
    once, again = (make_model(recipe, label_kind=kind, seed=3).predict(frame) for _ in range(2))
    assert once.values == again.values
    assert (once.probabilities is None) == (kind == "float")
    if once.probabilities is not None and again.probabilities is not None:
        assert once.probabilities.tobytes() == again.probabilities.tobytes()


def test_another_seed_gives_another_forest() -> None:
    """The seed reaches the estimator."""
    frame, _ = make_window(50, seed=4)
    one, other = (
        make_model("random_forest", label_kind="float", seed=seed).predict(frame).values
        for seed in (1, 2)
    )
    assert one != other


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_model_answers_the_same_after_the_round_trip(recipe: str) -> None:
    """Its pickle is the model."""
    model = make_model(recipe, label_kind="float")
    frame, _ = make_window(20, seed=5)
    again = serialization.loads(serialization.dumps(model))
    assert isinstance(again, BatchModel)
    assert model.predict(frame).values == again.predict(frame).values


@pytest.mark.parametrize("kind", ["str", "float"])
def test_no_rows_give_no_answers(kind: LabelKind) -> None:
    """An empty frame is no error: a batch of the stream may be all rejects."""
    model = make_model(label_kind=kind)
    prediction = model.predict(make_window(20)[0].iloc[:0])
    assert [] == prediction.values
    if kind == "str":
        assert prediction.probabilities is not None
        assert (0, 2) == prediction.probabilities.shape
    else:
        assert prediction.probabilities is None


def test_the_order_of_columns_and_an_extra_one_change_nothing() -> None:
    """Columns go by their names."""
    model = make_model()
    frame, _ = make_window(30, seed=6)
    turned = frame[frame.columns[::-1]].assign(extra=1.0)
    assert model.predict(frame).values == model.predict(turned).values


def test_a_missing_column_is_said_so() -> None:
    """It is never taken for a column of missing values."""
    with pytest.raises(BatchAnswersNothing, match="height"):
        make_model().predict(make_window(5)[0].drop(columns="height"))


def test_a_category_is_taken_natively_by_the_default_recipe() -> None:
    """Colours that no order of codes could part are told apart."""
    colours = [f"c{place % 40}" for place in range(2000)]
    schema = make_schema(columns={"colour": "category"})
    labels: list[Label] = ["odd" if int(each[1:]) % 2 else "even" for each in colours]
    frame = make_frame([{"colour": each} for each in colours], schema)
    recipe = BatchRecipe(params={"max_iter": 1, "max_leaf_nodes": 2, "learning_rate": 1.0})
    assert labels == batch_model.fit(frame, labels, recipe, schema).predict(frame).values


def test_few_bins_bound_the_categories() -> None:
    """The cap follows the estimator's max_bins, else it would refuse to fit."""
    schema = make_schema(columns={"town": "category"})
    rows = [{"town": f"town {place % 90}"} for place in range(400)]
    labels: list[Label] = ["a" if place % 90 < 45 else "b" for place in range(400)]
    recipe = BatchRecipe(params={"max_bins": 16})
    model = batch_model.fit(make_frame(rows, schema), labels, recipe, schema)
    assert 400 == len(model.predict(make_frame(rows, schema)).values)


def test_too_few_rows_are_refused() -> None:
    """The numbers are in the message; the bound is min_rows without its hold-out."""
    frame, labels = make_window(160)
    recipe = BatchRecipe(recipe="linear")
    with pytest.raises(TooLittleToLearn, match=r"159 rows are too few.*160 are needed"):
        batch_model.fit(frame[:159], labels[:159], recipe, make_schema())
    assert ("high", "low") == batch_model.fit(frame, labels, recipe, make_schema()).labels


def test_a_single_class_is_refused() -> None:
    """There is nothing to tell apart."""
    frame, _ = make_window()
    with pytest.raises(TooLittleToLearn, match=r"all 300 rows are of one class .'low'."):
        batch_model.fit(frame, ["low"] * 300, BatchRecipe(), make_schema())


def test_a_window_without_a_single_value_is_refused() -> None:
    """Columns that hold nothing are left out, and then there is none."""
    frame, labels = make_window()
    with pytest.raises(TooLittleToLearn, match="no feature has a value in any of 300 rows"):
        batch_model.fit(
            pd.DataFrame(None, frame.index, frame.columns, dtype=object),
            labels,
            BatchRecipe(),
            make_schema(),
        )


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_target_that_is_not_finite_is_refused(wrong: float) -> None:
    """One NaN among the targets would make a model that answers NaN."""
    frame, labels = make_window(label_kind="float")
    with pytest.raises(TooLittleToLearn, match="1 of 300 targets"):
        batch_model.fit(frame, [*labels[:-1], wrong], BatchRecipe(), make_schema("regression"))


def test_rows_and_labels_must_pair() -> None:
    """One label too few is a mistake of the caller."""
    frame, labels = make_window()
    with pytest.raises(ValueError, match="300 rows came with 299 labels"):
        batch_model.fit(frame, labels[1:], BatchRecipe(), make_schema())


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"recipe": "xgboost"}, "recipe must be one of hist_gradient_boosting, .*came: 'xgboost'"),
        ({"params": {"max_itre": 5}}, "max_itre is not a parameter.*max_iter"),
        ({"params": {"max_iter": -5}}, r"\[batch.params\] does not suit.*max_iter"),
        ({"params": {"random_state": 5}}, "random_state cannot be set: set batch.seed"),
        ({"params": {"categorical_features": [0]}}, "categorical_features cannot be set"),
        ({"recipe": "random_forest", "params": {"n_jobs": 4}}, "n_jobs cannot be set"),
    ],
)
def test_a_mistake_in_the_recipe_names_its_key(wrong: dict[str, Any], reason: str) -> None:
    """The message says which key, what was allowed and what came."""
    with pytest.raises(BadConfiguration, match=reason):
        make_model(**({"recipe": "hist_gradient_boosting"} | wrong))


@pytest.mark.parametrize(
    "wrong", [{"windows": 1}, {"holdout": 0}, {"holdout": 1}, {"min_rows": 1}, {"seed": -1}]
)
def test_a_wrong_knob_is_refused(wrong: dict[str, Any]) -> None:
    """Unknown keys and values out of bounds."""
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        BatchRecipe.model_validate(wrong)


def test_parameters_reach_the_estimator() -> None:
    """Also through the scaling of targets that one recipe needs."""
    assert 3 == make_model("random_forest", params={"n_estimators": 3}).estimator.n_estimators
    scaled = make_model("sgd", label_kind="float", params={"alpha": 0.5}).estimator
    assert 0.5 == scaled.regressor_.alpha


@pytest.mark.parametrize(("cells", "alone"), [(1_999_999, True), (2_000_000, False)])
def test_small_work_is_done_in_one_thread(cells: int, alone: bool) -> None:
    """More threads would wait for each other; afterwards all are free again."""
    before = _openmp_effective_n_threads()
    with recipes.working(cells):
        assert (1 if alone else before) == _openmp_effective_n_threads()
    assert before == _openmp_effective_n_threads()


def test_a_fit_that_fails_is_named() -> None:
    """Early stopping by hand on a class of one row: scikit-learn's reason is kept."""
    frame, labels = make_window()
    labels = ["alone", *labels[1:]]
    recipe = BatchRecipe(params={"early_stopping": True})
    with pytest.raises(BatchCannotLearn, match="fitting 'hist_gradient_boosting' on 300 rows"):
        batch_model.fit(frame, labels, recipe, make_schema())


def test_an_unfinished_fit_is_no_warning() -> None:
    """Two rounds are not enough to converge; the scores will say what that is worth."""
    model = make_model("linear", params={"max_iter": 2})
    assert 2 == model.estimator.max_iter


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("takes_both", {"task": "classification", "seed": 5}),
        ("takes_seed", {"seed": 5}),
        ("takes_anything", {"task": "classification", "seed": 5}),
        ("takes_device", {"seed": 5, "device": None}),
        ("takes_nothing", {}),
        ("Own", {"task": "classification", "seed": 5}),
    ],
)
def test_a_factory_gets_what_it_takes(
    beside: Path, factory: str, expected: dict[str, object]
) -> None:
    """Each goes to a factory that has it; the device, none here, to one that names it alone."""
    model = make_model(f"own_models:{factory}", beside, seed=5)
    assert expected == model.estimator.given


@pytest.mark.parametrize("kind", ["str", "int"])
def test_a_model_of_ones_own_gets_codes_and_finite_numbers(beside: Path, kind: LabelKind) -> None:
    """Classes are 0 to k-1 whatever the labels are; answers are the labels again."""
    model = make_model("own_models:WithProbabilities", beside, label_kind=kind)
    frame, labels = make_window(label_kind=kind)
    assert [0, 1] == model.estimator.seen.tolist()
    assert np.isfinite(model.preparation.transform(frame)).all()
    assert [labels[0]] * 300 == model.predict(frame).values
    assert labels[0] in model.labels


def test_a_model_of_scikit_learns_kind_takes_parameters(beside: Path) -> None:
    """[batch.params] reach what the factory made, and unknown ones are refused."""
    model = make_model("own_models:forest", beside, params={"max_depth": 2}, seed=8)
    assert (2, 8) == (model.estimator.max_depth, model.estimator.random_state)
    with pytest.raises(BadConfiguration, match="max_dept is not a parameter of 'own_models:forest"):
        make_model("own_models:forest", beside, params={"max_dept": 2})


def test_a_model_without_parameters_refuses_them(beside: Path) -> None:
    """A plain class has no set_params."""
    with pytest.raises(BadConfiguration, match=r"takes no parameters.*remove: depth"):
        make_model("own_models:Own", beside, params={"depth": 2})


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("makes_nothing", "came: object without fit, predict"),
        ("fails", "failed to make a model: ValueError: no licence"),
        ("absent", "has no 'absent'"),
    ],
)
def test_a_factory_that_makes_no_model_is_refused(beside: Path, factory: str, reason: str) -> None:
    """The message names the recipe and what was wrong with it."""
    with pytest.raises(BadConfiguration, match=reason):
        make_model(f"own_models:{factory}", beside)


def test_a_factory_without_a_signature_gets_nothing() -> None:
    """Some callables of C do not say what they take."""
    with pytest.raises(BadConfiguration, match="came: dict without fit, predict"):
        make_model("builtins:dict")


def probabilities_of(model: BatchModel) -> NDArray[np.float64]:
    """What `model` answers for two rows."""
    found = model.predict(make_window(2)[0]).probabilities
    assert found is not None
    return found


def test_a_decision_function_becomes_probabilities(beside: Path) -> None:
    """The logistic of log 3 is 3/4, for the second class."""
    found = probabilities_of(make_model("own_models:WithDecision", beside))
    assert np.allclose([[0.25, 0.75]] * 2, found)


def test_decision_functions_of_several_classes_become_probabilities(beside: Path) -> None:
    """Softmax of logs is the numbers' shares."""
    frame, labels = make_window()
    labels = ["middle" if place % 3 else label for place, label in enumerate(labels)]
    recipe = BatchRecipe(recipe="own_models:WithDecisions")
    model = batch_model.fit(frame, labels, recipe, make_schema(), beside)
    assert np.allclose([[1 / 8, 2 / 8, 5 / 8]] * 2, probabilities_of(model))
    assert {"middle"} == set(model.predict(frame).values)


def test_a_model_that_only_predicts_is_all_sure(beside: Path) -> None:
    """All probability goes to the class that it predicts."""
    model = make_model("own_models:Own", beside)
    expected = np.eye(2)[[model.estimator.first] * 2]
    assert expected.tolist() == probabilities_of(model).tolist()


def test_hinge_loss_has_probabilities_too() -> None:
    """SGD with its own default loss has none of its own."""
    found = probabilities_of(make_model("sgd", params={"loss": "hinge"}))
    assert np.allclose(1, found.sum(axis=1))


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("NotFinite", "str", "no finite answer for 4 of 4 rows"),
        ("NotFinite", "float", "no finite answer for 4 of 4 rows"),
        ("NothingLikely", "str", "no finite answer for 4 of 4 rows"),
        ("WrongShape", "str", r"in the shape \(4, 2\); came: \(4, 7\)"),
        ("WrongShape", "float", r"in the shape \(4,\); came: \(3,\)"),
        ("Raises", "str", "RuntimeError: out of order"),
    ],
)
def test_an_answer_that_is_none_is_refused(
    beside: Path, name: str, kind: LabelKind, reason: str
) -> None:
    """No NaN and no wrong shape ever leaves a model."""
    model = make_model(f"own_models:{name}", beside, label_kind=kind)
    with pytest.raises(BatchAnswersNothing, match=reason):
        model.predict(make_window(4)[0])


def test_an_estimator_that_cannot_fit_is_named(beside: Path) -> None:
    """The cause is kept."""
    with pytest.raises(BatchCannotLearn, match="RuntimeError: no device") as caught:
        make_model("own_models:CannotFit", beside)
    assert isinstance(caught.value.__cause__, RuntimeError)


@given(rows=st.integers(min_value=0, max_value=10_000), share=st.floats(0.001, 0.9))
def test_a_split_holds_out_the_newest_rows(rows: int, share: float) -> None:
    """Both parts cover all rows, once, in order, and neither is empty if two rows are there."""
    train, held_out = batch_model.split(rows, BatchRecipe(holdout=share))
    assert [*range(rows)] == [*range(rows)[train], *range(rows)[held_out]]
    if rows > 1:
        assert train.stop >= 1
        assert held_out.stop - held_out.start >= 1
        assert abs((rows - train.stop) - rows * share) <= 1


def test_the_baseline_answers_shares_or_the_median() -> None:
    """It looks at no feature."""
    frame, _ = make_window(3)
    shares = batch_model.baseline(["b", "a", "a", "a"], "classification").predict(frame)
    assert ["a", "a", "a"] == shares.values
    assert shares.probabilities is not None
    assert [[0.75, 0.25]] * 3 == shares.probabilities.tolist()
    assert [2.0] * 3 == batch_model.baseline([1.0, 2.0, 90.0], "regression").predict(frame).values


def test_a_baseline_of_one_class_is_sure_of_it() -> None:
    """A dull stream has a baseline that cannot be beaten."""
    found = batch_model.baseline([4, 4], "classification").predict(make_window(2)[0])
    assert [4, 4] == found.values


def test_a_baseline_of_nothing_is_refused() -> None:
    """There is no share and no median of no labels."""
    with pytest.raises(TooLittleToLearn, match="at least one label"):
        batch_model.baseline([], "regression")


def test_a_challenge_scores_all_contestants_on_the_same_rows() -> None:
    """The newest fifth is held out, and the older window is cut to its newest rows."""
    frame, labels = make_window(300)
    older_frame, older_labels = make_window(80, seed=9)
    champion = batch_model.fit(frame, ["high", *["low"] * 299], BatchRecipe(), make_schema())
    found = challenge(
        champion=champion,
        older=(older_frame, older_labels),
        recipe=BatchRecipe(recipe="linear", older_rows=50),
    )
    assert (240, 60, 2.5) == (found.rows, found.holdout_rows, found.fit_s)
    models = {
        "challenger": found.model,
        "champion": champion,
        "baseline": batch_model.baseline(labels[:240], "classification"),
    }
    windows = {
        "holdout": (frame[240:], labels[240:]),
        "older": (older_frame[30:], older_labels[30:]),
    }
    expected = {
        f"{window}:{who}": metrics.score(
            answers, model.predict(rows), Measure("brier"), metrics.counted(labels)
        )
        for window, (rows, answers) in windows.items()
        for who, model in models.items()
    }
    assert expected == found.scores


def test_after_an_abrupt_change_the_newest_rows_alone_make_the_challenger() -> None:
    """Where half of the training rows tell of a world that is gone, they are left out."""
    frame, labels = make_window(1_000)
    turned = ["low" if each == "high" else "high" for each in labels[:400]] + labels[400:]
    found = {
        share: challenges.evaluate(
            frame,
            turned,
            recipe=BatchRecipe(recipe="linear", recent_share=share),
            schema=make_schema(),
            clock=make_ticks(0, 0),
        )
        for share in (0.5, 1.0)
    }
    assert (400, 400) == (found[0.5].first_row, found[0.5].rows)
    assert (0, 800) == (found[1.0].first_row, found[1.0].rows)
    fresh, whole = (found[share].scores["holdout:challenger"]["accuracy"] for share in (0.5, 1.0))
    assert fresh > 0.9 > whole
    assert (0, 800) == (challenge(1_000).first_row, challenge(1_000).rows)


def test_the_challenger_never_saw_the_held_out_rows() -> None:
    """Other labels there change its scores, and not the model."""
    frame, labels = make_window(300)
    turned = labels[:240] + ["low" if each == "high" else "high" for each in labels[240:]]
    found = challenges.evaluate(
        frame,
        turned,
        recipe=BatchRecipe(recipe="linear"),
        schema=make_schema(),
        clock=make_ticks(0, 0),
    )
    assert challenge().model.predict(frame).values == found.model.predict(frame).values
    assert found.scores["holdout:challenger"]["accuracy"] < 0.1


def test_without_champion_or_older_window_their_scores_are_absent() -> None:
    """The contest has no loss for them, and the rest is there."""
    found = challenge()
    assert {"holdout:challenger", "holdout:baseline"} == set(found.scores)
    assert found.comparison.champion_loss is None
    assert found.comparison.older_challenger_loss is None
    assert 60 == found.comparison.holdout_rows
    assert found.scores["holdout:challenger"]["brier"] == found.comparison.challenger_loss
    assert found.scores["holdout:baseline"]["brier"] == found.comparison.baseline_loss


def test_the_contest_has_every_loss() -> None:
    """Each comes from its own score by the metric that is asked for."""
    champion = challenge().model
    f1 = Measure("f1")
    found = challenge(champion=champion, older=make_window(40, seed=3), measure=f1)
    assert "f1" == found.comparison.metric
    expected = {who: 1 - scores["f1"] for who, scores in found.scores.items()}
    assert expected["holdout:champion"] == found.comparison.champion_loss
    assert expected["older:champion"] == found.comparison.older_champion_loss
    assert expected["older:challenger"] == found.comparison.older_challenger_loss


def test_older_rows_that_cannot_tell_the_metric_say_nothing_of_forgetting() -> None:
    """A window of one class is no reason to keep a challenger out; the hold-out would be."""
    frame, _ = make_window(40, seed=3)
    measure = Measure("roc_auc")
    found = challenge(champion=make_dummy(), older=(frame, ["low"] * 40), measure=measure)
    assert math.isnan(found.scores["older:challenger"]["roc_auc"])
    assert found.comparison.older_challenger_loss is None
    assert found.comparison.older_champion_loss is None


def test_rare_rows_are_held_out_and_never_trained_on() -> None:
    """The scores on the newest share alone are there beside, and the reference answers that alone.

    A champion that was trained on them does not meet them again.
    """
    frame, labels = make_window(600)
    labels = ["rare" if row % 50 == 7 else each for row, each in enumerate(labels)]
    found = challenge_of(frame, labels, make_schema(), reference_rows=600)
    assert [357, 407, 457] == found.parts.apart.tolist()
    held = set(found.parts.held.tolist())
    assert held.isdisjoint(found.parts.train.tolist())
    assert 120 + len(found.parts.apart) == found.holdout_rows == found.comparison.holdout_rows
    assert {"holdout:challenger", "newest:challenger"} < set(found.scores)
    assert 120 == int(found.reference["prediction"].notna().sum())
    seen = np.arange(600) < 480
    again = challenge_of(frame, labels, make_schema(), reference_rows=600, seen=seen)
    assert [507] == again.parts.apart.tolist()
    assert not seen[again.parts.held].any()


def test_after_a_change_the_rows_since_then_alone_make_the_challenger() -> None:
    """Though the whole of them lie in the newest share, half are trained on."""
    frame, labels = make_window(1_000, label_kind="float")
    jumped = [*labels[:600], *(1_000 * label for label in labels[600:])]
    schema = make_schema("regression", "float")
    given: dict[str, Any] = {"recipe": BatchRecipe(recipe="linear", holdout=0.4)}
    blind = challenge_of(frame, jumped, schema, reference_rows=300, **given)
    found = challenge_of(frame, jumped, schema, reference_rows=900, changed=600, **given)
    assert (600, 200, 200) == (found.first_row, found.rows, found.holdout_rows)
    assert 400 == len(found.reference)
    losses = [each.comparison.challenger_loss for each in (found, blind)]
    assert losses[0] < losses[1] / 10


@pytest.mark.parametrize("recipe", RECIPES)
def test_balanced_classes_find_more_of_what_is_rare(recipe: str) -> None:
    """By weights of scikit-learn's rule; it is known before anything is fitted who takes them."""
    chance = np.random.default_rng(0)
    rare = chance.random(2_000) < 0.03
    frame, _ = make_window(2_000)
    frame["height"] = chance.normal(size=2_000) + 1.0 * rare
    labels: list[Label] = ["rare" if each else "usual" for each in rare]
    caught = {}
    for weight in ("none", "balanced"):
        model = batch_model.fit(
            frame, labels, BatchRecipe(recipe=recipe, class_weight=weight), make_schema()
        )
        answers = model.predict(frame).probabilities
        assert answers is not None
        caught[weight] = float(answers[rare, model.labels.index("rare")].mean())
    assert caught["balanced"] > caught["none"] + 0.1


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ({}, "float", "regression, which has no classes"),
        ({"recipe": "own_models:takes_seed"}, "str", "takes no class_weight"),
        ({"params": {"class_weight": "balanced"}}, "str", "sets class_weight too"),
    ],
)
def test_weights_that_cannot_be_are_refused(
    beside: Path, changes: dict[str, Any], kind: LabelKind, reason: str
) -> None:
    """With what was asked and why not."""
    given: dict[str, Any] = {"class_weight": "balanced", "label_kind": kind, **changes}
    with pytest.raises(BadConfiguration, match=reason):
        make_model(given.pop("recipe", "linear"), beside, **given)


@pytest.mark.parametrize("older_rows", [0, 50])
def test_an_older_window_can_be_empty_or_unwanted(older_rows: int) -> None:
    """Then nothing is said of forgetting."""
    older = make_window(40) if older_rows == 0 else (make_window(40)[0].iloc[:0], [])
    found = challenge(older=older, recipe=BatchRecipe(recipe="linear", older_rows=older_rows))
    assert {"holdout:challenger", "holdout:baseline"} == set(found.scores)


def test_a_champion_that_cannot_answer_scores_nothing(beside: Path) -> None:
    """A broken champion does not break the retrain; the judge will not guess its loss."""
    champion = make_model("own_models:Raises", beside)
    found = challenge(champion=champion)
    assert all(map(math.isnan, found.scores["holdout:champion"].values()))
    assert found.comparison.champion_loss is not None
    assert math.isnan(found.comparison.champion_loss)


def test_a_challenger_that_cannot_answer_is_an_error(beside: Path) -> None:
    """It must not be stored."""
    with pytest.raises(BatchAnswersNothing):
        challenge(recipe=BatchRecipe(recipe="own_models:NotFinite"), beside=beside)


def test_only_the_newest_rows_of_a_long_window_are_used() -> None:
    """[batch] window cuts, from the old end."""
    found = challenge(400, recipe=BatchRecipe(recipe="linear", window=250))
    assert 250 == found.rows + found.holdout_rows
    labels = make_window(400)[1]
    assert labels[150:] == found.reference["class"].tolist()


def test_a_short_window_and_a_short_hold_out_are_refused() -> None:
    """Both say their numbers and the key to turn."""
    with pytest.raises(TooLittleToLearn, match=r"199 rows.*min_rows is 200"):
        challenge(199)
    with pytest.raises(TooLittleToLearn, match="6 of 300 rows would be held out, and 10"):
        challenge(recipe=BatchRecipe(recipe="linear", holdout=0.02))


@pytest.mark.parametrize("where", ["columns", "target"])
def test_a_column_called_prediction_is_refused(where: str) -> None:
    """A reference has that name for the model's answers."""
    wrong: dict[str, Any] = {"columns": {"prediction": "number"}, "target": "prediction"}
    with pytest.raises(BadConfiguration, match="rename that column"):
        challenge(schema=make_schema(**{where: wrong[where]}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_is_the_window_with_its_held_out_answers(kind: LabelKind) -> None:
    """Features, target and prediction, in time order; no answer on rows that were trained on."""
    frame, labels = make_window(300, label_kind=kind)
    task: Task = "regression" if kind == "float" else "classification"
    schema = make_schema(task, kind)
    found = challenge_of(frame, labels, schema, reference_rows=100)
    reference, answers = found.reference, found.model.predict(frame[240:]).values
    assert ["height", "colour", "weight", "class", "prediction"] == list(reference)
    assert list(range(100)) == reference.index.tolist()
    pd.testing.assert_frame_equal(frame[200:].reset_index(drop=True), reference[schema.names])
    assert labels[200:] == reference["class"].tolist()
    assert reference["prediction"][:40].isna().all()
    assert answers == reference["prediction"][40:].tolist()
    assert {type(each) for each in labels} == {type(each) for each in reference["prediction"][40:]}


def challenge_of(
    frame: pd.DataFrame, labels: list[Label], schema: Schema, **changes: Any
) -> challenges.Challenge:
    """A challenge by the quickest recipe."""
    given: dict[str, Any] = {"recipe": BatchRecipe(recipe="linear"), **changes}
    return challenges.evaluate(frame, labels, schema=schema, clock=make_ticks(0, 1), **given)
