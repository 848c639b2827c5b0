"""How the tests run: properties are not timed, because machines are noisy. And what they share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.postgres import Server, started

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A PostgreSQL of the tests' own; without one here the test is skipped."""
    with started() as server:
        yield server
