"""The processes of the laboratory: results in order, errors as they are, no orphan."""

from __future__ import annotations

import operator
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from flows.laboratory import crew
from flows.laboratory.crew import Work
from tests import ROOT


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_the_order_of_the_works(jobs: int) -> None:
    """Each step is told once."""
    works = [
        Work(str(number), [partial(operator.neg, number)] * (number % 3), partial(pow, number, 2))
        for number in range(5)
    ]
    told: list[str] = []
    assert [0, 1, 4, 9, 16] == crew.done(works, jobs, told.append)
    assert sum(work.steps for work in works) == len(told)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_in_a_step_is_the_error_of_the_command(jobs: int) -> None:
    """It comes with its own class and message."""
    works = [Work("one", [partial(operator.truediv, 1, 0)], partial(pow, 2, 2))]
    with pytest.raises(ZeroDivisionError):
        crew.done(works, jobs)


ENDLESS = """
import signal
import sys
from flows.laboratory import crew
from flows.laboratory.crew import Work

sys.stdout.write("begun\\n")
sys.stdout.flush()

if __name__ == "__main__":
    crew.done([Work("wait", [], signal.pause)] * 2, 2)
"""


def test_nothing_goes_on_when_the_command_was_killed(tmp_path: Path) -> None:
    """Its processes hold its output open for as long as they live: it is closed soon."""
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", str(script)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        # The command says it once, and each of its processes when it begins.
        for _ in range(3):
            assert b"begun\n" == process.stdout.readline()
        process.kill()
        assert b"" == process.stdout.read()
