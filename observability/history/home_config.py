"""HOME/thermodrift.toml: the configuration of a whole installation.

The file is optional. Without it the history is a DuckDB file in the home, all rows are kept, and
the cost of energy is unknown.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from observability.core import toml_config
from observability.core.paths import Places
from observability.core.serve_config import ServeConfig
from observability.energy_cost import Tariff
from observability.history.retention import RetentionConfig
from observability.metrics.config import MetricsConfig


class HistoryPlace(BaseModel):
    """Table ``[history]``: where the history's rows are."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    url: str | None = Field(
        default=None,
        pattern=r"^postgres(ql)?://",
        description="PostgreSQL database that is the catalogue of a DuckLake, as"
        " postgresql://USER@HOST/DATABASE; left out: a DuckDB file in the home.",
    )
    data: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of the lake's Parquet files, the same for every host.",
    )

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.url is None) != (self.data is None):
            raise ValueError("url and data go together: a lake needs both, a file needs neither")
        if self.data is not None and not PurePosixPath(self.data).is_absolute():
            raise ValueError(f"data is an absolute path, the same on every host; came: {self.data}")
        return self


class HomeFile(BaseModel):
    """The whole configuration file of a home."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="thermodrift home")
    history: HistoryPlace = HistoryPlace()
    upkeep: RetentionConfig = RetentionConfig()
    energy: Tariff = Tariff()
    serve: ServeConfig = ServeConfig()
    metrics: MetricsConfig = MetricsConfig()


def read(places: Places) -> HomeFile:
    """Read the home's file; defaults where there is none. Raises BadConfiguration."""
    if not places.settings.exists():
        return HomeFile()
    return toml_config.read(
        places.settings, HomeFile, "the home's file", "remove it, or correct it"
    )
