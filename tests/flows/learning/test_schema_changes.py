"""A stream that changes its shape: the run ends before it, says what answers it, and goes on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.cli import doctor, status
from flows.config import pipeline
from flows.deployed import learn_run
from flows.learning.learn_batch import IntakeStopped
from flows.loop import local_loop
from flows.run.progress import Display
from flows.run.shutdown import Stop
from models.stream.batches import Batch, Cursor, Notice
from models.stream.source import Stream
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from tests.flows.makers import NAME, ask, make_pipeline, thermodrift
from tests.flows.plain_loop import Run

pytestmark = pytest.mark.slow

RECORDS = 1_000
SMALL: dict[str, Any] = {"worth": {"min_rows": 10_000_000}}
DECISIONS = (
    "SELECT position, yes, because, facts->>'outcome' AS outcome, facts->>'column' AS \"column\" "
    "FROM decisions WHERE question = 'intake' ORDER BY position"
)


def make_changed(folder: Path, places: Iterable[int]) -> Path:
    """A pipeline whose stream has a text for its number at `places`, after those of the sample."""
    path = make_pipeline(folder, RECORDS, stream={"sample": 50}, **SMALL)
    spoil(folder / "stream.csv", places)
    return path


def spoil(stream: Path, places: Iterable[int]) -> None:
    """Put a text where a number was."""
    lines = stream.read_text().splitlines()
    for place in places:
        lines[place + 1] = "high," + lines[place + 1].partition(",")[2]
    stream.write_text("\n".join(lines) + "\n")


def answer(path: Path, line: str) -> None:
    """Put a line into the file's [stream]."""
    path.write_text(path.read_text().replace("[stream]\n", f"[stream]\n{line}\n"))


def test_a_run_ends_before_a_stream_of_another_shape(run: Run, tmp_path: Path) -> None:
    """Nothing of it is consumed; the message has the position, the reason and the line."""
    path, home = make_changed(tmp_path, range(450, RECORDS)), tmp_path / "home"
    with pytest.raises(IntakeStopped) as stopped:
        run(path, home)
    assert isinstance(stopped.value, BadConfiguration)
    for told in (
        str(path),
        "from position 450 on",
        "column 'load': a number was expected (150 times, such as 'high')",
        '[stream] unfit_cells = "missing"',
        "rejected_share = 1",
        "consumed from position 400 on",
    ):
        assert told in str(stopped.value)
    (known,) = status.collect(home)
    assert (400, 400, 0) == (
        known["position"],
        known["totals"]["learned"],
        known["totals"]["rejected"],
    )
    assert ("stopped", 400) == (known["intake"]["state"], known["intake"]["stopped_at"])
    files = sorted(each.name for each in Places(home).pipeline(NAME).predictions.glob("*.parquet"))
    assert files[-1].endswith("-000000000400.parquet")
    assert [(400, False, "stopped", "load")] == [
        (row["position"], row["yes"], row["outcome"], row["column"]) for row in ask(home, DECISIONS)
    ]
    (ended,) = ask(home, "SELECT outcome, because, records, rejected FROM runs")
    assert ("schema_mismatch", 400, 0) == (ended["outcome"], ended["records"], ended["rejected"])
    assert "column 'load'" in ended["because"]
    (finding,) = [each for each in doctor.examine(home) if each.what == f"intake of {NAME}"]
    assert ("broken", True) == (finding.state, 'unfit_cells = "missing"' in finding.told)


def test_after_the_answer_the_run_goes_on_where_it_stopped(run: Run, tmp_path: Path) -> None:
    """Nothing is lost: with the column left out of the stream again, or all taken as rejects."""
    path, home = make_changed(tmp_path, range(450, RECORDS)), tmp_path / "home"
    with pytest.raises(IntakeStopped):
        run(path, home)
    answer(path, "rejected_share = 1")
    told = run(path, home)
    assert (RECORDS, 450, 550) == (told["records"], told["learned"], told["rejected"])
    assert told["intake"]["stopped_at"] is None


def test_a_stream_that_is_corrected_goes_on_where_it_stopped(run: Run, tmp_path: Path) -> None:
    """What was not consumed may still be put right in the file itself."""
    path, home = make_changed(tmp_path, range(450, RECORDS)), tmp_path / "home"
    with pytest.raises(IntakeStopped):
        run(path, home)
    (tmp_path / "again").mkdir()
    sound = make_changed(tmp_path / "again", []).with_name("stream.csv")
    (tmp_path / "stream.csv").write_bytes(sound.read_bytes())
    told = run(path, home)
    assert (RECORDS, RECORDS, 0) == (told["records"], told["learned"], told["rejected"])
    assert told["intake"]["state"] == "well"
    assert all(each.state != "broken" or "intake" not in each.what for each in doctor.examine(home))


def test_a_run_that_meets_it_again_tells_the_history_once(run: Run, tmp_path: Path) -> None:
    """A timer that starts it every minute fills no history with one and the same answer."""
    path, home = make_changed(tmp_path, range(450, RECORDS)), tmp_path / "home"
    for _ in range(3):
        with pytest.raises(IntakeStopped):
            run(path, home)
    assert 1 == len(ask(home, DECISIONS))
    assert ["schema_mismatch"] * 3 == [row["outcome"] for row in ask(home, "FROM runs")]


def test_rejects_here_and_there_end_no_run(run: Run, tmp_path: Path) -> None:
    """Two ill batches are told of and consumed; a later sound one makes all well."""
    places = [*range(450, 500), *range(500, 600, 2), 999]
    path, home = make_changed(tmp_path, places), tmp_path / "home"
    told = run(path, home)
    assert (RECORDS, len(places)) == (told["records"], told["rejected"])
    assert "well" == told["intake"]["state"]
    assert ["ill", "ill"] == [row["outcome"] for row in ask(home, DECISIONS)]


def test_three_ill_batches_in_a_row_end_a_run_before_the_first(run: Run, tmp_path: Path) -> None:
    """Half of the records of each are enough, and less than three batches are not."""
    places = range(400, 700, 2)
    path, home = make_changed(tmp_path, places), tmp_path / "home"
    with pytest.raises(IntakeStopped, match=r"150 of the 300 records from position 400"):
        run(path, home)
    assert 400 == status.collect(home)[0]["position"]


def test_a_stream_that_trickles_ends_before_the_twentieth_in_a_row(
    run: Run, tmp_path: Path
) -> None:
    """Records come one by one, each run reads one: nineteen are rejects, and no more."""
    path, home = make_changed(tmp_path, range(500, RECORDS)), tmp_path / "home"
    lines = (tmp_path / "stream.csv").read_text().splitlines(keepends=True)
    stream = tmp_path / "stream.csv"
    stream.write_text("".join(lines[:501]))
    run(path, home)
    for place in range(500, 519):
        stream.write_text("".join(lines[: place + 2]))
        assert place - 499 == run(path, home)["rejected"]
    stream.write_text("".join(lines[:521]))
    with pytest.raises(IntakeStopped, match="after 19 such records in a row"):
        run(path, home)
    (known,) = status.collect(home)
    assert (519, 19) == (known["position"], known["totals"]["rejected"])


def test_a_deployed_run_ends_failed_and_leaves_no_row_twice(run: Run, tmp_path: Path) -> None:
    """Learning by shifts raises the same; a shift that learned nothing leaves no trace."""
    path, home = make_changed(tmp_path, range(450, RECORDS)), tmp_path / "home"
    file = pipeline.read(path)

    def shift(run_id: str) -> None:
        with pytest.raises(IntakeStopped):
            learn_run.run_learn(file, home, run_id, Stop(), Display(NAME), None, False)

    shift("first")
    shift("second")
    assert [("first", "schema_mismatch", 400)] == [
        (row["run_id"], row["outcome"], row["records"]) for row in ask(home, "FROM runs")
    ]
    assert 1 == len(ask(home, DECISIONS))


def test_the_command_ends_with_78_and_says_what_to_do(tmp_path: Path) -> None:
    """As a person meets it, with the status and the doctor afterwards."""
    path, home = make_changed(tmp_path, range(50, RECORDS)), tmp_path / "home"
    done = thermodrift("--home", home, "run", path, "--json")
    assert (78, "") == (done.returncode, done.stdout)
    assert 'What to do: [stream] unfit_cells = "missing"' in done.stderr
    assert "Traceback" not in done.stderr
    shown = thermodrift("--home", home, "status")
    assert "the run ended before position 0" in shown.stdout


def with_notices(monkeypatch: pytest.MonkeyPatch, since: int) -> None:
    """Let the stream have a new column from position `since` on."""
    read = Stream.read

    def noticing(self: Stream, cursor: Cursor, size: int | None = None) -> Batch:
        batch = read(self, cursor, size)
        count = batch.last - max(batch.first, since)
        if count <= 0:
            return batch
        notice = Notice("new column", "extra", batch.last - count, count, "5.5")
        return replace(batch, notices=(notice,))

    monkeypatch.setattr(Stream, "read", noticing)


def test_a_notice_is_told_once_and_counted_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it began is in the history; a run that goes on counts, and tells it no more."""
    path, home = make_pipeline(tmp_path, RECORDS, **SMALL), tmp_path / "home"
    with_notices(monkeypatch, since=250)
    local_loop.run_loop.fn(path, home, 500)
    told = run(path, home)
    seen = {"kind": "new column", "column": "extra", "position": 250, "count": 750}
    assert [{**seen, "example": "5.5"}] == told["intake"]["notices"]
    assert told["intake"]["notices"] == status.collect(home)[0]["intake"]["notices"]
    (row,) = ask(home, DECISIONS)
    assert (True, "noticed", "extra") == (row["yes"], row["outcome"], row["column"])
    assert "from position 250 on, column 'extra' is new" in row["because"]


def test_a_new_column_ends_the_run_where_a_person_asked_for_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the batch that shows it; leaving it out is the answer, and nothing is lost."""
    path, home = make_pipeline(tmp_path, RECORDS, **SMALL), tmp_path / "home"
    with_notices(monkeypatch, since=250)
    answer(path, 'new_columns = "stop"')
    with pytest.raises(IntakeStopped, match=r"new column 'extra' .* from position 250") as stopped:
        run(path, home)
    assert "rejected_share" not in str(stopped.value)
    assert 200 == status.collect(home)[0]["position"]
    path.write_text(path.read_text().replace('"stop"', '"ignore"'))
    assert RECORDS == run(path, home)["learned"]
