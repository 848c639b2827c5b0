"""Whole columns of cells at once, by the rules of `models.cells`; and what a sample says they are.

Pure. A column is first tried in bulk. Only one with something unusual in it is read cell by cell,
and the outcome is the same: bulk is a faster way to the same values, never another rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from models import cells
from models.cells import Unfit
from models.example import Cell, Column, Kind, Label, LabelKind, Schema

NEARLY_ALL = 0.9
"""Share of the sample's cells (missing ones apart) that make a text column a number column."""

Reasons = dict[int, str]
"""Why a record is unfit, by its index."""
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What a stream's cells are read as. `free` columns were named by a person, not inferred:
    there a text may spell a number, and a number may be a category."""

    schema: Schema
    largest: float
    free: frozenset[str] = frozenset()

    @property
    def target(self) -> str:
        """The target's name in a reason."""
        return f"target {self.schema.target!r}"


@dataclass(frozen=True)
class Read:
    """One column: a value per record (None where unfit), and why some are unfit."""

    values: list[Any]
    reasons: Reasons


@dataclass(frozen=True)
class Taken:
    """Rows and labels that are fit, the index of each, and why the others are not."""

    indexes: Sequence[int]
    rows: list[dict[str, Cell]]
    labels: list[Label | None]
    reasons: Reasons


def take_texts(plan: Plan, features: Sequence[Sequence[str]], labels: Sequence[str]) -> Taken:
    """Records whose cells are texts, given column by column in the schema's order."""
    read = [
        numbers_from_texts(texts, f"column {column.name!r}", plan.largest)
        if column.kind == "number"
        else categories_from_texts(texts, f"column {column.name!r}")
        for column, texts in zip(plan.schema.columns, features, strict=True)
    ]
    return assemble(plan.schema, read, labels_from_texts(plan, labels))


def take_values(plan: Plan, features: Sequence[Sequence[Any]], labels: Sequence[Any]) -> Taken:
    """Records whose cells are JSON values, given column by column in the schema's order."""
    read = [
        feature_from_values(plan, column, values)
        for column, values in zip(plan.schema.columns, features, strict=True)
    ]
    return assemble(plan.schema, read, labels_from_values(plan, labels))


def feature_from_values(plan: Plan, column: Column, values: Sequence[Any]) -> Read:
    """One feature whose cells are JSON values."""
    where, free = f"column {column.name!r}", column.name in plan.free
    if column.kind == "number":
        return numbers_from_values(values, where, plan.largest, from_text=free)
    return categories_from_values(values, where, from_number=free)


def assemble(schema: Schema, features: Sequence[Read], labels: Read) -> Taken:
    """Columns as rows. A record's reason is that of its first unfit column, the label's last."""
    blank: dict[str, Cell] = dict.fromkeys(schema.names)
    rows = [blank.copy() for _ in labels.values]
    # Filling column by column is three times as fast as zipping every row with its names.
    for name, column in zip(schema.names, features, strict=True):
        for row, value in zip(rows, column.values, strict=True):
            row[name] = value
    reasons: Reasons = {}
    for column in (*features, labels):
        for index, why in column.reasons.items():
            reasons.setdefault(index, why)
    if not reasons:
        return Taken(range(len(rows)), rows, labels.values, reasons)
    fit = [index for index in range(len(rows)) if index not in reasons]
    return Taken(fit, [rows[i] for i in fit], [labels.values[i] for i in fit], reasons)


def numbers_from_texts(texts: Sequence[str], where: str, largest: float) -> Read:
    """A column of texts that spell numbers. `where` names it in reasons."""
    plain = _plain_numbers(texts, largest)
    if plain is not None:
        return Read(plain, {})
    return _each(texts, lambda text: cells.number_from_text(text, largest), where)


def numbers_from_values(
    values: Sequence[Any], where: str, largest: float, *, from_text: bool
) -> Read:
    """A column of JSON values that are numbers, or (where asked) texts that spell them."""
    if set(map(type, values)) <= {int, float}:
        try:
            return numbers_from_floats(np.array(values, dtype=np.float64), where, largest)
        except OverflowError:
            pass  # A whole number beyond every float: the cell's own rule says why it is unfit.
    return _each(
        values,
        lambda value: cells.number_from_value(value, largest, from_text=from_text),
        where,
    )


def numbers_from_floats(
    array: np.ndarray[Any, np.dtype[np.float64]], where: str, largest: float
) -> Read:
    """A column of floats of shape (records,), NaN for missing."""
    values: list[Any] = array.tolist()
    fit = np.abs(array) <= largest
    if fit.all():
        return Read(values, {})
    unusual = np.flatnonzero(~fit).tolist()
    few = _each(
        [values[index] for index in unusual],
        lambda value: cells.number_from_value(value, largest),
        where,
    )
    for index, value in zip(unusual, few.values, strict=True):
        values[index] = value
    return Read(values, {unusual[index]: why for index, why in few.reasons.items()})


def categories_from_texts(texts: Sequence[str], where: str) -> Read:
    """A column of texts that name categories."""
    return _each_distinct(texts, cells.category_from_text, where)


def categories_from_values(values: Sequence[Any], where: str, *, from_number: bool) -> Read:
    """A column of JSON values that are categories, or (where asked) numbers that code them."""
    if set(map(type, values)) == {str}:
        return categories_from_texts(values, where)
    return _each(
        values, lambda value: cells.category_from_value(value, from_number=from_number), where
    )


def labels_from_texts(plan: Plan, texts: Sequence[str]) -> Read:
    """The target as texts."""
    kind, where = plan.schema.label_kind, plan.target
    if kind == "float":
        return numbers_from_texts(texts, where, plan.largest)
    return _each_distinct(texts, lambda text: cells.class_from_text(text, kind), where)


def labels_from_values(plan: Plan, values: Sequence[Any]) -> Read:
    """The target as JSON values; a text may spell a number here."""
    kind, where = plan.schema.label_kind, plan.target
    if kind == "float":
        return numbers_from_values(values, where, plan.largest, from_text=True)
    # True, 1 and 1.0 are one key to a dict, so that a mixed column is read value by value.
    read_all = _each_distinct if set(map(type, values)) in ({str}, {int}) else _each
    return read_all(values, lambda value: cells.class_from_value(value, kind), where)


def kind_of_texts(texts: Iterable[str]) -> Kind:
    """What a column of the sample is. One without any value is a number: a wrong guess is then
    seen in the rejects, while a wrong category would quietly have one value per record."""
    present = [text for text in texts if text.strip().casefold() not in cells.MISSING_NUMBERS]
    numbers = sum(map(cells.spells_number, present))
    return "number" if numbers >= NEARLY_ALL * len(present) else "category"


def kind_of_values(values: Iterable[Any]) -> Kind | None:
    """What a column of JSON values is; None where most are lists or objects."""
    present = [value for value in values if value is not None]
    if sum(isinstance(value, list | dict) for value in present) * 2 > len(present):
        return None
    numbers = sum(type(value) in (int, float) for value in present)
    return "number" if numbers >= NEARLY_ALL * len(present) else "category"


def kind_of_labels(labels: Iterable[Any], regression: bool) -> LabelKind | None:
    """What the sample's labels are; None where all are missing."""
    present = [label for label in labels if not _is_missing(label)]
    if not present:
        return None
    if regression:
        return "float"
    return "int" if all(map(cells.is_whole, present)) else "str"


def are_numbers(labels: Iterable[Any]) -> bool:
    """Whether nearly all labels that are there are numbers, or (in a text file) spell them."""
    present = [label for label in labels if not _is_missing(label)]
    texts = all(isinstance(label, str) for label in present)
    return (kind_of_texts(present) if texts else kind_of_values(present)) == "number"


def _is_missing(label: Any) -> bool:
    return label is None or label != label or str(label).strip().casefold() in {"", "nan"}


def _plain_numbers(texts: Sequence[str], largest: float) -> list[float] | None:
    """All texts as floats, or None if any of them is missing or in any way unusual."""
    spelt = "".join(texts)
    if not spelt.isascii() or "_" in spelt:
        return None
    try:
        values = list(map(float, texts))
    except ValueError:
        return None
    return values if bool((np.abs(np.array(values)) <= largest).all()) else None


def _each(values: Sequence[T], read: Callable[[T], Any], where: str) -> Read:
    found: list[Any] = []
    reasons: Reasons = {}
    for index, value in enumerate(values):
        try:
            found.append(read(value))
        except Unfit as why:
            found.append(None)
            reasons[index] = f"{where}: {why}"
    return Read(found, reasons)


def _each_distinct(values: Sequence[T], read: Callable[[T], Any], where: str) -> Read:
    """As `_each`, reading every distinct value once; values are hashable and of one type."""
    distinct = list(set(values))
    once = _each(distinct, read, where)
    known = dict(zip(distinct, once.values, strict=True))
    if not once.reasons:
        return Read([known[value] for value in values], {})
    unfit = {distinct[index]: why for index, why in once.reasons.items()}
    reasons = {index: unfit[value] for index, value in enumerate(values) if value in unfit}
    return Read([known[value] for value in values], reasons)
