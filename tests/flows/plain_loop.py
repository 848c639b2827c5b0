"""The loop without Prefect: its tasks are plain functions, and nothing starts a server for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from flows.config import settings
from flows.learning import drift_check, learn_batch
from flows.retraining import retrain

Run = Callable[..., dict[str, Any]]
"""A run over a pipeline file and a home, through so many records if said: its summary."""


@contextmanager
def without_prefect() -> Iterator[None]:
    """Inside the block, and in what is forked from it, a step of the loop is a call."""
    settings.silence_telemetry()
    with ExitStack() as stack:
        for room, name in ((learn_batch, "learn"), (drift_check, "check"), (retrain, "retrain")):
            stack.enter_context(mock.patch.object(room, name, getattr(room, name).fn))
        yield
