"""The learner: predicts each record before it learns it, and counts exactly what it logged."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import linear_model

from models.core import scoring
from models.core.metrics import Measure
from models.core.prediction import BatchPrediction
from models.core.record_schema import Features, Label, Task
from models.online import learner, online_model
from models.online.blend import BlendConfig
from models.online.learner import Learner, RecentLosses, Tally
from models.online.online_model import (
    DEFAULT_MEMBERS,
    OnlineConfig,
    OnlineMember,
    OnlineMembers,
    RecordRefused,
)
from models.online.prediction_rows import MemberRows, PredictionRows
from models.persistence import serialization
from observability.drift.error_monitor import ErrorMonitor
from tests import ROOT
from tests.models.makers import make_label, make_rows, make_schema

TASKS: tuple[Task, ...] = ("classification", "regression")
OWN = "own:Model"
"""The name of a user's own member."""


def make_learner(task: Task = "classification", *members: str) -> Learner:
    """A learner of `makers.make_schema` that has met nothing; linear unless members are named."""
    config = OnlineConfig(members=members or ("linear",))
    made = online_model.build(config, make_schema(task))
    return Learner(made, task, BlendConfig())


def make_records(
    task: Task = "classification", count: int = 300, seed: int = 0
) -> tuple[list[Features], list[Label]]:
    """Records with blanks, and labels that can be learned of them."""
    rows = make_rows(count, seed)
    return rows, [make_label(row, "float" if task == "regression" else "str") for row in rows]


def make_champion(labels: Sequence[Label], task: Task, sure: float = 0.9) -> BatchPrediction:
    """A champion that is always right."""
    if task == "regression":
        return BatchPrediction(list(labels), None)
    classes = ("high", "low")
    shares = np.array(
        [[sure if each == label else 1 - sure for each in classes] for label in labels]
    )
    return BatchPrediction(list(labels), shares, classes)


class Model:
    """A model of a user's own: it answers in turn what it is given, and notes what it was asked."""

    def __init__(self, answers: Iterable[Any]) -> None:
        self.answers = iter(answers)
        self.asked: list[str] = []

    def predict_one(self, record: Features) -> Any:
        self.asked.append("predict")
        return next(self.answers)

    predict_proba_one = predict_one

    def learn_one(self, record: Features, label: Label) -> None:
        self.asked.append("learn")
        if record.get("spoilt"):
            raise ZeroDivisionError("float division by zero")


def with_model(model: Any, task: Task = "classification") -> Learner:
    """A learner whose only online member is `model`."""
    return with_members({OWN: OnlineMember(model, task)}, task)


def with_members(members: dict[str, OnlineMember], task: Task = "classification") -> Learner:
    """A learner of these online members."""
    return Learner(OnlineMembers(members), task, BlendConfig())


def whole(logs: Iterable[PredictionRows]) -> PredictionRows:
    """Logs of one batch after the other as one."""
    parts = [*logs]
    return PredictionRows(
        [label for log in parts for label in log.labels],
        {
            who: MemberRows(
                [each for log in parts for each in log.by[who].predicted],
                [each for log in parts for each in log.by[who].probabilities],
            )
            for who in parts[0].by
        },
    )


def shares(log: PredictionRows) -> dict[str, list[dict[Label, float]]]:
    """Of each member the probabilities by class, record by record; none is no prediction."""
    found: dict[str, list[dict[Label, float]]] = {}
    for who, rows in log.by.items():
        assert rows.whole is not None
        assert rows.whole.probabilities is not None
        table = rows.whole.probabilities.tolist()
        found[who] = [
            {
                label: share
                for label, share in zip(rows.whole.labels, row, strict=True)
                # A class that is unknown yet has no place, or a probability of nought.
                if share > 0.0
            }
            for row in table
        ]
    return found


def in_two_tasks(count: int = 300) -> list[PredictionRows]:
    """What is logged for classes and for values, the champion joining half way."""
    logs = []
    for task in TASKS:
        for members in (("linear",), DEFAULT_MEMBERS):
            rows, labels = make_records(task, count)
            made, half = make_learner(task, *members), count // 2
            logs.append(made.learn(rows[:half], labels[:half], None))
            champion = make_champion(labels[half:], task)
            logs.append(made.learn(rows[half:], labels[half:], champion))
    return logs


def fingerprint() -> str:
    """A digest of every logged bit."""
    logged = [
        (log.labels, who, rows.predicted, rows.probabilities, repr(rows.whole))
        for log in in_two_tasks()
        for who, rows in log.by.items()
    ]
    with np.printoptions(floatmode="unique", threshold=10**9):
        return hashlib.sha256(json.dumps(logged).encode()).hexdigest()


FINGERPRINT = "from tests.models.online import test_learner as this; print(this.fingerprint())"


def test_the_same_records_leave_the_same_log_in_every_process() -> None:
    """A resumed run equals an undisturbed one only if no order of a set enters, to the last bit."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", FINGERPRINT],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    assert {fingerprint()} == {process.communicate()[0].strip() for process in started}


@pytest.mark.parametrize("task", TASKS)
def test_a_learner_that_was_pickled_goes_on_as_if_it_had_not_been(task: Task) -> None:
    """Everything that the next record depends on is inside: blend, baseline, error tests."""
    rows, labels = make_records(task)
    champion = make_champion(labels[100:], task)
    undisturbed = make_learner(task, "hoeffding_adaptive_tree")
    undisturbed.learn(rows[:100], labels[:100], None)
    resumed = serialization.loads(serialization.dumps(undisturbed))
    assert isinstance(resumed, Learner)
    expected = undisturbed.learn(rows[100:], labels[100:], champion)
    assert expected == resumed.learn(rows[100:], labels[100:], champion)
    assert undisturbed.tallies == resumed.tallies


@given(st.lists(st.integers(0, 80), max_size=4))
@settings(max_examples=15)
def test_it_does_not_matter_how_a_stream_is_cut_into_batches(cuts: list[int]) -> None:
    """The log and the tallies are those of one batch."""
    rows, labels = make_records(count=80)
    one, many = make_learner(), make_learner()
    edges = [0, *sorted(cuts), 80]
    logs = [
        many.learn(rows[begin:end], labels[begin:end], None)
        for begin, end in itertools.pairwise(edges)
    ]
    log = one.learn(rows, labels, None)
    assert log == whole(logs)
    parts = [shares(each) for each in logs if len(each)]
    assert shares(log) == {who: [row for part in parts for row in part[who]] for who in log.by}
    assert one.tallies == many.tallies
    assert [vars(each) for each in one.judged.values()] == [
        vars(each) for each in many.judged.values()
    ]


def test_each_record_is_predicted_before_it_is_learned() -> None:
    """A model that is asked after it has seen the label would look better than it is."""
    model = Model([{}] * 3)
    with_model(model).learn([{}] * 3, ["a", "b", "a"], None)
    assert ["predict", "learn"] * 3 == model.asked


@pytest.mark.parametrize("task", TASKS)
def test_the_first_record_of_all_is_learned(task: Task) -> None:
    """Nobody knows a class yet, so nobody is scored; the second record is answered."""
    rows, labels = make_records(task, 2)
    made = make_learner(task)
    first = made.learn(rows[:1], labels[:1], None)
    assert labels[:1] == first.labels
    assert [None] == first.by["baseline"].predicted == first.by["batch"].predicted
    if task == "classification":
        assert [None] == first.by["online"].predicted == first.by["served"].predicted
        assert made.tallies["served"].mean is None
    second = made.learn(rows[1:], labels[1:], None)
    assert labels[:1] == second.by["baseline"].predicted
    assert [None] != second.by["served"].predicted


@given(st.sets(st.integers(0, 79)), st.sampled_from(["linear", "hoeffding_adaptive_tree"]))
@settings(max_examples=15, deadline=None)
def test_a_record_without_a_label_leaves_no_trace(waiting: set[int], recipe: str) -> None:
    """It is answered, and all others are answered and counted as if it had not come."""
    rows, known = make_records(count=80)
    labels: list[Label | None] = [
        None if place in waiting else label for place, label in enumerate(known)
    ]
    champion = make_champion(known, "classification")
    mixed, alone = (make_learner("classification", recipe) for _ in range(2))
    log = mixed.learn(rows, labels, champion)
    kept = [place for place in range(80) if place not in waiting]
    expected = alone.learn(
        [rows[place] for place in kept],
        [known[place] for place in kept],
        make_champion([known[place] for place in kept], "classification"),
    )
    assert (80, len(kept)) == (len(log), log.learned)
    assert labels == log.labels
    assert expected == log.labelled()
    assert shares(expected) == shares(log.labelled())
    assert [*mixed.names] == [*log.by]
    assert alone.tallies == mixed.tallies
    again = (rows, known, champion)
    assert alone.learn(*again) == mixed.learn(*again)


@pytest.mark.parametrize("task", TASKS)
def test_a_record_without_a_label_is_answered_by_everybody(task: Task) -> None:
    """What is asked of a model is the answer before the label is known."""
    rows, labels = make_records(task)
    made = make_learner(task)
    made.learn(rows, labels, None)
    log = made.learn(rows[:3], [None] * 3, make_champion(labels[:3], task))
    assert 0 == log.learned
    assert [] == [who for who, rows in log.by.items() if None in rows.predicted]


def test_no_record_is_no_change() -> None:
    """A batch of which every record was rejected leaves the learner as it was."""
    made = make_learner()
    assert 0 == len(made.learn([], [], None))
    assert dict.fromkeys(made.names, Tally()) == made.tallies


@pytest.mark.parametrize("wanted", [0, 1, 150, 300])
def test_a_stop_leaves_the_rest_of_the_records_alone(wanted: int) -> None:
    """What was learned is what is logged, as if the batch had ended there."""
    rows, labels = make_records()
    asked = iter(range(1_000))
    stopped, short = make_learner(), make_learner()
    log = stopped.learn(rows, labels, None, stop=lambda: next(asked) >= wanted)
    assert wanted == len(log)
    assert short.learn(rows[:wanted], labels[:wanted], None) == log
    assert short.tallies == stopped.tallies
    follow = (rows[wanted:], labels[wanted:], None)
    assert short.learn(*follow) == stopped.learn(*follow)


def test_a_model_that_raises_while_it_learns_refuses_that_record() -> None:
    """The error says which record and member it was, what the model said, and keeps the cause."""
    rows: list[Features] = [{}, {}, {"spoilt": "yes"}, {}]
    with pytest.raises(RecordRefused, match="ZeroDivisionError: float division") as refused:
        with_model(Model([{}] * 4)).learn(rows, ["a"] * 4, None)
    assert (2, OWN) == (refused.value.index, refused.value.member)
    assert isinstance(refused.value.__cause__, ZeroDivisionError)


def test_a_model_that_raises_while_it_predicts_refuses_that_record() -> None:
    """An answer that cannot be had is no less a refusal than a record that cannot be learned."""
    with pytest.raises(RecordRefused, match="StopIteration") as refused:
        with_model(Model([{"a": 1.0}])).learn([{}, {}], ["a", "a"], None)
    assert 1 == refused.value.index


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf])
def test_a_member_that_answers_nonsense_is_absent_for_that_record(
    task: Task, nonsense: float
) -> None:
    """It is neither logged nor scored, the others are served, and it is counted as silent."""
    sound: Label = "a" if task == "classification" else 2.0
    answers: list[Any] = (
        [{"a": 0.8, "b": 0.2}, {"a": nonsense, "b": 0.5}, {"a": 0.8, "b": 0.2}]
        if task == "classification"
        else [2.0, nonsense, 2.0]
    )
    made = with_model(Model(answers), task)
    log = made.learn([{}] * 3, [sound] * 3, None)
    assert [sound, None, sound] == log.by["online"].predicted == log.by[OWN].predicted
    assert [sound] * 3 == log.by["served"].predicted
    assert (2, 3, 1) == (
        made.tallies["online"].count,
        made.tallies["served"].count,
        made.online.members[OWN].non_finite_count,
    )
    assert np.isfinite(made.blend.weights).all()


def test_a_binary_model_of_rivers_own_is_logged_as_the_classes_it_learned() -> None:
    """river's binary models answer True and False: for classes 1 and 0 these are 1 and 0."""
    rows = make_rows(300)
    labels: list[Label] = [int(make_label(row) == "high") for row in rows]
    numbers: list[Features] = [{"height": row["height"]} for row in rows]
    made = with_model(linear_model.LogisticRegression())
    log = made.learn(numbers, labels, None)
    told = (*log.by["online"].predicted, *log.by["served"].predicted)
    assert {int} == {type(each) for each in told}
    assert (made.tallies["online"].mean or 0) > 0.9


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("recipe", ["linear", "hoeffding_adaptive_tree"])
def test_the_tallies_are_the_log_counted(task: Task, recipe: str) -> None:
    """Whoever counts the log again gets the scores that the summary shows."""
    rows, labels = make_records(task)
    made = make_learner(task, recipe)
    champion = make_champion(labels[150:], task)
    log = whole(
        [
            made.learn(rows[:150], labels[:150], None),
            made.learn(rows[150:], labels[150:], champion),
        ]
    )
    for who, tally in made.tallies.items():
        predicted = log.by[who].predicted
        assert sum(each is not None for each in predicted) == tally.count
        assert tally.mean == pytest.approx(scoring.mean(task, predicted, log.labels))
    assert (150, 299) == (made.tallies["batch"].count, made.tallies["baseline"].count)


def test_a_tally_without_answers_has_no_mean() -> None:
    """None, and not 0: nobody was right, and nobody was wrong."""
    tally = Tally()
    assert tally.mean is None
    tally.add(1.0)
    tally.add(0.0)
    assert 0.5 == tally.mean


def test_the_champion_is_logged_with_its_most_probable_class() -> None:
    """Class and probability are those of the batch model, and NULL while there is none."""
    rows, labels = make_records(count=4)
    made = make_learner()
    before = made.learn(rows, labels, None)
    assert [None] * 4 == before.by["batch"].predicted == before.by["batch"].probabilities
    after = made.learn(rows, labels, make_champion(labels, "classification", sure=0.75))
    assert labels == after.by["batch"].predicted
    assert [0.75] * 4 == after.by["batch"].probabilities


def test_values_have_no_probabilities() -> None:
    """In regression the logged probabilities are NULL, for everybody."""
    rows, labels = make_records("regression", 20)
    made = make_learner("regression")
    made.learn(rows, labels, None)
    log = made.learn(rows, labels, make_champion(labels, "regression"))
    assert labels == log.by["batch"].predicted
    assert dict.fromkeys(made.names, [None] * 20) == {
        who: each.probabilities for who, each in log.by.items()
    }


@pytest.mark.parametrize("task", TASKS)
def test_what_is_served_leans_on_a_champion_that_is_right(task: Task) -> None:
    """An online member that guesses is trusted at first, and no longer once the champion is in."""
    chance = random.Random(4)
    guess = ({"high": 0.6, "low": 0.4}, {"high": 0.4, "low": 0.6})
    answers = (
        chance.choice(guess) if task == "classification" else chance.uniform(-200, 200)
        for _ in range(2_000)
    )
    rows, labels = make_records(task, 2_000)
    made = with_model(Model(answers), task)
    log = made.learn(rows, labels, make_champion(labels, task))
    late = slice(1_000, None)
    served, guessed = (
        scoring.mean(task, log.by[who].predicted[late], labels[late]) for who in ("served", OWN)
    )
    assert served is not None
    assert guessed is not None
    if task == "classification":
        assert served == 1.0 > guessed
    else:
        assert served < 0.2 * guessed


def risen_at(made: Learner, records: tuple[list[Features], list[Label]], first: int) -> int | None:
    """The record from `first` on at which the tests of errors fired, if they did."""
    for index, (row, label) in enumerate(zip(*records, strict=True)):
        made.learn([row], [label], None, positions=[first + index])
        if made.errors.fired:
            return index
    return None


def opposite(label: Label) -> Label:
    """The world turned round."""
    return 1_000 - label if isinstance(label, float) else {"high": "low", "low": "high"}[str(label)]


@pytest.mark.parametrize("task", TASKS)
def test_errors_that_rise_are_seen_and_none_before(task: Task) -> None:
    """2,500 records of one world leave the tests silent; the world turned round is seen soon."""
    rows, labels = make_records(task, 3_000)
    made = make_learner(task)
    assert risen_at(made, (rows[:2_500], labels[:2_500]), 0) is None
    turned = [opposite(each) for each in labels[2_500:]]
    after = risen_at(made, (rows[2_500:], turned), 2_500)
    assert after is not None
    assert after < 200
    assert "errors" in made.errors.fired


@pytest.mark.parametrize("task", TASKS)
def test_no_errors_rise_where_nobody_is_ever_wrong(task: Task) -> None:
    """A constant stream has no error, and no spread to measure one against."""
    label: Label = "high" if task == "classification" else 3.0
    made = make_learner(task)
    made.learn(make_rows(4_000), [label] * 4_000, None, positions=range(4_000))
    assert () == made.errors.evidence()


def test_a_record_without_a_place_or_a_label_is_no_evidence() -> None:
    """A reject that comes back late has errors of another time, and a late label none yet."""
    rows, labels = make_records(count=300)
    made = make_learner()
    made.learn(rows, labels, None)
    made.learn(rows, [None] * 300, None, positions=range(300))
    assert 0 == made.errors.seen
    made.learn(rows, labels, None, positions=range(300, 600))
    assert 300 == made.errors.seen


errors = st.floats(-1e100, 1e100) | st.sampled_from([math.nan, math.inf, 0.0])


@given(st.lists(st.tuples(errors, st.floats(-1e100, 1e100)), max_size=300))
def test_no_value_makes_the_tests_of_errors_or_a_tally_deaf(
    records: list[tuple[float, float]],
) -> None:
    """Whatever is answered, evidence is a number and tallies are finite."""
    answers, labels = [each[0] for each in records], [each[1] for each in records]
    made = with_model(Model(answers), "regression")
    made.errors = ErrorMonitor(bounded=False, reference_records=100)
    made.learn([{}] * len(records), labels, None, positions=range(len(records)))
    assert all(math.isfinite(test.evidence) for test in made.errors.tests.values())
    assert all(math.isfinite(tally.total) for tally in made.tallies.values())


@pytest.mark.parametrize("task", TASKS)
def test_the_blend_weighs_every_member_and_every_stack(task: Task) -> None:
    """In the order of `members`, all alike at first; what is served is no member of it."""
    made = make_learner(task, *DEFAULT_MEMBERS)
    naive = ("baseline",) if task == "classification" else ("baseline", "median")
    assert (*DEFAULT_MEMBERS, "batch", *naive) == made.members
    assert ("served", "online", *made.members) == made.names == learner.names(DEFAULT_MEMBERS, task)
    stacks = len(BlendConfig().learning_rates)
    assert np.allclose(1 / (len(made.members) + stacks), made.blend.weights)
    assert len(made.members) + stacks == len(made.blend.weights)


def test_a_threshold_decides_what_is_served_and_nothing_else() -> None:
    """The members answer their likeliest class; the log's probability is of the class served."""
    rows, labels = make_records(count=300)
    measure = Measure("f1", threshold=0.05)
    made = online_model.build(OnlineConfig(members=("linear",)), make_schema())
    cut = Learner(made, "classification", BlendConfig(), measure=measure)
    plain = make_learner()
    log, usual = cut.learn(rows, labels, None), plain.learn(rows, labels, None)
    assert cut.threshold is not None
    rarer = cut.threshold.rarer
    assert log.by["online"] == usual.by["online"]
    assert shares(log) == shares(usual)
    rows_of = log.by["served"]
    told = zip(shares(log)["served"], rows_of.predicted, rows_of.probabilities, strict=True)
    for answer, served, probability in list(told)[150:]:
        assert rarer is not None
        assert served is not None
        assert (answer[rarer] >= 0.05) is (served == rarer)
        assert answer[served] == probability
    assert cut.tallies["online"] == plain.tallies["online"]


def test_another_metric_begins_to_count_anew_and_forgets_nothing_learned() -> None:
    """Only what is judged by it starts again."""
    rows, labels = make_records(count=100)
    made = make_learner()
    made.learn(rows, labels, None)
    assert 99 == made.judged["served"].count
    made.judge_by(Measure("f1"))
    assert 0 == made.judged["served"].count
    assert 99 == made.tallies["served"].count


@pytest.mark.parametrize("task", TASKS)
def test_the_online_column_is_the_best_online_member_of_late(task: Task) -> None:
    """Each entry is one of theirs; a member that turns bad is left within some hundred records."""
    rows, labels = make_records(task, 1_200)
    wrong = [opposite(label) for label in labels]
    first = [*labels[:600], *wrong[600:]]
    second = [*wrong[:600], *labels[600:]]

    def member(answers: Sequence[Label]) -> OnlineMember:
        told = answers if task == "regression" else [{each: 1.0} for each in answers]
        return OnlineMember(Model(told), task)

    made = with_members({"own:First": member(first), "own:Second": member(second)}, task)
    log = made.learn(rows, labels, None)
    online, one, other = (log.by[who].predicted for who in ("online", "own:First", "own:Second"))
    assert all(each in pair for each, *pair in zip(online, one, other, strict=True))
    assert online[2:600] == one[2:600]
    assert online[900:] == other[900:]


def test_a_member_that_does_not_answer_yet_is_not_far_worse() -> None:
    """It is absent; a model that waits for a thousand records is given its time."""
    rows, labels = make_records(count=1_000)
    made = with_members(
        {
            "own:Ready": OnlineMember(Model([{"high": 0.5, "low": 0.5}] * 1_000), "classification"),
            OWN: OnlineMember(Model([{}] * 1_000), "classification"),
        }
    )
    made.learn(rows, labels, None)
    assert 0 == made.divergences[OWN].in_a_row


@pytest.mark.parametrize("task", TASKS)
def test_a_replaced_member_begins_anew_and_the_others_go_on(task: Task) -> None:
    """Its time to the next reset doubles; no other member, and no count, is touched."""
    rows, labels = make_records(task, 200)
    made = make_learner(task, "linear", "linear_fast")
    made.learn(rows, labels, None)
    kept, counts = made.online.members["linear"], dict(made.tallies)
    patience = made.divergences["linear_fast"].patience
    anew = online_model.build(OnlineConfig(), make_schema(task)).members["linear_fast"]
    made.replace("linear_fast", anew, 200)
    assert [kept, anew] == [*made.online.members.values()]
    assert (0, 2 * patience) == (
        made.divergences["linear_fast"].in_a_row,
        made.divergences["linear_fast"].patience,
    )
    assert counts == made.tallies
    log = made.learn(rows, labels, None)
    assert None not in log.by["served"].predicted


def test_records_without_labels_leave_the_recent_losses_as_they_are() -> None:
    """However many come, the best online member of late stays the best."""
    recent = RecentLosses(2)
    known = recent.run(np.array([[0.5, 0.25]]))[-1]
    unknown = np.full((200_000, 2), np.nan)
    assert known.tolist() == recent.run(unknown)[-1].tolist()
