"""The processes that query one GPU through NVIDIA's library: the only file that imports pynvml.

NVML calls can hang for ever or crash their process, and one such GPU must not hide the others: so
each device has its own process, which reports its readings, one per line, and exits when a call
does not return. A power limit is set by a process of its own as well. Nothing is decided: what
cannot be read is None, with the reason and a remedy.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import pynvml
from pydantic import BaseModel, Field, ValidationError

from observability.core import parent_watch
from power.core import device_readings
from power.core.device_readings import THROTTLE_BITS, Driver, MarginSource
from power.core.frozen_model import FrozenModel
from power.devices.device import (
    PRIVILEGE,
    RESET,
    Device,
    LimitChange,
    Missing,
    PowerLimit,
    unreadable,
)
from power.devices.fake_nvml import FakeNvml, FakeNvmlLibrary

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
    pynvml.NVML_ERROR_NOT_SUPPORTED: "this device does not report it",
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
    pynvml.NVML_ERROR_INVALID_ARGUMENT: "thermodrift gpu probe shows the accepted range",
}
_SET_MAXIMUM: Final = "or set max_temperature_c in [gate]"
_UNSIGNED_BLANKS: Final = frozenset({0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF})
_FIRST_BLANK, _LAST_BLANK = 0x7FFFFFF0, 0x7FFFFFFF
"""NVIDIA's tools write these values, or all bits set, for "no value"."""
_BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    # The gate does not check these values. No device is beyond these bounds.
    "slowdown_offset_c": (-100.0, 100.0),
    "threshold_c": (20.0, 150.0),
    "power_limit_min_w": (0.0, 20e6),
    "power_limit_max_w": (0.0, 20e6),
    "clock_mhz": (0.0, 100_000.0),
    "memory_clock_mhz": (0.0, 100_000.0),
    "memory_used_bytes": (0.0, 1e15),
    "memory_total_bytes": (0.0, 1e15),
}
"""Plausible values; power limits are in milliwatts, as NVML reports them."""
_CAP_SYS_ADMIN: Final = 1 << 21


class WorkerConfig(FrozenModel):
    """The parameters of a reading process."""

    index: int = Field(ge=0, description="The device's number in PCI order.")
    poll_s: float
    hang_s: float = Field(description="How long a call may take; the first ones may take start_s.")
    start_s: float
    twin: FakeNvml | None = None


class Report(FrozenModel):
    """The result of one round. `device` is None before its first reading, and if that failed."""

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


class LimitCommand(FrozenModel):
    """The parameters of a process that reads or sets the limit of one device."""

    uuid: str
    from_w: float | None = Field(default=None, description="Set it only if it is at this one.")
    to_w: float | None = Field(default=None, description="The new limit; None: only read it.")
    hang_s: float
    twin: FakeNvml | None = None


class LimitReport(FrozenModel):
    """The limit before and afterwards, or why it could not be read or set."""

    change: LimitChange | None = None
    trouble: str | None = Field(default=None, description="What went wrong, with its remedy.")


class CallWatchdog:
    """Records the current call of the library and its start, for a watchdog."""

    def __init__(self, patience_s: float) -> None:
        self.what: str | None = None
        self.since_s = 0.0
        self.patience_s = patience_s

    def __call__(self, what: str | None) -> None:
        """Record that the call `what` begins; None: no call is running."""
        self.what, self.since_s = what, time.monotonic()

    def stuck(self) -> str | None:
        """Return a message if the current call takes longer than it may, else None."""
        what, lasted_s = self.what, time.monotonic() - self.since_s
        if what is None or lasted_s <= self.patience_s:
            return None
        return f"the driver has not returned from {what} for {lasted_s:.1f} s"


def serve(errand_json: str) -> None:
    """Run as the reading process: print one report per line until the parent process ends."""
    errand = WorkerConfig.model_validate_json(errand_json)
    asking = _begin(errand.start_s, errand.hang_s, errand.twin)
    pause = threading.Event()
    for report in reports(errand.index, asking):
        _say(_as_privileged(report, errand.twin))
        if report.device is not None:
            asking(None)
            asking.patience_s = errand.hang_s
            pause.wait(errand.poll_s)


def limit(errand_json: str) -> None:
    """Run as the process that reads or sets one limit: print one report and exit."""
    errand = LimitCommand.model_validate_json(errand_json)
    _say(limit_report(errand, _begin(errand.hang_s, errand.hang_s, errand.twin)))


def _begin(start_s: float, hang_s: float, twin: FakeNvml | None) -> CallWatchdog:
    """Start the watchdog, and exit when the parent process ends."""
    asking = CallWatchdog(start_s)
    parent_watch.exit_with_parent()
    threading.Thread(target=_end_if_stuck, args=(asking, hang_s), daemon=True).start()
    if twin is not None:
        pynvml.nvmlLib = FakeNvmlLibrary(twin)
    return asking


def _say(report: BaseModel) -> None:
    # A library may have printed text without a line end, so the report begins on a new line.
    sys.stdout.write(f"\n{report.model_dump_json()}\n")
    sys.stdout.flush()


def _as_privileged(report: Report, twin: FakeNvml | None) -> Report:
    if twin is None or twin.may_set_limit is None or report.device is None:
        return report
    device = report.device.model_copy(update={"may_set_limit": twin.may_set_limit})
    return report.model_copy(update={"device": device})


def _end_if_stuck(
    asking: CallWatchdog, hang_s: float
) -> None:  # pragma: no cover - in that process
    while (why := asking.stuck()) is None:
        time.sleep(min(hang_s / 10, 0.5))
    sys.stdout.write(f"\n{why}\n")
    sys.stdout.flush()
    os._exit(STUCK)


def reports(index: int, asking: Callable[[str | None], None]) -> Iterator[Report]:
    """Yield reports of device `index`, and end after the first failure.

    Each result is reported as soon as it is known: first the number of devices, then the identifier
    of this one, then its metrics, so that a device that hangs can be reported by its identifier.
    """
    started = False
    try:
        asking("nvmlInit")
        pynvml.nvmlInit()
        started = True
        asking("nvmlDeviceGetCount")
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        failure = "the devices cannot be counted" if started else "NVML cannot start"
        driver: Driver = "absent" if not started and error.value in _ABSENT else "unreadable"
        yield Report(driver=driver, trouble=f"{failure}: {_why(error)}; {_remedy(error)}")
        return
    known = Report(driver="present", count=count)
    if index >= count:
        seen = f"lists {count} devices and not number {index}" if count else "sees no device"
        trouble = f"the driver answers and {seen}; {ASK_NVIDIA_SMI}"
        yield known.model_copy(update={"trouble": trouble})
        return
    yield known
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
        lost = None
        try:
            device = _DeviceQuery(handle, asking).device(uuid, known.mig)
        except pynvml.NVMLError as error:
            device = unreadable(uuid, None, _why(error), _remedy(error))
            lost = f"{_why(error)}; {_remedy(error)}"
        device = device.model_copy(update={"read_s_ago": time.monotonic() - began_s})
        yield known.model_copy(update={"device": device, "trouble": lost})
        if lost is not None:
            return


def _instances(handle: object, asking: Callable[[str | None], None]) -> tuple[str, ...]:
    """Return the identifiers of the device's MIG instances."""
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
                # This slot has no instance.
                continue
    except pynvml.NVMLError:
        # The readings report such failures themselves.
        pass
    return tuple(found)


class _DeviceQuery:
    """Queries one device: a metric that it does not report is None, with a note.

    A lost device is no missing metric: that error passes through every query.
    """

    def __init__(self, handle: object, asking: Callable[[str | None], None]) -> None:
        self._handle, self._asking = handle, asking
        self._missing: list[Missing] = []
        self._discarded = 0

    def device(self, uuid: str, mig: tuple[str, ...]) -> Device:
        metrics: dict[str, Any] = {
            "temperature_c": self._number(
                "temperature_c",
                lambda gpu: pynvml.nvmlDeviceGetTemperatureV(gpu, pynvml.NVML_TEMPERATURE_GPU),
                # Before CUDA 13.
                lambda gpu: pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU),
            ),
            **self._fields(),
        }
        metrics |= self._margin(metrics["temperature_c"], metrics["slowdown_offset_c"])
        metrics["name"] = self._ask("name", pynvml.nvmlDeviceGetName)
        milliwatts = {
            **self._pair(
                ("power_limit_min_w", "power_limit_max_w"),
                pynvml.nvmlDeviceGetPowerManagementLimitConstraints,
            ),
            "power_w": self._number("power_w", pynvml.nvmlDeviceGetPowerUsage),
            "power_limit_w": self._number("power_limit_w", pynvml.nvmlDeviceGetEnforcedPowerLimit),
        }
        metrics |= {name: None if mw is None else mw / 1000 for name, mw in milliwatts.items()}
        for what, question in _QUESTIONS.items():
            metrics[what] = self._number(what, question)
        metrics |= self._pair(
            ("memory_used_bytes", "memory_total_bytes"),
            lambda gpu: attrgetter("used", "total")(pynvml.nvmlDeviceGetMemoryInfo(gpu)),
        )
        mask = self._ask(
            "throttle_reasons",
            pynvml.nvmlDeviceGetCurrentClocksEventReasons,
            pynvml.nvmlDeviceGetCurrentClocksThrottleReasons,
        )
        if mask is not None:
            names = [name for bit, name in THROTTLE_BITS.items() if mask & bit]
            metrics["throttle_reasons"] = "|".join(names) or "none"
        # Devices since Volta have a counter, in millijoules.
        energy_mj = self._number("energy_j", pynvml.nvmlDeviceGetTotalEnergyConsumption)
        if energy_mj is not None:
            metrics["energy_j"] = device_readings.plausible_j(energy_mj / 1000)
            if metrics["energy_j"] is None:
                self._discard("energy_j", f"it reports {energy_mj:.0f} mJ: impossible")
        return Device(
            uuid=uuid,
            mig=mig,
            may_set_limit=may_set_limit(),
            discarded=self._discarded,
            missing=tuple(self._missing),
            **metrics,
        )

    def _ask(self, what: str, *questions: Callable[[Any], Any]) -> Any:
        """Return the answer to the first question that driver and device support, or None."""
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
    ) -> dict[str, float | None]:
        """Return the two numbers of one answer by name."""
        answers = self._ask(", ".join(names), question) or (None, None)
        return {name: self._sound(name, each) for name, each in zip(names, answers, strict=True)}

    def _sound(self, what: str, value: Any) -> float | None:
        """Return the value, or None if it is a blank or impossible."""
        if value is None:
            return None
        if value in _UNSIGNED_BLANKS or _FIRST_BLANK <= value <= _LAST_BLANK:
            self._discard(what, f"it reports {value}, which means no value")
            return None
        least, most = _BOUNDS.get(what, (value, value))
        if not least <= value <= most:
            self._discard(what, f"it reports {value}: impossible")
            return None
        return float(value)

    def _discard(self, what: str, why: str) -> None:
        self._discarded += 1
        self._note(what, why, ASK_NVIDIA_SMI)

    def _note(self, what: str, why: str, remedy: str) -> None:
        self._missing.append(Missing(what=what, why=why, remedy=remedy))

    def _fields(self) -> dict[str, float | None]:
        """Return memory temperature and the T.Limit of the slowdown; both degrees."""
        fields = {
            "memory_temperature_c": pynvml.NVML_FI_DEV_MEMORY_TEMP,
            "slowdown_offset_c": pynvml.NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT,
        }
        values: dict[str, float | None] = dict.fromkeys(fields)
        answers = self._ask(
            ", ".join(fields),
            lambda gpu: pynvml.nvmlDeviceGetFieldValues(gpu, list(fields.values())),
        )
        for what, field in zip(fields, answers or (), strict=False):
            if field.nvmlReturn != pynvml.NVML_SUCCESS:
                error = pynvml.NVMLError(field.nvmlReturn)
                self._note(what, _why(error), _remedy(error))
                continue
            # Temperatures have 32 bits and a sign, whatever the type of the field is.
            is_double = field.valueType == pynvml.NVML_VALUE_TYPE_DOUBLE
            value = field.value.dVal if is_double else field.value.siVal
            values[what] = self._sound(what, value)
        return values

    def _margin(self, temperature_c: float | None, offset_c: float | None) -> dict[str, Any]:
        """Return the margin to the slowdown in degrees, and its source.

        T.Limit counts down to 0 and below; the hardware slows down at an offset that differs by
        model. Without a known offset, T.Limit itself is the margin: the known offsets are negative,
        so that is the smaller and safer number.

        NVIDIA withdrew the older threshold call from Ada on; an unknown architecture is not trusted
        either.
        """
        margin_source: MarginSource = "margin"
        tlimit_c = self._number("tlimit_c", pynvml.nvmlDeviceGetMarginTemperature)
        if tlimit_c is not None:
            return {"margin_c": tlimit_c - (offset_c or 0.0), "margin_source": margin_source}
        architecture = self._number("architecture", pynvml.nvmlDeviceGetArchitecture)
        if architecture is None or architecture >= pynvml.NVML_DEVICE_ARCH_ADA:
            self._note("margin_c", "neither T.Limit nor a threshold to trust", _SET_MAXIMUM)
            return {}
        threshold_c = self._number(
            "threshold_c",
            lambda gpu: pynvml.nvmlDeviceGetTemperatureThreshold(
                gpu, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
            ),
        )
        if threshold_c is None or temperature_c is None:
            self._note("margin_c", "neither T.Limit nor a slowdown threshold", _SET_MAXIMUM)
            return {"threshold_c": threshold_c}
        margin_c, margin_source = threshold_c - temperature_c, "threshold"
        return {"margin_c": margin_c, "margin_source": margin_source, "threshold_c": threshold_c}


_QUESTIONS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "utilization": lambda gpu: pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "clock_mhz": lambda gpu: pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM),
    "memory_clock_mhz": lambda gpu: pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_MEM),
}


def limit_report(errand: LimitCommand, asking: Callable[[str | None], None]) -> LimitReport:
    """Read the device's limit; set it and read it again, if the errand says so."""
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
        # The driver reports zero, or more than any device uses.
        odd = "; ".join(f"{each['loc'][-1]} = {each['input']}" for each in error.errors())
        return LimitReport(trouble=f"its limits cannot be: {odd}; {ASK_NVIDIA_SMI}")
    return LimitReport(change=LimitChange(before, after))


def _limit_of(handle: object, asking: Callable[[str | None], None]) -> PowerLimit:
    """Return the limit that was set (not always the enforced one), and the accepted range."""
    asking("nvmlDeviceGetPowerManagementLimit")
    limit_mw = pynvml.nvmlDeviceGetPowerManagementLimit(handle)
    asking("nvmlDeviceGetPowerManagementLimitConstraints")
    least_mw, most_mw = pynvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
    return PowerLimit(limit_w=limit_mw / 1000, least_w=least_mw / 1000, most_w=most_mw / 1000)


def may_set_limit(status: Path = Path("/proc/self/status")) -> bool:
    """Whether this process has the privilege to set power limits.

    On Linux the driver requires CAP_SYS_ADMIN, which root in a container usually lacks.
    """
    try:
        lines = status.read_text(encoding="ascii").splitlines()
    except OSError:
        return os.geteuid() == 0
    held = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(held, 16) & _CAP_SYS_ADMIN)


def _why(error: Any) -> str:
    return f"{error} (NVML {error.value})"


def _remedy(error: Any) -> str:
    return _REMEDIES.get(error.value, ASK_NVIDIA_SMI)
