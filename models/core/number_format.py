"""The format of the numbers in a text column, and how it is inferred from a sample.

Pure. The plain format is what Python and most exports write: 1234.5, -2e3. Spreadsheets write
1.234,50 or 1'234.50 or 12,5 % or $1,234.50 or (12). A column has one such format, which is stored
in the schema; a cell in another format is invalid, and is never guessed at.

1,234 can be a thousand or about one; `models.stream.parsing.column_inference` says how it decides.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Decimal = Literal[".", ","]
Thousands = Literal["", ",", ".", " ", "'"]

_CURRENCIES = (
    "AED ARS AUD BGN BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR JPY KRW "
    "MAD MXN MYR NGN NOK NZD PEN PHP PKR PLN RON RSD RUB SAR SEK SGD THB TRY TWD UAH USD VND "
    "ZAR "
)
_WORDS = frozenset(
    {"%", "‰", "kr", "kr.", "zł", "Kč", "Ft", "Fr.", "lei", "Rs", "Rs.", *_CURRENCIES.split()}
)
_SPACES = dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u202f"), " ")
"""No-break, figure, thin and narrow spaces: they separate groups like a plain space."""
_TYPOGRAPHIC = {**_SPACES, ord("\u2212"): "-", ord("\u2019"): "'"}
_BESIDE = re.compile(r"([^0-9.,'()+\-\s]+\.?)?\s*(.*?)\s*([^0-9.,'()+\-\s]+\.?)?", re.DOTALL)
PERCENTS = frozenset({"%", "‰"})
_DIGITS = frozenset("0123456789")
_HAS_DIGIT = re.compile("[0-9]")
LONGEST = 64
"""Characters of a number: the search for one takes time by the square of a text's length."""
_MARKS: tuple[Decimal, ...] = (".", ",")
_GROUPS: tuple[Thousands, ...] = (",", ".", " ", "'")


class NumberParts(NamedTuple):
    """The parts of a text; if it is no number, its digits match no pattern."""

    minus: str
    digits: str
    """With decimal marks and group separators."""
    sign: str
    """The currency or percent sign beside them."""
    behind: bool = False
    """Whether brackets around it, or a minus behind it, make it negative."""


_NONE = NumberParts("", "", "")


class NumberFormat(BaseModel):
    """The format of the numbers of one column."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    decimal: Decimal = Field(default=".", description="Between the whole and its fraction.")
    thousands: Thousands = Field(default="", description="Between groups of three digits.")
    sign: str = Field(default="", description="A percent sign or a currency beside each number.")

    def plain(self, text: str) -> str | None:
        """The number as plain ASCII that `float` reads, or None if it has another format.

        Brackets around a number and a minus behind it mean that it is negative. A currency may be
        left out in some cells; a percent sign may not, since 12 and 12 % differ by a factor of 100.
        """
        return self.of(split(text))

    def of(self, parts: NumberParts) -> str | None:
        """As `plain`, for a text that `split` has taken apart."""
        minus, digits, sign, _ = parts
        if sign != self.sign and (sign or self.sign in PERCENTS):
            return None
        thousands = self.thousands
        if not thousands and _grouped(self.decimal).fullmatch(digits):
            # 1,234.50 is unambiguous, and the first number with groups may come late in the stream.
            thousands = _other(self.decimal)
        if not _pattern(self.decimal, thousands).fullmatch(digits):
            return None
        if thousands:
            digits = digits.replace(thousands, "")
        return minus + digits.replace(self.decimal, ".")

    @property
    def description(self) -> str:
        """The format in words; empty for the plain one."""
        parts = [
            "decimal comma" if self.decimal == "," else "",
            f"thousands {self.thousands!r}" if self.thousands else "",
            f"in {self.sign}" if self.sign else "",
        ]
        return ", ".join(filter(None, parts))


PLAIN = NumberFormat()


class NumberSample:
    """Counts of a column's cells, from which the format of its numbers is inferred.

    Each distinct cell is parsed once, and counted as often as it occurs.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        cells = Counter(texts)
        self.total = sum(cells.values())
        """All cells, those that are no numbers included."""
        self._texts: dict[NumberParts, str] = {}
        self._parts: Counter[NumberParts] = Counter()
        for text, times in cells.items():
            parts = split(text)
            if parts.digits:
                self._parts[parts] += times
                self._texts.setdefault(parts, text)

    def votes(self) -> Counter[Decimal]:
        """How many cells can be read with one decimal mark only, by that mark.

        12,5 and 1.234,5 have a decimal comma, 1,234.5 and 12.5 have none.
        """
        votes: Counter[Decimal] = Counter()
        for parts, times in self._parts.items():
            readings = _readings(parts.digits)
            if len(readings) == 1 and ("," in parts.digits or "." in parts.digits):
                votes[readings[0]] += times
        return votes

    def unclear(self, mark: Literal[".", ","]) -> str | None:
        """A cell with this mark that is a number with either decimal mark, of unequal values."""
        for parts in self._parts:
            if mark in parts.digits and len(_readings(parts.digits)) == len(_MARKS):
                return self._texts[parts]
        return None

    def spelling(self, decimal: Decimal, thousands: Thousands | None = None) -> NumberFormat:
        """The most frequent format with this decimal mark.

        `thousands` is the configured separator; None: the one that most cells have. If all cells
        with a percent sign or currency have the same one, it belongs to the format.
        """
        signs = Counter[str]()
        groups = Counter[Thousands]()
        for parts, times in self._parts.items():
            signs[parts.sign] += times
            for mark in _GROUPS:
                if mark == decimal or mark not in parts.digits:
                    continue
                if _pattern(decimal, mark).fullmatch(parts.digits):
                    groups[mark] += times
        named = [sign for sign in signs if sign]
        if thousands is None:
            thousands = groups.most_common(1)[0][0] if groups else ""
        return NumberFormat(
            decimal=decimal, thousands=thousands, sign=named[0] if len(named) == 1 else ""
        )

    def count(self, spelt: NumberFormat) -> int:
        """How many cells are finite numbers in a format."""
        return sum(
            times
            for parts, times in self._parts.items()
            if (plain := spelt.of(parts)) is not None and math.isfinite(float(plain))
        )

    def negative_behind(self) -> str | None:
        """A cell that is negative by brackets or by a trailing minus."""
        return next((self._texts[parts] for parts in self._parts if parts.behind), None)


@cache
def _pattern(decimal: str, thousands: str) -> re.Pattern[str]:
    whole = r"[0-9]+"
    if thousands:
        # A group of thousands does not begin with a zero: 0,123 is a fraction.
        whole = rf"(?:[1-9][0-9]{{0,2}}(?:{re.escape(thousands)}[0-9]{{3}})+|[0-9]+)"
    mark = re.escape(decimal)
    return re.compile(rf"(?:{whole}(?:{mark}[0-9]*)?|{mark}[0-9]+)(?:[eE][-+]?[0-9]+)?")


def _other(decimal: Decimal) -> Thousands:
    return "," if decimal == "." else "."


@cache
def _grouped(decimal: Decimal) -> re.Pattern[str]:
    """Numbers with groups of three digits and a fraction, so that both marks are unambiguous."""
    mark, group = re.escape(decimal), re.escape(_other(decimal))
    return re.compile(rf"[1-9][0-9]{{0,2}}(?:{group}[0-9]{{3}})+{mark}[0-9]+")


def _readings(digits: str) -> list[Decimal]:
    """The decimal marks with which these digits are a number."""
    return [
        decimal
        for decimal in _MARKS
        if any(
            _pattern(decimal, mark).fullmatch(digits)
            for mark in ("", *_GROUPS)
            if mark != decimal and (not mark or mark in digits)
        )
    ]


def split(text: str) -> NumberParts:
    """The minus, the digits and the sign beside them in a text."""
    bare = text.strip()
    if len(bare) > LONGEST or _HAS_DIGIT.search(bare) is None:
        return _NONE
    if not bare.isascii():
        bare = bare.translate(_TYPOGRAPHIC)
    inner = None
    if bare.startswith("(") and bare.endswith(")"):
        inner = bare[1:-1].strip()
    elif bare.endswith("-"):
        inner = bare[:-1].rstrip()
    # A short whole number is not negative: 2- may be a grade, and (1) a footnote.
    if inner is not None and (
        sum(map(_DIGITS.__contains__, inner)) >= 3 or "." in inner or "," in inner
    ):
        behind, minus, bare = True, "-", inner
    else:
        behind, (minus, bare) = False, _minus(bare)
    sign = ""
    found = None if _DIGITS.issuperset((*bare[:1], *bare[-1:])) else _BESIDE.fullmatch(bare)
    if found is not None:
        before, digits, after = found.groups("")
        word = before or after
        # A currency symbol may have letters before it: US$, R$.
        is_symbol = bool(word) and unicodedata.category(word[-1]) == "Sc" and len(word) <= 3
        if bool(before) != bool(after) and (word in _WORDS or is_symbol):
            bare, sign = digits, word
            if not minus:
                minus, bare = _minus(bare)
    return NumberParts(minus, bare, sign, behind)


def _minus(bare: str) -> tuple[str, str]:
    if bare[:1] in {"-", "+"}:
        return bare[0].replace("+", ""), bare[1:].lstrip()
    return "", bare
