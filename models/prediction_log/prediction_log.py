"""Adapter of the prediction log: Parquet, one file per batch, named by its positions.

A batch that is processed again after a crash overwrites its own file; files beyond the checkpoint
are removed before a run resumes; parts of a merged file are ignored as soon as it has its name. So
no position is ever missing or logged twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.core.record_schema import LabelKind, arrow_label
from models.online.prediction_rows import MemberRows, PredictionRows
from models.prediction_log import compaction, segments
from models.prediction_log.compaction import (
    CompactResult,
    LogBusy,
    RemovalResult,
    compact,
    remove_before,
)
from models.prediction_log.segments import LogDamaged
from models.stream.batches import Records
from observability.core import atomic_file, log_segments
from observability.core.log_segments import Span

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "CompactResult",
    "LogBusy",
    "LogDamaged",
    "RemovalResult",
    "amend",
    "compact",
    "read",
    "remove_before",
    "sweep",
    "write",
]


COLUMNS = ("online", "batch", "baseline", "served")
"""Members that have a column of their own; the other ones share the column `members`."""


def write(
    folder: Path,
    pipeline: str,
    records: Records,
    span: tuple[int, int],
    log: PredictionRows,
    model_versions: Sequence[str | None],
) -> Path:
    """Write the log of the batch that covers the positions `span` (the end is exclusive).

    `records` are the predicted ones, without rejects, and `model_versions` the champions that
    predicted them. A missing label is null.
    """
    import pyarrow as pa
    from pyarrow import parquet

    labels = records.table.column(-1)
    table = _table(pipeline, records.positions, labels, log, model_versions)
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd", write_page_checksum=True)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / log_segments.name(Span(*span))
    atomic_file.write(path, sink.getvalue().to_pybytes())
    return path


def amend(
    folder: Path,
    pipeline: str,
    positions: Sequence[int],
    log: PredictionRows,
    label_kind: LabelKind,
    model_versions: Sequence[str | None],
) -> int:
    """Put predictions of formerly rejected records into the files of their positions.

    `positions` increase, one per record of `log`, as for `model_versions`. The operation is
    idempotent. Returns how many are not logged, because no readable file covers them. Raises
    LogBusy while another process merges the log, OSError.
    """
    import pyarrow as pa

    labels = pa.chunked_array([pa.array(log.labels, arrow_label(label_kind))])
    return compaction.amend(folder, _table(pipeline, positions, labels, log, model_versions))


def _table(
    pipeline: str,
    positions: Sequence[int],
    labels: pa.ChunkedArray,
    log: PredictionRows,
    model_versions: Sequence[str | None],
) -> pa.Table:
    import pyarrow as pa

    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "pipeline": pa.array([pipeline] * len(log), pa.string()),
        "position": pa.array(positions, pa.int64()),
        "label": labels,
    }
    # A batch without a prediction, because a model refused its only record, names no member.
    by = log.by if len(log) else {member: MemberRows([], []) for member in COLUMNS}
    for member in COLUMNS:
        columns[member] = pa.array(by[member].predicted, labels.type)
    for member in ("online", "batch", "served"):
        columns[f"{member}_probability"] = pa.array(by[member].probabilities, pa.float64())
    others = [name for name in by if name not in COLUMNS]
    answers = zip(*(by[name].predicted for name in others), strict=True)
    columns["members"] = pa.MapArray.from_arrays(
        pa.array(range(0, (len(log) + 1) * len(others), len(others)), pa.int32())
        if others
        else pa.array([0] * (len(log) + 1), pa.int32()),
        pa.array(others * len(log), pa.string()),
        pa.array([answer for record in answers for answer in record], labels.type),
    )
    columns["model_version"] = pa.array(model_versions, pa.string())
    return pa.table(columns)


def read(folder: Path, first: int, last: int) -> pa.Table:
    """The log from position `first` to `last` (exclusive), ordered by position.

    Columns: pipeline, position, label, online, batch, baseline, served, the probabilities, members
    (a map from the name of each other member to its prediction), and model_version. Raises
    FileNotFoundError where nothing of that range is logged, and LogDamaged.
    """
    import pyarrow as pa

    missed = None
    while (files := segments.holding(folder, first, last)) != missed:
        if not files:
            raise FileNotFoundError(f"{folder} logs no prediction from position {first} to {last}")
        try:
            return pa.concat_tables(
                table for path, _ in files for table in segments.between(path, first, last)
            )
        except FileNotFoundError:
            # Merged meanwhile: the next listing has the file that replaces it.
            missed = files
    raise LogDamaged(
        f"{folder} names files from position {first} to {last} that are not there when they are "
        "opened: a link leads nowhere, or the disk fails. Restore the folder from a backup"
    )


def sweep(folder: Path, beyond: int) -> None:
    """Remove what was logged at or after position `beyond`, the position of the checkpoint.

    A run wrote it that was killed before its checkpoint; the records are processed again.
    Superseded files are removed as well. Raises LogDamaged if a file cannot be truncated.
    """
    if not folder.is_dir():
        return
    atomic_file.remove_temporary_files(folder)
    for path, span in segments.listed(folder, lambda span: span.last > beyond):
        if span.first >= beyond:
            path.unlink()
        else:
            compaction.truncate(path, span, beyond)
    segments.remove(folder, [path for path, _ in segments.replaced(folder)])
