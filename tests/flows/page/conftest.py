"""What the tests of the pages share: a pipeline that ran to its end, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.api.makers import Learned
from tests.flows.page.makers import make_told


@pytest.fixture(scope="session")
def told_once(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """A pipeline that ran to its end; its tests do not change it."""
    return make_told(tmp_path_factory.mktemp("told") / "pipeline")


@pytest.fixture
def told(told_once: Learned, tmp_path: Path) -> Learned:
    """The same, in a folder that the test may change."""
    return told_once.copy(tmp_path / "told")
