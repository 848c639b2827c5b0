"""Door to the partial: what is fitted of a retrain that gave the device back, in one signed file.

Built as a checkpoint is: a line of JSON, then a pickle, and a signature over both that is checked
before a byte is unpickled. Unlike one it is worth a fit's time and no more, so whatever is wrong
with it is an answer and no error: it is not used, and the fit begins anew.
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from models.batch.batch_model import BatchRecipe
from models.batch.evaluation import PartialChallenge
from models.core import user_code
from models.core.record_schema import Schema
from models.persistence import serialization
from models.persistence.signing import Seal, Tampered
from observability.core import atomic_file
from observability.core.errors import BadConfiguration

_FORMAT = "partial 1"
_LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "thermodrift")
"""Exact versions: what is half fitted has parts of its library that no release promises to keep."""


class Work(BaseModel):
    """What a partial is of; one of other work is not used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: str
    position: int = Field(ge=0, description="Where the window ends in the stream.")
    recipe: BatchRecipe
    record_schema: Schema


@dataclass(frozen=True, eq=False)
class Found:
    """What there is to go on from, or None; and why so."""

    partial: PartialChallenge | None
    because: str


def put(path: Path, partial: PartialChallenge, work: Work, seal: Seal) -> None:
    """Keep `partial` durably, in the place of any other.

    Raises OSError where the disk refuses, and `pickling.CannotPickle`; then what was there before
    is there still.
    """
    body = serialization.dumps(partial)
    head = _head(work)
    head["signature"] = seal.sign(_signed(head, body))
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_file.write(path, json.dumps(head).encode() + b"\n" + body)


def find(path: Path, work: Work, seal: Seal, beside: Path | None = None) -> Found:
    """What is kept of `work`, if it may be used. Raises nothing.

    `beside` is the pipeline file or its folder, where the factory of a model of one's own is found.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Found(None, "nothing is kept")
    except OSError as error:
        return _not_used(path, f"it cannot be read ({error})")
    line, _, body = content.partition(b"\n")
    try:
        head = json.loads(line)
        signature = head.pop("signature")
        seal.verify(_signed(head, body), signature, str(path))
    except Tampered as error:
        return _not_used(path, str(error))
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return _not_used(path, "it is damaged")
    if other := _differs(head, _head(work)):
        return _not_used(path, other)
    return _loaded(path, body, work, beside)


def drop(path: Path) -> None:
    """Forget what is kept, if anything. Raises OSError where the disk refuses."""
    path.unlink(missing_ok=True)


def _loaded(path: Path, body: bytes, work: Work, beside: Path | None) -> Found:
    try:
        if ":" in work.recipe.recipe:
            user_code.find(work.recipe.recipe, beside)
        partial = serialization.loads(body)
    except (BadConfiguration, serialization.CannotLoad, MemoryError) as error:
        return _not_used(path, str(error) or type(error).__name__)
    if not isinstance(partial, PartialChallenge):
        return _not_used(path, f"it holds a {type(partial).__name__}")
    return Found(partial, f"goes on from {partial.done:.0%}, which took {partial.fit_s:.1f} s")


def _head(work: Work) -> dict[str, object]:
    libraries = {name: metadata.version(name) for name in _LIBRARIES}
    return {
        "format": _FORMAT,
        "libraries": {"python": platform.python_version(), **libraries},
        "work": work.model_dump(mode="json"),
    }


def _signed(head: dict[str, object], body: bytes) -> bytes:
    """What the signature is over: the head without it, and the body."""
    return json.dumps(head).encode() + b"\n" + body


def _differs(there: dict[str, object], here: dict[str, object]) -> str | None:
    """What `there` is of that is not asked for `here`, in words."""
    if there.get("format") != _FORMAT:
        return f"its format is {there.get('format')!r} and not {_FORMAT!r}"
    for part, told in (("libraries", "made with other versions"), ("work", "of other work")):
        theirs, ours = there.get(part), here[part]
        if theirs == ours:
            continue
        if not isinstance(theirs, dict) or not isinstance(ours, dict):
            return f"it is {told}"
        names = sorted(name for name in theirs | ours if theirs.get(name) != ours.get(name))
        return f"it is {told}: {', '.join(names)} differ"
    return None


def _not_used(path: Path, why: str) -> Found:
    return Found(None, f"{path} is not used, and the fit begins anew: {why}")
