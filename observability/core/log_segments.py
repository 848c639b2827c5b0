"""What the names of the prediction log's files say: the positions in them, and which is replaced.

Ground: names alone, no disk. A file is named ``FIRST-LAST.parquet`` after the positions that it
covers, 12 digits each, the end exclusive. Files that are merged stay for a moment beside the larger
one that replaces them, or for longer where that moment was cut short: whoever goes through the log
leaves out what is superseded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_NAME = re.compile(r"([0-9]{12})-([0-9]{12})\.parquet")
_END = 10**12
PATTERN = f"{'[0-9]' * 12}-{'[0-9]' * 12}.parquet"
"""What a shell, or DuckDB, matches them by: nothing else that lies there is a file of the log."""


class Span(NamedTuple):
    """The positions from `first` to `last`; the end is exclusive."""

    first: int
    last: int


def name(span: Span) -> str:
    """The name of the file that covers `span`. Raises ValueError for what no name can say."""
    if not 0 <= span.first < span.last < _END:
        raise ValueError(
            f"a file of the log covers at least one position, all of them from 0 to below {_END}; "
            f"came: {span.first} to {span.last}"
        )
    return f"{span.first:012d}-{span.last:012d}.parquet"


def parse(name: str) -> Span | None:
    """The positions that a file of this name covers; None where it is no file of the log."""
    named = _NAME.fullmatch(name)
    if named is None:
        return None
    span = Span(int(named[1]), int(named[2]))
    return span if span.first < span.last else None


def superseded(names: Iterable[str]) -> list[str]:
    """The files of one folder that a longer one replaces, because its range holds all of theirs.

    In order of their names, whatever the order they came in. A name that is none of the log's
    replaces nothing and is not replaced.
    """
    spans = {each: span for each in names if (span := parse(each)) is not None}
    replaced = []
    reach = 0
    # Of those before it in this order, each begins no later: it holds what ends within its reach.
    for each, (_, last) in sorted(spans.items(), key=lambda item: (item[1].first, -item[1].last)):
        if last <= reach:
            replaced.append(each)
        reach = max(reach, last)
    return sorted(replaced)
