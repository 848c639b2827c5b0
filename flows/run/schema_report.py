"""How a stream is read: each column, its type, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config.pipeline import PipelineFile
from flows.run import bootstrap
from models.core.record_schema import Schema
from models.persistence.signing import SigningKey
from observability.core import cli_output
from observability.core.paths import Places

if TYPE_CHECKING:
    from rich.console import Console

MOST_SHOWN = 40
"""Columns that a run shows as it starts; `thermodrift stream show` shows them all."""


def collect(file: PipelineFile, home: Path) -> dict[str, Any]:
    """The columns as the pipeline began with them, or as it would begin with them now.

    Raises BadConfiguration, StreamUnreadable, and where it has begun CheckpointUnusable.
    """
    places = Places(home).pipeline(file.name)
    begun = places.checkpoint.exists()
    if begun:
        # Unpickling models of the user's own modules needs these.
        bootstrap.find_factories(file)
        state = bootstrap.load(places, SigningKey.open(Places(home).key))
        schema, position = state.schema, state.position
    else:
        schema, position = bootstrap.open_stream(file, places).schema, 0
    options = file.pipeline.stream
    return {
        "pipeline": file.name,
        "path": str(file.beside(options.path)) if options.has_file else options.path,
        "then": options.then or None,
        "task": schema.task,
        "position": position,
        "pinned": begun,
        "columns": columns(schema),
    }


def columns(schema: Schema) -> list[dict[str, Any]]:
    """One document per column of the file, in its order."""
    return [each.model_dump() for each in schema.seen]


def render(document: dict[str, Any], out: Console | None = None, most: int | None = None) -> None:
    """Print the columns for people, `most` of them at the most."""
    out = out or cli_output.stdout()
    shown = document["columns"][:most]
    when = "as it began" if document["pinned"] else "as a first run would begin"
    cli_output.print_table(
        ["column", "read as", "missing", "example", "because"],
        [
            (
                each["name"],
                each["read_as"],
                _share(each["missing_share"]),
                each["example"],
                each["because"] + _parts(each),
            )
            for each in shown
        ],
        title=f"{document['pipeline']}: what was understood of {document['path']}, {when}",
        out=out,
    )
    hidden = len(document["columns"]) - len(shown)
    if hidden:
        out.print(f"and {hidden} more: `thermodrift stream show` shows them all")
    if any(each["read_as"] == "left out" for each in document["columns"]):
        out.print(
            "What is left out teaches no model; stream.numbers, stream.categories and stream.times "
            "take it all the same",
            soft_wrap=True,
        )


def _share(missing: float | None) -> str | None:
    if missing is None:
        return None
    return "under 0.1 %" if 0 < missing < 0.001 else f"{missing:.1%}".replace("%", " %")


def _parts(column: dict[str, Any]) -> str:
    if column["read_as"] != "time":
        return ""
    return f"; features: {', '.join(column['features'])}"
