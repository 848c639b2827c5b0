"""How the numbers of a text column are written, and how that is found out from a sample.

Pure. Plain is what Python and most exports write: 1234.5, -2e3. Spreadsheets write numbers for
people: 1.234,50 or 1'234.50 or 12,5 % or $1,234.50 or (12). A column has one such spelling, which
is pinned with the schema; a cell that is written otherwise does not fit, and is never guessed at.

1,234 can be a thousand or about one; `models.stream.parsing.column_inference` says what decides.
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
_CODES = frozenset(_CURRENCIES.split())
_WORDS = frozenset({"%", "‰", "kr", "kr.", "zł", "Kč", "Ft", "Fr.", "lei", "Rs", "Rs."})
_SPACES = dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u202f"), " ")
"""No-break, figure, thin and narrow spaces, which separate groups as a plain space does."""
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
    """A text taken apart; of one that is no number the digits match no pattern."""

    minus: str
    digits: str
    """With their marks."""
    sign: str
    """The currency or percent sign beside them."""
    behind: bool = False
    """Whether brackets around it, or a minus behind it, make it negative."""


_NONE = NumberParts("", "", "")


class NumberFormat(BaseModel):
    """How the numbers of one column are written."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    decimal: Decimal = Field(default=".", description="Between the whole and its fraction.")
    thousands: Thousands = Field(default="", description="Between groups of three digits.")
    sign: str = Field(default="", description="A percent sign or a currency beside each number.")

    def plain(self, text: str) -> str | None:
        """The number as plain ASCII that `float` reads, or None where it is not written so.

        Brackets around a number and a minus behind it mean that it is negative. A currency may be
        left out in some cells; a percent sign may not, since 12 and 12 % differ by a factor of 100.
        """
        return self.of(split(text))

    def of(self, parts: NumberParts) -> str | None:
        """As `plain`, of a text that was taken apart."""
        minus, digits, sign, _ = parts
        if sign != self.sign and (sign or self.sign in PERCENTS):
            return None
        thousands = self.thousands
        if not thousands and _grouped(self.decimal).fullmatch(digits):
            # 1,234.50 is one number, and the first that has groups may come late.
            thousands = _other(self.decimal)
        if not _pattern(self.decimal, thousands).fullmatch(digits):
            return None
        if thousands:
            digits = digits.replace(thousands, "")
        return minus + digits.replace(self.decimal, ".")

    @property
    def told(self) -> str:
        """The spelling in words; empty for the plain one."""
        parts = [
            "decimal comma" if self.decimal == "," else "",
            f"thousands {self.thousands!r}" if self.thousands else "",
            f"in {self.sign}" if self.sign else "",
        ]
        return ", ".join(filter(None, parts))


PLAIN = NumberFormat()


class NumberSample:
    """What a column's cells tell of how its numbers are written; each different cell counts once
    in the work, and as often as it came in the sums."""

    def __init__(self, texts: Iterable[str]) -> None:
        cells = Counter(texts)
        self.total = sum(cells.values())
        """Cells, those that are no numbers included."""
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
        """A cell with this mark that is a number either way, with different values."""
        for parts in self._parts:
            if mark in parts.digits and len(_readings(parts.digits)) == len(_MARKS):
                return self._texts[parts]
        return None

    def spelling(self, decimal: Decimal, thousands: Thousands | None = None) -> NumberFormat:
        """The spelling with this decimal mark that most of the cells have.

        `thousands` is what a person said; None: whatever separates groups in the cells. One sign
        beside some of them belongs to all; two different ones are no spelling.
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
        """Cells that are finite numbers in a spelling."""
        return sum(
            times
            for parts, times in self._parts.items()
            if (plain := spelt.of(parts)) is not None and math.isfinite(float(plain))
        )

    def negative_behind(self) -> str | None:
        """A cell that is negative by brackets or by a minus behind it."""
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
    """Numbers with groups of three digits, and a fraction that tells which mark is which."""
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
    """A text taken apart into minus, digits and what stands beside them."""
    bare = text.strip()
    if len(bare) > LONGEST or _HAS_DIGIT.search(bare) is None:
        return _NONE
    if not bare.isascii():
        bare = bare.translate(_TYPOGRAPHIC)
    minus = ""
    inner = _behind(bare)
    if inner is not None:
        minus, bare = "-", inner
    else:
        minus, bare = _minus(bare)
    sign = ""
    found = None if _DIGITS.issuperset((*bare[:1], *bare[-1:])) else _BESIDE.fullmatch(bare)
    if found is not None:
        before, digits, after = found.groups("")
        if bool(before) != bool(after) and _is_sign(before or after):
            bare, sign = digits, before or after
            if not minus:
                minus, bare = _minus(bare)
    return NumberParts(minus, bare, sign, inner is not None)


def _behind(bare: str) -> str | None:
    """What is negative by brackets or by a minus behind it; None where nothing is.

    A short whole number is not: 2- may be a grade, and (1) a footnote.
    """
    if bare.startswith("(") and bare.endswith(")"):
        inner = bare[1:-1].strip()
    elif bare.endswith("-"):
        inner = bare[:-1].rstrip()
    else:
        return None
    digits = sum(map(_DIGITS.__contains__, inner))
    return inner if digits >= 3 or "." in inner or "," in inner else None


def _minus(bare: str) -> tuple[str, str]:
    if bare[:1] in {"-", "+"}:
        return bare[0].replace("+", ""), bare[1:].lstrip()
    return "", bare


def _is_sign(word: str) -> bool:
    if word in _WORDS or word in _CODES:
        return True
    # $, € or £, and with letters before it: US$, R$.
    return unicodedata.category(word[-1]) == "Sc" and len(word) <= 3
