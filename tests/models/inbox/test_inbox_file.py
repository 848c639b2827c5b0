"""The inbox's file: versions, damage, and what is refused without a change."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from models.inbox.errors import (
    InboxDamaged,
    InboxMissing,
    InboxUnwritable,
    InboxVersionUnknown,
)
from models.inbox.inbox import open_reader
from observability.core import failpoints
from observability.core.errors import ThermodriftError
from tests.models.inbox.makers import FILE, make_answered, make_many, new, outcomes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of some hundred pages, which nobody has open."""
    with new(tmp_path) as inbox:
        inbox.record(make_many(0, 1_000))
        outcomes(inbox, *((f"p{index}", 1) for index in range(500)))
    return tmp_path / FILE


def content(folder: Path) -> dict[str, bytes]:
    """Every file of the folder that has something in it."""
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.stat().st_size}


def overwrite(path: Path, at: int, by: bytes) -> None:
    """Change bytes in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(by)


def sql(path: Path, *statements: str) -> None:
    """Change the file as somebody else would."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def cut(path: Path) -> None:
    """Take the second half away."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_database(path: Path) -> None:
    """Put a database of somebody else in its place."""
    path.unlink()
    sql(path, "CREATE TABLE theirs (a)")


def gone(path: Path) -> None:
    """Take the file away from its log."""
    path.unlink()
    path.with_name(f"{path.name}-wal").write_bytes(b"what was committed last")


def text(path: Path) -> None:
    """Put a text file in its place."""
    path.write_text("id,label\n" * 100)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "its header is overwritten": lambda path: overwrite(path, 0, b"no database"),
    "it is text": text,
    "a page is overwritten": lambda path: overwrite(path, 4096 * 9, b"\xff" * 4096),
    "its end is gone": cut,
    "it is the database of something else": other_database,
    "it is gone, and its log is there": gone,
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_corrupt_file_is_refused_and_nothing_is_changed(path: Path, what: str) -> None:
    """The message says what was found and what to do, and every byte stays."""
    DAMAGE[what](path)
    before = content(path.parent)
    for _ in range(2):
        with pytest.raises(InboxDamaged, match=r"Put a copy of it back, or move it elsewhere"):
            new(path.parent)
    after = content(path.parent)
    assert before == {name: after[name] for name in before}
    assert set(after) - set(before) <= {f"{FILE}-shm"}


@pytest.mark.parametrize("what", ["its header is overwritten", "it is text", "its end is gone"])
def test_a_reader_says_that_a_file_is_corrupt(path: Path, what: str) -> None:
    """When it is opened, or when the pages in question are read."""
    DAMAGE[what](path)
    with pytest.raises(InboxDamaged, match="Nothing was changed"), open_reader(path) as reader:
        reader.joined(0, 1_000)


def test_content_that_is_no_json_any_more_is_said_to_be_damaged(path: Path) -> None:
    """To whoever reads it, or records its id again; others go on."""
    sql(path, "UPDATE joined SET features = '{' WHERE position = 1")
    with new(path.parent) as inbox:
        with pytest.raises(InboxDamaged, match="Nothing was changed"):
            inbox.joined(0, 10)
        with pytest.raises(InboxDamaged, match="Nothing was changed"):
            inbox.record(make_many(1, 1))
        assert 8 == len(inbox.joined(2, 8))
        assert ["joined"] == outcomes(inbox, ("p700", 1))


def test_a_file_of_another_version_is_refused(path: Path) -> None:
    """The message says which version it has, and which one is read; every byte stays."""
    sql(path, "PRAGMA user_version = 99")
    before = content(path.parent)
    for opened in (new, lambda folder: open_reader(folder / FILE)):
        with pytest.raises(InboxVersionUnknown, match=r"version 99, .* reads 1\. Use the version"):
            opened(path.parent)
    after = content(path.parent)
    assert before == {name: after[name] for name in before}


def test_a_refused_file_is_not_locked(path: Path) -> None:
    """After it was put right, it opens."""
    sql(path, "PRAGMA user_version = 99")
    with pytest.raises(InboxVersionUnknown):
        new(path.parent)
    sql(path, "PRAGMA user_version = 1")
    with new(path.parent) as inbox:
        assert 500 == inbox.counts().waiting


def test_a_file_that_is_moved_away_makes_room_for_a_new_one(path: Path) -> None:
    """What the messages advise works, and whoever kept positions sees that it is another inbox."""
    with open_reader(path) as reader:
        before = reader.identity
    path.rename(path.with_name("aside"))
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    with new(path.parent) as inbox:
        assert 0 == inbox.counts().recorded
        assert before != inbox.identity


def test_there_is_nothing_to_read_before_a_prediction_was_recorded(tmp_path: Path) -> None:
    """No file, an empty file, and a file whose making was cut short are one to a reader."""
    path = tmp_path / FILE
    with pytest.raises(InboxMissing, match="no prediction has been recorded yet"):
        open_reader(path)
    path.touch()
    with pytest.raises(InboxMissing, match="no prediction has been recorded yet"):
        open_reader(path)
    sql(path, "PRAGMA journal_mode = WAL")
    with pytest.raises(InboxMissing, match="no prediction has been recorded yet"):
        open_reader(path)
    with new(tmp_path) as inbox:
        inbox.record([make_answered()])


def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    """The first prediction of a pipeline may come before its first run."""
    folder = tmp_path / "pipelines" / "prices"
    new(folder).close()
    assert any(folder.glob("inbox.sqlite*"))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A folder of its name is no inbox; the lock is free afterwards."""
    (tmp_path / FILE).mkdir()
    for _ in range(2):
        with pytest.raises(ThermodriftError, match=FILE):
            new(tmp_path)


def test_a_full_disk_is_an_error_and_the_call_may_be_repeated(tmp_path: Path) -> None:
    """Nothing of the call is there, what was acknowledged is, and with space it works."""
    with new(tmp_path) as inbox:
        inbox.record(make_many(0, 10))
        (pages,) = inbox._connection.execute("PRAGMA page_count").fetchone()
        inbox._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(InboxUnwritable, match=r"full.*repeat the call"):
            inbox.record(make_many(10, 1_000))
        assert 10 == inbox.counts().recorded
        assert ["joined"] == outcomes(inbox, ("p3", 1))
        inbox._connection.execute("PRAGMA max_page_count = 100000")
        inbox.record(make_many(10, 1_000))
        assert (1_010, 1_009) == (inbox.counts().recorded, inbox.counts().waiting)


@pytest.mark.parametrize("point", ["inbox.inside_commit", "inbox.after_commit"])
def test_a_call_that_failed_may_be_repeated_whether_it_was_committed_or_not(
    tmp_path: Path, point: str
) -> None:
    """The prediction is there once, and the label joins once."""
    with new(tmp_path) as inbox:
        inbox.record([make_answered("a")])
        failpoints.arm(point, "raise")
        try:
            with pytest.raises(InboxUnwritable, match=r"no space left.*make space there"):
                inbox.record([make_answered("b")])
            with pytest.raises(InboxUnwritable):
                inbox.label([("a", 1)], at=200.0)
        finally:
            failpoints.disarm()
        inbox.record([make_answered("b")])
        (result,) = inbox.label([("a", 1)], at=200.0)
        expected = {"inbox.inside_commit": "joined", "inbox.after_commit": "duplicate"}
        assert expected[point] == result.outcome
        counts = inbox.counts()
        assert (2, 1, 1) == (counts.recorded, counts.waiting, counts.joined)
        assert [("a", 0)] == [(each.id, each.position) for each in inbox.joined(0, 10)]
