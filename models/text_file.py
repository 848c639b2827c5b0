"""One text file of a stream: its header, the guard of its cursors, its records as batches.

Part of the stream's door. The file is opened for each reading and held by nobody: whoever appends
to it, or replaces it, is noticed at the next one.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal

from models import survey, text
from models.columns import Plan, Taken
from models.formats import CsvFormat, JsonFormat, TextFormat, csv_cells
from models.intake import (
    LONGEST_RAW,
    BadStream,
    Batch,
    Cursor,
    Reject,
    StreamChanged,
    StreamOptions,
    StreamUnreadable,
)
from models.survey import Sample

LARGEST_BATCH = 64 << 20
"""Bytes of text after which a batch ends early."""
RARE_KEY = 0.05
"""Share of the sample's objects below which a JSON key is no column."""
_GUARD = 4096
_BOM = b"\xef\xbb\xbf"
_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class _Opening:
    """How the file begins: where its first record is, and the format that reads it."""

    begin: int
    form: TextFormat
    names: tuple[str, ...] | None


class TextFile:
    """CSV or JSON lines."""

    def __init__(self, path: Path, options: StreamOptions, kind: Literal["csv", "jsonl"]) -> None:
        self._path = path
        self._options = options
        self._kind = kind
        self._bytes_per_record: float | None = None

    def survey(self) -> Sample:
        """Look at the first records. Raises BadStream, StreamUnreadable."""
        with self._open() as file:
            opening = self._opening(file, None)
            records = self._sample(file, opening) if opening else []
        if opening is None or not records:
            raise BadStream(
                f"{self._path}: there is no readable record to infer a schema from; stream.path "
                "must name a file that has some"
            )
        if opening.names is None:
            return _json_sample(self._path, records, self._options)
        delimiter = opening.form.delimiter if isinstance(opening.form, CsvFormat) else ","
        return _csv_sample(opening.names, records, delimiter, self._options)

    def read(self, plan: Plan, cursor: Cursor, size: int) -> Batch:
        """The next `size` records at most. Raises StreamChanged, StreamUnreadable, BadStream."""
        with self._open() as file:
            length = os.fstat(file.fileno()).st_size
            self._check(file, cursor, length)
            opening = self._opening(file, plan)
            if opening is None:  # Not even a header yet.
                return _nothing(cursor, length)
            going = _Going(plan, cursor, max(cursor.offset, opening.begin))
            for lot in text.lots(file, opening.begin, going.offset, going.cuts, size, opening.form):
                going.add(lot, opening.form)
                if going.offset - cursor.offset > LARGEST_BATCH:
                    break
            return going.batch(self._cursor(file, going, length), length)

    def done_fraction(self, cursor: Cursor) -> float | None:
        """Bytes gone through, of those there are; None where that is not known."""
        try:
            length = self._path.stat().st_size
        except OSError:
            return None
        return min(1.0, cursor.offset / length) if length else None

    def total_hint(self) -> int | None:
        """About how many records there are, by the length of those in the sample."""
        try:
            length = self._path.stat().st_size
        except OSError:
            return None
        return round(length / self._bytes_per_record) if self._bytes_per_record else None

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        try:
            with self._path.open("rb") as file:
                yield file
        except OSError as error:
            raise StreamUnreadable(
                f"{self._path} cannot be read ({error.strerror or error}): check its permissions "
                "and its disk, then run again; nothing is lost"
            ) from error

    def _opening(self, file: BinaryIO, plan: Plan | None) -> _Opening | None:
        """Read the header; None where the file has not got a whole one."""
        file.seek(0)
        begin = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
        if self._kind == "jsonl":
            ignored = frozenset(self._options.ignore) | (plan.schema.known if plan else frozenset())
            required = frozenset([*plan.schema.sources, plan.schema.target]) if plan else None
            return _Opening(begin, JsonFormat(required, ignored), None)
        header = _Header(self._path, self._options)
        entry = text.Walk(file, begin, (), inside=False, form=header).entry()
        if entry is None or entry.loose:
            return None
        if entry.reason is not None:
            raise BadStream(f"{self._path}: the header line is not readable: {entry.reason}")
        names = survey.named(self._path, entry.record, self._options)
        if plan is None:
            survey.check_names(self._path, names, self._options)
        else:
            survey.check_pinned(self._path, names, plan.schema, self._options)
        return _Opening(entry.end, CsvFormat(names, header.delimiter), names)

    def _sample(self, file: BinaryIO, opening: _Opening) -> list[Any]:
        records: list[Any] = []
        end, seen = opening.begin, 0
        for lot in text.lots(
            file, opening.begin, opening.begin, (), self._options.sample, opening.form
        ):
            records += lot.records
            seen += len(lot.raws)
            end = lot.end
            if lot.loose is not None:
                records.append(lot.loose.record)
            if end > LARGEST_BATCH:
                break
        self._bytes_per_record = (end - opening.begin) / seen if seen else None
        return records

    def _check(self, file: BinaryIO, cursor: Cursor, length: int) -> None:
        """The file still is the one that the cursor was made on. Raises StreamChanged."""
        if length < cursor.size or length < cursor.offset:
            raise self._changed(
                f"it had {max(cursor.size, cursor.offset)} bytes and has {length} now", cursor
            )
        if cursor.offset and _hashes(file, cursor.offset) != (cursor.head, cursor.tail):
            raise self._changed(
                f"the bytes before byte {cursor.offset} are no longer those that were read", cursor
            )

    def _changed(self, what: str, cursor: Cursor) -> StreamChanged:
        return StreamChanged(
            f"{self._path} was cut or rewritten: {what} (at record {cursor.position}). A stream "
            "may only grow: bring the old file back, or start a pipeline under another name"
        )

    def _cursor(self, file: BinaryIO, going: _Going, length: int) -> Cursor:
        head, tail = _hashes(file, going.offset)
        return Cursor(
            position=going.position,
            offset=going.offset,
            size=max(length, going.offset),
            head=head,
            tail=tail,
            cuts=going.cuts,
        )


class _Going:
    """A batch in the making."""

    def __init__(self, plan: Plan, cursor: Cursor, offset: int) -> None:
        self.position = cursor.position
        self.offset = offset
        self.cuts = cursor.cuts
        self._plan = plan
        self._first = cursor.position
        self._ended = False
        self._positions: list[int] = []
        self._rows: list[Any] = []
        self._labels: list[Any] = []
        self._rejects: list[Reject] = []

    def add(self, lot: text.Lot, form: TextFormat) -> None:
        """The records of a lot, and its loose one if that is valid."""
        self.cuts = lot.cuts
        self.offset = lot.end
        self._ended = lot.ended
        self._add(form.take(self._plan, lot.records), lot.raws, lot.broken)
        if lot.loose is None:
            return
        loose = form.take(self._plan, [lot.loose.record])
        if not loose.reasons:
            self._add(loose, [lot.loose.raw], {})
            self.offset = lot.loose.end
            self.cuts = text.with_cut(lot.cuts, lot.loose.end)

    def batch(self, after: Cursor, length: int) -> Batch:
        """What was gathered."""
        return Batch(
            first=self._first,
            last=self.position,
            positions=self._positions,
            rows=self._rows,
            labels=self._labels,
            rejects=self._rejects,
            after=after,
            ended=self._ended or self.offset >= length,
            unfinished=max(0, length - self.offset) if self._ended else 0,
        )

    def _add(self, taken: Taken, raws: Sequence[str], broken: dict[int, str]) -> None:
        reasons = taken.reasons
        indexes = taken.indexes
        if broken:  # `taken` counts the records that are not broken.
            sound = [index for index in range(len(raws)) if index not in broken]
            indexes = [sound[index] for index in indexes]
            reasons = broken | {sound[index]: why for index, why in reasons.items()}
        first = self.position
        self._positions += [first + index for index in indexes]
        self._rows += taken.rows
        self._labels += taken.labels
        self._rejects += [
            Reject(first + index, reasons[index], raws[index][:LONGEST_RAW])
            for index in sorted(reasons)
        ]
        self.position += len(raws)


def _nothing(cursor: Cursor, unfinished: int) -> Batch:
    here = cursor.position
    return Batch(here, here, [], [], [], [], cursor, ended=True, unfinished=unfinished)


def _hashes(file: BinaryIO, offset: int) -> tuple[str, str]:
    """Of the first and of the last 4 KiB before `offset`."""
    file.seek(0)
    head = file.read(min(_GUARD, offset))
    file.seek(max(0, offset - _GUARD))
    tail = file.read(min(_GUARD, offset))
    return _hash(head), _hash(tail)


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class _Header:
    """The first record of a CSV file, read as its names; its first line tells the delimiter."""

    def __init__(self, path: Path, options: StreamOptions) -> None:
        self.delimiter = options.delimiter
        if options.delimiter == "auto" and path.suffix.lower() == ".tsv":
            self.delimiter = "\t"

    def one(self, pull: Callable[[], str]) -> list[str]:
        """The names; a blank one is ''. Raises Unfit."""
        first = pull()
        if self.delimiter == "auto":
            self.delimiter = max(_DELIMITERS, key=first.count)  # A comma where there is none.
        lines = chain([first], iter(pull, None))
        return [cell.strip() for cell in csv_cells(lambda: next(lines), self.delimiter)]


def _csv_sample(
    names: tuple[str, ...], records: list[Any], delimiter: str, options: StreamOptions
) -> Sample:
    columns = dict(zip(names, zip(*records, strict=True), strict=True))
    wanted = [*survey.features_of(names, options), options.target]
    return Sample(names, {name: columns[name] for name in wanted}, delimiter)


def _json_sample(path: Path, records: list[dict[str, Any]], options: StreamOptions) -> Sample:
    """A key that hardly any object of the sample has is no column, unless it is named."""
    seen = Counter(name for record in records for name in record)
    survey.check_names(path, [*seen, *(set(options.ignore) - set(seen))], options)
    named = {options.target, *options.numbers, *options.categories, *options.times}
    rare = {
        name: f"only {count} of {len(records)} records have this key"
        for name, count in seen.items()
        if name not in named and name not in options.ignore and count < RARE_KEY * len(records)
    }
    names = tuple(name for name in seen if name not in rare)
    wanted = [*survey.features_of(names, options), options.target]
    cells = {name: [record.get(name) for record in records] for name in wanted}
    return Sample(names, cells, rare=rare)
