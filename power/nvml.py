"""Door to NVIDIA's management library (NVML), the only file that imports pynvml.

NVML calls can hang for ever or take their process down. So a process of its own reads the devices
and says what it read; `NvmlDoor` on our side hands out the last it heard, and stops and restarts a
reader that falls silent. Nothing here blocks for longer than a short bound, and nothing is decided:
what cannot be read is None, with a note of what was missing and what to do about it.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import pynvml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from power import energy
from power.child import Watched
from power.gate import THROTTLE_BITS, Driver, GpuReading, Survey
from power.twin import StandIn, StandInNvml

Rung = Literal["margin", "threshold"]

_ABSENT: Final = frozenset(
    {pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED}
)
_NOT_OFFERED: Final = frozenset(
    {pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.NVML_ERROR_NOT_SUPPORTED}
)
_REMEDIES: Final[Mapping[int, str]] = {
    pynvml.NVML_ERROR_NOT_SUPPORTED: "this device does not tell it",
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: "install a newer NVIDIA driver",
    pynvml.NVML_ERROR_NO_PERMISSION: "let this user read the device (/dev/nvidia*)",
    pynvml.NVML_ERROR_GPU_IS_LOST: "reset the device, or reboot the machine",
    pynvml.NVML_ERROR_RESET_REQUIRED: "reset the device, or reboot the machine",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "reload the driver or reboot: it was updated",
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "install the NVIDIA driver, if this machine has a GPU",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "load the NVIDIA driver, if this machine has a GPU",
}
_ASK_NVIDIA_SMI: Final = "see whether nvidia-smi can read it"
_SET_MAXIMUM: Final = "or set max_temperature_c in [gate]"
_UNSIGNED_BLANKS: Final = frozenset({0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF})
_FIRST_BLANK, _LAST_BLANK = 0x7FFFFFF0, 0x7FFFFFFF
"""NVIDIA's tools write these, and all bits set, where there is no value."""
_READER: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from power import nvml; nvml.serve(sys.argv[2])"
)


class Missing(BaseModel):
    """Something that a device did not tell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    why: str
    remedy: str


class Device(BaseModel):
    """One device as it was read. None is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uuid: str
    name: str | None = None
    read_s_ago: float = Field(default=0.0, ge=0, description="Seconds before it was told.")
    rung: Rung | None = Field(
        default=None, description="margin: T.Limit; threshold: slowdown minus temperature."
    )
    temperature_c: float | None = None
    memory_temperature_c: float | None = None
    margin_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    utilization: float | None = Field(default=None, description="Percent.")
    throttle_reasons: str | None = None
    energy_j: float | None = Field(default=None, description="Used since the driver was loaded.")
    missing: tuple[Missing, ...] = ()

    def reading(self, read_at_s: float) -> GpuReading:
        """What the gate needs of it, stamped with a moment of the gate's clock."""
        facts = self.model_dump(include=GpuReading.model_fields.keys() - {"read_at_s"})
        return GpuReading(read_at_s=read_at_s, **facts)


class Sweep(BaseModel):
    """What one round over all devices found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    driver: Driver
    because: str
    devices: tuple[Device, ...] = ()


class Errand(BaseModel):
    """What the reading process is started with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    poll_s: float
    visible: str | None = None
    twin: StandIn | None = None


class NvmlDoor:
    """Readings of all devices, from a process of its own. A context manager, or call `close`.

    `visible` is the value of CUDA_VISIBLE_DEVICES, where the job is bound by it. `twin` is a
    stand-in library, for tests and demonstrations. `clock` is the clock that `now_s` is read from.
    `first_answer_s` bounds the one wait, on the first survey; a reader that says nothing for
    `hang_s` (`start_s` while it starts) is stopped, and started again once it is gone.
    """

    def __init__(
        self,
        *,
        visible: str | None = None,
        twin: StandIn | None = None,
        clock: Callable[[], float] = time.monotonic,
        poll_s: float = 1.0,
        first_answer_s: float = 2.0,
        hang_s: float = 10.0,
        start_s: float = 30.0,
    ) -> None:
        errand = Errand(poll_s=poll_s, visible=visible, twin=twin)
        root = str(Path(__file__).resolve().parents[1])
        self._reader = Watched(
            [sys.executable, "-P", "-c", _READER, root, errand.model_dump_json()],
            _sweep_of,
            lambda sweep: sweep.driver == "present",
            clock=clock,
            hang_s=hang_s,
            start_s=start_s,
        )
        self._clock, self._first_answer_s = clock, first_answer_s
        self._waited = self._closed = False
        self._shown: Sweep | None = None
        self._readings: tuple[GpuReading, ...] = ()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process that reads, while there is one."""
        return self._reader.pid

    def start(self) -> None:
        """Start reading, without waiting for an answer. A survey starts it too."""
        self._reader.start(self._clock())

    def survey(self, now_s: float) -> Survey:
        """The last readings, and what is known of the driver. Waits only the first time."""
        if self._closed:
            return Survey(driver="unreadable", because="this door is closed")
        if not self._waited:
            self._waited = True
            self._reader.start(now_s)
            self._reader.wait_for_news(self._first_answer_s)
        heard = self._reader.look(now_s)
        sweep = heard.message
        if sweep is not None and sweep is not self._shown:
            # Stamped once, so that a reading that is told again is the same reading.
            self._readings = self._stamped(sweep, heard.at_s, now_s)
        self._shown = sweep
        if heard.failure is not None:
            because = f"the process that reads the GPUs: {heard.failure}; {_ASK_NVIDIA_SMI}"
            return Survey(driver="unreadable", because=because, readings=self._readings)
        if sweep is None:
            because = f"the GPUs have not answered yet, after {now_s - heard.at_s:.1f} s"
            return Survey(driver="unreadable", because=because)
        return Survey(driver=sweep.driver, because=sweep.because, readings=self._readings)

    def devices(self) -> tuple[Device, ...]:
        """The devices of the round that the last survey showed, with what they did not tell."""
        return self._shown.devices if self._shown else ()

    def wait_for_news(self, timeout_s: float) -> bool:
        """Wait until something was said that no survey has shown; False after `timeout_s`."""
        return self._reader.wait_for_news(timeout_s)

    def close(self, patience_s: float = 2.0) -> None:
        """End the reading process. Waits at most twice `patience_s`."""
        self._closed = True
        self._reader.close(patience_s)

    def _stamped(self, sweep: Sweep, heard_at_s: float, now_s: float) -> tuple[GpuReading, ...]:
        """The round's readings on our clock.

        Never later than now, since the first survey waits for readings younger than its `now_s`;
        and never earlier than those shown before, however late each was heard.
        """
        told_at_s = min(heard_at_s, now_s)
        shown = {reading.uuid: reading.read_at_s for reading in self._readings}
        return tuple(
            device.reading(
                max(
                    told_at_s - device.read_s_ago,
                    math.nextafter(shown.get(device.uuid, -math.inf), math.inf),
                )
            )
            for device in sweep.devices
        )


def _sweep_of(line: str) -> Sweep | None:
    try:
        return Sweep.model_validate_json(line)
    except ValidationError:
        # What a library printed by itself is not for us.
        return None


def serve(errand_json: str) -> None:
    """Be the reading process: say one round per line until our parent is gone."""
    # In a thread, since a hanging call of the driver must not keep an orphan alive.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    errand = Errand.model_validate_json(errand_json)
    if errand.twin is not None:
        pynvml.nvmlLib = StandInNvml(errand.twin)
    pause = threading.Event()
    for sweep in sweeps(errand.visible):
        # The line begins afresh, whatever a library may have printed without ending its own.
        sys.stdout.write(f"\n{sweep.model_dump_json()}\n")
        sys.stdout.flush()
        pause.wait(errand.poll_s)


def _end_with_parent() -> None:  # pragma: no cover - runs in the reading process
    while os.read(0, 4096):
        pass
    os._exit(0)


def sweeps(visible: str | None = None) -> Iterator[Sweep]:
    """Rounds over all devices; ends after the first that could read none."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        driver: Driver = "absent" if error.value in _ABSENT else "unreadable"
        yield Sweep(driver=driver, because=f"NVML cannot start: {_why(error)}; {_remedy(error)}")
        return
    known: dict[str, str | None] = {}
    while True:
        sweep = _sweep(visible, known)
        yield sweep
        if sweep.driver != "present":
            return
        known |= {device.uuid: device.name for device in sweep.devices}


def _sweep(visible: str | None, known: Mapping[str, str | None]) -> Sweep:
    try:
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        because = f"the devices cannot be counted: {_why(error)}; {_remedy(error)}"
        return Sweep(driver="unreadable", because=because)
    found: dict[str, Device] = {}
    hidden: list[str] = []
    lost: list[str] = []
    asked_at_s: dict[str, float] = {}
    for index in range(count):
        began_s = time.monotonic()
        try:
            device = _read(index)
        except pynvml.NVMLError as error:
            lost.append(f"device {index} does not answer: {_why(error)}; {_remedy(error)}")
            continue
        if not is_visible(index, device.uuid, visible):
            hidden.append(device.uuid)
            continue
        found[device.uuid], asked_at_s[device.uuid] = device, began_s
    # A device that answered before and is silent now is told as unknown, so that it closes at once.
    for uuid in known.keys() - found.keys():
        found[uuid] = _unanswered(uuid, known[uuid], "; ".join(lost) or "it is no longer listed")
    told_at_s = time.monotonic()
    devices = tuple(
        device.model_copy(update={"read_s_ago": told_at_s - asked_at_s.get(uuid, told_at_s)})
        for uuid, device in found.items()
    )
    return _told(devices, visible, hidden, lost)


def _told(
    devices: tuple[Device, ...], visible: str | None, hidden: Sequence[str], lost: Sequence[str]
) -> Sweep:
    """The round in words. A process that is shown no device on purpose has none to keep cool."""
    if devices:
        count = f"{len(devices)} device{'' if len(devices) == 1 else 's'}"
        return Sweep(
            driver="present", because="; ".join([f"NVML, {count}", *lost]), devices=devices
        )
    if lost:
        return Sweep(driver="unreadable", because="; ".join(lost))
    if visible is not None and visible.strip() in {"", "-1"}:
        because = f"CUDA_VISIBLE_DEVICES = {visible!r} shows this process no device"
        return Sweep(driver="absent", because=because)
    if hidden:
        because = (
            f"CUDA_VISIBLE_DEVICES = {visible!r} names none of {', '.join(hidden)}; correct it"
        )
        return Sweep(driver="unreadable", because=because)
    because = f"the driver answers and sees no device; {_ASK_NVIDIA_SMI}"
    return Sweep(driver="unreadable", because=because)


def is_visible(index: int, uuid: str, visible: str | None) -> bool:
    """Whether CUDA_VISIBLE_DEVICES = `visible` shows a device; None shows all.

    As CUDA does, entries are numbers or beginnings of names, and the first invalid one ends the
    list. Numbers count in PCI order, as they do for CUDA with CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    if visible is None:
        return True
    for entry in (part.strip() for part in visible.split(",")):
        if entry.isdecimal():
            if int(entry) == index:
                return True
        elif not entry.startswith("GPU-"):
            return False
        elif uuid.startswith(entry):
            return True
    return False


def _read(index: int) -> Device:
    """One device. Raises NVMLError where not even its name can be had."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    uuid = pynvml.nvmlDeviceGetUUID(handle)
    try:
        return _Interview(handle).device(uuid)
    except pynvml.NVMLError as error:
        return _unanswered(uuid, None, _why(error))


def _unanswered(uuid: str, name: str | None, why: str) -> Device:
    remedy = _REMEDIES[pynvml.NVML_ERROR_GPU_IS_LOST]
    return Device(uuid=uuid, name=name, missing=(Missing(what="device", why=why, remedy=remedy),))


class _Interview:
    """Questions to one device: what it does not tell is None, and noted.

    A device that is lost is no missing answer: that error passes through every question.
    """

    def __init__(self, handle: object) -> None:
        self._handle = handle
        self._missing: list[Missing] = []

    def device(self, uuid: str) -> Device:
        temperature_c = self._number("temperature_c", *_TEMPERATURE)
        memory_temperature_c, slowdown_c = self._fields()
        margin_c, rung = self._margin(temperature_c, slowdown_c)
        power_mw = self._number("power_w", pynvml.nvmlDeviceGetPowerUsage)
        limit_mw = self._number("power_limit_w", pynvml.nvmlDeviceGetEnforcedPowerLimit)
        return Device(
            uuid=uuid,
            name=self._ask("name", pynvml.nvmlDeviceGetName),
            rung=rung,
            temperature_c=temperature_c,
            memory_temperature_c=memory_temperature_c,
            margin_c=margin_c,
            power_w=None if power_mw is None else power_mw / 1000,
            power_limit_w=None if limit_mw is None else limit_mw / 1000,
            utilization=self._number("utilization", _busy_percent),
            throttle_reasons=self._throttle_reasons(),
            energy_j=self._energy_j(),
            missing=tuple(self._missing),
        )

    def _energy_j(self) -> float | None:
        """The counter in joules. Devices from Volta on have one; it counts millijoules."""
        answer = self._number("energy_j", pynvml.nvmlDeviceGetTotalEnergyConsumption)
        energy_j = energy.plausible_j(None if answer is None else answer / 1000)
        if answer is not None and energy_j is None:
            self._note("energy_j", f"it answers {answer:.0f} mJ: impossible", _ASK_NVIDIA_SMI)
        return energy_j

    def _ask(self, what: str, *questions: Callable[[Any], Any]) -> Any:
        """The answer to the first question that this driver and device offer, or None."""
        refusal: Any = None
        for question in questions:
            try:
                return question(self._handle)
            except pynvml.NVMLError as error:
                if error.value == pynvml.NVML_ERROR_GPU_IS_LOST:
                    raise
                refusal = error
                if error.value not in _NOT_OFFERED:
                    break
        self._note(what, _why(refusal), _remedy(refusal))
        return None

    def _number(self, what: str, *questions: Callable[[Any], Any]) -> float | None:
        return self._unless_blank(what, self._ask(what, *questions))

    def _unless_blank(self, what: str, value: Any) -> float | None:
        if value is None:
            return None
        if value in _UNSIGNED_BLANKS or _FIRST_BLANK <= value <= _LAST_BLANK:
            self._note(what, f"it answers {value}, which stands for no value", _ASK_NVIDIA_SMI)
            return None
        return float(value)

    def _note(self, what: str, why: str, remedy: str) -> None:
        self._missing.append(Missing(what=what, why=why, remedy=remedy))

    def _fields(self) -> tuple[float | None, float | None]:
        """Memory temperature, and the T.Limit at which the hardware slows down; both degrees."""
        names = ("memory_temperature_c", "slowdown_tlimit_c")
        answers = self._ask("memory_temperature_c, slowdown_tlimit_c", _fields_of)
        if answers is None:
            return None, None
        memory, slowdown = (
            self._field(what, field) for what, field in zip(names, answers, strict=True)
        )
        return memory, slowdown

    def _field(self, what: str, field: Any) -> float | None:
        if field.nvmlReturn != pynvml.NVML_SUCCESS:
            error = pynvml.NVMLError(field.nvmlReturn)
            self._note(what, _why(error), _remedy(error))
            return None
        # Temperatures are 32 bits wide, and signed whatever the type of the field says.
        is_double = field.valueType == pynvml.NVML_VALUE_TYPE_DOUBLE
        return self._unless_blank(what, field.value.dVal if is_double else field.value.siVal)

    def _margin(
        self, temperature_c: float | None, slowdown_tlimit_c: float | None
    ) -> tuple[float | None, Rung | None]:
        """Degrees to where the hardware slows down, and the rung that they stand on.

        T.Limit counts down to 0 and below; the hardware slows down at an offset that differs by
        model. Where the offset is not told, T.Limit itself is the margin: the offsets known are
        negative, so that is the smaller number, and the safer one.
        """
        tlimit_c = self._number("tlimit_c", pynvml.nvmlDeviceGetMarginTemperature)
        if tlimit_c is not None:
            return tlimit_c - (slowdown_tlimit_c or 0.0), "margin"
        if temperature_c is None or not self._trusts_threshold():
            self._note("margin_c", "neither T.Limit nor a threshold to trust", _SET_MAXIMUM)
            return None, None
        threshold_c = self._number("slowdown_c", _slowdown_threshold_c)
        if threshold_c is None:
            self._note("margin_c", "neither T.Limit nor a slowdown threshold", _SET_MAXIMUM)
            return None, None
        return threshold_c - temperature_c, "threshold"

    def _trusts_threshold(self) -> bool:
        """NVIDIA withdrew the older threshold call from Ada on; an unknown model is not trusted."""
        architecture = self._number("architecture", pynvml.nvmlDeviceGetArchitecture)
        return architecture is not None and architecture < pynvml.NVML_DEVICE_ARCH_ADA

    def _throttle_reasons(self) -> str | None:
        mask = self._ask(
            "throttle_reasons",
            pynvml.nvmlDeviceGetCurrentClocksEventReasons,
            pynvml.nvmlDeviceGetCurrentClocksThrottleReasons,
        )
        if mask is None:
            return None
        return "|".join(name for bit, name in THROTTLE_BITS.items() if mask & bit) or "none"


def _core_c(handle: Any) -> int:
    return int(pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU))


def _core_before_cuda_13_c(handle: Any) -> int:
    return int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))


def _busy_percent(handle: Any) -> int:
    return int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)


def _slowdown_threshold_c(handle: Any) -> int:
    kind = pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
    return int(pynvml.nvmlDeviceGetTemperatureThreshold(handle, kind))


def _fields_of(handle: Any) -> Any:
    fields = [pynvml.NVML_FI_DEV_MEMORY_TEMP, pynvml.NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT]
    return pynvml.nvmlDeviceGetFieldValues(handle, fields)


_TEMPERATURE: Final = (_core_c, _core_before_cuda_13_c)


def _why(error: Any) -> str:
    return f"{error} (NVML {error.value})"


def _remedy(error: Any) -> str:
    return _REMEDIES.get(error.value, _ASK_NVIDIA_SMI)
