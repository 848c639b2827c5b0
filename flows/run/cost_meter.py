"""Measure what a piece of heavy work costs: seconds, joules, heat, money and grams of carbon.

This module only measures. The cost of work that never ran is None.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from flows.run.power_source import PowerSource
from observability import energy_cost
from observability.energy_cost import EnergyCost, Tariff
from power.core.device_readings import DeviceSnapshot
from power.metering import usage
from power.metering.energy import Energy
from power.metering.usage import DeviceUsage, JobUsage


@dataclass(frozen=True)
class Cost:
    """What a piece of work cost. `cpu_s` counts all threads of this process, no other process."""

    at: datetime
    seconds: float
    cpu_s: float
    energy: Energy
    figures: JobUsage = usage.NONE_READ
    """Power and heat of the devices meanwhile, as far as they were read."""
    bill: EnergyCost = energy_cost.UNKNOWN
    """What the energy cost; unknown until `billed`."""

    def billed(self, rates: Tariff) -> Cost:
        """The same, with what its energy cost at the facility's rates."""
        return replace(self, bill=energy_cost.cost_of(self.energy.joules, rates))


class Meter:
    """Meters one piece of work, from the readings that admitted it to those at its end.

    Those two are enough. With the readings in between, which `on_snapshot` takes from any thread,
    the figures are of the whole time. `uuid` is the device that the work is done on; None: the one
    that the gate reads, or all of them.
    """

    def __init__(self, power: PowerSource, before: DeviceSnapshot, uuid: str | None = None) -> None:
        self._power = power
        self._before = before
        self._uuid = uuid or power.limits.uuid
        self._usage: dict[str, DeviceUsage] = {}
        self._lock = threading.Lock()
        self._over = False
        self.cost: Cost | None = None
        """None until the work has ended, with or without an error."""
        # Earlier readings are about what was before the work.
        last = {reading.uuid: reading for reading in before.readings}
        self.on_snapshot(before.model_copy(update={"readings": tuple(last.values())}))

    def on_snapshot(self, snapshot: DeviceSnapshot) -> None:
        """Take readings of the devices while the work goes on; call it from any thread.

        A reading that is given again counts once. After the work's end nothing is taken, and never
        from a recorded trace, which says nothing about work that runs today.
        """
        if self._power.replayed or snapshot.driver != "present":
            return
        with self._lock:
            for reading in () if self._over else snapshot.readings:
                if self._uuid is None or reading.answers_to(self._uuid):
                    known = self._usage.get(reading.uuid, DeviceUsage())
                    self._usage[reading.uuid] = known.after(reading, self._power.limits)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Meter the block; what it raises passes through, and its cost is known all the same."""
        at = datetime.now(UTC)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
            self.on_snapshot(self._power.latest())
            with self._lock:
                self._over = True
            # Not under the lock: reading the devices once more calls `on_snapshot`.
            figures = usage.combine(self._usage.values())
            energy = figures.energy(seconds)
            if energy.joules is None:
                # The two readings at the ends may still give it.
                energy = self._power.energy(self._before, seconds, self._uuid)
            self.cost = Cost(at, seconds, cpu_s, energy, figures)
