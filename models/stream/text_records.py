"""Records of a text file in order, CSV or JSON lines, from any record on.

Part of the stream's door: reads an open file; what the cells mean is not its business. Where a
record goes beyond one clean line, it is settled here, the same however reading is cut:

- A quoted CSV record may span 1,000 lines or 1 MiB. If its quotes do not close by then, or close
  into something broken, its first line alone is rejected and reading goes on after it. A line is
  so read again for a quote before it that did not close; `formats` bounds how often.
- A last line without its line end is taken if it is whole and valid, and otherwise left for later.
  If it went on after it was taken, the rest of that line is a reject.
- Where either depended on where the file ended, a *cut* is kept in the cursor: reading the same
  range again, when the file has grown, gives the same records.

Blank lines are no records. A line may have 64 MiB; a longer one is a reject, and never held whole.
Memory is bounded by the longest line, a few times over while it is decoded and cut into cells.
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
"""Bytes of a record after which no further line is added to it."""
MOST_QUOTED_LINES = 1000
"""Lines that one quoted record may span."""
LARGEST_LOT = 4 << 20
"""Bytes that are looked at in one go."""
_LINES = 1000
"""Lines that are read in one go: more would not fit into the processor's cache."""
_PIECE = 1 << 16


class _NotYet(Exception):
    """The file ends inside this record; more of it may come."""


class _Line(NamedTuple):
    """A physical line, or the part of one before a cut. `whole`: its end will not move."""

    start: int
    data: bytes
    end: int
    whole: bool
    too_long: bool


class Entry(NamedTuple):
    """One record as the format made it, or why it is broken; and where its bytes lie.

    A loose one has no line end yet: it may be taken if it is valid, and is otherwise not yet whole.
    """

    record: Any
    fault: Fault | None
    raw: str
    start: int
    end: int
    loose: bool = False


@dataclass
class Chunk:
    """Some records in a row. `records` are those that are not in `broken` (faults by index)."""

    records: list[Any]
    raws: list[str]
    broken: dict[int, Fault]
    end: int
    cuts: tuple[int, ...]
    loose: Entry | None = None
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
    """Up to `most` records from `offset` on, in lots of 1,000 or about 4 MiB.

    `begin` is where the first record of the file begins, after the header. The last lot is `ended`
    if no whole record comes after it; it may hold a loose one, which is not among its records.
    """
    left = most
    while left > 0:
        inside = offset > begin and _inside_a_line(file, offset)
        few = min(left, _LINES)
        lot = None if inside else _bulk(file, offset, cuts, few, form, charset)
        if lot is None:
            lot = Scanner(file, offset, cuts, inside, form, charset).lot(few)
        yield lot
        if lot.ended:
            return
        offset, cuts = lot.end, lot.cuts
        left -= len(lot.raws)


def with_cut(cuts: tuple[int, ...], cut: int) -> tuple[int, ...]:
    """`cuts` and one more; the oldest is forgotten beyond the 256th."""
    return cuts if cut in cuts else (*cuts, cut)[-MOST_CUTS:]


def _inside_a_line(file: BinaryIO, offset: int) -> bool:
    file.seek(offset - 1)
    return file.read(1) != b"\n"


def _bulk(
    file: BinaryIO,
    offset: int,
    cuts: tuple[int, ...],
    most: int,
    form: TextFormat,
    charset: Charset,
) -> Chunk | None:
    """Whole, ordinary lines at once. None if any is unusual: then `Scanner` goes through them."""
    data = _whole_lines(file, offset, most)
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


def _whole_lines(file: BinaryIO, offset: int, most: int) -> bytes:
    """At most `most` lines with their ends, and about 4 MiB; empty where no line ends."""
    file.seek(offset)
    pieces: list[bytes] = []
    lines = size = 0
    while lines < most and size < LARGEST_LOT:
        piece = file.read(_PIECE)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
        lines += piece.count(b"\n")
    data = b"".join(pieces)
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n"))
    return data[: int(ends[min(most, len(ends)) - 1]) + 1] if len(ends) else b""


class Scanner:
    """Goes through a file one record at a time, whatever is in it."""

    def __init__(
        self,
        file: BinaryIO,
        offset: int,
        cuts: tuple[int, ...],
        inside: bool,
        form: RecordFormat,
        charset: Charset = UTF_8,
    ) -> None:
        """`inside`: the line at `offset` was taken up to there."""
        self.cuts = cuts
        self.at = offset
        self._file = file
        self._inside = inside
        self._form = form
        self.charset = charset
        file.seek(offset)

    def lot(self, most: int) -> Chunk:
        """Up to `most` records, or about 4 MiB of them."""
        begin = self.at
        lot = Chunk([], [], {}, begin, self.cuts)
        while len(lot.raws) < most and lot.end - begin < LARGEST_LOT and not lot.ended:
            entry = self.entry()
            if entry is None or entry.loose:
                lot.loose, lot.ended = entry, True
                lot.end = self.at if entry is None else entry.start
                continue
            if entry.fault is None:
                lot.records.append(entry.record)
            else:
                lot.broken[len(lot.raws)] = entry.fault
            lot.raws.append(entry.raw)
            lot.end = self.at
        lot.cuts = self.cuts
        return lot

    def entry(self) -> Entry | None:
        """The next record; None where the file ends before a whole one."""
        while True:
            inside = self._inside
            line = self._line()
            if line is None:
                return None
            blank = not line.data.strip(b" \r\n")
            if blank and line.whole:
                if inside and not line.data.strip(b"\r\n"):  # It was the whole line after all.
                    self.cuts = tuple(cut for cut in self.cuts if cut != line.start)
                continue
            if not line.whole and (blank or inside or line.too_long):
                self._go_to(line.start)
                return None
            if inside:
                reason = "its line went on after the record before it was taken"
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
        return Entry(record, None, raw, first.start, last.end, loose=not last.whole)

    def _broken(self, line: _Line, fault: Fault) -> Entry:
        # No encoding that is line safe needs more than four bytes for a character.
        data = line.data[: 4 * LONGEST_RAW]
        text = data.decode(self.charset.codec, "backslashreplace").rstrip("\r\n")
        raw = text.replace("\0", "\\x00")[:LONGEST_RAW]
        return Entry(None, fault, raw, line.start, line.end)

    def next_of(self, first: _Line) -> _Line:
        """The line after those that the record beginning at `first` has. Raises Unfit."""
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
            whole = self._skip_line()
        return _Line(start, data, self.at, whole, too_long)

    def _skip_line(self) -> bool:
        """Leave the rest of a line; whether it has an end."""
        while piece := self._file.readline(_PIECE):
            self.at += len(piece)
            if piece.endswith(b"\n"):
                return True
        return False

    def _go_to(self, offset: int, *, inside: bool = False) -> None:
        self.at = offset
        self._inside = inside
        self._file.seek(offset)


class _Joined:
    """The lines of one record, pulled one after another while its quotes are open."""

    def __init__(self, walk: Scanner, first: _Line) -> None:
        self.last = first
        self.texts: list[str] = []
        self._walk = walk
        self._first = first

    def pull(self) -> str:
        """The next line as text with its end."""
        if not self.texts:
            text = _text(self._first, self._walk.charset)
        elif not self.last.whole:
            raise _NotYet
        else:
            size = self.last.end - self._first.start
            if len(self.texts) >= MOST_QUOTED_LINES or size >= LONGEST_QUOTED:
                raise _never_closes()
            self.last = self._walk.next_of(self._first)
            if self.last.too_long:
                raise _never_closes()
            text = _text(self.last, self._walk.charset)
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
