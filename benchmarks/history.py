"""Writers, an analyst in the same file, kills: what is lost, and how long a commit takes.

    python -m benchmarks.history [--writers 8] [--commits 200] [--kills 5] [--straight 25]

Each writer is a process that commits and folds, turn by turn and without a pause, as the loop does
after each batch. The analyst is one more, with a read-write session of DuckDB's own in the
history's file, in sittings, for about a third of the time; who cannot get in tries again. Writers
are killed at random moments, and begin again at their last acknowledged commit, by its name. The
alternative goes without history: as many processes insert the same rows straight into the file,
with nobody sitting there, and try again while another has it.

Prints one JSON line: rows lost and rows there twice (both must be 0), milliseconds of a commit with
and without the analyst (with: while it had the file for any part of the commit), and commits per
second of both ways: ours until all is folded in.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import duckdb
import numpy as np

from observability.history import History
from observability.places import Places
from observability.records import DecisionRecord, Record, ScoreRecord

MEMBERS = ("served", "online", "batch", "baseline")
BATCH = 500
ANALYST_SHARE = 1 / 3
_MOST_KILL_DELAY_S = 0.05
_BETWEEN_TRIES_S = 0.005
_LONGEST_PAUSE_S = 1.0
_NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
_SPAWN = multiprocessing.get_context("spawn")

Acknowledged = tuple[int, float, float]
"""A commit's number, and when it began and returned, on the clock that all processes share."""
Work = Callable[[Path, str, int, int, Connection, Connection], None]


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--commits", type=int, default=200, help="of each writer")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--straight", type=int, default=25, help="commits to compare ways with")
    parser.add_argument("--sitting-s", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), **vars(asked))))  # noqa: T201 - the figure is the output


def measure(
    folder: Path,
    writers: int,
    commits: int,
    kills: int,
    straight: int,
    sitting_s: float,
    seed: int,
) -> dict[str, object]:
    """The storm, and then each way by itself, on homes of their own under `folder`."""
    storm = _storm(folder / "storm", writers, commits, kills, sitting_s, random.Random(seed))
    ours = _rate(folder / "ours", commit_all, writers, straight)
    theirs = _rate(folder / "straight", insert_all, writers, straight)
    ratio = float(str(ours["commits_per_s"])) / float(str(theirs["commits_per_s"]))
    alone = {"history": ours, "straight": theirs, "ratio": round(ratio, 2)}
    return {"benchmark": "history", **storm, "undisturbed": alone}


def _storm(
    home: Path, writers: int, commits: int, kills: int, sitting_s: float, chance: random.Random
) -> dict[str, object]:
    History(home).ask("SELECT 1")
    with _crew(commit_all, home, writers, commits) as crew:
        began_s = time.monotonic()
        with _analyst(Places(home).history, sitting_s) as sittings:
            crew.finish(_moments(kills, writers * commits, chance), chance)
            seconds = time.monotonic() - began_s
    counted = _counted(home, writers, commits)
    all_s = time.monotonic() - began_s
    sitting: list[float] = []
    alone: list[float] = []
    for _, began, ended in crew.acknowledged():
        there = any(opened < ended and began < closed for opened, closed in sittings)
        (sitting if there else alone).append(1000 * (ended - began))
    with_it, without = _latency(sitting), _latency(alone)
    open_s = sum(min(closed, began_s + seconds) - opened for opened, closed in sittings)
    return {
        "writers": writers,
        "commits": writers * commits,
        "kills": crew.kills,
        **counted,
        "seconds": round(seconds, 2),
        "seconds_until_answered": round(all_s, 2),
        "analyst": {"sittings": len(sittings), "share_of_time": round(open_s / seconds, 2)},
        "commit_ms": {"with_analyst": with_it, "without_analyst": without},
        "p99_ratio": _ratio(with_it, without),
    }


def _rate(home: Path, work: Work, writers: int, commits: int) -> dict[str, object]:
    """Commits per second of `work` with nobody in the way, until all of it can be asked for."""
    History(home).ask("SELECT 1")
    with _crew(work, home, writers, commits) as crew:
        began_s = time.monotonic()
        crew.finish([], random.Random(0))
        counted = _counted(home, writers, commits)
        seconds = time.monotonic() - began_s
    latency = _latency([1000 * (ended - began) for _, began, ended in crew.acknowledged()])
    rate = round(writers * commits / seconds, 1)
    return {"commits": writers * commits, "commits_per_s": rate, "commit_ms": latency, **counted}


def commit_all(
    home: Path, name: str, first: int, commits: int, go: Connection, said: Connection
) -> None:
    """A writer's life: commit, acknowledge, fold."""
    history = History(home)
    _ready(go, said)
    for number in range(first, commits):
        records = rows(name, number)
        began = time.monotonic()
        history.commit(records, f"{name}.{number:06d}")
        said.send((number, began, time.monotonic()))
        history.fold()


def insert_all(
    home: Path, name: str, first: int, commits: int, go: Connection, said: Connection
) -> None:
    """The same rows without a history: open the file, insert, close; again while it is taken."""
    file, chance = str(Places(home).history), random.Random(name)
    _ready(go, said)
    for number in range(first, commits):
        records = rows(name, number)
        began = time.monotonic()
        tries = 0
        while not _inserted(file, records):
            # Trying costs processor time that the others need: this growing pause was the fastest.
            tries += 1
            time.sleep(chance.uniform(0, min(_LONGEST_PAUSE_S, _BETWEEN_TRIES_S * 2**tries)))
        said.send((number, began, time.monotonic()))


def _inserted(file: str, records: Sequence[Record]) -> bool:
    try:
        session = duckdb.connect(file)
    except duckdb.IOException as error:
        if "Could not set lock" in str(error):
            return False
        raise
    with session:
        session.begin()
        for record in records:
            cells = record.model_dump()
            if isinstance(record, DecisionRecord):
                cells["facts"] = json.dumps(dict(record.facts))
            columns = ", ".join(f'"{column}"' for column in cells)
            marks = ", ".join("?" * len(cells))
            session.execute(
                f"INSERT INTO {record.table} ({columns}) VALUES ({marks})", list(cells.values())
            )
        session.commit()
    return True


def rows(name: str, number: int) -> list[Record]:
    """What a batch brings: a score of each member, and one decision."""
    last = BATCH * (number + 1)
    here = {"pipeline": name, "run_id": "run-1"}
    scores = [
        ScoreRecord(
            **here,
            at=_NOON,
            position_from=last - BATCH,
            position_to=last,
            member=member,
            metric="accuracy",
            value=0.84,
        )
        for member in MEMBERS
    ]
    decision = DecisionRecord(
        **here,
        decided_at=_NOON,
        position=last,
        question="drift",
        yes=False,
        because="accuracy 0.84 is within 0.02 of 0.85",
        facts={"accuracy": 0.84, "tolerance": 0.02},
    )
    return [*scores, decision]


def _ready(go: Connection, said: Connection) -> None:
    """Say that the imports are through, and wait for the start: the closing of `go`."""
    said.send(None)
    go.poll(None)


@dataclass
class _Writer:
    """One writer, in the process that it has at the moment."""

    name: str
    process: SpawnProcess
    said: Connection
    acknowledged: list[Acknowledged] = field(default_factory=list)

    def hear(self) -> bool:
        """Note what it said; False once it says no more."""
        try:
            said: Acknowledged | None = self.said.recv()
        except EOFError:
            return False
        if said is not None:
            self.acknowledged.append(said)
        return True


class _Crew:
    """Writers at one home."""

    def __init__(self, work: Work, home: Path, commits: int, go: Connection) -> None:
        self.kills = 0
        self._work = work
        self._home = home
        self._commits = commits
        self._go = go
        self._all: list[_Writer] = []
        self._at_work: list[_Writer] = []

    def add(self, name: str) -> None:
        """Start a writer and wait until it is ready."""
        writer = _Writer(name, *self._started(name, first=0))
        self._all.append(writer)
        self._at_work.append(writer)

    def finish(self, moments: list[int], chance: random.Random) -> None:
        """Hear all to their end; kill one when so many commits are acknowledged, at each moment."""
        while self._at_work:
            ready = wait([writer.said for writer in self._at_work])
            for writer in [each for each in self._at_work if each.said in ready]:
                if not writer.hear():
                    self._ended(writer)
            if moments and len(self.acknowledged()) >= moments[0] and self._at_work:
                time.sleep(chance.uniform(0, _MOST_KILL_DELAY_S))
                if self._kill(chance.choice(self._at_work)):
                    moments = moments[1:]

    def acknowledged(self) -> list[Acknowledged]:
        """Every commit that returned, those that were repeated among them."""
        return [each for writer in self._all for each in writer.acknowledged]

    def end(self) -> None:
        """Leave no process behind, whatever happened."""
        for writer in self._at_work:
            writer.process.kill()
            writer.process.join()

    def _started(self, name: str, first: int) -> tuple[SpawnProcess, Connection]:
        heard, said = _SPAWN.Pipe(duplex=False)
        process = _SPAWN.Process(
            target=self._work, args=(self._home, name, first, self._commits, self._go, said)
        )
        process.start()
        said.close()
        return process, heard

    def _kill(self, writer: _Writer) -> bool:
        """Kill it and start it again; False where it was through before that."""
        writer.process.kill()
        writer.process.join()
        while writer.hear():
            pass
        if writer.process.exitcode != -signal.SIGKILL:
            self._ended(writer)
            return False
        self.kills += 1
        first = writer.acknowledged[-1][0] if writer.acknowledged else 0
        writer.process, writer.said = self._started(writer.name, first)
        return True

    def _ended(self, writer: _Writer) -> None:
        writer.process.join()
        if writer.process.exitcode != 0:
            raise RuntimeError(f"{writer.name} ended with {writer.process.exitcode}: see above")
        self._at_work.remove(writer)

    def heard_all_ready(self) -> None:
        """Wait until each writer has said that it is ready."""
        for writer in self._all:
            if not writer.hear():
                self._ended(writer)


@contextmanager
def _crew(work: Work, home: Path, writers: int, commits: int) -> Iterator[_Crew]:
    """Writers that are ready, and begin together when the block does."""
    go, start = _SPAWN.Pipe(duplex=False)
    crew = _Crew(work, home, commits, go)
    try:
        for number in range(writers):
            crew.add(f"writer-{number}")
        crew.heard_all_ready()
        start.close()
        yield crew
    finally:
        crew.end()


@contextmanager
def _analyst(file: Path, sitting_s: float) -> Iterator[list[tuple[float, float]]]:
    """An analyst beside the block; when it opened and closed the file is there after it."""
    sittings: list[tuple[float, float]] = []
    done, finish = _SPAWN.Pipe(duplex=False)
    heard, said = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=sit, args=(file, sitting_s, done, said))
    process.start()
    said.close()
    try:
        yield sittings
    finally:
        finish.close()
        while True:
            try:
                sittings.append(heard.recv())
            except EOFError:
                break
        process.join()


def sit(file: Path, sitting_s: float, done: Connection, said: Connection) -> None:
    """The analyst's day: whenever the share of the time at the file is below its own, sit down."""
    began, open_s = time.monotonic(), 0.0
    while not done.poll(_BETWEEN_TRIES_S):
        if open_s >= ANALYST_SHARE * (time.monotonic() - began):
            continue
        try:
            session = duckdb.connect(str(file))
        except duckdb.IOException:
            continue
        opened = time.monotonic()
        session.execute('SELECT member, avg("value") FROM scores GROUP BY member').fetchall()
        done.poll(sitting_s)
        session.close()
        closed = time.monotonic()
        open_s += closed - opened
        said.send((opened, closed))


def _moments(kills: int, commits: int, chance: random.Random) -> list[int]:
    """After how many acknowledged commits, all together, a writer is killed."""
    return sorted(chance.randint(1, int(0.9 * commits)) for _ in range(kills))


def _counted(home: Path, writers: int, commits: int) -> dict[str, int]:
    """Rows of acknowledged commits that are not there, and rows that are there once too often."""
    answer = History(home, patience_s=60).ask(
        "SELECT pipeline, position_to AS position, member AS what FROM scores "
        "UNION ALL SELECT pipeline, position, question FROM decisions"
    )
    found = Counter(zip(*(column.to_pylist() for column in answer.columns), strict=True))
    expected = {
        (name, BATCH * (number + 1), what)
        for name in (f"writer-{each}" for each in range(writers))
        for number in range(commits)
        for what in (*MEMBERS, "drift")
    }
    return {
        "rows": len(expected),
        "rows_lost": len(expected - found.keys()),
        "rows_twice": found.total() - len(found),
    }


def _latency(spent_ms: Sequence[float]) -> dict[str, float] | None:
    """Of so many commits; None for none."""
    if not spent_ms:
        return None
    p50, p99 = np.percentile(spent_ms, [50, 99])
    return {
        "commits": len(spent_ms),
        "p50": round(float(p50), 2),
        "p99": round(float(p99), 2),
        "max": round(max(spent_ms), 2),
    }


def _ratio(over: dict[str, float] | None, under: dict[str, float] | None) -> float | None:
    return round(over["p99"] / under["p99"], 2) if over and under else None


if __name__ == "__main__":
    main()
