"""What tests of the service share: a pipeline that has learned, made once for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.flows.api.makers import Learned, Running, make_learned, running


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """A pipeline at position 600 with a champion; its tests do not change it."""
    return make_learned(tmp_path_factory.mktemp("learned") / "reader")


@pytest.fixture(scope="module")
def served(learned: Learned) -> Iterator[Running]:
    """The service of that pipeline, for all tests of a file."""
    with running(learned) as found:
        yield found


@pytest.fixture
def client(served: Running) -> Iterator[httpx.Client]:
    """A client of it."""
    with served.client() as found:
        yield found
