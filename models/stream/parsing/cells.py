"""What one cell of a stream may be.

Pure. A cell becomes a finite float, a text, or None for missing; whatever else comes is
`InvalidCell`, which says what was allowed and what came. `models.stream.parsing.columns` reads
whole columns by these rules.

Missing, in a number column of a text file: blank and what `MISSING_NUMBERS` names, in upper or
lower case. In a category column: blank, and null in JSON and Parquet. A label: blank, nan, null
and \\N, and of numbers whatever is missing in a number column. White space around a text is no part
of it.
"""

from __future__ import annotations

import math
import re
from typing import Any

from models.core.number_format import PLAIN, NumberFormat
from models.core.record_schema import Cell, Label, LabelKind, TimeForm
from models.stream.batches import Fault, RejectKind
from models.stream.parsing import timestamps

MISSING_NUMBERS = frozenset(
    {
        *("", "nan", "-nan", "+nan", "na", "n/a", "n.a.", "#n/a", "<na>", "null", "none", "nil"),
        *("missing", "unknown", "n.d."),
        *("?", "-", "--", ".", "\\n"),
        *("#null!", "#value!", "#ref!", "#div/0!", "#num!", "#name?"),
    }
)
"""In lower case; databases write \\N, and #VALUE! and its like are a spreadsheet's errors."""
MISSING_LABELS = frozenset({"", "nan", "null", "\\n", "<na>"})
"""In lower case; of a target of texts. Others, as none and ?, may well be classes."""
LONGEST_TEXT = 10_000
"""Characters in a category or a class; more than that is a document."""
HUGE = 1e300
"""Beyond it a whole number may be no float."""
LARGEST_CLASS = 2**53
"""Whole numbers above this are no longer exact in a float."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
_SHOWN = 60


class InvalidCell(ValueError):
    """A cell or a record that cannot be used: says what was allowed and what came."""

    def __init__(self, reason: str, kind: RejectKind = "cell") -> None:
        super().__init__(reason)
        self.fault = Fault(kind, reason)


def shown(value: object) -> str:
    """A value for a message, cut at 60 characters."""
    text = repr(value[: _SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN + 2 else f"{text[:_SHOWN]}..."


def number_from_text(text: str, largest: float, spelling: NumberFormat = PLAIN) -> float | None:
    """The number that a text spells, in this spelling; None where it is missing. Raises Unfit."""
    if text.strip().casefold() in MISSING_NUMBERS:
        return None
    value = number_in(text, spelling)
    if value is None:
        how = f" ({spelling.told})" if spelling.told else ""
        raise InvalidCell(f"a number{how} was expected, {shown(text)} came")
    return _plausible(value, largest, text)


def number_in(text: str, spelling: NumberFormat) -> float | None:
    """The number that a text spells, finite or not; None where it spells none."""
    if spelling == PLAIN and (value := _spelt(text.strip())) is not None:
        return value
    plain = spelling.plain(text)
    return None if plain is None else float(plain)


def number_from_value(
    value: Any,
    largest: float,
    *,
    from_text: bool = False,
    from_truth: bool = False,
    spelling: NumberFormat = PLAIN,
) -> float | None:
    """The number that a JSON or Parquet value is. Text and truth only count where asked.

    Raises Unfit.
    """
    if value is None:
        return None
    if from_truth and isinstance(value, bool):
        return float(value)
    if type(value) in (int, float):
        return _plausible(value, largest, value)
    if from_text and isinstance(value, str):
        return number_from_text(value, largest, spelling)
    raise InvalidCell(f"a number was expected, {_typed(value)} came")


def category_from_text(text: str) -> str | None:
    """The category that a text names; None for a blank. Raises Unfit."""
    bare = text.strip()
    if not bare:
        return None
    if len(bare) > LONGEST_TEXT:
        raise InvalidCell(
            f"a text of at most {LONGEST_TEXT} characters was expected, {len(bare)} came"
        )
    if "\0" in bare:
        raise InvalidCell(f"text without NUL was expected, {shown(text)} came")
    if not bare.isascii():
        _encodable(bare)
    return bare


def category_from_value(value: Any, *, from_number: bool = False) -> str | None:
    """The category that a JSON or Parquet value is; a truth is "true" or "false". Raises Unfit.

    Numbers only count where asked: then 5 and 5.0 are both "5", and NaN is missing.
    """
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return category_from_text(value)
    if from_number and isinstance(value, int | float):
        return _number_as_text(value)
    raise InvalidCell(f"a text was expected, {_typed(value)} came")


def class_from_text(text: str, kind: LabelKind) -> Label | None:
    """The class that a text names: a whole number ("1" or "1.0") or any text; None where there is
    none. Raises Unfit."""
    bare = text.strip()
    if kind == "int":
        return None if bare.casefold() in MISSING_NUMBERS else _whole(bare)
    return None if bare.casefold() in MISSING_LABELS else category_from_text(bare)


def class_from_value(value: Any, kind: LabelKind) -> Label | None:
    """The class that a JSON or Parquet value is; None where there is none. Raises Unfit."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return class_from_text(value, kind)
    if kind == "str":
        return category_from_value(value, from_number=True)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidCell(f"a whole number as label was expected, {_typed(value)} came")
    return _whole_number(value, value)


def moment_from_text(text: str, form: TimeForm, largest: float) -> float | None:
    """Seconds since 1970 of a time; None where it is missing. Raises Unfit."""
    if text.strip().casefold() in MISSING_NUMBERS:
        return None
    if form != "iso":
        return _moment(number_from_text(text, largest), form, text)
    seconds = timestamps.seconds_of_text(text)
    if seconds is None and timestamps.is_no_date(text):
        return None
    if seconds is None:
        raise InvalidCell(f"a time in ISO 8601 was expected, {shown(text)} came")
    return seconds


def moment_from_value(value: Any, form: TimeForm, largest: float) -> float | None:
    """Seconds since 1970 of a JSON value; None where it is missing. Raises Unfit."""
    if isinstance(value, str):
        return moment_from_text(value, form, largest)
    if form == "iso" and value is not None:
        raise InvalidCell(f"a time in ISO 8601 was expected, {_typed(value)} came")
    return _moment(number_from_value(value, largest), form, value)


def _moment(number: float | None, form: TimeForm, came: object) -> float | None:
    if not number:
        # Moments of 1970 sharp are times that are missing.
        return None
    seconds = timestamps.seconds_of_number(number, form)
    if seconds is None:
        raise InvalidCell(f"a time in {form} since 1970 was expected, {shown(came)} came")
    return seconds


def is_whole(value: Any) -> bool:
    """Whether a value of the sample can be a class that is a whole number."""
    try:
        return class_from_value(value, "int") is not None
    except InvalidCell:
        return False


def _spelt(bare: str) -> float | None:
    """The float that plain ASCII spells: not 1_000, nor digits of other scripts, nor NaN."""
    if not bare.isascii() or "_" in bare:
        return None
    try:
        value = float(bare)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def _plausible(value: float, largest: float, came: Cell) -> float | None:
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return None
        raise InvalidCell(f"a finite number was expected, {shown(came)} came")
    if abs(value) > largest:
        raise InvalidCell(
            f"a number of a magnitude up to {largest:g} was expected, {shown(came)} came",
            "out_of_range",
        )
    return float(value)


def _number_as_text(value: float) -> str | None:
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if not math.isfinite(value):
            raise InvalidCell(f"a finite number was expected, {shown(value)} came")
        if not value.is_integer():
            return repr(value)
        value = int(value)
    return category_from_text(str(value))


def _whole(bare: str) -> int:
    if _WHOLE.fullmatch(bare):
        return _whole_number(int(bare), bare)
    value = _spelt(bare)
    if value is None:
        raise InvalidCell(f"a whole number as label was expected, {shown(bare)} came")
    return _whole_number(value, bare)


def _whole_number(value: float, came: Cell) -> int:
    finite = isinstance(value, int) or math.isfinite(value)
    if not finite or abs(value) > LARGEST_CLASS or value != int(value):
        raise InvalidCell(f"a whole number as label was expected, {shown(came)} came")
    return int(value)


def _encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidCell(f"valid Unicode was expected, {shown(text)} came") from error


def _typed(value: object) -> str:
    """A value with the name of its type, as JSON calls it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    names = {str: "the text", int: "the number", float: "the number", list: "a list"}
    name = names.get(type(value), "an object" if isinstance(value, dict) else "the value")
    return name if isinstance(value, list | dict) else f"{name} {shown(value)}"
