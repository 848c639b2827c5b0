"""A bundle: it answers what the loop would serve, and no answer changes it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from models.batch.batch_model import BatchAnswersNothing, BatchModel
from models.core.prediction import BatchPrediction
from models.core.record_schema import Column, Features, Label, Schema
from models.online import online_model
from models.online.blend import BlendConfig
from models.online.learner import Learner
from models.online.online_model import OnlineConfig
from models.persistence import serialization
from models.serving.bundle import Bundle, Predicted, Refused
from models.serving.request_rows import FieldFault
from models.stream.parsing.columns import Plan

COLUMNS = (Column(name="load", kind="number"), Column(name="site", kind="category"))
CLASSES = Schema(columns=COLUMNS, target="label", task="classification", label_kind="str")
VALUES = Schema(columns=COLUMNS, target="label", task="regression", label_kind="float")
RECORDS = [{"load": index / 40, "site": "ab"[index % 2]} for index in range(40)]


class Champion(BatchModel):
    """A champion that answers a share of the load, and fails on a load of 13."""

    def predict(self, frame: pd.DataFrame) -> BatchPrediction:
        load = frame["load"].fillna(0.0).to_numpy(np.float64)
        if (load == 13.0).any():
            raise BatchAnswersNothing("a load of 13 came")
        share = np.clip(load, 0.0, 1.0)
        if self.task == "regression":
            return BatchPrediction(share.tolist(), None)
        return BatchPrediction(
            ["busy" if each > 0.5 else "idle" for each in share],
            np.stack([share, 1 - share], axis=1),
            ("busy", "idle"),
        )


def make_bundle(schema: Schema = CLASSES, learned: int = 40, **changes: Any) -> Bundle:
    """A bundle whose learner has learned some records."""
    learner = Learner(online_model.build(OnlineConfig(), schema), schema.task, BlendConfig())
    rows: list[Features] = [{**record} for record in RECORDS[:learned]]  # type: ignore[dict-item]
    labels: list[Label | None] = [_label(schema, index) for index in range(learned)]
    champion = Champion(schema.task, (), schema, None, None)
    if learned:
        frame = pd.DataFrame(rows, columns=schema.names)
        learner.learn(rows, labels, champion.predict(frame))
    given = {"champion": champion, "champion_version": "v000000040", "position": learned}
    made = {"pipeline": "small", "plan": Plan(schema, 1e100), "learner": learner, **given}
    return Bundle(**{**made, **changes})


def _label(schema: Schema, index: int) -> Label:
    if schema.task == "regression":
        return index / 20
    return "busy" if index > 20 else "idle"


@pytest.mark.parametrize("schema", [CLASSES, VALUES], ids=["classes", "values"])
def test_answers_change_nothing(schema: Schema) -> None:
    """A hundred answers later every byte of what predicts is as it was, and so are the answers."""
    bundle = make_bundle(schema)
    before, first = serialization.dumps(bundle.learner), bundle.predict(RECORDS)
    for _ in range(100):
        bundle.predict(RECORDS[:3])
    assert first == bundle.predict(RECORDS)
    after = serialization.loads(before)
    assert isinstance(after, Learner)
    again = make_bundle(schema, learner=after)
    assert first == again.predict(RECORDS)


@settings(max_examples=20)
@given(cuts=st.sets(st.integers(1, 39), max_size=5))
def test_what_came_together_is_answered_as_what_came_alone(cuts: set[int]) -> None:
    """However records are gathered, each has the same answer."""
    places = [0, *sorted(cuts), 40]
    parts = [BUNDLE.predict(RECORDS[a:b]) for a, b in itertools.pairwise(places)]
    assert BUNDLE.predict(RECORDS) == [answer for part in parts for answer in part]


def test_every_member_is_answered_with_probabilities() -> None:
    """What was served, with the champion and without it, is among the members."""
    (answer,) = BUNDLE.predict([{"load": 0.9, "site": "a"}])
    assert isinstance(answer, Predicted)
    assert {*BUNDLE.learner.names, "rest"} == set(answer.members)
    assert {"value": "busy", "probabilities": {"idle": pytest.approx(0.1), "busy": 0.9}} == (
        answer.members["batch"]
    )
    assert answer.members["served"] == {
        "value": answer.value,
        "probabilities": answer.probabilities,
    }
    assert answer.probabilities is not None
    assert 1.0 == pytest.approx(sum(answer.probabilities.values()))


def test_values_have_no_probabilities() -> None:
    """In regression an answer is a number."""
    (answer,) = make_bundle(VALUES).predict([{"load": 0.9}])
    assert isinstance(answer, Predicted)
    assert isinstance(answer.value, float)
    assert answer.probabilities is None
    assert {"value": 0.9, "probabilities": None} == answer.members["batch"]


def test_before_the_first_label_nothing_is_known() -> None:
    """Without a champion and without labels the answer is none, and no error."""
    bundle = make_bundle(learned=0, champion=None, champion_version=None)
    (answer,) = bundle.predict([{"load": 1}])
    assert isinstance(answer, Predicted)
    assert (None, None) == (answer.value, answer.probabilities)
    assert ("0",) == bundle.names


def test_a_record_that_is_invalid_does_not_touch_its_neighbours() -> None:
    """Only it is refused, with field, what came and what was allowed."""
    good, bad = {"load": 0.2, "site": "a"}, {"load": "x", "site": 3}
    first, second, third = BUNDLE.predict([good, bad, good])
    assert first == third == BUNDLE.predict([good])[0]
    assert second == Refused(
        (
            FieldFault("load", "a number was expected, 'x' came"),
            FieldFault("site", "a text was expected, the number 3 came"),
        )
    )


def test_a_champion_that_fails_on_one_record_is_silent_there_alone() -> None:
    """The others keep its prediction; the one is served by the rest, as by the loop."""
    good, bad = {"load": 0.2, "site": "a"}, {"load": 13, "site": "a"}
    first, second, third = BUNDLE.predict([good, bad, good])
    assert first == third == BUNDLE.predict([good])[0]
    assert isinstance(second, Predicted)
    assert {"value": None, "probabilities": None} == second.members["batch"]
    assert second.value is not None


def test_models_predict_in_one_thread() -> None:
    """Several would wait for one another on a request of a few records."""
    seen: list[int] = []

    class Watching(Champion):
        """A champion that looks how many threads it has."""

        def predict(self, frame: pd.DataFrame) -> BatchPrediction:
            seen.extend(each["num_threads"] for each in threadpool_info())
            return super().predict(frame)

    watching = Watching("classification", (), CLASSES, None, None)
    with threadpool_limits(limits=4):
        make_bundle(champion=watching).predict(RECORDS)
    assert {1} == set(seen)


class Refuses:
    """An online model that raises on a record of the site "c"."""

    def predict_proba_one(self, record: Features) -> dict[str, float]:
        if record["site"] == "c":
            raise KeyError("c")
        return {"busy": 0.5, "idle": 0.5}


def test_a_member_that_raises_refuses_one_record_alone() -> None:
    """Its neighbours are predicted; the message names the model's error."""
    bundle = make_bundle()
    bundle.learner.online.members["linear"].model = Refuses()
    good, refused, also_good = bundle.predict([{"site": "a"}, {"site": "c"}, {"site": "b"}])
    assert isinstance(good, Predicted)
    assert isinstance(also_good, Predicted)
    assert refused == Refused((FieldFault(None, "a model cannot predict it: KeyError: 'c'"),))


def test_a_bundle_is_named_by_its_champion_and_by_its_position() -> None:
    """Both are versions that a request may name; the first is the one that is told."""
    assert ("v000000040", "40") == BUNDLE.names
    expected = {"champion": "v000000040", "position": 40, "lineage": ""}
    assert expected == BUNDLE.versions


def test_to_warm_it_changes_no_answer() -> None:
    """The first record's answer is that of a bundle that was never asked."""
    bundle = make_bundle()
    bundle.warm()
    assert make_bundle().predict(RECORDS) == bundle.predict(RECORDS)


BUNDLE = make_bundle()
