"""Table ``[serve]`` of the home's file: where the prediction service listens, and its limits.

Pure. It lies here because the home's file is one model, which the history reads as well; what the
service does with these settings is in `flows/api`.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

Protected = Literal["predict", "model", "metrics", "page"]


class InboxBounds(BaseModel):
    """How long, and how many, predictions of a pipeline wait for their labels."""

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


class ServeConfig(BaseModel):
    """The prediction service, TOML table ``[serve]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. Any other than a loopback one needs a token.",
    )
    port: int = Field(default=8020, ge=0, le=65_535, description="Port to listen on; 0: any.")
    token_file: str | None = Field(
        default=None,
        min_length=1,
        description="File whose first line is the token, relative to the home; the variable "
        "`THERMODRIFT_TOKEN` comes before it.",
    )
    protected: tuple[Protected, ...] = Field(
        default=(),
        description="Routes that need the token beside labels, which always do where there is one: "
        "predict, model, metrics, page. A page that other machines can reach always needs it.",
    )
    hosts: tuple[str, ...] = Field(
        default=(),
        description="Further names by which clients may call the service, as their `Host` header "
        "says: `predict.example.org`, or with a port.",
    )
    origins: tuple[str, ...] = Field(
        default=(),
        description="Web pages that may call it from a browser, as `https://app.example.org`; its "
        "own pages always may.",
    )
    rate: float | None = Field(
        default=None,
        gt=0,
        le=1_000_000,
        description="Requests per second that each client may send in the long run; further ones "
        "are answered 429. Left out: as many as it likes. Health and metrics are never limited.",
    )
    burst: int = Field(
        default=20,
        ge=1,
        le=1_000_000,
        description="Requests that a client may send at once before `rate` counts.",
    )
    proxies: tuple[str, ...] = Field(
        default=(),
        description="Addresses or networks of proxies in front, as `10.0.0.0/8`: from these alone "
        "the client is the one that `X-Forwarded-For` names.",
    )
    shadow: tuple[Annotated[str, StringConstraints(pattern=r"^[^=]+=[^=]+$")], ...] = Field(
        default=(),
        description="Versions of the registry that answer every request too, as "
        "`PIPELINE=VERSION`. Their answers are logged to be compared, and never served.",
    )
    most_body_bytes: int = Field(
        default=4_000_000, ge=1_000, le=1_000_000_000, description="Bytes that a request may have."
    )
    most_records: int = Field(
        default=1_000, ge=1, le=100_000, description="Records, or labels, of one request."
    )
    most_waiting: int = Field(
        default=10_000,
        ge=1,
        le=10_000_000,
        description="Records of a pipeline that may wait for their prediction at once; further "
        "requests are answered 429.",
    )
    follow_s: float = Field(
        default=0.5,
        gt=0,
        le=3_600,
        description="Seconds between two looks for a newer checkpoint or champion. After a load "
        "that took long, the next look comes later.",
    )
    shutdown_s: float = Field(
        default=10.0,
        gt=0,
        le=3_600,
        description="Seconds that requests in flight have to end after a signal.",
    )
    inbox: InboxBounds = InboxBounds()

    @field_validator("proxies")
    @classmethod
    def _networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for each in proxies:
            ipaddress.ip_network(each)  # raises ValueError, which says what is wrong with it
        return proxies
