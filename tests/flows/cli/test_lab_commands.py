"""The commands of the laboratory as people call them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from flows.config import pipeline
from tests import ROOT
from tests.flows.makers import make_pipeline

QUICK = ("--jobs", "1")


def lab(
    folder: Path, *words: str, errors: Sequence[int] = (0,)
) -> subprocess.CompletedProcess[str]:
    """A command of the laboratory in a folder, its home there."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "thermodrift.py"), "--home", "home", "lab", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "80", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode in errors, done.stderr
    return done


@pytest.mark.slow
def test_a_comparison_of_ones_own_pipeline(tmp_path: Path) -> None:
    """The table fits a terminal, JSON alone is on stdout, and what is computed is read again.

    The picture and the page come from the same figures.
    """
    make_pipeline(tmp_path, 1_000)
    words = ("compare", "pipeline.toml", "--every", "500", *QUICK)
    document = json.loads(lab(tmp_path, *words, "--json").stdout)
    assert ["small"] == [each["stream"] for each in document["streams"]]
    assert {"conditions", "streams", "summary"} == document.keys()
    shown = lab(tmp_path, *words, "--picture", "scores.svg")
    assert "laboratory: 8 of 8 steps" in shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "worth" in shown.stdout
    assert (tmp_path / "scores.svg").read_text().startswith("<svg ")
    page = lab(tmp_path, *words, "--markdown").stdout
    (own,) = [row for row in document["streams"][0]["policies"] if row["policy"] == "worth"]
    assert f"| worth | {own['score']:.4f} |" in page


@pytest.mark.slow
def test_a_search_writes_only_what_reads(tmp_path: Path) -> None:
    """With --write the file has the proposed knobs, and without it stays as it is."""
    path = make_pipeline(tmp_path, 1_000)
    before = path.read_text()
    words = ("tune", "pipeline.toml", "--trials", "2", *QUICK, "--json")
    proposed = json.loads(lab(tmp_path, *words).stdout)
    assert before == path.read_text()
    written = json.loads(lab(tmp_path, *words, "--write").stdout)
    assert proposed["proposed"] == written["proposed"]
    assert "small" == pipeline.read(path).name
    assert (path.read_text() != before) is (written["proposed"] > 0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("compare", "pipeline.toml", "--streams", "elec2"), "not both"),
        (("compare", "--streams", "nowhere"), "is no stream of the laboratory"),
        (("drift", "--streams", "elec2"), "nobody knows where elec2 changes"),
        (("tune", "--write"), "needs the pipeline file"),
        (("replay", "pipeline.toml", "--set", "worth=5"), "TABLE.KNOB=VALUE"),
        (("replay", "pipeline.toml", "--set", "worth.cooldown=5"), "there is no such key"),
    ],
)
def test_a_mistake_is_refused_with_what_to_do(
    words: Sequence[str], told: str, tmp_path: Path
) -> None:
    """Exit code 78, one sentence on stderr, nothing on stdout."""
    make_pipeline(tmp_path, 100)
    done = lab(tmp_path, *words, errors=(78,))
    assert told in done.stderr
    assert "" == done.stdout
