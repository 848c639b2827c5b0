"""The page's benchmark, at a tiny size: its line is whole, and its figures make sense."""

from __future__ import annotations

import json

import pytest

from benchmarks import page as benchmark
from flows.page import report


@pytest.mark.slow
def test_it_prints_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Fewer points than values, and a report that a mail takes."""
    benchmark.main(["--records", "50000", "--days", "20", "--devices", "2", "--rounds", "1"])
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert ("page", 50_000, 20, 2) == tuple(
        told[key] for key in ("benchmark", "records", "days", "devices")
    )
    assert told["values"] > 2 * 20 * 1440
    assert 0 < told["points"] <= 6 * 960
    assert 0 < told["sent_kb"] < told["html_kb"]
    assert told["report_kb"] * 1000 < report.MOST_BYTES
    for each in ("first_s", "again_s", "hour_s", "renewed_s", "open_s", "report_s"):
        assert told[each] > 0
