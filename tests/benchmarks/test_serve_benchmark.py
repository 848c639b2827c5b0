"""The service's benchmark, at a tiny size: its line is whole, and its figures make sense."""

from __future__ import annotations

import json

import pytest

from benchmarks import serve as benchmark


@pytest.mark.slow
def test_it_prints_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Both servers answer every request with a prediction, over one connection and over many."""
    benchmark.main(["--records", "1000", "--requests", "40", "--rounds", "1"])
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert ("serve", 1000, 40, 1) == tuple(
        told[key] for key in ("benchmark", "records", "requests", "rounds")
    )
    assert {"1", "32"} == set(told["connections"])
    for found in told["connections"].values():
        for kind in benchmark.KINDS:
            assert found[f"{kind}_per_s"] > 0
            assert 0 < found[f"{kind}_p50_ms"] <= found[f"{kind}_p99_ms"]
        ratio = found["service_per_s"] / found["conventional_per_s"]
        assert found["ratio"] == pytest.approx(ratio, rel=0.01)
