"""Ten thousand mangled records: each is a row or a reject, however the file is read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.core.record_schema import Schema
from models.stream.source import Batch, Cursor, Stream
from tests.models.makers import make_schema, make_stream, read_all, records_of
from tests.models.stream.mangle import mangle

SCHEMA = make_schema("classification", "int", {"a": "number", "b": "category", "c": "number"}, "y")
HEAD = b"a,b,c,y\n"
SEEDS = 15


def csv_line(chance: Random) -> bytes:
    """A good record, with quotes now and then."""
    cell = chance.choice(["red", '"red"', '"re,d"', '"two\nlines"', ""])
    return f"{chance.random()},{cell},{chance.randrange(9)},{chance.randrange(2)}".encode()


def json_line(chance: Random) -> bytes:
    """The same as JSON."""
    record = {"a": chance.random(), "b": "red", "c": chance.randrange(9), "y": 1}
    return json.dumps(record).encode()


def mangled(
    line: Callable[[Random], bytes], count: int, seed: int, share: float, end: bytes = b"\n"
) -> bytes:
    """`count` records, `share` of them damaged."""
    chance = Random(seed)
    lines = [line(chance) for _ in range(count)]
    return end.join(mangle(one, chance) if chance.random() < share else one for one in lines) + end


def check(batches: list[Batch], schema: Schema = SCHEMA) -> None:
    """Positions without a gap; rows of the schema, finite; rejects with a reason."""
    records = records_of(batches)
    assert list(range(batches[-1].last)) == [position for position, _ in records]
    for batch in batches:
        for row in batch.rows:
            assert schema.names == list(row)
            for column in schema.columns:
                cell = row[column.name]
                if column.kind == "number":
                    assert cell is None or (isinstance(cell, float) and math.isfinite(cell))
                else:
                    assert cell is None or (isinstance(cell, str) and cell.strip())
        assert {int, type(None)} >= set(map(type, batch.labels))
        for reject in batch.rejects:
            assert reject.reason
            assert len(reject.raw) <= 10_000
            assert "\0" not in reject.raw


def slowly(stream: Stream, chance: Random) -> list[Batch]:
    """Read in pieces of chance sizes."""
    batches = [stream.read(Cursor(), chance.randrange(1, 60))]
    while not batches[-1].ended:
        batches.append(stream.read(batches[-1].after, chance.randrange(1, 60)))
    return batches


@pytest.mark.slow
@pytest.mark.parametrize("share", [1.0, 0.01])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_ten_thousand_mangled_records_are_rows_or_rejects(
    tmp_path: Path, kind: str, share: float
) -> None:
    """None unhandled, and the same whether read at once, in pieces, or as a range."""
    line, head = (csv_line, HEAD) if kind == "csv" else (json_line, b"")
    content = head + mangled(line, 5_000, seed=7, share=share)
    stream = make_stream(tmp_path / f"s.{kind}", content, schema=SCHEMA)
    whole = read_all(stream, size=100_000)
    check(whole)
    assert whole[-1].last >= 4_000
    pieces = slowly(stream, Random(1))
    assert records_of(whole) == records_of(pieces)
    marks = [batch.after for batch in pieces]
    middle = stream.between(500, 900, marks)
    assert records_of(whole)[500:900] == records_of([middle])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_mangled_file_that_grows_piece_by_piece_keeps_its_positions(
    tmp_path: Path, kind: str
) -> None:
    """Wherever the writer stops: what was read stays as it was, and a range reads the same."""
    line, head = (csv_line, HEAD) if kind == "csv" else (json_line, b"")
    chance = Random(3)
    for seed in range(SEEDS):
        content = head + mangled(line, 25, seed, share=0.2, end=chance.choice([b"\n", b"\r\n"]))
        path = tmp_path / f"{seed}.{kind}"
        stream = make_stream(path, b"", schema=SCHEMA)
        cursor, batches = Cursor(), []
        at = 0
        while at < len(content):
            step = chance.randrange(1, 200)
            with path.open("ab") as file:
                file.write(content[at : at + step])
            at += step
            batches += read_all(stream, cursor, chance.randrange(1, 9))
            cursor = batches[-1].after
        check(batches)
        again = stream.between(0, cursor.position, [cursor])
        assert records_of(batches) == records_of([again])


@given(
    st.lists(
        st.sampled_from(
            ['"', ",", "\n", "\r\n", "\r", "1,red,2,1\n", "1", "x", " ", "\0", "é", '"two\nlines"']
        ),
        max_size=30,
    ),
    st.integers(1, 5),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_read_the_same_in_bulk_and_one_record_at_a_time(
    tmp_path: Path, pieces: list[str], size: int
) -> None:
    """The fast way is never another rule. A NUL at the end sends the whole lot the slow way."""
    body = HEAD.decode() + "".join(pieces) + "\n"
    fast = make_stream(tmp_path / "fast.csv", body, schema=SCHEMA)
    whole = read_all(fast)
    check(whole)
    assert records_of(whole) == records_of(read_all(fast, size=size))
    slow = make_stream(tmp_path / "slow.csv", body + "\0\n", schema=SCHEMA)
    count = whole[-1].last
    if not whole[-1].unfinished and not whole[-1].after.cuts:
        assert records_of(whole) == records_of(read_all(slow))[:count]


@given(st.binary(max_size=200))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_rows_or_rejects(tmp_path: Path, body: bytes) -> None:
    """As CSV and as JSON lines. A file that begins as an archive is another matter."""
    check(read_all(make_stream(tmp_path / "s.csv", HEAD + body, schema=SCHEMA), size=3))
    check(read_all(make_stream(tmp_path / "s.jsonl", b"\n" + body, schema=SCHEMA), size=3))


def test_odd_parquet_rows_are_rows_or_rejects(tmp_path: Path) -> None:
    """Every odd number, text and label, 5,000 rows of them, in row groups of chance sizes."""
    chance = Random(5)
    numbers = [0.5, None, math.nan, math.inf, -math.inf, 1e100, 1e101, -0.0]
    texts = [b"red", b"", b" ", None, b"\xff", b"a\0b", b"x" * 20_000, "é".encode()]
    labels = [1.0, 0.0, None, math.nan, math.inf, 0.5, 1e30]
    table = pa.table(
        {
            "a": [chance.choice(numbers) for _ in range(5_000)],
            "b": pa.array([chance.choice(texts) for _ in range(5_000)]).view(pa.string()),
            "c": pa.array([chance.choice([2**63 - 1, 0, None]) for _ in range(5_000)]),
            "y": [chance.choice(labels) for _ in range(5_000)],
        }
    )
    pq.write_table(table, tmp_path / "s.parquet", row_group_size=777)
    stream = make_stream(tmp_path / "s.parquet", schema=SCHEMA)
    whole = read_all(stream, size=100_000)
    check(whole)
    assert 5_000 == whole[-1].last
    assert records_of(whole) == records_of(slowly(stream, Random(1)))
    assert records_of(whole)[700:900] == records_of([stream.between(700, 900)])
