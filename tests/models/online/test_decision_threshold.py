"""The rarer of two classes is served from the probability that suits the metric."""

from __future__ import annotations

import pickle
import random

import pytest

from models.core.metrics import Measure
from models.core.record_schema import Label
from models.online import decision_threshold
from models.online.decision_threshold import Threshold


def fed(cut: Threshold, records: int = 1_000, seed: int = 1) -> Threshold:
    """After records of which one in twenty is "b", with a probability that is small but tells."""
    chance = random.Random(seed)
    for _ in range(records):
        rare = chance.random() < 0.05
        share = chance.uniform(0.1, 0.2) if rare else chance.uniform(0.0, 0.09)
        cut.learn({"a": 1 - share, "b": share}, "b" if rare else "a")
    return cut


@pytest.mark.parametrize("name", ["accuracy", "log_loss", "brier", "roc_auc", "mae"])
def test_other_metrics_serve_the_likeliest_class(name: str) -> None:
    """They have no threshold at all."""
    assert decision_threshold.start(Measure(name)) is None  # type: ignore[arg-type]  # one of the names


@pytest.mark.parametrize("name", ["f1", "balanced_accuracy"])
def test_what_is_rare_is_served_from_the_probability_that_tells_it(name: str) -> None:
    """No probability here is near a half, and yet both classes can be told apart."""
    cut = decision_threshold.start(Measure(name))  # type: ignore[arg-type]  # one of the names
    assert cut is not None
    assert "a" == cut.decide({"a": 0.85, "b": 0.15}, "a")
    fed(cut)
    assert cut.value == pytest.approx(0.095, abs=0.01)
    assert "b" == cut.rarer
    assert "b" == cut.decide({"a": 0.85, "b": 0.15}, "a")
    assert "a" == cut.decide({"a": 0.95, "b": 0.05}, "a")
    assert cut.decide(None, None) is None


def test_the_record_that_is_decided_is_never_among_those_it_is_chosen_on() -> None:
    """Two histories that differ in the newest label alone decide it alike."""
    answer: dict[Label, float] = {"a": 0.9, "b": 0.1}
    one, other = fed(Threshold(Measure("f1")), 999), fed(Threshold(Measure("f1")), 999)
    decided = one.decide(answer, "a"), other.decide(answer, "a")
    one.learn(answer, "a")
    other.learn(answer, "b")
    assert decided[0] == decided[1]


def test_a_threshold_of_a_number_is_that_number() -> None:
    """It is never chosen anew, and it holds from the second class on."""
    cut = decision_threshold.start(Measure("brier", threshold=0.12))
    assert cut is not None
    fed(cut)
    assert 0.12 == cut.value
    assert "b" == cut.decide({"a": 0.88, "b": 0.12}, "a")
    assert not cut.moved().yes


def test_with_a_third_class_the_likeliest_is_served() -> None:
    """A threshold is about two."""
    cut = fed(Threshold(Measure("f1")))
    for _ in range(decision_threshold.EVERY):
        cut.learn({"a": 1.0}, "c")
    assert cut.rarer is None
    assert "a" == cut.decide({"a": 0.8, "b": 0.15, "c": 0.05}, "a")


def test_too_few_of_a_class_choose_nothing() -> None:
    """Four are no handful."""
    cut = Threshold(Measure("f1"))
    for index in range(decision_threshold.EVERY):
        cut.learn({"a": 0.9, "b": 0.1}, "b" if index < 4 else "a")
    assert cut.value is None


def test_probabilities_that_tell_nothing_do_not_make_everything_rare() -> None:
    """F1 would be largest so, and every record a false alarm."""
    cut, chance = Threshold(Measure("f1")), random.Random(3)
    for _ in range(1_000):
        share = chance.uniform(0.0, 0.1)
        cut.learn({"a": 1 - share, "b": share}, "b" if chance.random() < 0.02 else "a")
    assert cut.value is None


def test_a_threshold_that_was_pickled_goes_on_as_if_it_had_not_been() -> None:
    """It counts records alone."""
    whole = fed(fed(Threshold(Measure("f1")), 700), 700, seed=2)
    half = pickle.loads(pickle.dumps(fed(Threshold(Measure("f1")), 700)))
    assert vars(whole).keys() == vars(fed(half, 700, seed=2)).keys()
    assert whole.value == half.value


@pytest.mark.parametrize(
    ("told", "value", "far"),
    [
        *((None, None, False), (None, 0.5, False), (None, 0.1, True), (0.1, 0.11, False)),
        *((0.02, 0.05, True), (0.4, 0.55, True), (0.3, 0.3, False)),
    ],
)
def test_a_threshold_that_moved_much_is_worth_a_word(
    told: float | None, value: float | None, far: bool
) -> None:
    """By a tenth, or by twice the odds where it is small."""
    cut = Threshold(Measure("f1"))
    cut.reported, cut.value = told, value
    decision = cut.moved()
    assert (far, "threshold") == (decision.yes, decision.question)
    assert {"threshold": value, "before": told, "metric": "f1"} == decision.facts
    now = "where it is the likelier" if value is None else f"from a probability of {value:.3g} on"
    assert f"is served {now}, before " in decision.because
