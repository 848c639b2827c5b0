"""The throughput budgets: a line for each, whatever it comes to."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from benchmarks import budgets
from benchmarks.budgets import Budget


@dataclass
class Measured:
    """A figure that comes as it is told to."""

    figure: float | None

    def __call__(self) -> float:
        if self.figure is None:
            raise OSError("no disk")
        return self.figure


@pytest.mark.parametrize(
    ("figure", "at_least", "told"),
    [
        (2.0, True, "kept"),
        (0.5, True, "OVER: see python -m benchmarks.intake"),
        (0.5, False, "kept"),
        (2.0, False, "OVER: see python -m benchmarks.intake"),
        (None, True, "OSError: no disk"),
    ],
)
def test_a_budget_is_told_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, figure: float | None, at_least: bool, told: str
) -> None:
    """Kept, not kept or broken: a line says so, and the next one is measured."""
    kept = Budget("quick", "intake", 1.0, at_least, Measured(1.0))
    monkeypatch.setattr(
        budgets, "BUDGETS", (kept._replace(measure=Measured(figure)), kept._replace(what="next"))
    )
    first, second = budgets.lines()
    assert told in first
    assert second.startswith("next ")
    assert second.endswith(" kept")
