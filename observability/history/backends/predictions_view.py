"""The view `predictions` over the log's Parquet files, kept up to date with the files.

A part of the door `history`. DuckDB freezes the types of a stored view, and a killed merge leaves
files that another one replaces. So the query is built from the files, stored whenever the history
is written, and replaced by a temporary view for a question where the stored one is out of date.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path

from observability.core import log_segments
from observability.history import schema
from observability.history.backends.duckdb_connection import Duck


def renew(duck: Duck, pipelines: Path) -> None:
    """Store the view for these files, for people who open the history with their own tools."""
    wanted = query(duck, pipelines)
    if wanted == _stored(duck):
        return
    with duck.transaction():
        duck.execute(f"CREATE OR REPLACE VIEW predictions AS {wanted}")
        # The next renewal compares with this comment.
        duck.execute(f"COMMENT ON VIEW predictions IS {schema.quoted(wanted)}")


def overlay(duck: Duck, pipelines: Path) -> None:
    """Give this connection a view for these files, where the stored one is out of date."""
    wanted = query(duck, pipelines)
    if wanted != _stored(duck):
        duck.execute(f"CREATE TEMP VIEW predictions AS {wanted}")


def query(duck: Duck, pipelines: Path) -> str:
    """The view's query over the log files of every pipeline under `pipelines`."""
    logs = list(_logs(pipelines))
    if not logs:
        return schema.predictions_query(None, "BIGINT")
    pattern = f"{glob.escape(str(pipelines))}/*/predictions/{log_segments.PATTERN}"
    kinds = [kind for folder, names in logs for kind in _label_kinds(duck, folder / names[0])]
    replaced = [
        str(folder / name) for folder, names in logs for name in log_segments.superseded(names)
    ]
    return schema.predictions_query(pattern, schema.widest(kinds), replaced)


def _logs(pipelines: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder of a log that has files, with their names in order."""
    for folder in sorted(pipelines.glob("*/predictions")):
        try:
            names = sorted(path.name for path in folder.iterdir() if log_segments.parse(path.name))
        except OSError:  # a pipeline that is being removed
            continue
        if names:
            yield folder, names


def _label_kinds(duck: Duck, path: Path) -> list[str]:
    """DuckDB's types of the labels and predictions in one file.

    They are text for a file that cannot be read: only questions about predictions shall fail.
    """
    columns = duck.parquet_columns(glob.escape(str(path)))
    if columns is None:
        return ["VARCHAR"]
    return [kind for name, kind in columns.items() if name in schema.LABEL_COLUMNS]


def _stored(duck: Duck) -> str | None:
    found: str | None = duck.one(
        "SELECT comment FROM duckdb_views() WHERE view_name = 'predictions' AND NOT temporary"
    )
    return found
