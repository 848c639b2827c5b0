"""Opens the inbox of a pipeline's predictions: the one place that chooses which."""

from __future__ import annotations

from models.inbox.config import InboxConfig
from models.inbox.inbox import Inbox
from models.serving.outcomes import PredictionInbox
from observability.core.paths import PipelinePlaces


def open_inbox(places: PipelinePlaces) -> PredictionInbox:
    """The inbox of the pipeline at `places`. Raises what `Inbox.open` raises."""
    return Inbox.open(places.inbox, InboxConfig())
