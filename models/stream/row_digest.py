"""A digest of a table's rows that does not depend on how they are divided into pieces.

Pure. It is a sum over all cells, modulo 2^64, of the cell's hash times a number for its column and
one for its row: pieces may have any size, and a value that moved to another row or column changes
the sum. A missing value adds nothing, so that an empty column may get a type later. It detects
accidental changes, with an error of one in 2^64, and no forgery.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

_ALL = (1 << 64) - 1
_SALT = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class RowDigest:
    """The digest of some rows; 0 for no row."""

    total: int = 0

    @classmethod
    def read(cls, text: str) -> Self:
        """The digest from its text; an empty text is the digest of no row."""
        return cls(int(text, 16) if text else 0)

    @property
    def text(self) -> str:
        """Sixteen hexadecimal digits."""
        return f"{self.total:016x}"

    def with_numbers(self, column: str, first: int, values: NDArray[np.float64]) -> Self:
        """Add the numbers of a column, NaN for missing; `first` is the row of the first one."""
        from pandas.util import hash_array

        present = np.flatnonzero(~np.isnan(values))
        # 0.0 and -0.0 are one value: a rewritten file may have the other one.
        return self._with(column, first + present, hash_array(values[present] + 0.0))

    def with_texts(
        self, column: str, first: int, distinct: Sequence[Any], codes: NDArray[np.intp]
    ) -> Self:
        """Add the texts, truths or bytes of a column: `codes`, one per row, are indexes into
        `distinct`, and -1 for a missing value."""
        present = np.flatnonzero(codes >= 0)
        return self._with(column, first + present, _hashes(distinct)[codes[present]])

    def with_some(self, column: str, rows: NDArray[np.intp], values: Sequence[Any]) -> Self:
        """Add the values of these rows of a column, as texts."""
        return self._with(column, rows, _hashes(values))

    def _with(self, column: str, rows: NDArray[np.intp], hashes: NDArray[np.uint64]) -> Self:
        name = int.from_bytes(hashlib.blake2b(column.encode(), digest_size=8).digest()) | 1
        with np.errstate(over="ignore"):
            # The row numbers are mixed by the finaliser of SplitMix64, and made odd.
            # Source: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number
            # generators", OOPSLA 2014.
            mixed = rows.astype(np.uint64) + _SALT
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = (mixed ^ (mixed >> np.uint64(31))) | np.uint64(1)
            # The hash of the number 0 is 0, and its product would not depend on the row.
            summed = ((hashes ^ _SALT) * mixed).sum(dtype=np.uint64)
        return type(self)((self.total + int(summed) * name) & _ALL)


def _hashes(values: Sequence[Any]) -> NDArray[np.uint64]:
    from pandas.util import hash_array

    texts = np.array([f"{type(value).__name__}:{value}" for value in values], dtype=object)
    return hash_array(texts, categorize=False)
