"""Table ``[metrics]`` of the home's file: where figures go when a run ends. Pure."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MetricsConfig(BaseModel):
    """Figures for Prometheus from runs, which end before they could be scraped."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    textfile: str | None = Field(
        default=None,
        pattern=r"\.prom$",
        description="File for the textfile collector of node_exporter, in its folder: `*.prom`,"
        " relative to the home. It is replaced as a whole at drift checks and when a run ends.",
    )
    push: str | None = Field(
        default=None,
        pattern=r"^https?://[^/@\s]+(/[^@\s]*)?$",
        description="Address of a Pushgateway, such as `http://127.0.0.1:9091`, which gets the"
        " figures when a run ends.",
    )
    instance: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Name of this home at the Pushgateway, different for each home; left out: the"
        " name of the machine.",
    )
