"""The log is merged and shortened, and at every moment each position is in it once."""

from __future__ import annotations

import os
import random
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate, pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from models.prediction_log import prediction_log, segments
from observability.core import failpoints, log_segments
from tests.models.prediction_log.makers import names, places, put, put_batches, python, rows

POINTS = ["upkeep.before_swap", "upkeep.inside_swap"]


@pytest.fixture(autouse=True)
def disarm() -> Iterator[None]:
    """No fault point stays armed."""
    yield
    failpoints.disarm()


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Which file is which: a file that was written again is another."""
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.glob("*.parquet")
    }


def test_neighbours_become_one_file_with_the_same_rows(tmp_path: Path) -> None:
    """Every column of every row, rejected records still missing, and the numbers are told."""
    paths = put_batches(tmp_path, range(0, 60, 10), rejected=[3, *range(20, 30)])
    expected, size = rows(tmp_path), sum(path.stat().st_size for path in paths)
    done = prediction_log.compact(tmp_path, 50)
    assert ["0-50"] == names(tmp_path)
    assert expected == rows(tmp_path)
    left = next(tmp_path.glob("*.parquet")).stat().st_size
    assert (
        prediction_log.CompactResult(5, size, 1, left, merged=5, rows=39, because=done.because)
        == done
    )
    assert done.because.startswith(
        "merged 5 files with 39 predictions into 1; files of the log before position 50: 1 (0.0 MB)"
    )


def test_a_repeat_does_nothing(tmp_path: Path) -> None:
    """No file is written again, and that is said."""
    put_batches(tmp_path, range(0, 60, 10))
    prediction_log.compact(tmp_path, 50, target_rows=20)
    before = stamps(tmp_path)
    done = prediction_log.compact(tmp_path, 50, target_rows=20)
    assert before == stamps(tmp_path)
    assert (0, 3, 3) == (done.merged, done.files_before, done.files_after)
    assert done.because.startswith("nothing to merge; files of the log before position 50: 3 ")


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (30, ["0-30", "30-40", "40-50"]),
        (39, ["0-30", "30-40", "40-50"]),
        (40, ["0-40", "40-50"]),
        (10, ["0-10", "10-20", "20-30", "30-40", "40-50"]),
        (0, ["0-10", "10-20", "20-30", "30-40", "40-50"]),
    ],
)
def test_what_does_not_lie_wholly_before_the_checkpoint_is_left(
    tmp_path: Path, before: int, expected: list[str]
) -> None:
    """It is the learner's, which may be writing it or sweeping it away."""
    put_batches(tmp_path, range(0, 60, 10))
    prediction_log.compact(tmp_path, before)
    assert expected == names(tmp_path)


def test_a_full_stretch_is_never_written_again(tmp_path: Path) -> None:
    """Merged files begin and end at multiples of their size; only the last one still grows."""
    put_batches(tmp_path, range(0, 260, 10))
    prediction_log.compact(tmp_path, 250, target_rows=100)
    assert ["0-100", "100-200", "200-250"] == names(tmp_path)
    before = stamps(tmp_path)
    put_batches(tmp_path, range(250, 340, 10))
    prediction_log.compact(tmp_path, 330, target_rows=100)
    assert ["0-100", "100-200", "200-300", "300-330"] == names(tmp_path)
    after = stamps(tmp_path)
    full = sorted(before)[:2]
    assert [before[each] for each in full] == [after[each] for each in full]


def test_a_batch_across_a_border_of_stretches_stays_by_itself(tmp_path: Path) -> None:
    """No merged file is longer than asked for, even where batches do not divide its length."""
    put_batches(tmp_path, range(0, 241, 30))
    prediction_log.compact(tmp_path, 240, target_rows=100)
    assert ["0-90", "90-120", "120-180", "180-210", "210-240"] == names(tmp_path)
    assert list(range(240)) == places(tmp_path)


def test_a_hole_is_not_merged_over(tmp_path: Path) -> None:
    """What a person moved away and puts back later is found, read, and then merged."""
    paths = put_batches(tmp_path, range(0, 60, 10))
    expected = rows(tmp_path)
    away = paths[2].rename(tmp_path / "away")
    prediction_log.compact(tmp_path, 50)
    assert ["0-20", "30-50", "away"] == names(tmp_path)
    away.rename(paths[2])
    assert expected == rows(tmp_path)
    prediction_log.sweep(tmp_path, 50)
    assert expected == rows(tmp_path)
    prediction_log.compact(tmp_path, 50)
    assert ["0-50"] == names(tmp_path)
    assert expected == rows(tmp_path)


def test_files_with_other_columns_are_not_merged(tmp_path: Path) -> None:
    """Labels of another kind cannot stand in one file, and no label changes its kind."""
    for first in (0, 10):
        put(tmp_path, first, first + 10, label="up")
    for first in (20, 30):
        put(tmp_path, first, first + 10, label=1, kind="int")
    for _ in range(2):
        prediction_log.compact(tmp_path, 40)
        assert ["0-20", "20-40"] == names(tmp_path)
    assert {"up"} == {row["label"] for row in rows(tmp_path, 0, 20)}
    assert {1} == {row["label"] for row in rows(tmp_path, 20, 40)}


def test_files_that_overlap_are_not_merged(tmp_path: Path) -> None:
    """Neither replaces the other, and which of them is right is not for a merge to say."""
    for first, last in [(0, 10), (5, 15), (15, 20)]:
        put(tmp_path, first, last)
    prediction_log.compact(tmp_path, 20)
    assert ["0-10", "5-20"] == names(tmp_path)


def test_batches_of_rejects_alone_are_merged_too(tmp_path: Path) -> None:
    """They hold no row, and leave no hole."""
    put_batches(tmp_path, [0, 10, 20, 30], rejected=range(20))
    assert 10 == prediction_log.compact(tmp_path, 30, target_rows=30).rows
    assert ["0-30"] == names(tmp_path)
    assert list(range(20, 30)) == places(tmp_path)
    put_batches(tmp_path, [30, 40, 50], rejected=range(30, 50))
    prediction_log.compact(tmp_path, 50, target_rows=30)
    assert ["0-30", "30-50"] == names(tmp_path)
    assert [] == places(tmp_path, 30, 50)


def test_a_large_file_is_read_no_further_than_needed(tmp_path: Path) -> None:
    """It has pieces of a fixed number of rows: damage in one spoils only what that one holds."""
    size = segments.GROUP_ROWS
    ends = [0, size - 5, size, size + 10, 2 * size + 7]
    put_batches(tmp_path, ends)
    prediction_log.compact(tmp_path, ends[-1])
    (path,) = tmp_path.glob("*.parquet")
    with parquet.ParquetFile(path) as file:
        found = [file.metadata.row_group(each) for each in range(file.metadata.num_row_groups)]
    assert [size, size, 7] == [group.num_rows for group in found]
    assert {"ZSTD"} == {group.column(each).compression for group in found for each in range(11)}
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert list(range(size, size + 9)) == places(tmp_path, size, size + 9)
    with pytest.raises(prediction_log.LogDamaged, match=r"cannot be read .*checksum"):
        places(tmp_path, size - 1, size)


def _bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)


def _positions(*found: int | None) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        table = parquet.read_table(path, partitioning=None).slice(0, len(found))
        parquet.write_table(
            table.set_column(1, "position", pa.array(found, pa.int64())),
            path,
        )

    return write


DAMAGES: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: path.write_bytes(b""),
    "one bit": _bit,
    "no Parquet": lambda path: path.write_bytes(b"x" * 99),
    "no positions": lambda path: parquet.write_table(pa.table({"x": [1]}), path),
    "out of order": _positions(21, 20),
    "double": _positions(20, 20),
    "too low": _positions(19, 20),
    "too high": _positions(20, 30),
    "unknown": _positions(20, None),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_left_alone_and_stops_no_other(tmp_path: Path, damage: str) -> None:
    """It is named, kept to the last bit, and not merged over; its neighbours are merged."""
    bad = put_batches(tmp_path, range(0, 60, 10))[2]
    DAMAGES[damage](bad)
    content = bad.read_bytes()
    for merged in (4, 0):
        done = prediction_log.compact(tmp_path, 50)
        assert ["0-20", "20-30", "30-50"] == names(tmp_path)
        assert content == bad.read_bytes()
        assert merged == done.merged
        assert [str(bad)] == [each.split()[0] for each in done.damaged]
        assert done.because.endswith("; cannot be merged, and stay as they are: 1")
    assert [*range(20), *range(30, 50)] == places(tmp_path, 0, 20) + places(tmp_path, 30, 50)


def test_several_damaged_files_each_split_the_rest(tmp_path: Path) -> None:
    """What lies between them is merged; one by itself has nobody to merge with."""
    paths = put_batches(tmp_path, range(0, 110, 10))
    for each in (0, 3, 5, 9):
        _bit(paths[each])
    done = prediction_log.compact(tmp_path, 100)
    assert ["0-10", "10-30", "30-40", "40-50", "50-60", "60-90", "90-100"] == names(tmp_path)
    assert (4, 5, 50) == (len(done.damaged), done.merged, done.rows)


def test_a_disk_that_does_not_keep_what_it_is_given_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The merged file is read back before anything depends on it."""
    put_batches(tmp_path, range(0, 60, 10))
    before, fsync = stamps(tmp_path), os.fsync

    def spoil(handle: int) -> None:
        fsync(handle)
        if stat.S_ISREG(os.fstat(handle).st_mode):
            os.pwrite(handle, b"?????", 20)

    monkeypatch.setattr(os, "fsync", spoil)
    with pytest.raises(prediction_log.LogDamaged, match="merging"):
        prediction_log.compact(tmp_path, 50)
    assert before == stamps(tmp_path)
    assert 5 == len(names(tmp_path))


@pytest.mark.parametrize("point", POINTS)
def test_a_full_disk_leaves_each_row_once(tmp_path: Path, point: str) -> None:
    """Whatever the disk refuses, nothing is lost, and the next compaction finishes the work."""
    put_batches(tmp_path, range(0, 60, 10))
    expected, before = rows(tmp_path), names(tmp_path)
    failpoints.arm(point, "raise")
    with pytest.raises(OSError, match="no space left"):
        prediction_log.compact(tmp_path, 50)
    assert expected == rows(tmp_path)
    assert set(before) | ({"0-50"} if point == "upkeep.inside_swap" else set()) == set(
        names(tmp_path)
    )
    failpoints.disarm()
    done = prediction_log.compact(tmp_path, 50)
    assert ["0-50"] == names(tmp_path)
    assert expected == rows(tmp_path)
    assert 1 == done.files_after


VICTIM = """
import sys
from pathlib import Path
from models.prediction_log import prediction_log
from observability.core import failpoints
failpoints.arm_from(sys.argv[2])
print(prediction_log.compact(Path(sys.argv[1]), 50, target_rows=20).because)
"""


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("then", ["sweep", "compact"])
def test_a_kill_leaves_each_row_once(tmp_path: Path, point: str, after: int, then: str) -> None:
    """Read as it was left; then a beginning run cleans up, or the next compaction does."""
    put_batches(tmp_path, [0, 10, 20, 30, 40, 45, 50])
    expected = rows(tmp_path)
    victim = python(VICTIM, tmp_path, f"{point}=kill:{after}")
    assert ("", "") == victim.communicate()
    assert -signal.SIGKILL == victim.returncode
    assert expected == rows(tmp_path)
    if then == "sweep":
        prediction_log.sweep(tmp_path, 50)
        assert expected == rows(tmp_path)
        assert not segments.replaced(tmp_path)
    prediction_log.compact(tmp_path, 50, target_rows=20)
    assert ["0-20", "20-40", "40-50"] == names(tmp_path)
    assert expected == rows(tmp_path)


def test_a_run_that_begins_beside_a_compaction_does_not_disturb_it(tmp_path: Path) -> None:
    """Its sweep leaves the file that is being merged aside, whoever is first."""
    put_batches(tmp_path, range(0, 60, 10))
    expected = rows(tmp_path)

    @contextmanager
    def swap() -> Iterator[None]:
        prediction_log.sweep(tmp_path, 50)
        yield
        prediction_log.sweep(tmp_path, 50)

    prediction_log.compact(tmp_path, 50, swap=swap, target_rows=20)
    assert ["0-20", "20-40", "40-50"] == names(tmp_path)
    assert expected == rows(tmp_path)


def test_the_swap_is_entered_around_the_moment_of_replacement(tmp_path: Path) -> None:
    """Whoever holds the same lock sees the parts alone, or the merged file alone."""
    put_batches(tmp_path, range(0, 60, 10))
    seen: list[list[str]] = []

    @contextmanager
    def swap() -> Iterator[None]:
        seen.append([each for each in names(tmp_path) if not each.endswith(".merging")])
        yield
        seen.append(names(tmp_path))

    prediction_log.compact(tmp_path, 50, swap=swap, target_rows=30)
    parts = [f"{first}-{first + 10}" for first in range(0, 50, 10)]
    assert [parts, ["0-30", *parts[3:]], ["0-30", *parts[3:]], ["0-30", "30-50"]] == seen


def test_what_was_left_by_a_kill_is_removed_inside_the_swap_too(tmp_path: Path) -> None:
    """A question that is being answered holds the lock, and may be reading those files."""
    put_batches(tmp_path, [0, 10, 20])
    put(tmp_path, 0, 20)
    seen: list[list[str]] = []

    @contextmanager
    def swap() -> Iterator[None]:
        seen.append(names(tmp_path))
        yield

    prediction_log.compact(tmp_path, 20, swap=swap)
    assert [["0-10", "0-20", "10-20"]] == seen
    assert ["0-20"] == names(tmp_path)


def test_what_is_replaced_beyond_the_checkpoint_is_left_to_the_learner(tmp_path: Path) -> None:
    """It lies where the learner writes and sweeps, and only there is it known what holds."""
    for span in [(0, 10), (10, 20), (10, 30), (20, 30)]:
        put(tmp_path, *span)
    prediction_log.compact(tmp_path, 20)
    assert ["0-10", "10-30", "20-30"] == names(tmp_path)


def test_a_swap_that_cannot_be_had_leaves_everything(tmp_path: Path) -> None:
    """The lock of the history may be somebody else's: that is told by whoever waits for it."""
    put_batches(tmp_path, range(0, 60, 10))
    before = stamps(tmp_path)

    @contextmanager
    def swap() -> Iterator[None]:
        raise TimeoutError("the history is open elsewhere")
        yield

    with pytest.raises(TimeoutError, match="open elsewhere"):
        prediction_log.compact(tmp_path, 50, swap=swap)
    assert before == stamps(tmp_path)
    assert 5 == len(names(tmp_path))


@pytest.mark.parametrize("change", ["written again", "removed"])
def test_a_part_that_changes_while_it_is_merged_is_not_replaced(
    tmp_path: Path, change: str
) -> None:
    """Somebody restores a backup, or begins the pipeline anew: theirs is what stays."""
    path = put_batches(tmp_path, range(0, 60, 10))[2]

    @contextmanager
    def swap() -> Iterator[None]:
        if path.exists() and "theirs" not in {row["label"] for row in rows(tmp_path, 20, 30)}:
            path.unlink()
            if change == "written again":
                put(tmp_path, 20, 30, label="theirs")
        yield

    done = prediction_log.compact(tmp_path, 50, swap=swap)
    theirs = ["20-30"] if change == "written again" else []
    assert ["0-20", *theirs, "30-50"] == names(tmp_path)
    assert {"theirs"} >= {row["label"] for row in rows(tmp_path) if 20 <= row["position"] < 30}
    assert "was changed or removed while it was merged" in done.damaged[0]


def test_one_at_a_time(tmp_path: Path) -> None:
    """A second compaction, or a removal, answers at once that another one is at work."""
    put_batches(tmp_path, range(0, 60, 10))
    refused: list[prediction_log.CompactResult | prediction_log.RemovalResult] = []

    @contextmanager
    def swap() -> Iterator[None]:
        refused.append(prediction_log.compact(tmp_path, 50))
        refused.append(prediction_log.remove_before(tmp_path, 0, 50))
        yield

    prediction_log.compact(tmp_path, 50, swap=swap)
    assert [True, True] == [each.busy for each in refused]
    assert {f"another process is merging or removing files of {tmp_path}: nothing was done"} == {
        each.because for each in refused
    }
    assert ["0-50"] == names(tmp_path)
    assert not prediction_log.compact(tmp_path, 50).busy


RIVAL = """
import sys
from pathlib import Path
from models.prediction_log import prediction_log
from observability.core import failpoints
failpoints.arm("upkeep.inside_swap", "delay")
for target in (20, 60, 120, 240):
    prediction_log.compact(Path(sys.argv[1]), 240, target_rows=target)
print("done")
"""


def test_nobody_sees_a_hole_or_a_double_beside_two_compactions(tmp_path: Path) -> None:
    """Two processes merge, in several passes, and a reader reads all the while."""
    put_batches(tmp_path, range(0, 250, 10))
    expected = list(range(240))
    rivals = [python(RIVAL, tmp_path) for _ in range(2)]
    reads = 0
    while any(rival.poll() is None for rival in rivals):
        assert expected == places(tmp_path, 0, 240)
        assert expected[93:171] == places(tmp_path, 93, 171)
        reads += 1
    assert [("done\n", "")] * 2 == [rival.communicate() for rival in rivals]
    assert reads > 10
    prediction_log.compact(tmp_path, 240, target_rows=240)
    assert ["0-240"] == names(tmp_path)
    assert expected == places(tmp_path)


def test_files_that_are_merged_between_listing_and_reading_are_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader has listed the parts; when it opens the second one, all of them are gone."""
    put_batches(tmp_path, range(0, 60, 10))
    expected, between = rows(tmp_path), segments.between

    def merged_meanwhile(path: Path, first: int, last: int) -> Iterator[pa.Table]:
        if path.name == log_segments.name(log_segments.Span(10, 20)):
            prediction_log.compact(tmp_path, 50)
        return between(path, first, last)

    monkeypatch.setattr(segments, "between", merged_meanwhile)
    assert expected == rows(tmp_path)
    assert ["0-50"] == names(tmp_path)


@pytest.mark.parametrize("last", [50, 1_000])
def test_files_that_are_merged_while_the_folder_is_listed_are_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    """The listing was past the merged file's place when it appeared, and came to the parts too
    late: it shows neither."""
    put_batches(tmp_path, range(0, 60, 10))
    expected, look = rows(tmp_path), segments.names
    prediction_log.compact(tmp_path, 40)
    torn = [["000000000040-000000000050.parquet"], []]
    monkeypatch.setattr(segments, "names", lambda each: torn.pop() if torn else look(each))
    assert expected == rows(tmp_path, 0, last)


BATCHES = st.lists(
    st.tuples(st.integers(1, 9), st.sampled_from("kkkkkhe")), min_size=1, max_size=14
)
"""Batches by their length, and what is with them: kept, a hole, or empty of all but rejects."""


@settings(max_examples=60, deadline=None)
@given(BATCHES, st.integers(0, 130), st.integers(1, 60), st.randoms(use_true_random=False))
def test_whatever_is_merged_and_cut_short_the_log_stays_the_same(
    batches: list[tuple[int, str]], before: int, target: int, chance: random.Random
) -> None:
    """Any batches, any checkpoint, any faults: equal rows, until nothing is left to do."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ends = list(accumulate((length for length, _ in batches), initial=0))
        for (first, last), (_, kind) in zip(pairwise(ends), batches, strict=True):
            rejected = range(first, last) if kind == "e" else [first + chance.randrange(9)]
            if kind != "h":
                put(folder, first, last, label=f"from {first}", rejected=rejected)
        expected = [] if not any(folder.iterdir()) else rows(folder)
        late = [each for each in names(folder) if int(each.partition("-")[2]) > before]
        for _ in range(4):
            failpoints.arm(chance.choice(POINTS), "raise", after=chance.randint(1, 3))
            with suppress(OSError):
                prediction_log.compact(folder, before, target_rows=target)
            failpoints.disarm()
            assert expected == ([] if not expected else rows(folder))
        prediction_log.compact(folder, before, target_rows=target)
        again = prediction_log.compact(folder, before, target_rows=target)
        spans = [tuple(map(int, each.split("-"))) for each in names(folder)]
        assert (0, []) == (again.merged, segments.replaced(folder))
        assert expected == ([] if not expected else rows(folder))
        assert set(late) <= set(names(folder))
        for (first, middle), (follows, last) in pairwise(spans):
            could_be_one = middle == follows and last <= before
            assert not could_be_one or first // target != (last - 1) // target


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (0, []),
        (1, ["40-50"]),
        (10, ["40-50"]),
        (11, ["30-40", "40-50"]),
        (50, ["0-10", "10-20", "20-30", "30-40", "40-50"]),
        (10**9, ["0-10", "10-20", "20-30", "30-40", "40-50"]),
    ],
)
def test_whole_files_that_are_old_are_removed(
    tmp_path: Path, keep: int, expected: list[str]
) -> None:
    """What is kept is never less than was asked for, and the learner's files are not counted."""
    put_batches(tmp_path, range(0, 70, 10), rejected=[7])
    sizes = {
        each: path.stat().st_size
        for each, path in zip(names(tmp_path), sorted(tmp_path.iterdir()), strict=True)
    }
    done = prediction_log.remove_before(tmp_path, keep, 50)
    assert [*expected, "50-60"] == names(tmp_path)
    gone = [each for each in sizes if each not in names(tmp_path)]
    assert len(gone) == done.files
    assert max(10 * len(gone) - 1, 0) == done.rows
    assert sum(sizes[each] for each in gone) == done.bytes
    assert f"{keep} positions before 50" in done.because


def test_old_files_are_removed_inside_the_swap(tmp_path: Path) -> None:
    """A question that is being answered may be reading them; where nothing goes, nobody waits."""
    put_batches(tmp_path, [0, 10, 20])
    seen: list[list[str]] = []

    @contextmanager
    def swap() -> Iterator[None]:
        seen.append(names(tmp_path))
        yield
        seen.append(names(tmp_path))

    prediction_log.remove_before(tmp_path, 10, 20, swap=swap)
    assert [["0-10", "10-20"], ["10-20"]] == seen
    prediction_log.remove_before(tmp_path, 10, 20, swap=swap)
    assert 2 == len(seen)


def test_what_is_replaced_is_not_counted_twice_when_it_is_forgotten(tmp_path: Path) -> None:
    """The parts go before the merged file does, so none of them comes back into sight."""
    put_batches(tmp_path, [0, 10, 20])
    put(tmp_path, 0, 20)
    done = prediction_log.remove_before(tmp_path, 0, 20)
    assert (1, 20) == (done.files, done.rows)
    assert [] == names(tmp_path)


def test_a_damaged_file_is_forgotten_with_its_time(tmp_path: Path) -> None:
    """Its rows cannot be counted, which is said; its age is in its name."""
    put_batches(tmp_path, [0, 10, 20])[0].write_bytes(b"torn")
    done = prediction_log.remove_before(tmp_path, 0, 20)
    assert (2, 10, 1) == (done.files, done.rows, done.unreadable)
    assert [] == names(tmp_path)


def test_knobs_that_would_reach_beyond_the_checkpoint_are_refused(tmp_path: Path) -> None:
    """Fewer than no records cannot be kept, nor can a file hold fewer than one position."""
    put_batches(tmp_path, [0, 10, 20])
    with pytest.raises(ValueError, match="came: -1"):
        prediction_log.remove_before(tmp_path, -1, 10)
    with pytest.raises(ValueError, match="came: 0"):
        prediction_log.compact(tmp_path, 10, target_rows=0)
    assert ["0-10", "10-20"] == names(tmp_path)


def test_where_there_is_no_log_nothing_is_done(tmp_path: Path) -> None:
    """A pipeline that has not begun has no folder, and gets none."""
    none = tmp_path / "none"
    done, forgot = prediction_log.compact(none, 100), prediction_log.remove_before(none, 0, 100)
    assert (0, 0, False) == (done.files_before, done.files_after, done.busy)
    assert (0, 0, False) == (forgot.files, forgot.rows, forgot.busy)
    assert done.because == forgot.because == f"there is no log yet: {none} is not there"
    assert not none.exists()
