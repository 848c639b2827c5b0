"""Door to the prediction log: Parquet, one file per batch, named by its positions.

Touches pyarrow's Parquet alone. A batch that is gone through again after a crash overwrites its own
file; what lies beyond the checkpoint is swept before a run goes on. So there is never a gap and
never a double.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.example import LabelKind
from models.learner import Log
from observability import durable
from observability.errors import ThermodriftError

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = re.compile(r"(\d{12})-(\d{12})\.parquet")


class LogDamaged(ThermodriftError, OSError):
    """A file of the log is not what was written."""


def write(
    folder: Path,
    pipeline: str,
    positions: Sequence[int],
    span: tuple[int, int],
    log: Log,
    label_kind: LabelKind,
    model_version: str | None,
) -> Path:
    """Write the log of the batch that covers the positions `span` (the end is exclusive).

    `positions` has one place per learned record; rejected ones are missing from it.
    """
    import pyarrow as pa
    from pyarrow import parquet

    kind = {"int": pa.int64(), "str": pa.string(), "float": pa.float64()}[label_kind]
    count = len(log)
    columns: dict[str, pa.Array] = {
        "pipeline": pa.array([pipeline] * count, pa.string()),
        "position": pa.array(positions, pa.int64()),
        "label": pa.array(log.labels, kind),
    }
    for member in ("online", "batch", "baseline", "served"):
        columns[member] = pa.array(log.predicted[member], kind)
    for member in ("online", "batch", "served"):
        columns[f"{member}_probability"] = pa.array(log.probabilities[member], pa.float64())
    columns["model_version"] = pa.array([model_version] * count, pa.string())
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink, compression="zstd", write_page_checksum=True)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{span[0]:012d}-{span[1]:012d}.parquet"
    durable.write(path, sink.getvalue().to_pybytes())
    return path


def read(folder: Path, first: int, last: int) -> pa.Table:
    """The log from position `first` to `last` (exclusive), ordered by position.

    Columns: pipeline, position, label, online, batch, baseline, served, the probabilities, and
    model_version. Raises FileNotFoundError where nothing of that range is logged, and LogDamaged.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = [_table(path) for path, (begin, end) in _files(folder) if begin < last and end > first]
    if not parts:
        raise FileNotFoundError(f"{folder} logs no prediction from position {first} to {last}")
    table = pa.concat_tables(parts)
    place = table["position"]
    return table.filter(pc.and_(pc.greater_equal(place, first), pc.less(place, last)))


def _table(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_table(path, partitioning=None, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise LogDamaged(
            f"{path} cannot be read ({error}): it is damaged, or this user may not read it. "
            "Restore it from a backup, or move it away: its positions are then missing from the log"
        ) from error


def sweep(folder: Path, beyond: int) -> None:
    """Remove what was logged at or after position `beyond`, where the checkpoint stands.

    It was written by a run that was killed before its checkpoint; the records come again.
    """
    if not folder.is_dir():
        return
    durable.sweep_asides(folder)
    for path, (begin, _) in _files(folder):
        if begin >= beyond:
            path.unlink()
    durable.sync_folder(folder)


def _files(folder: Path) -> list[tuple[Path, tuple[int, int]]]:
    found = []
    for path in sorted(folder.glob("*.parquet")):
        named = _NAME.fullmatch(path.name)
        if named is not None:
            found.append((path, (int(named[1]), int(named[2]))))
    return found
