"""What tests of the flows share: a Prefect server with workers, and the loop without Prefect."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flows.loop import local_loop
from tests.flows import plain_loop
from tests.flows.nursery import Nursery, open_nursery
from tests.flows.plain_loop import Run
from tests.flows.prefect_server import PrefectServer, deployed, served, working


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server to which `prefect.yaml` was deployed, without a worker, for all files that need one.

    One process runs these, file by file (`SHARE_PREFECT` in tests/conftest.py): a test may kill the
    server, if it starts it again.
    """
    folder = tmp_path_factory.mktemp("prefect")
    with served(folder / "server") as server:
        deployed(server, folder / "home", as_people_do=True)
        yield server


@pytest.fixture(scope="module")
def prefect_box(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    """The server with a worker for each of its pools, for all tests of a file.

    The heavy one does one run at a time, so that a run which holds its slot is noticed.
    """
    home = prefect_server.folder.parent / "home"
    with (
        working(prefect_server, ["thermodrift-light"], home),
        working(prefect_server, ["thermodrift-heavy"], home, limit=1),
    ):
        yield prefect_server


@pytest.fixture
def without_prefect() -> Iterator[None]:
    """The loop needs no server."""
    with plain_loop.without_prefect():
        yield


@pytest.fixture
def run(without_prefect: None) -> Run:
    """The loop over a pipeline file and a home, its tasks as plain functions."""
    found: Run = local_loop.run_loop.fn
    return found


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where runs of the loop come from that need a process each: it imports once for all files."""
    with open_nursery() as opened:
        yield opened
