"""The prediction log: each position once, whatever is written again, cut or swept."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from models import predictions
from models.example import Label, LabelKind
from models.learner import MEMBERS, Log
from observability import faults

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = [
    *("pipeline", "position", "label", "online", "batch", "baseline", "served"),
    *("online_probability", "batch_probability", "served_probability", "model_version"),
]
LABELS: dict[LabelKind, Label] = {"int": 7, "str": "up", "float": 2.5}


@pytest.fixture(autouse=True)
def disarm() -> Iterator[None]:
    """No fault point stays armed."""
    yield
    faults.disarm()


def make_log(labels: Sequence[Label], champion: bool = True) -> Log:
    """A log in which everybody was right, and the champion is there or not."""
    log = Log()
    for label in labels:
        log.labels.append(label)
        for member in (*MEMBERS, "served"):
            there = champion or member != "batch"
            log.predicted[member].append(label if there else None)
            log.probabilities[member].append(0.75 if there else None)
    return log


def put(
    folder: Path,
    first: int,
    last: int,
    label: Label = "up",
    rejected: Sequence[int] = (),
    kind: LabelKind = "str",
    version: str | None = "v1",
) -> Path:
    """Log the positions from `first` to `last` (exclusive), without the rejected ones."""
    positions = [place for place in range(first, last) if place not in rejected]
    log = make_log([label] * len(positions), champion=version is not None)
    return predictions.write(folder, "elec2", positions, (first, last), log, kind, version)


def places(folder: Path, first: int, last: int) -> list[int]:
    """The positions that are logged in a range."""
    found: list[int] = predictions.read(folder, first, last)["position"].to_pylist()
    return found


@pytest.mark.parametrize("kind", ["int", "str", "float"])
def test_what_is_written_is_read(tmp_path: Path, kind: LabelKind) -> None:
    """Every column comes back, with labels of the kind that the stream has."""
    label = LABELS[kind]
    put(tmp_path, 10, 12, label=label, kind=kind)
    table = predictions.read(tmp_path, 10, 12)
    assert COLUMNS == table.column_names
    row = {"pipeline": "elec2", "label": label, "model_version": "v1"}
    row |= dict.fromkeys((*MEMBERS, "served"), label)
    row |= {f"{member}_probability": 0.75 for member in ("online", "batch", "served")}
    assert [{**row, "position": 10}, {**row, "position": 11}] == table.to_pylist()
    types = {"int": "int64", "str": "string", "float": "double"}
    assert {types[kind]} == {
        str(table.schema.field(each).type) for each in ("label", *MEMBERS, "served")
    }


def test_a_member_that_is_not_there_yet_is_null_and_still_typed(tmp_path: Path) -> None:
    """Batches from before and after the first champion are one table."""
    put(tmp_path, 0, 2, version=None)
    put(tmp_path, 2, 4)
    table = predictions.read(tmp_path, 0, 4)
    assert [None, None, "up", "up"] == table["batch"].to_pylist()
    assert [None, None, 0.75, 0.75] == table["batch_probability"].to_pylist()
    assert [None, None, "v1", "v1"] == table["model_version"].to_pylist()


def test_a_range_is_read_across_files_in_the_order_of_positions(tmp_path: Path) -> None:
    """The end is exclusive, and it does not matter which file was written first."""
    put(tmp_path, 20, 30)
    put(tmp_path, 0, 10)
    put(tmp_path, 10, 20)
    assert list(range(7, 25)) == places(tmp_path, 7, 25)
    assert list(range(30)) == places(tmp_path, 0, 1_000)
    assert [10] == places(tmp_path, 10, 11)


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
    assert ["down"] * 3 == predictions.read(tmp_path, 0, 3)["label"].to_pylist()


@pytest.mark.parametrize(("first", "last"), [(10, 20), (30, 40), (0, 0)])
def test_a_range_of_which_nothing_is_logged_is_told(tmp_path: Path, first: int, last: int) -> None:
    """Nothing is there: an error that names the folder and the range, and no empty table."""
    put(tmp_path, 0, 10)
    put(tmp_path, 20, 30)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} .* position {first} to {last}"):
        predictions.read(tmp_path, first, last)


def test_a_folder_that_is_not_there_logs_nothing(tmp_path: Path) -> None:
    """Reading before the first batch is an error; sweeping is none."""
    with pytest.raises(FileNotFoundError):
        predictions.read(tmp_path / "none", 0, 10)
    predictions.sweep(tmp_path / "none", 0)
    assert not (tmp_path / "none").exists()


def test_sweeping_removes_what_lies_beyond_the_checkpoint(tmp_path: Path) -> None:
    """What a killed run logged before its checkpoint comes again, perhaps cut at other places."""
    kept = [put(tmp_path, 0, 10), put(tmp_path, 10, 15)]
    put(tmp_path, 15, 20)
    put(tmp_path, 20, 30)
    predictions.sweep(tmp_path, 15)
    assert kept == sorted(tmp_path.iterdir())


def test_sweeping_removes_what_a_killed_writer_left_aside(tmp_path: Path) -> None:
    """An unfinished file is nobody's; a file of somebody else's is left where it is."""
    kept = put(tmp_path, 0, 10)
    (tmp_path / ".000000000010-000000000020.parquet.77.aside").write_bytes(b"PAR1")
    theirs = [tmp_path / "notes.txt", tmp_path / "backup.parquet"]
    for path in theirs:
        path.write_text("theirs")
    predictions.sweep(tmp_path, 10)
    assert sorted([kept, *theirs]) == sorted(tmp_path.iterdir())
    assert list(range(10)) == places(tmp_path, 0, 1_000)


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    """Arrow would read `pipeline=other` in a path as a column of its own."""
    folder = tmp_path / "pipeline=other" / "day=1"
    put(folder, 0, 1)
    table = predictions.read(folder, 0, 1)
    assert COLUMNS == table.column_names
    assert ["elec2"] == table["pipeline"].to_pylist()


def test_a_log_that_does_not_fit_its_positions_is_refused(tmp_path: Path) -> None:
    """A log with a row too few would put every later prediction at a wrong place."""
    with pytest.raises(ValueError, match="length"):
        predictions.write(tmp_path, "elec2", [0, 1], (0, 2), make_log(["up"]), "str", None)
    assert [] == list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_log(tmp_path: Path) -> None:
    """What was logged stays readable, and nothing is left aside."""
    path = put(tmp_path, 0, 3, label="up")
    faults.arm("durable.before_rename", "raise")
    with pytest.raises(OSError, match="no space left"):
        put(tmp_path, 0, 3, label="down")
    assert [path] == list(tmp_path.iterdir())
    assert ["up"] * 3 == predictions.read(tmp_path, 0, 3)["label"].to_pylist()


VICTIM = """
import sys
from pathlib import Path
from observability import faults
from tests.models.test_predictions import put
faults.arm(sys.argv[2], "kill")
put(Path(sys.argv[1]), 0, 3, label="down")
"""


@pytest.mark.parametrize(
    ("point", "label"),
    [
        ("durable.before_write", "up"),
        ("durable.before_rename", "up"),
        ("durable.after_rename", "down"),
    ],
)
def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path, point: str, label: str) -> None:
    """A batch is logged as it was or as it is now, and a sweep cleans up after the killed."""
    path = put(tmp_path, 0, 3, label="up")
    killed = subprocess.run(
        [sys.executable, "-c", VICTIM, str(tmp_path), point], cwd=ROOT, capture_output=True
    )
    assert -signal.SIGKILL == killed.returncode
    assert [label] * 3 == predictions.read(tmp_path, 0, 3)["label"].to_pylist()
    predictions.sweep(tmp_path, 3)
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["emptied", "one bit", "no Parquet"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, damage: str) -> None:
    """No damaged prediction is taken for what was served, down to a bit."""
    path = put(tmp_path, 0, 100)
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes({"emptied": b"", "one bit": bytes(content), "no Parquet": b"x" * 99}[damage])
    with pytest.raises(predictions.LogDamaged, match="Restore it from a backup") as error:
        predictions.read(tmp_path, 0, 100)
    assert str(path) in str(error.value)
