"""One record of text, as CSV or as JSON, and many of them at once.

Pure. `one` reads a single record and raises Unfit with the reason; `many` reads lines that look
ordinary, fast, and answers None where any of them does not: then each is read by `one`. Where a
record begins and ends in a file is the business of `models.text`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Protocol

from models.cells import Unfit, shown
from models.columns import Plan, Taken, take_texts, take_values


class RecordFormat(Protocol):
    """How a line (in CSV: or several, where quotes span them) becomes a record."""

    def one(self, pull: Callable[[], str]) -> Any:
        """The record that begins on the line that the first `pull()` gives. Raises Unfit."""


class TextFormat(RecordFormat, Protocol):
    """How lines become records, and records rows."""

    def many(self, text: str, lines: list[str]) -> list[Any] | None:
        """Every line of `text` as a record; None if any is unusual."""

    def is_whole(self, record: Any) -> bool:
        """Whether nothing can be missing from a record whose line has no end yet."""

    def take(self, plan: Plan, records: Sequence[Any]) -> Taken:
        """Records as rows and labels."""


@dataclass(frozen=True)
class CsvFormat:
    """CSV with a header (RFC 4180, any delimiter). `names` are those of the header, in order."""

    names: tuple[str, ...]
    delimiter: str

    def many(self, text: str, lines: list[str]) -> list[list[str]] | None:
        if '"' not in text:
            records = [line.split(self.delimiter) for line in lines]
        else:
            try:
                records = list(csv.reader(lines, delimiter=self.delimiter, strict=True))
            except csv.Error:
                return None
            if len(records) != len(lines):  # Quotes went over the end of a line.
                return None
        return records if set(map(len, records)) == {len(self.names)} else None

    def one(self, pull: Callable[[], str]) -> list[str]:
        record = csv_cells(pull, self.delimiter)
        if len(record) != len(self.names):
            raise Unfit(f"{len(self.names)} cells were expected, {len(record)} came")
        return record

    def is_whole(self, record: list[str]) -> bool:
        """A blank last cell may only not have been written yet: most often it is the label."""
        return bool(record[-1].strip())

    def take(self, plan: Plan, records: Sequence[Any]) -> Taken:
        place = {name: index for index, name in enumerate(self.names)}
        columns: list[Any] = list(zip(*records, strict=True)) or [()] * len(self.names)
        features = [columns[place[name]] for name in plan.schema.names]
        return take_texts(plan, features, columns[place[plan.schema.target]])


def csv_cells(pull: Callable[[], str], delimiter: str) -> list[str]:
    """The cells of one CSV record; pulls further lines while a quote is open. Raises Unfit."""
    lines = iter(pull, None)
    try:
        return next(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise Unfit(f"a CSV record was expected, broken quotes came ({error})") from error


@dataclass(frozen=True)
class JsonFormat:
    """One JSON object per line. Keys must be `required`; those in `ignored` may come or not.

    With `required` None (to look at a sample) an object may have any keys.
    """

    required: frozenset[str] | None
    ignored: frozenset[str] = frozenset()

    def many(self, text: str, lines: list[str]) -> list[dict[str, Any]] | None:
        try:
            records = list(map(json.loads, lines))
        except (ValueError, RecursionError):
            return None
        if set(map(type, records)) != {dict}:
            return None
        # Every key has a colon of its own: with none to spare, no key can have come twice.
        if text.count(":") != sum(map(len, records)):
            return None
        if self.required is None:
            return records
        allowed = self.required | self.ignored
        for record in records:
            if not (self.required <= record.keys() <= allowed):
                return None
        return records

    def one(self, pull: Callable[[], str]) -> dict[str, Any]:
        try:
            record = json.loads(pull(), object_pairs_hook=_once_each)
        except RecursionError as error:
            raise Unfit("a flat JSON object was expected, a deeply nested one came") from error
        except json.JSONDecodeError as error:
            raise Unfit(f"a JSON object was expected, broken JSON came ({error})") from error
        except Unfit:
            raise
        except ValueError as error:  # A whole number of thousands of digits.
            raise Unfit(f"a JSON object was expected, an unreadable one came ({error})") from error
        if not isinstance(record, dict):
            raise Unfit(f"a JSON object was expected, {shown(record)} came")
        self._check_keys(record)
        return record

    def is_whole(self, record: dict[str, Any]) -> bool:
        """An object that is closed."""
        return True

    def take(self, plan: Plan, records: Sequence[Any]) -> Taken:
        names = [*plan.schema.names, plan.schema.target]
        cells = map(itemgetter(*names), records)
        columns: list[Any] = list(zip(*cells, strict=True)) or [()] * len(names)
        return take_values(plan, columns[:-1], columns[-1])

    def _check_keys(self, record: dict[str, Any]) -> None:
        if self.required is None:
            return
        missing = [name for name in sorted(self.required) if name not in record]
        if missing:
            raise Unfit(f"column {missing[0]!r} is missing from the object (null says: no value)")
        extra = record.keys() - self.required - self.ignored
        if extra:
            raise Unfit(
                f"column {shown(min(extra))} is not in the schema (stream.ignore leaves it out)"
            )


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Unfit(f"each key once was expected, {shown(twice)} came twice")
    return record
