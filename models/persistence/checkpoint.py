"""The checkpoint of a pipeline: everything that it knows at one position, in one signed file.

The header names the libraries and says what people ask most; the payload is a pickle. Nothing is
unpickled before the signature and the libraries were found right: a model of another river may load
and then predict wrongly. Writing replaces the file whole or not at all.
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
    """The checkpoint is damaged, not ours, or written by libraries that cannot be trusted here."""


def save(path: Path, state: object, seal: SigningKey, brief: Mapping[str, object]) -> None:
    """Replace the checkpoint by `state`, durably. Raises OSError where the disk refuses."""
    write(path, content(state, seal, brief))


def content(state: object, seal: SigningKey, brief: Mapping[str, object]) -> bytes:
    """The checkpoint of `state` as it is at this moment, signed.

    `header` is what people ask most, fit for JSON; `header` (the function) reads it back without
    unpickling anything.
    """
    return seal.pack(
        FORMAT, {"libraries": _libraries(), "brief": dict(brief)}, serialization.dumps(state)
    )


def write(path: Path, content: bytes) -> None:
    """Replace the checkpoint by what `content` made, durably. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_file.write(path, content)


def load(path: Path, seal: SigningKey) -> object:
    """The state that was saved last. Raises FileNotFoundError, CheckpointUnusable."""
    content = path.read_bytes()
    try:
        header, payload = seal.unpack(FORMAT, content, f"checkpoint {path}")
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
    """What was said in brief when the state was saved; its signature is not looked at.

    Raises FileNotFoundError, CheckpointUnusable.
    """
    with path.open("rb") as file:
        line = file.readline()
    try:
        found = signing.header(line, FORMAT, f"checkpoint {path}").get("brief")
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
