"""The way from bytes to lines: compressed files, wide characters, encodings with a name."""

from __future__ import annotations

import errno
import gzip
import json
import os
import tempfile
import threading
import tracemalloc
import weakref
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.stream.parsing import charset
from models.stream.source import BadStream, Batch, Cursor, StreamChanged, StreamUnreadable
from tests.models.makers import PACKERS, make_schema, make_stream, read_all, records_of

TAR = b"s.csv" + b"\0" * 252 + b"ustar\0" + b"\0" * 300
HEAD = "a,größe,y\n"
SCHEMA = make_schema("classification", "int", {"a": "number", "größe": "category"}, "y")
BODY = "".join(f"{index},{'ä' if index % 3 else 'groß'},{index % 2}\n" for index in range(40))
ENCODINGS = ["auto", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-7", "cp1252", "gb18030"]


def spelt(text: str, encoding: str) -> bytes:
    """The text's bytes; auto is UTF-8."""
    return text.encode("utf-8" if encoding == "auto" else encoding)


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_packed_file_of_any_encoding_is_the_plain_one(
    tmp_path: Path, ending: str, encoding: str
) -> None:
    """Records, positions and schema are those of the same text in plain UTF-8."""
    plain = make_stream(tmp_path / "plain.csv", HEAD + BODY)
    data = PACKERS[ending](spelt(HEAD + BODY, encoding))
    packed = make_stream(tmp_path / f"s.csv{ending}", data, encoding=encoding)
    assert plain.schema == packed.schema
    assert records_of(read_all(plain)) == records_of(read_all(packed, size=7))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_wide_characters_are_recognised_by_themselves(
    tmp_path: Path, encoding: str, kind: str
) -> None:
    """By the byte order mark, and without one by where NUL stands in the first four bytes."""
    text = "ab,y\nü,1\n" if kind == "csv" else '{"ab": "ü", "y": 1}\n'
    batch = make_stream(tmp_path / f"s.{kind}", text.encode(encoding)).read(Cursor())
    assert ([{"ab": "ü"}], [1]) == (batch.rows, batch.labels)


@pytest.mark.parametrize("ending", [ending for ending in PACKERS if ending])
def test_what_a_file_is_packed_with_is_told_by_its_first_bytes(tmp_path: Path, ending: str) -> None:
    """A name without the ending does no harm, and one that is wrong is said."""
    data = PACKERS[ending](b"a,y\n1,0\n")
    assert [0] == make_stream(tmp_path / "s.csv", data).read(Cursor()).positions
    with pytest.raises(StreamUnreadable, match=r"by its name.*rename it without"):
        _ = make_stream(tmp_path / f"t.csv{ending}", "a,y\n1,0\n").schema


@pytest.mark.parametrize("ending", [ending for ending in PACKERS if ending])
def test_a_packed_file_grows_by_another_member(tmp_path: Path, ending: str) -> None:
    """As `gzip -c more >> file` does; what was read stays, whoever reads on."""
    path = tmp_path / f"s.csv{ending}"
    pack = PACKERS[ending]
    stream = make_stream(path, pack(b"a,y\n1,0\n2,1\n"))
    before = stream.read(Cursor())
    with path.open("ab") as file:
        file.write(pack(b"3,0\n"))
    for reader in (stream, make_stream(path)):
        after = reader.read(before.after)
        assert ([2], [{"a": 3.0}], True) == (after.positions, after.rows, after.ended)
    assert records_of([before, after]) == records_of([stream.between(0, 9, [before.after])])


@pytest.mark.parametrize("ending", [ending for ending in PACKERS if ending])
@pytest.mark.parametrize("damage", ["cut", "flipped", "followed by rubbish"])
def test_a_damaged_archive_is_unreadable(tmp_path: Path, ending: str, damage: str) -> None:
    """With the file, why, and what to do; never fewer records without a word."""
    data = PACKERS[ending]((HEAD + BODY).encode())
    middle = len(data) // 2
    data = {
        "cut": data[:-1],
        "flipped": data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :],
        "followed by rubbish": data + b"rubbish that is no member",
    }[damage]
    stream = make_stream(tmp_path / f"s.csv{ending}", data)
    with pytest.raises(StreamUnreadable, match=r"s\.csv.*cannot be unpacked as .*restore it"):
        _ = stream.schema
    assert (None, None) == (stream.done_fraction(Cursor()), stream.total_hint)


@pytest.mark.parametrize("ending", [".gz", ".xz"])
def test_padding_after_a_member_is_no_damage(tmp_path: Path, ending: str) -> None:
    """Tapes and block devices fill up with NUL, and so may these two formats."""
    pack = PACKERS[ending]
    data = pack(b"a,y\n1,0\n") + b"\0" * 8 + pack(b"2,1\n") + b"\0" * 400_000
    assert [0, 1] == make_stream(tmp_path / f"s.csv{ending}", data).read(Cursor()).positions


def test_a_packed_file_that_was_rewritten_is_refused_as_a_plain_one(tmp_path: Path) -> None:
    """The text counts: the same text packed anew is the same stream."""
    path = tmp_path / "s.csv.gz"
    stream = make_stream(path, gzip.compress(b"a,y\n1,0\n2,1\n"))
    after = stream.read(Cursor()).after
    path.write_bytes(gzip.compress(b"a,y\n1,0\n2,1\n3,1\n", compresslevel=1))
    assert [2] == stream.read(after).positions
    path.write_bytes(gzip.compress(b"a,y\n1,1\n2,1\n3,1\n"))
    with pytest.raises(StreamChanged, match="no longer those that were read"):
        stream.read(after)
    path.write_bytes(gzip.compress(b"a,y\n1,0\n"))
    with pytest.raises(StreamChanged, match="it had 12 bytes and has 8 now"):
        stream.read(after)


def test_a_packed_file_is_decoded_once_as_long_as_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many batches are read; and the text goes when another takes its place."""
    taken: list[Any] = []
    real = tempfile.TemporaryFile

    def counting(*args: Any, **kwargs: Any) -> Any:
        taken.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(tempfile, "TemporaryFile", counting)
    path = tmp_path / "s.csv.gz"
    stream = make_stream(path, gzip.compress((HEAD + BODY).encode()))
    read_all(stream, size=3)
    stream.between(3, 9)
    assert [1] == taken
    path.write_bytes(gzip.compress((HEAD + BODY + BODY).encode()))
    read_all(stream)
    assert [1, 1] == taken


def test_threads_that_read_one_packed_stream_do_not_disturb_each_other(tmp_path: Path) -> None:
    """A retrain reads its window while the loop reads on."""
    stream = make_stream(tmp_path / "s.csv.gz", gzip.compress((HEAD + BODY * 50).encode()))
    expected = records_of(read_all(stream))
    found: list[list[tuple[int, object]]] = []
    threads = [
        threading.Thread(target=lambda: found.append(records_of(read_all(stream, size=17))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [expected] * 4 == found


def test_a_packed_file_is_never_held_whole(tmp_path: Path) -> None:
    """16 MB in 16 KB: what is held at once is bounded, however well it was packed."""
    data = gzip.compress(b"a,b,y\n" + b"1,              x,0\n" * 800_000)
    schema = make_schema("classification", "int", {"a": "number", "b": "category"}, "y")
    stream = make_stream(tmp_path / "s.csv.gz", data, schema=schema)
    del data
    tracemalloc.start()
    batch = stream.read(Cursor(), 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 10 == len(batch.rows)
    assert peak < 4_000_000


@pytest.mark.parametrize("at_once", [True, False])
def test_a_full_temporary_disk_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    """With the folder, and the ways out."""

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    file = MagicMock(write=Mock(side_effect=full))
    file.__exit__.return_value = None
    made = Mock(side_effect=full) if at_once else Mock(return_value=file)
    monkeypatch.setattr(tempfile, "TemporaryFile", made)
    stream = make_stream(tmp_path / "s.csv.gz", gzip.compress(b"a,y\n1,0\n"))
    with pytest.raises(StreamUnreadable, match=r"No space left.*TMPDIR"):
        stream.read(Cursor())


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("s.csv", b"PK\x03\x04rest", "zip archive or a spreadsheet"),
        ("s.csv.gz", gzip.compress(TAR, mtime=0), "a tar"),
        ("s.csv", b"PAR1rest", 'format = "parquet"'),
    ],
)
def test_a_file_of_another_kind_is_named(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    """Rather than refused for its header."""
    with pytest.raises(BadStream, match=says):
        _ = make_stream(tmp_path / name, content).schema


def test_a_compressed_parquet_file_is_refused_by_its_name(tmp_path: Path) -> None:
    """Before anything is read."""
    with pytest.raises(BadStream, match="compressed Parquet file: unpack it"):
        make_stream(tmp_path / "s.parquet.gz")
    with pytest.raises(BadStream, match=r"ends in none of .*\.gz"):
        make_stream(tmp_path / "s.gz")


@given(
    st.lists(st.sampled_from(["1,ä,1\n", '2,"two\nlinés",0\n', "x\n", '"', "\r\n", "3,€,1", "\0"])),
    st.sampled_from(["", *PACKERS]),
    st.sampled_from(["utf-8", "utf-16", "utf-16-le", "cp1252", "gb18030", "utf-7"]),
    st.integers(1, 6),
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
)
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_however_a_file_is_encoded_packed_and_cut_its_records_are_those_of_its_text(
    tmp_path: Path, pieces: list[str], ending: str, encoding: str, size: int, steps: list[int]
) -> None:
    """Growing in steps of bytes (packed: of members), read in batches of any size, read again."""
    content = (HEAD + "".join(pieces) + "\n").encode(encoding)
    path = tmp_path / f"s.csv{ending}"
    path.write_bytes(b"")
    stream = make_stream(path, schema=SCHEMA, encoding=encoding)
    cursor, at = Cursor(), 0
    batches: list[Batch] = []
    while at < len(content):
        step = steps[len(batches) % len(steps)]
        with path.open("ab") as file:
            file.write(PACKERS[ending](content[at : at + step]))
        at += step
        batches += read_all(stream, cursor, size)
        cursor = batches[-1].after
    again = make_stream(path, schema=SCHEMA, encoding=encoding).between(0, 999, [cursor])
    assert records_of(batches) == records_of([again])
    whole = make_stream(tmp_path / "whole.csv", HEAD + "".join(pieces) + "\n", schema=SCHEMA)
    if not cursor.cuts:  # A cut is where the writer stood still in a record.
        assert records_of(read_all(whole)) == records_of(batches)


def test_what_is_no_character_is_a_reject_whatever_the_encoding(tmp_path: Path) -> None:
    """Its neighbours are read, and the reason names the encoding."""
    lone = HEAD.encode("utf-16") + "1,".encode("utf-16-le") + b"\x00\xd8"
    lone += ",1\n2,b,0\n".encode("utf-16-le")
    beyond = HEAD.encode("utf-32") + "1,".encode("utf-32-le") + b"\xff\xff\xff\xff"
    beyond += ",1\n2,b,0\n".encode("utf-32-le")
    shift = HEAD.replace("ö", "o").replace("ß", "ss").encode() + b"1,\x81\xff,1\n2,b,0\n"
    for content, encoding, label in (
        (lone, "auto", "UTF-16"),
        (beyond, "auto", "UTF-32"),
        (shift, "shift_jis", "shift_jis"),
    ):
        stream = make_stream(tmp_path / "s.csv", content, encoding=encoding)
        batch = stream.read(Cursor())
        assert ([1], [0]) == (batch.positions, [reject.position for reject in batch.rejects])
        assert f"{label} was expected" in batch.rejects[0].reason


def test_a_byte_that_is_not_utf8_later_on_is_a_reject_that_names_the_knob(tmp_path: Path) -> None:
    """The sample was fine: nothing could be asked."""
    content = b"a,b,y\n" + b"1,x,0\n" * 10 + b"1,gr\xf6n,1\n"
    batch = make_stream(tmp_path / "s.csv", content, sample=10).read(Cursor())
    assert (10, [10]) == (len(batch.rows), [reject.position for reject in batch.rejects])
    assert (
        "UTF-8 was expected, b'\\xf6' came at byte 4 of the line (stream.encoding names another "
        "encoding)" == batch.rejects[0].reason
    )


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "s.csv",
            b'a,b,y\n1,x,0\n2,"a,b",1\n3,gr\xfcn,1\n',
            "line 4, column 'b', is not UTF-8 (byte 0xfc); read as cp1252 it is 'grün'. ",
        ),
        (
            "s.csv",
            b"a,gr\xf6\xdfe,y\n1,x,0\n",
            "the header line, column 2, is not UTF-8 (byte 0xf6); read as cp1252 it is 'größe'",
        ),
        ("s.csv", "é;b;y\n".encode() + b"\xc3\xa9;\x80;1\n", "line 2, column 'b', .* it is '€'"),
        ("s.csv", b"a,b,y\n1,\xe9\n", "line 2 is not UTF-8 (byte 0xe9); read as cp1252 it is 'é'"),
        ("s.csv", b'a,b,y\n1,"two\nl\xe9,s",1\n', "line 3 is not UTF-8"),
        (
            "s.jsonl",
            b'{"a": 1, "y": 0}\n{"a": 1, "b": "gr\xfcn", "y": 1}\n',
            "line 2, column 'b', is not UTF-8 (byte 0xfc); read as cp1252 it is 'grün'",
        ),
        ("s.jsonl", b'{"gr\xfcn": 1, "y": 0}\n', "line 1, a key, .* it is 'grün'"),
        ("s.jsonl", b'{"b": ["gr\xfcn"], "y": 0}\n', "line 1 is not UTF-8 .*grün"),
        ("s.jsonl", b'{"b": \xfc\n', "line 1 is not UTF-8"),
    ],
)
def test_a_sample_that_is_not_utf8_is_a_question(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    """Where it is, how it would read, and the line of the pipeline file that answers."""
    with pytest.raises(BadStream, match="is not UTF-8") as caught:
        _ = make_stream(tmp_path / name, content).schema
    before, _, after = says.partition(".*")
    assert before in str(caught.value)
    assert after in str(caught.value)
    assert 'encoding = "cp1252"' in str(caught.value)
    assert 78 == caught.value.exit_code


def test_the_answer_that_the_question_names_reads_the_file(tmp_path: Path) -> None:
    """And utf-8 makes the records rejects."""
    content = b"a,b,y\n1,gr\xfcn,0\n2,x,1\n"
    assert (
        "grün"
        == make_stream(tmp_path / "s.csv", content, encoding="cp1252").read(Cursor()).rows[0]["b"]
    )
    asked = make_stream(tmp_path / "s.csv", content, encoding="utf-8").read(Cursor())
    assert ([1], [0]) == (asked.positions, [reject.position for reject in asked.rejects])


def test_a_text_that_ends_in_half_a_character_waits_for_the_rest(tmp_path: Path) -> None:
    """A writer of UTF-16 was between two bytes."""
    path = tmp_path / "s.csv"
    content = "a,y\n1,0\n".encode("utf-16")
    stream = make_stream(
        path, content[:-1], schema=make_schema(columns={"a": "number"}, target="y")
    )
    batch = stream.read(Cursor())
    path.write_bytes(content + "2,1\n".encode("utf-16-le"))
    assert [0, 1] == batch.positions + stream.read(batch.after).positions


@pytest.mark.parametrize("name", ["rot13", "no-such", "base64"])
def test_an_encoding_that_makes_no_text_of_bytes_is_refused(tmp_path: Path, name: str) -> None:
    """With one that is meant."""
    with pytest.raises(ValidationError, match="cp1252"):
        make_stream(tmp_path / "s.csv", encoding=name)


@pytest.mark.parametrize(
    ("encoding", "safe"),
    [
        *((name, True) for name in ("utf-8", "cp1252", "latin-1", "shift_jis", "gbk", "big5")),
        *((name, True) for name in ("gb18030", "euc_kr", "koi8-r", "cp1251", "johab")),
        *(
            (name, False)
            for name in ("utf-16", "utf-32-le", "utf-7", "cp037", "iso2022_jp", "iso2022_kr", "hz")
        ),
    ],
)
def test_what_can_be_cut_into_lines_before_it_is_decoded_is_known(
    encoding: str, safe: bool
) -> None:
    """A line end inside another character would cut a record in two."""
    assert safe == charset.is_line_safe(encoding)


def test_text_that_nobody_reads_any_more_leaves_the_disk(tmp_path: Path) -> None:
    """With the stream that decoded it, and not before the end of the process."""
    stream = make_stream(tmp_path / "s.csv.gz", gzip.compress(b"a,y\n1,0\n"))
    stream.read(Cursor())
    held: Any = stream._source._bytes_of._held.text  # type: ignore[attr-defined]  # what is tested
    descriptor, gone = held.descriptor, weakref.ref(held)
    assert os.fstat(descriptor).st_size == 8
    del stream, held
    assert gone() is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_json_lines_may_be_packed(tmp_path: Path) -> None:
    """As exports of warehouses are."""
    lines = "".join(json.dumps({"a": index, "y": index % 2}) + "\n" for index in range(5))
    data = PACKERS[".zst"](lines.encode())
    assert 5 == len(make_stream(tmp_path / "s.jsonl.zst", data).read(Cursor()).rows)
