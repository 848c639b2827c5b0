"""The bytes of a text file as plain lines, whatever they are packed or encoded in.

Part of the stream's door. A file that is neither compressed nor in an encoding such as UTF-16 is
read where it lies. Any other is decoded as a whole into a temporary file without a name, and that
is read in its place: so offsets, hashes and growth mean the same for both. It is kept until the
file's inode, size or time of change is another, and the system removes it with the process.

What that costs: one pass over the file for each process that reads it, and another one whenever it
grew; and disk for the whole text, where Python keeps temporary files (TMPDIR names the folder).
Memory is bounded by a piece. A file that grows often is better written plain.
"""

from __future__ import annotations

import bz2
import codecs
import io
import lzma
import os
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO

from models.stream.batches import BadStream, StreamUnreadable
from models.stream.parsing import charset
from models.stream.parsing.charset import UTF_8, Charset

ENDINGS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
"""What a file's name ends in when it is compressed."""
_PIECE = 1 << 18
_HEAD = 512
_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")
_FOREIGN = (
    (0, b"PK\x03\x04", "a zip archive or a spreadsheet: unpack it, or export it as CSV"),
    (0, b"PAR1", 'a Parquet file: say format = "parquet" under [stream] in the pipeline file'),
    (257, b"ustar", "a tar archive: unpack it"),
)
_UNDECODABLE = "thermodrift.undecodable"


def _lone_surrogate(error: UnicodeError) -> tuple[str, int]:
    """Something that UTF-8 cannot hold, so that the record that has it is a reject later on."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end


codecs.register_error(_UNDECODABLE, _lone_surrogate)


def inner_ending(path: Path) -> str:
    """What the name ends in, in lower case, the ending of a compressed file left out."""
    compressed = path.suffix.lower() in ENDINGS
    return (path.with_suffix("") if compressed else path).suffix.lower()


@dataclass(frozen=True)
class Opened:
    """A file of lines, and how they are decoded. `sure`: a person or the file's mark said so."""

    file: BinaryIO
    charset: Charset
    sure: bool


class _Text:
    """A file without a name; gone when nobody reads it any more, in whatever thread that is."""

    def __init__(self, written: IO[bytes]) -> None:
        self.descriptor = os.dup(written.fileno())
        weakref.finalize(self, os.close, self.descriptor)


@dataclass(frozen=True)
class _Decoded:
    """How a file is to be read: where it lies, or as `text`."""

    stamp: tuple[int, ...]
    text: _Text | None
    charset: Charset


class ByteSource:
    """A text file, to be opened again and again. Readers of several threads do not disturb."""

    def __init__(self, path: Path, encoding: str) -> None:
        """`encoding` as in StreamOptions."""
        self._path = path
        self._sure = encoding != "auto"
        self._named = charset.known(encoding) if self._sure else None
        self._held: _Decoded | None = None

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Raises OSError, StreamUnreadable, BadStream."""
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
            held = self._held
            if held is None or held.stamp != stamp:
                held = self._held = self._decoded(file, stamp)
            if held.text is None:
                file.seek(0)
                yield Opened(file, held.charset, self._sure)
            else:
                sure = self._sure or held.charset.recoded
                with io.BufferedReader(_View(held.text), _PIECE) as view:
                    yield Opened(view, held.charset, sure)

    def length(self) -> int | None:
        """Bytes of plain text; None while the file cannot be read."""
        try:
            with self.open() as opened:
                return os.fstat(opened.file.fileno()).st_size
        except (OSError, BadStream):
            return None

    def _decoded(self, file: BinaryIO, stamp: tuple[int, ...]) -> _Decoded:
        pieces: Iterator[bytes] = iter(partial(file.read, _PIECE), b"")
        head = file.read(_HEAD)
        file.seek(0)
        archive = self._archive(head)
        if archive is not None:
            pieces = self._guarded(archive, _UNPACKERS[archive](file))
            head, pieces = _peeked(pieces)
        for place, mark, what in _FOREIGN:
            if head[place : place + len(mark)] == mark:
                raise BadStream(f"stream.path: {self._path} holds {what}")
        name = self._named or charset.told_by(head) or UTF_8.name
        if charset.is_line_safe(name):
            kept = None if archive is None else self._kept(pieces)
            return _Decoded(stamp, kept, Charset(name))
        return _Decoded(stamp, self._kept(_recoded(pieces, name)), Charset(name, recoded=True))

    def _archive(self, head: bytes) -> str | None:
        """What the file is compressed with, by its first bytes; its name may only agree."""
        found = _archive_of(head)
        ending = ENDINGS.get(self._path.suffix.lower())
        if head and found is None and ending is not None:
            raise StreamUnreadable(
                f"{self._path} is {ending} by its name, and its first bytes are not: if it is "
                "being written, run again when it is whole; if it is plain text, rename it without "
                f"{self._path.suffix!r}"
            )
        return found

    def _guarded(self, archive: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from pieces
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise StreamUnreadable(
                f"{self._path} cannot be unpacked as {archive} ({error}): if it is being written, "
                "run again when it is whole (write aside and rename); otherwise restore it"
            ) from error

    def _kept(self, pieces: Iterator[bytes]) -> _Text:
        """A file without a name that holds the pieces. Raises StreamUnreadable."""
        with self._taking():
            file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - errors differ from here on
        with file:
            for piece in pieces:
                left = memoryview(piece)
                with self._taking():
                    while left:  # A disk that is nearly full takes a part, and refuses the next.
                        left = left[file.write(left) :]
            return _Text(file)

    @contextmanager
    def _taking(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            try:
                folder = tempfile.gettempdir()
            except OSError:
                folder = "no folder"
            raise StreamUnreadable(
                f"{self._path} has to be decoded into a temporary file, and {folder} does not take "
                f"it ({error.strerror or error}): make room there, let TMPDIR name a folder on "
                "another disk, or keep the stream as plain UTF-8"
            ) from error


class _View(io.RawIOBase):
    """A reader of a held file with a place of its own, so that others are not moved by it."""

    def __init__(self, held: _Text) -> None:
        super().__init__()
        self._held = held
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._held.descriptor

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self.fileno(), len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        size = os.fstat(self.fileno()).st_size
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: size}[whence]
        return self._at


class _Gunzip:
    """zlib's decompressor with the manners of those of bz2 and lzma."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._member.decompress(self._member.unconsumed_tail + data, max_length)


def _archive_of(head: bytes) -> str | None:
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"BZh") and head[3:4].isdigit() and head[4:10] in _BLOCKS:
        return "bzip2"
    if head.startswith(b"\xfd7zXZ\0"):
        return "xz"
    skippable = head[1:4] == b"*M\x18" and head[0] & 0xF0 == 0x50
    return "zstd" if head.startswith(b"(\xb5/\xfd") or skippable else None


def _members(file: BinaryIO, begin: Callable[[], Any], padding: bytes) -> Iterator[bytes]:
    """The text of one member after another. Whatever follows one must be another, or padding.

    Raises EOFError where the last one is not whole.
    """
    waiting = file.read(_PIECE)
    while waiting:
        member = begin()
        while not member.eof:
            piece = member.decompress(waiting, _PIECE)
            waiting = b""
            if piece:
                yield piece
            elif not member.eof:
                waiting = file.read(_PIECE)
                if not waiting:
                    raise EOFError("it ends before its last part is whole")
        waiting = (member.unused_data or file.read(_PIECE)).lstrip(padding)
        while not waiting and (more := file.read(_PIECE)):
            waiting = more.lstrip(padding)


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    import pyarrow as pa  # It takes a while to import.

    with pa.CompressedInputStream(file, "zstd") as stream:
        while piece := stream.read(_PIECE):
            yield piece


_UNPACKERS: dict[str, Callable[[BinaryIO], Iterator[bytes]]] = {
    "gzip": lambda file: _members(file, _Gunzip, b"\0"),
    "bzip2": lambda file: _members(file, bz2.BZ2Decompressor, b""),
    "xz": lambda file: _members(file, lzma.LZMADecompressor, b"\0"),
    "zstd": _zstd,
}


def _peeked(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, and the pieces with them."""
    first = b""
    for piece in pieces:
        first += piece
        if len(first) >= _HEAD:
            break

    def again() -> Iterator[bytes]:
        yield first
        yield from pieces

    return first[:_HEAD], again()


def _recoded(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The text as UTF-8. What is not a character is made invalid UTF-8; half a one at the end, as
    in a file that is being written, is left out."""
    decoder = codecs.getincrementaldecoder(name)(_UNDECODABLE)
    for piece in pieces:
        yield decoder.decode(piece).encode("utf-8", "surrogatepass")
