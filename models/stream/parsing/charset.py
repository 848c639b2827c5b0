"""The encodings of text files.

Pure. In a *line-safe* encoding, every byte below 128 is an ASCII character at any place, so that a
file can be split into lines before it is decoded. Files in other encodings (UTF-16, UTF-32, UTF-7,
EBCDIC, ISO-2022) must be decoded as a whole.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass

from models.stream.parsing.cells import shown

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""UTF-32 comes first: its byte order mark begins with that of UTF-16."""
_ZEROS: dict[tuple[bool, ...], str] = {
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}
"""Which of the first four bytes are NUL if a text begins with two ASCII characters."""
_ASCII = bytes(range(128))
_SHIFTS = (b"\x1b$B", b"\x1b$)C")
"""Escape sequences of ISO-2022, which change its state."""
_HIDDEN = "\ue000"
"""Placeholder for the character in question while its line is split into cells."""


@dataclass(frozen=True)
class Charset:
    """The encoding of lines. `recoded`: they were converted from `name` to UTF-8 before."""

    name: str = "utf-8"
    recoded: bool = False

    @property
    def codec(self) -> str:
        """The codec to decode a line with."""
        return "utf-8" if self.recoded else self.name

    @property
    def label(self) -> str:
        """Its name in a message."""
        return self.name.upper() if self.name.startswith("utf-") else self.name


UTF_8 = Charset()


def known(name: str) -> str:
    """Python's name of an encoding; UTF-8 with a byte order mark is UTF-8."""
    own = codecs.lookup(name).name
    return "utf-8" if own == "utf-8-sig" else own


def detected(head: bytes) -> str | None:
    """UTF-16 or UTF-32, by a byte order mark or by the NULs in the first four bytes; else None.

    Only four bytes are used, so that the result never changes when a file grows.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    return _ZEROS.get(tuple(byte == 0 for byte in head[:4]))


def is_line_safe(name: str) -> bool:
    """Whether an encoding is line-safe: a superset of ASCII without states."""
    try:
        if any(text.decode(name) != text.decode("ascii") for text in (_ASCII, *_SHIFTS)):
            return False
    except UnicodeError:
        return False
    ends = (bytes([first, ord("\n")]).decode(name, "replace") for first in range(128, 256))
    return all(text.endswith("\n") for text in ends)


def not_utf8(
    line: bytes, at: int, number: int, names: Sequence[str] | None, *, csv_delimiter: str | None
) -> str:
    """A message about a line whose byte `at` is not UTF-8: place, its text in cp1252, remedy.

    `number` is the line's, from 1; `names` are those of the header, None in the header itself.
    JSON has no delimiter. In Windows-1252 each byte is a character, so `at` is its index as well.
    """
    text = line.decode("cp1252", "replace").rstrip("\r\n")
    text = text[:at] + _HIDDEN + text[at + 1 :]
    character = line[at : at + 1].decode("cp1252", "replace")
    if csv_delimiter is None:
        where, value = _json_place(text)
    else:
        where, value = _csv_place(text, csv_delimiter, names)
    is_header = names is None and csv_delimiter is not None
    line_of = "the header line" if is_header else f"line {number}"
    otherwise = "" if is_header else '; encoding = "utf-8" rejects such records'
    return (
        f"{line_of}{where} is not UTF-8 (byte 0x{line[at]:02x}); read as cp1252 it is "
        f"{shown(value.replace(_HIDDEN, character))}. If that is right, say under [stream] in the "
        'pipeline file: encoding = "cp1252". Otherwise name the right encoding there'
        f"{otherwise}"
    )


def _csv_place(text: str, delimiter: str, names: Sequence[str] | None) -> tuple[str, str]:
    try:
        cells = next(csv.reader([text], delimiter=delimiter))
    except csv.Error:
        cells = [text]
    place = next((index for index, cell in enumerate(cells) if _HIDDEN in cell), None)
    if place is None:
        return "", text
    if names is None:
        return f", column {place + 1},", cells[place]
    # A line with an odd number of quotes is a part of a record: its cells are not the columns.
    named = len(names) == len(cells) and text.count('"') % 2 == 0
    return (f", column {names[place]!r}," if named else ""), cells[place]


def _json_place(text: str) -> tuple[str, str]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        record = None
    if isinstance(record, dict):
        for key, value in record.items():
            if _HIDDEN in key:
                return ", a key,", key
            if isinstance(value, str) and _HIDDEN in value:
                return f", column {key!r},", value
    at = text.index(_HIDDEN)
    return "", text[max(0, at - 20) : at + 20]
