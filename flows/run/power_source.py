"""The gate's readings for one run, from where the pipeline says, and the clock that goes with them.

A recorded trace is replayed together with the stream: its clock is the stream's position, so that
the same stream with the same trace is decided the same, whenever and however often it runs. Live
devices are followed in the machine's own time: a monotonic clock for ages, seconds since 1970 for
deadlines, which outlive a process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self, TypedDict

from flows.config import settings
from flows.config.pipeline import PipelineFile
from flows.run.state import PipelineState
from observability.core.decision import Decision
from observability.core.errors import BadConfiguration
from observability.core.paths import Places
from power.core.device_readings import DeviceSnapshot
from power.core.gate_config import GateConfig
from power.devices import power_limit as power_limits
from power.devices.cpu_sensors import CpuSensorAdapter
from power.devices.device import Device, DeviceAdapter, PowerLimitSetter
from power.devices.fake_nvml import FakeNvml
from power.devices.leases import Lease, Leases
from power.devices.nvml import NvmlAdapter, NvmlLimitSetter
from power.devices.power_limit import PowerLimitResult
from power.devices.trace import Trace, TraceUnreadable
from power.forecast import forecast
from power.forecast.config import ForecastConfig
from power.forecast.forecast import ThermalState
from power.metering import energy
from power.metering.energy import Energy
from power.monitoring.device_monitor import DeviceMonitor, ForecastTrial, MonitorView
from power.policy import gate


class _Pretended(TypedDict, total=False):
    twin: FakeNvml


_OF_ANOTHER_DAY = "a recorded trace does not tell of a job that runs today"


class PowerSource:
    """What the gate sees, the time on both clocks, and the leases of the devices."""

    def __init__(
        self,
        limits: GateConfig,
        rules: ForecastConfig,
        leases: Leases,
        trace: Trace | None = None,
        follower: DeviceMonitor | None = None,
        setter: PowerLimitSetter | None = None,
        devices: Path | None = None,
        restored: Sequence[Decision] = (),
    ) -> None:
        """`devices` is the folder in which a lowered power limit is remembered.

        `restored` says what became of power limits that killed processes had left lowered.
        """
        self.limits, self.rules = limits, rules
        self._leases, self._setter, self._devices = leases, setter, devices
        self._restored: Sequence[Decision] = restored
        self._trace = trace
        self._follower = follower

    @classmethod
    @contextmanager
    def opened(cls, file: PipelineFile, places: Places) -> Iterator[Self]:
        """The source that the pipeline's ``[gate]`` names. Raises BadConfiguration."""
        limits, rules = file.pipeline.gate, file.pipeline.forecast
        leases = Leases(settings.lease_folder() or places.devices)
        setter = NvmlLimitSetter(**_pretended())
        # Whatever this run's own gate goes by: a device must not stay slow for ever.
        restored = power_limits.restore_leftover_limits(places.devices, setter)
        with ExitStack() as stack:
            trace, follower = None, None
            if limits.reads_from == "trace" and limits.trace is not None:
                trace = _trace(file, limits.trace)
            elif limits.reads_from != "off":
                door = stack.enter_context(_door(limits.reads_from))
                follower = DeviceMonitor(door, limits, rules, places.devices)
                stack.enter_context(follower)
            yield cls(limits, rules, leases, trace, follower, setter, places.devices, restored)

    def take_restored(self) -> Sequence[Decision]:
        """What became of power limits that were left lowered; whoever asks first records it."""
        restored, self._restored = self._restored, ()
        return restored

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

    def look(self, state: PipelineState, limits: GateConfig) -> MonitorView:
        """What is seen at this position, judged by `limits` from what `state` remembers."""
        if self._follower is not None:
            return self._follower.judge(state.gate, limits)
        now_s = self.gate_s(state.position)
        if self._trace is None:
            survey = DeviceSnapshot(readings=(), driver="absent", because="the gate is off")
        else:
            survey = self._trace.survey(state.gate_s, now_s)
        known, trials = _learned(survey, state.known, limits, self.rules)
        judged = gate.judge(survey, state.gate, limits, now_s)
        return MonitorView(survey, judged, known, now_s, trials)

    def lease(self, uuid: str, who: str) -> Lease | None:
        """The device for `who` alone, or None where another job has it."""
        return self._leases.take(uuid, who)

    def holder(self, uuid: str) -> str:
        """Who has the lease of a device, in words."""
        return self._leases.holder(uuid)

    def device(self, uuid: str) -> Device | None:
        """What a live device tells of itself, its limits and our rights among it."""
        return None if self._follower is None else self._follower.device(uuid)

    @contextmanager
    def capped(self, uuid: str | None, cap_w: float | None) -> Iterator[PowerLimitResult | None]:
        """Run the block with the device's limit lowered, where one is to be; None where none is."""
        if uuid is None or cap_w is None or self._setter is None or self._devices is None:
            yield None
            return
        with power_limits.capped(uuid, cap_w, self._devices, self._setter) as capping:
            yield capping

    @contextmanager
    def subscribe(self, listener: Callable[[MonitorView], None]) -> Iterator[None]:
        """Hand every look at live devices to `listener` inside the block, in another thread."""
        if self._follower is None:
            yield
            return
        with self._follower.subscribe(listener):
            yield

    def latest(self) -> DeviceSnapshot:
        """What live devices tell now, on the monotonic clock; of a recorded trace nothing."""
        if self._follower is not None:
            return self._follower.view().survey
        because = "the gate is off" if self._trace is None else _OF_ANOTHER_DAY
        return DeviceSnapshot(readings=(), driver="absent", because=because)

    def energy(self, before: DeviceSnapshot, seconds: float, uuid: str | None = None) -> Energy:
        """What the watched devices used in the `seconds` since `before` was told.

        `uuid` is the one device that counts; None: the one that the gate goes by, or all. Unknown
        with a recorded trace, whose clock stands still while a job runs.
        """
        if self._trace is not None:
            return Energy(None, None, _OF_ANOTHER_DAY)
        return energy.used(before, self.latest(), seconds, uuid=uuid or self.limits.uuid)


def _learned(
    survey: DeviceSnapshot,
    before: dict[str, ThermalState],
    limits: GateConfig,
    rules: ForecastConfig,
) -> tuple[dict[str, ThermalState], tuple[ForecastTrial, ...]]:
    """What is known of the devices after these readings; `before` is left as it is."""
    known, trials = dict(before), list[ForecastTrial]()
    for reading in survey.readings:
        learned = forecast.learn(known.get(reading.uuid, ThermalState()), reading, limits, rules)
        known[reading.uuid] = learned.known
        trials.extend(ForecastTrial(reading.uuid, each) for each in learned.checked)
    return known, tuple(trials)


def _door(source: str) -> DeviceAdapter:
    if source == "cpu":
        return CpuSensorAdapter()
    return NvmlAdapter(visible=settings.visible_devices(), **_pretended())


def _pretended() -> _Pretended:
    """A stand-in for NVIDIA's library, where the environment names one."""
    twin = settings.fake_nvml()
    return {} if twin is None else {"twin": twin}


def _trace(file: PipelineFile, path: str) -> Trace:
    try:
        return Trace.load(file.beside(path))
    except TraceUnreadable as error:
        raise BadConfiguration(f"{file.path}: gate.trace: {error}") from error
