"""A run that ends hands its figures on where the home's file asks for it, and fails for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.cli import run_summary
from flows.loop import local_loop
from flows.maintenance import upkeep
from tests.flows.makers import make_pipeline
from tests.observability.metrics.test_prometheus import gateway, parsed

pytestmark = pytest.mark.usefixtures("without_prefect")


def run(folder: Path, metrics: str, records: int = 300) -> dict[str, Any]:
    """The summary of a run in a home whose file has this table."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    (home / "thermodrift.toml").write_text(f"[metrics]\n{metrics}\n", encoding="utf-8")
    summary: dict[str, Any] = local_loop.run_loop.fn(make_pipeline(folder), home, records)
    return summary


def test_a_run_leaves_a_textfile_with_what_it_did(tmp_path: Path) -> None:
    """Relative to the home; the run's own last figures are in it, and upkeep's after that."""
    summary = run(tmp_path, 'textfile = "thermodrift.prom"')
    path = tmp_path / "home" / "thermodrift.prom"
    found = parsed(path.read_text(encoding="utf-8"))
    assert ({"pipeline": "small"}, 300.0) == found["thermodrift_records_total"]
    assert 0.0 == found["thermodrift_history_outbox_commits"][1]
    assert summary["metrics_trouble"] is None
    assert "thermodrift_upkeep_timestamp_seconds" not in found
    assert upkeep.fn(tmp_path / "home")["metrics_trouble"] is None
    assert "thermodrift_upkeep_timestamp_seconds" in parsed(path.read_text(encoding="utf-8"))


def test_a_run_pushes_once_at_its_end(tmp_path: Path) -> None:
    """Under the name of the home."""
    with gateway() as (url, came):
        run(tmp_path, f'push = "{url}"\ninstance = "rack-1"')
    ((_, path, body),) = came
    assert "/metrics/job/thermodrift/instance/rack-1" == path
    assert ({"pipeline": "small"}, 300.0) == parsed(body)["thermodrift_records_total"]


def test_what_cannot_be_handed_on_is_said_and_fails_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that is not there, and a gateway that is down."""
    with gateway() as (url, _):
        pass
    summary = run(tmp_path, f'textfile = "nowhere/a.prom"\npush = "{url}"')
    assert "limit_reached" == summary["outcome"]
    trouble = summary["metrics_trouble"]
    assert "nowhere/a.prom cannot be written" in trouble
    assert f"the Pushgateway {url} did not take the figures" in trouble
    capsys.readouterr()
    run_summary.render(summary, "pipeline.toml")
    assert "Trouble with the metrics" in capsys.readouterr().out


def test_without_the_table_nothing_is_written(tmp_path: Path) -> None:
    """No file of Prometheus, and no word."""
    assert run(tmp_path, "")["metrics_trouble"] is None
    assert [] == list(tmp_path.rglob("*.prom"))
