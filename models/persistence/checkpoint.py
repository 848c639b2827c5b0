"""Door to the checkpoint: everything a pipeline knows at one position, in one signed file.

The first line is JSON (format, libraries, brief, signature), the rest a pickle. The signature is
over both and is checked before a byte is unpickled, and so are the libraries: a model of another
river may load and then predict wrongly. Writing replaces the file whole or not at all.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from models.persistence import serialization
from models.persistence.signing import Seal, Tampered
from observability.core import atomic_file
from observability.core.errors import ThermodriftError

_FORMAT = 2
"""2: a schema says of each column how it is written and where it comes from."""
_MUST_MATCH = ("python", "river", "numpy")


class CheckpointUnusable(ThermodriftError, OSError):
    """The checkpoint is damaged, not ours, or written by libraries that cannot be trusted here."""


def save(path: Path, state: object, seal: Seal, brief: Mapping[str, object]) -> None:
    """Replace the checkpoint by `state`, durably. Raises OSError where the disk refuses."""
    write(path, content(state, seal, brief))


def content(state: object, seal: Seal, brief: Mapping[str, object]) -> bytes:
    """The checkpoint of `state` as it is at this moment, signed.

    `brief` is what people ask most, fit for JSON; `brief` (the function) reads it back without
    unpickling anything.
    """
    body = serialization.dumps(state)
    head: dict[str, object] = {
        "format": _FORMAT,
        "libraries": _libraries(),
        "brief": dict(brief),
    }
    head["signature"] = seal.sign(_signed(head, body))
    return json.dumps(head).encode() + b"\n" + body


def write(path: Path, content: bytes) -> None:
    """Replace the checkpoint by what `content` made, durably. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_file.write(path, content)


def load(path: Path, seal: Seal) -> object:
    """The state that was saved last. Raises FileNotFoundError, CheckpointUnusable."""
    line, _, body = path.read_bytes().partition(b"\n")
    head = _head(path, line)
    signature = head.pop("signature", None)
    if not (isinstance(signature, str) and signature.isascii()):
        raise CheckpointUnusable(_damaged(path, "it has no signature"))
    try:
        seal.verify(_signed(head, body), signature, f"checkpoint {path}")
    except Tampered as error:
        raise CheckpointUnusable(str(error)) from error
    _same_libraries(path, head.get("libraries"))
    return serialization.loads(body)


def brief(path: Path) -> dict[str, Any]:
    """What was said in brief when the state was saved; its signature is not looked at.

    Raises FileNotFoundError, CheckpointUnusable.
    """
    with path.open("rb") as file:
        head = _head(path, file.readline())
    found = head.get("brief")
    return found if isinstance(found, dict) else {}


def _signed(head: Mapping[str, object], body: bytes) -> bytes:
    """What the signature is over: the head without it, and the body."""
    return json.dumps(head).encode() + b"\n" + body


def _head(path: Path, line: bytes) -> dict[str, object]:
    try:
        head = json.loads(line)
    except ValueError as error:
        raise CheckpointUnusable(_damaged(path, "its first line is not JSON")) from error
    if not isinstance(head, dict) or not isinstance(head.get("format"), int):
        raise CheckpointUnusable(_damaged(path, "its first line names no format"))
    if head["format"] != _FORMAT:
        raise CheckpointUnusable(
            f"checkpoint {path} has the format {head['format']}, and this version of thermodrift "
            f"reads {_FORMAT}: go on with the version that wrote it, or remove the pipeline's "
            "folder to learn from the start"
        )
    return head


def _damaged(path: Path, why: str) -> str:
    return (
        f"checkpoint {path} cannot be read: {why}. Restore it from a backup together with the "
        "prediction log beside it, or remove the pipeline's folder to learn from the start"
    )


def _same_libraries(path: Path, libraries: object) -> None:
    there = libraries if isinstance(libraries, dict) else {}
    here = _libraries()
    for name in _MUST_MATCH:
        if _minor(str(there.get(name))) != _minor(here[name]):
            raise CheckpointUnusable(
                f"checkpoint {path} was written with {name} {there.get(name)}, and this is {name} "
                f"{here[name]}: models of another version may predict wrongly. Run it with that "
                "version, or remove the pipeline's folder to learn from the start"
            )


@cache
def _libraries() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("river", "numpy", "thermodrift")},
    }


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
