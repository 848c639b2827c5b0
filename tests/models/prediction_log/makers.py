"""Makers of prediction logs: one default each, and what a test is about as an override.

Apart from `makers`, because processes that tests start and kill import it: nothing slow is here.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from models.core import record_schema
from models.core.record_schema import Label, LabelKind
from models.online import learner
from models.online.prediction_rows import MemberRows, PredictionRows
from models.prediction_log import prediction_log
from models.stream.batches import Records
from tests import ROOT

OTHERS = ("linear", "own:Model")
"""The online members, which share the column `members`."""


def make_log(labels: Sequence[Label | None], champion: bool = True) -> PredictionRows:
    """A log in which everybody was right, and the champion is there or not."""
    log = PredictionRows([*labels])
    for member in learner.names(OTHERS, "classification"):
        there = champion or member != "batch"
        predicted = [label if there else None for label in labels]
        log.by[member] = MemberRows(predicted, [0.75 if there else None] * len(labels))
    return log


def put(
    folder: Path,
    first: int,
    last: int,
    label: Label = "up",
    rejected: Collection[int] = (),
    kind: LabelKind = "str",
    version: str | None = "v1",
) -> Path:
    """Log the positions from `first` to `last` (exclusive), without the rejected ones."""
    positions = [place for place in range(first, last) if place not in rejected]
    labels = [label] * len(positions)
    log = make_log(labels, champion=version is not None)
    records = make_records(positions, labels, kind)
    return prediction_log.write(folder, "elec2", records, (first, last), log, [version] * len(log))


def make_records(
    positions: Sequence[int], labels: Sequence[Label | None], kind: LabelKind = "str"
) -> Records:
    """Records without a feature."""
    import pyarrow as pa

    return Records([*positions], pa.table({"y": pa.array(labels, record_schema.arrow_label(kind))}))


def put_batches(folder: Path, ends: Sequence[int], rejected: Collection[int] = ()) -> list[Path]:
    """Log a batch between each of `ends` and the next; the label tells where one comes from."""
    return [
        put(folder, first, last, f"from {first}", rejected, version="v1" if first else None)
        for first, last in pairwise(ends)
    ]


def rows(folder: Path, first: int = 0, last: int = 10**11) -> list[dict[str, Any]]:
    """What is logged in a range, row by row."""
    found: list[dict[str, Any]] = prediction_log.read(folder, first, last).to_pylist()
    return found


def places(folder: Path, first: int = 0, last: int = 10**11) -> list[int]:
    """The positions that are logged in a range."""
    return [row["position"] for row in rows(folder, first, last)]


def names(folder: Path) -> list[str]:
    """What lies in the folder but the lock, in short: `0-500` for a file of the log."""
    found = []
    for path in sorted(folder.iterdir()):
        first, _, last = path.stem.partition("-")
        is_ours = path.suffix == ".parquet" and first.isdigit() and last.isdigit()
        if path.name != ".compaction.lock":
            found.append(f"{int(first)}-{int(last)}" if is_ours else path.name)
    return found


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process that runs `code` from the root of the project."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
