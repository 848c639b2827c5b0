"""Adapter for the thermal models of a machine's devices: one file per device, in the home.

A run starts with what an earlier run of any pipeline learned. Nothing depends on the files: a
missing or corrupt one costs the time to learn again, and an unproven forecast is not trusted
anyway. If two processes learned about the same device, the model with more readings is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from observability.core import atomic_file
from observability.core.paths import device_file
from power.core.frozen_model import FrozenModel
from power.forecast.forecast import ThermalState

_ENDING = ".known.json"


class SavedDevice(FrozenModel):
    """The content of one file."""

    uuid: str = Field(min_length=1, description="The device.")
    known: ThermalState


def load(folder: Path) -> dict[str, ThermalState]:
    """Return what is known by device, without files that are unreadable or of an older format."""
    found = (_read(path) for path in sorted(folder.glob(f"*{_ENDING}")))
    return {each.uuid: each.known for each in found if each is not None}


def save(folder: Path, known: Mapping[str, ThermalState]) -> None:
    """Store what is known of each device, unless the file has more. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for uuid, each in known.items():
        path = device_file(folder, uuid, _ENDING)
        stored = _read(path)
        # A stored model whose margins have another source is of no use, however much it learned.
        if (
            stored is None
            or stored.known.model.margin_source != each.model.margin_source
            or stored.known.model.readings <= each.model.readings
        ):
            content = SavedDevice(uuid=uuid, known=each).model_dump_json()
            atomic_file.write(path, content.encode())


def _read(path: Path) -> SavedDevice | None:
    try:
        return SavedDevice.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
