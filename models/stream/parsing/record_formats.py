"""The formats of text records: CSV and JSON.

Pure. `one` reads a single record and raises InvalidCell; `many` reads ordinary lines fast, and
returns None if any line is unusual: then each is read by `one`. `shaped` brings the records of both
into the shape of the schema. `models.stream.text_records` finds the records in a file.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any, Literal, NamedTuple, Protocol

from models.stream.batches import Notice, ParsedRows
from models.stream.parsing.cells import InvalidCell, shown
from models.stream.parsing.columns import Plan, parse_texts, parse_values

LEAVES_OUT = 'stream.extra_cells = "ignore" leaves out such cells'
OTHERS = "(further columns)"
"""A common name for columns beyond `_MOST_LEFT`, in case keys are data, such as ids of users."""
_MOST_LEFT = 100
_LONGEST_CELL = 128 << 20
"""Characters; more than a line may have. The csv module has one limit per process (131,072 by
default), which is set before each use and never restored, since other threads may be reading."""
_SEPARATOR = re.compile(rb'\s*"?sep=([^\r\n"])"?[ \t]*\r?\n', re.IGNORECASE)


class LeftOver(NamedTuple):
    """What was left out of some records: the first index, the count, and an example."""

    first: int
    times: int
    example: str


class RecordFormat(Protocol):
    """How a line (in CSV: several, if quotes span them) becomes a record."""

    def one(self, pull: Callable[[], str]) -> Any:
        """The record that begins on the line of the first `pull()`. Raises InvalidCell."""


class TextFormat(RecordFormat, Protocol):
    """How lines become records, and records become columns."""

    def many(self, text: str, lines: list[str]) -> list[Any] | None:
        """Each line of `text` as a record; None if any is unusual."""

    def shaped(self, records: list[Any]) -> dict[str, LeftOver]:
        """Bring records of `one` or `many` into the schema's shape, in place.

        Returns what was left out of them, by column.
        """

    def is_whole(self, record: Any) -> bool:
        """Whether a record is complete although its line has no end yet."""

    def parse(self, plan: Plan, records: Sequence[Any]) -> ParsedRows:
        """Records as columns and labels."""


@dataclass(frozen=True)
class CsvFormat:
    """CSV with a header (RFC 4180, any delimiter).

    `names` are those of the columns, in order, and `header` has the same names as written: blank if
    a column has no name. Blank cells after the last column are ignored: many programs end each line
    with a delimiter.
    """

    names: tuple[str, ...]
    delimiter: str
    header: tuple[str, ...]
    extra_cells: Literal["reject", "ignore"] = "reject"

    def many(self, text: str, lines: list[str]) -> list[list[str]] | None:
        if '"' not in text:
            records = [line.split(self.delimiter) for line in lines]
        else:
            csv.field_size_limit(_LONGEST_CELL)
            try:
                records = list(csv.reader(lines, delimiter=self.delimiter, strict=True))
            except csv.Error:
                return None
            if len(records) != len(lines):  # A quote spans a line end.
                return None
        width = len(self.names)
        lengths = set(map(len, records))
        if lengths != {width}:
            if min(lengths) < width:
                return None
            if self.extra_cells == "reject" and any(map(self._extra, records)):
                return None
        # In most cases the first name is not even in the text, and no record is checked.
        if all(name in text or '"' in name for name in self.header) and any(
            map(self._is_header, records)
        ):
            return None
        return records

    def one(self, pull: Callable[[], str]) -> list[str]:
        width = len(self.names)
        # With an unclosed quote, and another quote in each later line, every line would begin a
        # record of a thousand lines: the limit of cells stops that early.
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
        """Whether the last cell, often the label, has a value: it may not be written yet."""
        return len(record) > len(self.names) or bool(record[-1].strip())

    def _extra(self, record: list[str]) -> list[str]:
        """The cells after the last column, from the first one that is not blank."""
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

    def parse(self, plan: Plan, records: Sequence[Any]) -> ParsedRows:
        columns: list[Any] = list(zip(*records, strict=True)) or [()] * len(self.names)
        return parse_texts(plan, dict(zip(self.names, columns, strict=True)))


def csv_cells(pull: Callable[[], str], delimiter: str, most: int | None = None) -> list[str]:
    """The cells of one CSV record; pulls further lines while a quote is open, up to `most` cells.

    Raises InvalidCell.
    """
    first = pull()
    bare = first.rstrip("\r\n")
    if '"' not in bare and "\r" not in bare:
        return bare.split(delimiter)
    csv.field_size_limit(_LONGEST_CELL)

    def lines() -> Iterator[str]:
        yield first
        # The reader asks for another line: a quote is open at the end of the line before.
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

    try:
        return next(csv.reader(lines(), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InvalidCell(
            f"a CSV record was expected, broken quotes came ({error})", "malformed"
        ) from error


def separator_line(head: bytes) -> tuple[str, int] | None:
    """The delimiter of a first line such as sep=; (which Excel writes and reads), and the offset of
    the next line; None if there is no such line."""
    found = _SEPARATOR.match(head)
    return (found[1].decode("latin-1"), found.end()) if found else None


def _count(left: dict[str, LeftOver], column: str, index: int, value: Any) -> None:
    if column not in left and len(left) >= _MOST_LEFT:
        column = OTHERS
    before = left.get(column)
    if before is None:
        # A nested value may be of any size.
        example = "a list" if isinstance(value, list) else "an object"
        left[column] = LeftOver(
            index, 1, example if isinstance(value, list | dict) else shown(value)
        )
    else:
        left[column] = before._replace(times=before.times + 1)


class _Keys(NamedTuple):
    """The missing and the additional keys of an object, compared with the schema."""

    absent: tuple[str, ...]
    unknown: tuple[str, ...]
    is_other: bool
    """Whether the object has none of the schema's columns."""


@dataclass(frozen=True)
class JsonFormat:
    """One JSON object per line.

    An absent key of `required` is a missing value. A key in neither `required` nor `ignored` is
    left out, or its object is rejected. If `required` is None (for a sample), an object may have
    any keys. `of_keys` is a cache: most objects have the same keys.
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
        # Each key has its own colon: without any other colon, no key can be there twice.
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
        return self.fitted(record)

    def fitted(self, record: dict[str, Any]) -> dict[str, Any]:
        """The object with a missing value for each absent key. Raises InvalidCell."""
        if self.required is None:
            return record
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
        """Whether a record is complete: an object always is."""
        return True

    def parse(self, plan: Plan, records: Sequence[Any]) -> ParsedRows:
        names = [*plan.schema.sources, plan.schema.target]
        read = itemgetter(*names)
        columns: list[Any] = list(zip(*map(read, records), strict=True)) or [()] * len(names)
        return parse_values(plan, dict(zip(names, columns, strict=True)))

    def _keys(self, record: dict[str, Any]) -> _Keys:
        required = self.required or frozenset()
        keys = _Keys(
            absent=tuple(sorted(required - record.keys())),
            unknown=tuple(sorted(record.keys() - required - self.ignored)),
            is_other=required.isdisjoint(record),
        )
        return self.of_keys.setdefault(tuple(record), keys)


def parsed(plan: Plan, form: TextFormat, records: list[Any]) -> ParsedRows:
    """Parse records; what was left out of them is among the notices."""
    left = form.shaped(records)
    rows = form.parse(plan, records)
    notices = (
        Notice("new column", column, index, times, example)
        for column, (index, times, example) in left.items()
    )
    return replace(rows, notices=(*notices, *rows.notices))


def one_document(head: str) -> str | None:
    """Describe a text that is one JSON document over several lines, and how to convert it to lines;
    None if the text may be JSON lines."""
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
    """The objects of all lines at once, which takes half the time; None if not one object per line.

    Each line begins with its only opening brace and ends with its only closing one. If there are as
    many objects as lines, every brace belongs to an object, so that each line is one.
    """
    count = len(lines)
    if text.count("{") != count or text.count("}") != count:
        return None
    if not all(line[:1] == "{" and line[-1:] == "}" for line in lines):
        return None
    records: list[Any] = _DECODER.decode(f"[{','.join(lines)}]")
    return records if len(records) == count else None


def _each_once(lines: list[str], records: list[dict[str, Any]]) -> bool:
    """Whether no object has a key twice; only those with additional colons are read again."""
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
