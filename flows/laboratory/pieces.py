"""Finished pieces of an experiment as files, so that one that was killed goes on from them.

A piece is named by what it is, in a folder that is named by a digest of everything that it rests
on: the stream's file, the pipeline, the conditions, and the code of the product. So a changed knob
or an edited rule never meets figures of before.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from flows.config.pipeline import PipelineFile
from flows.laboratory.records import Floats, LabConfig
from observability.core import atomic_file

_CODE = (
    *("flows/laboratory", "flows/learning", "flows/retraining", "flows/run"),
    *("models", "observability/drift", "observability/worth"),
)
"""Folders of the code that an experiment runs."""
_BESIDE = {"crew.py", "replay.py", "tune.py"}
"""Files in there that change no figure."""
_CHUNK = 1 << 20

Arrays = dict[str, Floats]


class Pieces:
    """The pieces of one stream under one set of knobs and conditions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, home: Path, file: PipelineFile, config: LabConfig) -> Pieces:
        """The pieces of this pipeline under these conditions; those of others are removed."""
        digest = hashlib.sha256()
        digest.update(file.pipeline.model_dump_json().encode())
        digest.update(config.model_dump_json().encode())
        digest.update(_file_digest(file.beside(file.pipeline.stream.path)).encode())
        digest.update(code_digest().encode())
        # Two pipelines may have one name, in two files.
        where = hashlib.sha256(str(file.path).encode()).hexdigest()[:8]
        beside = home / "pieces" / f"{file.name}-{where}"
        kept = beside / digest.hexdigest()[:16]
        for older in beside.glob("*"):
            if older != kept:
                shutil.rmtree(older, ignore_errors=True)
        kept.mkdir(parents=True, exist_ok=True)
        return cls(kept)

    def arrays(self, name: str, make: Callable[[], Iterable[tuple[str, Floats]]]) -> Arrays:
        """The named arrays of a piece: from its file, or made now and written."""
        path = self.folder / f"{name}.npz"
        try:
            # np.load leaves a file open that it cannot read.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                return {key: kept[key] for key in kept.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            made = dict(make())
        sink = io.BytesIO()
        np.savez(sink, **made)  # type: ignore[arg-type]  # its other keyword is a flag
        atomic_file.write(path, sink.getvalue())
        return made

    def document(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The JSON document of a piece, in the same way."""
        path = self.folder / f"{name}.json"
        try:
            kept: dict[str, Any] = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            kept = make()
            atomic_file.write(path, json.dumps(kept).encode())
        return kept

    def scratch(self, name: str) -> Path:
        """An empty folder for work that leaves a piece; what a killed one left there is removed."""
        folder = self.folder / f"{name}.scratch"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@cache
def code_digest() -> str:
    """A hash of the code that an experiment runs."""
    root, digest = Path(__file__).resolve().parents[2], hashlib.sha256()
    for folder in _CODE:
        for path in sorted((root / folder).rglob("*.py")):
            if path.name in _BESIDE:
                continue
            digest.update(str(path.relative_to(root)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
