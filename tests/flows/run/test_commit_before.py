"""A home that the commit before made: today's code goes on with it, or refuses it and says why.

No promise is made that it goes on: what is promised is that nothing is lost without a word. The
commit before is HEAD where the working tree has changes, and its parent where it has none.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models.prediction_log import prediction_log
from observability.core.errors import ThermodriftError
from observability.core.paths import Places
from tests import ROOT
from tests.flows.plain_loop import Run

pytestmark = pytest.mark.slow

EXAMPLE = Path("examples/elec2.toml")
RECORDS = 3_000
"""Of each run: the first one leaves a checkpoint, a log and a history to go on from."""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of the commit before, in a folder of its own."""
    changed = git("status", "--porcelain", "--untracked-files=no")
    commit = git("rev-parse", "--verify", "--quiet", "HEAD" if changed else "HEAD^")
    if not commit:
        pytest.skip("there is no commit before this one here: clone with a history (git clone)")
    folder = tmp_path_factory.mktemp("before")
    archive = folder.with_suffix(".zip")
    git("archive", f"--output={archive}", commit)
    shutil.unpack_archive(archive, folder)
    return folder


def git(*words: str) -> str:
    """What git answers about this source tree; empty where it has nothing to say, or is missing."""
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def learned(source: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Learn the next records of elec2 by the code and the pipeline file of a source tree."""
    words = ["--home", home, "run", source / EXAMPLE, "--limit", RECORDS]
    return subprocess.run(
        [sys.executable, "-m", "thermodrift", *map(str, words)],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
    )


def kept(home: Path) -> dict[str, str]:
    """What a pipeline cannot do without: digests of its checkpoint, its log, its models."""
    folder = home / "pipelines" / "elec2"
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (path.name == "checkpoint" or path.suffix in (".parquet", ".model"))
    }


def test_a_home_of_the_commit_before_goes_on_or_is_refused_whole(
    before: Path, run: Run, tmp_path: Path
) -> None:
    """It goes on to what today's code alone comes to; else both formats are named, all is kept."""
    home, today = tmp_path / "home", tmp_path / "today"
    first = learned(before, home)
    assert 0 == first.returncode, first.stderr
    whole = kept(home)
    assert len(whole) > 1
    refused = ""
    try:
        run(ROOT / EXAMPLE, home, RECORDS)
    except ThermodriftError as error:
        refused = str(error)
    if refused:
        assert re.search(r"(format|version) \d+\b.* \d+\b", refused), refused
        assert whole == kept(home)
        assert 0 == learned(before, home).returncode
        return
    run(ROOT / EXAMPLE, today, 2 * RECORDS)
    goes_on, alone = (
        prediction_log.read(Places(each).pipeline("elec2").predictions, 0, 2 * RECORDS)
        for each in (home, today)
    )
    assert 2 * RECORDS == goes_on.num_rows
    assert goes_on.equals(alone)
