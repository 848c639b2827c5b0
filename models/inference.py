"""What a column is, as far as the cells of a sample tell; each answer says why.

Pure. Three things are worth more than a guess that is mostly right: an id is never a number to
calculate with, a moment is no feature while its hour is, and what is left out is told. A person's
word (stream.numbers, categories, times, ignore) settles what a rule gets wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models import cells, spelling, times
from models.example import LabelKind, Part, ReadAs, TimeForm
from models.spelling import PLAIN, Decimal, Spelling, Thousands

NEARLY_ALL = 0.9
"""Share of the sample's cells (missing ones apart) that make a column one of numbers or times."""
NEARLY_NEW = 0.95
"""Share of different texts from which a column is an id: a category that hardly ever comes again
teaches nothing, and costs a place for each of its values."""
FEWEST_TO_TELL = 50
"""Values below which an id or a row number cannot be told from a feature."""
MOST_CLASSES = 100
"""Different labels of a sample above which they are no classes, if they are also a third of it."""
FEWEST_DECIMALS = 20
"""Different decimal numbers up to which labels may be classes, as grades 1.0, 1.3, ... are."""

_LEADING_ZERO = re.compile(r"\s*[+-]?0[0-9]+\s*")
_ID_NAME = re.compile(
    r"(?:.*[_\-. ])?(?:id|uuid|guid|key|index|idx|no|nr|row|rowid)", re.IGNORECASE
)
_ID_CAMEL = re.compile(r".*[a-z](?:Id|ID|Uuid|Key|No|Nr)")
_TIME_NAME = re.compile(r".*(?:time|date|stamp|epoch|_at|_ts|(?:^|_)ts(?:_|$)).*", re.IGNORECASE)


@dataclass(frozen=True)
class Understood:
    """What a column is, and why."""

    read_as: ReadAs
    because: str
    spelling: Spelling = PLAIN
    time: TimeForm | None = None
    parts: tuple[Part, ...] = ()
    counts: bool = False
    """Whether it was left out as numbers that only tell records apart."""


def of_texts(name: str, texts: Sequence[str], decimal: Decimal, marks: Marks) -> Understood:
    """A column of a text file."""
    present = _present(texts)
    if not present:
        return Understood("number", "it holds nothing in the sample")
    zero = next(filter(_LEADING_ZERO.fullmatch, present), None)
    if zero is not None:
        return Understood("category", f"digits with a leading zero are text: {zero.strip()!r}")
    spelt = spelling_of(present, decimal, marks)
    if spelt is not None:
        found = (cells.number_in(text, spelt) for text in present)
        numbers = [number for number in found if number is not None and math.isfinite(number)]
        return _of_numbers(name, numbers, spelt, whole=len(numbers) == len(texts))
    return _of_words(present)


def of_values(name: str, values: Sequence[Any]) -> Understood:
    """A column of JSON values, or of Parquet ones that are numbers, texts or truths."""
    present = [value for value in values if value is not None and value == value]
    if not present:
        return Understood("number", "it holds nothing in the sample")
    if sum(isinstance(value, list | dict) for value in present) * 2 > len(present):
        return Understood("left out", "lists or objects are neither numbers nor categories")
    found = [number_of(value) if not isinstance(value, str) else None for value in present]
    numbers = [number for number in found if number is not None and math.isfinite(number)]
    if len(numbers) >= NEARLY_ALL * len(present):
        return _of_numbers(name, numbers, PLAIN, whole=len(numbers) == len(values))
    texts = [value for value in present if isinstance(value, str) and value.strip()]
    if len(texts) * 2 <= len(present):
        return Understood("category", "truth values")
    understood = _of_words(texts)
    if understood.read_as == "category" and kind_of_texts(texts) == "number":
        return Understood(
            "category",
            f"texts, though they spell numbers, as {texts[0]!r} (stream.numbers reads them so)",
        )
    return understood


@dataclass(frozen=True)
class Marks:
    """What a person said of decimal and thousands; None: found out."""

    decimal: Decimal | None = None
    thousands: Thousands | None = None


def spelling_of(present: Sequence[str], decimal: Decimal, marks: Marks) -> Spelling | None:
    """How nearly all of these texts spell numbers; None where they do not."""
    if decimal == "." and marks.thousands is None and _spell(present, PLAIN):
        return PLAIN
    spelt = spelling.infer(present, decimal, marks.thousands)
    return spelt if _spell(present, spelt) else None


def decimal_of(columns: Iterable[Sequence[str]], delimiter: str) -> Decimal:
    """The decimal mark of a text file: what most of its unambiguous numbers have.

    Only columns that are nearly all numbers with either mark have a voice. Where none of them says,
    a semicolon between columns goes with a decimal comma.
    """
    points = commas = 0
    for texts in columns:
        present = _present(texts)
        votes = spelling.decisive(present)
        mark: Decimal = "," if votes[","] > votes["."] else "."
        if votes[mark] and spelling_of(present, mark, Marks()) is not None:
            points, commas = points + votes["."], commas + votes[","]
    if points or commas:
        return "," if commas > points else "."
    return "," if delimiter == ";" else "."


def kind_of_texts(texts: Iterable[str]) -> str:
    """Whether plain texts are numbers or categories. None at all are numbers: a wrong guess is then
    seen in the rejects, while a wrong category would quietly have one value per record."""
    present = _present(texts)
    return "number" if _spell(present, PLAIN) else "category"


def kind_of_labels(labels: Sequence[Any]) -> LabelKind | None:
    """What the sample's classes are; None where all are missing."""
    present = present_labels(labels)
    if not present:
        return None
    if any(isinstance(label, str) and _LEADING_ZERO.fullmatch(label) for label in present):
        return "str"
    words = [
        label
        for label in present
        if not (isinstance(label, str) and label.strip().casefold() in cells.MISSING_NUMBERS)
    ]
    return "int" if words and all(map(cells.is_whole, words)) else "str"


def present_labels(labels: Iterable[Any]) -> list[Any]:
    """The labels that are there."""
    return [
        label
        for label in labels
        if label is not None and label == label and str(label).strip().casefold() not in {"", "nan"}
    ]


def no_classes(present: Sequence[Any], spelt: Spelling) -> str:
    """Why these labels can be no classes; empty where they can.

    A fit with a class per record takes minutes and learns nothing.
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


def number_of(value: Any, spelt: Spelling = PLAIN) -> float | None:
    """The number that a value is or, as text, spells; else None. It need not be finite."""
    if isinstance(value, str):
        return cells.number_in(value, spelt)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # A whole number beyond every float is larger than any that is taken.
    return float(value) if abs(value) < cells.HUGE else math.inf


def moment_of(value: Any) -> float | None:
    """Seconds since 1970 of an ISO 8601 text; None of anything else."""
    return times.seconds_of_text(value) if isinstance(value, str) else None


def is_leading_zero(text: str) -> bool:
    """Whether a text is digits that begin with a zero that a number would lose."""
    return _LEADING_ZERO.fullmatch(text) is not None


def _of_numbers(name: str, numbers: Sequence[float], spelt: Spelling, *, whole: bool) -> Understood:
    """A column of numbers: a feature, a time, or something that only counts records.

    `whole`: no cell of the sample is missing.
    """
    told = f"numbers ({spelt.told})" if spelt.told else "numbers"
    if len(numbers) < FEWEST_TO_TELL:
        return Understood("number", told, spelt)
    array = np.array(numbers)
    steps = np.diff(array)
    integers = bool((array == np.floor(array)).all())
    form = times.form_of_numbers(numbers) if integers else None
    rising = float((steps >= 0).mean()) >= NEARLY_NEW and bool((steps > 0).any())
    if form is not None and not _names_an_id(name) and (rising or _TIME_NAME.fullmatch(name)):
        return of_moments(
            [number / times.UNITS[form] for number in numbers],
            f"times in {form} since 1970",
            form,
        )
    if integers and whole and steps[0] != 0 and bool((steps == steps[0]).all()):
        return Understood(
            "left out",
            f"a row number: each value is the one before plus {steps[0]:g}",
            spelt,
            counts=True,
        )
    if integers and bool((steps > 0).all()):
        return Understood(
            "left out", "an id: whole numbers that only grow, a new one a record", spelt
        )
    if integers and _names_an_id(name) and len(set(numbers)) >= NEARLY_NEW * len(numbers):
        return Understood(
            "left out",
            f"an id by its name, with {len(set(numbers))} different values in {len(numbers)}",
            spelt,
            counts=True,
        )
    return Understood("number", told, spelt)


def of_moments(seconds: Sequence[float], because: str, form: TimeForm) -> Understood:
    """A column of times: its parts are features, the hour only where there is one."""
    parts = times.PARTS if times.has_hours(seconds) else times.PARTS[1:]
    return Understood("time", because, time=form, parts=parts)


def _of_words(present: Sequence[str]) -> Understood:
    moments = [times.seconds_of_text(text) for text in present[:FEWEST_TO_TELL]]
    if sum(moment is not None for moment in moments) >= NEARLY_ALL * len(moments):
        seconds = [
            moment for text in present if (moment := times.seconds_of_text(text)) is not None
        ]
        if len(seconds) >= NEARLY_ALL * len(present):
            return of_moments(seconds, "ISO 8601 times", "iso")
    distinct = len({text.strip() for text in present})
    if len(present) >= FEWEST_TO_TELL and distinct >= NEARLY_NEW * len(present):
        return Understood(
            "left out", f"an id or free text: {distinct} different ones in {len(present)} records"
        )
    return Understood("category", f"text, {distinct} different in {len(present)} records")


def _names_an_id(name: str) -> bool:
    return bool(_ID_NAME.fullmatch(name) or _ID_CAMEL.fullmatch(name))


def _present(texts: Iterable[str]) -> list[str]:
    return [text for text in texts if text.strip().casefold() not in cells.MISSING_NUMBERS]


def _spell(present: Sequence[str], spelt: Spelling) -> bool:
    found = sum(cells.number_in(text, spelt) is not None for text in present)
    return found >= NEARLY_ALL * len(present)
