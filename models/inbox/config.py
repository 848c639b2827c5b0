"""The bounds of the inbox, and how durable it is. Pure."""

from __future__ import annotations

from pydantic import Field

from observability.core.serve_config import InboxBounds


class InboxConfig(InboxBounds):
    """The bounds that the home's file sets, and how the inbox writes."""

    most_in_group: int = Field(
        default=1_000,
        ge=1,
        le=100_000,
        description="Calls of other threads that may share one commit.",
    )
