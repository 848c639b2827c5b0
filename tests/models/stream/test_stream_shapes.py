"""Records of another shape than the header or the schema: what is read all the same, and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.stream.batches import joined
from models.stream.source import BadStream, Batch, Cursor, Notice
from tests.models.makers import make_schema, make_stream, read_all, records_of

SCHEMA = make_schema("classification", "int", {"a": "number", "b": "category"}, "y")
AGAIN = "the header line came again"


def reasons_of(batch: Batch) -> dict[int, str]:
    """Why records were rejected, by position."""
    return {reject.position: reject.reason for reject in batch.rejects}


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;", "\ufeffsep=;", "sep=; "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_that_names_the_delimiter_is_no_header(tmp_path: Path, line: str, end: str) -> None:
    """Excel writes it. It counts more than what the header has most of."""
    content = end.join([line, "a,1,2;y", "1;0", "2;1", ""])
    stream = make_stream(tmp_path / "s.csv", content)
    batch = stream.read(Cursor())
    assert (["a,1,2"], [0, 1]) == (stream.schema.names, batch.positions)
    assert records_of([batch]) == records_of(read_all(stream, size=1))


def test_a_delimiter_of_the_pipeline_file_counts_more_than_that_of_the_first_line(
    tmp_path: Path,
) -> None:
    """And a first line that only looks similar is a header."""
    stream = make_stream(tmp_path / "s.csv", "sep=;\na:y\n1:0\n", delimiter=":")
    assert ["a"] == stream.schema.names
    stream = make_stream(tmp_path / "s.csv", "sep=a,y\n1,0\n")
    assert ["sep=a"] == stream.schema.names


def test_a_stream_waits_for_the_header_after_the_line_that_names_the_delimiter(
    tmp_path: Path,
) -> None:
    """A writer that stopped in the first line, and one that stopped after it."""
    path = tmp_path / "s.csv"
    for begun in ("sep=", "sep=;", "sep=;\n", "sep=;\na;b"):
        stream = make_stream(path, begun, schema=SCHEMA)
        assert Cursor() == stream.read(Cursor()).after
        path.write_text("sep=;\na;b;y\n1;x;0\n")
        assert [0] == stream.read(Cursor()).positions


@pytest.mark.parametrize("again", ["a,b,y", '"a",b,"y"', " a, b ,y", "\ufeffa,b,y", "a,b,y,"])
def test_a_header_that_comes_again_is_told_and_left_out(tmp_path: Path, again: str) -> None:
    """As files that were put together have it. It says nothing about the shape of the others."""
    body = f"a,b,y\n1,x,0\n{again}\n2,x,1\n"
    batch = make_stream(tmp_path / "s.csv", body).read(Cursor())
    assert ([0, 2], {1: AGAIN}) == (batch.positions, reasons_of(batch))
    assert ["repeated_header"] == [reject.kind for reject in batch.rejects]
    assert again == batch.rejects[0].raw


def test_a_header_that_comes_again_says_nothing_about_kinds_and_classes(tmp_path: Path) -> None:
    """Where it is every other record of the sample: its names are no values."""
    stream = make_stream(tmp_path / "s.csv", "a,y\n" + "1,0\na,y\n" * 5)
    schema = stream.schema.model_copy(update={"seen": ()})
    assert make_schema("classification", "int", {"a": "number"}, "y") == schema


def test_a_record_that_holds_a_part_of_the_header_is_a_record(tmp_path: Path) -> None:
    """Only all names in their order are the header."""
    schema = make_schema("classification", "str", {"a": "category", "b": "category"}, "y")
    batch = make_stream(tmp_path / "s.csv", "a,b,y\na,b,x\na,x,y\nx,b,y\n", schema=schema).read(
        Cursor()
    )
    assert ([0, 1, 2], []) == (batch.positions, batch.rejects)


def test_more_cells_than_the_header_has_are_a_reject_that_names_the_knob(tmp_path: Path) -> None:
    """How many came, the first that is too many, and what else could be asked for."""
    batch = make_stream(tmp_path / "s.csv", "a,b,y\n1,x,0\n1,x,0,,new,7\n").read(Cursor())
    assert {
        1: "3 cells were expected, 6 came, the first too many is 'new' "
        '(stream.extra_cells = "ignore" leaves out such cells)'
    } == reasons_of(batch)
    assert ["too_many_cells"] == [reject.kind for reject in batch.rejects]


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_more_cells_can_be_left_out_and_are_told(tmp_path: Path, size: int) -> None:
    """Once per place: where it began, in how many records, and a value. Fewer stay a reject."""
    body = "a,b,y\n1,x,0\n2,x,1,p\n2,x\n3,x,0,q,r\n4,x,0,,s\n"
    stream = make_stream(tmp_path / "s.csv", body, extra_cells="ignore")
    batches = read_all(stream, size=size)
    assert [0, 1, 3, 4] == [position for batch in batches for position in batch.positions]
    assert {2: "3 cells were expected, 2 came"} == {
        place: why for batch in batches for place, why in reasons_of(batch).items()
    }
    notices = joined(notice for batch in batches for notice in batch.notices)
    assert {
        Notice("new column", "cell 4", 1, 2, "'p'"),
        Notice("new column", "cell 5", 3, 2, "'r'"),
    } == set(notices)
    assert notices == stream.between(0, 5).notices


@pytest.mark.parametrize("header", ["a,b,y", "a,b,y,", "a,b,y, ,"])
def test_delimiters_at_the_ends_of_lines_cost_nothing(tmp_path: Path, header: str) -> None:
    """In the header, in the records, or in both: blank cells after the last column are none."""
    body = f"{header}\n1,x,0,\n2,x,1, ,\n3,x,0\n"
    stream = make_stream(tmp_path / "s.csv", body)
    batch = stream.read(Cursor())
    assert (["a", "b"], [0, 1, 2]) == (stream.schema.names, batch.positions)
    assert ((), []) == (batch.notices, batch.rejects)


def test_a_last_column_without_a_name_that_is_not_blank_is_asked_for(tmp_path: Path) -> None:
    """It may be a column; the options can leave it out by its place."""
    body = "a,b,y,\n1,x,0,5\n2,x,1,6\n"
    with pytest.raises(BadStream, match=r"column 4 has no name.*'unnamed_4'"):
        _ = make_stream(tmp_path / "s.csv", body).schema
    for options in ({"ignore": ("unnamed_4",)}, {"extra_cells": "ignore"}):
        batch = make_stream(tmp_path / "s.csv", body, **options).read(Cursor())
        assert [{"a": 1.0, "b": "x"}, {"a": 2.0, "b": "x"}] == batch.rows


def test_one_record_with_a_cell_too_many_does_not_refuse_a_file_whose_lines_end_in_delimiters(
    tmp_path: Path,
) -> None:
    """It is a reject as in any other file."""
    body = "a,b,y,\n1,x,0,5\n2,x,1,\n3,x,1,\n"
    batch = make_stream(tmp_path / "s.csv", body).read(Cursor())
    assert ([1, 2], [0]) == (batch.positions, list(reasons_of(batch)))


@pytest.mark.parametrize(
    ("last", "taken"), [("2,x,1", 2), ("2,x,1,", 2), ("2,x,,", 2), ("2,x,", 1), ("2,x, ", 1)]
)
def test_a_last_line_without_its_label_waits_for_it_while_it_has_no_end(
    tmp_path: Path, last: str, taken: int
) -> None:
    """The label may be what the writer writes next; a delimiter after it says that none comes."""
    batch = make_stream(tmp_path / "s.csv", "a,b,y\n1,x,0\n" + last, schema=SCHEMA).read(Cursor())
    assert (taken, []) == (len(batch.rows), batch.rejects)
    assert (0 if taken == 2 else len(last)) == batch.unfinished


def test_keys_that_are_data_are_told_together(tmp_path: Path) -> None:
    """A thousand ids as keys are no thousand columns."""
    lines = [json.dumps({"a": 1, "b": "x", "y": 1, f"user {n}": n}) for n in range(150)]
    stream = make_stream(tmp_path / "s.jsonl", "\n".join([*lines, ""]), schema=SCHEMA)
    notices = stream.read(Cursor()).notices
    assert 101 == len(notices)
    assert Notice("new column", "(further columns)", 100, 50, "100") == notices[-1]


def test_a_sample_of_which_every_record_is_broken_says_why(tmp_path: Path) -> None:
    """As where each record begins with a row number that the header does not have."""
    with pytest.raises(BadStream, match=r"no readable record.*2 cells were expected, 3 came"):
        _ = make_stream(tmp_path / "s.csv", "a,y\n1,5,0\n2,6,1\n").schema


def test_an_absent_key_is_a_missing_value(tmp_path: Path) -> None:
    """The target's too: then the record has no label yet."""
    body = '{"a":1,"b":"x","y":1}\n{"b":"x","y":0}\n{"a":2,"b":"x"}\n{"y":1}\n'
    batch = make_stream(tmp_path / "s.jsonl", body, schema=SCHEMA).read(Cursor())
    assert ([], ()) == (batch.rejects, batch.notices)
    assert [1, 0, None, 1] == batch.labels
    assert [(1.0, "x"), (None, "x"), (2.0, "x"), (None, None)] == [
        (row["a"], row["b"]) for row in batch.rows
    ]


@pytest.mark.parametrize("how", ["ignore", "stop"])
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_an_unknown_key_is_left_out_and_told(tmp_path: Path, how: str, size: int) -> None:
    """Where it began, in how many records, a value; whoever runs the stream may stop on it."""
    lines: list[dict[str, Any]] = [
        {"a": 1, "b": "x", "y": 1},
        {"a": 1, "b": "x", "y": 1, "z": "new", "id": 5},
        {"a": 1, "b": "x", "y": 1, "nested": {"a": [1, {"b": ":"}]}},
        {"b": "x", "y": 1, "z": "newer", "w": None},
    ]
    body = "".join(json.dumps(line) + "\n" for line in lines) + "broken\n"
    stream = make_stream(tmp_path / "s.jsonl", body, schema=SCHEMA, new_columns=how, ignore=("id",))
    batches = read_all(stream, size=size)
    assert [0, 1, 2, 3] == [position for batch in batches for position in batch.positions]
    assert {
        Notice("new column", "z", 1, 2, "'new'"),
        Notice("new column", "nested", 2, 1, "an object"),
        Notice("new column", "w", 3, 1, "None"),
    } == set(joined(notice for batch in batches for notice in batch.notices))


def test_positions_of_what_is_left_out_count_rejects(tmp_path: Path) -> None:
    """A reject before it has a position as well."""
    body = 'broken\n{"a":1,"b":"x","y":1}\nbroken\n{"a":1,"b":"x","y":1,"z":1}'
    batch = make_stream(tmp_path / "s.jsonl", body, schema=SCHEMA).read(Cursor())
    assert (Notice("new column", "z", 3, 1, "1"),) == batch.notices


def test_records_with_an_unknown_key_can_be_rejected(tmp_path: Path) -> None:
    """With the key and the knobs."""
    body = '{"a":1,"b":"x","y":1}\n{"a":1,"b":"x","y":1,"z":1}\n{"b":"x","y":1}\n'
    stream = make_stream(tmp_path / "s.jsonl", body, schema=SCHEMA, new_columns="reject")
    batch = stream.read(Cursor())
    assert ([0, 2], ()) == (batch.positions, batch.notices)
    assert {
        1: "column 'z' is not in the schema "
        '(stream.new_columns = "ignore" leaves out all such, stream.ignore this one)'
    } == reasons_of(batch)


def test_a_key_that_comes_twice_is_a_reject_beside_nested_values(tmp_path: Path) -> None:
    """Colons inside values do not hide it, and cost their record nothing."""
    body = (
        '{"a":1,"b":"12:30","y":1}\n{"a":1,"b":"x","y":1,"n":{"k":{"l":1}}}\n'
        '{"a":1,"a":2,"b":"12:30","y":1}\n{"a":1,"b":"x","y":1,"n":[":"]}\n'
    )
    batch = make_stream(tmp_path / "s.jsonl", body, schema=SCHEMA, ignore=("n",)).read(Cursor())
    assert ([0, 1, 3], [2]) == (batch.positions, list(reasons_of(batch)))
    assert "'a' came twice" in reasons_of(batch)[2]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[{"a":1,"y":0},{"a":2,"y":1}]', "one JSON array"),
        ('[\n {"a":1,"y":0},\n {"a":2,"y":1}\n]\n', "one JSON array"),
        ('\ufeff\n[{"a":1,"y":0},\n{"a":2,"y":1}]', "one JSON array"),
        ('{\n  "a": 1,\n  "y": 0\n}\n{\n  "a": 2,\n  "y": 0\n}\n', "objects over several lines"),
    ],
)
def test_json_that_is_not_lines_says_how_to_make_lines_of_it(
    tmp_path: Path, content: str, says: str
) -> None:
    """Before anything is guessed from those of its lines that look like records."""
    with pytest.raises(BadStream, match=rf"{says}.*one object per line.*jq -c"):
        _ = make_stream(tmp_path / "s.json", content).schema


def test_json_lines_may_be_called_json(tmp_path: Path) -> None:
    """As many tools call them."""
    batch = make_stream(tmp_path / "s.json", '{"a":1,"y":0}\n{"a":2,"y":1}\n').read(Cursor())
    assert [0, 1] == batch.positions


@given(
    st.lists(
        st.sampled_from(
            [
                '{"a":1,"b":"x","y":1}',
                '{"b":[{}',
                '{}],"a":1}',
                '{"a":1},{"a":2}',
                '{"b":"x}',
                '{y","a":1}',
                '{"b":"}{","a":1}',
                '{"a":1',
                '"b":"x"}',
                "{",
                "}",
                '{"a":{"b":1}}',
                ' {"a":1} ',
                "{}",
                "[]",
                ",",
            ]
        ),
        max_size=6,
    )
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_of_objects_on_several_lines_are_no_object(tmp_path: Path, lines: list[str]) -> None:
    """Lines that together are good JSON, with as many objects as lines, are each read alone."""
    body = "".join(line + "\n" for line in lines)
    fast = make_stream(tmp_path / "fast.jsonl", body, schema=SCHEMA).read(Cursor())
    slow = make_stream(tmp_path / "slow.jsonl", body + "\0\n", schema=SCHEMA).read(Cursor())
    assert records_of([fast]) == records_of([slow])[: len(lines)]


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "a": st.one_of(st.none(), st.integers(-5, 5), st.just("text")),
                "b": st.sampled_from(["x", "12:30", ""]),
                "y": st.sampled_from([0, 1, None]),
                "id": st.just([1, {"k": ":"}]),
                "z": st.sampled_from([{"q": 1}, "new", ":"]),
            },
        ),
        max_size=12,
    ),
    st.sampled_from(["ignore", "reject"]),
    st.integers(1, 5),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_keys_are_read_the_same_in_bulk_and_one_object_at_a_time(
    tmp_path: Path, objects: list[dict[str, Any]], how: str, size: int
) -> None:
    """A NUL at the end sends the whole lot the slow way; what is told is the same as well."""
    body = "".join(json.dumps(each) + "\n" for each in objects)
    options: dict[str, Any] = {"schema": SCHEMA, "new_columns": how, "ignore": ("id",)}
    fast = make_stream(tmp_path / "fast.jsonl", body, **options)
    slow = make_stream(tmp_path / "slow.jsonl", body + "\0\n", **options).read(Cursor())
    whole = fast.read(Cursor())
    assert records_of([whole]) == records_of([slow])[: len(objects)]
    assert whole.notices == slow.notices
    parts = read_all(fast, size=size)
    assert records_of([whole]) == records_of(parts)
    assert whole.notices == joined(notice for part in parts for notice in part.notices)


@given(
    st.lists(
        st.sampled_from(
            ["1,x,0", "1,x,0,", '2,"x, ",1', "3,x,1,new", "3,x,1,,new,", "4,x", "a,b,y", '"a",b,y,']
        ),
        max_size=12,
    ),
    st.sampled_from(["ignore", "reject"]),
    st.integers(1, 5),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_cells_are_read_the_same_in_bulk_and_one_record_at_a_time(
    tmp_path: Path, lines: list[str], how: str, size: int
) -> None:
    """As for JSON."""
    body = "\n".join(["a,b,y", *lines, ""])
    options: dict[str, Any] = {"schema": SCHEMA, "extra_cells": how}
    fast = make_stream(tmp_path / "fast.csv", body, **options)
    slow = make_stream(tmp_path / "slow.csv", body + "\0\n", **options).read(Cursor())
    whole = fast.read(Cursor())
    assert records_of([whole]) == records_of([slow])[: len(lines)]
    assert whole.notices == slow.notices
    parts = read_all(fast, size=size)
    assert records_of([whole]) == records_of(parts)
    assert whole.notices == joined(notice for part in parts for notice in part.notices)
