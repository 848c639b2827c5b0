"""Records that a service was asked about are scored by what it answered then, and learned now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from models.core import metrics, scoring
from models.core.answered import REST
from models.core.prediction import BatchPrediction, GivenAnswers, MemberAnswer, given_answers
from models.core.record_schema import Label, Task
from models.online.learner import Learner
from models.online.online_model import OnlineMember
from models.online.prediction_rows import MemberRows, PredictionRows
from tests.models.online.test_learner import (
    OWN,
    TASKS,
    Model,
    make_champion,
    make_learner,
    make_records,
    with_members,
)

SERVES = "v000000100"


def member_answers(rows: MemberRows) -> list[MemberAnswer | None]:
    """What one member answered, record by record, as a service keeps it."""
    assert rows.whole is not None
    found: list[MemberAnswer | None] = []
    for index, value in enumerate(rows.predicted):
        if value is None:
            found.append(None)
        elif rows.whole.probabilities is None:
            found.append(MemberAnswer(value, float(value)))
        else:
            shares = rows.whole.probabilities[index].tolist()
            found.append(MemberAnswer(value, dict(zip(rows.whole.labels, shares, strict=True))))
    return found


def as_given(
    log: PredictionRows, champion: str | None = SERVES, position: int = 0
) -> list[GivenAnswers]:
    """What is logged, as if a service had answered it."""
    assert log.rest is not None
    columns = {name: member_answers(rows) for name, rows in log.by.items()}
    columns[REST] = member_answers(log.rest)
    return [
        GivenAnswers(
            {
                name: answer
                for name, column in columns.items()
                if (answer := column[index]) is not None
            },
            champion,
            position,
            "lineage",
        )
        for index in range(len(log))
    ]


def state_of(made: Learner) -> dict[str, Any]:
    """What of a learner depends on what was answered."""
    return {
        "weights": made.blend.weights,
        "stacks": made.blend.stacks.weights,
        "recent": made.recent._sums,
        "tallies": [(each.count, each.total) for each in made.tallies.values()],
        "judged": [each.value() for each in made.judged.values()],
        "tests": [test.evidence for _, test in sorted(made.errors.tests.items())],
        "value": made.champion_value.value(),
        "seen": made.errors.seen,
    }


def assert_alike(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Equal but for the last bits."""
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert np.allclose(
            np.array(value, dtype=float),
            np.array(second[key], dtype=float),
            rtol=1e-9,
            equal_nan=True,
        ), key


@pytest.mark.parametrize("metric", ["brier", "f1", "mae"])
def test_what_was_answered_just_before_the_label_is_what_would_be_answered_now(metric: str) -> None:
    """A service that is asked right before each label changes nothing of what is learned."""
    task: Task = "regression" if metric == "mae" else "classification"
    rows, labels = make_records(task, 900)
    loop, late = (
        make_learner(task, "linear", "linear_fast"),
        make_learner(task, "linear", "linear_fast"),
    )
    for made in (loop, late):
        made.judge_by(metrics.measure(metric, task))
    for first in range(0, 900, 30):
        part = slice(first, first + 30)
        champion = make_champion(labels[part], task, sure=0.7) if first >= 300 else None
        log = loop.learn(rows[part], labels[part], champion, positions=range(first, first + 30))
        # In the first batch, classes become known that no service could have answered.
        given = as_given(log) if first else []
        again = late.learn(
            rows[part], labels[part], None, bool, range(first, first + 30), given, SERVES
        )
        assert {name: each.predicted for name, each in log.by.items()} == {
            name: each.predicted for name, each in again.by.items()
        }
        assert {name: each.probabilities for name, each in log.by.items()} == {
            name: each.probabilities for name, each in again.by.items()
        }
    assert_alike(state_of(loop), state_of(late))
    assert (loop.champion_value.value() is None) == (metric == "f1")


def constant(task: Task, good: bool, labels: Sequence[Label]) -> list[MemberAnswer]:
    """A member that is always right, or never."""
    if task == "regression":
        values = [float(label) + (0.0 if good else 50.0) for label in labels]
        return [MemberAnswer(value, value) for value in values]
    other = {"high": "low", "low": "high"}
    told = [str(label) if good else other[str(label)] for label in labels]
    return [MemberAnswer(each, {each: 0.9, other[each]: 0.1}) for each in told]


def answered(
    columns: Mapping[str, Sequence[MemberAnswer | None]], **about: Any
) -> list[GivenAnswers]:
    """Records that these members answered, and who else sleeps."""
    known = {"champion": SERVES, "position": 1_000, "lineage": "lineage", **about}
    return [
        GivenAnswers({n: a for n, a in zip(columns, each, strict=True) if a is not None}, **known)
        for each in zip(*columns.values(), strict=True)
    ]


@pytest.mark.parametrize("task", TASKS)
def test_the_scores_and_the_log_are_those_of_then(task: Task) -> None:
    """The model of now is far better, and gets no credit for what it was not asked."""
    rows, labels = make_records(task, 400)
    made = make_learner(task)
    made.learn(rows[:300], labels[:300], None)
    before = {name: (tally.count, tally.total) for name, tally in made.tallies.items()}
    bad, good = constant(task, False, labels[300:]), constant(task, True, labels[300:])
    given = answered({"served": bad, "online": bad, "linear": bad, "batch": good})
    log = made.learn(rows[300:], labels[300:], None, bool, range(300, 400), given, SERVES)
    assert [each.value for each in bad] == log.by["served"].predicted == log.by["linear"].predicted
    assert [each.value for each in good] == log.by["batch"].predicted
    assert [None] * 100 == log.by["baseline"].predicted
    points = sum(scoring.point(task, bad[i].value, labels[300 + i]) for i in range(100))
    served, (count, total) = made.tallies["served"], before["served"]
    assert count + 100 == served.count
    assert total + points == pytest.approx(served.total)
    assert before["baseline"][0] == made.tallies["baseline"].count
    assert 100 == log.asleep["baseline"]
    assert "batch" not in log.asleep
    names = list(made.members)
    assert made.blend.weights[names.index("batch")] > made.blend.weights[names.index("linear")]


@pytest.mark.parametrize("task", TASKS)
def test_who_did_not_answer_keeps_its_share_of_the_weight(task: Task) -> None:
    """It sleeps; the others share what is theirs anew."""
    rows, labels = make_records(task, 400)
    good, bad = constant(task, True, labels[300:]), constant(task, False, labels[300:])

    def weights(linear: list[MemberAnswer], champion: list[MemberAnswer]) -> dict[str, float]:
        made = make_learner(task, "linear", "linear_fast")
        made.learn(rows[:300], labels[:300], make_champion(labels[:300], task))
        given = answered({"served": bad, "linear": linear, "batch": champion})
        log = made.learn(rows[300:], labels[300:], None, bool, range(300, 400), given, SERVES)
        assert 100 == log.asleep["linear_fast"]
        return dict(zip(made.members, made.blend.mixture.lower.weights[:, 0], strict=False))

    one, other = weights(good, bad), weights(bad, good)
    assert one["linear"] > 2 * other["linear"]
    assert one["linear_fast"] == pytest.approx(other["linear_fast"])


@pytest.mark.parametrize("task", TASKS)
def test_the_champion_is_tested_by_its_own_answers_alone(task: Task) -> None:
    """Those of the version before it are logged and scored, and say nothing of this one."""
    rows, labels = make_records(task, 600)
    bad, good = constant(task, False, labels), constant(task, True, labels)

    def heard(version: str) -> list[float]:
        made = make_learner(task)
        spoken: list[float] = []
        observe = made.errors.observe

        def listen(positions: Any, losses: Mapping[str, Any]) -> None:
            spoken.extend(np.asarray(losses["batch"]).tolist())
            observe(positions, losses)

        made.errors.observe = listen  # type: ignore[method-assign]  # the test listens
        given = answered({"served": good, "batch": bad, REST: good}, champion=version)
        log = made.learn(rows, labels, None, bool, range(600), given, SERVES)
        assert 600 == made.tallies["batch"].count
        assert [each.value for each in bad] == log.by["batch"].predicted
        assert (made.champion_value.value() is None) == (version != SERVES)
        return spoken

    assert np.isnan(heard("v000000050")).all()
    assert (np.array(heard(SERVES)) > 0.1).all()


@pytest.mark.parametrize("task", TASKS)
def test_the_errors_of_what_was_served_are_tested(task: Task) -> None:
    """By what was served then, and not by what the blend of now makes of it."""
    rows, labels = make_records(task, 50)
    made, spoken = make_learner(task), list[float]()

    def listen(positions: Any, losses: Mapping[str, Any]) -> None:
        spoken.extend(losses["served"])

    made.errors.observe = listen  # type: ignore[method-assign]  # the test listens
    bad, good = constant(task, False, labels), constant(task, True, labels)
    given = answered({"served": bad, "linear": good})
    made.learn(rows, labels, None, bool, range(50), given, SERVES)
    expected = [scoring.loss(task, each.answer, y) for each, y in zip(bad, labels, strict=True)]
    assert expected == pytest.approx(spoken)


def test_a_member_that_began_anew_does_not_answer_for_the_one_before_it() -> None:
    """Else the errors of the one that diverged would reset the new one, too."""
    rows, labels = make_records(count=800)
    sure = {"high": 0.5, "low": 0.5}
    made = with_members({OWN: OnlineMember(Model([sure] * 2_000), "classification")})
    bad, good = constant("classification", False, labels), constant("classification", True, labels)
    old = answered({"served": good, OWN: bad, "baseline": good}, position=99)
    new = answered({"served": good, OWN: bad, "baseline": good}, position=100)
    made.replace(OWN, OnlineMember(Model([sure] * 2_000), "classification"), 100)
    log = made.learn(rows, labels, None, bool, range(800), old, None)
    assert (0, 800) == (made.divergences[OWN].in_a_row, log.asleep[OWN])
    assert [each.value for each in bad] == log.by[OWN].predicted
    log = made.learn(rows, labels, None, bool, range(800, 1_600), new, None)
    assert made.divergences[OWN].in_a_row > 500
    assert 0 == log.asleep[OWN]


def test_records_that_nobody_was_asked_about_are_predicted_between_the_others() -> None:
    """A file's last records and a service's first examples are one batch."""
    rows, labels = make_records(count=20)
    made, plain = make_learner(), make_learner()
    bad = constant("classification", False, labels)
    given = [each if place % 2 else None for place, each in enumerate(answered({"linear": bad}))]
    champion = make_champion(labels, "classification")
    log = made.learn(rows, labels, champion, bool, range(20), given, SERVES)
    alone = plain.learn(rows, labels, champion)
    assert bad[3].value == log.by["linear"].predicted[3]
    assert None is log.by["batch"].predicted[3]
    assert None is log.by["served"].predicted[3]
    for place in range(0, 20, 2):
        assert alone.by["linear"].predicted[place] == log.by["linear"].predicted[place]
        assert labels[place] == log.by["batch"].predicted[place]


def test_the_models_learn_the_same_whatever_was_answered() -> None:
    """Features and label teach; an answer never does."""
    rows, labels = make_records(count=200)
    made, plain = make_learner(), make_learner()
    bad = constant("classification", False, labels)
    made.learn(rows, labels, None, bool, range(200), answered({"served": bad}), None)
    plain.learn(rows, labels, None)
    (one,), (other,) = made.online.members.values(), plain.online.members.values()
    assert [one.predict(row) for row in rows] == [other.predict(row) for row in rows]


def test_a_class_that_nobody_knew_then_was_missed() -> None:
    """It costs what a sure miss does, and the new class is learned."""
    rows, _ = make_records(count=2)
    made = make_learner()
    told = MemberAnswer("high", {"high": 1.0})
    given = answered({"served": [told, told], "linear": [told, told]})
    log = made.learn(rows, ["new", "high"], None, bool, range(2), given, None)
    assert ["high", "high"] == log.by["served"].predicted
    assert 0.5 == made.tallies["served"].mean
    assert {"high", "new"} <= set(made.blend.classes)  # type: ignore[union-attr]  # of classes


@pytest.mark.parametrize(
    ("answers", "kind", "expected"),
    [
        ({"a": {"value": 1, "probabilities": {"1": 0.75, "0": 0.25}}}, "int", {1: 0.75, 0: 0.25}),
        ({"a": {"value": "01", "probabilities": {"01": 1}}}, "str", {"01": 1}),
        ({"a": {"value": 3, "probabilities": None}}, "float", 3.0),
        ({"a": {"value": 10**400, "probabilities": None}}, "float", None),
        ({"a": {"value": None, "probabilities": None}}, "float", None),
        ({"a": {"value": "high", "probabilities": None}}, "float", None),
        ({"a": {"value": 1, "probabilities": {"one": 1.0}}}, "int", None),
        ({"a": {"value": 1, "probabilities": {"0": 1.0}}}, "int", None),
        ({"a": {"value": 1, "probabilities": {"1": "much"}}}, "int", None),
        ({"a": {"value": 1, "probabilities": [1.0]}}, "int", None),
        ({"a": "nonsense"}, "str", None),
    ],
)
def test_what_cannot_be_an_answer_is_none(answers: Any, kind: Any, expected: Any) -> None:
    """An inbox may be of another version; its member sleeps then."""
    read = given_answers(answers, {"champion": 7, "position": "x"}, kind)
    assert (None, 0, "None") == (read.champion, read.position, read.lineage)
    assert expected == (read.members["a"].answer if "a" in read.members else None)


def test_a_sleeping_champion_has_no_prediction() -> None:
    """The batch prediction of now is not put in its place."""
    rows, labels = make_records(count=3)
    given = answered({"served": constant("classification", True, labels)})
    now = BatchPrediction(labels, np.array([[1.0, 0.0]] * 3), ("high", "low"))
    log = make_learner().learn(rows, labels, now, bool, range(3), given, SERVES)
    assert [None] * 3 == log.by["batch"].predicted
