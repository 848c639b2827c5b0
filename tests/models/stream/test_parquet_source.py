"""Parquet: types, row groups, and files that are rewritten while they are read."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.stream.source import BadStream, Cursor, StreamChanged, StreamUnreadable
from tests.models.makers import make_stream, read_all, records_of


def write(path: Path, rows_per_group: int = 100, **columns: Any) -> Path:
    """A file of these columns and, unless given, a class y of ones."""
    length = len(next(iter(columns.values())))
    table = pa.table({"y": pa.array([1] * length)} | columns)
    pq.write_table(table, path, row_group_size=rows_per_group)
    return path


@pytest.mark.parametrize(
    ("array", "kind", "expected"),
    [
        (pa.array([1, None], pa.int8()), "number", [1.0, None]),
        (pa.array([2**64 - 1, 0], pa.uint64()), "number", [float(2**64), 0.0]),
        (pa.array([0.5, float("nan")]), "number", [0.5, None]),
        (pa.array(np.array([0.5, 1], np.float16)), "number", [0.5, 1.0]),
        (pa.array([Decimal("1.25"), None]), "number", [1.25, None]),
        (pa.nulls(2), "number", [None, None]),
        (pa.array([True, None]), "category", ["true", None]),
        (pa.array(["a", ""]), "category", ["a", None]),
        (pa.array(["a", " b"], pa.large_string()), "category", ["a", "b"]),
        (pa.array(["a", None]).dictionary_encode(), "category", ["a", None]),
        (pa.array([7, None]).dictionary_encode(), "number", [7.0, None]),
    ],
)
def test_the_type_of_a_column_says_what_it_is(
    tmp_path: Path, array: pa.Array, kind: str, expected: list[object]
) -> None:
    """Whole, floating and decimal numbers; texts, truths and dictionaries."""
    stream = make_stream(write(tmp_path / "s.parquet", x=array))
    assert [kind] == [column.kind for column in stream.schema.columns]
    rows = stream.read(Cursor()).rows
    assert expected == [row["x"] for row in rows]
    assert {float, str, type(None)} >= {type(row["x"]) for row in rows}


@pytest.mark.parametrize(
    "array", [pa.array([[1]]), pa.array([{"a": 1}]), pa.array([b"a"]), pa.array([dt.time(1)])]
)
def test_a_nested_or_a_binary_column_is_left_out_and_told(tmp_path: Path, array: pa.Array) -> None:
    """The schema says so with the type; as a target it is refused."""
    path = write(tmp_path / "s.parquet", x=array, a=[1.0])
    stream = make_stream(path)
    assert [{"a": 1.0}] == stream.read(Cursor()).rows
    (seen,) = (each for each in stream.schema.seen if each.name == "x")
    assert ("left out", True) == (seen.read_as, "neither a number nor a category" in seen.because)
    with pytest.raises(BadStream, match="target 'x' holds"):
        _ = make_stream(path, target="x").schema


@pytest.mark.parametrize(
    "array",
    [
        pa.array([dt.datetime(2026, 3, 2, 12, 30, tzinfo=dt.UTC), None]),
        pa.array([dt.datetime.fromisoformat("2026-03-02T12:30"), None], pa.timestamp("ns")),
        pa.array([1_772_454_600, None], pa.int64()).cast(pa.timestamp("s", "Europe/Paris")),
    ],
)
def test_a_time_gives_its_hour_weekday_and_month(tmp_path: Path, array: pa.Array) -> None:
    """A moment never comes again; its parts do. A time with a zone is read in UTC."""
    path = write(tmp_path / "s.parquet", when=array, a=[1.0, 2.0])
    first, second = make_stream(path).read(Cursor()).rows
    assert {"when.hour": 12.5, "when.weekday": 0.0, "when.month": 3.0, "a": 1.0} == first
    assert {None} == {value for name, value in second.items() if name != "a"}


def test_a_date_has_no_hour(tmp_path: Path) -> None:
    """Midnight of every record would be a feature of one value."""
    path = write(tmp_path / "s.parquet", day=[dt.date(2026, 12, 6)], a=[1.0])
    assert [{"day.weekday": 6.0, "day.month": 12.0, "a": 1.0}] == make_stream(path).read(
        Cursor()
    ).rows


def test_a_column_that_came_is_told_and_left_out(tmp_path: Path) -> None:
    """The file was rewritten with more rows and one more column."""
    path = write(tmp_path / "s.parquet", x=[1.5, 2.5])
    stream = make_stream(path)
    first = stream.read(Cursor())
    write(path, x=[1.5, 2.5, 3.5], extra=["a", "b", "c"])
    more = make_stream(path, schema=stream.schema).read(first.after)
    assert [{"x": 3.5}] == more.rows
    assert [("new column", "extra", 2, 1)] == [
        (each.kind, each.column, each.position, each.count) for each in more.notices
    ]
    with pytest.raises(StreamChanged, match=r"new: extra.*new_columns"):
        make_stream(path, schema=stream.schema, new_columns="stop").read(first.after)


@pytest.mark.parametrize("rows_per_group", [7, 1000])
def test_a_past_that_was_rewritten_is_refused_however_the_rows_are_grouped(
    tmp_path: Path, rows_per_group: int
) -> None:
    """One value of one consumed row is enough, though the last row is as it was."""
    path = tmp_path / "s.parquet"
    before = [float(value % 13) for value in range(100)]
    words = [None if value % 9 == 0 else f"w{value % 5}" for value in range(100)]
    write(path, x=before, w=words)
    stream = make_stream(path)
    after = stream.read(stream.read(Cursor(), 33).after, 60).after
    grown = [*before, 1.0, 2.0]
    write(path, rows_per_group=rows_per_group, x=grown, w=[*words, "a", None])
    assert 9 == len(make_stream(path, schema=stream.schema).read(after).rows)
    grown[40] = 99.0
    write(path, rows_per_group=rows_per_group, x=grown, w=[*words, "a", None])
    with pytest.raises(StreamChanged, match="93 rows that were read hold other values now"):
        make_stream(path, schema=stream.schema).read(after)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (pa.array([1, 2], pa.int32()), pa.array([1.0, 2.0, 3.0])),
        (pa.array([0.0, None]), pa.array([-0.0, float("nan"), 3.0])),
        (pa.array(["a", "b"]).dictionary_encode(), pa.array(["a", "b", "c"], pa.large_string())),
        (
            pa.array([Decimal("0.35")] * 2),
            pa.array([Decimal("0.350000")] * 3, pa.decimal128(20, 6)),
        ),
        (pa.array([Decimal("0.35")] * 2), pa.array([0.35, 0.35, 1.5])),
        (pa.array([1, 2], pa.timestamp("us")), pa.array([1_000, 2_000, 3_000], pa.timestamp("ns"))),
        (pa.array([1, 2], pa.timestamp("s")), pa.array([1, 2, 3], pa.timestamp("s", "UTC"))),
        (pa.array([1, 2], pa.date32()), pa.array([86_400, 172_800, 9], pa.timestamp("s"))),
    ],
)
def test_the_same_values_in_another_type_are_the_same_past(
    tmp_path: Path, before: pa.Array, now: pa.Array
) -> None:
    """Programs change types when they write a file anew."""
    path = write(tmp_path / "s.parquet", x=before, a=[0.5, 1.5])
    stream = make_stream(path)
    after = stream.read(Cursor()).after
    write(path, x=now, a=[0.5, 1.5, 2.5])
    assert 1 == len(make_stream(path, schema=stream.schema).read(after).rows)


def test_whole_numbers_that_no_float_tells_apart_are_told_apart(tmp_path: Path) -> None:
    """As labels they are two classes, and changed ones are another past."""
    big = [2**60 + place % 2 for place in range(6)]
    path = write(tmp_path / "s.parquet", y=pa.array(big), a=[0.5] * 6)
    stream = make_stream(path)
    batch = stream.read(Cursor())
    assert {str(2**60), str(2**60 + 1)} == set(batch.labels)
    write(path, y=pa.array([*reversed(big[:5]), big[5], 7]), a=[0.5] * 7)
    assert 1 == len(make_stream(path, schema=stream.schema).read(batch.after).rows)
    write(path, y=pa.array([2**60 + 1, *big[1:], 7]), a=[0.5] * 7)
    with pytest.raises(StreamChanged, match="other values"):
        make_stream(path, schema=stream.schema).read(batch.after)
    decimals = pa.array([Decimal(value) for value in big], pa.decimal128(30, 0))
    path = write(tmp_path / "t.parquet", y=decimals, a=[0.5] * 6)
    assert {str(2**60), str(2**60 + 1)} == set(make_stream(path).read(Cursor()).labels)


def test_a_range_is_not_read_again_from_a_past_that_was_rewritten(tmp_path: Path) -> None:
    """A window of training is of what was learned."""
    path = write(tmp_path / "s.parquet", x=[1.5, 2.5, 3.5])
    stream = make_stream(path)
    after = stream.read(Cursor()).after
    write(path, x=[9.5, 2.5, 3.5, 4.5])
    with pytest.raises(StreamChanged, match="other values"):
        make_stream(path, schema=stream.schema).between(0, 3, [after])


def test_moments_that_no_calendar_has_are_no_reason_to_fail(tmp_path: Path) -> None:
    """The year 33658, and an end of time in a zone east of UTC; in rejects they are shown, too."""
    far = pa.array([10**12, None], pa.timestamp("s", "Asia/Tokyo"))
    path = write(tmp_path / "s.parquet", when=far, a=[0.5, float("inf")])
    batch = make_stream(path).read(Cursor())
    assert ([0], [1]) == (batch.positions, [reject.position for reject in batch.rejects])


def test_a_column_that_was_empty_may_get_a_type(tmp_path: Path) -> None:
    """It was taken for numbers; as text it can be ignored, and the past is as it was."""
    path = write(tmp_path / "s.parquet", x=pa.nulls(2), a=[0.5, 1.5])
    stream = make_stream(path)
    after = stream.read(Cursor()).after
    write(path, x=pa.array([None, None, "b"]), a=[0.5, 1.5, 2.5])
    with pytest.raises(StreamChanged, match=r"'x' was a number.*stream\.ignore"):
        make_stream(path, schema=stream.schema).read(after)
    rows = make_stream(path, schema=stream.schema, ignore=("x",)).read(after).rows
    assert [{"x": None, "a": 2.5}] == rows


def test_a_row_that_is_unfit_is_a_reject_with_its_json(tmp_path: Path) -> None:
    """In the middle of a file, over several row groups."""
    numbers = [float(index) for index in range(250)]
    numbers[120] = float("inf")
    numbers[121] = 1e101
    labels = pa.array([1] * 249 + [None])
    path = write(tmp_path / "s.parquet", y=labels, x=numbers, c=["é"] * 250)
    batches = read_all(make_stream(path), size=60)
    rejects = [reject for batch in batches for reject in batch.rejects]
    assert [120, 121] == [reject.position for reject in rejects]
    assert "column 'x': a finite number was expected, inf came" == rejects[0].reason
    assert '{"x": Infinity, "c": "é", "y": 1}' == rejects[0].raw
    assert [None] == [batch.labels[-1] for batch in batches if batch.last == 250]
    assert list(range(250)) == [position for position, _ in records_of(batches)]


def test_a_text_that_is_not_utf8_is_a_reject(tmp_path: Path) -> None:
    """Some writers do not check."""
    broken = pa.array([b"ok", b"\xff", None], pa.binary()).view(pa.string())
    batch = make_stream(write(tmp_path / "s.parquet", x=broken)).read(Cursor())
    assert ([0, 2], [1]) == (batch.positions, [reject.position for reject in batch.rejects])
    assert r"the value b'\xff' came" in batch.rejects[0].reason


def test_kinds_can_be_given_against_the_type(tmp_path: Path) -> None:
    """Texts that spell numbers, and numbers that code categories."""
    path = write(tmp_path / "s.parquet", a=["1.5", "x"], b=[7, 8], d=[Decimal(5), None])
    batch = make_stream(path, numbers=("a",), categories=("b", "d")).read(Cursor())
    assert [{"a": 1.5, "b": "7", "d": "5"}] == batch.rows
    assert "column 'a': a number was expected, 'x' came" == batch.rejects[0].reason


@pytest.mark.parametrize(
    ("labels", "task", "expected"),
    [
        ([1.0, float("nan"), 2.0], "classification", [1, None, 2]),
        (["a", None, "b"], "classification", ["a", None, "b"]),
        ([True, False, None], "classification", ["true", "false", None]),
        ([0.5, float("inf"), 2], "regression", [0.5, 2.0]),
        ([None, "1", "2"], "regression", [None, 1.0, 2.0]),
    ],
)
def test_labels_of_every_type_are_classes_or_numbers(
    tmp_path: Path, labels: list[Any], task: Any, expected: list[object]
) -> None:
    """A missing one is None; a record with an infinite one is a reject."""
    path = write(tmp_path / "s.parquet", y=pa.array(labels), a=[1.0, 2.0, 3.0])
    batch = make_stream(path, task=task).read(Cursor())
    assert expected == batch.labels
    assert 3 == len(batch.rows) + len(batch.rejects)


def test_a_column_that_changed_its_kind_is_no_longer_the_stream(tmp_path: Path) -> None:
    """A wider number is the same kind; a text is not."""
    path = write(tmp_path / "s.parquet", x=[1, 2])
    stream = make_stream(path)
    end = stream.read(Cursor()).after
    write(path, x=[1.0, 2.0, 2.5])
    assert [{"x": 2.5}] == stream.read(end).rows
    write(path, x=["1", "2", "3"])
    with pytest.raises(StreamChanged, match="column 'x' was a number and holds string now"):
        stream.read(end)


def test_a_file_without_rows_has_no_schema(tmp_path: Path) -> None:
    """Nothing is guessed from types alone."""
    path = write(tmp_path / "s.parquet", x=pa.array([], pa.float64()))
    with pytest.raises(BadStream, match="no row"):
        _ = make_stream(path).schema


@pytest.mark.parametrize("content", [b"", b"PAR1", b"a,b\n1,2\n" * 50])
def test_a_file_that_is_no_parquet_is_unreadable(tmp_path: Path, content: bytes) -> None:
    """Perhaps it is only half written: the message says how that is avoided."""
    with pytest.raises(StreamUnreadable, match="write another file, then rename it"):
        _ = make_stream(tmp_path / "s.parquet", content).schema


def test_a_damaged_page_is_unreadable_and_the_rest_can_be_read_when_restored(
    tmp_path: Path,
) -> None:
    """What was read stays read; the cursor still fits the restored file."""
    path = write(tmp_path / "s.parquet", x=np.random.default_rng(0).random(500))
    sound = path.read_bytes()
    first = make_stream(path).read(Cursor(), 100)
    path.write_bytes(sound[:4] + bytes(len(sound) // 2) + sound[len(sound) // 2 + 4 :])
    stream = make_stream(path)
    with pytest.raises(StreamUnreadable):
        stream.read(first.after, 400)
    path.write_bytes(sound)
    assert 500 == stream.read(first.after, 400).last


def test_an_index_that_pandas_wrote_along_is_left_out(tmp_path: Path) -> None:
    """The number of a row is no feature."""
    schema = make_stream(write(tmp_path / "s.parquet", a=[1.0], __index_level_0__=[0])).schema
    assert ["a"] == schema.names
    assert "index of a data frame" in schema.seen[-1].because


def test_a_large_file_is_never_decoded_whole(tmp_path: Path) -> None:
    """One row group of 300,000 rows, 34 MB: what Arrow holds is bounded by what is read."""
    path = tmp_path / "s.parquet"
    columns = {f"x{i}": np.random.default_rng(i).random(600_000) for i in range(7)}
    write(path, 600_000, **columns)
    del columns
    stream = make_stream(path)
    before, most, cursor, rows = pa.total_allocated_bytes(), 0, Cursor(), 0
    while not (batch := stream.read(cursor, 5000)).ended:
        cursor, rows = batch.after, rows + len(batch.rows)
        most = max(most, pa.total_allocated_bytes() - before)
    assert 600_000 == rows + len(batch.rows)
    assert most < 20_000_000
