"""What a piece of heavy work costs: seconds, seconds of processor time, joules.

Measures, and decides nothing. Only what ran is metered: a meter that was never started tells no
cost.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from flows.power_source import PowerSource
from power.energy import Energy
from power.gate import Survey


@dataclass(frozen=True)
class Cost:
    """What a piece of work cost. `cpu_s` counts all threads of this process, no other process."""

    at: datetime
    seconds: float
    cpu_s: float
    energy: Energy


class Meter:
    """Meters one piece of work, from the readings that let it start to those at its end."""

    def __init__(self, power: PowerSource, before: Survey) -> None:
        self._power = power
        self._before = before
        self.cost: Cost | None = None
        """None until the work has ended, however it ended."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around the work itself; what it raises passes through, and is no less metered."""
        at = datetime.now(UTC)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
            self.cost = Cost(at, seconds, cpu_s, self._power.energy(self._before, seconds))
