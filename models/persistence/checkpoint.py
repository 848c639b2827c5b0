"""The checkpoint of a pipeline: its whole state at one position, in one signed file.

The header has the versions of the libraries and a short summary; the payload is a pickle. Nothing
is unpickled before the signature and the libraries are verified: a model of another version of
river may load and then predict wrongly. Writing replaces the file atomically.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from models.persistence import serialization, signing
from models.persistence.signing import Damaged, OtherFormat, SignatureMismatch, SigningKey
from observability.core import atomic_file
from observability.core.errors import ThermodriftError

FORMAT = "checkpoint 3"
_MUST_MATCH = ("python", "river", "numpy")


class CheckpointUnusable(ThermodriftError, OSError):
    """The checkpoint is damaged, has another signature, or was written with other libraries."""


def save(path: Path, state: object, signing_key: SigningKey, summary: Mapping[str, object]) -> None:
    """Replace the checkpoint by `state`, durably. Raises OSError where the disk refuses."""
    write(path, content(state, signing_key, summary))


def content(state: object, signing_key: SigningKey, summary: Mapping[str, object]) -> bytes:
    """The signed bytes of a checkpoint of `state`.

    `summary` is what status commands show; it must fit into JSON. `header` reads it back without
    unpickling anything.
    """
    return signing_key.pack(
        FORMAT, {"libraries": _libraries(), "summary": dict(summary)}, serialization.dumps(state)
    )


def write(path: Path, content: bytes) -> None:
    """Replace the checkpoint by the bytes that `content` returned, durably. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_file.write(path, content)


def load(path: Path, signing_key: SigningKey) -> object:
    """Load the state that was saved last. Raises FileNotFoundError, CheckpointUnusable."""
    content = path.read_bytes()
    try:
        header, payload = signing_key.unpack(FORMAT, content, f"checkpoint {path}")
    except (SignatureMismatch, OtherFormat) as error:
        raise _unusable(path, error) from error
    others = serialization.others(header.get("libraries"), _libraries(), _MUST_MATCH)
    if others:
        raise CheckpointUnusable(
            f"checkpoint {path} was written with {', '.join(others)}: models of another version "
            "may predict wrongly. Run it with that version, or remove the pipeline's folder to "
            "learn from the start"
        )
    return serialization.loads(payload)


def header(path: Path) -> dict[str, Any]:
    """The summary that was saved with the state; the signature is not verified.

    Raises FileNotFoundError, CheckpointUnusable.
    """
    with path.open("rb") as file:
        line = file.readline()
    try:
        found = signing.header(line, FORMAT, f"checkpoint {path}").get("summary")
    except (Damaged, OtherFormat) as error:
        raise _unusable(path, error) from error
    return found if isinstance(found, dict) else {}


def _unusable(path: Path, error: SignatureMismatch | OtherFormat) -> CheckpointUnusable:
    if not isinstance(error, Damaged):
        return CheckpointUnusable(str(error))
    return CheckpointUnusable(
        f"checkpoint {path} cannot be read: {error}. Restore it from a backup together with the "
        "prediction log beside it, or remove the pipeline's folder to learn from the start"
    )


@cache
def _libraries() -> dict[str, str]:
    return serialization.versions("river", "numpy", "thermodrift")
