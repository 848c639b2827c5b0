"""The model registry of a pipeline: ids in, verified models out, and a pointer to the champion.

A version is three files in the pipeline's models folder: VERSION.model (a signed pickle),
VERSION.reference.parquet, and VERSION.json, its signed manifest, written last: a version without a
manifest does not exist. champion.json is signed too and replaced last of all. Nothing is unpickled
before its signature, its hash and the libraries are verified. The registry decides nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from models.batch import batch_model
from models.core import user_code
from models.core.record_schema import Label, Schema
from models.persistence import serialization
from models.persistence.signing import Damaged, SignatureMismatch, SigningKey
from observability.core import atomic_file, failpoints, file_lock
from observability.core.errors import ThermodriftError, TryAgainLater
from observability.core.paths import PipelinePlaces

if TYPE_CHECKING:
    import pandas as pd

VERSION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
POINTER = "champion"
"""Name of the pointer's file, which no version may have."""
REMEMBERED = 100
"""Newest tokens and promoted versions that the pointer keeps."""
MODEL, MANIFEST, CHAMPION = "model 2", "manifest 2", "champion 2"
"""The formats of the signed files."""
LOCK_WAIT_S = 30.0
LIBRARIES = ("scikit-learn", "numpy")

_Content = TypeVar("_Content", bound=BaseModel)


class NotAVersion(ThermodriftError, ValueError):
    """The text is no id of a version: the registry takes ids, never paths."""


class NoSuchModel(ThermodriftError, LookupError):
    """No version with that id is stored here, or one of its files is missing."""


class NoEarlierChampion(ThermodriftError, LookupError):
    """There is no earlier champion to roll back to."""


class OtherLibraries(ThermodriftError, ImportError):
    """A model was made with other versions of Python, scikit-learn or numpy."""


class RegistryUnusable(ThermodriftError, OSError):
    """A file of a model cannot be read or written."""


class RegistryBusy(TryAgainLater, TimeoutError):
    """Another process has locked the models folder."""


class CandidateCard(BaseModel):
    """A recipe and a window that competed to be the challenger, and their loss on the hold-out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    params: dict[str, Any] = Field(default_factory=dict, description="Those that were set.")
    train_from: int = Field(description="First position it was trained on.")
    rows: int = Field(description="Rows it was fitted on.")
    loss: float | None = Field(description="By judged_by, lower is better; None: unknown.")
    because: str = Field(default="", description="Why there was no model, or no answer.")
    chosen: bool = False


class ModelCard(BaseModel):
    """The data and the scores of a model. A score is None if it was not a finite number.

    A refitted model was trained on its hold-out too, after the scores were made: these are of the
    same recipe, trained on the candidate's rows alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: str
    recipe: str = Field(description="Name of the recipe, or module:factory.")
    record_schema: Schema
    labels: tuple[Label, ...] = Field(description="Classes in order; empty in regression.")
    train_from: int = Field(description="First position it was trained on.")
    train_to: int = Field(description="Position after the last trained one.")
    holdout_from: int
    holdout_to: int
    rows: int = Field(description="Rows it was fitted on.")
    fit_s: float
    scores: dict[str, dict[str, float | None]]
    judged_by: str | None = Field(default=None, description="The metric that it was compared by.")
    apart: tuple[int, ...] = Field(
        default=(), description="Positions before holdout_from that were held out too: rare rows."
    )
    joined: tuple[int, ...] = Field(
        default=(), description="Positions from holdout_from on that it was trained on."
    )
    refitted: bool = Field(
        default=False,
        description="Whether it was fitted again, on all rows from train_from to train_to; apart "
        "and joined are those of the model that was scored.",
    )
    candidates: tuple[CandidateCard, ...] = Field(
        default=(), description="Among which it was chosen, the simplest first."
    )
    created_at: AwareDatetime

    @field_validator("scores")
    @classmethod
    def _scores_are_finite(
        cls, scores: dict[str, dict[str, float | None]]
    ) -> dict[str, dict[str, float | None]]:
        return {
            who: {
                metric: value if value is not None and math.isfinite(value) else None
                for metric, value in each.items()
            }
            for who, each in scores.items()
        }


class Manifest(ModelCard):
    """All metadata of one version."""

    version: str
    sha256: str = Field(description="Of the model's file.")
    size_bytes: int = Field(description="Of the model's file.")
    reference_sha256: str
    reference_bytes: int
    libraries: dict[str, str] = Field(description="Versions that it was pickled with.")

    @property
    def recorded(self) -> dict[str, Any]:
        """What the history's rows about this version say of it."""
        return self.model_dump(
            include={
                "version",
                "recipe",
                "rows",
                "train_from",
                "train_to",
                "fit_s",
                "size_bytes",
                "sha256",
            }
        )


class _ChampionPointer(BaseModel):
    """The promoted versions, oldest first (the last one serves), and the tokens already used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: str
    promoted: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()

    def after(self, promoted: Sequence[str], token: str) -> _ChampionPointer:
        """The pointer with these versions and one more token, without the oldest."""
        return self.model_copy(
            update={
                "promoted": tuple(promoted)[-REMEMBERED:],
                "tokens": (*self.tokens, token)[-REMEMBERED:],
            }
        )


class Registry:
    """The models of one pipeline."""

    def __init__(self, places: PipelinePlaces, signing_key: SigningKey) -> None:
        self.places = places
        self._folder = places.models
        self._signing_key = signing_key

    def register(
        self, version: str, model: batch_model.BatchModel, reference: pd.DataFrame, card: ModelCard
    ) -> Manifest:
        """Store `model` and its reference durably, and return the signed manifest.

        A version may be registered again: what a crash left of it is overwritten. Raises
        NotAVersion, ValueError for another pipeline than the registry's,
        `serialization.CannotPickle`, `serialization.CannotLoad`, RegistryBusy and RegistryUnusable.
        """
        if card.pipeline != self.places.name:
            raise ValueError(
                f"this registry is of pipeline {self.places.name!r}; came a model of "
                f"{card.pipeline!r}"
            )
        pickled = serialization.dumps(model)
        # What cannot be loaded must never be promoted: every later run would fail on it.
        serialization.loads(pickled)
        named = {"pipeline": card.pipeline, "version": _checked(version)}
        content = self._signing_key.pack(MODEL, named, pickled)
        table = io.BytesIO()
        reference.to_parquet(table, engine="pyarrow", index=False)
        frame = table.getvalue()
        manifest = Manifest(
            **dict(card),
            version=version,
            sha256=_sha256(content),
            size_bytes=len(content),
            reference_sha256=_sha256(frame),
            reference_bytes=len(frame),
            libraries=libraries(),
        )
        with self._locked():
            atomic_file.remove_temporary_files(self._folder)
            # A half written version has no manifest; a manifest never refers to other files.
            self._file(version, "json").unlink(missing_ok=True)
            atomic_file.sync_folder(self._folder)
            atomic_file.write(self._file(version, "model"), content)
            atomic_file.write(self._file(version, "reference.parquet"), frame)
            atomic_file.write(self._file(version, "json"), self._signed(MANIFEST, manifest))
        return manifest

    def versions(self) -> list[str]:
        """Ids of all stored versions, valid or not, in alphabetical order."""
        names = (file.stem for file in self._folder.glob("*.json"))
        return sorted(name for name in names if VERSION.fullmatch(name) and name != POINTER)

    def ls(self) -> list[Manifest]:
        """Manifests of all versions, oldest first. Raises SignatureMismatch."""
        manifests = [self.manifest(version) for version in self.versions()]
        return sorted(manifests, key=lambda each: (each.created_at, each.version))

    def manifest(self, version: str) -> Manifest:
        """The manifest of `version`, with a verified signature; its files are not checked.

        Raises NotAVersion, NoSuchModel, SignatureMismatch and RegistryUnusable.
        """
        file = self._file(_checked(version), "json")
        content = self._read(file)
        if content is None:
            raise NoSuchModel(
                f"pipeline {self.places.name!r} has no model {version!r}; stored are: "
                f"{', '.join(self.versions()) or 'none'}"
            )
        manifest = self._parsed(MANIFEST, Manifest, content, file)
        if (manifest.version, manifest.pipeline) != (version, self.places.name):
            raise SignatureMismatch(
                f"{file} is the manifest of {manifest.version!r} of pipeline "
                f"{manifest.pipeline!r}; it was renamed or copied: put it back where it was made"
            )
        return manifest

    def load(self, version: str, beside: Path | None = None) -> batch_model.BatchModel:
        """Load `version`, after its signature, hash and libraries are verified.

        `beside` is the pipeline file or its folder, where the factory of a user's own model is
        found. Raises what `verify` raises, and `serialization.CannotLoad`.
        """
        manifest = self.manifest(version)
        content = self._hashed(version, "model", manifest.sha256)
        _refuse_other_libraries(manifest)
        file = self._file(version, "model")
        _, pickled = self._signing_key.unpack(MODEL, content, str(file))
        if ":" in manifest.recipe:
            user_code.find(manifest.recipe, beside)
        model = serialization.loads(pickled)
        if not isinstance(model, batch_model.BatchModel):
            raise serialization.CannotLoad(
                f"{version!r} holds a {type(model).__name__} and not a batch model; train it again"
            )
        return model

    def reference(self, manifest: Manifest) -> pd.DataFrame:
        """The reference rows of a version: features, target, `prediction`; the hash is verified."""
        content = self._hashed(manifest.version, "reference.parquet", manifest.reference_sha256)
        from pyarrow import parquet

        # Whole numbers stay integers next to missing ones: a float would round large ones.
        frame = parquet.read_table(io.BytesIO(content)).to_pandas(integer_object_nulls=True)
        return batch_model.typed_reference(frame, manifest.record_schema)

    def verify(self, version: str) -> Manifest:
        """Verify all of `version` without unpickling it, and return its manifest.

        Raises what `manifest` raises, and OtherLibraries.
        """
        manifest = self.manifest(version)
        self._hashed(version, "model", manifest.sha256)
        self._hashed(version, "reference.parquet", manifest.reference_sha256)
        _refuse_other_libraries(manifest)
        return manifest

    def champion(self) -> str | None:
        """The version that serves; None if there is none. Raises SignatureMismatch."""
        promoted = self._pointer().promoted
        return promoted[-1] if promoted else None

    def has_used(self, token: str) -> bool:
        """Whether the promotion with this token is done. Raises SignatureMismatch."""
        return token in self._pointer().tokens

    def promote(self, version: str, token: str) -> bool:
        """Make `version` the champion.

        `token` identifies the request. A token that was used before changes nothing and returns
        False, so that a replay after a crash never undoes a person's rollback. Raises what `verify`
        raises, and RegistryBusy.
        """
        _checked(version)
        with self._locked():
            pointer = self._pointer()
            if token in pointer.tokens:
                return False
            self.verify(version)
            # A champion that is promoted again must not become its own predecessor.
            promoted = [*pointer.promoted[:-1], *(c for c in pointer.promoted[-1:] if c != version)]
            self._write_pointer(pointer.after([*promoted, version], token))
        return True

    def rollback(self, token: str) -> str:
        """Make the previous champion the champion again, and return it.

        A token that was used before changes nothing, and returns the present champion. Raises
        NoEarlierChampion, and what `verify` raises.
        """
        with self._locked():
            pointer = self._pointer()
            if token in pointer.tokens and pointer.promoted:
                return pointer.promoted[-1]
            if len(pointer.promoted) < 2:
                raise NoEarlierChampion(
                    f"pipeline {self.places.name!r} has no champion before "
                    f"{pointer.promoted[-1] if pointer.promoted else 'the first'!r}; "
                    f"promote a version by its id instead: "
                    f"{', '.join(self.versions()) or 'none is stored'}"
                )
            earlier = pointer.promoted[-2]
            self.verify(earlier)
            self._write_pointer(pointer.after(pointer.promoted[:-1], token))
        return earlier

    def _write_pointer(self, pointer: _ChampionPointer) -> None:
        failpoints.point("registry.before_promotion")
        atomic_file.write(self._file(POINTER, "json"), self._signed(CHAMPION, pointer))

    def _pointer(self) -> _ChampionPointer:
        file = self._file(POINTER, "json")
        content = self._read(file)
        if content is None:
            return _ChampionPointer(pipeline=self.places.name)
        pointer = self._parsed(CHAMPION, _ChampionPointer, content, file)
        if pointer.pipeline != self.places.name:
            raise SignatureMismatch(
                f"{file} is the pointer of pipeline {pointer.pipeline!r}; it was copied here: "
                f"remove it, and promote a version of {self.places.name!r} by hand"
            )
        return pointer

    def _signed(self, form: str, content: BaseModel) -> bytes:
        return self._signing_key.pack(form, {"content": content.model_dump(mode="json")})

    def _parsed(self, form: str, kind: type[_Content], content: bytes, file: Path) -> _Content:
        try:
            found = self._signing_key.unpack(form, content, str(file), payload=False)
            return kind.model_validate_json(json.dumps(found.header.get("content")))
        except Damaged as error:
            raise SignatureMismatch(
                f"{file} is damaged: {error}; restore it from a backup"
            ) from error
        except ValidationError as error:
            raise SignatureMismatch(
                f"{file} was signed here but is not understood by this thermodrift "
                f"({metadata.version('thermodrift')}): {error}; use the release that wrote it"
            ) from error

    def _hashed(self, version: str, ending: str, sha256: str) -> bytes:
        file = self._file(version, ending)
        content = self._read(file)
        if content is None:
            raise NoSuchModel(
                f"{file} is gone, though its manifest is there; restore it from a backup, or "
                f"roll back to another version"
            )
        if _sha256(content) != sha256:
            raise SignatureMismatch(
                f"{file} is not the file that its manifest describes: it was changed or damaged; "
                f"restore it from a backup, or roll back to another version"
            )
        return content

    def _file(self, name: str, ending: str) -> Path:
        return self._folder / f"{name}.{ending}"

    def _read(self, file: Path) -> bytes | None:
        try:
            return file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RegistryUnusable(
                f"{file} cannot be read: {error}; check the disk and this user's rights"
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the folder against other writers; turn an OSError into RegistryUnusable."""
        try:
            if not self._folder.is_dir():
                self._folder.mkdir(parents=True, exist_ok=True)
                atomic_file.sync_folder(self._folder.parent)
            with file_lock.held(self._folder / ".lock", LOCK_WAIT_S):
                yield
        except file_lock.LockBusy as error:
            raise RegistryBusy(
                f"another process has held {self._folder} for {LOCK_WAIT_S:.0f} s; try again later"
            ) from error
        except ThermodriftError:
            raise
        except OSError as error:
            raise RegistryUnusable(
                f"{self._folder} cannot be written: {error}; every file in it is whole: "
                f"{atomic_file.remedy(error)}, and run it again"
            ) from error


def libraries() -> dict[str, str]:
    """Installed versions of all libraries that a pickled model depends on."""
    return serialization.versions(*LIBRARIES, "thermodrift")


def _refuse_other_libraries(manifest: Manifest) -> None:
    others = serialization.others(manifest.libraries, libraries(), ("python", *LIBRARIES))
    if others:
        raise OtherLibraries(
            f"model {manifest.version!r} was made with {', '.join(others)}, and pickles are not "
            f"promised to mean the same across minor releases; install those versions, or train "
            f"the model again with these"
        )


def _checked(version: str) -> str:
    if not VERSION.fullmatch(version) or version == POINTER:
        raise NotAVersion(
            f"a model's version is 1 to 63 of a-z, 0-9 and '-', begins with a letter or a digit, "
            f"and is not {POINTER!r}; came: {version!r}"
        )
    return version


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
