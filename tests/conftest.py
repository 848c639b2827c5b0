"""How the tests run: the longest files first, properties without a clock. And what they share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from tests.postgres import Server, started

# With tests beside each other more threads only wait for one another: OpenMP's wait at full speed.
os.environ["OMP_NUM_THREADS"] = "1"

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


LONGEST = (
    *("test_deployed", "test_deployed_faults", "test_full_disk", "test_resume", "test_docs"),
    *("test_local_stack", "test_run", "test_deployed_postgres", "test_commit_before"),
    *("test_maintenance", "test_stop", "test_ducklake", "test_gate_machine", "test_commands"),
    "test_browser",
)
"""Files that take long: begun last, one of them would be waited for by all others."""


SHARE_PREFECT = {"test_deployed", "test_deployed_faults"}
"""Files that have one Prefect server together: one process goes through them, in this order."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; the order within a file, and of the others, stays."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(LONGEST)))


class FilesTogether(LoadFileScheduling):  # type: ignore[misc]  # xdist publishes no types
    """Each file is for one process, and what shares a server is as one file.

    The marks of xdist 3.8 for this (``--dist loadgroup``) do nothing with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "prefect" if Path(file).stem in SHARE_PREFECT else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesTogether:
    """How the tests are dealt out to several processes."""
    return FilesTogether(config, log)


@pytest.fixture(scope="session", autouse=True)
def _cache(pytestconfig: pytest.Config) -> None:
    """One cache for all runs of the tests, and none of the user's: Prefect's empty database."""
    assert pytestconfig.cache is not None
    os.environ["THERMODRIFT_CACHE"] = str(pytestconfig.cache.mkdir("thermodrift"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A PostgreSQL of the tests' own; without one here the test is skipped."""
    with started() as server:
        yield server
