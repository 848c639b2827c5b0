"""Predictions for the tests of the inbox, with one default and what a test changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.inbox.inbox import Answered, Inbox, InboxConfig
from tests.pace import PATIENCE_S, until

FILE = "inbox.sqlite"


def make_answered(
    id: str = "a",  # noqa: A002 - it is the id of the prediction
    predicted_at: float = 100.0,
    **features: Any,
) -> Answered:
    """A prediction of two members for these features."""
    return Answered(
        id,
        predicted_at,
        features or {"price": 3, "zone": "01"},
        {
            "served": {"value": 1, "probabilities": {"0": 0.25, "1": 0.75}},
            "linear": {"value": 0, "probabilities": None},
        },
        {"champion": None, "position": 4000},
    )


def make_many(first: int, count: int, predicted_at: float = 100.0) -> list[Answered]:
    """Predictions p0, p1, … one second apart."""
    return [
        make_answered(f"p{index}", predicted_at + index, x=index)
        for index in range(first, first + count)
    ]


def outcomes(inbox: Inbox, *truths: tuple[str, Any], at: float = 200.0) -> list[str]:
    """What became of these labels."""
    return [result.outcome for result in inbox.label(truths, at)]


def in_one_group(inbox: Inbox, *calls: Callable[[], None]) -> None:
    """Make these calls from a thread each while the writer is held up, until all of them wait."""
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    writer = inbox._writer
    threads = [threading.Thread(target=call) for call in calls]
    holder = threading.Thread(target=writer.run, args=[hold])
    holder.start()
    assert begun.wait(PATIENCE_S)
    for thread in threads:
        thread.start()
    until(lambda: writer.queued == len(calls), "every call waits")
    go_on.set()
    for thread in (holder, *threads):
        thread.join()


def new(folder: Path, **config: Any) -> Inbox:
    """An inbox in a folder; its commits do not wait for the disk, unless a test asks for it."""
    return Inbox.open(folder / FILE, InboxConfig(**{"synchronous": "normal", **config}))
