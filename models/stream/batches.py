"""The values of a stream: options, cursors, batches, and its errors.

Pure. The adapter that reads files is `models.stream.source`; nothing here touches a file.

    ThermodriftError
    ├── StreamUnreadable (OSError)       the file cannot be read or decoded
    ├── StreamChanged (ValueError)       the file is not the one that was read before
    ├── TryAgainLater
    │   └── NothingToBeginWith           no record has come yet that a schema could be read from
    └── BadConfiguration
        └── BadStream                    a path, key or column that a person must correct
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.core import record_schema
from models.core.prediction import GivenAnswers
from models.core.record_schema import Cell, Label, Schema
from observability.core.errors import BadConfiguration, ThermodriftError, TryAgainLater
from observability.core.paths import PIPELINE_NAME

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["csv", "parquet", "jsonl"]
NoticeKind = Literal["new column", "unfit cell", "leading zeros", "empty column"]
"""A column that the schema does not have; an invalid cell that was taken as missing; digits with a
leading zero in a column of numbers; a column that had values and has none."""

_NO_TEXT = frozenset({"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"})
"""Python's codecs of names and literals, which are no file encodings."""
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
"""What is wrong with a record: its number of cells or its columns; its syntax; its encoding; it
repeats the header; a cell does not match its column; a number is too large; its label is invalid;
or the online model raised on it."""
LONGEST_RAW = 10_000
"""Characters of a rejected record that are kept."""
SERVICE = "service:"
"""What a source begins with that is no file: the labelled predictions of a pipeline's service."""
MOST_CUTS = 256
"""Cuts that a cursor keeps; one costs eight bytes, and a well-formed file has none."""


class BadStream(BadConfiguration):
    """The path, a column or an option of [stream] is wrong."""


class NothingToBeginWith(TryAgainLater):
    """No prediction of a service has a label yet, from which a schema could be inferred."""


class StreamUnreadable(ThermodriftError, OSError):
    """The file exists and cannot be read: permissions, a failing disk, a broken Parquet file."""


class StreamChanged(ThermodriftError, ValueError):
    """The file shrank, or a part that was read before has changed."""


class StreamOptions(BaseModel):
    """The table [stream] of a pipeline file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(
        min_length=1,
        description="The file, relative to the pipeline file; or service:NAME: what was predicted "
        "by `thermodrift serve` for the pipeline NAME of this home, in the order of its labels.",
    )
    then: str = Field(
        default="",
        description="service:NAME: what follows after the last record of the file, which may not "
        "grow any more once that has begun.",
    )
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

    @property
    def service(self) -> str | None:
        """The pipeline whose labelled predictions are read; None: only a file is."""
        source = self.then or self.path
        return source.removeprefix(SERVICE) if source.startswith(SERVICE) else None

    @property
    def has_file(self) -> bool:
        """Whether the stream begins with a file."""
        return not self.path.startswith(SERVICE)

    @field_validator("path", "then")
    @classmethod
    def _service_is_a_pipeline(cls, source: str) -> str:
        if source.startswith(SERVICE) and not PIPELINE_NAME.fullmatch(source[len(SERVICE) :]):
            raise ValueError(
                f"{SERVICE}NAME was expected, where NAME is that of a pipeline; came: {source!r}"
            )
        return source

    @model_validator(mode="after")
    def _a_service_is_last(self) -> Self:
        if self.then and not self.then.startswith(SERVICE):
            raise ValueError(f"then is {SERVICE}NAME; came: {self.then!r}")
        if self.then and not self.has_file:
            raise ValueError(f"nothing follows {self.path}, which never ends: take out then")
        return self

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, name: str) -> str:
        known = name == "auto"
        with suppress(LookupError, UnicodeError):
            # codecs.lookup alone would accept rot13, which does not give bytes.
            known = known or (
                len("a".encode(name)) > 0 and codecs.lookup(name).name not in _NO_TEXT
            )
        if not known:
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


class InboxPlace(BaseModel):
    """Where in an inbox reading continues, and what is known of that inbox."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: str = Field(description="Of the inbox that was read.")
    begins: int = Field(ge=0, description="Position in the stream of its first example.")
    read: int = Field(ge=1, description="Examples that were read.")
    size: int = Field(ge=0, description="Examples that it had: it may only grow.")
    last: str = Field(description="Hash of the example that was read last.")


class Cursor(BaseModel):
    """Where reading continues, with hashes of the file so far. `Cursor()` is the beginning."""

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
        description="Offsets that no record extends beyond, because the file ended there when it "
        "was read. Reading again ends records at the same offsets.",
    )
    inbox: InboxPlace | None = Field(
        default=None,
        description="Set once examples of a service are read; the fields of the file stay as they "
        "were at its end.",
    )

    @property
    def of_file(self) -> Cursor:
        """The end of the file, where the examples of a service were read after it."""
        if self.inbox is None:
            return self
        return self.model_copy(update={"position": self.inbox.begins, "inbox": None})

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Restore from a checkpoint; a field that it does not have gets its default."""
        known = {name: each.default for name, each in type(self).model_fields.items()}
        super().__setstate__({**state, "__dict__": {**known, **state["__dict__"]}})


class Fault(NamedTuple):
    """Why a record is rejected."""

    kind: RejectKind
    reason: str


@dataclass(frozen=True)
class Reject:
    """A rejected record, which no model may learn from."""

    position: int
    kind: RejectKind
    reason: str
    raw: str
    """Its text, cut at 10,000 characters."""

    @property
    def is_misshapen(self) -> bool:
        """Whether the record has another shape than the stream, so that the next ones may, too."""
        return self.kind not in ("repeated_header", "model")


@dataclass(frozen=True)
class Notice:
    """Something unusual about the stream's shape for which no record is rejected."""

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
    """Valid records, as columns."""

    positions: list[int]
    """The position of each record in the stream, in order."""
    table: pa.Table
    """The features in the schema's order, then the target; null for a missing value. A record
    without a label is predicted, and neither learned nor scored."""
    given: Sequence[GivenAnswers | None] = field(default=(), kw_only=True)
    """What a service answered when it was asked for each record; None: it was not. Empty: for no
    record."""

    @cached_property
    def rows(self) -> list[dict[str, Cell]]:
        """The features of each record as a dict, for river."""
        return record_schema.dicts(self.table, self.table.column_names[:-1])

    @cached_property
    def labels(self) -> Sequence[Label | None]:
        """The label of each record; None if not yet known."""
        return record_schema.cells(self.table.column(-1))

    def slice(self, first: int, last: int | None = None) -> Records:
        """The records from index `first` to `last` (exclusive)."""
        last = len(self.positions) if last is None else last
        table = self.table.slice(first, last - first)
        return Records(self.positions[first:last], table, given=self.given[first:last])

    def take(self, indexes: Sequence[int]) -> Records:
        """The records at these indexes."""
        positions = [self.positions[index] for index in indexes]
        given = [self.given[index] for index in indexes] if self.given else ()
        table = self.table.take(np.asarray(indexes, dtype=np.int64))
        return Records(positions, table, given=given)

    def labelled(self) -> Labelled:
        """The records that have a label."""
        labelled = self.take(np.flatnonzero(self.table.column(-1).is_valid()).tolist())
        return Labelled(labelled.positions, labelled.table)

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
    """The records first..last-1 of a stream: the valid ones, and the rejects."""

    first: int
    last: int
    rejects: list[Reject]
    after: Cursor
    ended: bool
    """Whether there is nothing more to read now; the file may grow later."""
    unfinished: int = 0
    """Bytes at the end of a text file that are not yet a complete record."""
    notices: tuple[Notice, ...] = ()
    """Unusual things without a reject, at most one per kind and column."""


@dataclass(frozen=True)
class ParsedRows:
    """The result of parsing consecutive records: the valid ones, and the faults of the others."""

    indexes: Sequence[int]
    """Indexes of the valid records."""
    table: pa.Table
    """The valid records, as in `Records`."""
    faults: Mapping[int, Fault]
    """Faults of the other records, by index."""
    notices: tuple[Notice, ...] = ()
    """Their positions are indexes too."""


class BatchBuilder:
    """Collects the records of a batch."""

    def __init__(self, schema: Schema, first: int) -> None:
        self.position = first
        """The position after the last record that was added."""
        self.notices: list[Notice] = []
        self._first = first
        self._parts = [Records([], record_schema.arrow_schema(schema).empty_table())]
        self._rejects: list[Reject] = []

    def add(
        self,
        parsed: ParsedRows,
        count: int,
        raw: Callable[[int], str],
        broken: Mapping[int, Fault] | None = None,
        given: Sequence[GivenAnswers | None] = (),
    ) -> None:
        """Add the next `count` records; `raw` returns the text of one by its index.

        `broken` has the records that were not parsed, by index: `parsed` does not count them.
        `given` is what a service answered for each of the `count` records.
        """
        first, faults = self.position, dict(parsed.faults)
        places: Sequence[int] = range(first, first + count)
        if broken:
            places = [first + index for index in range(count) if index not in broken]
        positions = [places[index] for index in parsed.indexes] if faults else list(places)
        kept = [given[position - first] for position in positions] if given else ()
        self._parts.append(Records(positions, parsed.table, given=kept))
        found = {places[index]: fault for index, fault in faults.items()}
        found |= {first + index: fault for index, fault in (broken or {}).items()}
        self._rejects += [
            Reject(place, *found[place], raw(place - first)[:LONGEST_RAW])
            for place in sorted(found)
        ]
        self.notices += [replace(each, position=places[each.position]) for each in parsed.notices]
        self.position += count

    def extend(self, batch: Batch) -> None:
        """Add the records of a batch that begins where this one ends."""
        self._parts.append(batch)
        self._rejects += batch.rejects
        self.notices += batch.notices
        self.position = batch.last

    def batch(self, after: Cursor, *, ended: bool, unfinished: int = 0) -> Batch:
        """All records that were added, as one batch."""
        import pyarrow as pa

        return Batch(
            positions=[position for part in self._parts for position in part.positions],
            given=self._given(),
            table=pa.concat_tables([part.table for part in self._parts]).combine_chunks(),
            first=self._first,
            last=self.position,
            rejects=self._rejects,
            after=after,
            ended=ended,
            unfinished=unfinished,
            notices=joined(self.notices),
        )

    def _given(self) -> Sequence[GivenAnswers | None]:
        if not any(part.given for part in self._parts):
            return ()
        return [each for part in self._parts for each in part.given or [None] * len(part.positions)]


def joined(notices: Iterable[Notice]) -> tuple[Notice, ...]:
    """Join the notices of consecutive parts: their counts are added."""
    whole: dict[tuple[str, str], Notice] = {}
    for each in notices:
        before = whole.get((each.kind, each.column))
        whole[each.kind, each.column] = (
            each if before is None else replace(before, count=before.count + each.count)
        )
    return tuple(whole.values())


def downsample(cursors: Sequence[Cursor], most: int = 4096) -> list[Cursor]:
    """Limit a growing list of cursors to `most`, spread evenly over the stream.

    Up to `most`, nothing is dropped; beyond, about half remain, with the first and the last.
    `cursors` are in the order of the stream. Raises ValueError if `most` is below 4.
    """
    if most < 4:
        raise ValueError(f"cursors cannot be thinned to fewer than 4; came: {most}")
    if len(cursors) <= most:
        return list(cursors)
    step = (cursors[-1].position - cursors[0].position) / (most // 2)
    chosen = [cursors[0]]
    for cursor in cursors[1:-1]:
        if cursor.position - chosen[-1].position >= max(step, 1):
            chosen.append(cursor)
    return [*chosen, cursors[-1]]
