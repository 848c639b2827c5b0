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
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import duckdb

from benchmarks import crew
from observability.core.paths import Places
from observability.history.records import DecisionRecord, Record
from observability.history.store import History

ANALYST_SHARE = 1 / 3
_BETWEEN_TRIES_S = 0.005
_LONGEST_PAUSE_S = 1.0


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
    ours = crew.rate(folder / "ours", crew.commit_all, writers, straight)
    theirs = crew.rate(folder / "straight", insert_all, writers, straight)
    ratio = float(str(ours["commits_per_s"])) / float(str(theirs["commits_per_s"]))
    alone = {"history": ours, "straight": theirs, "ratio": round(ratio, 2)}
    return {"benchmark": "history", **storm, "undisturbed": alone}


def _storm(
    home: Path, writers: int, commits: int, kills: int, sitting_s: float, chance: random.Random
) -> dict[str, object]:
    History(home).ask("SELECT 1")
    with crew.gathered(crew.commit_all, home, writers, commits) as hands:
        began_s = time.monotonic()
        with _analyst(Places(home).history, sitting_s) as sittings:
            hands.finish(crew.moments(kills, writers * commits, chance), chance)
            seconds = time.monotonic() - began_s
    counted = crew.counted(home, writers, commits)
    all_s = time.monotonic() - began_s
    sitting: list[float] = []
    alone: list[float] = []
    for _, began, ended in hands.acknowledged():
        there = any(opened < ended and began < closed for opened, closed in sittings)
        (sitting if there else alone).append(1000 * (ended - began))
    with_it, without = crew.latency(sitting), crew.latency(alone)
    open_s = sum(min(closed, began_s + seconds) - opened for opened, closed in sittings)
    return {
        "writers": writers,
        "commits": writers * commits,
        "kills": hands.kills,
        **counted,
        "seconds": round(seconds, 2),
        "seconds_until_answered": round(all_s, 2),
        "analyst": {"sittings": len(sittings), "share_of_time": round(open_s / seconds, 2)},
        "commit_ms": {"with_analyst": with_it, "without_analyst": without},
        "p99_ratio": _ratio(with_it, without),
    }


def insert_all(
    home: Path, name: str, first: int, commits: int, go: Connection, said: Connection
) -> None:
    """The same rows without a history: open the file, insert, close; again while it is taken."""
    file, chance = str(Places(home).history), random.Random(name)
    crew.ready(go, said)
    for number in range(first, commits):
        records = crew.rows(name, number)
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


@contextmanager
def _analyst(file: Path, sitting_s: float) -> Iterator[list[tuple[float, float]]]:
    """An analyst beside the block; when it opened and closed the file is there after it."""
    sittings: list[tuple[float, float]] = []
    done, finish = crew.SPAWN.Pipe(duplex=False)
    heard, said = crew.SPAWN.Pipe(duplex=False)
    process = crew.SPAWN.Process(target=sit, args=(file, sitting_s, done, said))
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


def _ratio(over: dict[str, float] | None, under: dict[str, float] | None) -> float | None:
    return round(over["p99"] / under["p99"], 2) if over and under else None


if __name__ == "__main__":
    main()
