"""The names of the prediction log's files: the positions they cover, and which file replaces which.

Pure: it uses names alone. A file is named ``FIRST-LAST.parquet`` after the positions that it
covers, 12 digits each, the end exclusive. Files that were merged stay beside the larger file that
replaces them until they are removed, which a kill may delay, so readers of the log skip superseded
files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_NAME = re.compile(r"([0-9]{12})-([0-9]{12})\.parquet")
_END = 10**12
PATTERN = f"{'[0-9]' * 12}-{'[0-9]' * 12}.parquet"
"""Pattern of these names for glob and DuckDB; other files are not part of the log."""


class Span(NamedTuple):
    """The positions from `first` to `last`; the end is exclusive."""

    first: int
    last: int


def name(span: Span) -> str:
    """Return the name of the file that covers `span`. Raises ValueError where there is none."""
    if not 0 <= span.first < span.last < _END:
        raise ValueError(
            f"a file of the log covers at least one position, all of them from 0 to below {_END}; "
            f"came: {span.first} to {span.last}"
        )
    return f"{span.first:012d}-{span.last:012d}.parquet"


def parse(name: str) -> Span | None:
    """Return the positions that a file of this name covers; None for other names."""
    named = _NAME.fullmatch(name)
    if named is None:
        return None
    span = Span(int(named[1]), int(named[2]))
    return span if span.first < span.last else None


def superseded(names: Iterable[str]) -> list[str]:
    """Return the files of a folder that a longer one replaces, since its range contains theirs.

    They are sorted by name. Other names replace nothing and are not replaced.
    """
    spans = {each: span for each in names if (span := parse(each)) is not None}
    replaced = []
    reach = 0
    # All files before this one begin no later, so one of them contains it if it ends within reach.
    for each, (_, last) in sorted(spans.items(), key=lambda item: (item[1].first, -item[1].last)):
        if last <= reach:
            replaced.append(each)
        reach = max(reach, last)
    return sorted(replaced)
