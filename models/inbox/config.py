"""The bounds of the inbox, and how durable it is. Pure."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class InboxConfig(BaseModel):
    """How long, and how many, predictions wait for their labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    most_waiting: int = Field(
        default=1_000_000,
        ge=1,
        le=1_000_000_000,
        description="Predictions that may wait for their labels; beyond it the oldest expire.",
    )
    longest_wait_s: float = Field(
        default=30 * 86_400.0,
        gt=0,
        le=100 * 365 * 86_400.0,
        description="Seconds that a prediction waits for its label before it expires.",
    )
    most_remembered: int = Field(
        default=1_000_000,
        ge=0,
        le=1_000_000_000,
        description="Ids of expired and forgotten predictions that are remembered, so that a label "
        "for one is answered with expired, duplicate or conflicting; older ones become unknown.",
    )
    synchronous: Literal["full", "normal"] = Field(
        default="full",
        description="full: what was acknowledged survives a power cut. normal: it survives a kill "
        "of the process, and the last commits before a power cut may be gone.",
    )
    most_in_group: int = Field(
        default=1_000,
        ge=1,
        le=100_000,
        description="Calls of other threads that may share one commit.",
    )
