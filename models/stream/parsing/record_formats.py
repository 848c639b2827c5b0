"""One record of text, as CSV or as JSON, and many of them at once.

Pure. `one` reads a single record and raises Unfit with the reason; `many` reads lines that look
ordinary, fast, and answers None where any of them does not: then each is read by `one`. `shaped`
brings what both gave into the shape of the schema. Where a record begins and ends in a file is the
business of `models.stream.text_records`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Literal, NamedTuple, Protocol

from models.stream.batches import Taken
from models.stream.parsing.cells import InvalidCell, shown
from models.stream.parsing.columns import Plan, take_texts, take_values

LEAVES_OUT = 'stream.extra_cells = "ignore" leaves out such cells'
OTHERS = "(further columns)"
"""Where keys are data, as ids of users, each would be told as a column of its own."""
_MOST_LEFT = 100
_LONGEST_CELL = 128 << 20
"""Characters; more than a line may have, so that no cell is ever too long for the csv module."""
_SEPARATOR = re.compile(rb'\s*"?sep=([^\r\n"])"?[ \t]*\r?\n', re.IGNORECASE)


class LeftOver(NamedTuple):
    """What was left out of some records: the index of the first, how many, and a value of it."""

    first: int
    times: int
    example: str


class RecordFormat(Protocol):
    """How a line (in CSV: or several, where quotes span them) becomes a record."""

    def one(self, pull: Callable[[], str]) -> Any:
        """The record that begins on the line that the first `pull()` gives. Raises Unfit."""


class TextFormat(RecordFormat, Protocol):
    """How lines become records, and records rows."""

    def many(self, text: str, lines: list[str]) -> list[Any] | None:
        """Every line of `text` as a record; None if any is unusual."""

    def shaped(self, records: list[Any]) -> dict[str, LeftOver]:
        """Bring records that `one` or `many` gave into the schema's shape, in place. Answers what
        was left out of them, by the name of its column."""

    def is_whole(self, record: Any) -> bool:
        """Whether nothing can be missing from a record whose line has no end yet."""

    def take(self, plan: Plan, records: Sequence[Any]) -> Taken:
        """Records as rows and labels."""


@dataclass(frozen=True)
class CsvFormat:
    """CSV with a header (RFC 4180, any delimiter).

    `names` are those of the columns, in order, and `header` the same as they are written: blank
    where a column has no name. Blank cells after the last column are no part of a record: many
    programs end each line with a delimiter.
    """

    names: tuple[str, ...]
    delimiter: str
    header: tuple[str, ...]
    extra_cells: Literal["reject", "ignore"] = "reject"

    def many(self, text: str, lines: list[str]) -> list[list[str]] | None:
        if '"' not in text:
            records = [line.split(self.delimiter) for line in lines]
        else:
            _allow_long_cells()
            try:
                records = list(csv.reader(lines, delimiter=self.delimiter, strict=True))
            except csv.Error:
                return None
            if len(records) != len(lines):  # Quotes went over the end of a line.
                return None
        width = len(self.names)
        lengths = set(map(len, records))
        if lengths != {width}:
            if min(lengths) < width:
                return None
            if self.extra_cells == "reject" and any(map(self._extra, records)):
                return None
        return None if self._has_header(text, records) else records

    def one(self, pull: Callable[[], str]) -> list[str]:
        width = len(self.names)
        # A quote that opens by mistake and one that opens in each line after it make a record of
        # a thousand lines out of every line: too many cells are noticed before their end.
        record = csv_cells(pull, self.delimiter, most=2 * width + 16)
        if self._is_header(record):
            raise InvalidCell("the header line came again", "repeated_header")
        if len(record) < width:
            raise InvalidCell(f"{width} cells were expected, {len(record)} came", "too_few_cells")
        extra = self._extra(record)
        if extra and self.extra_cells == "reject":
            raise InvalidCell(
                f"{width} cells were expected, {len(record)} came, the first too many is "
                f"{shown(extra[0])} ({LEAVES_OUT})",
                "too_many_cells",
            )
        return record

    def shaped(self, records: list[list[str]]) -> dict[str, LeftOver]:
        width = len(self.names)
        left: dict[str, LeftOver] = {}
        if set(map(len, records)) <= {width}:
            return left
        for index, record in enumerate(records):
            for place, cell in enumerate(record[width:], width + 1):
                if cell.strip():
                    _count(left, f"cell {place}", index, cell)
            del record[width:]
        return left

    def is_whole(self, record: list[str]) -> bool:
        """A blank last cell may only not have been written yet: most often it is the label."""
        return len(record) > len(self.names) or bool(record[-1].strip())

    def _extra(self, record: list[str]) -> list[str]:
        """The cells after the last column, if any is more than blank, without blank ones first."""
        extra = record[len(self.names) :]
        while extra and not extra[0].strip():
            del extra[0]
        return extra

    def _is_header(self, record: list[str]) -> bool:
        width = len(self.header)
        if len(record) < width or record[0].strip(" \t\ufeff") != self.header[0]:
            return False
        rest = zip(record[1:width], self.header[1:], strict=True)
        return all(cell.strip() == name for cell, name in rest) and not self._extra(record)

    def _has_header(self, text: str, records: list[list[str]]) -> bool:
        # Nearly always the first name is not even in the text, and nothing more is looked at.
        if all(name in text or '"' in name for name in self.header):
            return any(map(self._is_header, records))
        return False

    def take(self, plan: Plan, records: Sequence[Any]) -> Taken:
        columns: list[Any] = list(zip(*records, strict=True)) or [()] * len(self.names)
        return take_texts(plan, dict(zip(self.names, columns, strict=True)))


def csv_cells(pull: Callable[[], str], delimiter: str, most: int | None = None) -> list[str]:
    """The cells of one CSV record; pulls further lines while a quote is open, and none after
    `most` cells. Raises Unfit."""
    first = pull()
    bare = first.rstrip("\r\n")
    if '"' not in bare and "\r" not in bare:
        return bare.split(delimiter)
    _allow_long_cells()
    try:
        return next(
            csv.reader(_lines(first, pull, delimiter, most), delimiter=delimiter, strict=True)
        )
    except csv.Error as error:
        raise InvalidCell(
            f"a CSV record was expected, broken quotes came ({error})", "malformed"
        ) from error


def separator_line(head: bytes) -> tuple[str, int] | None:
    """The delimiter that a first line such as sep=; names (Excel writes and obeys it), and where
    the next line begins; None where there is no such line."""
    found = _SEPARATOR.match(head)
    return (found[1].decode("latin-1"), found.end()) if found else None


def _lines(first: str, pull: Callable[[], str], delimiter: str, most: int | None) -> Iterator[str]:
    yield first
    # The reader asks for another line: a quote is open at the end of the one before.
    cells, text, opening = 0, first, ""
    while True:
        if most is not None and (not opening or '"' in text):
            closed = opening + text.rstrip("\r\n") + '"'
            cells += len(next(csv.reader([closed], delimiter=delimiter))) - 1
            if cells > most:
                raise InvalidCell(
                    f"more than {most} cells came before a quote was closed", "malformed"
                )
        text, opening = pull(), '"'
        yield text


def _allow_long_cells() -> None:
    """The csv module has one limit for all of a process, and 131,072 characters by default. How
    long a line may be is settled before; nobody is served by a second, lower limit, so that it is
    not put back (another thread may be reading)."""
    csv.field_size_limit(_LONGEST_CELL)


def _count(left: dict[str, LeftOver], column: str, index: int, value: Any) -> None:
    if column not in left and len(left) >= _MOST_LEFT:
        column = OTHERS
    before = left.get(column)
    if before is None:
        left[column] = LeftOver(index, 1, _example(value))
    else:
        left[column] = before._replace(times=before.times + 1)


def _example(value: Any) -> str:
    """A value for a notice; a nested one may be of any size and is not spelt out."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return shown(value)


class _Keys(NamedTuple):
    """What the keys of an object lack and have too many, held against the schema."""

    absent: tuple[str, ...]
    unknown: tuple[str, ...]
    is_other: bool
    """Not one of the schema's columns is there."""


@dataclass(frozen=True)
class JsonFormat:
    """One JSON object per line.

    An absent key of `required` is a missing value. A key that is in neither `required` nor
    `ignored` is left out, or makes its object a reject. With `required` None (to look at a sample)
    an object may have any keys. `of_keys` is a memory: most objects have the same keys.
    """

    required: frozenset[str] | None
    ignored: frozenset[str] = frozenset()
    new_columns: Literal["ignore", "reject", "stop"] = "ignore"
    of_keys: dict[tuple[str, ...], _Keys] = field(default_factory=dict, repr=False, compare=False)

    def many(self, text: str, lines: list[str]) -> list[dict[str, Any]] | None:
        try:
            records = _flat(text, lines)
            if records is None:
                records = list(map(_DECODER.decode, lines))
        except (ValueError, RecursionError):
            return None
        if set(map(type, records)) != {dict}:
            return None
        # Every key has a colon of its own: with none to spare, no key can have come twice.
        if text.count(":") != sum(map(len, records)) and not _each_once(lines, records):
            return None
        if self.required is None:
            return records
        for record in records:
            keys = self.of_keys.get(tuple(record)) or self._keys(record)
            if keys.is_other or (keys.unknown and self.new_columns == "reject"):
                return None
            for name in keys.absent:
                record[name] = None
        return records

    def one(self, pull: Callable[[], str]) -> dict[str, Any]:
        try:
            record = _STRICT.decode(pull())
        except InvalidCell:
            raise
        except RecursionError as error:
            reason = "a flat JSON object was expected, a deeply nested one came"
            raise InvalidCell(reason, "malformed") from error
        except json.JSONDecodeError as error:
            reason = f"a JSON object was expected, broken JSON came ({error})"
            raise InvalidCell(reason, "malformed") from error
        except ValueError as error:  # A whole number of thousands of digits.
            reason = f"a JSON object was expected, an unreadable one came ({error})"
            raise InvalidCell(reason, "malformed") from error
        if not isinstance(record, dict):
            raise InvalidCell(f"a JSON object was expected, {shown(record)} came", "malformed")
        if self.required is not None:
            self._fill(record)
        return record

    def shaped(self, records: list[dict[str, Any]]) -> dict[str, LeftOver]:
        left: dict[str, LeftOver] = {}
        if self.required is None or max(map(len, records), default=0) <= len(self.required):
            return left
        for index, record in enumerate(records):
            keys = self.of_keys.get(tuple(record)) or self._keys(record)
            for name in keys.unknown:
                _count(left, name, index, record[name])
        return left

    def is_whole(self, record: dict[str, Any]) -> bool:
        """An object that is closed."""
        return True

    def take(self, plan: Plan, records: Sequence[Any]) -> Taken:
        names = [*plan.schema.sources, plan.schema.target]
        read = itemgetter(*names)
        columns: list[Any] = list(zip(*map(read, records), strict=True)) or [()] * len(names)
        return take_values(plan, dict(zip(names, columns, strict=True)))

    def _fill(self, record: dict[str, Any]) -> None:
        keys = self._keys(record)
        if keys.is_other:
            reason = "an object with columns of the schema was expected, one without any came"
            raise InvalidCell(reason, "malformed")
        if keys.unknown and self.new_columns == "reject":
            raise InvalidCell(
                f"column {shown(keys.unknown[0])} is not in the schema "
                '(stream.new_columns = "ignore" leaves out all such, stream.ignore this one)',
                "new_column",
            )
        for name in keys.absent:
            record[name] = None

    def _keys(self, record: dict[str, Any]) -> _Keys:
        required = self.required or frozenset()
        keys = _Keys(
            absent=tuple(sorted(required - record.keys())),
            unknown=tuple(sorted(record.keys() - required - self.ignored)),
            is_other=required.isdisjoint(record),
        )
        return self.of_keys.setdefault(tuple(record), keys)


def one_document(head: str) -> str | None:
    """What a text is whose first line begins a JSON document that goes on after it, and what makes
    lines of it; None where it may well be JSON lines."""
    first = head.lstrip(_JSON_BLANKS).partition("\n")[0].rstrip(_JSON_BLANKS)
    if first.startswith("["):
        try:
            alone = json.loads(first)
        except (ValueError, RecursionError):
            alone = [{}]
        if any(isinstance(value, dict) for value in alone):
            return f"one JSON array: {_INTO_LINES.format('.[]')}"
    if first == "{":
        return f"JSON objects over several lines: {_INTO_LINES.format('.')}"
    return None


_INTO_LINES = (
    "stream.path must name a file with one object per line, as `jq -c '{}' FILE` writes it, or "
    'pandas\' to_json(orient="records", lines=True)'
)
_JSON_BLANKS = " \t\r\n"


def _flat(text: str, lines: list[str]) -> list[Any] | None:
    """The objects of all lines in one go, which takes half the time; None where it might not be
    one object per line.

    Each line begins with the only opening brace that it has and ends with its only closing one. If
    as many objects come out, every brace is that of an object, so that each line is one.
    """
    count = len(lines)
    if text.count("{") != count or text.count("}") != count:
        return None
    if not all(line[:1] == "{" and line[-1:] == "}" for line in lines):
        return None
    records: list[Any] = _DECODER.decode(f"[{','.join(lines)}]")
    return records if len(records) == count else None


def _each_once(lines: list[str], records: list[dict[str, Any]]) -> bool:
    """Whether no object has a key twice: those with colons to spare are read again for it."""
    try:
        for line, record in zip(lines, records, strict=True):
            if line.count(":") != len(record):
                _STRICT.decode(line)
    except (ValueError, RecursionError):
        return False
    return True


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidCell(f"each key once was expected, {shown(twice)} came twice", "malformed")
    return record


_DECODER = json.JSONDecoder()
_STRICT = json.JSONDecoder(object_pairs_hook=_once_each)
