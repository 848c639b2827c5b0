"""Makers for the tests of models: one default each, and what a test is about as an override."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from models.batch import batch_model
from models.batch.batch_model import BatchModel
from models.core import record_schema
from models.core.record_schema import Column, ColumnKind, Features, Label, LabelKind, Schema, Task
from models.inbox.inbox import Answered, Inbox, InboxConfig
from models.persistence.signing import SigningKey
from models.registry.registry import Manifest, ModelCard, Registry
from models.stream.source import Batch, Cursor, Stream, StreamOptions
from observability.core.paths import PipelinePlaces, Places

KEY = bytes(range(32))
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pa.compress(data, codec="zstd", asbytes=True)),
}
"""What a text file may be packed with, by the ending of its name."""
COLUMNS: dict[str, ColumnKind] = {"height": "number", "colour": "category", "weight": "number"}


def make_schema(
    task: Task = "classification",
    label_kind: LabelKind | None = None,
    columns: dict[str, ColumnKind] | None = None,
    target: str = "class",
) -> Schema:
    """Two numbers with a category between them; classes are text."""
    kinds = COLUMNS if columns is None else columns
    return Schema(
        columns=tuple(Column(name=name, kind=kind) for name, kind in kinds.items()),
        target=target,
        task=task,
        label_kind=label_kind or ("float" if task == "regression" else "str"),
    )


def make_rows(count: int = 300, seed: int = 0) -> list[Features]:
    """Records of `COLUMNS`, a tenth of the cells missing."""
    rng = random.Random(seed)

    def some(cell: float | str) -> float | str | None:
        return None if rng.random() < 0.1 else cell

    return [
        {
            "height": rng.gauss(0, 1),
            "colour": some(rng.choice(["red", "green", "blue"])),
            "weight": some(rng.uniform(0, 9)),
        }
        for _ in range(count)
    ]


def make_label(row: Features, label_kind: LabelKind = "str") -> Label:
    """What a model can learn of `row`: whether it is high, as text or 7/3, or how high it is."""
    height = row["height"]
    assert isinstance(height, float)
    if label_kind == "float":
        return 100 * height + (50 if row["colour"] == "red" else 0)
    if label_kind == "int":
        return 7 if height > 0 else 3
    return "high" if height > 0 else "low"


def make_window(
    count: int = 300, seed: int = 0, label_kind: LabelKind = "str"
) -> tuple[pd.DataFrame, list[Label]]:
    """A frame of `make_rows` and its labels."""
    rows: Sequence[Features] = make_rows(count, seed)
    task: Task = "regression" if label_kind == "float" else "classification"
    return (
        make_frame(rows, make_schema(task, label_kind)),
        [make_label(row, label_kind) for row in rows],
    )


def make_frame(rows: Sequence[Features], schema: Schema) -> pd.DataFrame:
    """The frame of records that are written out as dicts."""
    table = pa.Table.from_pylist([dict(row) for row in rows], record_schema.arrow_schema(schema))
    return record_schema.frame(table, schema)


def make_places(tmp_path: Path, name: str = "elec2") -> PipelinePlaces:
    """The folder of a pipeline in a home of its own."""
    return Places(tmp_path / "home").pipeline(name)


def make_store(folder: Path, pipeline: str = "elec2", key: bytes = KEY) -> Registry:
    """The store of a pipeline in a home under `folder`."""
    return Registry(make_places(folder, pipeline), SigningKey(key))


def make_dummy(first: str = "high") -> BatchModel:
    """The quickest model there is."""
    return batch_model.baseline([first, "low", first], "classification")


def make_reference(kind: LabelKind = "str") -> pd.DataFrame:
    """Three rows, the last one answered."""
    task: Task = "regression" if kind == "float" else "classification"
    frame, labels = make_window(3, label_kind=kind)
    frame["class"] = pd.Series(labels, dtype=object)
    frame["prediction"] = pd.Series([None, None, labels[2]], dtype=object)
    return batch_model.typed_reference(frame, make_schema(task, kind))


def put(kept: Registry, version: str = "v1", **changes: Any) -> Manifest:
    """Store a dummy as `version`."""
    given: dict[str, Any] = {
        "model": make_dummy(),
        "reference": make_reference(),
        "pipeline": "elec2",
        "recipe": "linear",
        "record_schema": make_schema(),
        "labels": ("high", "low"),
        "train_from": 0,
        "train_to": 240,
        "holdout_from": 240,
        "holdout_to": 300,
        "rows": 240,
        "fit_s": 1.5,
        "scores": {"holdout:challenger": {"accuracy": 0.75, "log_loss": 0.5}},
        "created_at": NOW,
    }
    given |= changes
    return kept.register(version, given.pop("model"), given.pop("reference"), ModelCard(**given))


def make_stream(
    path: Path,
    content: str | bytes | None = None,
    task: Task = "classification",
    schema: Schema | None = None,
    **options: Any,
) -> Stream:
    """A stream over `path`, which `content` is written to first (None: it is there already).

    A path that ends in .inbox is that of an inbox, and one in .split.csv a file that is followed by
    the inbox beside it.
    """
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    given: dict[str, Any] = {"path": path.name, "target": "y"}
    if path.suffix == ".inbox":
        given["path"] = "service:asked"
    elif path.name.endswith(".split.csv"):
        given["then"] = "service:asked"
    asked = StreamOptions(**given | options)
    return Stream(path, task, asked, schema, path.with_suffix(".inbox"))


def make_inbox(path: Path, records: Sequence[dict[str, Any]], target: str = "y") -> None:
    """An inbox whose examples are these records.

    Where it has the first of them already the others join it, and else it is another inbox.
    """
    with ExitStack() as stack:
        inbox = stack.enter_context(Inbox.open(path, InboxConfig(synchronous="normal")))
        known = [{**each.features, target: each.label} for each in inbox.joined(0, 1_000_000)]
        if known != records[: len(known)]:
            inbox.close()
            path.unlink()
            inbox = stack.enter_context(Inbox.open(path, InboxConfig(synchronous="normal")))
            known = []
        for index, record in enumerate(records[len(known) :], len(known)):
            features = {name: cell for name, cell in record.items() if name != target}
            inbox.record([Answered(str(index), 100.0, features, {}, {})])
        truths = [(str(index), each[target]) for index, each in enumerate(records)]
        inbox.label(truths[len(known) :], 200.0)


def read_all(stream: Stream, cursor: Cursor | None = None, size: int = 1000) -> list[Batch]:
    """Batches to the end of what is there; the last one says that it ended."""
    batches = [stream.read(cursor or Cursor(), size)]
    while not batches[-1].ended:
        batches.append(stream.read(batches[-1].after, size))
    return batches


def records_of(batches: Sequence[Batch]) -> list[tuple[int, object]]:
    """Every position with what became of it: (row, label), or the reject."""
    found: list[tuple[int, object]] = []
    for part in batches:
        found += zip(part.positions, zip(part.rows, part.labels, strict=True), strict=True)
        found += [(reject.position, reject) for reject in part.rejects]
    return sorted(found, key=lambda record: record[0])
