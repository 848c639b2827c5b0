"""Models of other people that misbehave: what they do wrong is told, and kept from the pipeline."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from models.batch import batch_model
from models.batch.batch_model import BatchAnswersNothing, BatchCannotLearn, BatchModel
from models.batch.recipe_config import BatchRecipe
from models.core.record_schema import Features, Label, LabelKind
from models.online import online_model
from models.online.blend import BlendConfig
from models.online.learner import Learner
from models.online.online_model import OnlineConfig, OnlineMember, OnlineMembers, RecordRefused
from models.persistence.serialization import CannotLoad
from observability.core.errors import BadConfiguration
from tests.models.makers import make_schema, make_store, make_window, put

ROW: Features = {"height": 1.0, "colour": "red", "weight": 2.0}


class Answers:
    """Answers what it is told, and learns by raising what it is told."""

    def __init__(self, masses: Any = None, raised: BaseException | None = None) -> None:
        self.masses = {} if masses is None else masses
        self.raised = raised

    def learn_one(self, x: Any, y: Any) -> None:
        if self.raised is not None:
            raise self.raised

    def predict_proba_one(self, x: Any) -> Any:
        return self.masses


class ExitsEstimator:
    """A scikit-learn model that ends the process, once while it fits and once while it answers."""

    def __init__(self, fits: bool = False) -> None:
        self.fits = fits

    def fit(self, matrix: Any, targets: Any) -> ExitsEstimator:
        if not self.fits:
            sys.exit(0)
        return self

    def predict(self, matrix: Any) -> Any:
        sys.exit(0)


class NeverLoads:
    """Has bytes, and no way back from them."""

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return int, ("not from here",)


def make_learner(model: Any, kind: LabelKind = "str") -> Learner:
    """A learner of classes around `model`."""
    members = OnlineMembers({"own:Model": OnlineMember(model, "classification", kind)})
    return Learner(members, "classification", BlendConfig())


def build(name: str, beside: Path) -> None:
    """Build this online member, from a module in the folder `beside`."""
    online_model.build(OnlineConfig(members=(name,)), make_schema(), beside=beside)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [("str", 0), ("str", True), ("str", None), ("str", ("a", 1)), ("int", "a"), ("int", 0.5)],
)
def test_a_class_that_the_stream_cannot_have_refuses_the_record(
    kind: LabelKind, wrong: Any
) -> None:
    """It would neither fit the prediction log nor ever be right; the message names it."""
    label: Label = "a" if kind == "str" else 1
    with pytest.raises(RecordRefused, match="must answer the labels that it was given") as caught:
        make_learner(Answers({wrong: 1.0}), kind).learn([ROW], [label], None)
    assert repr(wrong) in str(caught.value)


def test_truth_stands_for_the_whole_numbers_one_and_zero() -> None:
    """river's binary models answer so."""
    log = make_learner(Answers({False: 0.25, True: 0.75}), "int").learn([ROW], [1], None)
    assert log.by["online"].predicted == log.by["own:Model"].predicted == [1]


def test_shares_below_nought_are_no_answer() -> None:
    """Even where they sum to 1: the member is absent, and counted as silent."""
    member = OnlineMember(Answers({"a": -0.5, "b": 1.5}), "classification", "str")
    assert member.predict(ROW) is None
    assert member.non_finite_count == 1


def test_a_model_that_ends_the_process_refuses_the_record() -> None:
    """sys.exit() in a model would end a run with code 0 in the middle of the stream."""
    with pytest.raises(RecordRefused, match="SystemExit: 0"):
        make_learner(Answers(raised=SystemExit(0))).learn([ROW], ["a"], None)


def test_a_machine_without_memory_rejects_no_record() -> None:
    """The record is as good as before: it is learned when there is memory again."""
    with pytest.raises(MemoryError):
        make_learner(Answers(raised=MemoryError())).learn([ROW], ["a"], None)


def test_a_batch_model_that_ends_the_process_cannot_learn(tmp_path: Path) -> None:
    """The retrain is refused; the run goes on."""
    frame, labels = make_window(40)
    (tmp_path / "own_exits.py").write_text(
        "from tests.models.batch.test_own_models import ExitsEstimator as make\n"
    )
    recipe = BatchRecipe(recipe="own_exits:make", min_rows=20)
    with pytest.raises(BatchCannotLearn, match="SystemExit"):
        batch_model.fit(frame, labels, recipe, make_schema(), tmp_path)


def test_a_champion_that_ends_the_process_answers_nothing() -> None:
    """It is absent for that batch."""
    frame, labels = make_window(40)
    dummy = batch_model.baseline(labels, "classification")
    model = BatchModel("classification", dummy.labels, None, dummy.preparation, ExitsEstimator())
    with pytest.raises(BatchAnswersNothing, match="SystemExit"):
        model.predict(frame)


def test_a_model_that_is_not_rivers_is_refused_with_what_to_derive_from(tmp_path: Path) -> None:
    """Having the right methods is not enough for river's pipelines."""
    (tmp_path / "own_duck.py").write_text(
        "class Duck:\n"
        "    def learn_one(self, x, y): pass\n"
        "    def predict_proba_one(self, x): return {}\n"
    )
    with pytest.raises(BadConfiguration, match=r"derives from river\.base\.Classifier"):
        build("own_duck:Duck", tmp_path)


@pytest.mark.parametrize("fault", ["self.f = lambda: 1", "self.f = NeverLoads()"])
def test_an_online_model_that_no_checkpoint_can_keep_is_refused_at_once(
    fault: str, tmp_path: Path
) -> None:
    """Else the first checkpoint would fail, or worse, the next run."""
    name = f"own_unkept_{len(fault)}"
    (tmp_path / f"{name}.py").write_text(
        "from river import base\n"
        "from tests.models.batch.test_own_models import NeverLoads\n"
        "class Unkept(base.Classifier):\n"
        f"    def __init__(self): {fault}\n"
        "    def learn_one(self, x, y): pass\n"
        "    def predict_proba_one(self, x): return {}\n"
    )
    with pytest.raises(BadConfiguration, match="no checkpoint can keep"):
        build(f"{name}:Unkept", tmp_path)


def test_a_batch_model_that_does_not_load_is_never_stored(tmp_path: Path) -> None:
    """A champion that cannot be loaded would stop every later run."""
    model = BatchModel("classification", ("high", "low"), None, None, {"part": NeverLoads()})
    store = make_store(tmp_path)
    with pytest.raises(CannotLoad, match="not from here"):
        put(store, model=model)
    assert store.ls() == []
