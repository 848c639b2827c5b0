"""A service without a server, for the tests of what its labels teach: asked, and labelled later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.api import following
from flows.config import pipeline
from models.inbox.inbox import Answered, Inbox, InboxConfig
from models.serving.bundle import Predicted
from observability.core.paths import Places

ASKED_S, LABELLED_S = 1_000.0, 2_000.0
QUICK = InboxConfig(synchronous="normal")


def ask(
    file: Path, home: Path, rows: Sequence[Mapping[str, Any]], ids: Sequence[str]
) -> list[Predicted]:
    """Ask the newest checkpoint about records, as the service does, and keep what it answered."""
    bundle = following.load(pipeline.read(file), Places(home))
    answers = bundle.predict(rows)
    assert all(isinstance(each, Predicted) for each in answers)
    found = [each for each in answers if isinstance(each, Predicted)]
    with Inbox.open(Places(home).pipeline(bundle.pipeline).inbox, QUICK) as inbox:
        inbox.record(
            [
                Answered(id_, ASKED_S, dict(row), each.members, bundle.versions)
                for id_, row, each in zip(ids, rows, found, strict=True)
            ]
        )
    return found


def label(home: Path, name: str, truths: Sequence[tuple[str, Any]]) -> None:
    """Label what was asked."""
    with Inbox.open(Places(home).pipeline(name).inbox, QUICK) as inbox:
        assert {"joined"} == {each.outcome for each in inbox.label(truths, LABELLED_S)}


def features(records: Sequence[Mapping[str, Any]], target: str = "label") -> list[dict[str, Any]]:
    """The records without their labels."""
    return [{key: cell for key, cell in each.items() if key != target} for each in records]
