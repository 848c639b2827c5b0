"""Collects warnings that libraries issue while a model fits or predicts; they are not printed.

A line such as ``UserWarning: ...`` does not say what it means for the run. So the caller collects
the warnings of a model, and reports the first one and their count in one sentence. Outside of
`collect`, warnings go where Python sends them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TextIO

from observability.core.decision import Decision

LONGEST = 200
"""Characters of a warning that are reported."""
_HIDDEN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""Categories that Python shows to developers of a library only."""


@dataclass
class CollectedWarnings:
    """The warnings of libraries and factories since this object was created."""

    count: int = 0
    first: str = ""

    def add(self, message: Warning | str, category: type[Warning]) -> None:
        """Count one more warning; the first one is kept, on one line."""
        self.count += 1
        text = f"{category.__name__}: {' '.join(str(message).split())}"
        self.first = self.first or (text if len(text) <= LONGEST else f"{text[:LONGEST]}…")

    def decision(self, who: str, recipe: str | None) -> Decision:
        """The record for the history, about the model `who` that was made by `recipe`."""
        named = who if recipe is None else f"{who} ({recipe})"
        times = "once" if self.count == 1 else f"{self.count} times"
        return Decision(
            question="warnings",
            yes=True,
            because=f"{named} warned {times}, first: {self.first}",
            facts={"recipe": recipe, "warnings": self.count, "first": self.first},
        )


_collecting: ContextVar[CollectedWarnings | None] = ContextVar("collecting", default=None)


@contextmanager
def collect(into: CollectedWarnings) -> Iterator[None]:
    """Collect the warnings of the block: all of models, and what Python shows of other code."""
    token = _collecting.set(into)
    try:
        with warnings.catch_warnings():
            _show_to(into)
            yield
    finally:
        _collecting.reset(token)


@contextmanager
def during_model_calls() -> Iterator[None]:
    """Mark a block in which a model works: inside `collect`, every one of its warnings counts."""
    into = _collecting.get()
    if into is None:
        yield
        return
    with warnings.catch_warnings():
        # Otherwise a warning would count once per line of code, or end the fit as an error.
        warnings.simplefilter("always")
        for category in _HIDDEN:
            warnings.simplefilter("ignore", category)
        _show_to(into)
        yield


def _show_to(into: CollectedWarnings) -> None:
    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        into.add(message, category)

    warnings.showwarning = show
