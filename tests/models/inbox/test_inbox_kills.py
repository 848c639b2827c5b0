"""The inbox after its process was killed: what was acknowledged is there exactly once."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from models.inbox.inbox import Inbox, Joined, open_reader
from tests import ROOT
from tests.models.inbox.makers import FILE, make_answered, new

VICTIM = """
import os, sys, threading
from pathlib import Path
from models.inbox.inbox import Inbox, InboxConfig
from observability.core import failpoints
from tests.models.inbox.makers import make_answered

inbox = Inbox.open(Path(sys.argv[1]), InboxConfig())
failpoints.arm_from(sys.argv[3])

def tell(text):
    os.write(1, f"{text}\\n".encode())  # In one piece, whichever thread is killed.

def work(thread):
    for number in range(100_000):
        some = [f"{sys.argv[2]}.{thread}.{number}.{each}" for each in range(3)]
        inbox.record([make_answered(each, x=each) for each in some])
        tell("recorded " + " ".join(some))
        # The second one is labelled twice, and the third one waits.
        for result in inbox.label([(each, each) for each in some[:2]], at=200.0):
            tell(f"{result.outcome} {result.id} {result.position}")
        again = inbox.label([(some[1], "other")], at=200.0)
        assert ["conflicting"] == [each.outcome for each in again]

threads = [threading.Thread(target=work, args=[each]) for each in range(8)]
for each in threads:
    each.start()
"""


def killed(path: Path, name: str, lines: int = 0, faults: str = "") -> list[str]:
    """What a process said until it was killed: after some lines, or by a fault."""
    command = [sys.executable, "-c", VICTIM, str(path), name, faults]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        said = [victim.stdout.readline() for _ in range(lines)]
        if lines:
            victim.send_signal(signal.SIGKILL)
        said += victim.stdout.readlines()
    assert -signal.SIGKILL == victim.returncode
    assert [] == [each for each in said if not re.fullmatch(r"(recorded|joined) .+\n", each)]
    return said


def check(path: Path, said: list[str]) -> list[Joined]:
    """Assert that all that was said is so, through a reader, and then once more through a writer.

    Returns the joined examples.
    """
    recorded = {each for line in said if line[0] == "r" for each in line.split()[1:]}
    joined = {line.split()[1]: int(line.split()[2]) for line in said if line[0] == "j"}
    with open_reader(path) as reader:
        examples = reader.joined(0, 1_000_000)
        counts = reader.counts()
    assert list(range(counts.joined)) == [each.position for each in examples]
    assert counts.joined == len({each.id for each in examples})
    assert counts.recorded == counts.joined + counts.waiting
    assert joined.items() <= {each.id: each.position for each in examples}.items()
    assert all({"x": each.id} == each.features and each.id == each.label for each in examples)
    with Inbox.open(path) as inbox:
        before = inbox.counts()
        for each in sorted(recorded):
            inbox.record([make_answered(each, x=each)])
        assert before == inbox.counts()
        assert examples == inbox.joined(0, 1_000_000)
    return examples


@pytest.mark.slow
def test_what_was_acknowledged_is_there_once_however_often_it_is_killed(tmp_path: Path) -> None:
    """Eight threads record and label; the process is killed amid it, three times over one file."""
    path = tmp_path / FILE
    said: list[str] = []
    examples: list[Joined] = []
    for name, lines in (("first", 100), ("second", 700), ("third", 300)):
        said += killed(path, name, lines)
        before, examples = examples, check(path, said)
        # What had joined before the kill has not changed, and positions go on behind it.
        assert before == examples[: len(before)]
        assert len(examples) > len(before)


@pytest.mark.parametrize("after", [1, 9])
@pytest.mark.parametrize("point", ["inbox.inside_commit", "inbox.after_commit"])
def test_a_kill_around_a_commit_leaves_it_whole_or_not_there(
    tmp_path: Path, point: str, after: int
) -> None:
    """What was acknowledged before is there; the last group is there as a whole, or not at all."""
    said = killed(tmp_path / FILE, "only", faults=f"{point}=kill:{after}")
    examples = check(tmp_path / FILE, said)
    with open_reader(tmp_path / FILE) as reader:
        counts = reader.counts()
    assert 0 == counts.recorded % 3
    assert 0 == len(examples) % 2
    assert (counts.recorded > 0) == (after > 1 or point == "inbox.after_commit")


def test_a_log_that_ends_anywhere_leaves_the_first_calls_whole(tmp_path: Path) -> None:
    """As a power cut may leave it where commits do not wait for the disk: nothing has a gap."""
    whole, calls = tmp_path / "whole", 12
    with new(whole) as inbox:
        for call in range(calls):
            some = [f"{call}.{each}" for each in range(3)]
            inbox.record([make_answered(each, x=each) for each in some])
            inbox.label([(each, each) for each in some[:2]], at=200.0)
        file, log = ((whole / name).read_bytes() for name in (FILE, f"{FILE}-wal"))
    found: set[int] = set()
    for length in range(0, len(log) + 1, len(log) // 40):
        cut = tmp_path / str(length)
        cut.mkdir()
        (cut / FILE).write_bytes(file)
        (cut / f"{FILE}-wal").write_bytes(log[:length])
        with new(cut) as inbox:
            counts, joined = inbox.counts(), inbox.joined(0, 1_000)
            assert 0 == counts.recorded % 3
            assert counts.joined in {2 * (counts.recorded // 3), 2 * (counts.recorded // 3) - 2}
            expected = [f"{call}.{each}" for call in range(calls) for each in range(2)]
            assert expected[: counts.joined] == [each.id for each in joined]
            assert list(range(counts.joined)) == [each.position for each in joined]
        found.add(counts.recorded)
    assert {0, 3 * calls} < found
