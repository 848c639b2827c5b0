"""The inbox: predictions wait, labels join them once, and bounds hold."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from models.inbox.errors import (
    InboxBusy,
    InboxClosed,
    InvalidContent,
    PositionsForgotten,
    RecordConflict,
)
from models.inbox.inbox import Inbox, InboxConfig, open_reader
from models.inbox.tables import Totals
from tests import ROOT
from tests.models.inbox.makers import (
    FILE,
    in_one_group,
    make_answered,
    make_many,
    new,
    outcomes,
)


def test_a_label_joins_its_prediction(tmp_path: Path) -> None:
    """The joined example has all that was recorded, the label, and both moments."""
    given = make_answered("a", 100.0)
    with new(tmp_path) as inbox:
        inbox.record([given])
        (result,) = inbox.label([("a", "01")], at=160.0)
        (joined,) = inbox.joined(0, 10)
    assert ("a", "joined", 0) == result
    assert (0, "a", 100.0, 160.0, "01") == joined[:5]
    assert given[2:] == joined[5:]


def test_positions_are_dense_in_the_order_of_joining(tmp_path: Path) -> None:
    """The order of the labels counts, and not that of the predictions."""
    with new(tmp_path) as inbox:
        inbox.record(make_many(0, 4))
        outcomes(inbox, ("p2", 0), ("nobody", 1), ("p0", 0))
        outcomes(inbox, ("p3", 1))
        assert ["p2", "p0", "p3"] == [each.id for each in inbox.joined(0, 10)]
        assert [1, 2] == [each.position for each in inbox.joined(1, 2)]
        assert [] == inbox.joined(3, 5)


def test_a_label_joins_once(tmp_path: Path) -> None:
    """The same label again is a duplicate, another one conflicts, and the first one stays."""
    with new(tmp_path) as inbox:
        inbox.record([make_answered("a")])
        expected = ["joined", "duplicate", "conflicting"]
        assert expected == outcomes(inbox, ("a", 1), ("a", 1.0), ("a", "1"))
        assert ["conflicting", "duplicate"] == outcomes(inbox, ("a", True), ("a", 1))
        assert [(0, 1)] == [(each.position, each.label) for each in inbox.joined(0, 10)]


def test_a_label_that_comes_before_its_prediction_is_unknown(tmp_path: Path) -> None:
    """It is not kept: it joins when it is sent again after the prediction."""
    with new(tmp_path) as inbox:
        assert ["unknown"] == outcomes(inbox, ("a", 1))
        inbox.record([make_answered("a")])
        assert ["joined"] == outcomes(inbox, ("a", 1))


def test_equal_content_is_recorded_once(tmp_path: Path) -> None:
    """A call that is repeated changes nothing, wherever the prediction has come to meanwhile."""
    given = [make_answered(each) for each in ("waits", "joins", "is forgotten")]
    other_order = given[0]._replace(features=dict(reversed([*given[0].features.items()])))
    with new(tmp_path) as inbox:
        inbox.record([*given, given[0]])
        outcomes(inbox, ("is forgotten", 1), ("joins", 1))
        inbox.forget(1)
        commits = inbox.commits
        inbox.record([*given, other_order])
        assert commits == inbox.commits
        counts = inbox.counts()
    assert (3, 1, 2) == (counts.recorded, counts.waiting, counts.joined)


@pytest.mark.parametrize("known", ["waits", "joins", "expires", "is forgotten", "comes twice"])
def test_other_content_under_a_known_id_is_refused(tmp_path: Path, known: str) -> None:
    """The error names the id, the first one stays, and nothing of the call is recorded."""
    with new(tmp_path, longest_wait_s=1_000) as inbox:
        inbox.record([make_answered("expires", -5_000.0)])
        inbox.record([make_answered(each) for each in ("waits", "joins", "is forgotten")])
        outcomes(inbox, ("is forgotten", 1), ("joins", 1))
        inbox.forget(1)
        before = inbox.counts()
        with pytest.raises(RecordConflict, match=f"'{known}'") as refused:
            inbox.record(
                [make_answered("other"), make_answered("comes twice"), make_answered(known, x=2)]
            )
        assert known == refused.value.id
        assert before == inbox.counts()


@pytest.mark.parametrize(
    "other",
    [
        make_answered("a", 101.0),
        make_answered("a", price=3.0, zone="01"),
        make_answered("a", price=3, zone=1),
        make_answered("a")._replace(answers={}),
        make_answered("a")._replace(versions={"champion": "v000004000"}),
    ],
)
def test_each_part_of_a_prediction_is_compared(tmp_path: Path, other: Any) -> None:
    """Another moment, type, answer or version is other content."""
    with new(tmp_path) as inbox:
        inbox.record([make_answered("a")])
        with pytest.raises(RecordConflict):
            inbox.record([other])


def test_a_prediction_is_found_by_its_id_until_it_is_dropped(tmp_path: Path) -> None:
    """Whether its label has come or not, exactly as it was recorded."""
    with new(tmp_path, longest_wait_s=1_000) as inbox:
        inbox.record([make_answered("expires", -5_000.0)])
        inbox.record([make_answered(each) for each in ("waits", "joins", "is forgotten")])
        outcomes(inbox, ("is forgotten", 1), ("joins", 1))
        inbox.forget(1)
        found = inbox.find(["waits", "unknown", "expires", "joins", "is forgotten", "waits"])
    assert {each: make_answered(each) for each in ("waits", "joins")} == found


def test_the_oldest_expire_where_too_many_wait(tmp_path: Path) -> None:
    """By when they were made, and not by when they were recorded; their labels are told so."""
    with new(tmp_path, most_waiting=2) as inbox:
        inbox.record([make_answered("newest", 300.0)])
        inbox.record([make_answered("oldest", 100.0), make_answered("middle", 200.0)])
        counts = inbox.counts()
        assert (2, 1) == (counts.waiting, counts.expired)
        expected = ["expired", "joined", "joined"]
        assert expected == outcomes(inbox, ("oldest", 1), ("middle", 1), ("newest", 1), at=300.0)


def test_a_prediction_expires_after_its_longest_wait(tmp_path: Path) -> None:
    """A label that comes at the bound joins; one that comes later finds it expired."""
    with new(tmp_path, longest_wait_s=60) as inbox:
        inbox.record([make_answered("a", 100.0), make_answered("b", 100.0)])
        assert ["joined"] == outcomes(inbox, ("a", 1), at=160.0)
        assert ["expired"] == outcomes(inbox, ("b", 1), at=160.5)
        assert 1 == inbox.counts().expired


def test_a_new_prediction_lets_late_ones_expire(tmp_path: Path) -> None:
    """Nobody has to label, or to ask."""
    with new(tmp_path, longest_wait_s=60) as inbox:
        inbox.record([make_answered("a", 100.0), make_answered("b", 101.0)])
        inbox.record([make_answered("c", 161.0)])
        assert (2, 1) == (inbox.counts().waiting, inbox.counts().expired)


def test_predictions_expire_without_calls_when_asked_to(tmp_path: Path) -> None:
    """`expire` says how many, and does nothing the second time."""
    with new(tmp_path, longest_wait_s=60) as inbox:
        inbox.record(make_many(0, 3))
        assert [2, 0] == [inbox.expire(161.5), inbox.expire(161.5)]
        assert (1, 2) == (inbox.counts().waiting, inbox.counts().expired)


@pytest.fixture
def _few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three expire in one transaction, beside as many as it records."""
    monkeypatch.setattr("models.inbox.tables.EXPIRED_AT_ONCE", 3)


@pytest.mark.usefixtures("_few_at_once")
def test_many_that_are_late_expire_in_pieces(tmp_path: Path) -> None:
    """Others may write between two of them."""
    with new(tmp_path, longest_wait_s=60) as inbox:
        inbox.record(make_many(0, 28))
        commits = inbox.commits
        assert 18 == inbox.expire(178.0)
        assert commits + 6 == inbox.commits


@pytest.mark.usefixtures("_few_at_once")
def test_a_label_that_is_late_is_told_so_while_others_expire_first(tmp_path: Path) -> None:
    """It does not join, however many are late beside it."""
    with new(tmp_path, longest_wait_s=60) as inbox:
        inbox.record(make_many(0, 10))
        assert ["expired", "joined"] == outcomes(inbox, ("p7", 1), ("p8", 1), at=168.0)
        assert (6, 3) == (inbox.counts().waiting, inbox.counts().expired)


@pytest.mark.usefixtures("_few_at_once")
def test_one_call_may_bring_more_than_expire_at_once(tmp_path: Path) -> None:
    """The bound holds after it, since as many more expire as it has brought."""
    with new(tmp_path, most_waiting=5) as inbox:
        inbox.record(make_many(0, 20))
        assert (5, 15) == (inbox.counts().waiting, inbox.counts().expired)
        assert ["joined"] == outcomes(inbox, ("p15", 1))


def test_as_many_ids_as_the_bound_says_are_remembered(tmp_path: Path) -> None:
    """The one that expired first becomes unknown first."""
    with new(tmp_path, most_waiting=1, most_remembered=2) as inbox:
        inbox.record(make_many(0, 4))
        assert 2 == inbox.counts().remembered
        expected = ["unknown", "expired", "expired", "joined"]
        assert expected == outcomes(inbox, *((f"p{index}", 1) for index in range(4)))


def test_joined_examples_are_dropped_only_when_told_to(tmp_path: Path) -> None:
    """Neither bound drops one; `forget` does, and no position is given away again."""
    with new(tmp_path, most_waiting=1, longest_wait_s=1) as inbox:
        for given in make_many(0, 3):
            inbox.record([given])
            outcomes(inbox, (given.id, 1), at=given.predicted_at)
        inbox.expire(1e9)
        assert 3 == len(inbox.joined(0, 10))
        assert [2, 0] == [inbox.forget(2), inbox.forget(2)]
        counts = inbox.counts()
        assert (3, 2) == (counts.joined, counts.first_position)
        assert ["p2"] == [each.id for each in inbox.joined(2, 10)]
        with pytest.raises(PositionsForgotten, match="from position 2 on"):
            inbox.joined(1, 2)
        inbox.forget(3)
        inbox.record([make_answered("new", 1e9)])
        assert [("new", "joined", 3)] == inbox.label([("new", 1)], at=1e9)


def test_a_forgotten_label_still_joins_once(tmp_path: Path) -> None:
    """Its id and its label are remembered: a label that is sent again is told what it is."""
    with new(tmp_path) as inbox:
        inbox.record([make_answered("a")])
        outcomes(inbox, ("a", 1))
        inbox.forget(1)
        expected = [("a", "duplicate", 0), ("a", "conflicting", 0)]
        assert expected == inbox.label([("a", 1), ("a", 2)], at=300.0)


def test_many_are_forgotten_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may write between two of them."""
    monkeypatch.setattr("models.inbox.inbox._FORGET_AT_ONCE", 2)
    with new(tmp_path) as inbox:
        inbox.record(make_many(0, 7))
        outcomes(inbox, *((f"p{index}", index) for index in range(7)))
        commits = inbox.commits
        assert 5 == inbox.forget(5)
        assert commits + 3 == inbox.commits
        assert ["p5", "p6"] == [each.id for each in inbox.joined(5, 10)]


def test_two_threads_share_one_commit(tmp_path: Path) -> None:
    """Calls that wait while another commit is on its way are committed together."""
    with new(tmp_path) as inbox:
        inbox.record([make_answered("a")])
        commits, results = inbox.commits, []

        def label() -> None:
            results.extend(inbox.label([("a", 1)], at=200.0))

        def record() -> None:
            inbox.record([make_answered("b")])

        in_one_group(inbox, record, label)
        assert commits + 1 == inbox.commits
        assert [("a", "joined", 0)] == results
        assert ["joined"] == outcomes(inbox, ("b", 1))


def test_a_conflict_fails_its_own_call_alone(tmp_path: Path) -> None:
    """The others of its group are committed."""
    refused: list[Exception] = []
    with new(tmp_path) as inbox:
        inbox.record([make_answered("a")])

        def conflict() -> None:
            try:
                inbox.record([make_answered("b"), make_answered("a", x=2)])
            except RecordConflict as error:
                refused.append(error)

        in_one_group(inbox, conflict, lambda: inbox.record([make_answered("c")]))
        assert 1 == len(refused)
        expected = ["joined", "unknown", "joined"]
        assert expected == outcomes(inbox, ("a", 1), ("b", 1), ("c", 1))


def test_what_changes_nothing_is_no_commit(tmp_path: Path) -> None:
    """Unknown labels, duplicates and empty calls cost no write."""
    with new(tmp_path) as inbox:
        inbox.record([make_answered("a")])
        outcomes(inbox, ("a", 1))
        commits = inbox.commits
        inbox.record([])
        assert [] == inbox.label([], at=300.0)
        outcomes(inbox, ("a", 1), ("a", 2), ("nobody", 3), at=900.0)
        assert commits == inbox.commits


def test_many_threads_lose_and_double_nothing(tmp_path: Path) -> None:
    """Each thread records and labels its own; positions are dense over all."""
    with new(tmp_path) as inbox:

        def work(thread: int) -> None:
            for number in range(25):
                given = make_answered(f"{thread}-{number}", x=number)
                inbox.record([given])
                assert ["joined"] == outcomes(inbox, (given.id, number))

        threads = [threading.Thread(target=work, args=[each]) for each in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        joined = inbox.joined(0, 1_000)
    assert list(range(200)) == [each.position for each in joined]
    assert {f"{t}-{n}" for t in range(8) for n in range(25)} == {each.id for each in joined}
    assert all(each.features == {"x": each.label} for each in joined)


def test_all_is_there_after_it_was_opened_again(tmp_path: Path) -> None:
    """What waits, what has joined, what expired, and the counts."""
    with new(tmp_path, most_waiting=2) as inbox:
        inbox.record(make_many(0, 3))
        outcomes(inbox, ("p1", 1))
        before = (inbox.counts(), inbox.joined(0, 10), inbox.identity, inbox.latency())
    with new(tmp_path, most_waiting=2) as inbox:
        assert before == (inbox.counts(), inbox.joined(0, 10), inbox.identity, inbox.latency())
        expected = ["expired", "duplicate", "joined"]
        assert expected == outcomes(inbox, ("p0", 1), ("p1", 1), ("p2", 1))


def test_a_bound_that_was_lowered_holds_after_the_next_call(tmp_path: Path) -> None:
    """What is too much by the new bound expires, oldest first, 10,000 with each call."""
    with new(tmp_path) as inbox:
        inbox.record(make_many(0, 10))
    with new(tmp_path, most_waiting=3) as inbox:
        inbox.record(make_many(10, 1))
        assert (3, 8) == (inbox.counts().waiting, inbox.counts().expired)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (make_answered(price=float("nan")), r"features of the prediction 'a'\['price'\] is nan"),
        (make_answered(seen=[1, {"at": float("inf")}]), r"\['seen'\]\[1\]\['at'\] is inf"),
        (make_answered(when=(1, 2)), r"\['when'\] is of type tuple"),
        (make_answered(inner={1: 2}), r"\['inner'\] has the key 1"),
        (make_answered()._replace(answers={"served": {"value": float("nan")}}), r"\['served'\]"),
        (make_answered()._replace(versions={"position": -float("inf")}), r"\['position'\]"),
        (make_answered(""), "1 to 256 characters"),
        (make_answered("a" * 257), "1 to 256 characters"),
        (make_answered("\ud800"), "1 to 256 characters"),
        (make_answered(predicted_at=float("nan")), "predicted_at of the prediction 'a'"),
    ],
)
def test_what_cannot_be_stored_exactly_is_refused_by_name(
    tmp_path: Path, given: Any, named: str
) -> None:
    """The message names the key, and nothing of the call is recorded."""
    with new(tmp_path) as inbox:
        with pytest.raises(InvalidContent, match=named):
            inbox.record([make_answered("fine"), given])
        assert 0 == inbox.counts().recorded


@pytest.mark.parametrize("label", [float("nan"), float("inf"), None, [1], {"a": 1}])
def test_a_label_that_is_none_is_refused(tmp_path: Path, label: Any) -> None:
    """The message names the prediction, and no label of the call joins."""
    with new(tmp_path) as inbox:
        inbox.record([make_answered("a"), make_answered("b")])
        with pytest.raises(InvalidContent, match="the label of 'b'"):
            inbox.label([("a", 1), ("b", label)], at=200.0)
        with pytest.raises(InvalidContent, match="the moment of labels"):
            inbox.label([("a", 1)], at=float("nan"))
        assert 0 == inbox.counts().joined


def test_a_closed_inbox_says_so(tmp_path: Path) -> None:
    """Every call raises, and it may be closed again."""
    inbox = new(tmp_path)
    inbox.close()
    inbox.close()
    with pytest.raises(InboxClosed):
        inbox.record([make_answered()])
    with pytest.raises(InboxClosed):
        inbox.counts()


@pytest.mark.parametrize("numbers", [(-1, 1), (0, -1)])
def test_negative_positions_are_refused(tmp_path: Path, numbers: tuple[int, int]) -> None:
    """They would mean something else to SQLite."""
    with new(tmp_path) as inbox, pytest.raises(ValueError, match="0 or more"):
        inbox.joined(*numbers)


OTHER_PROCESS = """
import sys
from pathlib import Path
from models.inbox.inbox import Inbox, open_reader
from models.inbox.errors import InboxBusy
path = Path(sys.argv[1])
with open_reader(path) as reader:
    print([each.id for each in reader.joined(0, 10)], reader.counts().waiting)
    print(reader.latency(200.0).labelled)
try:
    Inbox.open(path)
except InboxBusy as error:
    print(error.exit_code, error)
"""


def test_another_process_reads_and_does_not_write(tmp_path: Path) -> None:
    """It sees what is committed; to write it is told who does, and what to do."""
    with new(tmp_path) as inbox:
        inbox.record(make_many(0, 3))
        outcomes(inbox, ("p1", 1))
        other = subprocess.run(
            [sys.executable, "-c", OTHER_PROCESS, tmp_path / FILE],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        outcomes(inbox, ("p2", 1))
    assert "" == other.stderr
    read, labelled, refused = other.stdout.splitlines()
    assert ("['p1'] 2", "1") == (read, labelled)
    assert refused.startswith("75 ")
    assert "Stop that one, or open it to read" in refused


def test_one_object_of_a_process_writes(tmp_path: Path) -> None:
    """A second one is refused until the first is closed, by whichever thread."""
    inbox = new(tmp_path)
    with pytest.raises(InboxBusy):
        new(tmp_path)
    closer = threading.Thread(target=inbox.close)
    closer.start()
    closer.join()
    new(tmp_path).close()


def test_a_reader_sees_each_commit_and_outlives_the_writer(tmp_path: Path) -> None:
    """It needs no new opening, and keeps nobody from writing."""
    inbox = new(tmp_path)
    with open_reader(tmp_path / FILE) as reader:
        for count in range(1, 4):
            inbox.record(make_many(count, 1))
            assert count == reader.counts().waiting
        inbox.close()
        assert 3 == reader.counts().waiting
        with new(tmp_path) as inbox:
            outcomes(inbox, ("p1", 1))
            assert ["p1"] == [each.id for each in reader.joined(0, 10)]


def test_a_reader_sees_one_state_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is forgotten while it reads is still there for it: no position is left out."""
    with new(tmp_path) as inbox, open_reader(tmp_path / FILE) as reader:
        inbox.record(make_many(0, 4))
        outcomes(inbox, *((f"p{index}", 1) for index in range(3)))

        def read_and_then_forget(connection: sqlite3.Connection) -> Totals:
            totals = Totals.read(connection)
            inbox.forget(2)
            return totals

        meanwhile = SimpleNamespace(read=read_and_then_forget)
        monkeypatch.setattr("models.inbox.reader.Totals", meanwhile)
        assert [0, 1, 2] == [each.position for each in reader.joined(0, 10)]
        with pytest.raises(PositionsForgotten):
            reader.joined(0, 10)


def test_commits_wait_for_the_disk_unless_told_otherwise(tmp_path: Path) -> None:
    """SQLite's synchronous is FULL (2), which a power cut needs; NORMAL (1) where asked for."""
    for asked, expected in ((InboxConfig(), 2), (InboxConfig(synchronous="normal"), 1)):
        with Inbox.open(tmp_path / FILE, asked) as inbox:
            found = inbox._connection.execute("PRAGMA synchronous").fetchone()
            assert (expected,) == found
            assert ("wal",) == inbox._connection.execute("PRAGMA journal_mode").fetchone()


@pytest.mark.parametrize("mistake", [{"most_waiting": 0}, {"longest_wait_s": 0}, {"most": 1}])
def test_bounds_that_make_no_sense_are_refused(mistake: dict[str, Any]) -> None:
    """Nothing could wait, and unknown keys are mistakes."""
    with pytest.raises(ValidationError):
        InboxConfig(**mistake)


def test_the_newest_that_wait_can_be_looked_at(tmp_path: Path) -> None:
    """As they were recorded, the newest first; none that has joined or expired."""
    with new(tmp_path, most_waiting=4) as inbox:
        inbox.record(make_many(0, 6))
        outcomes(inbox, ("p4", 1))
        assert ["p5", "p3", "p2"] == [each.id for each in inbox.newest_waiting(10)]
        assert make_many(5, 1) == inbox.newest_waiting(1)
        inbox.record([make_answered("old", predicted_at=50.0)])
        assert "old" == inbox.newest_waiting(10)[-1].id
