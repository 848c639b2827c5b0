"""What the history loses to a damaged disk, a removed file or an old copy, and its recovery.

DuckDB opens a file whose write-ahead log was emptied, cut or changed without a word; so these tests
damage real files, and ask through the real door.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from observability.history.store import History, HistoryDamaged
from tests.observability.history.makers import make_score, python, rows_of

FOLDER = """
import sys
from pathlib import Path
from observability.core import failpoints
from observability.history.store import History
from tests.observability.history.makers import make_score
history = History(Path(sys.argv[1]))
for i in range(3):
    history.commit([make_score(position_from=i)], f"a.{i}")
history.flush()
for i in range(3, 7):
    history.commit([make_score(position_from=i)], f"a.{i}")
failpoints.arm_from("history.before_checkpoint=kill")
history.flush()
"""


def left_by_a_kill(home: Path) -> Path:
    """The write-ahead log of a fold of four commits that was killed before its checkpoint."""
    folder = python(FOLDER, home)
    assert ("", "") == folder.communicate()
    assert -signal.SIGKILL == folder.returncode
    log = home / "history.duckdb.wal"
    assert log.stat().st_size > 0
    return log


def positions(home: Path) -> list[int]:
    """First positions of all scores, in order."""
    return [
        row["p"]
        for row in rows_of(History(home), "SELECT position_from AS p FROM scores ORDER BY p")
    ]


def told(home: Path) -> list[dict[str, Any]]:
    """What the history says of its own losses."""
    return rows_of(
        History(home),
        "SELECT yes, because, facts->>'missing' AS missing, facts->>'recovered' AS recovered, "
        "facts->>'lost' AS lost FROM decisions WHERE question = 'history' ORDER BY decided_at",
    )


def _flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "its first bit flipped": lambda content: _flipped(content, 0),
    "a bit in the middle flipped": lambda content: _flipped(content, len(content) // 2),
    "overwritten": lambda content: os.urandom(len(content)),
    "zeroed": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_log_is_noticed_set_aside_and_made_up_for(tmp_path: Path, how: str) -> None:
    """What it held is folded again from the spool, once; the history says so, once."""
    log = left_by_a_kill(tmp_path)
    damaged = DAMAGE[how](log.read_bytes())
    log.write_bytes(damaged)
    assert list(range(7)) == positions(tmp_path)
    (loss,) = told(tmp_path)
    assert (False, "4", "4", "0") == (
        loss["yes"],
        loss["missing"],
        loss["recovered"],
        loss["lost"],
    )
    assert "had 7 commits and has 3 of them" in loss["because"]
    (aside,) = tmp_path.glob("history.duckdb.wal.damaged-*")
    assert aside.name in loss["because"]
    assert damaged == aside.read_bytes()


def test_a_whole_log_loses_nothing_and_tells_nothing(tmp_path: Path) -> None:
    """A kill alone is no damage: what the log holds is in, and what the spool repeats is not."""
    left_by_a_kill(tmp_path)
    assert list(range(7)) == positions(tmp_path)
    assert [] == told(tmp_path)
    assert [] == list(tmp_path.glob("*.damaged-*"))


def test_a_log_that_duckdb_refuses_is_moved_out_of_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Releases of DuckDB differ: one that will not open over a damaged log must not be stuck."""
    log = left_by_a_kill(tmp_path)
    content = log.read_bytes()
    connect = duckdb.connect

    def refuses(name: str, **options: Any) -> Any:
        if log.exists() and log.read_bytes() == content and "history.duckdb" in name:
            raise duckdb.SerializationException("Failure while replaying WAL file: checksum")
        return connect(name, **options)

    monkeypatch.setattr(duckdb, "connect", refuses)
    assert list(range(7)) == positions(tmp_path)
    assert 1 == len(told(tmp_path))
    (aside,) = tmp_path.glob("history.duckdb.wal.damaged-*")
    assert content == aside.read_bytes()


def test_a_log_that_is_not_to_blame_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An analyst's rows may be in it: where DuckDB fails for another reason, nothing is moved."""
    log = left_by_a_kill(tmp_path)
    content = log.read_bytes()

    def fails(name: str, **options: Any) -> Any:
        raise duckdb.OutOfMemoryException("could not allocate block of size 256 KiB")

    with monkeypatch.context() as patch:
        patch.setattr(duckdb, "connect", fails)
        with pytest.raises(HistoryDamaged, match="could not allocate"):
            History(tmp_path).ask("SELECT 1")
    assert content == log.read_bytes()
    assert list(range(7)) == positions(tmp_path)
    assert [] == told(tmp_path)


def folded(home: Path, first: int, last: int) -> None:
    """Commit and fold one row for each number."""
    history = History(home)
    for i in range(first, last):
        history.commit([make_score(position_from=i)], f"a.{i}")
        history.flush()


def test_an_old_copy_is_brought_up_to_date_from_what_the_outbox_kept(tmp_path: Path) -> None:
    """A file from a backup lacks what came since; new commits are not taken for old ones."""
    folded(tmp_path, 0, 3)
    copy = tmp_path / "copy"
    shutil.copyfile(tmp_path / "history.duckdb", copy)
    folded(tmp_path, 3, 8)
    copy.replace(tmp_path / "history.duckdb")
    History(tmp_path).commit([make_score(position_from=8)], "a.8")
    assert list(range(9)) == positions(tmp_path)
    (loss,) = told(tmp_path)
    assert ("5", "5", "0") == (loss["missing"], loss["recovered"], loss["lost"])
    assert "an older copy" in loss["because"]


def test_what_is_kept_and_committed_again_is_made_up_for_once(tmp_path: Path) -> None:
    """A run that was killed repeats its last commit; that it is kept too doubles nothing."""
    folded(tmp_path, 0, 1)
    copy = tmp_path / "copy"
    shutil.copyfile(tmp_path / "history.duckdb", copy)
    folded(tmp_path, 1, 2)
    copy.replace(tmp_path / "history.duckdb")
    History(tmp_path).commit([make_score(position_from=1)], "a.1")
    assert [0, 1] == positions(tmp_path)
    (loss,) = told(tmp_path)
    assert ("1", "1", "0") == (loss["missing"], loss["recovered"], loss["lost"])


def test_what_cannot_be_brought_back_is_counted(tmp_path: Path) -> None:
    """Kept spool files are few and young; what lies beyond them is lost, and said to be."""
    folded(tmp_path, 0, 2)
    copy = tmp_path / "copy"
    shutil.copyfile(tmp_path / "history.duckdb", copy)
    folded(tmp_path, 2, 8)
    copy.replace(tmp_path / "history.duckdb")
    kept = tmp_path / "history.outbox" / "flushed"
    for i in (2, 3):
        (kept / f"a.{i}.json").unlink()
    History(tmp_path).commit([make_score(position_from=8)], "a.8")
    fold = History(tmp_path).flush()
    assert [0, 1, 4, 5, 6, 7, 8] == positions(tmp_path)
    (loss,) = told(tmp_path)
    assert ("6", "4", "2") == (loss["missing"], loss["recovered"], loss["lost"])
    assert fold.loss == loss["because"]
    assert fold.loss in fold.because


def test_a_removed_file_is_made_anew_from_what_is_kept(tmp_path: Path) -> None:
    """Somebody tidied up: the history begins again with what the spool still has."""
    folded(tmp_path, 0, 3)
    (tmp_path / "history.duckdb").unlink()
    assert [0, 1, 2] == positions(tmp_path)
    (loss,) = told(tmp_path)
    assert "the file was gone" in loss["because"]


def test_a_home_without_its_mark_tells_nothing(tmp_path: Path) -> None:
    """A mark that is gone or unreadable is no loss of rows; the next fold writes a new one."""
    folded(tmp_path, 0, 2)
    (tmp_path / "history.watermark").write_text("not a mark")
    folded(tmp_path, 2, 3)
    assert [0, 1, 2] == positions(tmp_path)
    assert [] == told(tmp_path)
    assert '"number": 3' in (tmp_path / "history.watermark").read_text()


@pytest.mark.parametrize(
    "number", ["9223372036854775807", "99999999999999999999999", "1e400", "[" * 100_000]
)
def test_a_mark_that_is_damaged_itself_holds_nothing_up(tmp_path: Path, number: str) -> None:
    """It counts nothing then, as one that is gone: the next fold writes it anew."""
    folded(tmp_path, 0, 2)
    (tmp_path / "history.watermark").write_text(f'{{"number": {number}, "latest": []}}')
    folded(tmp_path, 2, 3)
    assert [0, 1, 2] == positions(tmp_path)
    assert [] == told(tmp_path)
    assert '"number": 3' in (tmp_path / "history.watermark").read_text()


def test_a_kill_while_a_loss_is_made_up_for_doubles_nothing(tmp_path: Path) -> None:
    """The refold is a fold like any other: killed in it, the next one goes on."""
    folded(tmp_path, 0, 5)
    (tmp_path / "history.duckdb").unlink()
    for fault in ("before_flush", "inside_flush", "before_checkpoint"):
        script = (
            "import sys; from pathlib import Path\n"
            "from observability.core import failpoints\n"
            "from observability.history.store import History\n"
            f"failpoints.arm('history.{fault}', 'kill'); History(Path(sys.argv[1])).ask('SELECT 1')"
        )
        killed = python(script, tmp_path)
        assert ("", "") == killed.communicate()
        assert -signal.SIGKILL == killed.returncode
    assert [0, 1, 2, 3, 4] == positions(tmp_path)
    assert ["5"] == [loss["recovered"] for loss in told(tmp_path)]


def test_kept_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest stay; neither their number nor their size grows with the history."""
    monkeypatch.setattr("observability.history.retention.FLUSHED_FILES", 3)
    folded(tmp_path, 0, 6)
    kept = tmp_path / "history.outbox" / "flushed"
    assert {"a.3.json", "a.4.json", "a.5.json"} == {path.name for path in kept.iterdir()}
    monkeypatch.setattr("observability.history.retention.FLUSHED_BYTES", 1)
    folded(tmp_path, 6, 7)
    assert [] == list(kept.iterdir())
    folded(tmp_path, 7, 8)
    old = kept / "a.1.json"
    old.write_bytes(b"{}")
    os.utime(old, (0, 0))
    monkeypatch.setattr("observability.history.retention.FLUSHED_BYTES", 1 << 20)
    folded(tmp_path, 8, 9)
    assert {"a.8.json"} == {path.name for path in kept.iterdir()}
