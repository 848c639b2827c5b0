"""Whole columns of cells at once, by the rules of `models.stream.parsing.cells`.

Pure. A column is first tried in bulk. Only one with something unusual in it is read cell by cell,
and the outcome is the same: bulk is a faster way to the same values, never another rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import NoneType
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.core.number_format import PLAIN, NumberFormat
from models.core.record_schema import Column, Schema, TimeForm, TimePart, arrow_label
from models.stream.batches import Fault, Notice, Taken
from models.stream.parsing import cells, timestamps
from models.stream.parsing.cells import InvalidCell

FEWEST_EMPTY = 100
"""Records without a value in a row that make it worth a word."""

Faults = dict[int, Fault]
"""Why a record is unfit, by its index."""
T = TypeVar("T")

NUMBERS, TEXTS = pa.float64(), pa.string()

_LEADING_ZERO = re.compile(r"[ \t]*[+-]?0[0-9]+[ \t]*")
_MAYBE_ZERO = re.compile(r"\n[ \t+-]*0[0-9]")
"""Of cells that are joined by line ends; with a plain first character the search is fast."""


@dataclass(frozen=True)
class Plan:
    """What a stream's cells are read as."""

    schema: Schema
    largest: float
    free: frozenset[str] = frozenset()
    """Columns that were named by a person, not inferred: there a truth may be a number, and a
    number may be a category."""
    ignored: frozenset[str] = frozenset()
    """Columns of the file that are left out by now: their features are missing in every record."""
    unfit_is_missing: bool = False
    """Whether a cell that does not fit is missing, where else its record is a reject."""

    @cached_property
    def filled(self) -> frozenset[str]:
        """Columns of the file of which most cells of the first sample had a value."""
        return frozenset(
            each.name
            for each in self.schema.seen
            if each.missing_share is not None and each.missing_share < 0.5
        )

    @property
    def target(self) -> str:
        """The target's name in a reason."""
        return f"target {self.schema.target!r}"


@dataclass(frozen=True)
class Read:
    """One column: its values, null where missing or unfit, and why some are unfit."""

    values: pa.Array
    faults: Faults
    notice: Notice | None = None
    """What is unusual about it and costs no record; its position is an index here."""


def take_texts(plan: Plan, texts: Mapping[str, Sequence[str]]) -> Taken:
    """Records whose cells are texts, by the file's columns: the sources and the target."""
    labels = labels_from_texts(plan, texts[plan.schema.target])
    return _take(plan, texts, labels, feature_from_texts, cells.moment_from_text)


def take_values(plan: Plan, values: Mapping[str, Sequence[Any]]) -> Taken:
    """Records whose cells are JSON values, by the file's columns: the sources and the target."""
    labels = labels_from_values(plan, values[plan.schema.target])
    return _take(plan, values, labels, feature_from_values, cells.moment_from_value)


def _take(
    plan: Plan,
    columns: Mapping[str, Sequence[T]],
    labels: Read,
    read: Callable[[Plan, Column, Sequence[T]], Read],
    read_moment: Callable[[T, TimeForm, float], float | None],
) -> Taken:
    def read_moments(source: str, form: TimeForm) -> Read:
        return moments(columns[source], f"column {source!r}", form, plan.largest, read_moment)

    def read_one(column: Column) -> Read:
        return read(plan, column, columns[column.source])

    return assemble(plan, features(plan, len(labels.values), read_one, read_moments), labels)


def features(
    plan: Plan,
    count: int,
    read: Callable[[Column], Read],
    read_moments: Callable[[str, TimeForm], Read],
) -> list[Read]:
    """A column per feature: by `read`, or as a part of the moments of its source (in seconds).

    A source is read once, however many features it gives.
    """
    found: dict[str, Read] = {}
    each: list[Read] = []
    for column in plan.schema.columns:
        if column.source in plan.ignored:
            each.append(Read(pa.nulls(count, NUMBERS if column.kind == "number" else TEXTS), {}))
        elif column.part is None or column.time is None:
            each.append(read(column))
        else:
            if column.source not in found:
                found[column.source] = read_moments(column.source, column.time)
            each.append(_part(found[column.source], column.part))
    return each


def _part(moments: Read, which: TimePart) -> Read:
    seconds = moments.values.to_numpy(zero_copy_only=False)
    return Read(pa.array(timestamps.part(seconds, which), from_pandas=True), moments.faults)


def moments(
    values: Sequence[T],
    where: str,
    form: TimeForm,
    largest: float,
    read: Callable[[T, TimeForm, float], float | None],
) -> Read:
    """A column of times, in seconds since 1970."""
    return _each(values, lambda value: read(value, form, largest), where, NUMBERS)


def feature_from_texts(plan: Plan, column: Column, texts: Sequence[str]) -> Read:
    """One feature whose cells are texts."""
    where = f"column {column.source!r}"
    if column.kind != "number":
        return categories_from_texts(texts, where)
    joined = "\n".join(texts)
    read = numbers_from_texts(texts, where, plan.largest, column.spelling, joined)
    if column.source in plan.free:
        return read
    notice = _leading_zero(column.source, texts, joined)
    return read if notice is None else replace(read, notice=notice)


def feature_from_values(plan: Plan, column: Column, values: Sequence[Any]) -> Read:
    """One feature whose cells are JSON values."""
    where, free = f"column {column.source!r}", column.source in plan.free
    if column.kind == "number":
        # Many programs write some numbers as text: 3.5 and "3.5" are one.
        return numbers_from_values(
            values,
            where,
            plan.largest,
            from_text=True,
            from_truth=free,
            spelling=column.spelling,
        )
    return categories_from_values(values, where, from_number=free or column.mixed)


def assemble(plan: Plan, features: Sequence[Read], labels: Read) -> Taken:
    """Columns as a table. A record's reason is that of its first unfit column, the label's last.

    `features` are in the schema's order.
    """
    schema, count = plan.schema, len(labels.values)
    faults: Faults = {}
    notices = [column.notice for column in features if column.notice is not None]
    for each, column in zip(schema.columns, features, strict=True):
        if _is_empty(plan, each.source, column):
            notices.append(Notice("empty column", each.source, 0, count, "no value at all"))
        if column.faults and plan.unfit_is_missing:
            first = min(column.faults)
            example = column.faults[first].reason
            notices.append(Notice("unfit cell", each.source, first, len(column.faults), example))
        else:
            faults = column.faults | faults
    faults = {index: Fault("label", each.reason) for index, each in labels.faults.items()} | faults
    table = pa.Table.from_arrays(
        [*(column.values for column in features), labels.values], [*schema.names, schema.target]
    )
    told = tuple({(each.kind, each.column): each for each in notices}.values())
    if not faults:
        return Taken(range(count), table, faults, told)
    fit = [index for index in range(count) if index not in faults]
    return Taken(fit, table.take(np.array(fit, dtype=np.int64)), faults, told)


def numbers_from_texts(
    texts: Sequence[str],
    where: str,
    largest: float,
    spelling: NumberFormat = PLAIN,
    joined: str | None = None,
) -> Read:
    """A column of texts that spell numbers. `where` names it in reasons; `joined` are the texts in
    one, where the caller has them so."""
    plain = None
    if spelling == PLAIN:
        plain = _plain_numbers(texts, largest, "".join(texts) if joined is None else joined)
    if plain is not None:
        return Read(pa.array(plain, from_pandas=True), {})
    return _each(
        texts, lambda text: cells.number_from_text(text, largest, spelling), where, NUMBERS
    )


def numbers_from_values(
    values: Sequence[Any],
    where: str,
    largest: float,
    *,
    from_text: bool,
    from_truth: bool = False,
    spelling: NumberFormat = PLAIN,
) -> Read:
    """A column of JSON values that are numbers, or (where asked) texts that spell them."""
    if set(map(type, values)) <= {int, float, NoneType}:
        try:
            return numbers_from_floats(np.array(values, dtype=np.float64), where, largest)
        except OverflowError:
            pass  # A whole number beyond every float: the cell's own rule says why it is unfit.
    return _each(
        values,
        lambda value: cells.number_from_value(
            value, largest, from_text=from_text, from_truth=from_truth, spelling=spelling
        ),
        where,
        NUMBERS,
    )


def numbers_from_floats(
    array: np.ndarray[Any, np.dtype[np.float64]], where: str, largest: float
) -> Read:
    """A column of floats of shape (records,), NaN for missing."""
    unfit = np.flatnonzero(np.abs(array) > largest)
    if not len(unfit):
        return Read(pa.array(array, from_pandas=True), {})
    few = _each(
        array[unfit].tolist(), lambda value: cells.number_from_value(value, largest), where, NUMBERS
    )
    kept = array.copy()
    kept[unfit] = np.nan
    faults = {int(unfit[index]): fault for index, fault in few.faults.items()}
    return Read(pa.array(kept, from_pandas=True), faults)


def categories_from_texts(texts: Sequence[str], where: str) -> Read:
    """A column of texts that name categories."""
    return _each_distinct(texts, cells.category_from_text, where, TEXTS)


def categories_from_values(values: Sequence[Any], where: str, *, from_number: bool) -> Read:
    """A column of JSON values that are categories, or (where asked) numbers that code them."""
    if set(map(type, values)) == {str}:
        return categories_from_texts(values, where)
    return _each(
        values,
        lambda value: cells.category_from_value(value, from_number=from_number),
        where,
        TEXTS,
    )


def labels_from_texts(plan: Plan, texts: Sequence[str]) -> Read:
    """The target as texts."""
    kind, where = plan.schema.label_kind, plan.target
    if kind == "float":
        return numbers_from_texts(texts, where, plan.largest, plan.schema.label_spelling)
    return _each_distinct(
        texts, lambda text: cells.class_from_text(text, kind), where, arrow_label(kind)
    )


def labels_from_values(plan: Plan, values: Sequence[Any]) -> Read:
    """The target as JSON values; a text may spell a number here."""
    kind, where = plan.schema.label_kind, plan.target
    if kind == "float":
        return numbers_from_values(
            values, where, plan.largest, from_text=True, spelling=plan.schema.label_spelling
        )
    # True, 1 and 1.0 are one key to a dict, so that a mixed column is read value by value.
    read_all = _each_distinct if set(map(type, values)) in ({str}, {int}) else _each
    return read_all(
        values, lambda value: cells.class_from_value(value, kind), where, arrow_label(kind)
    )


def _is_empty(plan: Plan, source: str, column: Read) -> bool:
    """Whether a column that had values is without any over many records: it may have been renamed.

    A cell that does not fit is another matter, and an ignored column is empty on purpose.
    """
    count = len(column.values)
    return (
        count >= FEWEST_EMPTY
        and column.values.null_count == count
        and not column.faults
        and source in plan.filled
        and source not in plan.ignored
    )


def _leading_zero(source: str, texts: Sequence[str], joined: str) -> Notice | None:
    """Digits with a leading zero in a column that is read as numbers: as such they lose it."""
    if _MAYBE_ZERO.search(joined) is None and not _LEADING_ZERO.fullmatch(
        texts[0] if texts else ""
    ):
        return None
    places = [index for index, cell in enumerate(texts) if _LEADING_ZERO.fullmatch(cell)]
    if not places:
        return None
    return Notice("leading zeros", source, places[0], len(places), cells.shown(texts[places[0]]))


def _plain_numbers(texts: Sequence[str], largest: float, joined: str) -> NDArray[np.float64] | None:
    """All texts as floats, NaN for an empty one; None if any of them is in any way unusual."""
    if not joined.isascii() or "_" in joined:
        return None
    empty = 0
    try:
        values = np.array(list(map(float, texts)), dtype=np.float64)
    except ValueError:
        empty = texts.count("")
        if not empty:
            return None
        try:
            values = np.array([float(text or "nan") for text in texts], dtype=np.float64)
        except ValueError:
            return None
    fit = np.count_nonzero(np.abs(values) <= largest)
    return values if fit == len(texts) - empty else None


def _each(values: Sequence[T], read: Callable[[T], Any], where: str, kind: pa.DataType) -> Read:
    found: list[Any] = []
    faults: Faults = {}
    for index, value in enumerate(values):
        try:
            found.append(read(value))
        except InvalidCell as why:
            found.append(None)
            faults[index] = Fault(why.fault.kind, f"{where}: {why}")
    return Read(pa.array(found, kind), faults)


def _each_distinct(
    values: Sequence[T], read: Callable[[T], Any], where: str, kind: pa.DataType
) -> Read:
    """As `_each`, reading every distinct value once; values are hashable and of one type."""
    distinct = list(set(values))
    once = _each(distinct, read, where, kind)
    place = {value: index for index, value in enumerate(distinct)}
    places = np.fromiter(map(place.__getitem__, values), np.int64, len(values))
    faults = {}
    if once.faults:
        faults = {
            index: once.faults[each]
            for index, each in enumerate(places.tolist())
            if each in once.faults
        }
    return Read(once.values.take(places), faults)
