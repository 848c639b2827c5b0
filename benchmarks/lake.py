"""Several hosts write one history, a DuckLake with PostgreSQL: what is lost, and how fast it is.

    python -m benchmarks.lake [--hosts 4] [--commits 100] [--kills 2]

Each host is a process with a home of its own: it shares nothing with the others but the database
and the folder of the lake. It commits and folds, turn by turn and without a pause, as the loop does
after each batch; or it folds once per 20 commits, as a loop with larger batches would. In a storm
of the first kind hosts are killed at random moments, and begin again at their last acknowledged
commit, by its name. The alternative is a history in a file, with as many processes at one home.

PostgreSQL is started for this alone, and waits for the disk at each of its commits.

Prints one JSON line: rows lost and rows there twice (both must be 0), commits per second until all
of them can be asked for, from one host, and how many times as fast the lake is as the file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import crew
from observability.history.store import History
from tests import postgres
from tests.postgres import Database, Server

MANY = 20
"""Commits to one fold, in the second figure."""


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--commits", type=int, default=100, help="of each host")
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if postgres.found() is None:
        print(json.dumps({"benchmark": "lake", "skipped": postgres.MISSING}))  # noqa: T201 - the figure is the output
        return
    with tempfile.TemporaryDirectory() as folder, postgres.started(durable=True) as server:
        print(json.dumps(measure(Path(folder), server, **vars(asked))))  # noqa: T201 - the figure is the output


def measure(
    folder: Path, server: Server, hosts: int, commits: int, kills: int, seed: int
) -> dict[str, object]:
    """The storm, and then lake and file by themselves, with places of their own each."""

    def lake(name: str, every: int, kills: int = 0) -> dict[str, object]:
        work, place = partial(commit_at_home, every=every), folder / name
        first, *_ = _homes(place, server.database(name), hosts)
        return crew.rate(place, work, hosts, commits, kills=kills, seed=seed, asked=first)

    def file(name: str, every: int) -> dict[str, object]:
        return crew.rate(folder / name, partial(crew.commit_all, every=every), hosts, commits)

    storm = lake("storm", 1, kills)
    figures = {
        "fold_each": {"lake": lake("lake", 1), "file": file("file", 1)},
        f"fold_per_{MANY}": {"lake": lake("many", MANY), "file": file("file-many", MANY)},
    }
    ratios = {name: _ratio(each["lake"], each["file"]) for name, each in figures.items()}
    return {
        "benchmark": "lake",
        "hosts": hosts,
        **storm,
        "undisturbed": figures,
        "lake_is_times_as_fast_as_file": ratios,
    }


def commit_at_home(
    folder: Path,
    name: str,
    first: int,
    commits: int,
    go: Connection,
    said: Connection,
    every: int,
) -> None:
    """A writer's life on a host of its own; what waits at the end nobody else can fold."""
    home = folder / name
    crew.commit_all(home, name, first, commits, go, said, every)
    while History(home).flush().left:
        pass


def _homes(folder: Path, database: Database, hosts: int) -> list[Path]:
    """A home for each host, all of one lake."""
    homes = [folder / name for name in crew.names(hosts)]
    for home in homes:
        home.mkdir(parents=True)
        (home / "thermodrift.toml").write_text(
            f"[history]\nurl = '{database.address}'\ndata = '{folder / 'data'}'\n"
        )
    return homes


def _ratio(lake: dict[str, object], file: dict[str, object]) -> float:
    return round(float(str(lake["commits_per_s"])) / float(str(file["commits_per_s"])), 2)


if __name__ == "__main__":
    main()
