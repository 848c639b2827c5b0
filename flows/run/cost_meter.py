"""What a piece of heavy work costs: seconds, joules, heat, and with them money and grams.

Measures, and decides nothing. Only what ran is metered: a meter that was never started tells no
cost.
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
    """Meters one piece of work, from the readings that let it start to those at its end.

    Those two are enough. Whoever watches the devices meanwhile hands what is read to `saw`, from
    any thread, and the figures are then of the whole time. `uuid` is the device that the work is
    done on; None: the one that the gate goes by, or all of them.
    """

    def __init__(self, power: PowerSource, before: DeviceSnapshot, uuid: str | None = None) -> None:
        self._power = power
        self._before = before
        self._uuid = uuid or power.limits.uuid
        self._accounts: dict[str, DeviceUsage] = {}
        self._lock = threading.Lock()
        self._over = False
        self.cost: Cost | None = None
        """None until the work has ended, however it ended."""
        # What was read earlier still is about what was before the work.
        last = {reading.uuid: reading for reading in before.readings}
        self.saw(before.model_copy(update={"readings": tuple(last.values())}))

    def saw(self, survey: DeviceSnapshot) -> None:
        """Take what was read of the devices while the work goes on; call it from any thread.

        Readings that were handed in before count once. After the work's end nothing is taken, and
        never from a recorded trace, which does not tell of a job that runs today.
        """
        if self._power.replayed or survey.driver != "present":
            return
        with self._lock:
            if not self._over:
                self._take(survey)

    def _take(self, survey: DeviceSnapshot) -> None:
        for reading in survey.readings:
            if self._uuid is None or reading.answers_to(self._uuid):
                known = self._accounts.get(reading.uuid, DeviceUsage())
                self._accounts[reading.uuid] = known.after(reading, self._power.limits)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around the work itself; what it raises passes through, and is no less metered."""
        at = datetime.now(UTC)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
            self.saw(self._power.latest())
            with self._lock:
                self._over = True
            # Asking the devices once more makes whoever watches hand that in: not under the lock.
            figures = usage.combine(self._accounts.values())
            energy = self._energy(figures, seconds)
            self.cost = Cost(at, seconds, cpu_s, energy, figures)

    def _energy(self, figures: JobUsage, seconds: float) -> Energy:
        """By all that was read; where that does not tell it, by the two readings at the ends."""
        told = figures.energy(seconds)
        if told.joules is not None:
            return told
        return self._power.energy(self._before, seconds, self._uuid)
