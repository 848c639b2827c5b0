"""The gate's readings for one run, from the source that the pipeline names, and their clock.

A recorded trace is replayed together with the stream: its clock is the stream's position, so that
the same stream with the same trace leads to the same decisions whenever it runs. Live devices have
the machine's clocks: a monotonic one for ages, and seconds since 1970 for deadlines, which outlive
a process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self, TypedDict

from flows.config import settings
from flows.config.pipeline import PipelineFile
from flows.metrics.gate_recorder import GateRecorder
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


class _FakeLibrary(TypedDict, total=False):
    twin: FakeNvml


_RECORDED = "a recorded trace says nothing about work that runs today"


class PowerSource:
    """The gate's readings, the time on both clocks, and the leases of the devices."""

    def __init__(
        self,
        limits: GateConfig,
        rules: ForecastConfig,
        leases: Leases,
        trace: Trace | None = None,
        monitor: DeviceMonitor | None = None,
        setter: PowerLimitSetter | None = None,
        devices: Path | None = None,
        restored: Sequence[Decision] = (),
        recorder: GateRecorder | None = None,
    ) -> None:
        """`devices` is the folder that remembers a lowered power limit.

        `restored` are the decisions about limits that killed processes had left lowered. `recorder`
        is told of each view of a recorded trace; live views have a listener of their own.
        """
        self.limits, self.rules = limits, rules
        self._leases, self._setter, self._devices = leases, setter, devices
        self._restored: Sequence[Decision] = restored
        self._trace = trace
        self._monitor = monitor
        self._recorder = recorder

    @classmethod
    @contextmanager
    def opened(cls, file: PipelineFile, places: Places) -> Iterator[Self]:
        """The source that the pipeline's ``[gate]`` names. Raises BadConfiguration."""
        limits, rules = file.pipeline.gate, file.pipeline.forecast
        leases = Leases(settings.lease_folder() or places.devices)
        setter = NvmlLimitSetter(**_fake_library())
        # This is done whatever this run's own gate reads: no device must stay slow for ever.
        restored = power_limits.restore_leftover_limits(places.devices, setter)
        recorder = GateRecorder(places.metrics / f"gate-{file.name}.json", file.name, limits)
        with ExitStack() as stack:
            trace, monitor = None, None
            if limits.reads_from == "trace" and limits.trace is not None:
                try:
                    trace = Trace.load(file.beside(limits.trace))
                except TraceUnreadable as error:
                    raise BadConfiguration(f"{file.path}: gate.trace: {error}") from error
            elif limits.reads_from != "off":
                adapter: DeviceAdapter = (
                    CpuSensorAdapter()
                    if limits.reads_from == "cpu"
                    else NvmlAdapter(visible=settings.visible_devices(), **_fake_library())
                )
                opened = stack.enter_context(adapter)
                monitor = DeviceMonitor(opened, limits, rules, places.devices)
                stack.enter_context(monitor)
                stack.enter_context(monitor.subscribe(recorder))
            yield cls(
                limits, rules, leases, trace, monitor, setter, places.devices, restored, recorder
            )

    def take_restored(self) -> Sequence[Decision]:
        """The decisions about limits that were left lowered; only the first caller gets them."""
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
        """The readings at this position, judged by `limits` from the gate's state in `state`."""
        if self._monitor is not None:
            return self._monitor.judge(state.gate, limits)
        now_s = self.gate_s(state.position)
        if self._trace is None:
            snapshot = DeviceSnapshot(readings=(), driver="absent", because="the gate is off")
        else:
            snapshot = self._trace.survey(state.gate_s, now_s)
        known, trials = dict(state.known), list[ForecastTrial]()
        for reading in snapshot.readings:
            before = known.get(reading.uuid, ThermalState())
            learned = forecast.learn(before, reading, limits, self.rules)
            known[reading.uuid] = learned.known
            trials.extend(ForecastTrial(reading.uuid, each) for each in learned.checked)
        judged = gate.judge(snapshot, state.gate, limits, now_s)
        view = MonitorView(snapshot, judged, known, now_s, tuple(trials))
        if self._recorder is not None and self._trace is not None:
            self._recorder(view)
        return view

    def lease(self, uuid: str, who: str) -> Lease | None:
        """The exclusive lease of a device for `who`, or None where another run has it."""
        return self._leases.take(uuid, who)

    def holder(self, uuid: str) -> str:
        """Who has the lease of a device, as text."""
        return self._leases.holder(uuid)

    def device(self, uuid: str) -> Device | None:
        """A live device: its properties, its limits and our rights to set them."""
        return None if self._monitor is None else self._monitor.device(uuid)

    @contextmanager
    def capped(self, uuid: str | None, cap_w: float | None) -> Iterator[PowerLimitResult | None]:
        """Run the block with the device's power limit lowered; None where it is not to be."""
        if uuid is None or cap_w is None or self._setter is None or self._devices is None:
            yield None
            return
        with power_limits.capped(uuid, cap_w, self._devices, self._setter) as capping:
            yield capping

    @contextmanager
    def subscribe(self, listener: Callable[[MonitorView], None]) -> Iterator[None]:
        """Call `listener` with every view of live devices inside the block, in another thread."""
        if self._monitor is None:
            yield
            return
        with self._monitor.subscribe(listener):
            yield

    def latest(self) -> DeviceSnapshot:
        """The newest readings of live devices, on the monotonic clock; none of a recorded trace."""
        if self._monitor is not None:
            return self._monitor.view().survey
        because = "the gate is off" if self._trace is None else _RECORDED
        return DeviceSnapshot(readings=(), driver="absent", because=because)

    def energy(self, before: DeviceSnapshot, seconds: float, uuid: str | None = None) -> Energy:
        """What the devices used in the `seconds` since `before` was read.

        `uuid` is the one device that counts; None: the one that the gate reads, or all. Unknown
        with a recorded trace, whose clock stands still during a fit.
        """
        if self._trace is not None:
            return Energy(None, None, _RECORDED)
        return energy.used(before, self.latest(), seconds, uuid=uuid or self.limits.uuid)


def _fake_library() -> _FakeLibrary:
    """The replacement of NVIDIA's library, where the environment names one."""
    twin = settings.fake_nvml()
    return {} if twin is None else {"twin": twin}
