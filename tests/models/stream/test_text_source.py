"""CSV and JSON lines: what is a record, what a reject, and files that grow while being read."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from models.stream import text_records
from models.stream.source import BadStream, Batch, Cursor, Stream, StreamChanged
from tests.models.makers import make_schema, make_stream, read_all, records_of

HEAD = "a,b,y\n"
SCHEMA = make_schema("classification", "int", {"a": "number", "b": "category"}, "y")


def read_csv(tmp_path: Path, body: str | bytes, **options: Any) -> Batch:
    """Everything of a CSV of columns a (number), b (category) and the class y."""
    content = HEAD.encode() + (body.encode() if isinstance(body, str) else body)
    return make_stream(tmp_path / "s.csv", content, schema=SCHEMA, **options).read(Cursor(), 9999)


def read_json(tmp_path: Path, body: str | bytes, **options: Any) -> Batch:
    """Everything of JSON lines of the same columns."""
    return make_stream(tmp_path / "s.jsonl", body, schema=SCHEMA, **options).read(Cursor(), 9999)


def append(path: Path, text: str) -> None:
    """More bytes at the end."""
    with path.open("ab") as file:
        file.write(text.encode())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x,red,1", r"^column 'a': a number was expected, 'x' came$"),
        ("inf,red,1", "column 'a': a finite number"),
        ("1e999,red,1", "column 'a': a finite number"),
        ("1e101,red,1", r"column 'a': a number of a magnitude up to 1e\+100"),
        ("1,red", "^3 cells were expected, 2 came$"),
        ("1,red,1,9", "3 cells were expected, 4 came"),
        ("1,red,up", "target 'y': a whole number as label was expected, 'up' came"),
        ("1,red,0.5", "target 'y': a whole number as label"),
        ('1,"re"d,1', "broken quotes"),
        ("1,r\red,1", "broken quotes"),
        ("1,r\0d,1", "NUL byte came at character 3"),
        (b"1,r\xffd,1", r"UTF-8 was expected, b'\\xff' came at byte 3"),
        ("1," + "r" * 20_000 + ",1", "column 'b': a text of at most 10000 characters"),
        ("1," + "r" * 2_000_000 + ",1", "column 'b': a text of at most 10000 characters"),
        ('1,"r' + "r" * 200_000 + '",1', "column 'b': a text of at most 10000 characters"),
    ],
)
def test_a_bad_csv_line_is_one_reject_and_reading_goes_on(
    tmp_path: Path, line: str | bytes, reason: str
) -> None:
    """With the column, what was allowed, what came, and the text of the line."""
    line = line.encode() if isinstance(line, str) else line
    batch = read_csv(tmp_path, b"1,red,1\n" + line + b"\n2,blue,0\n")
    assert [0, 2] == batch.positions
    assert [{"a": 1.0, "b": "red"}, {"a": 2.0, "b": "blue"}] == batch.rows
    assert [1] == [reject.position for reject in batch.rejects]
    with pytest.raises(ValueError, match=reason):
        raise ValueError(batch.rejects[0].reason)
    assert line[:3].decode() == batch.rejects[0].raw[:3]
    assert len(batch.rejects[0].raw) <= 10_000


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"a":"five","b":"red","y":1}', "column 'a': a number was expected, 'five' came"),
        ('{"a":true,"b":"red","y":1}', "column 'a': a number was expected, true came"),
        ('{"a":[1],"b":"red","y":1}', "column 'a': a number was expected, a list came"),
        ('{"a":Infinity,"b":"red","y":1}', "column 'a': a finite number was expected, inf came"),
        ('{"a":1e999,"b":"red","y":1}', "column 'a': a finite number"),
        ('{"a":1,"b":5,"y":1}', "column 'b': a text was expected, the number 5 came"),
        ('{"a":1,"b":{},"y":1}', "column 'b': a text was expected, an object came"),
        ('{"a":1,"b":"\\ud800","y":1}', "column 'b': valid Unicode"),
        ('{"a":1,"b":"\\u0000","y":1}', "column 'b': text without NUL"),
        ('{"a":1,"b":"red","y":true}', "target 'y': a whole number as label was expected, true"),
        ('{"z":1}', "an object with columns of the schema was expected, one without any came"),
        ("{}", "one without any came"),
        ('{"a":1,"a":1,"b":"red","y":1}', "each key once was expected, 'a' came twice"),
        ('{"a":1,"b":"red","y":1', "a JSON object was expected, broken JSON came"),
        ('{"a":1,"b":"red","y":1}{}', "broken JSON"),
        ("[1]", r"a JSON object was expected, \[1\] came"),
        ("[" * 200_000, "deeply nested"),
        ('{"a":' + "9" * 5000 + ',"b":"red","y":1}', "an unreadable one came"),
        ('{"a":' + "9" * 400 + ',"b":"red","y":1}', "column 'a': a number of a magnitude"),
        ('{"a":1,"b":"r\0d","y":1}', "NUL byte"),
    ],
)
def test_a_bad_json_line_is_one_reject_and_reading_goes_on(
    tmp_path: Path, line: str, reason: str
) -> None:
    """With the column, what was allowed, what came, and the text of the line."""
    good = '{"a":1,"b":"red","y":1}\n'
    batch = read_json(tmp_path, good + line + "\n" + good)
    assert [0, 2] == batch.positions
    assert [1] == [reject.position for reject in batch.rejects]
    with pytest.raises(ValueError, match=reason):
        raise ValueError(batch.rejects[0].reason)


def test_missing_values_are_none_in_both_text_formats(tmp_path: Path) -> None:
    """Blank, and the usual spellings in a number column; null and NaN in JSON."""
    rows = read_csv(tmp_path, "nan,,1\nNA, ,1\n?,x,1\n").rows
    assert [(None, None), (None, None), (None, "x")] == [(r["a"], r["b"]) for r in rows]
    rows = read_json(tmp_path, '{"a":null,"b":null,"y":1}\n{"a":NaN,"b":"","y":1}\n').rows
    assert [{"a": None, "b": None}] * 2 == rows


def test_csv_quotes_may_hold_delimiters_quotes_and_line_ends(tmp_path: Path) -> None:
    """As RFC 4180 has it, with either line end."""
    body = '1,"re,d",1\r\n2,"say ""hi""",0\r\n3,"two\r\nlines",1\r\n4,plain,0\r\n'
    rows = read_csv(tmp_path, body).rows
    assert ["re,d", 'say "hi"', "two\r\nlines", "plain"] == [row["b"] for row in rows]


def test_quoted_lines_are_read_the_same_in_bulk_and_one_by_one(tmp_path: Path) -> None:
    """A bad line sends its neighbours the slow way, and they must not change by that."""
    body = '1,"re,d",1\n2,"say ""hi""",0\n 3 , "x" ,1\n'
    slow = read_csv(tmp_path, body + '1,"\n').rows
    assert slow == read_csv(tmp_path, body).rows


@pytest.mark.parametrize("text", ["\ufeff", ""])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_byte_order_mark_and_any_usual_delimiter_are_understood(
    tmp_path: Path, text: str, delimiter: str
) -> None:
    """The delimiter is the one that the header has most of."""
    body = f"{text}a d,b,y\r\n1,red,1\r\n".replace(",", delimiter)
    stream = make_stream(tmp_path / "s.csv", body)
    assert ["a d", "b"] == stream.schema.names
    assert [{"a d": 1.0, "b": "red"}] == stream.read(Cursor()).rows


def test_a_delimiter_that_is_given_is_used(tmp_path: Path) -> None:
    """Even where another one is more frequent; and .tsv means tabs."""
    stream = make_stream(tmp_path / "s.csv", "a,1,2:y\n5:0\n", delimiter=":")
    assert ["a,1,2"] == stream.schema.names
    stream = make_stream(tmp_path / "s.tsv", "a,1,2\ty\n5\t0\n")
    assert ["a,1,2"] == stream.schema.names


def test_json_lines_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """Windows tools write one."""
    assert 1 == len(read_json(tmp_path, '\ufeff{"a":1,"b":"x","y":1}\n').rows)


def test_blank_lines_are_no_records(tmp_path: Path) -> None:
    """They take no position, wherever they are."""
    batch = read_csv(tmp_path, "\n1,red,1\n\n  \r\n2,red,0\n\n")
    assert ([0, 1], []) == (batch.positions, batch.rejects)
    body = '\n{"a":1,"b":"x","y":1}\n\n{"a":1,"b":"x","y":1}\n'
    assert [0, 1] == read_json(tmp_path, body).positions


def test_an_unclosed_quote_does_not_swallow_the_file(tmp_path: Path) -> None:
    """Its line alone is rejected, where no quote follows within 1,000 lines."""
    good = "1,red,1\n" * 1_000
    batch = read_csv(tmp_path, good + '2,"open,1\n' + good)
    assert [1_000] == [reject.position for reject in batch.rejects]
    assert "a closing quote was expected within 1000 lines" in batch.rejects[0].reason
    assert '2,"open,1' == batch.rejects[0].raw
    assert 2_000 == len(batch.rows)


def test_a_quoted_record_may_have_a_thousand_lines(tmp_path: Path) -> None:
    """As a note or a log in a cell has."""
    lines = "\n".join(f"line {number}" for number in range(1_000))
    batch = read_csv(tmp_path, f'1,"{lines}",1\n2,red,0\n')
    assert [{"a": 1.0, "b": lines}, {"a": 2.0, "b": "red"}] == batch.rows


def test_quotes_that_all_open_by_mistake_do_not_make_each_line_a_thousand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a first line each of these leaves a quote open, and as a second one it closes that and
    opens another: cells that are too many end such a record long before its limit."""
    pulled = []
    pull = text_records._Joined.pull

    def counting(joined: Any) -> str:
        pulled.append(1)
        return pull(joined)

    monkeypatch.setattr(text_records._Joined, "pull", counting)
    batch = read_csv(tmp_path, '",x","\n' * 3_000 + "1,red,1\n")
    assert ([3_000], 3_000) == (batch.positions, len(batch.rejects))
    assert "more than 22 cells came before a quote was closed" in batch.rejects[0].reason
    assert len(pulled) < 3_000 * 15


def test_a_field_of_any_length_in_an_ignored_column_costs_nothing(tmp_path: Path) -> None:
    """Quoted or not, in CSV and in JSON; its neighbours are read in the same go."""
    long = "x" * 3_000_000
    body = f'a,b,n,y\n1,x,{long},1\n2,y,"{long}",0\n3,z,,1\n'
    batch = make_stream(tmp_path / "s.csv", body, schema=SCHEMA, ignore=("n",)).read(Cursor())
    assert ([0, 1, 2], []) == (batch.positions, batch.rejects)
    body = f'{{"a":1,"b":"x","y":1,"n":"{long}"}}\n{{"a":1,"b":"x","y":1}}\n'
    batch = read_json(tmp_path, body, ignore=("n",))
    assert ([0, 1], []) == (batch.positions, batch.rejects)


def test_an_unclosed_quote_that_meets_the_next_quoted_line_costs_one_line(tmp_path: Path) -> None:
    """The quote that opens the later cell seems to close the earlier one, and then text follows."""
    batch = read_csv(tmp_path, '1,red,1\n2,"open,1\n3,red,0\n4,"shut",1\n')
    assert ([0, 2, 3], [1]) == (batch.positions, [r.position for r in batch.rejects])


def test_a_record_over_too_many_bytes_costs_its_first_line(tmp_path: Path) -> None:
    """1 MiB, in fewer than 1,000 lines."""
    long = "x" * 500_000
    batch = read_csv(tmp_path, f'1,"{long}\n{long}\n{long}\n{long}",1\n2,red,0\n')
    assert "1 MiB" in batch.rejects[0].reason
    assert [{"a": 2.0, "b": "red"}] == batch.rows


def test_a_quoted_record_that_holds_a_broken_line_costs_its_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NUL, other encodings and endless lines are in no record."""
    monkeypatch.setattr(text_records, "LONGEST_LINE", 1 << 20)
    for odd in (b"\0", b"\xff", b"x" * 2_000_000):
        batch = read_csv(tmp_path, b'1,"two\n' + odd + b'",1\n2,red,0\n')
        assert ([2], [0, 1]) == (batch.positions, [r.position for r in batch.rejects])


def test_an_unclosed_quote_before_the_end_is_a_reject_and_stays_one(tmp_path: Path) -> None:
    """Also when the file later grows by a quote: positions that were given do not move."""
    path = tmp_path / "s.csv"
    stream = make_stream(path, HEAD + '1,red,1\n2,"open,1\n3,red,0\n', schema=SCHEMA)
    before = stream.read(Cursor())
    assert ([0, 2], True) == (before.positions, before.ended)
    append(path, '4,shut",1\n')
    after = stream.read(before.after)
    assert [3] == after.positions
    assert records_of([before, after]) == records_of(
        [stream.between(0, 9, [before.after, after.after])]
    )


def test_a_last_line_that_is_whole_is_taken_without_its_line_end(tmp_path: Path) -> None:
    """Many tools write none at the end; one that comes later changes nothing."""
    path = tmp_path / "s.csv"
    for end in ("\n", "\r\n"):
        stream = make_stream(path, HEAD + "1,red,1\n2,red,0", schema=SCHEMA)
        before = stream.read(Cursor())
        assert ([0, 1], True, 0) == (before.positions, before.ended, before.unfinished)
        append(path, end + "3,blue,1\n")
        after = stream.read(before.after)
        assert ([2], []) == (after.positions, after.rejects)
        assert () == after.after.cuts


@pytest.mark.parametrize("piece", ["2,re", "2,red,", '2,"red', '2,"two\nlines', "  ", "2,r\0"])
def test_a_last_line_that_is_not_whole_yet_is_left_for_later(tmp_path: Path, piece: str) -> None:
    """It is no reject; how much is left is said; and once it is whole it is read."""
    path = tmp_path / "s.csv"
    stream = make_stream(path, HEAD + "1,red,1\n" + piece, schema=SCHEMA)
    before = stream.read(Cursor())
    assert ([0], [], True) == (before.positions, before.rejects, before.ended)
    assert len(piece) == before.unfinished
    assert before.after == stream.read(before.after).after


def test_a_line_written_in_two_goes_is_one_record(tmp_path: Path) -> None:
    """The reader came in between."""
    path = tmp_path / "s.csv"
    stream = make_stream(path, HEAD + '1,red,1\n2,"two\nli', schema=SCHEMA)
    before = stream.read(Cursor())
    append(path, 'nes",0\n3,red,1\n')
    after = stream.read(before.after)
    assert ["two\nlines", "red"] == [row["b"] for row in after.rows]
    assert [1, 2] == after.positions


def test_the_rest_of_a_line_that_was_taken_is_a_reject(tmp_path: Path) -> None:
    """Not an exception, and no second record that looks right; and so it stays on reading again."""
    path = tmp_path / "s.csv"
    stream = make_stream(path, HEAD + "1,red,1\n2,red,1", schema=SCHEMA)
    before = stream.read(Cursor())
    append(path, "0\n3,red,0\n")
    after = stream.read(before.after)
    assert [1, 1] == before.labels
    assert [(2, "0")] == [(reject.position, reject.raw) for reject in after.rejects]
    assert "continues after" in after.rejects[0].reason
    assert [3] == after.positions
    marks = [before.after, after.after]
    for kept in (marks, marks[1:]):
        assert records_of([before, after]) == records_of([stream.between(0, 9, kept)])


def test_the_rest_of_a_taken_line_waits_for_its_end(tmp_path: Path) -> None:
    """It may go on yet further."""
    path = tmp_path / "s.csv"
    stream = make_stream(path, HEAD + "1,red,1", schema=SCHEMA)
    first = stream.read(Cursor())
    for piece in ("2", "3"):
        append(path, piece)
        assert ([], []) == (stream.read(first.after).rows, stream.read(first.after).rejects)
    append(path, "\n")
    assert ["23"] == [reject.raw for reject in stream.read(first.after).rejects]


def test_spaces_after_a_taken_line_are_no_record(tmp_path: Path) -> None:
    """A reader that came between a cell and its trailing space."""
    path = tmp_path / "s.csv"
    stream = make_stream(path, HEAD + '1,red,"1"', schema=SCHEMA)
    first = stream.read(Cursor())
    append(path, " \n2,red,0\n")
    second = stream.read(first.after)
    assert ([1], []) == (second.positions, second.rejects)
    again = stream.between(0, 2, [first.after, second.after])
    assert records_of([first, second]) == records_of([again])


def test_a_json_object_is_taken_without_its_line_end_only_when_whole(tmp_path: Path) -> None:
    """Half an object waits."""
    path = tmp_path / "s.jsonl"
    stream = make_stream(path, '{"a":1,"b":"x","y":1}\n{"a":2,"b":"x"', schema=SCHEMA)
    before = stream.read(Cursor())
    assert [0] == before.positions
    append(path, ',"y":0}')
    after = stream.read(before.after)
    assert [{"a": 2.0, "b": "x"}] == after.rows


def test_a_header_that_changed_is_no_longer_the_stream(tmp_path: Path) -> None:
    """Even where the cursor stands at the beginning."""
    path = tmp_path / "s.csv"
    stream = make_stream(path, HEAD + "1,red,1\n")
    _ = stream.schema
    path.write_text("a,c,y\n1,red,1\n")
    with pytest.raises(StreamChanged, match=r"missing now: b\)"):
        stream.read(Cursor())


def test_columns_in_another_order_are_still_the_columns(tmp_path: Path) -> None:
    """Rows are by name: another file of the same stream may be ordered otherwise."""
    stream = make_stream(tmp_path / "s.csv", "y,b,a\n1,red,5\n", schema=SCHEMA)
    row = stream.read(Cursor()).rows[0]
    assert [("a", 5.0), ("b", "red")] == list(row.items())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,a,y\n1,1,1\n", "column 'a' is there 2 times"),
        ("a,,y\n0,1,1\n", "column 2 has no name.*'unnamed_2' into stream.ignore"),
        (b"a,\0y\n1,1\n", "header line is not readable: .*NUL"),
        ("при,y\n1,1\n".encode("utf-16-le"), 'NUL.*encoding = "utf-16-le"'),
        ('a,"y\n1,1\n', "header line is not readable"),
        ("y\n1\n", "nothing is left to learn from"),
        ("a,y\n1,\n2,nan\n", "has no label in the first 2 records"),
    ],
)
def test_a_head_that_makes_no_schema_is_bad_configuration(
    tmp_path: Path, content: str | bytes, says: str
) -> None:
    """Said once, before anything is learned."""
    with pytest.raises(BadStream, match=says):
        _ = make_stream(tmp_path / "s.csv", content).schema


def test_an_unnamed_column_can_be_ignored(tmp_path: Path) -> None:
    """By the name that the message gave it."""
    stream = make_stream(tmp_path / "s.csv", "a,,y\n1,0,1\n", ignore=("unnamed_2",))
    assert [{"a": 1.0}] == stream.read(Cursor()).rows


def test_an_index_that_was_written_along_is_left_out_and_told(tmp_path: Path) -> None:
    """As pandas writes one by default; a person may take it all the same."""
    stream = make_stream(tmp_path / "s.csv", ",a,y\n7,1,1\n3,2,0\n")
    assert [{"a": 1.0}, {"a": 2.0}] == stream.read(Cursor()).rows
    assert ("unnamed_1", "left out") == (stream.schema.seen[0].name, stream.schema.seen[0].read_as)
    taken = make_stream(tmp_path / "s.csv", numbers=("unnamed_1",))
    assert {"unnamed_1": 7.0, "a": 1.0} == taken.read(Cursor()).rows[0]


def test_text_as_target_of_a_regression_is_bad_configuration(tmp_path: Path) -> None:
    """Rather than a stream of rejects."""
    with pytest.raises(BadStream, match='task = "classification"'):
        _ = make_stream(tmp_path / "s.csv", "a,y\n1,up\n", task="regression").schema


def test_a_json_column_of_lists_is_left_out_and_told(tmp_path: Path) -> None:
    """Its type is neither a number nor a category."""
    stream = make_stream(tmp_path / "s.jsonl", '{"a":1,"l":[1],"y":1}\n')
    batch = stream.read(Cursor())
    assert ([{"a": 1.0}], ()) == (batch.rows, batch.notices)
    assert ["left out"] == [each.read_as for each in stream.schema.seen if each.name == "l"]


def test_a_key_that_hardly_any_object_of_the_sample_has_is_no_column(tmp_path: Path) -> None:
    """It is left out, and the schema says so; nothing about it is news later."""
    body = '{"z":1,"a":1,"y":1}\n' + '{"a":1,"y":1}\n' * 30
    stream = make_stream(tmp_path / "s.jsonl", body)
    batch = stream.read(Cursor())
    assert (["a"], ()) == (stream.schema.names, batch.notices)
    assert ["only 1 of 31 records have this key"] == [
        each.because for each in stream.schema.seen if each.name == "z"
    ]


def test_a_text_that_spells_a_number_is_one_in_a_column_of_numbers(tmp_path: Path) -> None:
    """Many programs write some numbers as text; in a column of texts it stays a text."""
    batch = read_json(tmp_path, '{"a":"5.5","b":"7","y":1}\n{"a":" ","b":"x","y":0}\n')
    assert [{"a": 5.5, "b": "7"}, {"a": None, "b": "x"}] == batch.rows


def test_a_column_can_be_named_a_number_or_a_category(tmp_path: Path) -> None:
    """What the sample says is only a guess."""
    body = '{"a":"5","b":5,"y":1}\n{"a":"6","b":5.0,"y":0}\n'
    stream = make_stream(tmp_path / "s.jsonl", body, numbers=("a",), categories=("b",))
    assert [{"a": 5.0, "b": "5"}, {"a": 6.0, "b": "5"}] == stream.read(Cursor()).rows


def test_a_large_file_is_never_held_whole(tmp_path: Path) -> None:
    """200,000 records, 11 MB: what is held at once is bounded by the batch."""
    path = tmp_path / "s.csv"
    with path.open("w") as file:
        file.write(HEAD)
        file.writelines(f"{i / 7},category number {i % 97} of a few,1\n" for i in range(200_000))
    stream = Stream(path, "classification", make_stream(path).options)
    tracemalloc.start()
    cursor, records, marks = Cursor(), 0, []
    while not (batch := stream.read(cursor, 2000)).ended:
        records, cursor = records + len(batch.rows), batch.after
        marks.append(cursor)
    records += len(batch.rows)
    window = stream.between(150_000, 150_100, marks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (200_000, 150_000) == (records, window.positions[0])
    assert peak < 8_000_000


def test_a_line_that_is_too_long_is_a_reject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a column that nobody reads."""
    monkeypatch.setattr(text_records, "LONGEST_LINE", 1 << 20)
    batch = read_csv(tmp_path, "1,red,1\n1," + "r" * 6_000_000 + ",1\n2,blue,0\n")
    assert ([0, 2], [1]) == (batch.positions, [reject.position for reject in batch.rejects])
    assert "a line of at most 1048576 bytes was expected" == batch.rejects[0].reason


def test_a_line_without_end_is_never_held_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of 32 MB without a line end is one reject that waits, in little memory."""
    monkeypatch.setattr(text_records, "LONGEST_LINE", 1 << 20)
    path = tmp_path / "s.csv"
    path.write_bytes(HEAD.encode() + b"1,red,1\n" + b"x" * (32 << 20))
    stream = make_stream(path, schema=SCHEMA)
    tracemalloc.start()
    batch = stream.read(Cursor())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ([0], 32 << 20) == (batch.positions, batch.unfinished)
    assert peak < 20_000_000


def test_a_batch_of_very_long_lines_ends_early(tmp_path: Path) -> None:
    """At 64 MiB of text; the next reading goes on."""
    path = tmp_path / "s.csv"
    path.write_bytes(HEAD.encode() + (b"1," + b"x" * 1_000_000 + b",1\n") * 80)
    batches = read_all(make_stream(path, schema=SCHEMA))
    assert 2 == len(batches)
    assert list(range(80)) == [r.position for batch in batches for r in batch.rejects]
    assert not batches[0].ended
