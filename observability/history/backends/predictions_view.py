"""The view `predictions` over the log's Parquet files, kept up to date with the files.

DuckDB freezes the types of a stored view, and a killed merge leaves files that another file
replaces. So the query is built from the files and stored whenever the history is written. A
question uses a temporary view where the stored one is out of date.
"""

from __future__ import annotations

import glob
from pathlib import Path

from observability.core import log_segments
from observability.history import schema
from observability.history.backends.duckdb_connection import Duck


def renew(duck: Duck, pipelines: Path) -> None:
    """Store the view for the present files, for people who use the file with their own tools."""
    current = query(duck, pipelines)
    if current == _stored(duck):
        return
    with duck.transaction():
        duck.execute(f"CREATE OR REPLACE VIEW predictions AS {current}")
        # The next renewal compares with this comment.
        duck.execute(f"COMMENT ON VIEW predictions IS {schema.quoted(current)}")


def overlay(duck: Duck, pipelines: Path) -> None:
    """Create a temporary view for the present files, where the stored one is out of date."""
    current = query(duck, pipelines)
    if current != _stored(duck):
        duck.execute(f"CREATE TEMP VIEW predictions AS {current}")


def query(duck: Duck, pipelines: Path) -> str:
    """Return the view's query over the log files of every pipeline under `pipelines`."""
    pattern = None
    kinds: list[str] = []
    replaced: list[str] = []
    for folder in sorted(pipelines.glob("*/predictions")):
        try:
            names = sorted(path.name for path in folder.iterdir() if log_segments.parse(path.name))
        except OSError:  # the pipeline is being removed
            continue
        if not names:
            continue
        pattern = f"{glob.escape(str(pipelines))}/*/predictions/{log_segments.PATTERN}"
        columns = duck.parquet_columns(glob.escape(str(folder / names[0])))
        # A file that cannot be read has labels of text: only questions about predictions fail then.
        kinds += ["VARCHAR"] if columns is None else schema.label_types(columns)
        replaced += [str(folder / name) for name in log_segments.superseded(names)]
    return schema.predictions_query(pattern, schema.widest(kinds), replaced)


def _stored(duck: Duck) -> str | None:
    found: str | None = duck.one(
        "SELECT comment FROM duckdb_views() WHERE view_name = 'predictions' AND NOT temporary"
    )
    return found
