"""Infers the kind of a column from the cells of a sample, with a reason.

Pure. Three rules are more important than a guess that is mostly right: an id is never a number to
calculate with; a time is no feature, but its hour is; and columns that are left out are reported.
The options (stream.numbers, categories, times, ignore) correct a wrong inference.

1,234 can be a thousand or about one. This is decided by, in this order: the options; cells of the
same column that can be read in one way only; such cells of the file's other columns, if they agree;
the delimiter, since programs that write a decimal comma separate columns by semicolons. If these
give no answer, or contradict each other, the user must decide.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from models.core import number_format
from models.core.number_format import PLAIN, Decimal, NumberFormat, Thousands
from models.core.record_schema import LabelKind, ReadAs, TimeForm, TimePart
from models.stream.parsing import cells, timestamps

NEARLY_ALL = 0.9
"""Share of the cells (without missing ones) that make a column one of numbers or times."""
NEARLY_NEW = 0.95
"""Share of distinct texts from which a column is an id: from categories that hardly recur nothing
can be learned, and each of them needs memory."""
FEWEST_TO_TELL = 50
"""Fewest values to distinguish an id or a row number from a feature."""
DENSE = 3.0
"""Mean step up to which growing whole numbers count records: an odometer grows faster."""
MOST_CLASSES = 100
"""Distinct labels above which they are no classes, if they are also a third of the sample."""
FEWEST_DECIMALS = 20
"""Distinct decimal numbers up to which labels may be classes, such as grades 1.0, 1.3, ..."""

_LEADING_ZERO = re.compile(r"\s*[+-]?0[0-9]+\s*")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_ID_WORDS = frozenset({"id", "ids", "uuid", "guid", "rowid", "pk"})
_TIME_WORDS = frozenset(
    {"time", "date", "datetime", "timestamp", "ts", "epoch", "unix", "when", "created", "updated"}
)
_NO_TIME_WORDS = frozenset(
    {"total", "bytes", "count", "votes", "elapsed", "duration", "latency", "response", "uptime"}
    | {"cap", "value", "amount", "price", "size", "phone", "tel", "user"}
    | _ID_WORDS
)
_UNIT_WORDS: Mapping[str, TimeForm] = {
    **dict.fromkeys(("s", "sec", "secs", "seconds"), "s"),
    **dict.fromkeys(("ms", "millis", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "micros", "microseconds"), "us"),
    **dict.fromkeys(("ns", "nanos", "nanoseconds"), "ns"),
}
_SURE_BY_SIZE: frozenset[TimeForm] = frozenset({"ms", "us"})
"""Units whose numbers are rarely anything else; ids of 10 and of 19 digits are common."""


class Unclear(ValueError):
    """A number is ambiguous, and nothing decides; it has the cell."""

    def __init__(self, cell: str) -> None:
        super().__init__(cell)
        self.cell = cell


@dataclass(frozen=True)
class NumberMarks:
    """What is known about the number format of a file besides the column itself."""

    decimal: Decimal | None = None
    """From the options; None: inferred."""
    thousands: Thousands | None = None
    delimiter: str | None = None
    others: Decimal | None = None
    """The decimal mark of the columns with unambiguous cells; None: none, or they disagree."""


@dataclass(frozen=True)
class InferredColumn:
    """The kind of a column, and the reason."""

    read_as: ReadAs
    because: str
    spelling: NumberFormat = PLAIN
    time: TimeForm | None = None
    parts: tuple[TimePart, ...] = ()
    counts: bool = False
    """Whether it was left out as numbers that only identify records."""
    mixed: bool = False
    """Whether it is a category with numbers besides texts."""
    example: Any = None
    """A valid cell."""


def of_texts(name: str, texts: Sequence[str], marks: NumberMarks) -> InferredColumn:
    """Infer a column of a text file. Raises Unclear."""
    present = numbers_present(texts)
    if not present:
        return InferredColumn("number", "it holds nothing in the sample")
    zero = next(filter(_LEADING_ZERO.fullmatch, present), None)
    if zero is not None:
        return InferredColumn("category", f"digits with a leading zero are text: {zero.strip()!r}")
    usual = (
        marks.delimiter != ";"
        and marks.others != ","
        and marks == replace(marks, decimal=None, thousands=None)
    )
    joined = "".join(present)
    if usual and joined.isascii() and "_" not in joined:
        # In most columns, all cells are plain numbers, and need no closer inspection.
        plain: list[float] = []
        with suppress(ValueError):
            plain = list(map(float, present))
        if plain and all(map(math.isfinite, plain)):
            found = _of_numbers(name, plain, PLAIN, whole=len(plain) == len(texts))
            return replace(found, example=present[0])
    sample = number_format.NumberSample(present)
    spelt = spelling_of(sample, marks)
    if spelt is None:
        return _of_words([text for text in texts if text.strip()])
    return _of_spelt(name, present, sample, spelt, whole=len(present) == len(texts))


def of_values(name: str, values: Sequence[Any], marks: NumberMarks) -> InferredColumn:
    """Infer a column of JSON values, or of numbers, texts or truths in Parquet."""
    present = [value for value in values if not is_missing(value)]
    if not present:
        return InferredColumn("number", "it holds nothing in the sample")
    if sum(isinstance(value, list | dict) for value in present) * 2 > len(present):
        return InferredColumn("left out", "lists or objects are neither numbers nor categories")
    texts = [value for value in present if isinstance(value, str)]
    numbers = [
        value for value in present if not isinstance(value, str) and number_of(value) is not None
    ]
    finite = [number for value in numbers if math.isfinite(number := number_of(value) or 0.0)]
    if len(numbers) >= NEARLY_ALL * len(present):
        found = _of_numbers(name, finite, PLAIN, whole=len(finite) == len(values))
        return _with_unfit(found, present, numbers)
    if len(texts) >= NEARLY_ALL * len(present):
        return _of_json_texts(name, values, texts, marks)
    if texts and numbers:
        return InferredColumn(
            "category",
            f"{len(texts)} texts and {len(numbers)} numbers are mixed: all are read as text "
            "(stream.numbers reads them as numbers)",
            mixed=True,
        )
    return InferredColumn("category", "truth values")


def spelling_of(sample: number_format.NumberSample, marks: NumberMarks) -> NumberFormat | None:
    """The format in which nearly all cells are numbers; None if there is none. Raises Unclear."""
    enough = NEARLY_ALL * sample.total
    plain = sample.count(PLAIN)
    best: NumberFormat | None = None
    decimal = marks.decimal or _decimal(sample, marks, enough)
    rich = sample.spelling(decimal, marks.thousands)
    if rich != PLAIN and sample.count(rich) >= plain:
        best, plain = rich, sample.count(rich)
    elif decimal == "." and marks.thousands is None:
        best = PLAIN
    return best if plain >= enough else None


def decimal_of(samples: Iterable[number_format.NumberSample]) -> Decimal | None:
    """The decimal mark on which the unambiguous columns of a file agree; None if they do not."""
    found: set[Decimal] = set()
    for sample in samples:
        votes = sample.votes()
        for mark in votes:
            alone = votes[mark] > sum(votes.values()) / 2
            if alone and sample.count(sample.spelling(mark)) >= NEARLY_ALL * sample.total:
                found.add(mark)
    return found.pop() if len(found) == 1 else None


def kind_of_labels(labels: Sequence[Any]) -> LabelKind | None:
    """The type of the sample's classes; None if all are missing."""
    present = labels_present(labels)
    if not present:
        return None
    if any(isinstance(label, str) and _LEADING_ZERO.fullmatch(label) for label in present):
        return "str"
    words = numbers_present(present)
    return "int" if words and all(map(cells.is_whole, words)) else "str"


def labels_present(labels: Iterable[Any]) -> list[Any]:
    """The labels that are not missing."""
    return [
        label
        for label in labels
        if not is_missing(label) and str(label).strip().casefold() not in cells.MISSING_LABELS
    ]


def numbers_present(values: Iterable[Any]) -> list[Any]:
    """Cells of a column of numbers that are not missing."""
    return [
        value
        for value in values
        if not is_missing(value)
        and not (isinstance(value, str) and value.strip().casefold() in cells.MISSING_NUMBERS)
    ]


def no_classes(present: Sequence[Any], spelt: NumberFormat) -> str:
    """Why these labels can be no classes; empty if they can.

    A fit with a class per record takes minutes, and is useless.
    """
    distinct = len({str(label).strip() for label in present})
    if distinct > MOST_CLASSES and distinct * 3 > len(present):
        return f"{distinct} different labels in {len(present)} records"
    found = [number_of(label, spelt) for label in present]
    numbers = [number for number in found if number is not None and math.isfinite(number)]
    if len(numbers) < NEARLY_ALL * len(present) or distinct <= FEWEST_DECIMALS:
        return ""
    if all(number.is_integer() for number in numbers):
        return ""
    return f"decimal numbers, {distinct} different ones in {len(present)} records"


def alike(labels: Sequence[Any]) -> str:
    """Describe two classes that differ in case only, which may be a mistake; else empty."""
    known: dict[str, str] = {}
    for label in labels:
        text = str(label).strip()
        other = known.setdefault(text.casefold(), text)
        if other != text:
            return f"{other!r} and {text!r} are two of them"
    return ""


def number_of(value: Any, spelt: NumberFormat = PLAIN) -> float | None:
    """The number of a value or text, which may not be finite; None if it is no number."""
    if isinstance(value, str):
        return cells.number_in(value, spelt)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # A whole number beyond the range of floats is larger than any valid one.
    return float(value) if abs(value) < cells.HUGE else math.inf


def moment_of(value: Any) -> float | None:
    """Seconds since 1970 of an ISO 8601 text; None of anything else."""
    return timestamps.seconds_of_text(value) if isinstance(value, str) else None


def of_moments(
    seconds: Sequence[float], because: str, form: TimeForm, example: Any = None
) -> InferredColumn:
    """A column of times, whose parts are features; the hour only if there is one."""
    parts = timestamps.PARTS if timestamps.has_hours(seconds) else timestamps.PARTS[1:]
    return InferredColumn("time", because, time=form, parts=parts, example=example)


def _decimal(sample: number_format.NumberSample, marks: NumberMarks, enough: float) -> Decimal:
    """The decimal mark of a column if it is not configured. Raises Unclear."""
    if marks.thousands == ",":
        return "."
    if marks.thousands == ".":
        return ","
    votes = sample.votes()
    if votes:
        return "," if votes[","] > votes["."] else "."
    comma, point = sample.unclear(","), sample.unclear(".")
    if comma is None and point is None:
        return marks.others or ("," if marks.delimiter == ";" else ".")
    usual: Decimal | None = {";": ",", ",": "."}.get(marks.delimiter or "")  # type: ignore[assignment]  # the two marks
    if comma is None:
        # A program that writes 1.5 between semicolons may write 1.234 as well, or mean thousands.
        usual = None if marks.delimiter == ";" else "."
    odd = marks.others == "," and marks.delimiter == ","
    decimal = None if odd and comma is not None else marks.others or usual
    if decimal is not None:
        return decimal
    if max(sample.count(sample.spelling(mark)) for mark in (".", ",")) >= enough:
        raise Unclear(comma or point or "")
    return "."


def _of_spelt(
    name: str,
    present: Sequence[str],
    sample: number_format.NumberSample,
    spelt: NumberFormat,
    *,
    whole: bool,
) -> InferredColumn:
    fitting = [text for text in present if cells.number_in(text, spelt) is not None]
    numbers = [cells.number_in(text, spelt) or 0.0 for text in fitting]
    finite = [number for number in numbers if math.isfinite(number)]
    found = _of_numbers(name, finite, spelt, whole=whole and len(finite) == len(present))
    behind = sample.negative_behind()
    if behind is not None and found.read_as == "number":
        found = replace(found, because=f"{found.because}; {behind.strip()!r} is below zero")
    return _with_unfit(found, present, fitting)


def _with_unfit(
    found: InferredColumn, present: Sequence[Any], fitting: Sequence[Any]
) -> InferredColumn:
    """Add to a column of numbers what else is in it."""
    found = replace(found, example=fitting[0])
    if len(fitting) == len(present) or found.read_as != "number":
        return found
    fits = set(map(id, fitting))
    odd = next(value for value in present if id(value) not in fits)
    text = f"{len(present) - len(fitting)} of {len(present)} are none, as {cells.shown(odd)}"
    return replace(found, because=f"{found.because}; {text}")


def _of_json_texts(
    name: str, values: Sequence[Any], texts: Sequence[str], marks: NumberMarks
) -> InferredColumn:
    """Infer a column of texts in a file that has numbers, too.

    They are numbers if they have fractions, or if they are whole with too many distinct values for
    codes; the rules for numbers detect ids.
    """
    found = _of_words(texts)
    if found.read_as == "time" or any(map(_LEADING_ZERO.fullmatch, texts)):
        return found
    present = numbers_present(texts)
    sample = number_format.NumberSample(present)
    fractions = bool(sample.votes())
    many = len(texts) >= FEWEST_TO_TELL and len(set(texts)) * 3 > len(texts)
    spelt = spelling_of(sample, marks) if fractions else PLAIN
    if spelt is None or not present or sample.count(spelt) < NEARLY_ALL * sample.total:
        return found
    if fractions or many:
        numbers = _of_spelt(name, present, sample, spelt, whole=len(present) == len(values))
        return replace(numbers, because=f"{numbers.because}, written as text")
    return replace(found, because=f"{found.because} (stream.numbers reads them as numbers)")


def _of_numbers(
    name: str, numbers: Sequence[float], spelt: NumberFormat, *, whole: bool
) -> InferredColumn:
    """Infer a column of numbers: a feature, a time, or something that only counts records.

    `whole`: no cell of the sample is missing.
    """
    text = f"numbers ({spelt.description})" if spelt.description else "numbers"
    if len(numbers) < FEWEST_TO_TELL:
        return InferredColumn("number", text, spelt)
    array = np.array(numbers)
    steps = np.diff(array)
    integers = bool((array == np.floor(array)).all())
    rising = float((steps >= 0).mean()) >= NEARLY_ALL and bool((steps > 0).any())
    form = _form(name, numbers, integers=integers, rising=rising)
    if form is not None:
        seconds = [number / timestamps.UNITS[form] for number in numbers if number]
        return of_moments(seconds, f"times in {form} since 1970", form)
    if not integers:
        return InferredColumn("number", text, spelt)
    if whole and steps[0] > 0 and bool((steps == steps[0]).all()):
        why = f"a row number: each value is the one before plus {steps[0]:g}"
        return InferredColumn("left out", why, spelt, counts=True)
    grows = bool((steps > 0).all())
    if grows and float(steps.mean()) <= DENSE:
        why = f"an id: whole numbers that grow with every record, by {steps.mean():.3g} in the mean"
        return InferredColumn("left out", why, spelt, counts=True)
    distinct = len(set(numbers))
    if _ID_WORDS.intersection(_words(name)[-1:]) and (
        distinct >= NEARLY_NEW * len(numbers) or (rising and distinct * 5 >= len(numbers))
    ):
        why = f"an id by its name, with {distinct} different values in {len(numbers)}"
        return InferredColumn("left out", why, spelt, counts=True)
    return InferredColumn("number", f"{text} that only grow" if grows else text, spelt)


def _form(name: str, numbers: Sequence[float], *, integers: bool, rising: bool) -> TimeForm | None:
    """The unit in which the numbers are times; None if they are no times.

    Zeros are missing times.
    """
    present = [number for number in numbers if number]
    if len(present) < NEARLY_ALL * len(numbers):
        return None
    form = timestamps.form_of_numbers(present)
    words = _words(name)
    if form is None or _NO_TIME_WORDS.intersection(words):
        return None
    units = [_UNIT_WORDS[word] for word in words if word in _UNIT_WORDS]
    if units and form not in units:
        return None
    named = bool(units) or _TIME_WORDS.intersection(words) or words in (["t"], [*words[:-1], "at"])
    if named:
        return form if integers or form == "s" else None
    return form if integers and rising and form in _SURE_BY_SIZE else None


def _of_words(present: Sequence[str]) -> InferredColumn:
    """Infer a column of texts, without blank ones."""
    if not present:
        return InferredColumn("number", "it holds nothing in the sample")
    head = present[:FEWEST_TO_TELL]
    if sum(timestamps.is_iso(text) for text in head) >= NEARLY_ALL * len(head):
        found = [timestamps.seconds_of_text(text) for text in present]
        seconds = [moment for moment in found if moment is not None]
        if sum(map(timestamps.is_iso, present)) >= NEARLY_ALL * len(present) and seconds:
            return of_moments(seconds, "ISO 8601 times", "iso", present[0])
    counts = Counter(text.strip() for text in present)
    if len(present) >= FEWEST_TO_TELL and len(counts) >= NEARLY_NEW * len(present):
        return InferredColumn(
            "left out",
            f"an id or free text: {len(counts)} different ones in {len(present)} records",
        )
    return InferredColumn("category", f"text, {len(counts)} different in {len(present)} records")


def _words(name: str) -> list[str]:
    """The words of a column's name: created and at for created_at or createdAt."""
    return [word.casefold() for word in _WORD.findall(name)]


def is_missing(value: Any) -> bool:
    """Whether a value is missing in a column of any kind: null, NaN, or a blank text."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())
