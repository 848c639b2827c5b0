"""The rules for one cell of a stream.

Pure. A cell becomes a finite float, a text, or None for missing; anything else raises
`InvalidCell`, which says what was allowed and what came. `models.stream.parsing.columns` applies
these rules to whole columns.

Missing values: in a number column of a text file, blank cells and `MISSING_NUMBERS`, in upper or
lower case; in a category column, blank cells, and null in JSON and Parquet; of labels, blank, nan,
null and \\N, and for numbers those of a number column. White space around a text is ignored.
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
"""In lower case; databases write \\N, and spreadsheets write errors such as #VALUE!."""
MISSING_LABELS = frozenset({"", "nan", "null", "\\n", "<na>"})
"""In lower case, for a target of texts. Others, such as none and ?, may be classes."""
LONGEST_TEXT = 10_000
"""Most characters of a category or a class."""
HUGE = 1e300
"""Beyond this, a whole number may not fit into a float."""
LARGEST_CLASS = 2**53
"""Whole numbers above this are not exact as floats."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
_SHOWN = 60


class InvalidCell(ValueError):
    """A cell or a record is invalid; the message says what was allowed and what came."""

    def __init__(self, reason: str, kind: RejectKind = "cell") -> None:
        super().__init__(reason)
        self.fault = Fault(kind, reason)


def shown(value: object) -> str:
    """A value for a message, cut at 60 characters."""
    text = repr(value[: _SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN + 2 else f"{text[:_SHOWN]}..."


def number_from_text(text: str, largest: float, spelling: NumberFormat = PLAIN) -> float | None:
    """The number in a text of this format; None if it is missing. Raises InvalidCell."""
    if text.strip().casefold() in MISSING_NUMBERS:
        return None
    value = number_in(text, spelling)
    if value is None:
        how = f" ({spelling.description})" if spelling.description else ""
        raise InvalidCell(f"a number{how} was expected, {shown(text)} came")
    return _plausible(value, largest, text)


def number_in(text: str, spelling: NumberFormat) -> float | None:
    """The number in a text, finite or not; None if it is no number."""
    if spelling == PLAIN and (value := _plain_number(text.strip())) is not None:
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
    """The number of a JSON or Parquet value; texts and truths are allowed by the options only.

    Raises InvalidCell.
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
    """The category of a text; None for a blank. Raises InvalidCell."""
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
        try:
            bare.encode()
        except UnicodeEncodeError as error:
            raise InvalidCell(f"valid Unicode was expected, {shown(bare)} came") from error
    return bare


def category_from_value(value: Any, *, from_number: bool = False) -> str | None:
    """The category of a JSON or Parquet value; a truth is "true" or "false".

    With `from_number`, 5 and 5.0 are both "5", and NaN is missing. Raises InvalidCell.
    """
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return category_from_text(value)
    if from_number and isinstance(value, int):
        return category_from_text(str(value))
    if from_number and isinstance(value, float):
        if math.isnan(value):
            return None
        if not math.isfinite(value):
            raise InvalidCell(f"a finite number was expected, {shown(value)} came")
        return category_from_text(str(int(value))) if value.is_integer() else repr(value)
    raise InvalidCell(f"a text was expected, {_typed(value)} came")


def class_from_text(text: str, kind: LabelKind) -> Label | None:
    """The class of a text: a whole number ("1" or "1.0") or any text; None if it is missing.

    Raises InvalidCell.
    """
    bare = text.strip()
    if kind == "int":
        if bare.casefold() in MISSING_NUMBERS:
            return None
        value = int(bare) if _WHOLE.fullmatch(bare) else _plain_number(bare)
        if value is None:
            raise InvalidCell(f"a whole number as label was expected, {shown(bare)} came")
        return _whole_number(value, bare)
    return None if bare.casefold() in MISSING_LABELS else category_from_text(bare)


def class_from_value(value: Any, kind: LabelKind) -> Label | None:
    """The class of a JSON or Parquet value; None if it is missing. Raises InvalidCell."""
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
    """Seconds since 1970 of a time; None if it is missing. Raises InvalidCell."""
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
    """Seconds since 1970 of a JSON value; None if it is missing. Raises InvalidCell."""
    if isinstance(value, str):
        return moment_from_text(value, form, largest)
    if form == "iso" and value is not None:
        raise InvalidCell(f"a time in ISO 8601 was expected, {_typed(value)} came")
    return _moment(number_from_value(value, largest), form, value)


def _moment(number: float | None, form: TimeForm, came: object) -> float | None:
    if not number:
        # The number 0, the beginning of 1970, stands for a missing time.
        return None
    seconds = timestamps.seconds_of_number(number, form)
    if seconds is None:
        raise InvalidCell(f"a time in {form} since 1970 was expected, {shown(came)} came")
    return seconds


def is_whole(value: Any) -> bool:
    """Whether a value of the sample can be a class of whole numbers."""
    try:
        return class_from_value(value, "int") is not None
    except InvalidCell:
        return False


def _plain_number(bare: str) -> float | None:
    """The float in plain ASCII; None for 1_000, digits of other scripts, and NaN."""
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


def _whole_number(value: float, came: Cell) -> int:
    finite = isinstance(value, int) or math.isfinite(value)
    if not finite or abs(value) > LARGEST_CLASS or value != int(value):
        raise InvalidCell(f"a whole number as label was expected, {shown(came)} came")
    return int(value)


def _typed(value: object) -> str:
    """A value with the name of its type, as JSON calls it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    names = {str: "the text", int: "the number", float: "the number", list: "a list"}
    name = names.get(type(value), "an object" if isinstance(value, dict) else "the value")
    return name if isinstance(value, list | dict) else f"{name} {shown(value)}"
