"""Parses whole columns of cells, by the rules of `models.stream.parsing.cells`.

Pure. A column is first parsed in bulk. Only a column with an unusual cell is parsed cell by cell.
Both give the same values: bulk parsing is faster, and has no rules of its own.
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
from models.core.record_schema import Column, Schema, TimeForm, arrow_label
from models.stream.batches import Fault, Notice, ParsedRows
from models.stream.parsing import cells, timestamps
from models.stream.parsing.cells import InvalidCell

FEWEST_EMPTY = 100
"""Consecutive records without a value from which this is reported."""

Faults = dict[int, Fault]
"""Why records are invalid, by index."""
T = TypeVar("T")

NUMBERS, TEXTS = pa.float64(), pa.string()

_LEADING_ZERO = re.compile(r"[ \t]*[+-]?0[0-9]+[ \t]*")
_MAYBE_ZERO = re.compile(r"\n[ \t+-]*0[0-9]")
"""For cells joined by line ends; the search is fast, as it begins with a literal."""


@dataclass(frozen=True)
class Plan:
    """How the cells of a stream are parsed."""

    schema: Schema
    largest: float
    free: frozenset[str] = frozenset()
    """Columns whose kind is configured, not inferred: there a truth may be a number, and a number
    may be a category."""
    ignored: frozenset[str] = frozenset()
    """Columns of the file that are ignored now: their features are missing in every record."""
    unfit_is_missing: bool = False
    """Whether an invalid cell is a missing value; otherwise its record is rejected."""

    @cached_property
    def filled(self) -> frozenset[str]:
        """Columns of the file with a value in most cells of the first sample."""
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
    """A parsed column: its values, null if missing or invalid, and the faults."""

    values: pa.Array
    faults: Faults
    notice: Notice | None = None
    """Something unusual for which no record is rejected; its position is an index here."""


def parse_texts(plan: Plan, texts: Mapping[str, Sequence[str]]) -> ParsedRows:
    """Records whose cells are texts, by the file's columns: the sources and the target."""
    labels = labels_from_texts(plan, texts[plan.schema.target])
    return _parse(plan, texts, labels, feature_from_texts, cells.moment_from_text)


def parse_values(plan: Plan, values: Mapping[str, Sequence[Any]]) -> ParsedRows:
    """Records whose cells are JSON values, by the file's columns: the sources and the target."""
    labels = labels_from_values(plan, values[plan.schema.target])
    return _parse(plan, values, labels, feature_from_values, cells.moment_from_value)


def _parse(
    plan: Plan,
    columns: Mapping[str, Sequence[T]],
    labels: Read,
    read: Callable[[Plan, Column, Sequence[T]], Read],
    read_moment: Callable[[T, TimeForm, float], float | None],
) -> ParsedRows:
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
    """A column per feature: by `read`, or as a part of the times of its source (in seconds).

    A source of several features is read once.
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
            times = found[column.source]
            part = timestamps.part(times.values.to_numpy(zero_copy_only=False), column.part)
            each.append(Read(pa.array(part, from_pandas=True), times.faults))
    return each


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
    maybe = _MAYBE_ZERO.search(joined) or _LEADING_ZERO.fullmatch(texts[0] if texts else "")
    if column.source in plan.free or not maybe:
        return read
    # Digits with a leading zero lose it as a number.
    places = [index for index, cell in enumerate(texts) if _LEADING_ZERO.fullmatch(cell)]
    if not places:
        return read
    first = places[0]
    notice = Notice("leading zeros", column.source, first, len(places), cells.shown(texts[first]))
    return replace(read, notice=notice)


def feature_from_values(plan: Plan, column: Column, values: Sequence[Any]) -> Read:
    """One feature whose cells are JSON values."""
    where, free = f"column {column.source!r}", column.source in plan.free
    if column.kind == "number":
        # Many programs write some numbers as text: 3.5 and "3.5" are equal.
        return numbers_from_values(
            values,
            where,
            plan.largest,
            from_text=True,
            from_truth=free,
            spelling=column.spelling,
        )
    return categories_from_values(values, where, from_number=free or column.mixed)


def assemble(plan: Plan, features: Sequence[Read], labels: Read) -> ParsedRows:
    """Columns as a table. A record's fault is that of its first invalid column; the label is last.

    `features` are in the schema's order.
    """
    schema, count = plan.schema, len(labels.values)
    faults: Faults = {}
    notices = [column.notice for column in features if column.notice is not None]
    for each, column in zip(schema.columns, features, strict=True):
        # A column that had values may have been renamed if it has none in many records. Invalid
        # cells are another case, and an ignored column is empty on purpose.
        if (
            count >= FEWEST_EMPTY
            and column.values.null_count == count
            and not column.faults
            and each.source in plan.filled
            and each.source not in plan.ignored
        ):
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
    unique = tuple({(each.kind, each.column): each for each in notices}.values())
    if not faults:
        return ParsedRows(range(count), table, faults, unique)
    fit = [index for index in range(count) if index not in faults]
    return ParsedRows(fit, table.take(np.array(fit, dtype=np.int64)), faults, unique)


def numbers_from_texts(
    texts: Sequence[str],
    where: str,
    largest: float,
    spelling: NumberFormat = PLAIN,
    joined: str | None = None,
) -> Read:
    """A column of numbers as texts. `where` names it in messages; `joined` is the text of all
    cells, if the caller has it."""
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
    """A column of numbers as JSON values, with `from_text` also as texts."""
    if set(map(type, values)) <= {int, float, NoneType}:
        try:
            return numbers_from_floats(np.array(values, dtype=np.float64), where, largest)
        except OverflowError:
            pass  # A whole number beyond the range of floats: parsing by cell gives the message.
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
    finite = array.copy()
    finite[unfit] = np.nan
    faults = {int(unfit[index]): fault for index, fault in few.faults.items()}
    return Read(pa.array(finite, from_pandas=True), faults)


def categories_from_texts(texts: Sequence[str], where: str) -> Read:
    """A column of categories as texts."""
    return _each_distinct(texts, cells.category_from_text, where, TEXTS)


def categories_from_values(values: Sequence[Any], where: str, *, from_number: bool) -> Read:
    """A column of categories as JSON values, with `from_number` also as numbers."""
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
    """The target as JSON values; numbers may be texts here."""
    kind, where = plan.schema.label_kind, plan.target
    if kind == "float":
        return numbers_from_values(
            values, where, plan.largest, from_text=True, spelling=plan.schema.label_spelling
        )
    # True, 1 and 1.0 are equal keys of a dict, so a mixed column is parsed value by value.
    read_all = _each_distinct if set(map(type, values)) in ({str}, {int}) else _each
    return read_all(
        values, lambda value: cells.class_from_value(value, kind), where, arrow_label(kind)
    )


def _plain_numbers(texts: Sequence[str], largest: float, joined: str) -> NDArray[np.float64] | None:
    """All texts as floats, NaN for an empty one; None if any of them is unusual."""
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
    """As `_each`, but parse each distinct value once; values are hashable and of one type."""
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
