"""HOME/thermodrift.toml: the configuration of a whole installation.

The file is optional: without it the history is a DuckDB file in the home that keeps everything, and
the cost of energy is unknown.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from observability.core import toml_config
from observability.core.paths import Places
from observability.energy_cost import Tariff
from observability.history.retention import RetentionConfig


class HistoryPlace(BaseModel):
    """Where the history's rows are, table ``[history]``."""

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
    """The whole of a home's own file."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="thermodrift home")
    history: HistoryPlace = HistoryPlace()
    upkeep: RetentionConfig = RetentionConfig()
    energy: Tariff = Tariff()


def read(places: Places) -> HomeFile:
    """What the home's file says; the defaults where there is none. Raises BadConfiguration."""
    if not places.settings.exists():
        return HomeFile()
    return toml_config.read(
        places.settings, HomeFile, "the home's file", "remove it, or correct it"
    )
