"""The processes that talk to one GPU through NVIDIA's library: the one file that imports pynvml.

NVML calls can hang for ever or take their process down, and one GPU that does so must not hide the
others: so each device has a process of its own, which says what it read, line by line, and ends
itself when a call does not return. A power limit is set in the same way, by a process for that
alone. Nothing is decided: what cannot be read is None, with a note of what was missing and what to
do about it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pynvml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from observability.core import parent_watch
from power.core import device_readings
from power.core.device_readings import THROTTLE_BITS, Driver, Rung
from power.devices.device import (
    PRIVILEGE,
    RESET,
    Device,
    LimitChange,
    Missing,
    PowerLimit,
    unanswered,
)
from power.devices.fake_nvml import StandIn, StandInNvml

ASK_NVIDIA_SMI: Final = "see whether nvidia-smi can read it"
STUCK: Final = 70
"""The exit code of a process whose call did not return."""

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
    pynvml.NVML_ERROR_GPU_IS_LOST: RESET,
    pynvml.NVML_ERROR_RESET_REQUIRED: RESET,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "reload the driver or reboot: it was updated",
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "install the NVIDIA driver, if this machine has a GPU",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "load the NVIDIA driver, if this machine has a GPU",
}
_REMEDIES_OF_LIMITS: Final[Mapping[int, str]] = {
    pynvml.NVML_ERROR_NOT_SUPPORTED: "this device takes no power limit",
    pynvml.NVML_ERROR_NO_PERMISSION: PRIVILEGE,
    pynvml.NVML_ERROR_NOT_FOUND: "nvidia-smi -L lists the devices that are here",
    pynvml.NVML_ERROR_INVALID_ARGUMENT: "thermodrift gpu probe tells the range that it takes",
}
_SET_MAXIMUM: Final = "or set max_temperature_c in [gate]"
_UNSIGNED_BLANKS: Final = frozenset({0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF})
_FIRST_BLANK, _LAST_BLANK = 0x7FFFFFF0, 0x7FFFFFFF
"""NVIDIA's tools write these, and all bits set, where there is no value."""
_BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    # What the gate does not judge is judged here; beyond these no device exists.
    "slowdown_offset_c": (-100.0, 100.0),
    "threshold_c": (20.0, 150.0),
    "power_limit_min_w": (0.0, 20e6),
    "power_limit_max_w": (0.0, 20e6),
    "clock_mhz": (0.0, 100_000.0),
    "memory_clock_mhz": (0.0, 100_000.0),
    "memory_used_bytes": (0.0, 1e15),
    "memory_total_bytes": (0.0, 1e15),
}
"""Plausible answers; those of power limits are milliwatts, as NVML gives them."""
_CAP_SYS_ADMIN: Final = 1 << 21


class Errand(BaseModel):
    """What a reading process is started with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int = Field(ge=0, description="The device's number in PCI order.")
    poll_s: float
    hang_s: float = Field(description="How long a call may take; the first ones have start_s.")
    start_s: float
    twin: StandIn | None = None


class Report(BaseModel):
    """What one round found. `device` is None until it was read once, and where it cannot be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    driver: Driver
    count: int | None = Field(default=None, description="Devices that the driver lists.")
    uuid: str | None = None
    mig: tuple[str, ...] = ()
    device: Device | None = None
    trouble: str | None = Field(default=None, description="What went wrong, with its remedy.")

    @property
    def is_well(self) -> bool:
        """Whether the device was read."""
        return self.device is not None and self.device.unreadable is None


class LimitErrand(BaseModel):
    """What a process is started with that reads one device's limit, or sets it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uuid: str
    from_w: float | None = Field(default=None, description="Set it only where it is at this one.")
    to_w: float | None = Field(default=None, description="What to set it to; None: only read it.")
    hang_s: float
    twin: StandIn | None = None


class LimitReport(BaseModel):
    """The limit that was found, and the one that is there afterwards; or why not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    change: LimitChange | None = None
    trouble: str | None = Field(default=None, description="What went wrong, with its remedy.")


class Asking:
    """What the library was asked last and when, for whoever watches over it."""

    def __init__(self, patience_s: float) -> None:
        self.what: str | None = None
        self.since_s = 0.0
        self.patience_s = patience_s

    def __call__(self, what: str | None) -> None:
        """Note that `what` is asked now; None: nothing is."""
        self.what, self.since_s = what, time.monotonic()

    def stuck(self) -> str | None:
        """What has not returned for longer than it may take."""
        what, lasted_s = self.what, time.monotonic() - self.since_s
        if what is None or lasted_s <= self.patience_s:
            return None
        return f"the driver has not returned from {what} for {lasted_s:.1f} s"


def serve(errand_json: str) -> None:
    """Be the reading process: say one report per line until our parent is gone."""
    errand = Errand.model_validate_json(errand_json)
    asking = _begin(errand.start_s, errand.hang_s, errand.twin)
    pause = threading.Event()
    for report in reports(errand.index, asking):
        _say(_as_privileged(report, errand.twin))
        if report.device is not None:
            asking(None)
            asking.patience_s = errand.hang_s
            pause.wait(errand.poll_s)


def limit(errand_json: str) -> None:
    """Be the process that reads or sets one limit: say one report, and end."""
    errand = LimitErrand.model_validate_json(errand_json)
    _say(limit_report(errand, _begin(errand.hang_s, errand.hang_s, errand.twin)))


def _begin(start_s: float, hang_s: float, twin: StandIn | None) -> Asking:
    """Be watched over, and end with our parent."""
    asking = Asking(start_s)
    parent_watch.exit_with_parent()
    threading.Thread(target=_end_if_stuck, args=(asking, hang_s), daemon=True).start()
    if twin is not None:
        pynvml.nvmlLib = StandInNvml(twin)
    return asking


def _say(report: BaseModel) -> None:
    # The line begins afresh, whatever a library may have printed without ending its own.
    sys.stdout.write(f"\n{report.model_dump_json()}\n")
    sys.stdout.flush()


def _as_privileged(report: Report, twin: StandIn | None) -> Report:
    if twin is None or twin.may_set_limit is None or report.device is None:
        return report
    device = report.device.model_copy(update={"may_set_limit": twin.may_set_limit})
    return report.model_copy(update={"device": device})


def _end_if_stuck(asking: Asking, hang_s: float) -> None:  # pragma: no cover - in that process
    while (why := asking.stuck()) is None:
        time.sleep(min(hang_s / 10, 0.5))
    sys.stdout.write(f"\n{why}\n")
    sys.stdout.flush()
    os._exit(STUCK)


def reports(index: int, asking: Callable[[str | None], None]) -> Iterator[Report]:
    """Rounds over device `index`; ends after the first that could not read it.

    What is found is told as soon as it is known: first how many devices there are, then the name
    of this one, then its numbers, so that one that hangs is missed by its name.
    """
    try:
        asking("nvmlInit")
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        driver: Driver = "absent" if error.value in _ABSENT else "unreadable"
        trouble = f"NVML cannot start: {_why(error)}; {_remedy(error)}"
        yield Report(driver=driver, trouble=trouble)
        return
    try:
        asking("nvmlDeviceGetCount")
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        trouble = f"the devices cannot be counted: {_why(error)}; {_remedy(error)}"
        yield Report(driver="unreadable", trouble=trouble)
        return
    if index >= count:
        seen = f"lists {count} devices and not number {index}" if count else "sees no device"
        trouble = f"the driver answers and {seen}; {ASK_NVIDIA_SMI}"
        yield Report(driver="present", count=count, trouble=trouble)
        return
    yield Report(driver="present", count=count)
    yield from _rounds(index, Report(driver="present", count=count), asking)


def _rounds(index: int, known: Report, asking: Callable[[str | None], None]) -> Iterator[Report]:
    while True:
        began_s = time.monotonic()
        try:
            asking("nvmlDeviceGetHandleByIndex")
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            asking("nvmlDeviceGetUUID")
            uuid = pynvml.nvmlDeviceGetUUID(handle)
        except pynvml.NVMLError as error:
            trouble = f"{_why(error)}; {_remedy(error)}"
            yield known.model_copy(update={"device": None, "trouble": trouble})
            return
        if known.uuid != uuid:
            known = known.model_copy(update={"uuid": uuid, "mig": _instances(handle, asking)})
            yield known
        device = _read(handle, known, asking)
        age_s = time.monotonic() - began_s
        lost = device.unreadable and f"{device.unreadable}; {device.missing[0].remedy}"
        device = device.model_copy(update={"read_s_ago": age_s})
        report = known.model_copy(update={"device": device, "trouble": lost})
        yield report
        if not report.is_well:
            return


def _read(handle: object, known: Report, asking: Callable[[str | None], None]) -> Device:
    uuid = known.uuid or ""
    try:
        return _Interview(handle, asking).device(uuid, known.mig)
    except pynvml.NVMLError as error:
        return unanswered(uuid, None, _why(error), _remedy(error))


def _instances(handle: object, asking: Callable[[str | None], None]) -> tuple[str, ...]:
    """The names of the device's MIG instances; a device that cannot be divided has none."""
    found = []
    try:
        asking("nvmlDeviceGetMigMode")
        if pynvml.nvmlDeviceGetMigMode(handle)[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
            return ()
        for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            try:
                instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
                found.append(pynvml.nvmlDeviceGetUUID(instance))
            except pynvml.NVMLError:
                # A slot in which no instance was made.
                continue
    except pynvml.NVMLError:
        # What cannot be asked is told by the readings themselves.
        return tuple(found)
    return tuple(found)


class _Interview:
    """Questions to one device: what it does not tell is None, and noted.

    A device that is lost is no missing answer: that error passes through every question.
    """

    def __init__(self, handle: object, asking: Callable[[str | None], None]) -> None:
        self._handle, self._asking = handle, asking
        self._missing: list[Missing] = []
        self._discarded = 0

    def device(self, uuid: str, mig: tuple[str, ...]) -> Device:
        temperature_c = self._number("temperature_c", *_TEMPERATURE)
        memory_temperature_c, offset_c = self._fields()
        margin = self._margin(temperature_c, offset_c)
        told = {
            "name": self._ask("name", pynvml.nvmlDeviceGetName),
            "temperature_c": temperature_c,
            "memory_temperature_c": memory_temperature_c,
            "slowdown_offset_c": offset_c,
            **margin,
            **self._power(),
            "utilization": self._number("utilization", _busy_percent),
            "clock_mhz": self._number("clock_mhz", _clock_mhz),
            "memory_clock_mhz": self._number("memory_clock_mhz", _memory_clock_mhz),
            **self._memory(),
            "throttle_reasons": self._throttle_reasons(),
            "energy_j": self._energy_j(),
        }
        return Device(
            uuid=uuid,
            mig=mig,
            may_set_limit=may_set_limit(),
            discarded=self._discarded,
            missing=tuple(self._missing),
            **told,
        )

    def _power(self) -> dict[str, float | None]:
        """Draw, limit and the limit's range, in watts; NVML gives milliwatts."""
        least, most = self._pair(
            ("power_limit_min_w", "power_limit_max_w"),
            pynvml.nvmlDeviceGetPowerManagementLimitConstraints,
        )
        told_mw = {
            "power_w": self._number("power_w", pynvml.nvmlDeviceGetPowerUsage),
            "power_limit_w": self._number("power_limit_w", pynvml.nvmlDeviceGetEnforcedPowerLimit),
            "power_limit_min_w": least,
            "power_limit_max_w": most,
        }
        return {name: None if mw is None else mw / 1000 for name, mw in told_mw.items()}

    def _memory(self) -> dict[str, float | None]:
        used, total = self._pair(("memory_used_bytes", "memory_total_bytes"), _memory_of)
        return {"memory_used_bytes": used, "memory_total_bytes": total}

    def _energy_j(self) -> float | None:
        """The counter in joules. Devices from Volta on have one; it counts millijoules."""
        answer = self._number("energy_j", pynvml.nvmlDeviceGetTotalEnergyConsumption)
        energy_j = device_readings.plausible_j(None if answer is None else answer / 1000)
        if answer is not None and energy_j is None:
            self._discard("energy_j", f"it answers {answer:.0f} mJ: impossible")
        return energy_j

    def _ask(self, what: str, *questions: Callable[[Any], Any]) -> Any:
        """The answer to the first question that this driver and device offer, or None."""
        refusal: Any = None
        for question in questions:
            try:
                self._asking(what)
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
        return self._sound(what, self._ask(what, *questions))

    def _pair(
        self, names: tuple[str, str], question: Callable[[Any], Any]
    ) -> tuple[float | None, float | None]:
        """Two numbers of one answer."""
        answers = self._ask(", ".join(names), question)
        if answers is None:
            return None, None
        first, second = (self._sound(name, each) for name, each in zip(names, answers, strict=True))
        return first, second

    def _sound(self, what: str, value: Any) -> float | None:
        """The value, unless it stands for none or cannot be."""
        if value is None:
            return None
        if value in _UNSIGNED_BLANKS or _FIRST_BLANK <= value <= _LAST_BLANK:
            self._discard(what, f"it answers {value}, which stands for no value")
            return None
        least, most = _BOUNDS.get(what, (value, value))
        if not least <= value <= most:
            self._discard(what, f"it answers {value}: impossible")
            return None
        return float(value)

    def _discard(self, what: str, why: str) -> None:
        self._discarded += 1
        self._note(what, why, ASK_NVIDIA_SMI)

    def _note(self, what: str, why: str, remedy: str) -> None:
        self._missing.append(Missing(what=what, why=why, remedy=remedy))

    def _fields(self) -> tuple[float | None, float | None]:
        """Memory temperature, and the T.Limit at which the hardware slows down; both degrees."""
        names = ("memory_temperature_c", "slowdown_offset_c")
        answers = self._ask(", ".join(names), _fields_of)
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
        return self._sound(what, field.value.dVal if is_double else field.value.siVal)

    def _margin(self, temperature_c: float | None, offset_c: float | None) -> dict[str, Any]:
        """Degrees to where the hardware slows down, and what they were computed from.

        T.Limit counts down to 0 and below; the hardware slows down at an offset that differs by
        model. Where the offset is not told, T.Limit itself is the margin: the offsets known are
        negative, so that is the smaller number, and the safer one.
        """
        margin_source: Rung = "margin"
        tlimit_c = self._number("tlimit_c", pynvml.nvmlDeviceGetMarginTemperature)
        if tlimit_c is not None:
            return {"margin_c": tlimit_c - (offset_c or 0.0), "margin_source": margin_source}
        if not self._trusts_threshold():
            self._note("margin_c", "neither T.Limit nor a threshold to trust", _SET_MAXIMUM)
            return {}
        threshold_c = self._number("threshold_c", _slowdown_threshold_c)
        if threshold_c is None or temperature_c is None:
            self._note("margin_c", "neither T.Limit nor a slowdown threshold", _SET_MAXIMUM)
            return {"threshold_c": threshold_c}
        margin_c, margin_source = threshold_c - temperature_c, "threshold"
        return {"margin_c": margin_c, "margin_source": margin_source, "threshold_c": threshold_c}

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


def limit_report(errand: LimitErrand, asking: Callable[[str | None], None]) -> LimitReport:
    """Read the device's limit; set it, and read it again, where the errand says so."""
    try:
        asking("nvmlInit")
        pynvml.nvmlInit()
        asking("nvmlDeviceGetHandleByUUID")
        handle = pynvml.nvmlDeviceGetHandleByUUID(errand.uuid)
        before = after = _limit_of(handle, asking)
        if errand.to_w is not None and errand.from_w is not None and before.is_at(errand.from_w):
            asking("nvmlDeviceSetPowerManagementLimit")
            pynvml.nvmlDeviceSetPowerManagementLimit(handle, round(1000 * errand.to_w))
            after = _limit_of(handle, asking)
    except pynvml.NVMLError as error:
        remedy = _REMEDIES_OF_LIMITS.get(error.value) or _remedy(error)
        return LimitReport(trouble=f"{_why(error)}; {remedy}")
    except ValidationError as error:
        # The driver's own numbers: zero, or beyond what any device draws.
        told = "; ".join(f"{each['loc'][-1]} = {each['input']}" for each in error.errors())
        return LimitReport(trouble=f"its limits cannot be: {told}; {ASK_NVIDIA_SMI}")
    return LimitReport(change=LimitChange(before, after))


def _limit_of(handle: object, asking: Callable[[str | None], None]) -> PowerLimit:
    """What the device is set to, which is not always what is enforced, and what it takes."""
    asking("nvmlDeviceGetPowerManagementLimit")
    limit_mw = pynvml.nvmlDeviceGetPowerManagementLimit(handle)
    asking("nvmlDeviceGetPowerManagementLimitConstraints")
    least_mw, most_mw = pynvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
    return PowerLimit(limit_w=limit_mw / 1000, least_w=least_mw / 1000, most_w=most_mw / 1000)


def may_set_limit(status: Path = Path("/proc/self/status")) -> bool:
    """Whether this process has the privilege that the driver asks of who sets power limits.

    On Linux that is CAP_SYS_ADMIN, which root in a container usually lacks.
    """
    try:
        lines = status.read_text(encoding="ascii").splitlines()
    except OSError:
        return os.geteuid() == 0
    held = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(held, 16) & _CAP_SYS_ADMIN)


def _core_c(handle: Any) -> int:
    return int(pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU))


def _core_before_cuda_13_c(handle: Any) -> int:
    return int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))


def _busy_percent(handle: Any) -> int:
    return int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)


def _clock_mhz(handle: Any) -> int:
    return int(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))


def _memory_clock_mhz(handle: Any) -> int:
    return int(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM))


def _memory_of(handle: Any) -> tuple[int, int]:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return int(memory.used), int(memory.total)


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
    return _REMEDIES.get(error.value, ASK_NVIDIA_SMI)
