"""A history that several hosts share tells the same story as a file does."""

from __future__ import annotations

from pathlib import Path

import pytest

from observability.history.store import History
from observability.story import past
from tests.observability.history.backends.test_ducklake import Lake, everything
from tests.observability.history.makers import at
from tests.postgres import Server

pytestmark = pytest.mark.slow


def test_a_lake_answers_the_questions_of_the_story_as_a_file(
    postgres_server: Server, tmp_path: Path
) -> None:
    """Each question, each line and each mark: its SQL may be asked in both."""
    lake = Lake(postgres_server, postgres_server.database("story"), tmp_path)
    told = []
    for home in (tmp_path / "file", lake.host("host")):
        history = History(home)
        history.commit(everything(), "all")
        told.append(past.read(history, "elec2", "accuracy", at(3600)))
    file, there = told
    assert {name for name, rows in file.rows.items() if rows} >= {"now", "champion", "devices"}
    for name in ("rows", "scores", "margins", "marks", "newest"):
        assert getattr(file, name) == getattr(there, name), name
