"""The same deployments on a Prefect server that keeps its runs in PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.flows.deployed.makers import begin
from tests.flows.makers import make_pipeline
from tests.flows.prefect_server import POOLS, deployed, served, working
from tests.pace import until
from tests.postgres import Server

pytestmark = pytest.mark.slow


def test_an_alarm_starts_a_retrain_on_postgresql_too(
    postgres_server: Server, tmp_path: Path
) -> None:
    """From learning over the look and its event to a champion, without a SQLite anywhere."""
    address = postgres_server.database("prefect").address
    url = address.replace("postgresql://", "postgresql+asyncpg://")
    path = make_pipeline(tmp_path, 1_000, name="elec2")
    with served(tmp_path / "server", PREFECT_SERVER_DATABASE_CONNECTION_URL=url) as server:
        deployed(server, tmp_path / "home")
        with working(server, POOLS, tmp_path / "home"):
            assert "Learned" == server.ended(begin(server, "learn", path))["state_name"]

            def settled() -> dict[str, Any] | None:
                runs = server.runs("thermodrift-retrain")
                return next((each for each in runs if each["state_name"] == "Promoted"), None)

            assert until(settled, "a champion")["parameters"]["pipeline"] == str(path)
    assert not list((tmp_path / "server").glob("*.db"))
