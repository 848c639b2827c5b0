"""How the numbers of a text column are written, and how that is found out from a sample.

Pure. Plain is what Python and most exports write: 1234.5, -2e3. Spreadsheets write numbers for
people: 1.234,50 or 1'234.50 or 12,5 % or $1,234.50 or (12). A column has one such spelling, which
is pinned with the schema; a cell that is written otherwise does not fit, and is never guessed at.

1,234 can be a thousand or about one. What decides are the cells of the file that can be read one
way only (12,5 and 1.234,5 have a decimal comma, 1,234.5 has none), and where there is no such cell
the delimiter: programs that write a decimal comma separate columns by semicolons.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Literal

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
_DIGITS = frozenset("0123456789")


class Spelling(BaseModel):
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
        minus, digits, sign = _split(text)
        if sign != self.sign and (sign or self.sign in {"%", "‰"}):
            return None
        if not _pattern(self.decimal, self.thousands).fullmatch(digits):
            return None
        if self.thousands:
            digits = digits.replace(self.thousands, "")
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


PLAIN = Spelling()


def decisive(texts: Iterable[str]) -> Counter[Decimal]:
    """How many of the texts can be read with one decimal mark only, by that mark."""
    votes: Counter[Decimal] = Counter()
    for text in texts:
        digits = _split(text)[1]
        readings = [mark for mark in _MARKS if _reads(digits, mark)]
        if len(readings) == 1 and ("," in digits or "." in digits):
            votes[readings[0]] += 1
    return votes


def ambiguous(texts: Iterable[str]) -> str | None:
    """A text with a comma that is a number with either decimal mark, with different values."""
    for text in texts:
        digits = _split(text)[1]
        if "," in digits and all(_reads(digits, mark) for mark in _MARKS):
            return text
    return None


def infer(texts: Sequence[str], decimal: Decimal, thousands: Thousands | None = None) -> Spelling:
    """The spelling with this decimal mark that most of the texts have; PLAIN where none has one.

    `thousands` is what a person said; None: whatever separates groups in most of the texts.
    """
    split = [_split(text)[1:] for text in texts]
    signs = Counter(sign for _, sign in split)
    common = signs.most_common(1)
    sign = common[0][0] if common and common[0][1] * 2 > len(texts) else ""
    if thousands is None:
        groups: Counter[Thousands] = Counter(
            mark
            for digits, _ in split
            for mark in _GROUPS
            if mark != decimal and mark in digits and _pattern(decimal, mark).fullmatch(digits)
        )
        thousands = groups.most_common(1)[0][0] if groups else ""
    return Spelling(decimal=decimal, thousands=thousands, sign=sign)


_MARKS: tuple[Decimal, ...] = (".", ",")
_GROUPS: tuple[Thousands, ...] = (",", ".", " ", "'")


@cache
def _pattern(decimal: str, thousands: str) -> re.Pattern[str]:
    whole = r"[0-9]+"
    if thousands:
        # A group of thousands does not begin with a zero: 0,123 is a fraction.
        whole = rf"(?:[1-9][0-9]{{0,2}}(?:{re.escape(thousands)}[0-9]{{3}})+|[0-9]+)"
    mark = re.escape(decimal)
    return re.compile(rf"(?:{whole}(?:{mark}[0-9]*)?|{mark}[0-9]+)(?:[eE][-+]?[0-9]+)?")


def _reads(digits: str, decimal: Decimal) -> bool:
    return any(
        _pattern(decimal, mark).fullmatch(digits) for mark in ("", *_GROUPS) if mark != decimal
    )


def _split(text: str) -> tuple[str, str, str]:
    """The minus of a text, its digits with their marks, and the currency or percent beside them.

    Where the text is no such number, the digits are whatever is left, and match no pattern.
    """
    bare = text.strip().translate(_TYPOGRAPHIC)
    minus = ""
    if bare.startswith("(") and bare.endswith(")"):
        minus, bare = "-", bare[1:-1].strip()
    elif len(bare) > 1 and bare.endswith("-"):
        minus, bare = "-", bare[:-1].rstrip()
    if not minus:
        minus, bare = _minus(bare)
    sign = ""
    found = None if _DIGITS.issuperset((*bare[:1], *bare[-1:])) else _BESIDE.fullmatch(bare)
    if found is not None:
        before, digits, after = found.groups("")
        if bool(before) != bool(after) and _is_sign(before or after):
            bare, sign = digits, before or after
            if not minus:
                minus, bare = _minus(bare)
    return minus, bare, sign


def _minus(bare: str) -> tuple[str, str]:
    if bare[:1] in {"-", "+"}:
        return bare[0].replace("+", ""), bare[1:].lstrip()
    return "", bare


def _is_sign(word: str) -> bool:
    if word in _WORDS or word in _CODES:
        return True
    # $, € or £, and with letters before it: US$, R$.
    return unicodedata.category(word[-1]) == "Sc" and len(word) <= 3
