"""Splits a text file, CSV or JSON lines, into records, from any record on.

Part of the stream adapter: it reads an open file, and does not interpret cells. A record that is
not one clean line is handled here, in the same way however reading is divided:

- A quoted CSV record may span 1,000 lines or 1 MiB. If its quotes do not close by then, or the
  result is invalid, its first line alone is rejected, and reading continues after it. So a line may
  be read again for an unclosed quote before it; `record_formats` limits how often.
- A last line without its line end is read if it is complete and valid, and otherwise left for
  later. If the line continues after it was read, its rest is a reject.
- If either depended on where the file ended, a *cut* is kept in the cursor: reading the same range
  again from a longer file gives the same records.

Blank lines are no records. A line may have 64 MiB; a longer one is a reject, and never in memory as
a whole. Memory is bounded by a few times the longest line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from models.stream.batches import LONGEST_RAW, MOST_CUTS, Fault
from models.stream.parsing.cells import InvalidCell
from models.stream.parsing.charset import UTF_8, Charset
from models.stream.parsing.record_formats import RecordFormat, TextFormat

LONGEST_LINE = 64 << 20
"""Bytes of a line, its end included."""
LONGEST_QUOTED = 1 << 20
"""Bytes of a record after which no line is added to it."""
MOST_QUOTED_LINES = 1000
"""Lines that one quoted record may span."""
LARGEST_CHUNK = 4 << 20
"""Bytes that are read at once."""
_LINES = 1000
"""Lines that are read at once: more would not fit into the processor's cache."""
_PIECE = 1 << 16


class _NotYet(Exception):
    """The file ends inside this record; it may continue later."""


class _Line(NamedTuple):
    """A physical line, or its part before a cut. `whole`: its end cannot move."""

    start: int
    data: bytes
    end: int
    whole: bool
    too_long: bool


class Entry(NamedTuple):
    """One record, or the fault of a broken one, and its range of bytes.

    An unterminated one has no line end yet: it is read if it is valid, and otherwise incomplete.
    """

    record: Any
    fault: Fault | None
    raw: str
    start: int
    end: int
    unterminated: bool = False


@dataclass
class Chunk:
    """Consecutive records. `records` are those that are not in `broken` (faults by index)."""

    records: list[Any]
    raws: list[str]
    broken: dict[int, Fault]
    end: int
    cuts: tuple[int, ...]
    unterminated: Entry | None = None
    ended: bool = False


def chunks(
    file: BinaryIO,
    begin: int,
    offset: int,
    cuts: tuple[int, ...],
    most: int,
    form: TextFormat,
    charset: Charset = UTF_8,
) -> Iterator[Chunk]:
    """Up to `most` records from `offset` on, in chunks of 1,000 records or about 4 MiB.

    `begin` is the offset of the first record of the file. The last chunk is `ended` if no complete
    record follows; it may have an unterminated one, which is not among its records.
    """
    left = most
    while left > 0:
        inside = False
        if offset > begin:
            file.seek(offset - 1)
            inside = file.read(1) != b"\n"
        few = min(left, _LINES)
        chunk = None if inside else _bulk(file, offset, cuts, few, form, charset)
        if chunk is None:
            chunk = Scanner(file, offset, cuts, inside, form, charset).chunk(few)
        yield chunk
        if chunk.ended:
            return
        offset, cuts = chunk.end, chunk.cuts
        left -= len(chunk.raws)


def with_cut(cuts: tuple[int, ...], cut: int) -> tuple[int, ...]:
    """`cuts` and one more; of more than 256, the oldest is dropped."""
    return cuts if cut in cuts else (*cuts, cut)[-MOST_CUTS:]


def _bulk(
    file: BinaryIO,
    offset: int,
    cuts: tuple[int, ...],
    most: int,
    form: TextFormat,
    charset: Charset,
) -> Chunk | None:
    """Ordinary lines at once. None if any is unusual: then `Scanner` reads them one by one."""
    file.seek(offset)
    pieces: list[bytes] = []
    count = size = 0
    while count < most and size < LARGEST_CHUNK and (piece := file.read(_PIECE)):
        pieces.append(piece)
        size += len(piece)
        count += piece.count(b"\n")
    data = b"".join(pieces)
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n"))
    data = data[: int(ends[min(most, len(ends)) - 1]) + 1] if len(ends) else b""
    end = offset + len(data)
    if not data or b"\0" in data or any(offset < cut < end for cut in cuts):
        return None
    try:
        text = data[:-1].decode(charset.codec)
    except UnicodeDecodeError:
        return None
    if "\r" in text:
        text = text.replace("\r\n", "\n").removesuffix("\r")
        if "\r" in text:
            return None
    lines = text.split("\n")
    records = form.many(text, lines)
    return None if records is None else Chunk(records, lines, {}, end, cuts)


class Scanner:
    """Reads any file one record at a time."""

    def __init__(
        self,
        file: BinaryIO,
        offset: int,
        cuts: tuple[int, ...],
        inside: bool,
        form: RecordFormat,
        charset: Charset = UTF_8,
    ) -> None:
        """`inside`: the line at `offset` was read up to there."""
        self.cuts = cuts
        self.at = offset
        self._file = file
        self._inside = inside
        self._form = form
        self.charset = charset
        file.seek(offset)

    def chunk(self, most: int) -> Chunk:
        """Up to `most` records, or about 4 MiB of them."""
        begin = self.at
        chunk = Chunk([], [], {}, begin, self.cuts)
        while len(chunk.raws) < most and chunk.end - begin < LARGEST_CHUNK and not chunk.ended:
            entry = self.entry()
            if entry is None or entry.unterminated:
                chunk.unterminated, chunk.ended = entry, True
                chunk.end = self.at if entry is None else entry.start
                continue
            if entry.fault is None:
                chunk.records.append(entry.record)
            else:
                chunk.broken[len(chunk.raws)] = entry.fault
            chunk.raws.append(entry.raw)
            chunk.end = self.at
        chunk.cuts = self.cuts
        return chunk

    def entry(self) -> Entry | None:
        """The next record; None if the file ends before a complete one."""
        while True:
            inside = self._inside
            line = self._line()
            if line is None:
                return None
            blank = not line.data.strip(b" \r\n")
            if blank and line.whole:
                if inside and not line.data.strip(
                    b"\r\n"
                ):  # The cut was at the line end after all.
                    self.cuts = tuple(cut for cut in self.cuts if cut != line.start)
                continue
            if not line.whole and (blank or inside or line.too_long):
                self._go_to(line.start)
                return None
            if inside:
                reason = "its line continues after the record before it was read"
                return self._broken(line, Fault("malformed", reason))
            if line.too_long:
                reason = f"a line of at most {LONGEST_LINE} bytes was expected"
                return self._broken(line, Fault("malformed", reason))
            return self._parse(line)

    def _parse(self, first: _Line) -> Entry | None:
        record_of = _Joined(self, first)
        try:
            record = self._form.one(record_of.pull)
        except _NotYet:
            self._go_to(first.start)
            return None
        except InvalidCell as why:
            if not record_of.last.whole:
                self._go_to(first.start)
                return None
            if record_of.last is not first:
                self._go_to(first.end)
            return self._broken(first, why.fault)
        last = record_of.last
        raw = "".join(record_of.texts).rstrip("\r\n")[:LONGEST_RAW]
        return Entry(record, None, raw, first.start, last.end, unterminated=not last.whole)

    def _broken(self, line: _Line, fault: Fault) -> Entry:
        # A line-safe encoding uses at most four bytes for a character.
        data = line.data[: 4 * LONGEST_RAW]
        text = data.decode(self.charset.codec, "backslashreplace").rstrip("\r\n")
        raw = text.replace("\0", "\\x00")[:LONGEST_RAW]
        return Entry(None, fault, raw, line.start, line.end)

    def next_of(self, first: _Line) -> _Line:
        """The next line of the record that begins at `first`. Raises InvalidCell."""
        if self._inside or self.at in self.cuts:
            raise _never_closes()
        line = self._line()
        if line is None:
            self.cuts = with_cut(self.cuts, first.end)
            raise _never_closes()
        if not line.whole:
            raise _NotYet
        return line

    def _line(self) -> _Line | None:
        start = self.at
        data = self._file.readline(LONGEST_LINE)
        if not data:
            return None
        stop = start + len(data.rstrip(b"\r\n"))
        cut = next((cut for cut in self.cuts if start < cut < stop), None)
        self._inside = cut is not None
        if cut is not None:
            self._go_to(cut, inside=True)
            return _Line(start, data[: cut - start], cut, whole=True, too_long=False)
        whole = data.endswith(b"\n")
        too_long = not whole and len(data) == LONGEST_LINE
        self.at = start + len(data)
        if too_long:
            while piece := self._file.readline(_PIECE):
                self.at += len(piece)
                if piece.endswith(b"\n"):
                    whole = True
                    break
        return _Line(start, data, self.at, whole, too_long)

    def _go_to(self, offset: int, *, inside: bool = False) -> None:
        self.at = offset
        self._inside = inside
        self._file.seek(offset)


class _Joined:
    """The lines of one record, which are pulled one by one while its quotes are open."""

    def __init__(self, scanner: Scanner, first: _Line) -> None:
        self.last = first
        self.texts: list[str] = []
        self._scanner = scanner
        self._first = first

    def pull(self) -> str:
        """The next line as text with its end."""
        if not self.texts:
            text = _text(self._first, self._scanner.charset)
        elif not self.last.whole:
            raise _NotYet
        else:
            size = self.last.end - self._first.start
            if len(self.texts) >= MOST_QUOTED_LINES or size >= LONGEST_QUOTED:
                raise _never_closes()
            self.last = self._scanner.next_of(self._first)
            if self.last.too_long:
                raise _never_closes()
            text = _text(self.last, self._scanner.charset)
        self.texts.append(text)
        return text


def _never_closes() -> InvalidCell:
    return InvalidCell(
        f"a closing quote was expected within {MOST_QUOTED_LINES} lines and "
        f"{LONGEST_QUOTED >> 20} MiB, none came",
        "malformed",
    )


def _text(line: _Line, charset: Charset) -> str:
    if b"\0" in line.data:
        place = line.data.decode(charset.codec, "replace").index("\0")
        raise InvalidCell(
            f"text was expected, a NUL byte came at character {place} of the line", "malformed"
        )
    try:
        return line.data.decode(charset.codec)
    except UnicodeDecodeError as error:
        came = (
            "bytes came that are no character of it"
            if charset.recoded
            else f"{error.object[error.start : error.start + 1]!r} came at byte {error.start} of "
            "the line (stream.encoding names another encoding)"
        )
        raise InvalidCell(f"{charset.label} was expected, {came}", "encoding") from error
