"""Adapter for a person's override of the gate: one small file in the home.

It decides nothing: `gate_override.overridden` applies an override to an answer. An unreadable file
is an error and no override, because nobody can know which answer it gave.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from observability.core import atomic_file
from observability.core.errors import BadConfiguration
from power.policy.gate_override import Override


def read(path: Path) -> Override | None:
    """Read the override in `path`, expired or not; None without one. Raises BadConfiguration."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return Override.model_validate_json(content)
    except ValidationError as error:
        raise BadConfiguration(
            f"the gate's override {path} cannot be read ({error.error_count()} problems); take it "
            "back with `thermodrift gate override clear`"
        ) from error


def write(path: Path, override: Override) -> None:
    """Set an override, in place of any other. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic_file.write(path, override.model_dump_json().encode())


def clear(path: Path) -> bool:
    """Remove the override; False if there was none. Raises OSError."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    atomic_file.sync_folder(path.parent)
    return True
