"""Categories as whole numbers in order of appearance, in bounded memory: for river's trees.

Pure computation. Import this module only where a model is built: river takes a second to import.
"""

from __future__ import annotations

import zlib
from typing import Any

from river import base

from models.core.record_schema import Features

MOST_CATEGORIES = 10_000
"""Categories of a feature that are told apart; the later ones share these numbers."""


class Ordinals(base.Transformer):  # type: ignore[misc]  # river is untyped
    """Replaces each category by its number in order of appearance; other features stay.

    A record that is only predicted adds no category: it leaves no trace.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, dict[str, float]] = {}

    def learn_one(self, x: Features) -> None:
        """Give the categories that are new their numbers."""
        for name, value in x.items():
            if isinstance(value, str):
                known = self._numbers.setdefault(name, {})
                if value not in known and len(known) < MOST_CATEGORIES:
                    known[value] = float(len(known))

    def transform_one(self, x: Features) -> dict[str, Any]:
        """The record without text; a new category has the number that it would be given."""
        return {
            name: self._number(name, value) if isinstance(value, str) else value
            for name, value in x.items()
        }

    def _number(self, name: str, category: str) -> float:
        known = self._numbers.get(name, {})
        number = known.get(category)
        if number is not None:
            return number
        if len(known) >= MOST_CATEGORIES:
            return float(zlib.crc32(category.encode()) % MOST_CATEGORIES)
        return float(len(known))
