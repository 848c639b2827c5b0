"""Ways in which a record of text gets broken on its way. The same chance gives the same damage."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

_ODD_CELLS = (
    b"",
    b" ",
    b"nan",
    b"NA",
    b"null",
    b"inf",
    b"-Infinity",
    b"1e999",
    b"1e101",
    b"1_000",
    b"0x1F",
    b"--5",
    b"word",
    b"true",
    b"[1]",
    b'{"a":1}',
    b'"quoted"',
    b'"open',
    b'shut"',
    b'"a""b"',
    b'"a"b',
    "\u0661\u0662".encode(),
    b"9" * 400,
    b"\\ud800",
)


def mangle(line: bytes, chance: Random) -> bytes:
    """One line of CSV or JSON, without its line end, damaged in one of many ways.

    The result may hold line ends, so that it may be several lines, or blank.
    """
    return chance.choice(_DAMAGES)(line, chance)


def _swap_cell(line: bytes, chance: Random) -> bytes:
    """Another value between two commas or colons, or at an end."""
    mark = b":" if b":" in line and chance.random() < 0.5 else b","
    cells = line.split(mark)
    cells[chance.randrange(len(cells))] = chance.choice(_ODD_CELLS)
    return mark.join(cells)


def _drop_cell(line: bytes, chance: Random) -> bytes:
    cells = line.split(b",")
    del cells[chance.randrange(len(cells))]
    return b",".join(cells)


def _repeat_cell(line: bytes, chance: Random) -> bytes:
    cells = line.split(b",")
    cells.insert(chance.randrange(len(cells)), chance.choice(cells))
    return b",".join(cells)


def _cut_short(line: bytes, chance: Random) -> bytes:
    return line[: chance.randrange(len(line) + 1)]


def _flip_bit(line: bytes, chance: Random) -> bytes:
    if not line:
        return b"\x01"
    place = chance.randrange(len(line))
    return line[:place] + bytes([line[place] ^ (1 << chance.randrange(8))]) + line[place + 1 :]


def _insert(line: bytes, chance: Random) -> bytes:
    odd = (b'"', b"\0", b"\r", b"\n", b"\r\n", b"\xff", b"\xc3", b",", b"\t", b"\xef\xbb\xbf", b"{")
    place = chance.randrange(len(line) + 1)
    return line[:place] + chance.choice(odd) + line[place:]


def _glue(line: bytes, chance: Random) -> bytes:
    return line + line[chance.randrange(len(line) + 1) :]


def _stretch(line: bytes, chance: Random) -> bytes:
    return line + b"7" * chance.choice((5_000, 20_000, 140_000))


_DAMAGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    _swap_cell,
    _swap_cell,
    _drop_cell,
    _repeat_cell,
    _cut_short,
    _flip_bit,
    _insert,
    _insert,
    _glue,
    _stretch,
)
