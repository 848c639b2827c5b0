"""The gate's readings for one run, from where the pipeline says, and the clock that goes with them.

A recorded trace is replayed together with the stream: its clock is the stream's position, so that
the same stream with the same trace is decided the same, whenever and however often it runs. Live
readings have the machine's clocks: a monotonic one for ages, seconds since 1970 for deadlines,
which outlive a process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from flows import settings
from flows.pipeline import PipelineFile
from observability.errors import BadConfiguration
from power import energy, gate
from power.device import Door
from power.energy import Energy
from power.gate import GateLimits, Survey
from power.nvml import NvmlDoor
from power.replay import Trace, TraceUnreadable
from power.sensors import SensorDoor


class PowerSource:
    """Readings since the last question, and the time on both clocks."""

    def __init__(self, limits: GateLimits, trace: Trace | None, door: Door | None) -> None:
        self.limits = limits
        self._trace = trace
        self._door = door

    @classmethod
    @contextmanager
    def opened(cls, file: PipelineFile) -> Iterator[Self]:
        """The source that the pipeline's ``[gate]`` names. Raises BadConfiguration."""
        limits = file.pipeline.gate
        if limits.reads_from == "off":
            yield cls(limits, None, None)
        elif limits.reads_from == "trace" and limits.trace is not None:
            yield cls(limits, _trace(file, limits.trace), None)
        else:
            with _door(limits.reads_from) as door:
                yield cls(limits, None, door)

    @property
    def replayed(self) -> bool:
        """Whether readings and their clock come from a recorded trace."""
        return self._trace is not None

    def gate_s(self, position: int) -> float:
        """The clock of the readings at this position of the stream, in seconds."""
        if self._trace is not None:
            return position * self.limits.trace_s_per_record
        return time.monotonic()

    def request_s(self, position: int) -> float:
        """The clock of requests and deadlines, in seconds; it goes on between processes."""
        return self.gate_s(position) if self.replayed else time.time()

    def survey(self, after_s: float, now_s: float) -> Survey:
        """The readings from `after_s` (exclusive) to `now_s` on the gate's clock."""
        if self._trace is not None:
            return self._trace.survey(after_s, now_s)
        if self._door is not None:
            return self._door.survey(now_s)
        return gate.Survey(readings=(), driver="absent", because="the gate is off")

    def latest(self) -> Survey:
        """What live devices tell now, on the monotonic clock; of a recorded trace nothing."""
        if self._trace is not None:
            return gate.Survey(driver="absent", because="a recorded trace tells nothing of today")
        now_s = time.monotonic()
        return self.survey(now_s, now_s)

    def energy(self, before: Survey, seconds: float, uuid: str | None = None) -> Energy:
        """What the watched devices used in the `seconds` since `before` was told.

        `uuid` is the one device that counts; None: the one that the gate goes by, or all. Unknown
        with a recorded trace, whose clock stands still while a job runs.
        """
        if self._trace is not None:
            return Energy(None, None, "a recorded trace does not tell of a job that runs today")
        return energy.used(before, self.latest(), seconds, uuid=uuid or self.limits.uuid)


def _door(source: str) -> Door:
    return SensorDoor() if source == "cpu" else NvmlDoor(visible=settings.visible_devices())


def _trace(file: PipelineFile, path: str) -> Trace:
    try:
        return Trace.load(file.beside(path))
    except TraceUnreadable as error:
        raise BadConfiguration(f"{file.path}: gate.trace: {error}") from error
