"""Records per second of the stream's door, over an honest loop that gives the same typed records.

    python -m benchmarks.intake [--records 50000] [--rounds 5] [--columns 8]

The other loop is what a person would write for a file that is known to be fine: csv.reader or
json.loads, or pyarrow's to_pylist, a dict per record with floats and texts, and the label apart. It
checks nothing that the door checks: positions, quotes that do not close, other shapes, magnitudes,
duplicate keys, growth. Both read the same file of one third texts and two thirds numbers in turn.
Time is that of the processor, so that a busy machine does no harm. Prints one JSON line with, per
kind of file, the median ratio over the rounds, each a pair of neighbours in time, and the rates.

`awkward` files have what the fast way once did not take: a key that is absent in some objects, one
that the schema does not have, times with colons; in CSV quoted cells and one more delimiter.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.stream.source import Cursor, Stream, StreamOptions

Rows = list[tuple[dict[str, Any], Any]]


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--columns", type=int, default=8)
    asked = parser.parse_args()
    records = made(asked.records, asked.columns)
    with tempfile.TemporaryDirectory() as folder:
        figures = {
            name: compare(write(Path(folder), records), loop, asked.rounds)
            for name, (write, loop) in KINDS.items()
        }
    print(json.dumps({"benchmark": "intake", "records": asked.records, **figures}))  # noqa: T201 - the figure is the output


def made(count: int, columns: int) -> list[dict[str, Any]]:
    """Records of `columns` features and the class y; every third feature is a text."""
    chance = random.Random(0)
    return [
        {
            f"feature_{place}": (
                chance.choice(["red", "green", "blue"])
                if place % 3 == 2
                else round(chance.gauss(0, 9), 4)
            )
            for place in range(columns)
        }
        | {"y": chance.randrange(2)}
        for _ in range(count)
    ]


def compare(path: Path, loop: Callable[[Path], Rows], rounds: int) -> dict[str, float]:
    """Rates of both, and the ratio of the door over the loop."""
    expected = loop(path)
    read(path)  # The first one imports pyarrow, which is no part of the figure.
    pairs = []
    for _ in range(rounds):
        began_s = time.process_time()
        loop(path)
        between_s = time.process_time()
        found = read(path)
        ended_s = time.process_time()
        pairs.append((between_s - began_s, ended_s - between_s))
    if found != expected:
        raise SystemExit(f"{path.name}: the two do not read the same records")
    return {
        "ratio": round(statistics.median(bare / door for bare, door in pairs), 3),
        "bare_per_s": round(len(found) / statistics.median(bare for bare, _ in pairs)),
        "door_per_s": round(len(found) / statistics.median(door for _, door in pairs)),
    }


def read(path: Path) -> Rows:
    """All records through the door, in batches of 1,000; the schema is inferred as well."""
    stream = Stream(path, "classification", StreamOptions(path=str(path), target="y"))
    cursor = Cursor()
    rows: Rows = []
    while True:
        batch = stream.read(cursor)
        rows += zip(batch.rows, batch.labels, strict=True)
        cursor = batch.after
        if batch.ended:
            return rows


def write_csv(folder: Path, records: list[dict[str, Any]]) -> Path:
    """Plain cells."""
    path = folder / "plain.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(records[0])
        writer.writerows(record.values() for record in records)
    return path


def write_awkward_csv(folder: Path, records: list[dict[str, Any]]) -> Path:
    """Every text in quotes, and a delimiter at the end of each line."""
    path = folder / "awkward.csv"
    with path.open("w", newline="") as file:
        file.write(",".join(records[0]) + "\n")
        for record in records:
            cells = (
                f'"{cell}"' if isinstance(cell, str) else str(cell) for cell in record.values()
            )
            file.write(",".join(cells) + ",\n")
    return path


def write_gzip(folder: Path, records: list[dict[str, Any]]) -> Path:
    """The plain cells, compressed."""
    path = folder / "packed.csv.gz"
    path.write_bytes(gzip.compress(write_csv(folder, records).read_bytes(), compresslevel=6))
    return path


def write_json(folder: Path, records: list[dict[str, Any]]) -> Path:
    """One object per line."""
    path = folder / "plain.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_awkward_json(folder: Path, records: list[dict[str, Any]]) -> Path:
    """A time and a nested value in each; one key in fifty absent."""
    path = folder / "awkward.jsonl"
    with path.open("w") as file:
        for index, record in enumerate(records):
            shown = {"seen": {"at": "12:30:00"}} | record if index % 3 == 0 else dict(record)
            if index % 50 == 7:
                del shown["feature_2"]
            file.write(json.dumps(shown) + "\n")
    return path


def write_parquet(folder: Path, records: list[dict[str, Any]]) -> Path:
    """Row groups of 10,000."""
    path = folder / "plain.parquet"
    pq.write_table(pa.Table.from_pylist(records), path, row_group_size=10_000)
    return path


def loop_csv(path: Path) -> Rows:
    """csv.reader, float by float."""
    with path.open(newline="") as file:
        return _typed(csv.reader(file))


def loop_gzip(path: Path) -> Rows:
    """The same through gzip."""
    with gzip.open(path, "rt", newline="") as file:
        return _typed(csv.reader(file))


def loop_json(path: Path) -> Rows:
    """json.loads; an absent key is None."""
    rows: Rows = []
    with path.open() as file:
        first = json.loads(next(file))
        names = [name for name in first if name not in {"y", "seen"}]
        for line in itertools.chain([json.dumps(first)], file):
            record = json.loads(line)
            rows.append(({name: record.get(name) for name in names}, record["y"]))
    return rows


def loop_parquet(path: Path) -> Rows:
    """to_pylist, a thousand rows at a time."""
    rows: Rows = []
    for some in pq.ParquetFile(path).iter_batches(batch_size=1000):
        for record in some.to_pylist():
            label = record.pop("y")
            rows.append((record, label))
    return rows


def _typed(records: Iterator[list[str]]) -> Rows:
    names = next(records)[:-1]
    texts = {place for place, name in enumerate(names) if int(name.split("_")[1]) % 3 == 2}
    return [
        (
            {
                name: cell if place in texts else float(cell)
                for place, (name, cell) in enumerate(zip(names, cells, strict=False))
            },
            int(cells[len(names)]),
        )
        for cells in records
    ]


KINDS: dict[str, tuple[Callable[[Path, list[dict[str, Any]]], Path], Callable[[Path], Rows]]] = {
    "csv": (write_csv, loop_csv),
    "csv_awkward": (write_awkward_csv, loop_csv),
    "csv_gz": (write_gzip, loop_gzip),
    "jsonl": (write_json, loop_json),
    "jsonl_awkward": (write_awkward_json, loop_json),
    "parquet": (write_parquet, loop_parquet),
}


if __name__ == "__main__":
    main()
