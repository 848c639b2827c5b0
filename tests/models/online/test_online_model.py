"""The online members: every recipe learns every task, with blanks and categories, and repeats."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from models.core.prediction import Answer
from models.core.record_schema import Column, Features, Label, Schema, Task
from models.online import online_model, recipes
from models.online.online_model import OnlineConfig, OnlineMember, OnlineMembers, RecordRefused
from models.persistence import serialization
from observability.core.errors import BadConfiguration
from tests import ROOT


def make_schema(task: Task = "classification") -> Schema:
    """Two numbers and a category."""
    columns = [Column(name="x", kind="number"), Column(name="y", kind="number")]
    columns.append(Column(name="site", kind="category"))
    kind = "str" if task == "classification" else "float"
    return Schema(columns=tuple(columns), target="t", task=task, label_kind=kind)


def make_records(task: Task, count: int = 600, classes: int = 2) -> list[tuple[Features, Label]]:
    """Labelled records with some blanks, always the same ones."""
    chance = random.Random(5)
    records: list[tuple[Features, Label]] = []
    for _ in range(count):
        x, y, site = chance.gauss(0, 1), chance.gauss(0, 1), chance.choice("abc")
        signal = 2 * x - y + (1.5 if site == "a" else 0.0)
        label: Label = float(signal) if task == "regression" else f"c{_class(signal, classes)}"
        blank = chance.random() < 0.05
        no_site = chance.random() < 0.05
        records.append(
            ({"x": None if blank else x, "y": y, "site": None if no_site else site}, label)
        )
    return records


def _class(signal: float, classes: int) -> int:
    return max(0, min(classes - 1, int((signal + 2) / 4 * classes)))


def make_member(
    name: str, task: Task = "classification", seed: int = 0, beside: Path | None = None
) -> OnlineMembers:
    """One online member alone, with what completes its records."""
    return online_model.build(
        OnlineConfig(members=(name,), seed=seed), make_schema(task), beside=beside
    )


def go_through(made: OnlineMembers, records: list[tuple[Features, Label]]) -> list[object]:
    """Predict and then learn each record; the answers of the only member."""
    (answers,) = made.run([row for row, _ in records], [label for _, label in records]).values()
    # In the order of the classes: river keeps them in sets.
    return [dict(sorted(each.items())) if isinstance(each, dict) else each for each in answers]


def the_only(made: OnlineMembers) -> OnlineMember:
    """The only member."""
    (member,) = made.members.values()
    return member


@pytest.mark.parametrize("recipe", sorted(recipes.RECIPES))
@pytest.mark.parametrize("classes", [2, 3])
def test_every_recipe_learns_classes(recipe: str, classes: int) -> None:
    """With blanks and categories in the stream, the second half is predicted better than chance."""
    records = make_records("classification", classes=classes)
    made = make_member(recipe)
    answers = go_through(made, records)
    half = len(records) // 2
    hits = sum(
        max(answer, key=lambda each: answer[each]) == label
        for answer, (_, label) in zip(answers[half:], records[half:], strict=True)
        if isinstance(answer, dict)
    )
    commonest = max(
        sum(label == each for _, label in records[half:]) for each in {r[1] for r in records}
    )
    assert hits > commonest
    assert the_only(made).non_finite_count == 0


@pytest.mark.parametrize("recipe", sorted(recipes.RECIPES))
def test_every_recipe_learns_values(recipe: str) -> None:
    """In regression the second half is predicted better than by the mean."""
    records = make_records("regression", count=1_000)
    answers = go_through(make_member(recipe, "regression"), records)
    half = len(records) // 2
    pairs = [
        (float(answer), float(label))  # type: ignore[arg-type] # numbers by now
        for answer, (_, label) in zip(answers[half:], records[half:], strict=True)
    ]
    mean = sum(label for _, label in pairs) / len(pairs)
    assert sum(abs(answer - label) for answer, label in pairs) < 0.9 * sum(
        abs(mean - label) for _, label in pairs
    )


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("recipe", sorted(recipes.RECIPES))
def test_a_member_goes_on_from_its_pickle_as_if_never_stopped(recipe: str, task: Task) -> None:
    """Pickled in the middle and loaded again, it gives the same answers, bit for bit."""
    records = make_records(task, count=300)
    whole = make_member(recipe, task, seed=3)
    expected = go_through(whole, records)
    first = make_member(recipe, task, seed=3)
    actual = go_through(first, records[:150])
    second = serialization.loads(serialization.dumps(first))
    assert isinstance(second, OnlineMembers)
    actual += go_through(second, records[150:])
    assert expected == actual


_PROCESS = """
import json, sys
from pathlib import Path
from tests.models.online import test_online_model as t
from models.online import recipes
from models.persistence import serialization
folder, begin, end = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
told = {}
for task in ("classification", "regression"):
    records = t.make_records(task, count=300, classes=4)
    for recipe in recipes.RECIPES:
        path = folder / f"{recipe}-{task}"
        if begin == 0:
            member = t.make_member(recipe, task)
        else:
            member = serialization.loads(path.read_bytes())
        told[path.name] = [repr(each) for each in t.go_through(member, records[begin:end])]
        path.write_bytes(serialization.dumps(member))
print(json.dumps(told))
"""
"""Every recipe goes through some records, from the start or from where another process left it."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[str]], ...]:
    """What all recipes answered in one process, and in two processes one after the other."""

    def told(folder: Path, begin: int, end: int, hash_seed: str) -> dict[str, list[str]]:
        done = subprocess.run(
            [sys.executable, "-c", _PROCESS, str(folder), str(begin), str(end)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        answered: dict[str, list[str]] = json.loads(done.stdout)
        return answered

    whole, parts = (tmp_path_factory.mktemp(name) for name in ("whole", "parts"))
    return told(whole, 0, 300, "1"), told(parts, 0, 150, "2"), told(parts, 150, 300, "3")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("recipe", sorted(recipes.RECIPES))
def test_answers_do_not_depend_on_the_process(
    recipe: str, task: Task, answers: tuple[dict[str, list[str]], ...]
) -> None:
    """Text hashes differently in every process; a member resumed elsewhere answers the same."""
    whole, first, second = (each[f"{recipe}-{task}"] for each in answers)
    assert 300 == len(whole)
    assert whole == first + second


def test_an_answer_that_is_not_finite_is_no_answer() -> None:
    """A NaN or an infinite mass makes the member absent, and is counted."""

    class Broken:
        answer: object = {"a": math.nan, "b": 0.5}

        def predict_proba_one(self, record: Features) -> object:
            return self.answer

        def predict_one(self, record: Features) -> object:
            return self.answer

    member = OnlineMember(Broken(), "classification")
    assert member.predict({}) is None
    member.model.answer = {"a": math.inf}
    assert member.predict({}) is None
    member.model.answer = {}
    assert member.predict({}) is None
    assert member.non_finite_count == 2
    value = OnlineMember(Broken(), "regression")
    value.model.answer = -math.inf
    assert value.predict({}) is None
    assert value.non_finite_count == 1


def test_masses_become_shares() -> None:
    """Trees may answer masses that do not sum to 1."""

    class Masses:
        def predict_proba_one(self, record: Features) -> dict[str, float]:
            return {"a": 3.0, "b": 1.0}

    assert OnlineMember(Masses(), "classification").predict({}) == {"a": 0.75, "b": 0.25}


def test_an_unknown_member_names_those_that_there_are() -> None:
    """The message says what may be chosen."""
    with pytest.raises(BadConfiguration, match="linear") as caught:
        make_member("magic")
    assert caught.value.exit_code == 78


def test_a_parameter_that_no_model_takes_is_refused() -> None:
    """A misspelt parameter is a mistake in the file, not a crash."""
    with pytest.raises(BadConfiguration, match=r"online\.params.*grace"):
        online_model.build(OnlineConfig(params={"linear": {"grace": 1}}), make_schema())


def test_ones_own_factory_is_used(tmp_path: Path) -> None:
    """module:factory beside the pipeline file makes the model, and is told task and seed."""
    (tmp_path / "own_online_model.py").write_text(
        "from river import dummy, stats\n"
        "def make(task, seed):\n"
        "    assert (task, seed) == ('regression', 9)\n"
        "    return dummy.StatisticRegressor(stats.Mean())\n"
    )
    made = make_member("own_online_model:make", "regression", seed=9, beside=tmp_path)
    rows: list[Features] = [{"x": 1.0, "y": None, "site": None}, {"x": None, "y": 2.0, "site": "a"}]
    assert made.run(rows, [4.0, None])["own_online_model:make"][1] == 4.0


def test_a_factory_that_makes_no_model_is_refused(tmp_path: Path) -> None:
    """What comes must learn and predict one record."""
    (tmp_path / "own_no_model.py").write_text("def make():\n    return object()\n")
    with pytest.raises(BadConfiguration, match="learn_one and predict_proba_one"):
        make_member("own_no_model:make", beside=tmp_path)


@pytest.mark.parametrize("recipe", sorted(recipes.RECIPES))
def test_a_value_is_cut_to_the_range_that_was_learned(recipe: str) -> None:
    """A feature a million times larger than any before is no reason for such an answer."""
    made = make_member(recipe, "regression")
    records = make_records("regression")
    go_through(made, records)
    labels = [float(label) for _, label in records]
    for far in (1e6, -1e6):
        answer = the_only(made).predict({"x": far, "y": far, "site": "a"})
        assert isinstance(answer, float)
        assert min(labels) <= answer <= max(labels)


def test_each_member_is_allowed_once_and_only_members_have_parameters() -> None:
    """The message says what was allowed and what came."""
    with pytest.raises(ValueError, match="each member was allowed once"):
        OnlineConfig(members=("linear", "linear"))
    with pytest.raises(ValueError, match="linear_fast is none of linear"):
        OnlineConfig(members=("linear",), params={"linear_fast": {"rate": 0.1}})


def test_parameters_reach_the_member_that_they_are_for() -> None:
    """A rate of nought learns nothing, and the member beside it learns as ever."""
    config = OnlineConfig(members=("linear", "linear_fast"), params={"linear_fast": {"rate": 0.0}})
    records = make_records("classification")
    answers = online_model.build(config, make_schema()).run(
        [row for row, _ in records], [label for _, label in records]
    )
    assert {0.5} == {round(share, 9) for share in _answer(answers["linear_fast"][-1]).values()}
    assert max(max(_answer(each).values()) for each in answers["linear"][1:]) > 0.8


def _answer(answer: Answer) -> dict[Label, float]:
    assert isinstance(answer, dict)
    return answer


def test_every_member_goes_through_as_many_records_as_the_first() -> None:
    """A stop is asked for by the first one alone: all of them have learned the same records."""
    made = online_model.build(OnlineConfig(), make_schema())
    records = make_records("classification", count=50)
    asked = iter(range(100))
    answers = made.run(
        [row for row, _ in records],
        [label for _, label in records],
        stop=lambda: next(asked) >= 20,
    )
    assert dict.fromkeys(online_model.DEFAULT_MEMBERS, 20) == {
        name: len(each) for name, each in answers.items()
    }


def test_a_refusal_names_the_member_and_the_record() -> None:
    """So that a person knows whose model to mend."""

    class Picky:
        def predict_proba_one(self, record: Features) -> dict[str, float]:
            return {}

        def learn_one(self, record: Features, label: Label) -> None:
            if record["x"] == 2.0:
                raise ValueError("no")

    made = make_member("linear")
    made.members["own:Picky"] = OnlineMember(Picky(), "classification")
    rows: list[Features] = [{"x": float(place), "y": 0.0, "site": "a"} for place in range(4)]
    with pytest.raises(RecordRefused, match="ValueError: no") as refused:
        made.run(rows, ["c0"] * 4)
    assert ("own:Picky", 2) == (refused.value.member, refused.value.index)
