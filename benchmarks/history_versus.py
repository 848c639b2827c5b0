"""The same metric rows logged to this history, to plain SQLite and to MLflow, and read back.

    python -m benchmarks.history_versus [--commits 200] [--rows 50] [--rounds 3]
                                        [--mlflow-python PATH]

Each way commits so many times so many rows of five metrics, one after another from one process, and
then reads all rows of one metric into Python. What is made once (a file, its tables, an experiment)
is there before, and imports are not counted. The history folds all commits in at the end, which is
told apart. To read, the history and SQLite open their file anew; MLflow has it open already. MLflow
is no dependency of ours: `--mlflow-python` names a Python that has it, and without it that part is
null.

Prints one JSON line with the medians over the rounds, what each does to keep a commit through a
loss of power, and how many times as fast the history is as each.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from observability.history.records import ScoreRecord
from observability.history.store import History

METRICS = 5
_NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
_MLFLOW = Path(__file__).with_name("mlflow_store.py")


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commits", type=int, default=200)
    parser.add_argument("--rows", type=int, default=50, help="of each commit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mlflow-python", type=Path, help="a Python in which MLflow is installed")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), **vars(asked))))  # noqa: T201 - the figure is the output


def measure(
    folder: Path, commits: int, rows: int, rounds: int, mlflow_python: Path | None
) -> dict[str, object]:
    """Every way in each round, turn by turn, in folders of their own under `folder`."""
    taken: dict[str, list[dict[str, Any]]] = {}
    version = None
    for number in range(rounds):
        place = folder / str(number)
        place.mkdir(parents=True)
        found = {"history": history(place, commits, rows), "sqlite": sqlite(place, commits, rows)}
        if mlflow_python is not None:
            told = _mlflow(mlflow_python, place, commits, rows)
            version = told.pop("version")
            found |= told
        for way, figures in found.items():
            taken.setdefault(way, []).append(figures)
    ways = {way: _median(each) for way, each in taken.items()}
    return {
        "benchmark": "history_versus",
        "rows": commits * rows,
        "commits": commits,
        "rounds": rounds,
        **ways,
        "mlflow_version": version,
        "mlflow_is_null_because": None
        if version
        else "--mlflow-python names no Python that has it",
        "history_is_times_as_fast_as": {
            way: _times(ways["history"], other) for way, other in ways.items() if way != "history"
        },
    }


def history(folder: Path, commits: int, rows: int) -> dict[str, Any]:
    """Through the history: commits, then one fold, then a question."""
    door = History(folder / "home")
    door.ask("SELECT 1")
    began_s = time.perf_counter()
    for commit in range(commits):
        door.commit([_record(commit * rows + row) for row in range(rows)], f"versus.{commit}")
    log_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    door.flush()
    fold_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    read = door.ask(
        'SELECT position_to, "value", scored_at FROM scores WHERE metric = ? ORDER BY position_to',
        ["m0"],
    ).to_pylist()
    read_s = time.perf_counter() - began_s
    return {
        "log_s": log_s,
        "fold_s": fold_s,
        "read_s": read_s,
        "read_rows": len(read),
        "durability": "fsync of a file with its SHA-256, and of its folder, per commit",
    }


def _record(position: int) -> ScoreRecord:
    return ScoreRecord(
        at=_NOON,
        pipeline="elec2",
        run_id="run-1",
        position_from=position,
        position_to=position + 1,
        member="served",
        metric=f"m{position % METRICS}",
        value=0.84,
    )


def sqlite(folder: Path, commits: int, rows: int) -> dict[str, Any]:
    """Through SQLite, set to keep what it acknowledged: one transaction per commit."""
    file = folder / "plain.sqlite"
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE scores (at TEXT, pipeline TEXT, run_id TEXT, position_from INTEGER, "
        "position_to INTEGER, member TEXT, metric TEXT, value REAL)"
    )
    began_s = time.perf_counter()
    for commit in range(commits):
        positions = range(commit * rows, (commit + 1) * rows)
        with connection:
            connection.executemany(
                "INSERT INTO scores VALUES (?, 'elec2', 'run-1', ?, ?, 'served', ?, 0.84)",
                [(_NOON.isoformat(), each, each + 1, f"m{each % METRICS}") for each in positions],
            )
    log_s = time.perf_counter() - began_s
    connection.close()
    began_s = time.perf_counter()
    connection = sqlite3.connect(file)
    read = connection.execute(
        "SELECT position_to, value, at FROM scores WHERE metric = ? ORDER BY position_to", ["m0"]
    ).fetchall()
    read_s = time.perf_counter() - began_s
    connection.close()
    return {
        "log_s": log_s,
        "read_s": read_s,
        "read_rows": len(read),
        "durability": "one transaction per commit, journal_mode=wal, synchronous=2 (full)",
    }


def _mlflow(python: Path, folder: Path, commits: int, rows: int) -> dict[str, Any]:
    done = subprocess.run(
        [python, _MLFLOW, folder, str(commits), str(rows), str(METRICS)],
        capture_output=True,
        text=True,
        check=False,  # what it says of its failure is told
    )
    if done.returncode:
        raise RuntimeError(f"{python} could not log with MLflow: {done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each figure; what is no figure is the same in each round."""
    return {
        name: round(statistics.median(each[name] for each in rounds), 4)
        if name.endswith("_s")
        else value
        for name, value in rounds[0].items()
    }


def _times(ours: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    logged_s = ours["log_s"] + ours["fold_s"]
    return {
        "commit": round(other["log_s"] / ours["log_s"], 2),
        "commit_and_fold": round(other["log_s"] / logged_s, 2),
        "read": round(other["read_s"] / ours["read_s"], 2),
    }


if __name__ == "__main__":
    main()
