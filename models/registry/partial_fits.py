"""The fit checkpoint: the models of a preempted retrain that are fitted so far, in one signed file.

It only saves the time of a fit. So a problem with it is a result and not an error: it is not used,
and the fit begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from models.batch.challenger import UnfinishedChallenge
from models.batch.recipe_config import BatchRecipe
from models.core import user_code
from models.core.record_schema import Schema
from models.persistence import serialization
from models.persistence.signing import Damaged, OtherFormat, SignatureMismatch, SigningKey
from observability.core import atomic_file
from observability.core.errors import BadConfiguration

FORMAT = "fit checkpoint 3"
_LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "thermodrift")
"""Exact versions: an unfinished model contains internals that any release may change."""


class FitIdentity(BaseModel):
    """The work that a fit checkpoint belongs to; other work does not use it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: str
    position: int = Field(ge=0, description="Position at which the window ends.")
    recipe: BatchRecipe
    record_schema: Schema


@dataclass(frozen=True, eq=False)
class FoundFit:
    """The unfinished challenge to resume, or None; and the reason."""

    partial: UnfinishedChallenge | None
    because: str


def save(
    path: Path, partial: UnfinishedChallenge, work: FitIdentity, signing_key: SigningKey
) -> None:
    """Save `partial` durably, and replace any other.

    Raises OSError and `serialization.CannotPickle`; then the previous file is unchanged.
    """
    content = signing_key.pack(FORMAT, _header(work), serialization.dumps(partial))
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_file.write(path, content)


def find(
    path: Path, work: FitIdentity, signing_key: SigningKey, beside: Path | None = None
) -> FoundFit:
    """Load the unfinished challenge of `work`, if it may be used. Raises nothing.

    `beside` is the pipeline file or its folder, where the factory of a user's own model is found.
    """
    ours = _header(work)
    try:
        header, payload = signing_key.unpack(FORMAT, path.read_bytes(), str(path))
        for part, text in (("libraries", "made with other versions"), ("work", "of other work")):
            theirs = header.get(part)
            if not isinstance(theirs, dict):
                return _not_used(path, f"it is {text}")
            both = theirs | ours[part]
            names = sorted(name for name in both if theirs.get(name) != ours[part].get(name))
            if names:
                return _not_used(path, f"it is {text}: {', '.join(names)} differ")
        for name in work.recipe.recipes:
            if ":" in name:
                user_code.find(name, beside)
        partial = serialization.loads(payload)
    except FileNotFoundError:
        return FoundFit(None, "there is none")
    except Damaged as error:
        return _not_used(path, f"it is damaged ({error})")
    except (
        SignatureMismatch,
        OtherFormat,
        BadConfiguration,
        serialization.CannotLoad,
        MemoryError,
    ) as error:
        return _not_used(path, str(error) or type(error).__name__)
    except OSError as error:
        return _not_used(path, f"it cannot be read ({error})")
    if not isinstance(partial, UnfinishedChallenge):
        return _not_used(path, f"it holds a {type(partial).__name__}")
    return FoundFit(partial, f"resumes at {partial.done:.0%}, which took {partial.fit_s:.1f} s")


def drop(path: Path) -> None:
    """Remove the fit checkpoint, if any. Raises OSError."""
    path.unlink(missing_ok=True)


def _header(work: FitIdentity) -> dict[str, Any]:
    return {"libraries": serialization.versions(*_LIBRARIES), "work": work.model_dump(mode="json")}


def _not_used(path: Path, why: str) -> FoundFit:
    return FoundFit(None, f"{path} is not used, and the fit begins anew: {why}")
