"""The history under several processes: writers in turn, an analyst in between, kills, forks."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from observability.history.store import History, HistoryBusy
from tests.observability.history.makers import make_score, python, rows_of

WRITER = """
import sys
from pathlib import Path
from observability.history.store import History
from tests.observability.history.makers import make_score
home, writer, commits = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
history = History(home)
for i in range(commits):
    history.commit([make_score(position_from=writer * 1000 + i)] * 2, f"writer-{writer}.{i}")
    history.flush()
"""

ANALYST = """
import sys
import duckdb
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "reads")
connection.execute("SELECT count(*) FROM scores").fetchall()
print("open", flush=True)
sys.stdin.readline()
connection.close()
"""

VICTIM = """
import sys
from pathlib import Path
from observability.core import failpoints
from observability.history.store import History
from tests.observability.history.makers import make_score
history = History(Path(sys.argv[1]))
failpoints.arm_from(sys.argv[2])
for i in range(3):
    history.commit([make_score(position_from=i)], f"victim.{i}")
    print(i, flush=True)
history.flush()
"""

FORKED = """
import os, sys
from pathlib import Path
from observability.history.store import History, HistoryForked
from tests.observability.history.makers import make_score
home = Path(sys.argv[1])
history = History(home)
history.commit([make_score(position_from=1)], "parent")
history.flush()
child = os.fork()
if child == 0:
    refused = 0
    for use in (
        lambda: history.commit([make_score()], "child"),
        history.flush,
        lambda: history.ask("SELECT 1"),
        history.views,
        lambda: history.export(home),
    ):
        try:
            use()
        except HistoryForked as error:
            refused += "make a new History" in str(error)
    own = History(home)
    own.commit([make_score(position_from=2)], "child")
    own.flush()
    os._exit(refused)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def positions(home: Path) -> list[int]:
    """First positions of all scores, in order."""
    answer = rows_of(History(home), "SELECT position_from AS p FROM scores ORDER BY p")
    return [row["p"] for row in answer]


@pytest.mark.slow
def test_processes_that_commit_and_flush_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    """Four writers of forty commits each, each commit once, whoever folded it."""
    writers = [python(WRITER, tmp_path, writer, 40) for writer in range(4)]
    assert [""] * 4 == [writer.communicate()[1] for writer in writers]
    expected = sorted(2 * [writer * 1000 + i for writer in range(4) for i in range(40)])
    assert expected == positions(tmp_path)
    assert [] == list((tmp_path / "history.outbox").glob("*.json"))


def test_an_analysts_open_session_stops_nobody(tmp_path: Path) -> None:
    """Commits go on, a fold leaves them spooled, a question names the holder; then all is there."""
    history = History(tmp_path)
    history.ask("SELECT 1")
    with python(ANALYST, tmp_path / "history.duckdb", "writes") as analyst:
        assert analyst.stdout is not None
        assert "open\n" == analyst.stdout.readline()
        for i in range(5):
            history.commit([make_score(position_from=i)], f"c{i}")
        folded = history.flush()
        with pytest.raises(HistoryBusy, match=rf"process {analyst.pid} \(.*python.*\)") as busy:
            history.ask("FROM scores")
        analyst.communicate("close\n")
    assert (0, 0, 5) == (folded.files, folded.rows, folded.left)
    assert f"process {analyst.pid}" in folded.because
    assert "\n" not in str(busy.value)
    assert [0, 1, 2, 3, 4] == positions(tmp_path)


def test_an_open_read_only_session_stops_no_question(tmp_path: Path) -> None:
    """Readers share the file; what is committed meanwhile waits, and a question then says so."""
    history = History(tmp_path)
    history.commit([make_score(position_from=1)], "a")
    assert [1] == positions(tmp_path)
    with python(ANALYST, tmp_path / "history.duckdb", "reads") as analyst:
        assert analyst.stdout is not None
        assert "open\n" == analyst.stdout.readline()
        assert [1] == positions(tmp_path)
        history.commit([make_score(position_from=2)], "b")
        with pytest.raises(HistoryBusy, match=f"process {analyst.pid} "):
            history.ask("FROM scores")
        analyst.communicate("close\n")
    assert [1, 2] == positions(tmp_path)


KILLS = [
    ("history.before_outbox=kill:3", 2, False),
    ("atomic_file.before_write=kill:3", 2, False),
    ("atomic_file.before_rename=kill:3", 2, False),
    ("atomic_file.after_rename=kill:3", 2, False),
    ("history.before_flush=kill", 3, False),
    ("history.inside_flush=kill", 3, False),
    ("history.inside_flush=kill", 3, True),
    ("history.before_checkpoint=kill", 3, False),
    ("history.before_checkpoint=kill", 3, True),
    ("history.after_flush=kill", 3, False),
    ("history.after_flush=kill", 3, True),
]


@pytest.mark.parametrize(("fault", "acknowledged", "is_old"), KILLS)
def test_a_kill_loses_no_acknowledged_commit_and_doubles_none(
    tmp_path: Path, fault: str, acknowledged: int, is_old: bool
) -> None:
    """Killed at any point, in a new home or an old one, and all repeated: each lands once."""
    if is_old:
        History(tmp_path).ask("SELECT 1")
    victim = python(VICTIM, tmp_path, fault)
    said, errors = victim.communicate()
    assert (-signal.SIGKILL, "") == (victim.returncode, errors)
    assert acknowledged == len(said.split())
    survived = positions(tmp_path)
    assert set(range(acknowledged)) <= set(survived)
    assert len(survived) == len(set(survived))
    again = History(tmp_path)
    for i in range(3):
        again.commit([make_score(position_from=i)], f"victim.{i}")
    assert [0, 1, 2] == positions(tmp_path)


def test_a_handle_does_not_survive_a_fork(tmp_path: Path) -> None:
    """A child is told so at every call; with a handle of its own it works."""
    said, errors = python(FORKED, tmp_path).communicate()
    assert ("5\n", "") == (said, errors)
    assert [1, 2] == positions(tmp_path)
