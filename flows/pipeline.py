"""The pipeline file: one TOML file, every knob beside the rule that uses it, joined here.

    [pipeline]
    name = "elec2"
    task = "classification"          # or "regression"
    [stream]
    path = "elec2.parquet"           # relative to this file
    target = "class"

These four keys are enough. Unknown keys are refused. A mistake names file, key, what was allowed
and what came, and ends the command with exit code 78.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from models.batch import BatchRecipe
from models.blend import BlendRules
from models.example import Task
from models.online import OnlineRecipe
from models.promotion import PromotionRules
from models.stream import StreamOptions
from observability.drift import DriftTolerance
from observability.errors import BadConfiguration
from observability.places import PIPELINE_NAME
from observability.worth import WorthPolicy
from power.gate import GateLimits


class PipelineTable(BaseModel):
    """What the pipeline is called and what it predicts, TOML table ``[pipeline]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(description="1 to 63 of a-z, 0-9, '-' and '_'; names its folder and rows.")
    task: Task = Field(description="Predict a class or a number.")

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not PIPELINE_NAME.fullmatch(name):
            raise ValueError(
                "1 to 63 of a-z, 0-9, '-' and '_' were allowed, beginning with a letter or digit"
            )
        return name


class Pipeline(BaseModel):
    """A whole pipeline file."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="thermodrift pipeline")
    pipeline: PipelineTable
    stream: StreamOptions
    online: OnlineRecipe = OnlineRecipe()
    batch: BatchRecipe = BatchRecipe()
    blend: BlendRules = BlendRules()
    drift: DriftTolerance = DriftTolerance()
    worth: WorthPolicy = WorthPolicy()
    gate: GateLimits = GateLimits()
    promotion: PromotionRules = PromotionRules()


class PipelineFile(BaseModel):
    """A pipeline together with the file that it was read from."""

    model_config = ConfigDict(frozen=True)
    path: Path
    pipeline: Pipeline

    @property
    def name(self) -> str:
        return self.pipeline.pipeline.name

    @property
    def folder(self) -> Path:
        return self.path.parent

    def beside(self, path: str) -> Path:
        """`path` as the file means it: relative to the file itself."""
        return self.folder / path


def read(path: Path) -> PipelineFile:
    """Read and check a pipeline file. Raises BadConfiguration."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfiguration(
            f"{path}: the pipeline file cannot be read: {error}. "
            "`thermodrift init` writes one to start from"
        ) from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfiguration(f"{path}: not TOML: {error}") from error
    try:
        pipeline = Pipeline.model_validate(tables)
    except ValidationError as error:
        raise BadConfiguration("\n".join(_mistakes(path, error))) from error
    return PipelineFile(path=path.resolve(), pipeline=pipeline)


def _mistakes(path: Path, error: ValidationError) -> list[str]:
    return [
        f"{path}: {_key(each['loc'])}: {_allowed(each)}"
        + ("" if each["type"] == "missing" else f"; came: {each['input']!r}")
        for each in error.errors(include_url=False)
    ]


def _key(place: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in place) or "the file"


def _allowed(mistake: Any) -> str:
    place = mistake["loc"]
    if mistake["type"] == "missing":
        return "this key is needed and is not there"
    if mistake["type"] == "extra_forbidden":
        return f"there is no such key; allowed here: {', '.join(_siblings(place))}"
    return str(mistake["msg"]).removeprefix("Value error, ")


def _siblings(place: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Pipeline
    for part in place[:-1]:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return sorted(model.model_fields)
