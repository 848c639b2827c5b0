"""A person changes which version serves: the pointer of the registry, and a row in the history.

The command `thermodrift models` and the page of the service do it by these functions. Nothing is
decided here.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from models.persistence import checkpoint
from models.registry.registry import Manifest, Registry
from observability.core.paths import Places
from observability.history.records import ModelRecord
from observability.history.store import History


class Changed(NamedTuple):
    """The version that serves from now on, and the one before it."""

    version: str
    before: str | None


def promote(home: Places, registry: Registry, version: str) -> Changed:
    """Make `version` the champion, whatever the promotion policy decided.

    Raises what `Registry.promote` and the history raise.
    """
    before, token = registry.champion(), f"hand-{uuid.uuid4().hex}"
    registry.promote(version, token)
    because = f"promoted by hand; before: {before}"
    _record(home, registry.manifest(version), token, "promoted", because)
    return Changed(version, before)


def rollback(home: Places, registry: Registry) -> Changed:
    """Make the previous champion the champion again.

    Raises what `Registry.rollback` and the history raise.
    """
    before, token = registry.champion(), f"hand-{uuid.uuid4().hex}"
    version = registry.rollback(token)
    because = f"rolled back by hand from {before}"
    _record(home, registry.manifest(version), token, "rolled_back", because)
    return Changed(version, before)


def _record(
    home: Places,
    manifest: Manifest,
    token: str,
    event: Literal["promoted", "rolled_back"],
    because: str,
) -> None:
    """Add a row to the history; the champion is changed already, and stays so if this fails."""
    # The position of the stream, or else the newest position that the model has seen.
    position = None
    with suppress(FileNotFoundError, checkpoint.CheckpointUnusable):
        path = home.pipeline(manifest.pipeline).checkpoint
        position = checkpoint.header(path).get("position")
    row = ModelRecord(
        at=datetime.now(UTC),
        pipeline=manifest.pipeline,
        run_id=token,
        event=event,
        position=position if isinstance(position, int) else manifest.holdout_to,
        because=because,
        **manifest.recorded,
    )
    history = History(home.home)
    history.commit([row], token)
    history.flush()
