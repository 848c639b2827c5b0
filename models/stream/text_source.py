"""One text file of a stream: its header, the verification of cursors, its records as batches.

Part of the stream adapter. The file is opened for each reading, and closed again: appending to it
and replacing it are noticed at the next reading.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal

from models.stream import decompression, schema_inference, text_records
from models.stream.batches import (
    BadStream,
    Batch,
    BatchBuilder,
    Cursor,
    StreamChanged,
    StreamOptions,
    StreamUnreadable,
)
from models.stream.decompression import Opened
from models.stream.parsing import charset, record_formats
from models.stream.parsing.charset import Charset
from models.stream.parsing.columns import Plan
from models.stream.parsing.record_formats import (
    LEAVES_OUT,
    CsvFormat,
    JsonFormat,
    TextFormat,
    csv_cells,
    one_document,
    separator_line,
)
from models.stream.schema_inference import SchemaSample

LARGEST_BATCH = 64 << 20
"""Bytes of text after which a batch ends early."""
_SKIPPED = 10_000
"""Records that are read at once to get to a position."""
_GUARD = 4096
_BOM = b"\xef\xbb\xbf"
_MOST_HEADER_LINES = 20
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_DELIMITERS = ",;\t|"
_WIDE = (
    "; if the file is UTF-16 without a byte order mark, say under [stream] in the pipeline file: "
    'encoding = "utf-16-le" (or "utf-16-be")'
)
_LONGEST_HEAD = 1 << 16


@dataclass(frozen=True)
class _Opening:
    """The beginning of the file: the offset of its first record, and its format."""

    begin: int
    form: TextFormat
    names: tuple[str, ...] | None
    charset: Charset
    header: tuple[str, ...] = ()
    """The names as written, including those of blank columns at the end."""


class TextFile:
    """CSV or JSON lines."""

    def __init__(
        self,
        path: Path,
        options: StreamOptions,
        kind: Literal["csv", "jsonl"],
        *,
        whole_lines: bool = False,
    ) -> None:
        """With `whole_lines` a last line is not read before its end is there."""
        self._path = path
        self._whole_lines = whole_lines
        self._options = options
        self._kind = kind
        self._bytes_of = decompression.ByteSource(path, options.encoding)
        self._bytes_per_record: float | None = None

    def schema_sample(self) -> SchemaSample:
        """Read the first records. Raises BadStream, StreamUnreadable."""
        with self._open() as opened:
            opening = self._opening(opened, None)
            records, reason = self._sample(opened, opening) if opening else ([], None)
        if opening is None or not records:
            raise BadStream(
                f"{self._path}: there is no readable record to infer a schema from; stream.path "
                f"must name a file that has some{f' (the first: {reason})' if reason else ''}"
            )
        if opening.names is None:
            return schema_inference.sample_of_objects(self._path, records, self._options)
        delimiter = opening.form.delimiter if isinstance(opening.form, CsvFormat) else ","
        return _csv_sample(opening, opening.names, records, delimiter, self._options)

    def read(self, plan: Plan, cursor: Cursor, size: int) -> Batch:
        """The next `size` records at most. Raises StreamChanged, StreamUnreadable, BadStream."""
        with self._open() as opened:
            file = opened.file
            length = os.fstat(file.fileno()).st_size
            self._verify(file, cursor, length)
            opening = self._opening(opened, plan)
            if opening is None:  # Not even a header yet.
                builder = BatchBuilder(plan.schema, cursor.position)
                return builder.batch(cursor, ended=True, unfinished=length)
            builder, form = BatchBuilder(plan.schema, cursor.position), opening.form
            offset, cuts, ended = max(cursor.offset, opening.begin), cursor.cuts, False
            for chunk in text_records.chunks(
                file, opening.begin, offset, cuts, size, form, opening.charset
            ):
                parsed = record_formats.parsed(plan, form, chunk.records)
                builder.add(parsed, len(chunk.raws), chunk.raws.__getitem__, chunk.broken)
                offset, cuts, ended = chunk.end, chunk.cuts, chunk.ended
                unterminated = None if self._whole_lines else chunk.unterminated
                if unterminated is not None and form.is_whole(unterminated.record):
                    parsed = record_formats.parsed(plan, form, [unterminated.record])
                    if not parsed.faults:
                        builder.add(parsed, 1, [unterminated.raw].__getitem__)
                        offset, cuts = (
                            unterminated.end,
                            text_records.with_cut(cuts, unterminated.end),
                        )
                if offset - cursor.offset > LARGEST_BATCH:
                    break
            head, tail = _hashes(file, offset)
            after = Cursor(
                position=builder.position,
                offset=offset,
                size=max(length, offset),
                head=head,
                tail=tail,
                cuts=cuts,
            )
            return builder.batch(
                after,
                ended=ended or offset >= length,
                unfinished=max(0, length - offset) if ended else 0,
            )

    def between(self, plan: Plan, first: int, last: int, cursors: Sequence[Cursor]) -> Batch:
        """The records first..last-1, or as many of them as there are.

        Reading starts at the last of `cursors` before `first`, or at the beginning.
        """
        before = (each for each in cursors if each.position <= first)
        cursor = max(before, key=lambda each: each.position, default=Cursor())
        if cursors:
            # The newest cursor knows every cut.
            cursor = cursor.model_copy(update={"cuts": cursors[-1].cuts})
        while cursor.position < first:
            skipped = self.read(plan, cursor, min(_SKIPPED, first - cursor.position))
            cursor = skipped.after
            if skipped.ended:
                break
        builder, last = BatchBuilder(plan.schema, cursor.position), max(last, cursor.position)
        ended, unfinished = False, 0
        while builder.position < last and not ended:
            part = self.read(plan, cursor, last - builder.position)
            builder.extend(part)
            cursor, ended, unfinished = part.after, part.ended, part.unfinished
        return builder.batch(cursor, ended=ended, unfinished=unfinished)

    def done_fraction(self, cursor: Cursor) -> float | None:
        """The share of bytes before the cursor; None if unknown."""
        length = self._bytes_of.length()
        return min(1.0, cursor.offset / length) if length else None

    def total_hint(self) -> int | None:
        """An estimate of the number of records, by the length of those in the sample."""
        length = self._bytes_of.length()
        if length is None or not self._bytes_per_record:
            return None
        return round(length / self._bytes_per_record)

    @contextmanager
    def _open(self) -> Iterator[Opened]:
        try:
            with self._bytes_of.open() as opened:
                yield opened
        except StreamUnreadable:
            raise
        except OSError as error:
            raise StreamUnreadable(
                f"{self._path} cannot be read ({error.strerror or error}): check its permissions "
                "and its disk, then run again; nothing is lost"
            ) from error

    def _opening(self, opened: Opened, plan: Plan | None) -> _Opening | None:
        """Read the header; None if it is not complete yet."""
        file = opened.file
        file.seek(0)
        begin = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
        if self._kind == "jsonl":
            ignored = frozenset(self._options.ignore) | (plan.schema.known if plan else frozenset())
            required = frozenset([*plan.schema.sources, plan.schema.target]) if plan else None
            objects = JsonFormat(required, ignored, self._options.new_columns)
            return _Opening(begin, objects, None, opened.charset)
        header = _Header(self._path, self._options)
        begin = header.after_separator(file, begin)
        scanner = text_records.Scanner(
            file, begin, (), inside=False, form=header, charset=opened.charset
        )
        entry = scanner.entry()
        if entry is None or entry.unterminated:
            return None
        if entry.fault is not None:
            if not opened.sure:
                self._refuse_not_utf8(file, begin, entry.end, None, header.delimiter_of(entry.raw))
            reason = entry.fault.reason
            raise BadStream(
                f"{self._path}: the header line is not readable: {reason}"
                f"{_WIDE if 'NUL' in reason else ''}"
            )
        # Blank cells at the end of the header are no columns, unless the options name one of them:
        # in most cases, each line of the file ends in a delimiter.
        cells, count = tuple(entry.record), len(entry.record)
        while count > 1 and not cells[count - 1] and f"unnamed_{count}" not in self._options.ignore:
            count -= 1
        names = schema_inference.named(self._path, cells[:count], self._options)
        if plan is None:
            schema_inference.check_names(self._path, names, self._options)
        else:
            schema_inference.check_pinned(self._path, names, plan.schema, self._options)
        form = CsvFormat(names, header.delimiter, cells[:count], self._options.extra_cells)
        return _Opening(entry.end, form, names, opened.charset, cells)

    def _sample(self, opened: Opened, opening: _Opening) -> tuple[list[Any], str | None]:
        """The first records, and the reason of the first broken one. Raises BadStream."""
        records: list[Any] = []
        begin, end, seen = opening.begin, opening.begin, 0
        reasons: list[str] = []
        if self._kind == "jsonl":
            opened.file.seek(begin)
            head = opened.file.read(_LONGEST_HEAD).decode(opened.charset.codec, "replace")
            if (what := one_document(head)) is not None:
                raise BadStream(f"{self._path}: there is no readable record: the file holds {what}")
        for chunk in text_records.chunks(
            opened.file, begin, begin, (), self._options.sample, opening.form, opening.charset
        ):
            reasons += [fault.reason for fault in chunk.broken.values()]
            records += chunk.records
            seen += len(chunk.raws)
            end = chunk.end
            if chunk.unterminated is not None:
                records.append(chunk.unterminated.record)
            if end > LARGEST_BATCH:
                break
        self._bytes_per_record = (end - begin) / seen if seen else None
        if reasons and not opened.sure:
            delimiter = opening.form.delimiter if isinstance(opening.form, CsvFormat) else None
            self._refuse_not_utf8(opened.file, begin, end, opening.names or (), delimiter)
        if sum(LEAVES_OUT in reason for reason in reasons) * 2 > seen:
            # A column without a name has values: the header is wrong.
            schema_inference.named(self._path, opening.header, self._options)
        opening.form.shaped(records)
        return records, next(iter(reasons), None)

    def _refuse_not_utf8(
        self,
        file: BinaryIO,
        begin: int,
        end: int,
        names: Sequence[str] | None,
        delimiter: str | None,
    ) -> None:
        """Raise BadStream if any line from `begin` to `end` is not UTF-8.

        The encoding must be configured then: most of the others can decode any byte.
        """
        file.seek(begin)
        at = begin
        while at < end:
            line = file.readline(text_records.LONGEST_LINE)
            try:
                line.decode()
            except UnicodeDecodeError as error:
                if line.endswith(b"\n"):
                    file.seek(0)
                    number, left = 1, at
                    while left > 0 and (piece := file.read(min(left, 1 << 20))):
                        number += piece.count(b"\n")
                        left -= len(piece)
                    what = charset.not_utf8(
                        line, error.start, number, names, csv_delimiter=delimiter
                    )
                    raise BadStream(f"{self._path}: {what}") from error
            at += max(1, len(line))

    def _verify(self, file: BinaryIO, cursor: Cursor, length: int) -> None:
        """Verify that the file is still that of the cursor. Raises StreamChanged."""
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


def _hashes(file: BinaryIO, offset: int) -> tuple[str, str]:
    """Hashes of the first and the last 4 KiB before `offset`."""
    file.seek(0)
    head = file.read(min(_GUARD, offset))
    file.seek(max(0, offset - _GUARD))
    tail = file.read(min(_GUARD, offset))
    first, last = (hashlib.blake2b(each, digest_size=16).hexdigest() for each in (head, tail))
    return first, last


class _Header:
    """The format of the header of a CSV file, from which the delimiter is inferred."""

    def __init__(self, path: Path, options: StreamOptions) -> None:
        self.delimiter = self._asked = options.delimiter
        if options.delimiter == "auto" and decompression.inner_ending(path) == ".tsv":
            self.delimiter = "\t"

    def after_separator(self, file: BinaryIO, begin: int) -> int:
        """The offset of the header, after a line such as sep=; a configured delimiter wins."""
        file.seek(begin)
        found = separator_line(file.read(_GUARD))
        if found is None:
            return begin
        if self._asked == "auto":
            self.delimiter = found[0]
        return begin + found[1]

    def delimiter_of(self, first: str) -> str:
        """The configured delimiter, or the most frequent one in the first line."""
        if self.delimiter != "auto":
            return self.delimiter
        return max(_DELIMITERS, key=first.count)

    def one(self, pull: Callable[[], str]) -> list[str]:
        """The names; a blank one is ''. Raises InvalidCell."""
        # A quoted name may contain delimiters and line ends, which do not count.
        head = [pull()]
        while "".join(head).count('"') % 2 and len(head) < _MOST_HEADER_LINES:
            head.append(pull())
        self.delimiter = self.delimiter_of(_QUOTED.sub("", "".join(head)))
        lines = chain(head, iter(pull, None))
        return [cell.strip() for cell in csv_cells(lambda: next(lines), self.delimiter)]


def _csv_sample(
    opening: _Opening,
    names: tuple[str, ...],
    records: list[Any],
    delimiter: str,
    options: StreamOptions,
) -> SchemaSample:
    columns = dict(zip(names, zip(*records, strict=True), strict=True))
    wanted = [*schema_inference.features_of(names, options), options.target]
    nameless = {
        f"(column {place})": "it has no name and no values: each line ends in a delimiter"
        for place in range(len(names) + 1, len(opening.header) + 1)
    }
    return SchemaSample(names, {name: columns[name] for name in wanted}, delimiter, rare=nameless)
