"""Makers for the tests of the flows: a small stream with a drift, a pipeline file, the command."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from models.core.record_schema import Task
from observability.history.store import History
from tests import ROOT

NAME = "small"

TABLES: Mapping[str, Mapping[str, Any]] = {
    # So small that a few hundred records go through everything: looks, retrains, promotions.
    "stream": {"path": "stream.csv", "target": "label", "batch": 100},
    "batch": {"recipe": "linear", "window": 400, "min_rows": 100, "older_rows": 100},
    "drift": {
        "every": 200,
        "window": 200,
        "min_rows": 100,
        "reference_rows": 200,
    },
    "worth": {"min_rows": 200, "min_new_rows": 100, "cooldown_records": 200},
    "gate": {"source": "off"},
}
"""What `make_pipeline` writes, unless it is told otherwise, beside the pipeline's name and task."""


def make_pipeline(
    folder: Path,
    records: int = 1_000,
    task: Task = "classification",
    name: str = NAME,
    **tables: Mapping[str, Any],
) -> Path:
    """A pipeline file in `folder` with its stream beside it, always the same.

    `tables` change single keys of `TABLES`: ``stream={"batch": 50}``, ``drift={"every": 100}``. A
    key of None is left out. The ending of ``stream["path"]`` says what is written: CSV, Parquet or
    JSON lines.
    """
    asked = {
        "pipeline": {"name": name, "task": task},
        **{
            table: {**TABLES.get(table, {}), **tables.get(table, {})}
            for table in (*TABLES, *tables)
        },
    }
    write_stream(folder / str(asked["stream"]["path"]), make_records(records, task))
    path = folder / "pipeline.toml"
    path.write_text(toml(asked), encoding="utf-8")
    return path


def make_records(count: int, task: Task = "classification", seed: int = 3) -> list[dict[str, Any]]:
    """Records of a number, a category and a label; the world turns round at half of them.

    One cell in twenty is blank. Before the change a large `load` means "busy" (or a large value);
    after it `load` is larger and means the opposite.
    """
    chance = random.Random(seed)
    records: list[dict[str, Any]] = []
    for index in range(count):
        changed = index >= count // 2
        load = chance.gauss(0.8 if changed else 0.2, 0.3)
        site = chance.choice("abc")
        signal = (0.8 - load if changed else load - 0.2) + (0.1 if site == "a" else 0.0)
        busy = chance.random() < 1 / (1 + math.exp(-12 * signal))
        records.append(
            {
                "load": None if chance.random() < 0.05 else round(load, 4),
                "site": None if chance.random() < 0.05 else site,
                "label": round(10 * signal, 4)
                if task == "regression"
                else ("busy" if busy else "idle"),
            }
        )
    return records


def write_stream(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write records as the file's ending says; a blank is an empty cell, or null."""
    table = pd.DataFrame(records)
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    else:
        table.to_csv(path, index=False)


def toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of plain values as TOML; what is None is left out."""
    return "\n".join(
        "\n".join(
            [
                f"[{table}]",
                *(f"{key} = {_value(each)}" for key, each in knobs.items() if each is not None),
            ]
        )
        + "\n"
        for table, knobs in tables.items()
    )


def _value(value: object) -> str:
    """A plain value: JSON's way to write it is TOML's, but for tables and the infinite."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + "}"
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def thermodrift(
    *words: object, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, with nothing in the environment but `environment`."""
    return subprocess.run(
        [sys.executable, "-m", "thermodrift", *map(str, words)],
        cwd=cwd,
        env=environment_of(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def ask(home: Path, sql: str) -> list[dict[str, Any]]:
    """What the history of a home answers, a dict per row."""
    rows: list[dict[str, Any]] = History(home).ask(sql).to_pylist()
    return rows


def environment_of(**changes: str) -> dict[str, str]:
    """A clean environment in which this source tree can be imported from any folder."""
    plain = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    shared = ("THERMODRIFT_CACHE", "OMP_NUM_THREADS")
    return {**plain, **{key: os.environ[key] for key in shared if key in os.environ}, **changes}


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    """The one JSON document that a command printed."""
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout)
