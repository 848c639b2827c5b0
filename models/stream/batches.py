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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.core.record_schema import Cell, Label
from observability.core.errors import BadConfiguration, ThermodriftError

Format = Literal["csv", "parquet", "jsonl"]
NoticeKind = Literal["new column", "unfit cell", "leading zeros", "empty column"]
"""A column that the schema does not have; a cell that does not fit and was taken as missing; digits
with a leading zero in a column that is read as numbers; a column that had values and has none."""

_NO_TEXT = frozenset({"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"})
"""Python's codecs of names and literals, which are no encodings of a file."""
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


@dataclass(frozen=True)
class Reject:
    """A record that no model may learn from. `raw` is its text, cut at 10,000 characters."""

    position: int
    reason: str
    raw: str
    shape: bool = True
    """Whether the record has another shape than the stream began with, so that the next ones may
    have it too; false for a header line that came again, and for a record that a model refused."""


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
class Batch:
    """Records first..last-1 of a stream: those that fit, and those rejected.

    `positions`, `rows` and `labels` run in parallel; a row's keys are in the schema's order. A
    label is None where the record has none yet: it is predicted, and neither learned nor scored.
    """

    first: int
    last: int
    positions: list[int]
    rows: list[dict[str, Cell]]
    labels: list[Label | None]
    rejects: list[Reject]
    after: Cursor
    ended: bool
    """There is nothing more to read right now; a file may grow."""
    unfinished: int = 0
    """Bytes at the end of a text file that are not yet a whole record."""
    notices: tuple[Notice, ...] = ()
    """What is unusual and was not rejected, at most one per kind and column."""

    @property
    def unlabelled(self) -> int:
        """Records that fit and have no label."""
        return self.labels.count(None)

    def labelled(self) -> Labelled:
        """Those records that have a label: what a fit may learn from."""
        kept = [index for index, label in enumerate(self.labels) if label is not None]
        return Labelled(
            positions=[self.positions[index] for index in kept],
            rows=[self.rows[index] for index in kept],
            labels=[label for label in self.labels if label is not None],
        )


@dataclass(frozen=True)
class Labelled:
    """Records with their labels; the three run in parallel."""

    positions: list[int]
    rows: list[dict[str, Cell]]
    labels: list[Label]


def joined(notices: Iterable[Notice]) -> tuple[Notice, ...]:
    """Notices of parts that follow one another as those of the whole: counts add up."""
    whole: dict[tuple[str, str], Notice] = {}
    for each in notices:
        before = whole.get((each.kind, each.column))
        whole[each.kind, each.column] = (
            each if before is None else replace(before, count=before.count + each.count)
        )
    return tuple(whole.values())


def moved(notices: Iterable[Notice], by: int) -> list[Notice]:
    """Notices whose positions are indexes of a part that begins at position `by`."""
    return [replace(each, position=each.position + by) for each in notices]


def thin(marks: Sequence[Cursor], most: int = 4096) -> list[Cursor]:
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
