"""A watched fit leaves the model that an unwatched one leaves, to the last bit, however it went."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.callback import CallbackSupportMixin
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier, SGDRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.batch import batch_model, interruptible_fit, recipes
from models.batch.batch_model import BatchCannotLearn, BatchModel
from models.batch.fit_guard import FitCheckpoint, Guard, Preempted
from models.batch.recipe_config import BatchRecipe
from models.core.record_schema import LabelKind
from models.persistence import serialization
from tests import ROOT
from tests.models.makers import make_schema, make_window

RECIPES = ["hist_gradient_boosting", "random_forest", "linear", "sgd"]
SMALL: dict[str, dict[str, Any]] = {
    "hist_gradient_boosting": {"max_iter": 8},
    "random_forest": {"n_estimators": 8},
    "linear": {"max_iter": 4},
}
"""Parameters that keep a fit short, and its rounds few."""
WAIT_S = 60.0
KINDS: tuple[LabelKind, ...] = ("str", "float")

OWN = '''
import numpy as np

class Epochs:
    """A perceptron whose fit is ten epochs, as it says."""
    rounds_of_partial_fit = 10
    def __init__(self):
        self.weights = None
        self.epochs = 0
    def partial_fit(self, matrix, targets):
        if self.weights is None:
            self.weights = np.zeros(matrix.shape[1])
        for row, target in zip(matrix, targets):
            self.weights += 0.1 * (target - (row @ self.weights > 0)) * row
        self.epochs += 1
        return self
    def fit(self, matrix, targets):
        for _ in range(self.rounds_of_partial_fit):
            self.partial_fit(matrix, targets)
        return self
    def predict(self, matrix):
        return (matrix @ self.weights > 0).astype(int)

class Plain(Epochs):
    rounds_of_partial_fit = None
    def fit(self, matrix, targets):
        self.weights = np.ones(matrix.shape[1])
        return self

class CannotFit(Plain):
    def fit(self, matrix, targets):
        raise ValueError("no device")
'''


class Watcher:
    """A guard that writes down when it was asked, and acts at its `at`-th question."""

    def __init__(self, at: int | None = None, act: BaseException | None = None) -> None:
        self.asked: list[float] = []
        self._at = at
        self._act = act or Preempted("too warm")

    def __call__(self, done: float, /) -> None:
        self.asked.append(done)
        if len(self.asked) == self._at:
            raise self._act


@pytest.fixture(autouse=True)
def _in_one_thread() -> Iterator[None]:
    """As batch models are fitted: several threads wait for each other on a busy machine."""
    with recipes.working(1):
        yield


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Path]:
    """A folder with models of one's own, forgotten after the test."""
    (tmp_path / "own_epochs.py").write_text(OWN)
    yield tmp_path
    sys.modules.pop("own_epochs", None)


def make_model(
    recipe: str = "random_forest",
    kind: LabelKind = "str",
    beside: Path | None = None,
    params: dict[str, Any] | None = None,
    **watched: Any,
) -> BatchModel:
    """A model of `recipe` on the default window, watched or not."""
    frame, labels = make_window(label_kind=kind)
    knobs = BatchRecipe(recipe=recipe, params=SMALL.get(recipe, {}) if params is None else params)
    schema = make_schema("regression" if kind == "float" else "classification", kind)
    return batch_model.fit(frame, labels, knobs, schema, beside, **watched)


def answers(model: BatchModel) -> bytes:
    """All that a model answers to other rows, to the last bit."""
    given = model.predict(make_window(100, seed=7)[0])
    raw = np.asarray(given.values) if given.probabilities is None else given.probabilities
    return raw.tobytes()


def made(kind: str = "classes") -> tuple[NDArray[np.float64], NDArray[Any]]:
    """A matrix with missing cells and codes in its first column, and three classes or values."""
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(240, 5))
    matrix[:, 0] = rng.integers(0, 5, 240)
    values = 3 * matrix[:, 1] + matrix[:, 2] ** 2 + (matrix[:, 0] == 2) + rng.normal(size=240)
    return matrix, values if kind == "values" else np.digitize(values, [0.0, 2.0])


def raw(estimator: Any, matrix: NDArray[Any]) -> bytes:
    """What a fitted estimator answers, to the last bit."""
    if "n_jobs" in estimator.get_params():
        # Workers add up what trees answer in the order in which they are done.
        estimator.set_params(n_jobs=1)
    found = getattr(estimator, "predict_proba", estimator.predict)(matrix)
    return np.asarray(found).tobytes()


def given_back(fit: Callable[[Guard], object], at: int) -> object:
    """What is kept of a fit that was given back at its `at`-th question, after a round trip."""
    with pytest.raises(Preempted) as stopped:
        fit(Watcher(at))
    partial = stopped.value.partial
    return None if partial is None else serialization.loads(serialization.dumps(partial))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", ["str", "int", "float"])
def test_a_watched_fit_leaves_the_same_model(recipe: str, kind: LabelKind) -> None:
    """Its answers are equal to the last bit, and nothing in it tells of the guard."""
    watcher = Watcher()
    watched, alone = make_model(recipe, kind, guard=watcher), make_model(recipe, kind)
    assert answers(alone) == answers(watched)
    assert sorted(vars(alone.estimator)) == sorted(vars(watched.estimator))
    assert str(alone.estimator.get_params()) == str(watched.estimator.get_params())
    assert b"models.batch.fit_guard" not in serialization.dumps(watched)
    assert (0.0, 1.0) == (watcher.asked[0], watcher.asked[-1])
    assert sorted(watcher.asked) == watcher.asked


@pytest.mark.parametrize(
    ("recipe", "kind", "expected"),
    [
        ("hist_gradient_boosting", "str", "rounds by warm_start"),
        ("hist_gradient_boosting", "float", "rounds by warm_start"),
        ("random_forest", "str", "rounds by warm_start"),
        ("random_forest", "float", "rounds by warm_start"),
        ("linear", "str", "callbacks"),
        ("linear", "float", "unguarded"),
        ("sgd", "str", "unguarded"),
        ("sgd", "float", "unguarded"),
    ],
)
def test_every_recipe_says_how_it_is_watched(recipe: str, kind: LabelKind, expected: str) -> None:
    """It is asked amid the fit where it says so, and else before and after it alone."""
    watcher = Watcher()
    model = make_model(recipe, kind, guard=watcher)
    way = interruptible_fit.strategy_of(model.estimator)
    assert expected == way.kind
    assert str(way).startswith(f"{expected}: ")
    assert (expected == "unguarded") == ([0.0, 1.0] == watcher.asked)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", ["str", "float"])
def test_given_back_at_any_question_it_goes_on_to_the_same_model(
    recipe: str, kind: LabelKind
) -> None:
    """At every question of a fit: what is kept leads to the model of an undisturbed fit."""
    watcher = Watcher()
    expected = answers(make_model(recipe, kind, guard=watcher))
    keeps = interruptible_fit.strategy_of(make_model(recipe, kind).estimator).keeps
    for at in range(1, len(watcher.asked) + 1):
        partial = given_back(lambda guard: make_model(recipe, kind, guard=guard), at)
        assert partial is None or isinstance(partial, FitCheckpoint)
        # A first round must be whole to be kept, and a fit that is done is whole.
        whole = at == len(watcher.asked) or (keeps and watcher.asked[at - 1] > 0)
        assert whole == (partial is not None)
        rest = Watcher()
        assert expected == answers(make_model(recipe, kind, guard=rest, partial=partial))
        assert (partial.done / partial.of if partial else 0.0) == rest.asked[0]
        assert expected == answers(make_model(recipe, kind, partial=partial))


@pytest.mark.parametrize("recipe", ["hist_gradient_boosting", "random_forest"])
def test_given_back_again_and_again_it_still_gets_there(recipe: str) -> None:
    """One round at a time, each from the bytes of the one before."""
    expected, kept, tries = answers(make_model(recipe)), None, 0
    for tries in range(1, 20):  # noqa: B007 - how many it took is looked at below
        try:
            model = make_model(recipe, guard=Watcher(3), partial=kept)
        except Preempted as stopped:
            kept = serialization.loads(serialization.dumps(stopped.partial))
            assert isinstance(kept, FitCheckpoint)
        else:
            break
    assert expected == answers(model)
    assert tries > 3


BOOSTED = {"categorical_features": [0], "max_iter": 12, "random_state": 3, "early_stopping": False}
WAYS: list[tuple[str, str, Callable[[], Any]]] = [
    (kind, way, make)
    for kind, way, make in [
        *(
            (
                "values",
                "rounds by warm_start",
                lambda given=given: HistGradientBoostingRegressor(**BOOSTED | given),
            )
            for given in (
                {},
                {"loss": "absolute_error"},
                {"loss": "quantile", "quantile": 0.8},
                {"max_features": 0.5},
                {"early_stopping": True, "max_iter": 60, "n_iter_no_change": 3},
                {"early_stopping": True, "max_iter": 60, "scoring": "neg_mean_absolute_error"},
            )
        ),
        *(
            (
                "classes",
                "rounds by warm_start",
                lambda given=given: HistGradientBoostingClassifier(**BOOSTED | given),
            )
            for given in ({}, {"early_stopping": True, "max_iter": 60, "n_iter_no_change": 3})
        ),
        (
            "classes",
            "rounds by warm_start",
            lambda: RandomForestClassifier(
                9, random_state=1, class_weight="balanced", max_samples=0.5
            ),
        ),
        (
            "values",
            "rounds by warm_start",
            lambda: RandomForestRegressor(9, random_state=1, n_jobs=2),
        ),
        ("classes", "rounds by warm_start", lambda: ExtraTreesClassifier(9, random_state=1)),
        (
            "values",
            "rounds by warm_start",
            lambda: ExtraTreesRegressor(9, random_state=1, bootstrap=True),
        ),
        (
            "classes",
            "rounds by warm_start",
            lambda: BaggingClassifier(
                n_estimators=9, random_state=1, max_samples=0.5, max_features=0.5
            ),
        ),
        (
            "classes",
            "rounds by warm_start",
            lambda: GradientBoostingClassifier(n_estimators=9, random_state=1),
        ),
        (
            "values",
            "rounds by warm_start",
            lambda: GradientBoostingRegressor(
                n_estimators=9, random_state=1, subsample=0.5, loss="huber"
            ),
        ),
        (
            "values",
            "callbacks",
            lambda: GradientBoostingRegressor(n_estimators=30, random_state=1, n_iter_no_change=2),
        ),
        ("classes", "callbacks", lambda: make_pipeline(StandardScaler(), LogisticRegression())),
        ("classes", "callbacks", lambda: make_pipeline(PCA(3), SGDClassifier(random_state=1))),
        (
            "classes",
            "callbacks",
            lambda: GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
        ),
        ("classes", "unguarded", lambda: LogisticRegression(solver="newton-cholesky")),
        (
            "classes",
            "unguarded",
            lambda: RandomForestClassifier(
                9, random_state=1, oob_score=True, bootstrap=True, max_samples=0.9
            ),
        ),
        (
            "classes",
            "unguarded",
            lambda: RandomForestClassifier(9, random_state=np.random.RandomState(1)),
        ),
        ("classes", "unguarded", lambda: RandomForestClassifier(9, random_state=1, n_jobs=-1)),
        ("values", "unguarded", lambda: TransformedTargetRegressor(SGDRegressor(random_state=1))),
        ("values", "unguarded", Ridge),
    ]
]


@pytest.mark.parametrize(("kind", "way", "make"), WAYS)
def test_a_way_never_changes_what_an_estimator_learns(
    kind: str, way: str, make: Callable[[], Any]
) -> None:
    """Watched, or given back at a third and gone on, it answers as one that nobody watched."""
    matrix, targets = made(kind)
    matrix = matrix.copy()
    if way != "rounds by warm_start":
        matrix = np.nan_to_num(matrix)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Some inputs do not have OOB scores")
        expected = raw(make().fit(matrix, targets), matrix)
        watcher = Watcher()
        assert expected == raw(interruptible_fit.fit(make(), matrix, targets, watcher), matrix)
        found = interruptible_fit.strategy_of(make())
        assert (way, found.keeps) == (found.kind, way.startswith("rounds"))
        assert (way == "unguarded") == (len(watcher.asked) == 2)
        at = len(watcher.asked) // 3 + 1
        kept = given_back(lambda guard: interruptible_fit.fit(make(), matrix, targets, guard), at)
        assert kept is None or isinstance(kept, FitCheckpoint)
        assert (at > 1 and found.keeps) == (kept is not None)
        again = interruptible_fit.fit(make(), matrix, targets, Watcher(), partial=kept)
    assert expected == raw(again, matrix)


def test_a_search_in_other_processes_is_unguarded() -> None:
    """Nobody there can be asked; a search in this one can, also inside a pipeline."""
    for n_jobs, expected in ((2, "unguarded"), (-1, "unguarded"), (1, "callbacks")):
        search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, n_jobs=n_jobs)
        for estimator in (search, make_pipeline(StandardScaler(), search)):
            assert expected == interruptible_fit.strategy_of(estimator).kind


def test_a_network_and_gradient_descent_would_be_other_models_in_rounds() -> None:
    """So they are unguarded: epochs one by one leave other weights, even without shuffling."""
    matrix, targets = np.nan_to_num(made()[0]), made()[1] > 1
    whole = SGDClassifier(random_state=0, tol=None, max_iter=5, shuffle=False).fit(matrix, targets)
    epochs = SGDClassifier(random_state=0, tol=None, shuffle=False)
    for _ in range(5):
        epochs.partial_fit(matrix, targets, classes=[False, True])
    assert whole.coef_.tobytes() != epochs.coef_.tobytes()
    for estimator in (SGDClassifier(), MLPClassifier()):
        way = interruptible_fit.strategy_of(estimator)
        assert ("unguarded", True) == (way.kind, "leave" in way.because)


def test_a_class_that_is_only_derived_is_not_trusted_with_rounds() -> None:
    """It may fit otherwise; only the classes that were tried are."""

    class Own(RandomForestClassifier):  # type: ignore[misc]  # it has no types
        pass

    assert "unguarded" == interruptible_fit.strategy_of(Own()).kind


def test_a_model_of_ones_own_that_allows_nothing_is_said_to_be_unguarded(beside: Path) -> None:
    """The guard is asked before and after, and the reason says so."""
    watcher = Watcher()
    model = make_model("own_epochs:Plain", beside=beside, guard=watcher)
    assert [0.0, 1.0] == watcher.asked
    expected = (
        "unguarded: Plain: no way is known to ask amid its fit that leaves the same model; "
        "it is asked before and after"
    )
    assert expected == str(interruptible_fit.strategy_of(model.estimator))


def test_a_model_of_ones_own_may_say_that_its_fit_is_rounds(beside: Path) -> None:
    """Then it is asked before each call of partial_fit, and goes on where it was given back."""
    watcher = Watcher()
    watched = make_model("own_epochs:Epochs", beside=beside, guard=watcher)
    assert "rounds by partial_fit" == interruptible_fit.strategy_of(watched.estimator).kind
    expected = answers(make_model("own_epochs:Epochs", beside=beside))
    assert expected == answers(watched)
    assert [0.0, *(each / 10 for each in range(10)), 1.0] == watcher.asked
    kept = given_back(lambda guard: make_model("own_epochs:Epochs", beside=beside, guard=guard), 5)
    assert isinstance(kept, FitCheckpoint)
    assert (3, 10, 3) == (kept.done, kept.of, kept.estimator.epochs)
    again = make_model("own_epochs:Epochs", beside=beside, partial=kept)
    assert (10, expected) == (again.estimator.epochs, answers(again))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_fit_pauses_while_the_guard_blocks_and_then_goes_on(recipe: str) -> None:
    """Nothing is fitted meanwhile, and the model is the same."""
    count = Watcher()
    expected = answers(make_model(recipe, guard=count))
    middle, reached, opened = len(count.asked) // 2, threading.Event(), threading.Event()
    asked: list[float] = []
    models: list[BatchModel] = []

    def guard(done: float, /) -> None:
        asked.append(done)
        if len(asked) == middle:
            reached.set()
            assert opened.wait(WAIT_S)

    fitting = threading.Thread(target=lambda: models.append(make_model(recipe, guard=guard)))
    fitting.start()
    assert reached.wait(WAIT_S)
    assert ([], middle) == (models, len(asked))
    opened.set()
    fitting.join(WAIT_S)
    assert [expected] == [answers(model) for model in models]
    assert count.asked == asked


class Stopped(BaseException):
    """What a signal raises."""


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("act", [ValueError("broken"), SystemExit(3), Stopped("signal")])
def test_what_the_guard_raises_comes_out_as_it_is(recipe: str, act: BaseException) -> None:
    """At any question, and never as a fit that failed."""
    count = Watcher()
    make_model(recipe, guard=count)
    for at in {1, 2, len(count.asked)}:
        with pytest.raises(type(act)) as raised:
            make_model(recipe, guard=Watcher(at, act))
        assert act is raised.value


def test_a_fit_that_fails_is_still_named_while_it_is_watched(beside: Path) -> None:
    """A guard changes nothing of what is said of an estimator's own error."""
    with pytest.raises(BatchCannotLearn, match="no device"):
        make_model("own_epochs:CannotFit", beside=beside, guard=Watcher())


@pytest.mark.parametrize("act", [ValueError("broken"), Preempted("too warm")])
def test_a_search_does_not_take_a_guard_for_a_failed_candidate(act: BaseException) -> None:
    """scikit-learn's searches swallow errors of their fits; this one is none."""
    matrix, targets = np.nan_to_num(made()[0]), made()[1]
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2)
    watcher = Watcher(6, act)
    with pytest.raises(type(act)) as raised:
        interruptible_fit.fit(search, matrix, targets, watcher)
    assert act is raised.value
    assert 6 == len(watcher.asked)


class Other:
    """Somebody's own fit callback."""

    begun = 0

    def setup(self, estimator: Any, context: Any) -> None:
        """Nothing."""

    def teardown(self, estimator: Any, context: Any) -> None:
        """Nothing."""

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Count."""
        self.begun += 1

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        """Nothing."""


@pytest.mark.parametrize("at", [None, 3])
def test_other_callbacks_are_called_too_and_stay(at: int | None) -> None:
    """The guard's is gone when the fit is over, however it ended."""
    matrix, targets = np.nan_to_num(made()[0]), made()[1]
    other, estimator = Other(), LogisticRegression()
    assert isinstance(estimator, CallbackSupportMixin)
    estimator.set_callbacks(other)
    with suppress(Preempted):
        interruptible_fit.fit(estimator, matrix, targets, Watcher(at))
    assert [other] == vars(estimator)["_skl_callbacks"]
    assert other.begun > 0


@pytest.mark.parametrize(
    ("tick_s", "expected"),
    [
        (0.25, [0, 0.01, 0.05, 0.21, 0.85, 1]),
        (0.01, [0, 0.01, 0.09, 0.73, 1]),
        (2.0, [0, *(each / 100 for each in range(1, 100)), 1]),
        (0.0, [0, *(each / 100 for each in range(1, 100)), 1]),
    ],
)
def test_a_round_of_a_forest_is_about_a_second(tick_s: float, expected: list[float]) -> None:
    """It grows at most eightfold; a clock that stands still leaves a tree to a round."""
    matrix, targets = np.nan_to_num(made()[0])[:40], made()[1][:40]
    watcher, ticks = Watcher(), iter(range(1_000_000))
    interruptible_fit.fit(
        RandomForestClassifier(100, random_state=0),
        matrix,
        targets,
        watcher,
        clock=lambda: next(ticks) * tick_s,
    )
    assert expected == watcher.asked


def test_what_is_kept_is_not_changed_by_going_on() -> None:
    """It can be gone on from twice, and it is what it was."""
    kept = given_back(lambda guard: make_model("random_forest", guard=guard), 4)
    before = serialization.dumps(kept)
    once, twice = (make_model("random_forest", partial=kept) for _ in range(2))
    assert answers(once) == answers(twice)
    assert before == serialization.dumps(kept)


@pytest.mark.parametrize("other", [{"n_estimators": 9}, {"n_estimators": 8, "max_depth": 2}])
def test_what_is_kept_of_another_fit_is_not_used(other: dict[str, Any]) -> None:
    """Other parameters: the fit begins anew, and leaves what it would have left."""
    kept = given_back(lambda guard: make_model("random_forest", guard=guard), 4)
    watcher = Watcher()
    model = make_model("random_forest", params=other, guard=watcher, partial=kept)
    assert answers(make_model("random_forest", params=other)) == answers(model)
    assert 0.0 == watcher.asked[0]


def test_a_class_of_other_estimators_is_not_gone_on_from() -> None:
    """Of another class, or for another matrix: the fit begins anew."""
    matrix, targets = np.nan_to_num(made()[0]), made()[1]
    kept = given_back(
        lambda guard: interruptible_fit.fit(
            RandomForestClassifier(9, random_state=1), matrix, targets, guard
        ),
        3,
    )
    assert isinstance(kept, FitCheckpoint)
    for estimator, rows in (
        (ExtraTreesClassifier(9, random_state=1), matrix),
        (RandomForestClassifier(9, random_state=1), matrix[:, 1:]),
    ):
        watcher = Watcher()
        interruptible_fit.fit(estimator, rows, targets, watcher, partial=kept)
        assert 0.0 == watcher.asked[0]


def test_a_model_that_was_fitted_before_is_fitted_anew() -> None:
    """A factory may hand out the same estimator twice; watched or not, fit forgets."""
    matrix, targets = np.nan_to_num(made()[0]), made()[1]
    for fresh in (
        RandomForestClassifier(5, random_state=1),
        HistGradientBoostingClassifier(max_iter=5, random_state=1),
        GradientBoostingClassifier(n_estimators=5, random_state=1),
    ):
        used = clone(fresh).fit(matrix[::2], targets[::2])
        expected = raw(fresh.fit(matrix, targets), matrix)
        assert expected == raw(interruptible_fit.fit(used, matrix, targets, Watcher()), matrix)


def test_a_wrong_parameter_is_told_as_ever() -> None:
    """A forest of no trees is a mistake in the file, watched or not."""
    with pytest.raises(ValueError, match=r"\[batch.params\] does not suit 'random_forest'"):
        make_model("random_forest", params={"n_estimators": 0}, guard=Watcher())
    with pytest.raises(ValueError, match=r"\[batch.params\] does not suit"):
        make_model("hist_gradient_boosting", params={"max_iter": -1}, guard=Watcher())


def test_the_page_tells_of_each_recipe_how_it_is_watched() -> None:
    """The table of docs/gate.md has, for every recipe, the way that its estimator has."""
    page = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| ")]
    told = {
        recipe: way.strip() for names, way in rows for recipe in RECIPES if f"`{recipe}`" in names
    }
    linear = {names.partition(";")[0].strip(): way.strip() for names, way in rows}
    assert "callbacks" == linear["`linear` for classes"]
    for kind in KINDS:
        for recipe in ("hist_gradient_boosting", "random_forest", "sgd"):
            assert (
                told[recipe]
                == interruptible_fit.strategy_of(make_model(recipe, kind).estimator).kind
            )
