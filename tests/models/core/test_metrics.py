"""Models are judged by scikit-learn's metrics, each pointing one way, and unknown is never 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from models.core import metrics
from models.core.metrics import Measure
from models.core.prediction import BatchPrediction
from models.core.record_schema import Label, Task
from observability.core.errors import BadConfiguration

BRIER, F1 = Measure("brier"), Measure("f1")


def make_prediction(
    values: Sequence[Label], probabilities: Any = None, labels: Sequence[Label] = ()
) -> BatchPrediction:
    """A prediction as a model would give it."""
    shares = None if probabilities is None else np.array(probabilities, dtype=np.float64)
    return BatchPrediction(list(values), shares, tuple(labels))


def of_two(shares: Sequence[float]) -> BatchPrediction:
    """Probabilities of "b" beside "a"."""
    values: list[Label] = ["b" if share > 0.5 else "a" for share in shares]
    return make_prediction(values, [[1 - share, share] for share in shares], "ab")


def test_scores_of_classes_are_scikit_learns() -> None:
    """On an ordinary case of three classes the numbers are the known ones, macro where they are."""
    labels: list[Label] = ["a", "b", "c", "a", "b", "c", "c"]
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], size=7)
    values: list[Label] = ["abc"[code] for code in shares.argmax(axis=1)]
    truth = np.array([[label == each for each in "abc"] for label in labels])
    expected = {
        "log_loss": sklearn_metrics.log_loss(labels, shares),
        "brier": ((shares - truth) ** 2).sum(axis=1).mean() / 2,
        "accuracy": sklearn_metrics.accuracy_score(labels, values),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, values),
        "f1": sklearn_metrics.f1_score(labels, values, average="macro"),
        "roc_auc": sklearn_metrics.roc_auc_score(labels, shares, multi_class="ovr"),
        "average_precision": sklearn_metrics.average_precision_score(labels, shares),
    }
    assert expected == pytest.approx(
        metrics.score(labels, make_prediction(values, shares, "abc"), BRIER)
    )


def test_scores_of_two_classes_are_about_the_rarer_one() -> None:
    """F1, ROC AUC and average precision are the positive class's own, and no mean of both."""
    labels: list[Label] = ["a", "a", "a", "a", "b", "b"]
    shares = [0.1, 0.2, 0.3, 0.7, 0.4, 0.8]
    found = metrics.score(labels, of_two(shares), Measure("brier", threshold=0.5), "b")
    truth = [label == "b" for label in labels]
    assert sklearn_metrics.f1_score(truth, [share >= 0.5 for share in shares]) == found["f1"]
    assert sklearn_metrics.average_precision_score(truth, shares) == found["average_precision"]
    assert sklearn_metrics.roc_auc_score(truth, shares) == found["roc_auc"]
    assert sklearn_metrics.brier_score_loss(truth, shares) == pytest.approx(found["brier"])


def test_scores_of_values_are_scikit_learns() -> None:
    """On an ordinary case the numbers are the known ones."""
    labels, values = [1.0, 2.0, 4.0], [1.5, 2.0, 3.0]
    expected = {
        "mae": sklearn_metrics.mean_absolute_error(labels, values),
        "rmse": sklearn_metrics.root_mean_squared_error(labels, values),
        "pinball": sklearn_metrics.mean_pinball_loss(labels, values, alpha=0.9),
        "r2": sklearn_metrics.r2_score(labels, values),
    }
    found = metrics.score(labels, make_prediction(values), Measure("pinball", quantile=0.9))
    assert expected == pytest.approx(found)


def test_a_class_that_the_model_never_saw_costs_a_bounded_brier() -> None:
    """The log loss is cut at float64's step and is large; Brier counts the miss as 1 at most."""
    prediction = make_prediction(["a", "a"], [[1.0, 0.0], [1.0, 0.0]], "ab")
    found = metrics.score(["new", "b"], prediction, BRIER)
    assert 0.0 == found["accuracy"]
    assert -math.log(2.0**-52) == pytest.approx(found["log_loss"])
    assert 1.0 == found["brier"]


@pytest.mark.parametrize(("value", "expected"), [(3.0, 1.0), (4.0, 0.0)])
def test_r2_of_a_constant_target_is_all_or_nothing(value: float, expected: float) -> None:
    """There is no spread to explain, as scikit-learn has it; of one row nothing is known."""
    r2 = Measure("r2")
    assert expected == metrics.value([3.0, 3.0], make_prediction([value, value]), r2)
    assert math.isnan(metrics.value([3.0], make_prediction([value]), r2))


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_scores_of_no_rows_are_unknown(task: Task) -> None:
    """NaN, which never promotes."""
    measure = metrics.measure("auto", task)
    found = metrics.score([], make_prediction([], np.empty((0, 2)), "ab"), measure)
    assert metrics.names(task) == list(found)
    assert all(map(math.isnan, found.values()))


def test_what_one_class_alone_cannot_tell_is_unknown_and_not_0() -> None:
    """Only what is a mean over rows is known there."""
    found = metrics.score(["a", "a"], of_two([0.1, 0.9]), BRIER, "b")
    unknown = {name for name, value in found.items() if math.isnan(value)}
    assert {"balanced_accuracy", "f1", "roc_auc", "average_precision"} == unknown


def test_a_class_that_does_not_come_is_left_out_of_means_over_classes() -> None:
    """ROC AUC of three classes over rows of two is the mean of those two."""
    shares = [[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]]
    found = metrics.score(["a", "b", "b"], make_prediction("aba", shares, "abc"), BRIER)
    assert 1.0 == found["roc_auc"]


def test_without_probabilities_what_needs_them_is_unknown() -> None:
    """It is not made up."""
    found = metrics.score(["a", "b"], make_prediction(["a", "b"]), BRIER)
    unknown = {name for name, value in found.items() if math.isnan(value)}
    assert {"log_loss", "brier", "roc_auc", "average_precision"} == unknown
    assert 1.0 == found["accuracy"]


def test_values_that_overflow_score_infinity_and_not_a_warning() -> None:
    """The judge refuses what is not finite."""
    assert math.inf == metrics.value([1e308], make_prediction([-1e308]), Measure("mae"))


def test_scores_want_a_label_for_each_prediction() -> None:
    """Half a comparison is none."""
    with pytest.raises(ValueError, match="2 labels came with 1 predictions"):
        metrics.score(["a", "b"], make_prediction(["a"]), BRIER)


def test_every_metric_becomes_a_loss_of_which_less_is_better() -> None:
    """A perfect answer loses nothing, and a wrong one something."""
    labels: list[Label] = ["a", "b", "a", "b"]
    right, wrong = of_two([0.0, 1.0, 0.0, 1.0]), of_two([1.0, 0.0, 1.0, 0.0])
    for name in metrics.names("classification"):
        each = Measure(name, threshold=0.5)
        assert each.loss(metrics.value(labels, right, each, "b")) == pytest.approx(0.0, abs=1e-12)
        assert each.loss(metrics.value(labels, wrong, each, "b")) >= 0.5
    for name in metrics.names("regression"):
        each = Measure(name)
        exact, off = make_prediction([1.0, 3.0]), make_prediction([5.0, 5.0])
        assert 0.0 == each.loss(metrics.value([1.0, 3.0], exact, each))
        assert each.loss(metrics.value([1.0, 3.0], off, each)) >= 1.0


@pytest.mark.parametrize(
    ("task", "name"), [("classification", "mae"), ("regression", "f1"), ("regression", "brierr")]
)
def test_a_metric_that_does_not_suit_the_task_is_refused(task: Task, name: str) -> None:
    """The message lists those that do."""
    with pytest.raises(BadConfiguration) as caught:
        metrics.measure(name, task)
    assert all(each in str(caught.value) for each in ("auto", *metrics.names(task)))


def test_the_positive_class_is_the_rarer_of_two() -> None:
    """Of equals it is the last in their order, and of one or three there is none."""
    assert "a" == metrics.counted(["a", "b", "b"])
    assert 1 == metrics.counted([0, 1])
    assert metrics.counted(["a", "a"]) is None
    assert metrics.counted(["a", "b", "c"]) is None


@given(
    rows=st.lists(
        st.tuples(st.booleans(), st.integers(0, 20).map(lambda each: each / 20)),
        min_size=2,
        max_size=40,
    ),
    name=st.sampled_from(["f1", "balanced_accuracy"]),
)
def test_the_best_threshold_is_not_beaten_by_any_other(
    rows: list[tuple[bool, float]], name: metrics.Name
) -> None:
    """Against every probability that came; none is chosen where one class came alone."""
    truth, shares = [each[0] for each in rows], np.array([each[1] for each in rows])
    found = metrics.best_threshold(truth, shares, name)
    if len(set(truth)) < 2:
        assert found is None
        return
    assert found is not None
    gain = sklearn_metrics.f1_score if name == "f1" else sklearn_metrics.balanced_accuracy_score
    best = max(gain(truth, shares >= each) for each in np.unique(shares))
    assert found.gain == pytest.approx(best)
    assert gain(truth, shares >= found.at) == pytest.approx(best)
    assert found.alike == pytest.approx(gain(truth, np.ones(len(truth), dtype=bool)))
    assert -1e-9 <= found.skill <= 1.0 + 1e-9


def test_a_threshold_moves_f1_and_leaves_the_brier_score_alone() -> None:
    """The best one on these rows where none is named; else the one that is named."""
    labels: list[Label] = ["a", "a", "a", "b"]
    prediction = of_two([0.01, 0.02, 0.03, 0.2])
    assert 1.0 == metrics.value(labels, prediction, F1, "b")
    assert 0.0 == metrics.value(labels, prediction, Measure("f1", threshold=0.5), "b")
    cut = Measure("brier", threshold=0.1)
    assert metrics.value(labels, prediction, BRIER, "b") == metrics.value(
        labels, prediction, cut, "b"
    )


def test_answers_of_records_are_scored_as_a_prediction_of_rows() -> None:
    """Records without an answer are left out; without probabilities the classes alone count."""
    labels: list[Label] = ["a", "b", "a", "b"]
    answers = make_prediction("abaa", [[0.75, 0.25], [math.nan] * 2, [1.0, 0.0], [0.5, 0.5]], "ab")
    found = metrics.of_answers(labels, ["a", None, "a", "a"], answers, BRIER, "b")
    kept = make_prediction("aaa", [[0.75, 0.25], [1.0, 0.0], [0.5, 0.5]], "ab")
    assert metrics.value(["a", "a", "b"], kept, BRIER, "b") == found
    accuracy = Measure("accuracy")
    assert 2 / 3 == metrics.of_answers(labels, ["a", None, "a", "a"], answers, accuracy)
    assert math.isnan(metrics.of_answers(labels, [None] * 4, answers, accuracy))
    values = BatchPrediction([1.0, 3.0], None)
    assert 0.5 == metrics.of_answers([1.0, 2.0], [1.0, 3.0], values, Measure("mae"))


def test_counts_are_scored_as_the_rows_that_they_count() -> None:
    """By weights; no pair is no score."""
    labels, values = ["a"] * 5 + ["b"] * 3, ["a"] * 4 + ["b"] * 2 + ["a"] * 2
    pairs: dict[tuple[Label, Label], int] = {}
    for pair in zip(labels, values, strict=True):
        pairs[pair] = pairs.get(pair, 0) + 1
    expected = sklearn_metrics.f1_score(labels, values, pos_label="b")
    assert expected == pytest.approx(metrics.of_counts(pairs, F1, "b"))
    assert math.isnan(metrics.of_counts({}, F1, "b"))
