"""Opens the inbox of a pipeline's predictions: the one place that chooses which."""

from __future__ import annotations

from models.serving.inbox import Inbox
from models.serving.inbox_config import InboxConfig
from models.serving.outcomes import PredictionInbox
from observability.core.paths import PipelinePlaces
from observability.core.serve_config import InboxBounds


def open_inbox(places: PipelinePlaces, bounds: InboxBounds) -> PredictionInbox:
    """The inbox of the pipeline at `places`. Raises what `Inbox.open` raises."""
    return Inbox.open(places.inbox, InboxConfig(**bounds.model_dump()))
