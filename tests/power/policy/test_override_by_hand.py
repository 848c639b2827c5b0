"""What a person says of the gate is stored without what would forge a log."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from power.policy import override_by_hand

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def test_a_reason_is_one_line_of_plain_text(tmp_path: Path) -> None:
    """A line break would forge a line of the log, and an escape moves a terminal's cursor."""
    because = "work\non \x1b[31mGPU 1\x07  until\tfive"
    override = override_by_hand.answer(Places(tmp_path), "closed", because, 60.0, NOW)
    assert "work on [31mGPU 1 until five" == override.because


def test_a_reason_of_nothing_but_controls_is_none(tmp_path: Path) -> None:
    """A person says why."""
    with pytest.raises(BadConfiguration, match="a reason of 1 to 500 characters"):
        override_by_hand.answer(Places(tmp_path), "open", "\n\x1b\n", 60.0, NOW)
