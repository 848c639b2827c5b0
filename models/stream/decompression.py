"""The bytes of a text file as plain lines, after decompression and decoding.

Part of the stream adapter. A file that is neither compressed nor in an encoding such as UTF-16 is
read directly. Any other is decoded as a whole into an unnamed temporary file, which is read
instead: so offsets, hashes and growth have the same meaning for both. That file is kept until the
original's inode, size or time of change differs, and the system removes it with the process.

This costs one pass over the file per process, and another one whenever the file grew; and disk
space for the whole text, in Python's temporary folder (TMPDIR). Memory is bounded. A file that
grows often should be written as plain text.
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
from itertools import chain
from pathlib import Path
from typing import IO, Any, BinaryIO

from models.stream.batches import BadStream, StreamUnreadable
from models.stream.parsing import charset
from models.stream.parsing.charset import UTF_8, Charset

ENDINGS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
"""Endings of compressed files."""
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
    """Replace undecodable bytes by a lone surrogate, for which the record is rejected later."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end


codecs.register_error(_UNDECODABLE, _lone_surrogate)


def inner_ending(path: Path) -> str:
    """The ending of the name in lower case, without that of a compressed file."""
    compressed = path.suffix.lower() in ENDINGS
    return (path.with_suffix("") if compressed else path).suffix.lower()


@dataclass(frozen=True)
class Opened:
    """A file of lines, and its charset. `sure`: from the options or a byte order mark."""

    file: BinaryIO
    charset: Charset
    sure: bool


class _Text:
    """An unnamed file, which is removed when its last reader in any thread is gone."""

    def __init__(self, written: IO[bytes]) -> None:
        self.descriptor = os.dup(written.fileno())
        weakref.finalize(self, os.close, self.descriptor)


@dataclass(frozen=True)
class _Decoded:
    """How a file is read: directly, or from `text`."""

    stamp: tuple[int, ...]
    text: _Text | None
    charset: Charset


class ByteSource:
    """A text file that can be opened repeatedly, also in several threads."""

    def __init__(self, path: Path, encoding: str) -> None:
        """`encoding` as in StreamOptions."""
        self._path = path
        self._sure = encoding != "auto"
        self._named = charset.known(encoding) if self._sure else None
        self._held: _Decoded | None = None

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Open the file. Raises OSError, StreamUnreadable, BadStream."""
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
        """Bytes of plain text; None if the file cannot be read."""
        try:
            with self.open() as opened:
                return os.fstat(opened.file.fileno()).st_size
        except (OSError, BadStream):
            return None

    def _decoded(self, file: BinaryIO, stamp: tuple[int, ...]) -> _Decoded:
        pieces: Iterator[bytes] = iter(partial(file.read, _PIECE), b"")
        head = file.read(_HEAD)
        file.seek(0)
        archive = _archive_of(head)
        ending = ENDINGS.get(self._path.suffix.lower())
        if head and archive is None and ending is not None:
            raise StreamUnreadable(
                f"{self._path} is {ending} by its name, and its first bytes are not: if it is "
                "being written, run again when it is whole; if it is plain text, rename it without "
                f"{self._path.suffix!r}"
            )
        if archive is not None:
            pieces = self._unpacked(archive, file)
            first = b""
            for piece in pieces:
                first += piece
                if len(first) >= _HEAD:
                    break
            head, pieces = first[:_HEAD], chain([first], pieces)
        for place, mark, what in _FOREIGN:
            if head[place : place + len(mark)] == mark:
                raise BadStream(f"stream.path: {self._path} holds {what}")
        name = self._named or charset.detected(head) or UTF_8.name
        if charset.is_line_safe(name):
            text = None if archive is None else self._stored(pieces)
            return _Decoded(stamp, text, Charset(name))
        # As UTF-8. Undecodable bytes become invalid UTF-8; an incomplete character at the end, as
        # in a file that is being written, is left out.
        decoder = codecs.getincrementaldecoder(name)(_UNDECODABLE)
        pieces = (decoder.decode(piece).encode("utf-8", "surrogatepass") for piece in pieces)
        return _Decoded(stamp, self._stored(pieces), Charset(name, recoded=True))

    def _unpacked(self, archive: str, file: BinaryIO) -> Iterator[bytes]:
        try:
            yield from _UNPACKERS[archive](file)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise StreamUnreadable(
                f"{self._path} cannot be unpacked as {archive} ({error}): if it is being written, "
                "run again when it is whole (write another file, then rename it); else restore it"
            ) from error

    def _stored(self, pieces: Iterator[bytes]) -> _Text:
        """An unnamed file with these pieces. Raises StreamUnreadable."""
        with self._storing():
            file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - errors differ from here on
        with file:
            for piece in pieces:
                left = memoryview(piece)
                with self._storing():
                    while left:  # A nearly full disk accepts a part, and fails on the next one.
                        left = left[file.write(left) :]
            return _Text(file)

    @contextmanager
    def _storing(self) -> Iterator[None]:
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
    """A reader of a stored file with its own position, independent of other readers."""

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
    """zlib's decompressor with the interface of those of bz2 and lzma."""

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
    """The text of consecutive members; between them may only be padding.

    Raises EOFError if the last one is incomplete.
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
