"""The outbox: what is written is read back whole or not believed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.history.outbox import Outbox, OutboxCorrupt, OutboxSchemaMismatch
from tests.observability.history.makers import make_decision, make_reject, make_score


def make_outbox(folder: Path, version: int = 1) -> Outbox:
    """An empty outbox."""
    return Outbox(folder / "outbox", version)


def written(folder: Path) -> Path:
    """The file of one commit."""
    outbox = make_outbox(folder)
    outbox.write([make_score(), make_decision()], "one", now_ns=5)
    return outbox.waiting()[0]


def test_a_commit_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    """Tables, rows and cells come back; facts are JSON text, times ISO 8601."""
    path = written(tmp_path)
    back = make_outbox(tmp_path).read(path)
    assert ("one", 5, 2) == (back.name, back.committed_at_ns, back.count)
    assert ["score_rows", "decision_rows"] == list(back.tables)
    decision = back.tables["decision_rows"][0]
    assert "2026-03-01T12:00:00+00:00" == decision["decided_at"]
    assert {"accuracy": 0.84, "tolerance": 0.02} == json.loads(str(decision["facts"]))
    assert decision["yes"] is False


@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_anywhere_is_corrupt(
    tmp_path_factory: pytest.TempPathFactory, cut: float
) -> None:
    """No prefix of a outbox file is believed."""
    folder = tmp_path_factory.mktemp("cut")
    path = written(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(OutboxCorrupt, match=r"one\.json"):
        make_outbox(folder).read(path)


def test_a_file_that_was_changed_is_corrupt(tmp_path: Path) -> None:
    """A digit that flipped on the disk is noticed although the JSON is still sound."""
    path = written(tmp_path)
    path.write_text(path.read_text().replace("0.84", "0.94", 1))
    with pytest.raises(OutboxCorrupt, match="changed after"):
        make_outbox(tmp_path).read(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"version": 1}', b"\xff\xfe", b"1" * 9])
def test_what_is_no_outbox_file_is_corrupt(tmp_path: Path, content: bytes) -> None:
    """Whatever lies in the folder under that name, reading it says so and nothing else."""
    path = written(tmp_path)
    path.write_bytes(content)
    with pytest.raises(OutboxCorrupt):
        make_outbox(tmp_path).read(path)


@pytest.mark.parametrize("version", [1, 3])
def test_a_file_of_another_schema_is_not_converted(tmp_path: Path, version: int) -> None:
    """Rows that another thermodrift committed are left to it."""
    make_outbox(tmp_path, version).write([make_score()], "other", now_ns=1)
    ours = make_outbox(tmp_path, version=2)
    with pytest.raises(OutboxSchemaMismatch, match=f"schema {version} of the history, not 2"):
        ours.read(ours.waiting()[0])


def test_a_number_that_is_not_finite_is_unknown(tmp_path: Path) -> None:
    """NaN and infinity become null, so that the file is JSON for everyone."""
    outbox = make_outbox(tmp_path)
    rows = [make_score(value=value) for value in (float("nan"), float("inf"), 0.5)]
    outbox.write([*rows, make_decision(facts={"x": float("-inf")})], "one", now_ns=1)
    tables = outbox.read(outbox.waiting()[0]).tables
    assert [None, None, 0.5] == [row["value"] for row in tables["score_rows"]]
    assert '{"x": null}' == tables["decision_rows"][0]["facts"]
    assert "NaN" not in outbox.waiting()[0].read_text()


def test_text_that_is_no_unicode_is_kept_escaped(tmp_path: Path) -> None:
    """A reject's raw text may hold anything; it must not stop the commit."""
    outbox = make_outbox(tmp_path)
    outbox.write([make_reject(raw="a\ud800b\x00c")], "one", now_ns=1)
    back = outbox.read(outbox.waiting()[0]).tables["reject_rows"][0]
    assert "a\\ud800b\x00c" == back["raw"]


def test_a_number_beyond_64_bits_is_refused_before_it_is_acknowledged(tmp_path: Path) -> None:
    """What DuckDB could not take must not sit in the outbox for ever."""
    outbox = make_outbox(tmp_path)
    with pytest.raises(ValueError, match="position_to must fit into 64 bits"):
        outbox.write([make_score(position_to=2**63)], "one", now_ns=1)
    assert [] == outbox.waiting()
    outbox.write([make_score(position_to=2**63 - 1)], "one", now_ns=1)


@pytest.mark.parametrize("name", ["", "A", "a b", "a/b", "ä", "a" * 201, "a\n"])
def test_a_name_that_is_no_plain_file_name_is_refused(tmp_path: Path, name: str) -> None:
    """The name becomes a file's name and is compared by every process: plain letters only."""
    with pytest.raises(ValueError, match="1 to 200"):
        make_outbox(tmp_path).write([make_score()], name, now_ns=1)


@pytest.mark.parametrize("name", ["a" * 200, "..", "a.json", ".tmp", "-"])
def test_odd_but_plain_names_are_kept(tmp_path: Path, name: str) -> None:
    """Every allowed name makes a file that is found and named again."""
    outbox = make_outbox(tmp_path)
    outbox.write([make_score()], name, now_ns=1)
    assert [name] == [outbox.read(path).name for path in outbox.waiting()]


def test_what_writers_left_aside_is_swept_only_when_it_is_old(tmp_path: Path) -> None:
    """A file aside may be a writer's at work: only one of long ago is rubbish."""
    outbox = make_outbox(tmp_path)
    outbox.write([make_score()], "one", now_ns=1)
    old, young = outbox.folder / ".a.json.1.tmp", outbox.folder / ".b.json.2.tmp"
    for aside in (old, young):
        aside.write_bytes(b"half")
    os.utime(old, (0, 0))
    outbox.sweep()
    assert (False, True) == (old.exists(), young.exists())
    assert 1 == len(outbox.waiting())
