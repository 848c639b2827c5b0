"""A digest of a table's rows that does not depend on how they are cut into pieces.

Pure. It is a sum over all cells, modulo 2^64, of the cell's hash times a number that belongs to its
column and one that belongs to its row: so pieces may come in any size, and a value that moved to
another row or column changes the sum. It notices accidents, not forgers: an accident goes unseen
once in 2^64.
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
    """The digest of some rows; of none, 0."""

    total: int = 0

    @classmethod
    def read(cls, text: str) -> Self:
        """The digest that `text` names; an empty text is the digest of no row."""
        return cls(int(text, 16) if text else 0)

    @property
    def text(self) -> str:
        """Sixteen hexadecimal digits."""
        return f"{self.total:016x}"

    def with_numbers(self, column: str, first: int, values: NDArray[np.float64]) -> Self:
        """With the numbers of a column, NaN for missing; `first` is the row of the first one."""
        from pandas.util import hash_array

        # One zero and one NaN, whatever their bits: a file that is rewritten may have others.
        plain = np.where(np.isnan(values), np.nan, values + 0.0)
        return self._with(column, first, hash_array(plain))

    def with_texts(self, column: str, first: int, values: Sequence[Any]) -> Self:
        """With the texts, truths or bytes of a column, None for missing."""
        from pandas.util import hash_array

        texts = np.array([_as_text(value) for value in values], dtype=object)
        return self._with(column, first, hash_array(texts))

    def _with(self, column: str, first: int, hashes: NDArray[np.uint64]) -> Self:
        rows = _mixed(np.arange(first, first + len(hashes), dtype=np.uint64))
        name = int.from_bytes(hashlib.blake2b(column.encode(), digest_size=8).digest()) | 1
        with np.errstate(over="ignore"):
            # The hash of the number 0 is 0, and nothing times its place would be nothing.
            added = int(((hashes ^ _SALT) * rows).sum(dtype=np.uint64)) * name
        return type(self)((self.total + added) & _ALL)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """An odd number for each, far from its neighbours'.

    Source: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators",
    OOPSLA 2014 (the finaliser of SplitMix64).
    """
    with np.errstate(over="ignore"):
        mixed = numbers + _SALT
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (mixed ^ (mixed >> np.uint64(31))) | np.uint64(1)


def _as_text(value: Any) -> str:
    return "\0missing" if value is None else f"{type(value).__name__}:{value}"
