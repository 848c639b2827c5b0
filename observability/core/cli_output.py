"""What the command lines of all packages share: the context of a command, and its output.

A command writes its answer to stdout: one JSON document with ``--json``, else text for people.
Progress and logs go to stderr. Errors are raised; `thermodrift.py` turns them into a message and an
exit code.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

_STDOUT, _STDERR = 1, 2

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


@dataclass(frozen=True)
class CliContext:
    """What `thermodrift.py` passes to every command, as the object of Typer's context."""

    home: Path
    debug: bool = False
    visible_devices: str | None = None
    """The GPUs that this process may use, as in CUDA_VISIBLE_DEVICES; None: all."""
    fake_nvml: Path | None = None
    """A file of simulated devices; None: this machine's devices are read."""


def cli_context(context: typer.Context) -> CliContext:
    """Return the `CliContext` that `thermodrift.py` has put into `context`."""
    found = context.find_object(CliContext)
    if found is None:  # pragma: no cover - only a command that is run without thermodrift.py
        raise RuntimeError("a command was called without thermodrift.py")
    return found


def print_json(document: object) -> None:
    """Print one JSON document on stdout; times as ISO 8601, paths as text, NaN as null."""
    sys.stdout.write(json.dumps(_plain(document), indent=2, ensure_ascii=False) + "\n")


def stdout() -> Console:
    """Return the rich console for answers to people."""
    from rich.console import Console

    return Console()


def stderr() -> Console:
    """Return the rich console for progress and messages."""
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def redirect_stdout() -> Iterator[None]:
    """Redirect stdout to stderr inside the block, also for code in C.

    The output of a model that prints while it fits must not be mixed into a JSON document.
    """
    sys.stdout.flush()
    saved = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, _STDOUT)
        os.close(saved)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    title: str = "",
    out: Console | None = None,
) -> None:
    """Print a table for people, on stdout unless `out` is given; None shows as a dash."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left")
    for column in columns:
        # A cell that does not fit is wrapped and never cut, because people copy ids.
        table.add_column(column, overflow="fold")
    for row in rows:
        texts = [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row]
        table.add_row(
            *(Text("-" if cell is None else text) for cell, text in zip(row, texts, strict=True))
        )
    (out or stdout()).print(table)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
