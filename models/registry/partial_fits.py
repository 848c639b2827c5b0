"""The partial: what is fitted of a retrain that gave the device back, in one signed file.

Unlike a checkpoint it is worth a fit's time and no more. So whatever is wrong with it is an answer
and no error: it is not used, and the fit begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from models.batch.evaluation import UnfinishedChallenge
from models.batch.recipe_config import BatchRecipe
from models.core import user_code
from models.core.record_schema import Schema
from models.persistence import serialization
from models.persistence.signing import Damaged, OtherFormat, SignatureMismatch, SigningKey
from observability.core import atomic_file
from observability.core.errors import BadConfiguration

FORMAT = "partial 2"
_LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "thermodrift")
"""Exact versions: what is half fitted has parts of its library that no release promises to keep."""


class FitIdentity(BaseModel):
    """What a partial is of; one of other work is not used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: str
    position: int = Field(ge=0, description="Where the window ends in the stream.")
    recipe: BatchRecipe
    record_schema: Schema


@dataclass(frozen=True, eq=False)
class FoundFit:
    """What there is to go on from, or None; and why so."""

    partial: UnfinishedChallenge | None
    because: str


def save(path: Path, partial: UnfinishedChallenge, work: FitIdentity, seal: SigningKey) -> None:
    """Keep `partial` durably, in the place of any other.

    Raises OSError where the disk refuses, and `pickling.CannotPickle`; then what was there before
    is there still.
    """
    content = seal.pack(FORMAT, _header(work), serialization.dumps(partial))
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_file.write(path, content)


def find(path: Path, work: FitIdentity, seal: SigningKey, beside: Path | None = None) -> FoundFit:
    """What is kept of `work`, if it may be used. Raises nothing.

    `beside` is the pipeline file or its folder, where the factory of a model of one's own is found.
    """
    try:
        header, payload = seal.unpack(FORMAT, path.read_bytes(), str(path))
        if differs := _differs(header, _header(work)):
            return _not_used(path, differs)
        if ":" in work.recipe.recipe:
            user_code.find(work.recipe.recipe, beside)
        partial = serialization.loads(payload)
    except FileNotFoundError:
        return FoundFit(None, "nothing is kept")
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
    return FoundFit(partial, f"goes on from {partial.done:.0%}, which took {partial.fit_s:.1f} s")


def drop(path: Path) -> None:
    """Forget what is kept, if anything. Raises OSError where the disk refuses."""
    path.unlink(missing_ok=True)


def _header(work: FitIdentity) -> dict[str, Any]:
    return {"libraries": serialization.versions(*_LIBRARIES), "work": work.model_dump(mode="json")}


def _differs(there: dict[str, Any], here: dict[str, Any]) -> str | None:
    """What `there` is of that is not asked for `here`, in words."""
    for part, told in (("libraries", "made with other versions"), ("work", "of other work")):
        theirs, ours = there.get(part), here[part]
        if not isinstance(theirs, dict):
            return f"it is {told}"
        names = sorted(name for name in theirs | ours if theirs.get(name) != ours.get(name))
        if names:
            return f"it is {told}: {', '.join(names)} differ"
    return None


def _not_used(path: Path, why: str) -> FoundFit:
    return FoundFit(None, f"{path} is not used, and the fit begins anew: {why}")
