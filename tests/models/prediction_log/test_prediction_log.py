"""The prediction log: each position once, whatever is written again, cut or swept."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from models.core.record_schema import Label, LabelKind
from models.online.prediction_rows import MemberRows, PredictionRows
from models.prediction_log import prediction_log, segments
from observability.core import failpoints
from tests.models.prediction_log.makers import (
    OTHERS,
    make_log,
    make_records,
    names,
    places,
    put,
    put_batches,
    python,
    rows,
)

COLUMNS = [
    *("pipeline", "position", "label", "online", "batch", "baseline", "served"),
    *("online_probability", "batch_probability", "served_probability", "members", "model_version"),
]
LABELS: dict[LabelKind, Label] = {"int": 7, "str": "up", "float": 2.5}


@pytest.fixture(autouse=True)
def disarm() -> Iterator[None]:
    """No fault point stays armed."""
    yield
    failpoints.disarm()


@pytest.mark.parametrize("kind", ["int", "str", "float"])
def test_what_is_written_is_read(tmp_path: Path, kind: LabelKind) -> None:
    """Every column comes back, with labels of the kind that the stream has."""
    label = LABELS[kind]
    put(tmp_path, 10, 12, label=label, kind=kind)
    table = prediction_log.read(tmp_path, 10, 12)
    assert COLUMNS == table.column_names
    row: dict[str, Any] = {"pipeline": "elec2", "label": label, "model_version": "v1"}
    row |= dict.fromkeys(prediction_log.COLUMNS, label)
    row |= {"members": [(name, label) for name in OTHERS]}
    row |= {f"{member}_probability": 0.75 for member in ("online", "batch", "served")}
    assert [{**row, "position": 10}, {**row, "position": 11}] == table.to_pylist()
    types = {"int": "int64", "str": "string", "float": "double"}
    assert {types[kind]} == {
        str(table.schema.field(each).type) for each in ("label", *prediction_log.COLUMNS)
    }
    assert types[kind] == str(table.schema.field("members").type.item_type)


def test_a_member_that_is_not_there_yet_is_null_and_still_typed(tmp_path: Path) -> None:
    """Batches from before and after the first champion are one table."""
    put(tmp_path, 0, 2, version=None)
    put(tmp_path, 2, 4)
    table = prediction_log.read(tmp_path, 0, 4)
    assert [None, None, "up", "up"] == table["batch"].to_pylist()
    assert [None, None, 0.75, 0.75] == table["batch_probability"].to_pylist()
    assert [None, None, "v1", "v1"] == table["model_version"].to_pylist()


def test_members_without_a_column_of_their_own_share_one(tmp_path: Path) -> None:
    """A map from name to prediction, NULL where a member has none, and empty where none is left."""
    log = make_log(["up", "down"])
    log.by["linear"] = MemberRows(["down", None], [0.6, None])
    prediction_log.write(
        tmp_path, "elec2", make_records([0, 1], ["up", "down"]), (0, 2), log, [None] * 2
    )
    few = PredictionRows(["up"], {name: log.by[name].at([0]) for name in prediction_log.COLUMNS})
    prediction_log.write(tmp_path, "elec2", make_records([2], ["up"]), (2, 3), few, [None])
    assert [
        [("linear", "down"), ("own:Model", "up")],
        [("linear", None), ("own:Model", "down")],
        [],
    ] == prediction_log.read(tmp_path, 0, 3)["members"].to_pylist()


def test_a_range_is_read_across_files_in_the_order_of_positions(tmp_path: Path) -> None:
    """The end is exclusive, and it does not matter which file was written first."""
    put(tmp_path, 20, 30)
    put(tmp_path, 0, 10)
    put(tmp_path, 10, 20)
    assert list(range(7, 25)) == places(tmp_path, 7, 25)
    assert list(range(30)) == places(tmp_path, 0, 1_000)
    assert [10] == places(tmp_path, 10, 11)


@pytest.mark.parametrize(("kind", "label"), [("int", 3), ("str", "up"), ("float", 0.5)])
def test_a_label_that_is_not_known_yet_is_null(
    tmp_path: Path, kind: LabelKind, label: Label
) -> None:
    """The column keeps its type, also where no record of a batch has a label."""
    log = make_log([label, None])
    records = make_records([0, 1], [label, None], kind)
    prediction_log.write(tmp_path, "elec2", records, (0, 2), log, [None] * 2)
    nothing = make_log([None])
    records = make_records([2], [None], kind)
    prediction_log.write(tmp_path, "elec2", records, (2, 3), nothing, [None])
    assert [label, None, None] == prediction_log.read(tmp_path, 0, 3)["label"].to_pylist()


def test_rejected_records_are_missing_from_the_log(tmp_path: Path) -> None:
    """A batch whose records were all rejected is logged too: it has no rows, and no gap."""
    put(tmp_path, 0, 5, rejected=[1, 3])
    put(tmp_path, 5, 8, rejected=[5, 6, 7])
    put(tmp_path, 8, 9)
    assert [0, 2, 4, 8] == places(tmp_path, 0, 9)
    assert [] == places(tmp_path, 5, 8)


def test_a_batch_that_is_gone_through_again_overwrites_its_own_file(tmp_path: Path) -> None:
    """After a crash the same positions come again, and are logged once."""
    before = put(tmp_path, 0, 3, label="up")
    after = put(tmp_path, 0, 3, label="down")
    assert before == after
    assert [after] == list(tmp_path.iterdir())
    assert ["down"] * 3 == prediction_log.read(tmp_path, 0, 3)["label"].to_pylist()


def amend(folder: Path, positions: Sequence[int], label: Label = "late") -> int:
    """Put predictions of records that come later into the log; how many are logged nowhere."""
    log = make_log([label] * len(positions))
    return prediction_log.amend(folder, "elec2", positions, log, "str", ["v2"] * len(positions))


def test_what_comes_later_takes_its_place_in_the_files_that_are_there(tmp_path: Path) -> None:
    """Each file keeps its name and its rows; done twice it is done once."""
    put(tmp_path, 0, 5, rejected=[0, 3])
    put(tmp_path, 5, 8, rejected=[5, 6, 7])
    put(tmp_path, 8, 10, rejected=[9])
    before = names(tmp_path)
    was = rows(tmp_path)
    for _ in range(2):
        assert 0 == amend(tmp_path, [0, 3, 5, 7, 9])
    assert before == names(tmp_path)
    found = rows(tmp_path)
    assert [0, 1, 2, 3, 4, 5, 7, 8, 9] == [row["position"] for row in found]
    assert was == [row for row in found if row["label"] == "up"]
    late = [row for row in found if row["label"] == "late"]
    assert [0, 3, 5, 7, 9] == [row["position"] for row in late]
    assert {"v2"} == {row["model_version"] for row in late}


def test_what_comes_later_replaces_what_a_lost_checkpoint_had_logged(tmp_path: Path) -> None:
    """A home that was brought back from a backup does again what it does not remember."""
    put(tmp_path, 0, 5)
    amend(tmp_path, [2], label="again")
    assert ["up", "up", "again", "up", "up"] == [row["label"] for row in rows(tmp_path)]


def test_a_merged_file_of_many_pieces_takes_up_what_comes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its pieces, before the first and behind the last."""
    monkeypatch.setattr(segments, "GROUP_ROWS", 4)
    put_batches(tmp_path, range(0, 31, 10), rejected=[0, 9, 10, 17, 29])
    prediction_log.compact(tmp_path, 30)
    assert ["0-30"] == names(tmp_path)
    assert 0 == amend(tmp_path, [0, 9, 10, 17, 29])
    assert list(range(30)) == places(tmp_path)


def test_what_no_file_covers_is_counted_and_not_logged(tmp_path: Path) -> None:
    """A file that upkeep removed does not come back, and one that is damaged is left alone."""
    put(tmp_path, 10, 20, rejected=[12])
    damaged = put(tmp_path, 20, 30, rejected=[22])
    damaged.write_bytes(damaged.read_bytes()[:40])
    assert 2 == amend(tmp_path, [5, 12, 22])
    assert list(range(10, 20)) == places(tmp_path, 10, 20)
    assert ["10-20", "20-30"] == names(tmp_path)
    assert 1 == amend(tmp_path / "nowhere", [5])


def test_nothing_that_comes_later_changes_nothing(tmp_path: Path) -> None:
    """Not even a file's time."""
    path = put(tmp_path, 0, 5)
    stamp = path.stat().st_mtime_ns
    assert 0 == amend(tmp_path, [])
    assert stamp == path.stat().st_mtime_ns


@pytest.mark.parametrize(("first", "last"), [(10, 20), (30, 40), (0, 0)])
def test_a_range_of_which_nothing_is_logged_is_told(tmp_path: Path, first: int, last: int) -> None:
    """Nothing is there: an error that names the folder and the range, and no empty table."""
    put(tmp_path, 0, 10)
    put(tmp_path, 20, 30)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} .* position {first} to {last}"):
        prediction_log.read(tmp_path, first, last)


def test_a_folder_that_is_not_there_logs_nothing(tmp_path: Path) -> None:
    """Reading before the first batch is an error; sweeping is none."""
    with pytest.raises(FileNotFoundError):
        prediction_log.read(tmp_path / "none", 0, 10)
    prediction_log.sweep(tmp_path / "none", 0)
    assert not (tmp_path / "none").exists()


def test_sweeping_removes_what_lies_beyond_the_checkpoint(tmp_path: Path) -> None:
    """What a killed run logged before its checkpoint comes again, perhaps cut at other places."""
    kept = [put(tmp_path, 0, 10), put(tmp_path, 10, 15)]
    put(tmp_path, 15, 20)
    put(tmp_path, 20, 30)
    prediction_log.sweep(tmp_path, 15)
    assert kept == sorted(tmp_path.iterdir())


def test_sweeping_removes_what_a_killed_writer_left_aside(tmp_path: Path) -> None:
    """An unfinished file is nobody's; a file of somebody else's is left where it is."""
    kept = put(tmp_path, 0, 10)
    (tmp_path / ".000000000010-000000000020.parquet.77.tmp").write_bytes(b"PAR1")
    theirs = [tmp_path / "notes.txt", tmp_path / "backup.parquet"]
    for path in theirs:
        path.write_text("theirs")
    prediction_log.sweep(tmp_path, 10)
    assert sorted([kept, *theirs]) == sorted(tmp_path.iterdir())
    assert list(range(10)) == places(tmp_path, 0, 1_000)


def test_what_is_superseded_is_neither_read_nor_kept(tmp_path: Path) -> None:
    """A merge that was cut short leaves the merged file and its parts: each row is read once."""
    put(tmp_path, 0, 10, label="whole")
    put(tmp_path, 0, 5, label="part")
    put(tmp_path, 5, 10, label="part")
    put(tmp_path, 10, 15, label="later")
    expected = ["whole"] * 10 + ["later"] * 5
    assert expected == prediction_log.read(tmp_path, 0, 15)["label"].to_pylist()
    assert ["whole"] * 4 == prediction_log.read(tmp_path, 4, 8)["label"].to_pylist()
    prediction_log.sweep(tmp_path, 15)
    assert ["0-10", "10-15"] == names(tmp_path)


def test_sweeping_cuts_a_file_that_reaches_beyond_the_checkpoint(tmp_path: Path) -> None:
    """A checkpoint from a backup may stand in the midst of what was merged after it was made.

    What lies before it stays; were the rest to stay as well, it would supersede what comes again.
    """
    put(tmp_path, 0, 10)
    put(tmp_path, 10, 30, label="merged", rejected=[12])
    prediction_log.sweep(tmp_path, 15)
    assert ["0-10", "10-15"] == names(tmp_path)
    put(tmp_path, 15, 20, label="again")
    log = prediction_log.read(tmp_path, 10, 30)
    assert [10, 11, 13, 14, *range(15, 20)] == log["position"].to_pylist()
    assert ["merged"] * 4 + ["again"] * 5 == log["label"].to_pylist()


def test_a_cut_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    """The shorter file has its name, the longer one is still there: the next sweep removes it."""
    put(tmp_path, 0, 30)
    before = put(tmp_path, 0, 10).stat().st_mtime_ns
    assert list(range(30)) == places(tmp_path)
    prediction_log.sweep(tmp_path, 10)
    assert ["0-10"] == names(tmp_path)
    assert before == next(tmp_path.iterdir()).stat().st_mtime_ns
    assert list(range(10)) == places(tmp_path)


def test_a_damaged_file_that_must_be_cut_is_told(tmp_path: Path) -> None:
    """It is left where it is: what it still holds may be worth something."""
    path = put(tmp_path, 0, 30)
    path.write_bytes(b"torn")
    with pytest.raises(prediction_log.LogDamaged, match="Restore it from a backup"):
        prediction_log.sweep(tmp_path, 10)
    assert ["0-30"] == names(tmp_path)


def test_a_file_that_is_named_and_not_there_is_told(tmp_path: Path) -> None:
    """A link that leads nowhere is looked for twice and no more."""
    put(tmp_path, 0, 10)
    (tmp_path / "000000000010-000000000020.parquet").symlink_to(tmp_path / "nowhere")
    with pytest.raises(prediction_log.LogDamaged, match="leads nowhere"):
        prediction_log.read(tmp_path, 0, 20)
    assert list(range(10)) == places(tmp_path, 0, 10)


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    """Arrow would read `pipeline=other` in a path as a column of its own."""
    folder = tmp_path / "pipeline=other" / "day=1"
    put(folder, 0, 1)
    table = prediction_log.read(folder, 0, 1)
    assert COLUMNS == table.column_names
    assert ["elec2"] == table["pipeline"].to_pylist()


def test_a_log_that_does_not_fit_its_positions_is_refused(tmp_path: Path) -> None:
    """A log with a row too few would put every later prediction at a wrong place."""
    records = make_records([0, 1], ["up", "up"])
    with pytest.raises(ValueError, match="length"):
        prediction_log.write(tmp_path, "elec2", records, (0, 2), make_log(["up"]), [None])
    assert [] == list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_log(tmp_path: Path) -> None:
    """What was logged stays readable, and nothing is left aside."""
    path = put(tmp_path, 0, 3, label="up")
    failpoints.arm("atomic_file.before_rename", "raise")
    with pytest.raises(OSError, match="no space left"):
        put(tmp_path, 0, 3, label="down")
    assert [path] == list(tmp_path.iterdir())
    assert ["up"] * 3 == prediction_log.read(tmp_path, 0, 3)["label"].to_pylist()


VICTIM = """
import sys
from pathlib import Path
from typing import Any
from observability.core import failpoints
from tests.models.prediction_log.makers import put
failpoints.arm(sys.argv[2], "kill")
put(Path(sys.argv[1]), 0, 3, label="down")
"""


@pytest.mark.parametrize(
    ("point", "label"),
    [
        ("atomic_file.before_write", "up"),
        ("atomic_file.before_rename", "up"),
        ("atomic_file.after_rename", "down"),
    ],
)
def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path, point: str, label: str) -> None:
    """A batch is logged as it was or as it is now, and a sweep cleans up after the killed."""
    path = put(tmp_path, 0, 3, label="up")
    victim = python(VICTIM, tmp_path, point)
    assert ("", "") == victim.communicate()
    assert -signal.SIGKILL == victim.returncode
    assert [label] * 3 == prediction_log.read(tmp_path, 0, 3)["label"].to_pylist()
    prediction_log.sweep(tmp_path, 3)
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["emptied", "one bit", "no Parquet"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, damage: str) -> None:
    """No damaged prediction is taken for what was served, down to a bit."""
    path = put(tmp_path, 0, 100)
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes({"emptied": b"", "one bit": bytes(content), "no Parquet": b"x" * 99}[damage])
    with pytest.raises(prediction_log.LogDamaged, match="Restore it from a backup") as error:
        prediction_log.read(tmp_path, 0, 100)
    assert str(path) in str(error.value)
