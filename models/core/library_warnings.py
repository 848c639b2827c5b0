"""Warnings of libraries while a model fits or answers: counted, and never printed as they come.

A line such as ``UserWarning: ...`` tells a person nothing of what became of the run. So whoever
runs a model collects what it warns of, and tells the first and the count in one sentence. Where
nobody collects, warnings go where Python sends them.
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
"""Characters of a warning that are told."""
_HIDDEN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""What Python itself shows to nobody but a library's makers."""


@dataclass
class CollectedWarnings:
    """What libraries and factories warned of, since it was made."""

    count: int = 0
    first: str = ""

    def add(self, message: Warning | str, category: type[Warning]) -> None:
        """Count one more; the first is kept, on one line."""
        self.count += 1
        told = f"{category.__name__}: {' '.join(str(message).split())}"
        self.first = self.first or (told if len(told) <= LONGEST else f"{told[:LONGEST]}…")

    def decision(self, who: str, recipe: str | None) -> Decision:
        """What the history keeps of it, for the model `who` that was made by `recipe`."""
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
    """Collect into `into` what is warned of in the block: by models all, else what Python shows."""
    token = _collecting.set(into)
    try:
        with warnings.catch_warnings():
            _show_to(into)
            yield
    finally:
        _collecting.reset(token)


@contextmanager
def during_model_calls() -> Iterator[None]:
    """A model works in this block: each of its warnings counts, where somebody collects."""
    into = _collecting.get()
    if into is None:
        yield
        return
    with warnings.catch_warnings():
        # Else a warning would count once for each place in the code, or end the fit as an error.
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
