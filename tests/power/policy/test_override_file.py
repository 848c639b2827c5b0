"""A person's override of the gate: kept, read, taken back, and never guessed at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from observability.core.errors import BadConfiguration
from power.policy import override_file
from power.policy.gate_override import Override

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
WORD = Override(open=False, set_at=NOON, until=NOON + timedelta(hours=2), because="maintenance")


def test_an_override_is_kept_and_taken_back(tmp_path: Path) -> None:
    """Set, read, replaced, cleared; clearing nothing says so."""
    path = tmp_path / "home" / "gate-override.json"
    assert override_file.read(path) is None
    override_file.write(path, WORD)
    assert WORD == override_file.read(path)
    other = WORD.model_copy(update={"open": True})
    override_file.write(path, other)
    assert other == override_file.read(path)
    assert (True, False) == (override_file.clear(path), override_file.clear(path))
    assert override_file.read(path) is None


def test_what_cannot_be_read_as_an_override_is_an_error_and_none(tmp_path: Path) -> None:
    """Nobody can tell which way it pointed: the message says how to take it back."""
    path = tmp_path / "gate-override.json"
    path.write_text('{"open": true}')
    with pytest.raises(BadConfiguration, match="gate override clear"):
        override_file.read(path)
