"""The benchmark of the inbox, small: every way does the work that it is measured for."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from benchmarks import inbox


def test_every_way_stores_every_prediction(tmp_path: Path) -> None:
    """One thread commits each call alone; rates are positive and shares follow from them."""
    found = inbox.measure(tmp_path, calls=40, threads=4, rounds=1)
    assert 1.0 == found["record_one_by_one_calls_per_commit"]
    shared = found["record_in_groups_calls_per_commit"]
    assert isinstance(shared, float)
    assert 1.0 <= shared <= 4.0
    assert all(isinstance(each, str | dict) or each > 0 for each in found.values())  # type: ignore[operator]
    for name in ("one", "groups"):
        with closing(sqlite3.connect(tmp_path / f"0-{name}.sqlite")) as connection:
            assert (40,) == connection.execute("SELECT count(*) FROM waiting").fetchone()
