"""Categories as numbers: in order of appearance, in bounded memory, and without a trace."""

from __future__ import annotations

import pytest

from models.core import ordinals
from models.core.ordinals import Ordinals


def test_categories_are_numbered_as_they_come() -> None:
    """A record that is only predicted gives none; a new one has the number that comes next."""
    made = Ordinals()
    assert {"a": 0.0, "x": 1.5} == made.transform_one({"a": "red", "x": 1.5})
    made.learn_one({"a": "red", "b": "red", "x": 1.5})
    assert {"a": 1.0} == made.transform_one({"a": "blue"})
    made.learn_one({"a": "green"})
    assert {"a": 0.0, "b": 0.0} == made.transform_one({"a": "red", "b": "red"})
    assert {"a": 1.0, "b": 1.0} == made.transform_one({"a": "green", "b": "blue"})


def test_the_later_ones_of_too_many_categories_share_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Always the same one, which does not depend on the process."""
    monkeypatch.setattr(ordinals, "MOST_CATEGORIES", 3)
    made = Ordinals()
    for place in range(9):
        made.learn_one({"a": f"category {place}"})
    told = [made.transform_one({"a": f"category {place}"})["a"] for place in range(9)]
    assert [0.0, 1.0, 2.0] == told[:3]
    assert {0.0, 1.0, 2.0} >= set(told[3:])
    assert len(set(told[3:])) > 1
