"""The benchmark of swaps, at a tiny size: its line is whole, and the promises hold."""

from __future__ import annotations

import json

import pytest

from benchmarks import serve_swaps as benchmark


@pytest.mark.slow
def test_swaps_fail_no_request_and_mix_no_versions(capsys: pytest.CaptureFixture[str]) -> None:
    """Each answer is that of the bundle whose versions it names."""
    words = ["--swaps", "4", "--connections", "2", "--per-second", "40", "--idle-requests", "20"]
    benchmark.main([*words, "--stages", "2", "--records", "800"])
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert (4, 0, 0) == tuple(told[key] for key in ("swaps", "failed", "mixed"))
    assert told["requests"] >= 4
    for phase in ("idle", "swapping"):
        assert 0 < told[f"p50_{phase}_ms"] <= told[f"p99_{phase}_ms"] <= told[f"max_{phase}_ms"]


def test_an_answer_of_two_bundles_is_noticed() -> None:
    """The comparison can fail: by other probabilities than the versions', or by other versions."""
    versions = benchmark.Versions("v1", 100)
    load = benchmark.Load(0, b"", {versions: {"a": 0.25}}, 1, 1.0)
    seen = benchmark.Seen()
    for champion, share in (("v1", 0.25), ("v1", 0.25 + 1e-16), ("v1", 0.75), ("v2", 0.25)):
        told = {"versions": {"champion": champion, "position": 100}, "probabilities": {"a": share}}
        load._compare(told, seen)
    assert 2 == seen.mixed
