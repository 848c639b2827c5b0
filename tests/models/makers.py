"""Makers for the tests of models: one default each, and what a test is about as an override."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from models import example
from models.example import Column, Features, Kind, Label, LabelKind, Schema, Task
from observability.places import PipelinePlaces, Places

COLUMNS: dict[str, Kind] = {"height": "number", "colour": "category", "weight": "number"}


def make_schema(
    task: Task = "classification",
    label_kind: LabelKind | None = None,
    columns: dict[str, Kind] | None = None,
    target: str = "class",
) -> Schema:
    """Two numbers with a category between them; classes are text."""
    kinds = COLUMNS if columns is None else columns
    return Schema(
        columns=tuple(Column(name=name, kind=kind) for name, kind in kinds.items()),
        target=target,
        task=task,
        label_kind=label_kind or ("float" if task == "regression" else "str"),
    )


def make_rows(count: int = 300, seed: int = 0) -> list[Features]:
    """Records of `COLUMNS`, a tenth of the cells missing."""
    rng = random.Random(seed)

    def some(cell: float | str) -> float | str | None:
        return None if rng.random() < 0.1 else cell

    return [
        {
            "height": rng.gauss(0, 1),
            "colour": some(rng.choice(["red", "green", "blue"])),
            "weight": some(rng.uniform(0, 9)),
        }
        for _ in range(count)
    ]


def make_label(row: Features, label_kind: LabelKind = "str") -> Label:
    """What a model can learn of `row`: whether it is high, as text or 7/3, or how high it is."""
    height = row["height"]
    assert isinstance(height, float)
    if label_kind == "float":
        return 100 * height + (50 if row["colour"] == "red" else 0)
    if label_kind == "int":
        return 7 if height > 0 else 3
    return "high" if height > 0 else "low"


def make_window(
    count: int = 300, seed: int = 0, label_kind: LabelKind = "str"
) -> tuple[pd.DataFrame, list[Label]]:
    """A frame of `make_rows` and its labels."""
    rows: Sequence[Features] = make_rows(count, seed)
    task: Task = "regression" if label_kind == "float" else "classification"
    return (
        example.frame(rows, make_schema(task, label_kind)),
        [make_label(row, label_kind) for row in rows],
    )


def make_places(tmp_path: Path, name: str = "elec2") -> PipelinePlaces:
    """The folder of a pipeline in a home of its own."""
    return Places(tmp_path / "home").pipeline(name)
