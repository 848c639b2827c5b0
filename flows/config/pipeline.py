"""The pipeline file: one TOML file, whose tables are the models of the packages that use them.

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
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from models.batch.promotion import PromotionConfig
from models.batch.recipe_config import BatchRecipe
from models.core import metrics
from models.core.metrics import Measure
from models.core.record_schema import Task
from models.online.blend import BlendConfig
from models.online.online_model import OnlineConfig
from models.stream.label_file import LabelFileConfig
from models.stream.source import StreamOptions
from observability.core import toml_config
from observability.core.paths import PIPELINE_NAME
from observability.drift.drift import DriftConfig
from observability.worth.worth import RetrainConfig
from power.core.gate_config import GateConfig
from power.forecast.config import ForecastConfig
from power.policy.power_cap import CapConfig


class PipelineTable(BaseModel):
    """What the pipeline is called and what it predicts, TOML table ``[pipeline]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(description="1 to 63 of a-z, 0-9, '-' and '_'; names its folder and rows.")
    task: Task = Field(description="Predict a class or a number.")
    metric: str = Field(
        default="auto",
        description="What promotion, drift and worth judge by, and what runs and models report "
        "beside accuracy or mae. Classification: log_loss, brier, accuracy, balanced_accuracy, "
        "f1, roc_auc, average_precision; regression: mae, rmse, pinball, r2. auto: brier, or mae.",
    )
    quantile: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="Of pinball: the share of targets that should lie below the prediction.",
    )
    threshold: Literal["auto"] | float = Field(
        default="auto",
        description="Of two classes: the probability (0 to 1) from which the rarer one is served, "
        "or auto: chosen on labelled past predictions for f1 and balanced_accuracy, and for the "
        "others the likelier class is served.",
    )

    @field_validator("threshold")
    @classmethod
    def _probability(cls, threshold: str | float, info: ValidationInfo) -> str | float:
        if threshold != "auto" and info.data.get("task") == "regression":
            raise ValueError("only auto was allowed in regression, which has no classes")
        if isinstance(threshold, float) and not 0.0 < threshold < 1.0:
            raise ValueError("auto, or a probability between 0 and 1 was allowed")
        return threshold

    @field_validator("metric")
    @classmethod
    def _suits(cls, metric: str, info: ValidationInfo) -> str:
        task = info.data.get("task")
        if task is not None and metric != "auto" and metric not in metrics.names(task):
            raise ValueError(metrics.unfit(metric, task))
        return metric

    @property
    def measure(self) -> Measure:
        """What the pipeline is judged by."""
        cut = None if self.threshold == "auto" else float(self.threshold)
        return metrics.measure(self.metric, self.task, self.quantile, cut)

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
    labels: LabelFileConfig = LabelFileConfig()
    online: OnlineConfig = OnlineConfig()
    batch: BatchRecipe = BatchRecipe()
    blend: BlendConfig = BlendConfig()
    drift: DriftConfig = DriftConfig()
    worth: RetrainConfig = RetrainConfig()
    gate: GateConfig = GateConfig()
    forecast: ForecastConfig = ForecastConfig()
    cap: CapConfig = CapConfig()
    promotion: PromotionConfig = PromotionConfig()


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
        """`path` relative to the file itself."""
        return self.folder / path


def read(path: Path) -> PipelineFile:
    """Read and check a pipeline file. Raises BadConfiguration."""
    pipeline = toml_config.read(
        path, Pipeline, "the pipeline file", "`thermodrift init` writes one to start from"
    )
    return PipelineFile(path=path.resolve(), pipeline=pipeline)
