"""What is asked of a stream and what it gives: options, cursors, batches, and its errors.

Pure: values only. `models.stream.source` is the door that reads; nothing here touches a file.

    ThermodriftError
    ├── StreamUnreadable (OSError)       the disk or the file's own bytes refuse
    ├── StreamChanged (ValueError)       the file is not the one that was being read
    └── BadConfiguration
        └── BadStream                    a path, key or column that a person must correct
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.core import record_schema
from models.core.record_schema import Cell, Label, Schema
from observability.core.errors import BadConfiguration, ThermodriftError

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["csv", "parquet", "jsonl"]
NoticeKind = Literal["new column", "unfit cell", "leading zeros", "empty column"]
"""A column that the schema does not have; a cell that does not fit and was taken as missing; digits
with a leading zero in a column that is read as numbers; a column that had values and has none."""

_NO_TEXT = frozenset({"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"})
"""Python's codecs of names and literals, which are no encodings of a file."""
RejectKind = Literal[
    "too_few_cells",
    "too_many_cells",
    "new_column",
    "malformed",
    "encoding",
    "repeated_header",
    "cell",
    "out_of_range",
    "label",
    "model",
]
"""What is wrong with a record: how many cells or which columns it has; its syntax; its bytes; a
header line that came again; a cell that is not what its column is; a number of too large a
magnitude; its label; or the online model raised on it."""
LONGEST_RAW = 10_000
"""Characters of a rejected record that are kept."""
MOST_CUTS = 256
"""Cuts that a cursor remembers; one costs eight bytes, and a healthy file has none."""


class BadStream(BadConfiguration):
    """The path, a column or an option of [stream] is wrong."""


class StreamUnreadable(ThermodriftError, OSError):
    """The file is there and cannot be read: permissions, a failing disk, a broken Parquet file."""


class StreamChanged(ThermodriftError, ValueError):
    """The file shrank, or what had been read of it is no longer what it was."""


def _encodes(name: str) -> bool:
    """Whether Python knows an encoding of text files by this name."""
    try:
        "a".encode(name)  # codecs.lookup alone would also know rot13, which makes no bytes.
        return codecs.lookup(name).name not in _NO_TEXT
    except (LookupError, UnicodeError):
        return False


class StreamOptions(BaseModel):
    """The table [stream] of a pipeline file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(min_length=1, description="The file, relative to the pipeline file.")
    target: str = Field(min_length=1, description="The column to predict.")
    format: Literal["auto", "csv", "parquet", "jsonl"] = Field(
        default="auto",
        description="auto goes by the ending: .csv .tsv, .parquet .pq, .jsonl .ndjson .json; text "
        "may have .gz .bz2 .xz .zst after it.",
    )
    delimiter: str = Field(
        default="auto",
        description="CSV only: one character. auto: a tab in .tsv, else whichever of , ; tab | "
        "the header line has most of.",
    )
    ignore: tuple[str, ...] = Field(default=(), description="Columns that are left out.")
    numbers: tuple[str, ...] = Field(
        default=(),
        description="Columns that are numbers, whatever the sample says; the target too.",
    )
    categories: tuple[str, ...] = Field(
        default=(),
        description="Columns that are categories, whatever the sample says; the target too.",
    )
    times: tuple[str, ...] = Field(
        default=(),
        description="Columns that are times (ISO 8601, or seconds, ms, us or ns since 1970): their "
        "hour, weekday and month become features.",
    )
    encoding: str = Field(
        default="auto",
        description="Of a text file, by Python's name (cp1252, utf-16, ...). auto: UTF-8, or "
        "UTF-16 and UTF-32 where the file's first bytes say so.",
    )
    decimal: Literal["auto", ".", ","] = Field(
        default="auto", description="Sign between whole and fraction, in CSV and in text cells."
    )
    thousands: Literal["auto", "", ",", ".", " ", "'"] = Field(
        default="auto", description="Sign between groups of three digits, in CSV and in text cells."
    )
    new_columns: Literal["ignore", "reject", "stop"] = Field(
        default="ignore",
        description="A column or JSON key that the stream did not begin with: leave it out and "
        "say so once, reject its records, or end the run before them.",
    )
    extra_cells: Literal["reject", "ignore"] = Field(
        default="reject",
        description="A CSV record with more cells than the header: reject it, or leave out the "
        "cells after the last named one.",
    )
    unfit_cells: Literal["reject", "missing"] = Field(
        default="reject",
        description="A cell that is not what its column is, as text among numbers: reject the "
        "record, or take the cell as missing and say so.",
    )
    batch: int = Field(default=1000, ge=1, le=100_000, description="Records per batch.")
    rejected_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="A batch of which more is rejected is ill: three of them in a row, or one that "
        "is rejected whole, end the run before they are consumed. 1: never end it.",
    )
    sample: int = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="Records at the head of the file that the schema is inferred from.",
    )
    largest: float = Field(
        default=1e100,
        gt=0,
        le=1e150,
        description="A number of a larger magnitude is rejected: its square would overflow a "
        "running variance, and the models with it.",
    )

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, name: str) -> str:
        if name != "auto" and not _encodes(name):
            raise ValueError(
                "encoding is 'auto' or an encoding that Python knows, such as 'cp1252' or "
                f"'utf-16'; came: {name!r}"
            )
        return name

    @model_validator(mode="after")
    def _marks_differ(self) -> Self:
        if self.decimal == self.thousands != "auto":
            raise ValueError(
                f"decimal and thousands are both {self.decimal!r}: a number could be read two ways"
            )
        return self

    @model_validator(mode="after")
    def _delimiter_is_one_character(self) -> Self:
        if self.delimiter != "auto" and (len(self.delimiter) != 1 or self.delimiter in '"\r\n\0 '):
            raise ValueError(
                "delimiter is 'auto' or one character that is no quote, space or line end; "
                f"came: {self.delimiter!r}"
            )
        return self

    @model_validator(mode="after")
    def _each_column_has_one_part(self) -> Self:
        parts = {
            "ignore": self.ignore,
            "numbers": self.numbers,
            "categories": self.categories,
            "times": self.times,
        }
        for part in ("ignore", "times"):
            if self.target in parts[part]:
                raise ValueError(f"column {self.target!r} is the target and in {part}: keep one")
        taken: dict[str, str] = {}
        for part, names in parts.items():
            for name in names:
                if taken.setdefault(name, part) != part:
                    raise ValueError(f"column {name!r} is in {taken[name]} and in {part}: keep one")
        return self


class Cursor(BaseModel):
    """Where reading goes on, and what the file looked like there. `Cursor()` is the beginning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    position: int = Field(default=0, ge=0, description="Position of the next record.")
    offset: int = Field(default=0, ge=0, description="Its byte in a text file; 0 in Parquet.")
    size: int = Field(
        default=0, ge=0, description="Bytes (Parquet: rows) that the file had: it may only grow."
    )
    head: str = Field(default="", description="Hash of the first bytes (at most 4 KiB) read.")
    tail: str = Field(
        default="", description="Hash of the last bytes (at most 4 KiB) before the offset."
    )
    digest: str = Field(
        default="", description="In Parquet: of all values before the position, as they were read."
    )
    stamp: str = Field(
        default="",
        description="In Parquet: inode, size and time of change of the file that it was read from.",
    )
    cuts: tuple[int, ...] = Field(
        default=(),
        description="Bytes that no record reaches over, because it was taken (or given up) when "
        "the file ended there. Re-reading cuts at the same places.",
    )


class Fault(NamedTuple):
    """Why a record is rejected."""

    kind: RejectKind
    reason: str


@dataclass(frozen=True)
class Reject:
    """A record that no model may learn from."""

    position: int
    kind: RejectKind
    reason: str
    raw: str
    """Its text, cut at 10,000 characters."""

    @property
    def is_misshapen(self) -> bool:
        """Whether the record has another shape than the stream began with, so that the next ones
        may have it too."""
        return self.kind not in ("repeated_header", "model")


@dataclass(frozen=True)
class Notice:
    """Something about the stream's shape that costs no record and that a person should know."""

    kind: NoticeKind
    column: str
    position: int
    """The first record of the batch that shows it."""
    count: int
    """Records of the batch that show it."""
    example: str
    """A value that shows it, cut at 60 characters."""


@dataclass(frozen=True)
class Records:
    """Records that fit, as columns."""

    positions: list[int]
    """Of each record in the stream, in order."""
    table: pa.Table
    """The features in the schema's order, then the target; null for a missing value. A record
    without a label is predicted, and neither learned nor scored."""

    @cached_property
    def rows(self) -> list[dict[str, Cell]]:
        """The features of each record as a dict, for river."""
        return record_schema.dicts(self.table, self.table.column_names[:-1])

    @cached_property
    def labels(self) -> Sequence[Label | None]:
        """The label of each record; None where it has none yet."""
        return record_schema.cells(self.table.column(-1))

    def slice(self, first: int, last: int | None = None) -> Records:
        """The records from index `first` to `last` (exclusive)."""
        last = len(self.positions) if last is None else last
        return Records(self.positions[first:last], self.table.slice(first, last - first))

    def take(self, indexes: Sequence[int]) -> Records:
        """The records at these indexes."""
        positions = [self.positions[index] for index in indexes]
        return Records(positions, self.table.take(np.asarray(indexes, dtype=np.int64)))

    def labelled(self) -> Labelled:
        """The records that have a label: what a fit may learn from."""
        kept = self.take(np.flatnonzero(self.table.column(-1).is_valid()).tolist())
        return Labelled(kept.positions, kept.table)

    def unlabelled(self) -> Records:
        """The records that have no label yet."""
        return self.take(np.flatnonzero(self.table.column(-1).is_null()).tolist())


class Labelled(Records):
    """Records that all have a label."""

    @cached_property
    def labels(self) -> Sequence[Label]:
        """The label of each record."""
        return record_schema.cells(self.table.column(-1))


@dataclass(frozen=True)
class Batch(Records):
    """Records first..last-1 of a stream: those that fit, and those rejected."""

    first: int
    last: int
    rejects: list[Reject]
    after: Cursor
    ended: bool
    """There is nothing more to read right now; a file may grow."""
    unfinished: int = 0
    """Bytes at the end of a text file that are not yet a whole record."""
    notices: tuple[Notice, ...] = ()
    """What is unusual and was not rejected, at most one per kind and column."""


@dataclass(frozen=True)
class Taken:
    """What reading some records in a row gave: those that fit, and why the others do not."""

    indexes: Sequence[int]
    """Of the records that fit, among those that were read."""
    table: pa.Table
    """The records that fit, as in `Records`."""
    faults: Mapping[int, Fault]
    """Of the other records, by their indexes."""
    notices: tuple[Notice, ...] = ()
    """Their positions are indexes too."""


class BatchBuilder:
    """A batch in the making."""

    def __init__(self, schema: Schema, first: int) -> None:
        self.position = first
        """The position after the last record that was added."""
        self.notices: list[Notice] = []
        self._first = first
        self._parts = [Records([], record_schema.arrow_schema(schema).empty_table())]
        self._rejects: list[Reject] = []

    def add(
        self,
        taken: Taken,
        count: int,
        raw: Callable[[int], str],
        broken: Mapping[int, Fault] | None = None,
    ) -> None:
        """Add the next `count` records; `raw` gives the text of one by its index.

        `broken` are those, by their indexes, that were not even read: `taken` does not count them.
        """
        first, faults = self.position, dict(taken.faults)
        places: Sequence[int] = range(first, first + count)
        if broken:
            places = [first + index for index in range(count) if index not in broken]
        positions = [places[index] for index in taken.indexes] if faults else list(places)
        self._parts.append(Records(positions, taken.table))
        found = {places[index]: fault for index, fault in faults.items()}
        found |= {first + index: fault for index, fault in (broken or {}).items()}
        self._rejects += [
            Reject(place, *found[place], raw(place - first)[:LONGEST_RAW])
            for place in sorted(found)
        ]
        self.notices += [replace(each, position=places[each.position]) for each in taken.notices]
        self.position += count

    def extend(self, batch: Batch) -> None:
        """Add the records of a batch that begins where this one ends."""
        self._parts.append(batch)
        self._rejects += batch.rejects
        self.notices += batch.notices
        self.position = batch.last

    def batch(self, after: Cursor, *, ended: bool, unfinished: int = 0) -> Batch:
        """All that was added, as one batch."""
        import pyarrow as pa

        return Batch(
            positions=[position for part in self._parts for position in part.positions],
            table=pa.concat_tables([part.table for part in self._parts]).combine_chunks(),
            first=self._first,
            last=self.position,
            rejects=self._rejects,
            after=after,
            ended=ended,
            unfinished=unfinished,
            notices=joined(self.notices),
        )


def joined(notices: Iterable[Notice]) -> tuple[Notice, ...]:
    """Notices of parts that follow one another as those of the whole: counts add up."""
    whole: dict[tuple[str, str], Notice] = {}
    for each in notices:
        before = whole.get((each.kind, each.column))
        whole[each.kind, each.column] = (
            each if before is None else replace(before, count=before.count + each.count)
        )
    return tuple(whole.values())


def downsample(marks: Sequence[Cursor], most: int = 4096) -> list[Cursor]:
    """Keep a growing list of cursors bounded: at most `most`, spread evenly over the stream.

    Below `most` nothing is dropped; above it, about half stay, the first and the last among them.
    `marks` are in the order in which they were reached. Raises ValueError if `most` is below 4.
    """
    if most < 4:
        raise ValueError(f"marks cannot be thinned to fewer than 4; came: {most}")
    if len(marks) <= most:
        return list(marks)
    step = (marks[-1].position - marks[0].position) / (most // 2)
    kept = [marks[0]]
    for mark in marks[1:-1]:
        if mark.position - kept[-1].position >= max(step, 1):
            kept.append(mark)
    return [*kept, marks[-1]]
