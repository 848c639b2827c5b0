"""Door to what is known of a machine's devices: their thermal models, a file each, in the home.

What one run learned of a device the next one begins with, of whichever pipeline. Nothing depends on
it: a file that is gone or damaged costs the time to learn it again, and a forecast that is not
proven yet is not trusted anyway. Where two processes learned of the same device, the one that
learned from more readings is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from observability.core import atomic_file
from observability.core.paths import device_file
from power.forecast.forecast import Known

_ENDING = ".known.json"


class Remembered(BaseModel):
    """The content of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uuid: str = Field(min_length=1, description="The device.")
    known: Known


def load(folder: Path) -> dict[str, Known]:
    """What is known, by device; what cannot be read or is no longer of this form is left out."""
    found = (_read(path) for path in sorted(folder.glob(f"*{_ENDING}")))
    return {each.uuid: each.known for each in found if each is not None}


def save(folder: Path, known: Mapping[str, Known]) -> None:
    """Keep what is known of each device, where it is more than was kept. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for uuid, each in known.items():
        path = device_file(folder, uuid, _ENDING)
        if not _knows_more(_read(path), each):
            content = Remembered(uuid=uuid, known=each).model_dump_json()
            atomic_file.write(path, content.encode())


def _knows_more(kept: Remembered | None, known: Known) -> bool:
    """Whether what is kept is of the same sensor, and learned from more readings of it."""
    if kept is None:
        return False
    theirs, ours = kept.known.model, known.model
    # A margin that is counted from something else has a model that begins anew: the older one is
    # of no more use, however much it learned.
    return theirs.margin_source == ours.margin_source and theirs.readings > ours.readings


def _read(path: Path) -> Remembered | None:
    try:
        return Remembered.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
