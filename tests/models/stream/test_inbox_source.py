"""A stream of labelled predictions, alone and after a file; `test_source_contract` has the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.core.prediction import MemberAnswer
from models.inbox.inbox import Answered, Inbox, InboxConfig
from models.stream.source import (
    BadStream,
    Cursor,
    NothingToBeginWith,
    Stream,
    StreamChanged,
    StreamOptions,
    StreamUnreadable,
)
from tests.models.makers import make_inbox, make_schema, make_stream, read_all

PAST = "a,b,y\n1,red,0\n2,blue,1\n"
SCHEMA = make_schema("classification", "int", {"a": "number", "b": "category"}, "y")
VERSIONS = {"champion": "v000000200", "position": 300, "lineage": "5ad1f0c2"}


def make_both(folder: Path, *examples: dict[str, Any], past: str = PAST) -> Stream:
    """A file of two records, and the inbox that follows it."""
    if examples:
        make_inbox(folder / "past.split.inbox", list(examples))
    return make_stream(folder / "past.split.csv", past, schema=SCHEMA)


def label(path: Path, *answered: Answered, label: Any = 1) -> None:
    """Record these predictions, and give each of them the label."""
    with Inbox.open(path, InboxConfig(synchronous="normal")) as inbox:
        inbox.record(answered)
        inbox.label([(each.id, label) for each in answered], 200.0)


def test_examples_follow_the_last_record_of_the_file(tmp_path: Path) -> None:
    """At the next positions; and each has beside it what was answered, which a file's has not."""
    stream = make_both(tmp_path, {"a": 3, "b": "red", "y": 1}, {"a": 4, "y": 0})
    batch = stream.read(Cursor(), 10)
    assert [0, 1, 2, 3] == batch.positions
    assert [0, 1, 1, 0] == batch.labels
    assert {"a": 4.0, "b": None} == batch.rows[3]
    assert [False, False, True, True] == [each is not None for each in batch.given]
    assert batch.ended


def test_the_file_may_grow_until_the_first_example_was_read(tmp_path: Path) -> None:
    """A pipeline may be served before its file has come to its end."""
    stream = make_both(tmp_path)
    end = stream.read(Cursor(), 10).after
    assert (2, None) == (end.position, end.inbox)
    path = tmp_path / "past.split.csv"
    path.write_text(PAST + "3,red,1\n")
    make_inbox(tmp_path / "past.split.inbox", [{"a": 9, "b": "red", "y": 0}])
    batch = make_stream(path, schema=SCHEMA).read(end, 10)
    assert [(2, 3.0), (3, 9.0)] == [
        (position, row["a"]) for position, row in zip(batch.positions, batch.rows, strict=True)
    ]


def test_a_file_that_grows_after_its_end_was_passed_is_refused(tmp_path: Path) -> None:
    """Its new record would have the position of an example: it is said what to do, each time."""
    stream = make_both(tmp_path, {"a": 3, "b": "red", "y": 1})
    after = stream.read(Cursor(), 10).after
    path = tmp_path / "past.split.csv"
    path.write_text(PAST + "3,red,1\n")
    for reader in (stream, make_stream(path, schema=SCHEMA)):
        with pytest.raises(StreamChanged, match=r"passed at record 2.*another name"):
            reader.read(after, 10)
    path.write_text(PAST)
    make_inbox(tmp_path / "past.split.inbox", [{"a": 3, "b": "red", "y": 1}, {"a": 4, "y": 0}])
    assert [3] == stream.read(after, 10).positions


def test_a_record_that_is_not_whole_yet_keeps_the_examples_waiting(tmp_path: Path) -> None:
    """Else it would come too late; the batch says how many bytes wait."""
    stream = make_both(tmp_path, {"a": 3, "b": "red", "y": 1}, past=PAST + "3,")
    batch = stream.read(Cursor(), 10)
    assert ([0, 1], True, 2) == (batch.positions, batch.ended, batch.unfinished)
    (tmp_path / "past.split.csv").write_text(PAST + "3,red,1\n")
    assert [2, 3] == stream.read(batch.after, 10).positions


def test_a_range_is_read_again_without_the_file_where_it_needs_none_of_it(tmp_path: Path) -> None:
    """Years of the past need not be kept for the newest window."""
    stream = make_both(tmp_path, *({"a": index, "b": "red", "y": 1} for index in range(5)))
    after = stream.read(Cursor(), 10).after
    expected = stream.between(3, 6, [after])
    assert [3, 4, 5] == expected.positions
    (tmp_path / "past.split.csv").unlink()
    alone = Stream(
        tmp_path / "past.split.inbox",
        "classification",
        StreamOptions(path="service:asked", target="y"),
        SCHEMA,
        tmp_path / "past.split.inbox",
    )
    again = alone.between(0, 6, [after])
    assert [2, 3, 4, 5] == again.positions
    assert expected.rows == again.rows[1:]


def test_a_pipeline_that_began_with_a_file_may_go_on_with_a_service_alone(tmp_path: Path) -> None:
    """Positions go on, and the window begins with the first example."""
    end = read_all(make_both(tmp_path))[-1].after
    path = tmp_path / "other.inbox"
    make_inbox(path, [{"a": 3, "b": "red", "y": 1}])
    stream = make_stream(path, schema=SCHEMA)
    batch = stream.read(end, 10)
    assert ([2], True) == (batch.positions, batch.ended)
    assert [2] == stream.between(0, 3, [batch.after]).positions
    assert [] == stream.between(0, 2, [end]).positions


def test_a_pipeline_that_learned_from_a_service_cannot_forget_it(tmp_path: Path) -> None:
    """The file alone would go on at positions that are taken."""
    after = make_both(tmp_path, {"a": 3, "b": "red", "y": 1}).read(Cursor(), 10).after
    stream = make_stream(tmp_path / "past.split.csv", schema=SCHEMA, then="")
    with pytest.raises(StreamChanged, match=r'1 labelled predictions.*then = "service:NAME"'):
        stream.read(after, 10)


def test_without_an_example_there_is_no_schema_yet(tmp_path: Path) -> None:
    """Nothing is wrong, and nothing can be done: exit code 75."""
    stream = make_stream(tmp_path / "new.inbox")
    with pytest.raises(NothingToBeginWith, match="Run again when labels have come") as caught:
        _ = stream.schema
    assert 75 == caught.value.exit_code
    assert make_stream(tmp_path / "new.inbox", schema=SCHEMA).read(Cursor(), 5).ended


def test_a_service_needs_a_home(tmp_path: Path) -> None:
    """The laboratory has none."""
    with pytest.raises(BadStream, match=r"service:asked cannot be read here.*stream\.then"):
        Stream(
            tmp_path / "a.csv",
            "classification",
            StreamOptions(path="a.csv", target="y", then="service:asked"),
        )


def test_forgotten_examples_are_an_error_with_numbers(tmp_path: Path) -> None:
    """Learning on behind them would skip records without a word."""
    path = tmp_path / "a.inbox"
    make_inbox(path, [{"a": index, "b": "red", "y": 1} for index in range(5)])
    stream = make_stream(path, schema=SCHEMA)
    after = stream.read(Cursor(), 2).after
    with Inbox.open(path) as inbox:
        inbox.forget(4)
    with pytest.raises(StreamChanged, match="from position 4 on, and 2 was asked for"):
        stream.read(after, 2)
    with pytest.raises(StreamChanged, match="from position 4 on, and 1 was asked for"):
        stream.between(1, 5, [after])


def test_what_was_learned_may_be_forgotten(tmp_path: Path) -> None:
    """Reading goes on behind it."""
    path = tmp_path / "a.inbox"
    make_inbox(path, [{"a": index, "b": "red", "y": 1} for index in range(5)])
    stream = make_stream(path, schema=SCHEMA)
    after = stream.read(Cursor(), 3).after
    with Inbox.open(path) as inbox:
        inbox.forget(3)
    assert [3, 4] == stream.read(after, 5).positions


def test_an_older_copy_of_the_inbox_is_refused(tmp_path: Path) -> None:
    """It has the same identity; what joins it anew would get positions that are learned."""
    path = tmp_path / "a.inbox"
    records = [{"a": index, "b": "red", "y": 1} for index in range(5)]
    make_inbox(path, records[:3])
    older = path.read_bytes()
    make_inbox(path, records)
    after = make_stream(path, schema=SCHEMA).read(Cursor(), 5).after
    path.write_bytes(older)
    with pytest.raises(StreamChanged, match="it had 5 examples and has 3"):
        make_stream(path, schema=SCHEMA).read(after, 5)
    make_inbox(path, [*records[:3], *({"a": -1, "b": "red", "y": 0} for _ in range(4))])
    with pytest.raises(StreamChanged, match=r"last example that was read is another one.*record 5"):
        make_stream(path, schema=SCHEMA).read(after, 5)


def test_an_inbox_that_is_gone_or_damaged_is_said(tmp_path: Path) -> None:
    """It is not taken for one without examples."""
    path = tmp_path / "a.inbox"
    make_inbox(path, [{"a": 1, "b": "red", "y": 1}])
    stream = make_stream(path, schema=SCHEMA)
    after = stream.read(Cursor(), 1).after
    path.write_bytes(b"x" * 4096)
    with pytest.raises(StreamUnreadable, match="cannot be read as an inbox"):
        stream.read(after, 1)
    path.unlink()
    with pytest.raises(StreamChanged, match="it is gone"):
        stream.read(after, 1)


def test_an_example_that_does_not_fit_is_a_reject_with_its_reason(tmp_path: Path) -> None:
    """By the rules of a line of JSON; it keeps its position."""
    path = tmp_path / "a.inbox"
    make_inbox(
        path,
        [
            {"a": "high", "b": "red", "y": 1},
            {"a": 1, "b": "red", "y": "often"},
            {"a": 1, "b": "red", "z": 5, "y": 1},
            {"a": "2.5", "b": "red", "y": 1},
        ],
    )
    batch = make_stream(path, schema=SCHEMA).read(Cursor(), 9)
    assert [(0, "cell"), (1, "label")] == [(each.position, each.kind) for each in batch.rejects]
    assert '{"a": "high", "b": "red", "y": 1}' == batch.rejects[0].raw
    assert [2, 3] == batch.positions
    assert ["new column"] == [each.kind for each in batch.notices]
    strict = make_stream(path, schema=SCHEMA, new_columns="reject").read(Cursor(), 9)
    assert [0, 1, 2] == [each.position for each in strict.rejects]
    lenient = make_stream(path, schema=SCHEMA, unfit_cells="missing").read(Cursor(), 9)
    assert {"a": None, "b": "red"} == lenient.rows[0]


def test_a_label_of_another_column_is_not_learned(tmp_path: Path) -> None:
    """A feature that is taken for the target would lose its value, and get another's label."""
    stream = make_both(tmp_path, {"a": 3, "b": "red", "y": 1})
    inbox = tmp_path / "past.split.inbox"
    label(inbox, Answered("x", 100.0, {"a": 3, "b": "red", "y": 0}, {}, VERSIONS))
    after = stream.read(Cursor(), 3).after
    with pytest.raises(BadStream, match=r"stream\.target: 'y' is a feature"):
        stream.read(after, 10)


def test_what_was_answered_stays_with_its_record(tmp_path: Path) -> None:
    """Also where a record before it is rejected, and where a range is taken."""
    path = tmp_path / "a.inbox"
    answers = {
        "served": {"value": 1, "probabilities": {"0": 0.25, "1": 0.75}},
        "batch": {"value": None, "probabilities": None},
        "linear": "nonsense",
        "tree": {"value": 5, "probabilities": {"0": 1.0}},
    }
    label(path, Answered("odd", 100.0, {"a": "high"}, {}, {}))
    label(path, Answered("well", 100.0, {"a": 2}, answers, VERSIONS))
    label(path, Answered("bare", 100.0, {"a": 3}, {}, {}))
    batch = make_stream(path, schema=SCHEMA).read(Cursor(), 9)
    assert [1, 2] == batch.positions
    given = batch.given[0]
    assert given is not None
    assert {"served": MemberAnswer(1, {0: 0.25, 1: 0.75})} == given.members
    assert ("v000000200", 300, "5ad1f0c2") == (given.champion, given.position, given.lineage)
    assert given == batch.take([0]).given[0] == batch.slice(0, 1).given[0]
    assert {} == batch.slice(1).given[0].members  # type: ignore[union-attr]  # it is there


def test_a_large_batch_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that memory is bounded; the next read goes on."""
    monkeypatch.setattr("models.inbox.reader.LARGEST_READ", 1_000)
    path = tmp_path / "a.inbox"
    make_inbox(path, [{"a": index, "b": "r" * 400, "y": 1} for index in range(9)])
    stream = make_stream(path, schema=SCHEMA)
    batches = read_all(stream)
    assert len(batches) > 2
    assert list(range(9)) == [position for each in batches for position in each.positions]
    assert list(range(9)) == stream.between(0, 9, [batches[-1].after]).positions
