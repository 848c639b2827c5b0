"""The recipes: each model gets features of its kind alone, in bounded memory, and repeats."""

from __future__ import annotations

import random
from typing import Any

import pytest
from river import linear_model, optim
from river.tree import nodes

from models.core import metrics
from models.core.metrics import Measure
from models.core.record_schema import Column, ColumnKind, Features, Label, Schema, Task
from models.online import online_model, recipes
from models.online.online_model import OnlineConfig, OnlineMembers
from models.persistence import serialization

TASKS: tuple[Task, ...] = ("classification", "regression")
CATEGORIES = 50_000


def make_schema(task: Task = "classification", *kinds: ColumnKind) -> Schema:
    """A number and a category, unless kinds are given."""
    columns = [
        Column(name=f"{kind}{place}", kind=kind)
        for place, kind in enumerate(kinds or ("number", "category"))
    ]
    label = "str" if task == "classification" else "float"
    return Schema(columns=tuple(columns), target="t", task=task, label_kind=label)


def make_member(recipe: str, task: Task, *kinds: ColumnKind) -> OnlineMembers:
    """One online member alone."""
    return online_model.build(OnlineConfig(members=(recipe,)), make_schema(task, *kinds))


def make_records(
    task: Task, count: int = 400, categories: int = 4
) -> tuple[list[Features], list[Label]]:
    """Records of a number and a category, both of which tell."""
    chance = random.Random(3)
    rows: list[Features] = []
    labels: list[Label] = []
    for place in range(count):
        number, category = chance.gauss(0, 1), place % categories
        signal = number + (1.0 if category % 2 else -1.0)
        rows.append({"number0": number, "category1": f"category {category}"})
        labels.append(signal if task == "regression" else ("up" if signal > 0 else "down"))
    return rows, labels


def asked_of(cls: type, names: tuple[str, ...], patch: pytest.MonkeyPatch) -> list[Features]:
    """The features of every record that reaches a method of the class from now on."""
    heard: list[Features] = []
    for name in names:
        kept = getattr(cls, name)

        def spy(self: Any, x: Features, *more: Any, _kept: Any = kept, **named: Any) -> Any:
            heard.append(dict(x))
            return _kept(self, x, *more, **named)

        patch.setattr(cls, name, spy)
    return heard


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("recipe", ["linear", "linear_fast"])
def test_a_linear_model_gets_scaled_numbers_and_hashed_categories(
    recipe: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No text, no number further than its bound, and a constant."""
    cls = (
        linear_model.SoftmaxRegression
        if task == "classification"
        else linear_model.LinearRegression
    )
    heard = asked_of(cls, ("learn_one",), monkeypatch)
    rows, labels = make_records(task)
    rows[200] = {"number0": 1e9, "category1": "unheard of"}
    made = make_member(recipe, task)
    made.run(rows, labels)
    assert 400 == len(heard)
    assert all(record["(constant)"] == 1.0 for record in heard)
    values = [value for record in heard for value in record.values()]
    assert {float, int} >= {type(value) for value in values}
    assert recipes.FAR_SD == max(abs(float(value)) for value in values if value is not None)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("recipe", ["hoeffding_adaptive_tree", "adaptive_random_forest"])
def test_a_tree_gets_categories_as_numbers(
    recipe: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its leaves, which may hold linear models, fail on text."""
    leaf = nodes.leaf.HTLeaf
    heard = asked_of(leaf, ("update_splitters",), monkeypatch)
    rows, labels = make_records(task)
    make_member(recipe, task).run(rows, labels)
    assert heard
    assert {float} == {type(value) for record in heard for value in record.values()}


@pytest.mark.parametrize("recipe", sorted(recipes.RECIPES))
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["number", "category"])
def test_features_of_one_kind_alone_are_enough(recipe: str, task: Task, kind: ColumnKind) -> None:
    """A stream of numbers only, or of categories only, is learned."""
    chance = random.Random(1)
    cells = [chance.choice([-1.0, 1.0]) for _ in range(400)]
    name = f"{kind}0"
    rows: list[Features] = [{name: cell if kind == "number" else f"at {cell}"} for cell in cells]
    labels: list[Label] = [cell if task == "regression" else f"is {cell}" for cell in cells]
    (answers,) = make_member(recipe, task, kind).run(rows, labels).values()
    hits = 0
    for answer, label in zip(answers[200:], labels[200:], strict=True):
        if isinstance(answer, dict):
            hits += max(answer, key=answer.__getitem__) == label
        else:
            assert isinstance(answer, float)
            assert isinstance(label, float)
            hits += abs(answer - label) < 0.5
    assert hits > 180


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("recipe", ["linear", "hoeffding_adaptive_tree"])
def test_thousands_of_categories_need_no_memory_each(recipe: str, task: Task) -> None:
    """The pickle after 50,000 of them is as large as after 12,000, and well below a megabyte."""
    rows, labels = make_records(task, CATEGORIES, CATEGORIES)
    made = make_member(recipe, task)
    member = made.members[recipe]
    # Only what turns categories into numbers may grow by the category, and a tree by its leaves.
    steps = member.model.steps if recipe == "linear" else {"Ordinals": member.model["Ordinals"]}
    sizes = []
    for begin, end in ((0, 12_000), (12_000, CATEGORIES)):
        for row, label in zip(rows[begin:end], labels[begin:end], strict=True):
            if recipe == "linear":
                member.learn(row, label)
            else:
                steps["Ordinals"].learn_one(row)
        sizes.append(len(serialization.dumps(steps)))
    assert sizes[1] < 1.05 * sizes[0]
    assert sizes[1] < 1_000_000


@pytest.mark.parametrize("task", TASKS)
def test_categories_share_the_buckets(task: Task) -> None:
    """A class has at most one weight a bucket, the numbers' and the constant's."""
    rows, labels = make_records(task, 5_000, 5_000)
    made = make_member("linear", task)
    made.run(rows, labels)
    model = made.members["linear"].model
    if task == "classification":
        weights = [*model["SoftmaxRegression"].weights.values()]
    else:
        weights = [model["TargetStandardScaler"].regressor.weights]
    assert weights
    assert all(len(each) <= recipes.BUCKETS + 2 for each in weights)
    assert max(len(each) for each in weights) > recipes.BUCKETS / 2


@pytest.mark.parametrize(
    ("measure", "loss"),
    [
        ("mae", optim.losses.Quantile),
        ("pinball", optim.losses.Quantile),
        ("rmse", optim.losses.Squared),
        ("r2", optim.losses.Squared),
    ],
)
def test_a_linear_model_of_values_learns_the_loss_of_the_metric(
    measure: metrics.Name, loss: type
) -> None:
    """At the quantile that the pipeline is judged by; a loss of one's own is kept."""
    asked = Measure(measure, quantile=0.8)
    model = recipes.RECIPES["linear"](make_schema("regression"), 0, {}, asked)
    found = model["TargetStandardScaler"].regressor.loss
    assert isinstance(found, loss)
    if isinstance(found, optim.losses.Quantile):
        assert (0.8 if measure == "pinball" else 0.5) == found.alpha
    own = {"loss": optim.losses.Huber()}
    kept = recipes.RECIPES["linear"](make_schema("regression"), 0, own, asked)
    assert isinstance(kept["TargetStandardScaler"].regressor.loss, optim.losses.Huber)


def test_the_fast_one_is_faster() -> None:
    """Side by side they differ in the rate alone, which may be another one."""
    schema, measure = make_schema(), Measure("brier")
    rates = [
        recipes.RECIPES[name](schema, 0, params, measure)[
            "SoftmaxRegression"
        ].optimizer.lr.learning_rate
        for name, params in (("linear", {}), ("linear_fast", {}), ("linear", {"rate": 0.2}))
    ]
    assert [recipes.RATE, recipes.FAST_RATE, 0.2] == rates
    assert recipes.RATE < recipes.FAST_RATE
