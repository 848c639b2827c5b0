"""The door's benchmark, at a tiny size: its line is whole, and its figures make sense."""

from __future__ import annotations

import json

import pynvml
import pytest

from benchmarks import gate_door as benchmark


def test_it_prints_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A hang is noticed after its patience, and nobody who asks is held up as the asker is."""
    loaded = pynvml.nvmlLib
    benchmark.main(["--readings", "3", "--hang-s", "0.3", "--watch-s", "0.5"])
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert ("gate_door", 3, 0.3) == (told["benchmark"], told["readings"], told["hang_s"])
    for each in ("judge_us", "survey_us", "survey_again_us", "own_read_us", "age_in_hand_ms"):
        assert told[each] > 0
    assert told["survey_over_own_read"] == pytest.approx(
        told["survey_us"] / told["own_read_us"], abs=0.001
    )
    assert told["noticed_s"] > 0.3
    assert told["surveys_meanwhile"] > 1
    assert told["own_stall_at_least_s"] >= 0.5
    assert told["longest_stall_ms"] < 1e3 * told["noticed_s"]
    # What stood in for the library is gone again.
    assert loaded is pynvml.nvmlLib
