"""What is counted record by record is what scikit-learn says of all records at once."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from models.core import metrics
from models.core.metrics import Measure
from models.core.prediction import Answer, BatchPrediction
from models.core.record_schema import Label
from models.online import prediction_rows, prequential
from models.online.prediction_rows import MemberRows


def rows_of(answers: Sequence[Answer], predicted: Sequence[Label] | None = None) -> MemberRows:
    """The rows of a member that gave these answers; the likeliest class unless others are given."""
    if any(not isinstance(each, Mapping) for each in answers):
        values = [float(each) for each in answers if isinstance(each, float)]
        return prediction_rows.of_values(np.array(values))
    known = [each for each in answers if isinstance(each, Mapping)]
    classes = tuple(sorted({str(label) for each in known for label in each}))
    table = [[each.get(label, 0.0) for label in classes] for each in known]
    rows = prediction_rows.of_classes(np.array(table), classes)
    return rows if predicted is None else replace(rows, predicted=[*predicted])


def make_answers(count: int = 60, classes: str = "ab") -> list[tuple[dict[Label, float], Label]]:
    """Probabilities by class, and what came: rarely the last one."""
    chance = random.Random(4)
    rows: list[tuple[dict[Label, float], Label]] = []
    for _ in range(count):
        parts = [chance.random() + 0.01 for _ in classes]
        answer: dict[Label, float] = {
            label: part / sum(parts) for label, part in zip(classes, parts, strict=True)
        }
        rows.append((answer, chance.choice(classes[0] * 3 + classes)))
    return rows


@pytest.mark.parametrize("name", metrics.names("classification"))
@pytest.mark.parametrize("classes", ["ab", "abc"])
def test_a_running_score_of_classes_is_that_of_all_records(
    name: metrics.Name, classes: str
) -> None:
    """But for rankings of three classes, which are unknown: only those of two are kept."""
    measure, rows = Measure(name), make_answers(classes=classes)
    running = prequential.start(measure)
    assert running.value() is None
    # One by one, two at once, and the rest: it does not matter how they come.
    for part in (rows[:1], rows[1:3], rows[3:]):
        running.add(rows_of([each for each, _ in part]), [label for _, label in part])
    labels = [label for _, label in rows]
    whole = rows_of([each for each, _ in rows])
    assert whole.whole is not None
    expected = metrics.of_answers(
        labels, whole.predicted, whole.whole, measure, metrics.counted(labels)
    )
    if classes == "abc" and name in ("roc_auc", "average_precision"):
        assert running.value() is None
    else:
        assert expected == pytest.approx(running.value())
    assert len(rows) == running.count


@pytest.mark.parametrize("name", metrics.names("regression"))
def test_a_running_score_of_values_is_that_of_all_records(name: metrics.Name) -> None:
    """Each metric, at a quantile of its own."""
    measure, chance = Measure(name, quantile=0.8), random.Random(2)
    running = prequential.start(measure)
    assert running.value() is None
    labels = [chance.gauss(3.0, 2.0) for _ in range(50)]
    values = [label + chance.gauss(0.5, 1.0) for label in labels]
    for part in (slice(1), slice(1, None)):
        running.add(rows_of(values[part]), labels[part])
    expected = metrics.value(labels, BatchPrediction(list(values), None), measure)
    assert expected == pytest.approx(running.value())


@pytest.mark.parametrize("name", ["f1", "roc_auc", "balanced_accuracy"])
def test_one_class_alone_is_unknown(name: metrics.Name) -> None:
    """And not 0."""
    running = prequential.start(Measure(name))
    running.add(rows_of([{"a": 1.0}]), ["a"])
    assert running.value() is None


def test_a_ranking_is_over_the_newest_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is older is forgotten, so that it stays small."""
    monkeypatch.setattr(prequential, "RECENT", 4)
    running = prequential.start(Measure("roc_auc"))
    rows: list[tuple[float, str]] = [(0.9, "a"), (0.1, "b"), (0.2, "a"), (0.8, "a")]
    rows += [(0.3, "b"), (0.4, "b")]
    for share, label in rows:
        running.add(rows_of([{"b": share, "a": 1 - share}], ["a"]), [label])
    assert 4 == running.count
    assert running.value() == pytest.approx(0.5)


def test_values_that_overflow_are_unknown_and_raise_nothing() -> None:
    """An error that has no square is no reason to stop."""
    running = prequential.start(Measure("r2"))
    for value in (0.0, 1e300):
        running.add(rows_of([-value]), [value])
    assert running.value() is None


def test_a_certain_answer_that_is_wrong_costs_a_finite_log_loss() -> None:
    """As scikit-learn cuts it."""
    running = prequential.start(Measure("log_loss"))
    running.add(rows_of([{"a": 1.0}]), ["b"])
    assert running.value() == pytest.approx(36.04, abs=0.01)


@pytest.mark.parametrize("name", ["log_loss", "brier"])
def test_probabilities_that_were_dropped_are_no_score(name: metrics.Name) -> None:
    """The log on disk has none of the other classes: a score of it is refused, and not guessed."""
    running = prequential.start(Measure(name))
    with pytest.raises(ValueError, match="needs the probabilities of every class"):
        running.add(MemberRows(["a"], [0.9]), ["a"])
