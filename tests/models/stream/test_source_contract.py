"""The contract that every stream source keeps, in any format and packing; options; errors.

A new source is one more line of `SOURCES`: each test that takes `path` then runs over it.
"""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from models.stream.source import (
    BadStream,
    Batch,
    Cursor,
    Stream,
    StreamChanged,
    StreamOptions,
    StreamUnreadable,
    downsample,
)
from tests import ROOT
from tests.models.makers import PACKERS, make_inbox, make_schema, make_stream, read_all, records_of

RECORDS: list[dict[str, Any]] = [
    {"a": index / 7, "b": "red" if index % 3 else None, "y": index % 2} for index in range(257)
]
KINDS = ("csv", "jsonl", "parquet")
FILES = (*KINDS, *(f"csv{ending}" for ending in PACKERS if ending), "jsonl.gz")
SOURCES = (*FILES, "inbox", "split.csv")
SPLIT = 60
"""Records of a file that is followed by an inbox."""


def make_file(folder: Path, kind: str, records: list[dict[str, Any]] | None = None) -> Path:
    """The records as a file of that kind, packed as its ending says; Parquet in groups of 50."""
    path = folder / f"stream.{kind}"
    if records is None:
        records = RECORDS
    form, dot, packed = kind.partition(".")
    if form in {"inbox", "split"}:
        first = SPLIT if form == "split" else 0
        make_inbox(path.with_suffix(".inbox"), records[first:])
        records = records[:first]
        if not records:
            return path
        form, packed = "csv", ""
        dot = ""
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path, row_group_size=50)
        return path
    if form == "csv":
        lines = [",".join("" if v is None else str(v) for v in r.values()) for r in records]
        text = "\n".join([",".join(records[0]), *lines, ""])
    else:
        text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_bytes(PACKERS[dot + packed](text.encode()))
    return path


def rewrite(path: Path, records: list[dict[str, Any]]) -> None:
    """Put other records into the file, in the same format and packing."""
    make_file(path.parent, path.name.partition(".")[2], records)


@pytest.fixture(params=SOURCES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same records from every source in turn."""
    return make_file(tmp_path, request.param)


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same records from every source that is one file."""
    return make_file(tmp_path, request.param)


def test_every_format_gives_the_same_rows_labels_and_schema(path: Path) -> None:
    """A number is a float, a category a text, missing is None; keys come in the file's order."""
    stream = make_stream(path)
    batch = stream.read(Cursor(), 1000)
    assert [{"a": r["a"], "b": r["b"]} for r in RECORDS] == batch.rows
    assert ["a", "b"] == list(batch.rows[0])
    assert [r["y"] for r in RECORDS] == batch.labels
    assert (0, 257, list(range(257)), True) == (
        batch.first,
        batch.last,
        batch.positions,
        batch.ended,
    )
    assert make_schema("classification", "int", {"a": "number", "b": "category"}, "y") == (
        stream.schema.model_copy(update={"seen": ()})
    )


@pytest.mark.parametrize("size", [1, 50, 256])
def test_however_reading_is_cut_the_records_are_the_same(path: Path, size: int) -> None:
    """Also when every piece is read by another stream object, as after a restart."""
    whole = records_of(read_all(make_stream(path)))
    cursor = Cursor()
    pieces: list[Batch] = []
    while not pieces or not pieces[-1].ended:
        pieces.append(make_stream(path).read(cursor, size))
        cursor = Cursor.model_validate_json(pieces[-1].after.model_dump_json())
    assert whole == records_of(pieces)
    assert all(piece.last - piece.first == size for piece in pieces[:-1])
    assert read_all(make_stream(path))[-1].after == cursor


def test_at_the_end_a_further_read_gives_an_empty_batch(path: Path) -> None:
    """The end is where reading goes on once the file has grown; also after a restart."""
    stream = make_stream(path)
    end = read_all(stream)[-1].after
    for reader in (stream, make_stream(path)):
        batch = reader.read(end, 10)
        assert (257, 257, [], True) == (batch.first, batch.last, batch.rows, batch.ended)
        assert end == batch.after


def test_a_range_read_again_is_what_was_read_the_first_time(path: Path) -> None:
    """Whatever marks the caller kept: all, few, or none."""
    stream = make_stream(path)
    batches = read_all(stream, size=20)
    marks = [batch.after for batch in batches]
    expected = records_of(batches)[33:111]
    for kept in (marks, marks[::4], []):
        batch = stream.between(33, 111, kept)
        assert (33, 111, expected) == (batch.first, batch.last, records_of([batch]))
    assert records_of(batches) == records_of([stream.between(0, 999, marks)])


@pytest.mark.parametrize("first", [0, 5, 257, 400])
def test_an_empty_range_gives_an_empty_batch(path: Path, first: int) -> None:
    """Beyond the end too."""
    assert [] == make_stream(path).between(first, first).rows


KILLED = """
import os, signal, sys
from pathlib import Path
from models.stream.source import Cursor
from tests.models.makers import make_stream
for name in sys.argv[1:]:
    path = Path(name)
    after = make_stream(path).read(Cursor(), 100).after
    path.with_name(f"{path.name}.cursor").write_text(after.model_dump_json())
streams = [make_stream(Path(name)).read(Cursor(), 150) for name in sys.argv[1:]]
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_reader_that_is_killed_leaves_nothing_and_the_next_goes_on(tmp_path: Path) -> None:
    """From the cursor that was written down, over every source, in another process."""
    paths = [make_file(tmp_path, kind) for kind in SOURCES]
    killed = subprocess.run([sys.executable, "-c", KILLED, *map(str, paths)], cwd=ROOT)
    assert -signal.SIGKILL == killed.returncode
    for path in paths:
        written = path.with_name(f"{path.name}.cursor")
        cursor = Cursor.model_validate_json(written.read_text())
        expected = records_of(read_all(make_stream(path)))[100:]
        assert expected == records_of(read_all(make_stream(path), cursor))
        written.unlink()
    beside = {f"stream{'.split' * split}.inbox" for split in range(2)}
    left = [each for each in tmp_path.iterdir() if not each.name.startswith(tuple(beside))]
    assert sorted(path for path in paths if path.suffix != ".inbox") == sorted(left)


def test_reading_goes_on_after_a_range_was_read_again(path: Path) -> None:
    """A retrain's window does not move the stream."""
    stream = make_stream(path)
    first = stream.read(Cursor(), 100)
    stream.between(10, 20, [first.after])
    assert list(range(100, 200)) == stream.read(first.after, 100).positions


def test_a_file_that_grew_is_followed(path: Path) -> None:
    """From the record where reading had stopped; the guard sees that the old part is the same."""
    more = [{"a": 0.5, "b": "blue", "y": 1}] * 3
    stream = make_stream(path)
    end = read_all(stream)[-1].after
    rewrite(path, RECORDS + more)
    for reader in (stream, make_stream(path, schema=stream.schema)):
        batch = reader.read(end, 10)
        assert (257, 260) == (batch.first, batch.last)
        assert [{"a": 0.5, "b": "blue"}] * 3 == batch.rows


def test_a_file_that_shrank_is_no_longer_the_stream(path: Path) -> None:
    """Learning on from its new end would skip records without a word."""
    stream = make_stream(path)
    end = read_all(stream)[-1].after
    rewrite(path, RECORDS[:200])
    with pytest.raises(StreamChanged, match=r"bring the old file back, or start a pipeline"):
        stream.read(end, 10)


def test_a_file_that_lost_records_not_yet_read_is_no_longer_the_stream(path: Path) -> None:
    """It was seen to be longer: what is gone would have been learned."""
    stream = make_stream(path)
    middle = stream.read(Cursor(), 100).after
    rewrite(path, RECORDS[:200])
    with pytest.raises(StreamChanged, match=r"was (cut or )?rewritten"):
        stream.read(middle, 10)


def test_a_file_rewritten_before_the_cursor_is_no_longer_the_stream(path: Path) -> None:
    """The last record before the cursor tells."""
    stream = make_stream(path)
    middle = stream.read(Cursor(), 100).after
    other = [*RECORDS[:99], {"a": 9.25, "b": "red", "y": 1}, *RECORDS[100:], *RECORDS]
    rewrite(path, other)
    with pytest.raises(StreamChanged, match="100"):
        stream.read(middle, 10)


def test_columns_other_than_the_pinned_ones_are_no_longer_the_stream(tmp_path: Path) -> None:
    """The message names what went and what came."""
    for kind in ("csv", "parquet"):
        path = make_file(tmp_path, kind)
        schema = make_schema("classification", "int", {"a": "number", "c": "number"}, "y")
        with pytest.raises(StreamChanged, match=r"missing now: c\).*stream\.ignore"):
            make_stream(path, schema=schema).read(Cursor(), 10)


def test_a_column_that_is_ignored_by_now_is_missing_from_there_on(path: Path) -> None:
    """The models keep their features: the values of this one are missing."""
    schema = make_stream(path).schema
    batch = make_stream(path, schema=schema, ignore=("b",)).read(Cursor(), 3)
    assert [{"a": r["a"], "b": None} for r in RECORDS[:3]] == batch.rows


def test_a_pinned_schema_of_another_target_or_task_is_refused(path: Path) -> None:
    """Before anything is read."""
    with pytest.raises(StreamChanged, match="regression of 'y' is asked for"):
        make_stream(path, task="regression", schema=make_stream(path).schema)


def test_columns_can_be_left_out_and_their_kinds_given(path: Path) -> None:
    """stream.ignore and stream.categories win over the sample."""
    stream = make_stream(path, ignore=("b",), categories=("a",))
    assert [("a", "category")] == [(c.name, c.kind) for c in stream.schema.columns]
    assert {"a": repr(1 / 7)} == stream.read(Cursor(), 2).rows[1]


def test_a_regression_reads_its_labels_as_floats(path: Path) -> None:
    """Also where the file has whole numbers."""
    batch = make_stream(path, task="regression").read(Cursor(), 4)
    assert [0.0, 1.0, 0.0, 1.0] == batch.labels
    assert {float} == set(map(type, batch.labels))


def test_the_part_that_is_done_is_known(path: Path) -> None:
    """For a progress bar: 0 at the start, 1 at the end, and how many there are about."""
    stream = make_stream(path)
    batches = read_all(stream, size=100)
    fractions = [stream.done_fraction(batch.after) for batch in batches]
    assert 0.0 == stream.done_fraction(Cursor())
    assert 1.0 == fractions[-1]
    assert fractions[0] == pytest.approx(100 / 257, abs=0.05)
    assert stream.total_hint == pytest.approx(257, rel=0.05)


def test_what_is_done_of_a_file_that_went_is_unknown(path: Path) -> None:
    """A progress bar is no reason to fail."""
    stream = make_stream(path)
    after = stream.read(Cursor(), 10).after
    path.unlink()
    assert (None, None) == (stream.done_fraction(after), stream.total_hint)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"target": "z"}, r"stream\.target names the column 'z', which is not in the file"),
        ({"ignore": ("bb",)}, r"stream\.ignore names the column 'bb'.*did you mean 'b'\?"),
        ({"numbers": ("q",)}, r"stream\.numbers names the column 'q'"),
        ({"categories": ("q",)}, r"stream\.categories names the column 'q'"),
        ({"ignore": ("a", "b")}, "nothing is left to learn from"),
    ],
)
def test_a_column_that_is_not_there_is_bad_configuration(
    tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    """Exit code 78, with the file, the key and the columns that are there."""
    for kind in ("csv", "parquet"):
        with pytest.raises(BadStream, match=says) as caught:
            _ = make_stream(make_file(tmp_path, kind), **options).schema
        assert 78 == caught.value.exit_code


def test_json_lines_may_ignore_a_key_that_comes_later(tmp_path: Path) -> None:
    """But the target must be among the first records."""
    path = make_file(tmp_path, "jsonl")
    assert ["a", "b"] == make_stream(path, ignore=("later",)).schema.names
    with pytest.raises(BadStream, match="target"):
        _ = make_stream(path, target="z").schema


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["missing", "folder"])
def test_a_path_without_a_file_is_bad_configuration(tmp_path: Path, kind: str, what: str) -> None:
    """The message names stream.path."""
    path = tmp_path / f"none.{kind}"
    if what == "folder":
        path.mkdir()
    says = r"stream\.path: .*none"
    with pytest.raises(BadStream, match=says):
        _ = make_stream(path).schema
    with pytest.raises(BadStream, match=says):
        make_stream(path).read(Cursor(), 1)
    with pytest.raises(BadStream, match=says):
        make_stream(path).between(0, 1)


def test_an_ending_that_says_nothing_needs_a_format(tmp_path: Path) -> None:
    """And a format that is given is believed."""
    content = "a,y\n1,0\n2,1\n"
    with pytest.raises(BadStream, match=r"stream\.format"):
        make_stream(tmp_path / "data.txt", content)
    assert 2 == len(make_stream(tmp_path / "data.txt", content, format="csv").read(Cursor()).rows)


@pytest.mark.parametrize(
    ("name", "content"), [("e.csv", ""), ("e.csv", "a,y\n"), ("e.jsonl", ""), ("e.jsonl", "[1]\n")]
)
def test_a_file_without_a_readable_record_has_no_schema(
    tmp_path: Path, name: str, content: str
) -> None:
    """It is said at once, and nothing is guessed."""
    with pytest.raises(BadStream, match="no readable record"):
        _ = make_stream(tmp_path / name, content).schema


@pytest.mark.parametrize("content", ["", "a,", "a,y", "a,y\n"])
def test_a_pinned_stream_waits_for_a_file_that_has_not_begun(tmp_path: Path, content: str) -> None:
    """A pipeline may be started before its first record."""
    schema = make_schema("classification", "int", {"a": "number"}, "y")
    stream = make_stream(tmp_path / "s.csv", content, schema=schema)
    batch = stream.read(Cursor(), 10)
    assert (0, 0, True) == (batch.first, batch.last, batch.ended)
    (tmp_path / "s.csv").write_text("a,y\n1,0\n")
    assert [{"a": 1.0}] == stream.read(batch.after, 10).rows


def test_a_file_that_the_disk_refuses_is_unreadable(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An OSError with what to do, its cause kept."""
    path = file
    stream = make_stream(path)
    _ = stream.schema

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(pq, "ParquetFile", refuse)
    path.touch()
    with pytest.raises(StreamUnreadable, match="cannot be read") as caught:
        make_stream(path, schema=stream.schema).read(Cursor(), 1)
    assert isinstance(caught.value.__cause__, PermissionError)


def test_a_folder_that_may_not_be_looked_into_is_unreadable(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permission denied is not the same as not there."""
    path = file

    def refuse(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(StreamUnreadable, match="permissions of its folder"):
        make_stream(path).read(Cursor(), 1)


@pytest.mark.parametrize(("first", "last"), [(-1, 3), (3, 2)])
def test_a_range_that_is_none_is_refused(path: Path, first: int, last: int) -> None:
    """As is a batch of no records."""
    with pytest.raises(ValueError, match="range of positions"):
        make_stream(path).between(first, last)
    with pytest.raises(ValueError, match="at least one record"):
        make_stream(path).read(Cursor(), 0)


@pytest.mark.parametrize(
    "options",
    [
        {"delimiter": "ab"},
        {"delimiter": '"'},
        {"delimiter": "\n"},
        {"ignore": ("a",), "numbers": ("a",)},
        {"times": ("y",)},
        {"ignore": ("y",)},
        {"decimal": ",", "thousands": ","},
        {"encoding": "no-such"},
        {"encoding": "idna"},
        {"batch": 0},
        {"batch": 100_001},
        {"largest": 1e200},
        {"unknown": 1},
        {"path": "service:No Name"},
        {"then": "b.csv"},
        {"path": "service:one", "then": "service:two"},
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    """A misspelt knob, one out of bounds, and a column with two parts to play."""
    with pytest.raises(ValidationError):
        StreamOptions.model_validate({"path": "a.csv", "target": "y", **options})


def test_a_cursor_survives_pickle_and_json(path: Path) -> None:
    """It lies in the checkpoint."""
    after = make_stream(path).read(Cursor(), 10).after
    assert after == pickle.loads(pickle.dumps(after))
    assert after == Cursor.model_validate_json(after.model_dump_json())


def test_a_cursor_of_before_there_were_inboxes_is_one_of_a_file() -> None:
    """It may lie in a checkpoint that was written by then."""
    cursor = Cursor(position=3, offset=9)
    state = cursor.__getstate__()
    del state["__dict__"]["inbox"]
    old = Cursor.__new__(Cursor)
    old.__setstate__(state)
    assert Cursor(position=3, offset=9) == old
    assert old.of_file is old


def test_marks_are_thinned_evenly_and_stay_bounded() -> None:
    """After ten million records, no place is further from a mark than a few thousand records."""
    marks: list[Cursor] = []
    for batch in range(1, 10_001):
        marks = downsample([*marks, Cursor(position=batch * 1000)], most=128)
        assert len(marks) <= 128
    places = [mark.position for mark in marks]
    gaps = [after - before for before, after in pairwise(places)]
    assert (1000, 10_000_000) == (places[0], places[-1])
    assert max(gaps) <= 3 * 10_000_000 / 64
    assert places == sorted(places)


def test_few_marks_are_all_kept() -> None:
    """Nothing is thinned before it must be."""
    marks = [Cursor(position=place) for place in (1, 2, 3, 4)]
    assert marks == downsample(marks, most=4)
    with pytest.raises(ValueError, match="fewer than 4"):
        downsample(marks, most=3)


def test_a_stream_reads_the_options_batch_by_default(path: Path) -> None:
    """The size is a knob of the pipeline file."""
    stream: Stream = make_stream(path, batch=10)
    assert 10 == stream.read(Cursor()).last
