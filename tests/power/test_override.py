"""A person's override of the gate: kept, read, taken back, and never guessed at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from observability.errors import BadConfiguration
from power import override
from power.gate import Override

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
WORD = Override(open=False, set_at=NOON, until=NOON + timedelta(hours=2), because="maintenance")


def test_an_override_is_kept_and_taken_back(tmp_path: Path) -> None:
    """Set, read, replaced, cleared; clearing nothing says so."""
    path = tmp_path / "home" / "gate-override.json"
    assert override.read(path) is None
    override.write(path, WORD)
    assert WORD == override.read(path)
    other = WORD.model_copy(update={"open": True})
    override.write(path, other)
    assert other == override.read(path)
    assert (True, False) == (override.clear(path), override.clear(path))
    assert override.read(path) is None


def test_what_cannot_be_read_as_an_override_is_an_error_and_none(tmp_path: Path) -> None:
    """Nobody can tell which way it pointed: the message says how to take it back."""
    path = tmp_path / "gate-override.json"
    path.write_text('{"open": true}')
    with pytest.raises(BadConfiguration, match="gate override clear"):
        override.read(path)
