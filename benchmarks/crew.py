"""Writers of a history, each a process of its own, that are killed and begin again.

What the benchmarks of the history share: a writer commits and folds, turn by turn and without a
pause, as the loop does after each batch. One that is killed begins again at its last acknowledged
commit, by its name. At the end the rows are counted: those that are lost, and those there twice.
"""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np

from observability.history.records import DecisionRecord, Record, ScoreRecord
from observability.history.store import History

MEMBERS = (
    *("served", "online", "linear", "linear_fast", "hoeffding_adaptive_tree"),
    *("batch", "baseline"),
)
"""Everybody who is scored in a pipeline of default members."""
BATCH = 500
SPAWN = multiprocessing.get_context("spawn")
_MOST_KILL_DELAY_S = 0.05
_NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)

Acknowledged = tuple[int, float, float]
"""A commit's number, and when it began and returned, on the clock that all processes share."""
Work = Callable[[Path, str, int, int, Connection, Connection], None]


def rate(
    home: Path,
    work: Work,
    writers: int,
    commits: int,
    *,
    kills: int = 0,
    seed: int = 0,
    asked: Path | None = None,
) -> dict[str, object]:
    """Commits per second of `work` until all can be asked for, in `home` or the home `asked`."""
    chance = random.Random(seed)
    History(asked or home).ask("SELECT 1")
    with gathered(work, home, writers, commits) as hands:
        began_s = time.monotonic()
        hands.finish(moments(kills, writers * commits, chance), chance)
        found = counted(asked or home, writers, commits)
        seconds = time.monotonic() - began_s
    return {
        "commits": writers * commits,
        "kills": hands.kills,
        "commits_per_s": round(writers * commits / seconds, 1),
        "commit_ms": latency([1000 * (ended - began) for _, began, ended in hands.acknowledged()]),
        **found,
    }


def commit_all(
    home: Path,
    name: str,
    first: int,
    commits: int,
    go: Connection,
    said: Connection,
    every: int = 1,
) -> None:
    """A writer's life: commit, acknowledge, and `every` so many commits fold."""
    history = History(home)
    ready(go, said)
    for number in range(first, commits):
        records = rows(name, number)
        began = time.monotonic()
        history.commit(records, f"{name}.{number:06d}")
        said.send((number, began, time.monotonic()))
        if (number + 1) % every == 0:
            history.flush()


def names(writers: int) -> list[str]:
    """What the writers are called, and the pipelines that they write of."""
    return [f"writer-{number}" for number in range(writers)]


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


def ready(go: Connection, said: Connection) -> None:
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


class Crew:
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
        heard, said = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(
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
def gathered(work: Work, home: Path, writers: int, commits: int) -> Iterator[Crew]:
    """Writers that are ready, and begin together when the block does."""
    go, start = SPAWN.Pipe(duplex=False)
    hands = Crew(work, home, commits, go)
    try:
        for name in names(writers):
            hands.add(name)
        hands.heard_all_ready()
        start.close()
        yield hands
    finally:
        hands.end()


def moments(kills: int, commits: int, chance: random.Random) -> list[int]:
    """After how many acknowledged commits, all together, a writer is killed."""
    return sorted(chance.randint(1, int(0.9 * commits)) for _ in range(kills))


def counted(home: Path, writers: int, commits: int) -> dict[str, int]:
    """Rows of acknowledged commits that are not there, and rows that are there once too often."""
    answer = History(home, timeout_s=60).ask(
        "SELECT pipeline, position_to AS position, member AS what FROM scores "
        "UNION ALL SELECT pipeline, position, question FROM decisions"
    )
    found = Counter(zip(*(column.to_pylist() for column in answer.columns), strict=True))
    expected = {
        (name, BATCH * (number + 1), what)
        for name in names(writers)
        for number in range(commits)
        for what in (*MEMBERS, "drift")
    }
    return {
        "rows": len(expected),
        "rows_lost": len(expected - found.keys()),
        "rows_twice": found.total() - len(found),
    }


def latency(spent_ms: Sequence[float]) -> dict[str, float] | None:
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
