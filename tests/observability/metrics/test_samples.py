"""What is unknown is absent, and a snapshot is read back as it was, or refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from observability.metrics import definitions, samples
from observability.metrics.samples import Sample, Snapshot


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf, -math.inf])
def test_what_is_unknown_has_no_sample(unknown: float | None) -> None:
    """It is never 0, which would be a value."""
    assert [] == samples.sample(definitions.MARGIN, unknown, "GPU-a")
    assert [] == samples.summary(definitions.SCORE, unknown, 3, "a", "served", "mae")


def test_a_snapshot_is_read_back_as_it_was(tmp_path: Path) -> None:
    """Sums, counts and labels that are no plain text included."""
    known = [
        *samples.sample(definitions.MARGIN, 12.5, 'GPU-"a"\n'),
        *samples.summary(definitions.SCORE, 80.0, 100, "small", "served", "accuracy"),
    ]
    path = tmp_path / "metrics" / "one.json"
    samples.write(path, known, 1_000.0)
    assert Snapshot(1_000.0, tuple(known)) == samples.read(path)
    assert ["one.json"] == [each.name for each in path.parent.iterdir()]


def test_what_another_version_wrote_is_left_out(tmp_path: Path) -> None:
    """A name that is not ours, other labels, or a value that is no number."""
    path = tmp_path / "one.json"
    rows = [
        ["thermodrift_of_tomorrow", [], 1.0, 0],
        [definitions.MARGIN.name, [], 1.0, 0],
        [definitions.MARGIN.name, ["GPU-a"], "cool", 0],
        [definitions.MARGIN.name, ["GPU-a"], 3.0, 0],
    ]
    path.write_text(json.dumps({"written_at": 5, "samples": rows}), encoding="utf-8")
    assert (Sample(definitions.MARGIN, ("GPU-a",), 3.0),) == samples.read(path).samples


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"written_at": 1, "samples": [1]}', "\0"])
def test_a_file_with_other_content_is_refused(tmp_path: Path, content: str) -> None:
    """So that whoever reads it can say so."""
    path = tmp_path / "one.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"snapshot|JSON|Expecting"):
        samples.read(path)


def test_the_newest_snapshot_has_the_last_word() -> None:
    """Two runs may read one device; what only the older one tells stays."""
    old = samples.sample(definitions.MARGIN, 1.0, "GPU-a") + samples.sample(
        definitions.MARGIN, 2.0, "GPU-b"
    )
    new = samples.sample(definitions.MARGIN, 3.0, "GPU-a")
    found = samples.newest([Snapshot(20.0, tuple(new)), Snapshot(10.0, tuple(old))])
    assert {"GPU-a": 3.0, "GPU-b": 2.0} == {each.labels[0]: each.value for each in found}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """A folder in the file's place is the disk that refuses."""
    path = tmp_path / "taken"
    path.mkdir()
    (path / "inside").touch()
    with pytest.raises(OSError, match="taken"):
        samples.replace(path, b"new")
    assert [path] == list(tmp_path.iterdir())
