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

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from models.batch import BatchRecipe
from models.blend import BlendRules
from models.example import Task
from models.online import OnlineRecipe
from models.promotion import PromotionRules
from models.stream import StreamOptions
from observability import toml
from observability.drift import DriftTolerance
from observability.places import PIPELINE_NAME
from observability.worth import WorthPolicy
from power.cap import CapRules
from power.forecast import ForecastRules
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
    forecast: ForecastRules = ForecastRules()
    cap: CapRules = CapRules()
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
    pipeline = toml.read(
        path, Pipeline, "the pipeline file", "`thermodrift init` writes one to start from"
    )
    return PipelineFile(path=path.resolve(), pipeline=pipeline)
