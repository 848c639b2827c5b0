"""Rejects that are read again by a corrected file: each that fits comes back, once."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterable
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest

from flows.cli import reject_report, status
from flows.config import pipeline
from flows.learning import reject_replay
from flows.learning.reject_replay import RecordsMoved
from flows.run.progress import Display
from flows.run.session import AlreadyRunning, locked, opened
from flows.run.shutdown import Stop
from models.prediction_log import compaction, prediction_log
from models.prediction_log.prediction_log import LogBusy
from models.stream.source import Batch, Stream
from observability.core import file_lock
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from tests.flows.makers import NAME, ask, make_pipeline, make_records, thermodrift, write_stream
from tests.flows.nursery import Nursery
from tests.flows.plain_loop import Run

RECORDS = 600
LARGE = frozenset({3, 150, *range(210, 330, 2), 599})
"""Records whose load is too large for the file as it is first."""
BROKEN = frozenset({40, 215})
"""Records that no correction helps."""
WAITING = frozenset({214, 216, 400})
"""Records without a label."""
FITS = frozenset(LARGE - BROKEN)
BATCH = 50
FIRST: dict[str, Any] = {"path": "stream.csv", "batch": BATCH, "largest": 10, "rejected_share": 1}
SMALL: dict[str, Any] = {"worth": {"min_rows": 10_000_000}}


def make_refused(folder: Path, **tables: Any) -> Path:
    """A pipeline whose stream has loads that its file refuses."""
    folder.mkdir(exist_ok=True)
    path = make_pipeline(folder, RECORDS, **{"stream": FIRST, **SMALL, **tables})
    records = make_records(RECORDS)
    for place in LARGE:
        records[place]["load"] = 50.0 + place / 10
    for place in WAITING:
        records[place]["label"] = None
    for place in BROKEN:
        records[place]["load"] = "broken"
    write_stream(folder / "stream.csv", records)
    return path


def correct(path: Path) -> None:
    """Let the file take the loads that it refused."""
    path.write_text(path.read_text().replace("largest = 10\n", "largest = 1000\n"))


def log_of(home: Path) -> list[dict[str, Any]]:
    """The prediction log, row by row."""
    found: list[dict[str, Any]] = prediction_log.read(
        Places(home).pipeline(NAME).predictions, 0, RECORDS
    ).to_pylist()
    return found


def left_behind(home: Path) -> dict[str, Any]:
    """What a replay leaves for others, without times and runs."""
    (known,) = status.collect(home)
    return {
        "log": log_of(home),
        "seen": ask(home, "FROM predictions ORDER BY position"),
        "totals": known["totals"],
        "scores": known["scores"],
        "scored": known["scored"],
        "intake": known["intake"],
        "rejects": ask(
            home,
            "SELECT position, reason, replayed_at IS NULL AS open FROM rejects ORDER BY position",
        ),
        "replays": ask(home, "SELECT position, labelled FROM replay_rows ORDER BY position"),
    }


def again(path: Path, home: Path) -> dict[str, Any]:
    """Read the rejects again."""
    return reject_replay.replay(path, home, Stop())


def test_rejects_that_fit_now_are_predicted_learned_and_logged(run: Run, tmp_path: Path) -> None:
    """And are no rejects any more, in the totals, in the views, and in the status."""
    path, home = make_refused(tmp_path), tmp_path / "home"
    before = run(path, home)
    assert len(LARGE | BROKEN) == before["rejected"]
    was = {row["position"]: row for row in log_of(home)}
    correct(path)
    told = again(path, home)
    waiting = FITS & WAITING
    assert (len(FITS), len(FITS - waiting), len(waiting), len(BROKEN)) == (
        told["fitted"],
        told["learned"],
        told["unlabelled"],
        told["still_rejected"],
    )
    rows = log_of(home)
    assert sorted(set(range(RECORDS)) - BROKEN) == [row["position"] for row in rows]
    assert was == {place: row for place in was for row in rows if row["position"] == place}
    for row in (row for row in rows if row["position"] in FITS):
        assert row["served"] is not None
        assert (row["label"] is None) is (row["position"] in WAITING)
    left = left_behind(home)
    assert left["log"] == left["seen"]
    assert (before["learned"] + len(FITS - waiting), len(BROKEN), len(FITS)) == tuple(
        left["totals"][name] for name in ("learned", "rejected", "replayed")
    )
    assert RECORDS == left["totals"]["records"]
    assert {row["position"]: row["open"] for row in left["rejects"]} == {
        place: place in BROKEN for place in LARGE | BROKEN
    }
    (ran,) = ask(home, "FROM runs WHERE replayed > 0")
    assert ("finished", 0, len(FITS - waiting), 0, len(FITS)) == tuple(
        ran[name] for name in ("outcome", "records", "learned", "rejected", "replayed")
    )


def test_a_replay_that_is_repeated_finds_nothing_to_bring_back(run: Run, tmp_path: Path) -> None:
    """Each once: not a row more in the log, not a record more in the models."""
    path, home = make_refused(tmp_path), tmp_path / "home"
    run(path, home)
    assert 0 == again(path, home)["fitted"]
    correct(path)
    again(path, home)
    left = left_behind(home)
    assert (len(BROKEN), 0) == tuple(again(path, home)[name] for name in ("rejects", "fitted"))
    assert left == left_behind(home)


def test_a_run_goes_on_after_a_replay(run: Run, tmp_path: Path) -> None:
    """The stream is where it was, and what comes is learned as ever."""
    path, home = make_refused(tmp_path), tmp_path / "home"
    run(path, home)
    correct(path)
    again(path, home)
    with (tmp_path / "stream.csv").open("a") as file:
        file.writelines(f"{place % 3}.5,a,busy\n" for place in range(120))
    told = run(path, home)
    assert (RECORDS + 120, len(BROKEN)) == (told["position"], told["rejected"])
    assert told["records"] == told["learned"] + told["unlabelled"] + told["rejected"]


def test_a_log_that_upkeep_has_merged_takes_them_up(run: Run, tmp_path: Path) -> None:
    """In one file of all positions, and in what is merged after it."""
    apart, merged = tmp_path / "apart", tmp_path / "merged"
    for folder in (apart, merged):
        path = make_refused(folder)
        run(path, folder / "home")
        correct(path)
        log = Places(folder / "home").pipeline(NAME).predictions
        if folder == merged:
            assert compaction.compact(log, RECORDS).merged == RECORDS // BATCH
        again(path, folder / "home")
        compaction.compact(log, RECORDS)
    assert left_behind(apart / "home") == left_behind(merged / "home")


@pytest.fixture(scope="module", name="rejected")
def _rejected(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corrected pipeline file whose home, beside it, has rejects to be read again."""
    folder = tmp_path_factory.mktemp("replay")
    path = make_refused(folder)
    done = nursery.loop(path, folder / "home")
    assert done.returncode == 0, done.stderr
    correct(path)
    return path


@pytest.fixture(scope="module", name="undisturbed")
def _undisturbed(nursery: Nursery, rejected: Path, tmp_path_factory: Any) -> dict[str, Any]:
    """What a replay leaves that nothing disturbed."""
    home = copied(rejected, tmp_path_factory.mktemp("undisturbed"))
    done = nursery.replay(rejected, home)
    assert done.returncode == 0, done.stderr
    left = left_behind(home)
    assert len(FITS) == len(left["replays"])
    return left


def copied(path: Path, folder: Path) -> Path:
    """A home like that beside the pipeline file."""
    return Path(shutil.copytree(path.with_name("home"), folder / "home"))


POINTS = {
    "atomic_file.before_rename": 3,
    "atomic_file.after_rename": 3,
    "loop.after_checkpoint": 2,
    "replay.before_swap": 3,
    "replay.after_swap": 3,
    "history.before_outbox": 3,
    "loop.after_history": 2,
    "history.inside_flush": 1,
}
"""The points that a replay passes, and at which passing each strikes."""


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_a_repeated_replay_equals_an_undisturbed_one(
    point: str, nursery: Nursery, rejected: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """Killed there, then refused by the disk there, then let go on: nothing lost or doubled."""
    home = copied(rejected, tmp_path)
    killed = nursery.replay(rejected, home, f"{point}=kill:{POINTS[point]}")
    assert killed.returncode == -signal.SIGKILL, f"{point} was not reached: {killed.stderr}"
    nursery.replay(rejected, home, f"{point}=raise:1")
    done = nursery.replay(rejected, home)
    assert done.returncode == 0, done.stderr
    assert undisturbed == left_behind(home)


@pytest.mark.slow
def test_a_kill_before_the_log_is_made_good_by_any_next_run(
    nursery: Nursery, rejected: Path, tmp_path: Path
) -> None:
    """The checkpoint owes the log what was predicted: whoever opens the pipeline pays."""
    home = copied(rejected, tmp_path)
    assert nursery.replay(rejected, home, "loop.after_checkpoint=kill:2").returncode < 0
    (known,) = status.collect(home)
    missing = RECORDS - known["totals"]["rejected"] - len(log_of(home))
    assert missing > 0
    assert nursery.loop(rejected, home).returncode == 0
    assert RECORDS - known["totals"]["rejected"] == len(log_of(home))


def test_another_run_that_has_the_pipeline_puts_it_off(run: Run, tmp_path: Path) -> None:
    """With exit code 75, and nothing is changed."""
    path, home = make_refused(tmp_path), tmp_path / "home"
    run(path, home)
    with locked(Places(home).pipeline(NAME)), pytest.raises(AlreadyRunning):
        again(path, home)
    assert AlreadyRunning.exit_code == LogBusy.exit_code == 75


def test_a_merge_that_does_not_end_puts_it_off_and_loses_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was learned by then is owed to the log, and paid when the merge is over."""
    path, home = make_refused(tmp_path), tmp_path / "home"
    run(path, home)
    correct(path)
    log = Places(home).pipeline(NAME).predictions
    monkeypatch.setattr(compaction.amend, "__kwdefaults__", {"wait_s": 0.0})
    with file_lock.held(log / ".compaction.lock"), pytest.raises(LogBusy, match="run again"):
        again(path, home)
    again(path, home)
    assert sorted(set(range(RECORDS)) - BROKEN) == [row["position"] for row in log_of(home)]


def test_records_that_lie_elsewhere_now_are_not_brought_back(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another record would be learned in the place of the one that was rejected."""
    path, home = make_refused(tmp_path), tmp_path / "home"
    run(path, home)
    correct(path)
    between = Stream.between

    def shifted(self: Stream, first: int, last: int, marks: Any = ()) -> Batch:
        batch = between(self, first, last, marks)
        return changed(batch, after=batch.after.model_copy(update={"offset": 9}))

    monkeypatch.setattr(Stream, "between", shifted)
    monkeypatch.setattr(
        Stream,
        "read",
        lambda self, cursor, size: changed(between(self, 0, 0), after=cursor, ended=True),
    )
    with pytest.raises(RecordsMoved, match="records 0 to 499 of the stream are at other places"):
        again(path, home)
    monkeypatch.undo()
    assert len(LARGE | BROKEN) == status.collect(home)[0]["totals"]["rejected"]


def test_blank_lines_move_no_record(tmp_path: Path, run: Run) -> None:
    """However reading is cut, a blank line before a record belongs to no record."""
    path, home = make_refused(tmp_path), tmp_path / "home"
    lines = (tmp_path / "stream.csv").read_text().splitlines(keepends=True)
    (tmp_path / "stream.csv").write_text("\n\n".join([lines[0], *"".join(lines[1:]).split("\n")]))
    run(path, home)
    correct(path)
    assert len(FITS) == again(path, home)["fitted"]


def test_a_champion_that_knows_a_label_does_not_predict_it(run: Run, tmp_path: Path) -> None:
    """A window that was read after the correction had the record: its answer is no prediction."""
    tables: dict[str, dict[str, Any]] = {
        "worth": {"min_rows": 500},
        "drift": {"every": 700},
        "batch": {"window": 500},
        # Whatever comes of the fit is to serve.
        "promotion": {"beat_baseline": False},
    }
    path, home = make_refused(tmp_path, **tables), tmp_path / "home"
    run(path, home)
    correct(path)
    more = make_records(200, seed=7)
    with (tmp_path / "stream.csv").open("a") as file:
        file.writelines(
            f"{each['load'] or ''},{each['site'] or ''},{each['label']}\n" for each in more
        )
    assert run(path, home)["champion"] is not None
    with opened(pipeline.read(path), home, Stop(), Display(NAME)) as work:
        version = work.state.champion
        assert version is not None
        made_from = work.run.registry.manifest(version).train_from
    again(path, home)
    rows = {row["position"]: row for row in log_of(home) if row["position"] in FITS}
    assert {place for place in FITS if place < made_from} == {
        place for place, row in rows.items() if row["batch"] is not None
    }
    assert {None, version} == {row["model_version"] for row in rows.values()}


PICKY = """
from river import dummy

class Picky(dummy.NoChangeClassifier):
    def learn_one(self, x, y):
        super().learn_one(x, y)
        if x["load"] in {REFUSED}:
            raise RuntimeError("I do not like it")
"""


def test_a_record_that_the_model_refuses_stays_a_reject(run: Run, tmp_path: Path) -> None:
    """Those around it come back, each once, and the model is as if it had not come."""
    refused = [212, 218, 220]
    loads = {50.0 + place / 10 for place in refused}
    (tmp_path / "picky_replay.py").write_text(PICKY.replace("{REFUSED}", repr(loads)))
    path = make_refused(tmp_path, online={"members": ["picky_replay:Picky"]})
    run(path, tmp_path / "home")
    correct(path)
    told = again(path, tmp_path / "home")
    assert refused == told["refused_by_the_model"]
    assert len(FITS) - len(refused) == told["fitted"]
    places = [row["position"] for row in log_of(tmp_path / "home")]
    assert sorted(set(range(RECORDS)) - BROKEN - set(refused)) == places


def test_a_signal_ends_it_between_two_records(run: Run, tmp_path: Path) -> None:
    """What was brought back stays so, and the next replay goes on with the rest."""
    path, home = make_refused(tmp_path), tmp_path / "home"
    run(path, home)
    correct(path)
    told = reject_replay.replay(path, home, stop_after(30))
    assert "stopped" == told["outcome"]
    assert 0 < told["fitted"] < len(FITS)
    assert len(FITS) - told["fitted"] == again(path, home)["fitted"]
    assert sorted(set(range(RECORDS)) - BROKEN) == [row["position"] for row in log_of(home)]


def stop_after(asked: int) -> Stop:
    """A stop that says yes when it is asked for the `asked`-th time."""

    class Later(Stop):
        times = 0

        def __call__(self) -> bool:
            self.times += 1
            return self.times >= asked

    return Later()


def test_a_pipeline_that_has_not_run_has_no_rejects(tmp_path: Path) -> None:
    """A typing error in --home makes no home."""
    path = make_refused(tmp_path)
    with pytest.raises(BadConfiguration, match="has not run in"):
        again(path, tmp_path / "h")
    with pytest.raises(BadConfiguration, match="has not run in"):
        reject_report.collect(path, tmp_path / "h")
    assert not (tmp_path / "h").exists()


def kinds(found: Iterable[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Of each reason, how often and where."""
    return [(each["records"], each["first"], each["last"]) for each in found]


def test_rejects_are_listed_by_reason(run: Run, tmp_path: Path) -> None:
    """Reasons that differ in the value alone are one; what was brought back is not listed."""
    path, home = make_refused(tmp_path), tmp_path / "home"
    run(path, home)
    found = reject_report.collect(path, home)
    assert [(len(FITS), 3, 599), (len(BROKEN), 40, 215)] == kinds(found["reasons"])
    assert (
        "column 'load': a number of a magnitude up to 10 was expected"
        == (found["reasons"][0]["reason"])
    )
    assert found["reasons"][1]["raw"].startswith("broken,")
    assert len(LARGE | BROKEN) == found["rejected"] == found["can_be_replayed"]
    correct(path)
    again(path, home)
    assert [(len(BROKEN), 40, 215)] == kinds(reject_report.collect(path, home)["reasons"])


def test_the_commands_list_and_bring_back(run: Run, tmp_path: Path) -> None:
    """`rejects PIPELINE` lists; `rejects replay PIPELINE` says what became of them."""
    path, home = make_refused(tmp_path), tmp_path / "home"
    run(path, home)
    listed = thermodrift("--home", home, "rejects", path)
    assert (0, "") == (listed.returncode, listed.stderr)
    assert "What to do: [stream] largest = 1e150" in listed.stdout
    assert f"rejects replay {path} reads {len(LARGE | BROKEN)} of them again" in listed.stdout
    correct(path)
    done = thermodrift("--home", home, "rejects", "replay", path)
    assert done.returncode == 0, done.stderr
    assert f"{len(FITS)} of {len(LARGE | BROKEN)} rejects fit now" in done.stdout
