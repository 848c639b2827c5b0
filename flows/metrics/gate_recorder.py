"""Leaves the figures of the gate in a snapshot, while a run reads devices."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from observability.metrics import samples
from power.core.gate_config import GateConfig
from power.monitoring import gate_metrics
from power.monitoring.device_monitor import MonitorView

EVERY_S = 5.0
"""Between two snapshots: readings come several times a second, and nobody scrapes so often."""


class GateRecorder:
    """Called with each view of the devices, by any thread."""

    def __init__(
        self,
        path: Path,
        pipeline: str,
        config: GateConfig,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._pipeline, self._config = path, pipeline, config
        self._clock = clock
        self._lock = threading.Lock()
        self._next_s = 0.0

    def __call__(self, view: MonitorView) -> None:
        """Leave this view, unless one was left just now."""
        now_s = self._clock()
        with self._lock:
            # A clock that was set back must not silence it.
            if self._next_s - EVERY_S <= now_s < self._next_s:
                return
            self._next_s = now_s + EVERY_S
        # Figures must not stop a reading.
        with suppress(OSError):
            found = gate_metrics.collect(self._pipeline, view, self._config, now_s)
            samples.write(self._path, found, now_s)
