"""Durable predictions and labels per second of the inbox, over SQLite alone with the same rows.

    python -m benchmarks.inbox [--calls 2000] [--threads 32] [--rounds 3] [--folder PATH]

A call records one prediction, of eight features and seven members, or labels one. `one_by_one`: one
thread calls, so each call is a commit. `in_groups`: so many threads call at once, and calls that
wait share a commit. SQLite alone inserts the same JSON into one table, with one index, by one
connection: a row in each transaction, or as many as there are threads. It joins nothing and answers
nobody. All use the write-ahead log and synchronous=FULL. The figures depend on the disk: `--folder`
names a folder on the one in question.

Prints one JSON line with the medians over the rounds, and the inbox's share of SQLite's rate.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path

from models.inbox.inbox import Answered, Inbox

FEATURES = {f"feature_{place}": place * 1.25 for place in range(8)}
MEMBERS = ("served", "online", "linear", "linear_fast", "tree", "batch", "baseline")
ANSWERS = {name: {"value": 1, "probabilities": {"0": 0.25, "1": 0.75}} for name in MEMBERS}
VERSIONS = {"champion": "v000004000", "position": 4_000}


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=2_000)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files are made, and removed again")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        found = measure(Path(folder), asked.calls, asked.threads, asked.rounds)
    print(json.dumps(found))  # noqa: T201 - the figure is the output


def measure(folder: Path, calls: int, threads: int, rounds: int) -> dict[str, object]:
    """Each way in each round, turn by turn, in files of their own under `folder`."""
    taken: dict[str, list[float]] = {}
    for number in range(rounds):
        figures = {
            "sqlite_one_by_one_per_s": sqlite(folder / f"{number}-one.sqlite", calls, 1),
            "sqlite_in_groups_per_s": sqlite(folder / f"{number}-groups.sqlite", calls, threads),
        }
        for way, count in (("one_by_one", 1), ("in_groups", threads)):
            path = folder / f"{number}-{way}.inbox"
            figures |= {
                f"{name}_{way}{unit}": figure
                for (name, unit), figure in inbox(path, calls, count).items()
            }
        for name, figure in figures.items():
            taken.setdefault(name, []).append(figure)
    medians = {name: statistics.median(each) for name, each in taken.items()}
    return {
        "benchmark": "inbox",
        "calls": calls,
        "threads": threads,
        "rounds": rounds,
        **{name: round(figure, 1) for name, figure in medians.items()},
        "record_over_sqlite": {
            way: round(medians[f"record_{way}_per_s"] / medians[f"sqlite_{way}_per_s"], 3)
            for way in ("one_by_one", "in_groups")
        },
    }


def sqlite(path: Path, calls: int, in_transaction: int) -> float:
    """Rows per second of SQLite alone, so many in each transaction."""
    texts = [json.dumps(each) for each in (FEATURES, ANSWERS, VERSIONS)]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE waiting (id TEXT UNIQUE, at REAL, f TEXT, a TEXT, v TEXT)")
        began_s = time.perf_counter()
        for first in range(0, calls, in_transaction):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO waiting VALUES (?, ?, ?, ?, ?)",
                [
                    (f"id-{number}", 100.0, *texts)
                    for number in range(first, min(first + in_transaction, calls))
                ],
            )
            connection.execute("COMMIT")
        return calls / (time.perf_counter() - began_s)


def inbox(path: Path, calls: int, threads: int) -> dict[tuple[str, str], float]:
    """Calls per second of the inbox from so many threads, and how many shared a commit."""
    with Inbox.open(path) as opened:
        given = [
            Answered(f"id-{number}", 100.0, FEATURES, ANSWERS, VERSIONS) for number in range(calls)
        ]
        record_s = _shared((partial(opened.record, [each]) for each in given), threads)
        record_commits = opened.commits
        label_s = _shared(
            (partial(opened.label, [(each.id, 1)], at=160.0) for each in given), threads
        )
        counts = opened.counts()
    if (counts.recorded, counts.joined) != (calls, calls):
        raise SystemExit(f"{path}: of {calls} calls, it counts {counts}")
    return {
        ("record", "_per_s"): calls / record_s,
        ("label", "_per_s"): calls / label_s,
        ("record", "_calls_per_commit"): calls / record_commits,
    }


def _shared(calls: Iterable[Callable[[], object]], threads: int) -> float:
    """Make the calls from so many threads, each one when its thread is free; seconds for all."""
    remaining, taking = iter(calls), threading.Lock()

    def work() -> None:
        while True:
            with taking:
                call = next(remaining, None)
            if call is None:
                return
            call()

    workers = [threading.Thread(target=work) for _ in itertools.repeat(None, threads)]
    began_s = time.perf_counter()
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    return time.perf_counter() - began_s


if __name__ == "__main__":
    main()
