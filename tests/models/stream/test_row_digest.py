"""A digest of rows: the same however they are cut, another as soon as a value is."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.stream.row_digest import RowDigest

numbers = st.lists(st.one_of(st.floats(), st.just(0.0)), min_size=1, max_size=12)
texts = st.lists(st.one_of(st.none(), st.text(max_size=3), st.booleans()), min_size=1, max_size=12)


def digest_of(column: list[Any], cut: int = 0, name: str = "x") -> RowDigest:
    """Of a column that comes in two pieces."""
    digest = RowDigest()
    for first, piece in ((0, column[:cut]), (cut, column[cut:])):
        if any(isinstance(value, float) for value in column):
            digest = digest.with_numbers(name, first, np.array(piece, dtype=np.float64))
        else:
            distinct = [value for value in dict.fromkeys(map(repr, piece)) if value != "None"]
            codes = [distinct.index(repr(v)) if v is not None else -1 for v in piece]
            digest = digest.with_texts(name, first, distinct, np.array(codes, dtype=np.intp))
    return digest


@given(st.one_of(numbers, texts), st.integers(0, 12))
def test_pieces_give_the_digest_of_the_whole(column: list[Any], cut: int) -> None:
    """Row groups and batches may be cut anywhere."""
    assert digest_of(column) == digest_of(column, min(cut, len(column)))


@given(numbers, st.data())
def test_another_value_or_another_place_is_another_digest(
    column: list[float], data: st.DataObject
) -> None:
    """One changed value is seen, and so are two that changed places or columns."""
    place = data.draw(st.integers(0, len(column) - 1))
    changed = column.copy()
    changed[place] = 12345.678 if column[place] != 12345.678 else 0.5
    assert digest_of(column) != digest_of(changed)
    # What is missing is in no column.
    if not np.isnan(column).all():
        assert digest_of(column) != digest_of(column, name="y")
    assert digest_of([1.0, 2.0]) != digest_of([2.0, 1.0])


def test_zeros_and_what_is_missing_are_each_one_value() -> None:
    """A file that is rewritten may have another zero, or another NaN."""
    odd_nan = float(np.frombuffer(b"\x01\x00\x00\x00\x00\x00\xf8\xff", np.float64)[0])
    assert digest_of([0.0, float("nan")]) == digest_of([-0.0, odd_nan])
    assert digest_of([None, "a"]) != digest_of(["None", "a"])
    assert digest_of([True]) != digest_of(["True"])


def test_a_digest_is_kept_as_text() -> None:
    """Of no row it is the same as none at all."""
    digest = digest_of([1.5])
    assert digest == RowDigest.read(digest.text)
    assert RowDigest() == RowDigest.read("")
