"""A fake of NVIDIA's library with faults on demand, for tests and demonstrations.

`FakeNvmlLibrary` replaces the loaded shared library, so that the real Python binding and the whole
adapter run on it. It fills the C structures of the caller and returns codes, as the library does.
It imports no GPU tool and simulates no physics: its values are constant, except the energy counter,
which grows by the power, and power limits that were set. Each process has its own fake; a file for
the limits shares those between processes. THERMODRIFT_FAKE_NVML names a file of one for whole
commands and deployed runs.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from observability.core.errors import BadConfiguration
from power.core.frozen_model import FrozenModel

FaultKind = Literal[
    "not_supported", "no_permission", "driver_not_loaded", "missing", "lost", "unknown", "mismatch",
    "blank", "absurd", "hang", "crash",
]  # fmt: skip

RETURN_CODES: Mapping[str, int] = {
    "not_supported": 3,
    "no_permission": 4,
    "driver_not_loaded": 9,
    "missing": 13,
    "lost": 15,
    "mismatch": 18,
    "unknown": 999,
}
ABSURD = 644_245_923
"""A temperature that a driver in production reported."""
BLANK = 0x7FFFFFF0
"""The value that NVIDIA's tools write for "no value"."""
_FIELD_MEMORY_TEMPERATURE, _FIELD_SLOWDOWN = 82, 194
_SIGNED_INT = 5
_MEMORY_CLOCK = 2
_MIG_STEP = 1_000
"""The distance between the handles of two devices; those of MIG instances are in between."""
_INVALID_ARGUMENT, _NOT_FOUND = 2, 6
_SET_LIMIT = "nvmlDeviceSetPowerManagementLimit"


class Fault(FrozenModel):
    """A fault in one function of the library."""

    kind: FaultKind
    after: int = Field(default=0, ge=0, description="Calls that succeed before the fault begins.")


class FakeGpu(FrozenModel):
    """One fake device. None: the device does not support this value."""

    uuid: str
    name: str = "Stand-in H100"
    architecture: int = Field(default=9, description="NVML's number: 7 Ampere, 8 Ada, 9 Hopper.")
    temperature_c: int | None = 45
    memory_temperature_c: int | None = 50
    tlimit_c: int | None = Field(default=40, description="T.Limit, degrees.")
    slowdown_tlimit_c: int | None = Field(default=-2, description="T.Limit of the slowdown.")
    slowdown_c: int | None = Field(default=None, description="The older slowdown threshold.")
    power_mw: int | None = 120_000
    power_limit_mw: int | None = Field(default=700_000, description="The limit at first.")
    utilization: int | None = 30
    power_limit_min_mw: int | None = 200_000
    power_limit_max_mw: int | None = 700_000
    clock_mhz: int | None = 1_980
    memory_clock_mhz: int | None = 2_619
    memory_used_bytes: int | None = 1_000_000_000
    memory_total_bytes: int | None = 85_000_000_000
    throttle_mask: int | None = 0
    mig: tuple[str | None, ...] | None = Field(
        default=None,
        description="Names of its MIG instances, None for an empty slot; None: cannot be divided.",
    )
    energy_mj: int | None = Field(default=5_000_000_000, description="The counter at first.")
    faults: Mapping[str, Fault] = Field(
        default_factory=dict,
        description="By name of a function; '*' for all functions of this device.",
    )


class FakeNvml(FrozenModel):
    """A fake library: its devices, and its faults by name of a function."""

    gpus: tuple[FakeGpu, ...] = ()
    faults: Mapping[str, Fault] = Field(default_factory=dict)
    limits_kept_in: str | None = Field(
        default=None,
        description="JSON file of the limits that were set, shared by the fakes of all processes; "
        "None: a limit is forgotten when its process ends.",
    )
    may_set_limit: bool | None = Field(
        default=None,
        description="Whether a process counts as privileged; None: its real privilege.",
    )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the JSON file at `path`. Raises BadConfiguration."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            why: object = error
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise BadConfiguration(
                f"the stand-in {path} cannot be used ({why}); it is the JSON of a StandIn of "
                'power/devices/fake_nvml.py, such as {"gpus": [{"uuid": "GPU-a", "tlimit_c": 40}]}'
            ) from error


class FakeNvmlLibrary:
    """The object on which the binding looks up its functions, instead of the shared library."""

    def __init__(self, spec: FakeNvml, clock: Callable[[], float] = time.monotonic) -> None:
        self._spec = spec
        self._clock, self._loaded_at_s = clock, clock()
        self._calls: dict[tuple[str, str], int] = {}
        self._limits_mw: dict[str, int] = {}

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("nvml"):
            raise AttributeError(name)
        fault = self._spec.faults.get(name)
        if fault is not None and fault.kind == "missing":
            raise AttributeError(f"this library has no {name}")
        return lambda *arguments: self._call(name, arguments)

    def _call(self, name: str, arguments: tuple[Any, ...]) -> int:
        code = self._strike("library", self._spec.faults.get(name), name)
        if code is not None:
            return code
        if name in {"nvmlInitWithFlags", "nvmlShutdown"}:
            return 0
        if name == "nvmlDeviceGetCount_v2":
            _out(arguments[0]).value = len(self._spec.gpus)
            return 0
        if name == "nvmlDeviceGetHandleByIndex_v2":
            return self._hand_out(arguments[0].value, arguments[1])
        if name == "nvmlDeviceGetHandleByUUID":
            uuids = [gpu.uuid for gpu in self._spec.gpus]
            uuid = arguments[0].value.decode()
            return self._hand_out(uuids.index(uuid), arguments[1]) if uuid in uuids else _NOT_FOUND
        device, slot = divmod(ctypes.cast(arguments[0], ctypes.c_void_p).value or 0, _MIG_STEP)
        gpu = self._spec.gpus[device - 1]
        if slot:
            # An instance has a name; everything that is measured belongs to its device.
            if gpu.mig is None or name != "nvmlDeviceGetUUID":
                return RETURN_CODES["not_supported"]
            return _give_text(arguments[1], str(gpu.mig[slot - 1]))
        if name == "nvmlDeviceGetMigDeviceHandleByIndex":
            slot = arguments[1].value
            if gpu.mig is None or gpu.mig[slot] is None:
                return _NOT_FOUND
            return _give_handle(arguments[2], device * _MIG_STEP + slot + 1)
        return self._answer(gpu, name, arguments[1:])

    def _hand_out(self, index: int, target: Any) -> int:
        gpu = self._spec.gpus[index]
        code = self._strike(gpu.uuid, gpu.faults.get("nvmlDeviceGetHandleByIndex_v2"), "handle")
        return _give_handle(target, (index + 1) * _MIG_STEP) if code is None else code

    def _answer(self, gpu: FakeGpu, name: str, arguments: tuple[Any, ...]) -> int:
        fault = gpu.faults.get(name, gpu.faults.get("*"))
        code = self._strike(gpu.uuid, fault, name)
        if code is not None and code >= 0:
            return code
        if name == _SET_LIMIT:
            # An odd setter reports success and does nothing.
            return 0 if code == -1 else self._set_limit(gpu, arguments[0].value)
        odd = {"absurd": ABSURD, "blank": BLANK}.get(fault.kind) if code == -1 and fault else None
        gpu = self._by_now(gpu)
        if name in _TEXTS:
            return _give_text(arguments[0], _TEXTS[name](gpu))
        if name == "nvmlDeviceGetFieldValues":
            known = {
                _FIELD_MEMORY_TEMPERATURE: gpu.memory_temperature_c,
                _FIELD_SLOWDOWN: gpu.slowdown_tlimit_c,
            }
            for field in _out(arguments[1]):
                field.valueType = _SIGNED_INT
                field.nvmlReturn = _give(field.value, "siVal", known.get(field.fieldId), odd)
            return 0
        if name == "nvmlDeviceGetClockInfo" and arguments[0].value == _MEMORY_CLOCK:
            name = "memory clock"
        if name not in _NUMBERS:
            return RETURN_CODES["missing"]
        if odd == ABSURD and name in _IN_64_BITS:
            odd = ABSURD**2
        return max(
            _give(_out(arguments[position]), attribute, number(gpu), odd)
            for position, attribute, number in _NUMBERS[name]
        )

    def _set_limit(self, gpu: FakeGpu, limit_mw: int) -> int:
        least_mw, most_mw = gpu.power_limit_min_mw, gpu.power_limit_max_mw
        if gpu.power_limit_mw is None or least_mw is None or most_mw is None:
            return RETURN_CODES["not_supported"]
        if not least_mw <= limit_mw <= most_mw:
            return _INVALID_ARGUMENT
        self._limits_mw[gpu.uuid] = limit_mw
        if self._spec.limits_kept_in is not None:
            keep_limits(Path(self._spec.limits_kept_in), {gpu.uuid: limit_mw})
        return 0

    def _by_now(self, gpu: FakeGpu) -> FakeGpu:
        """Return the device with its present limit and energy counter."""
        kept_in = self._spec.limits_kept_in
        limits_mw = self._limits_mw if kept_in is None else kept_limits(Path(kept_in))
        if gpu.uuid in limits_mw:
            gpu = gpu.model_copy(update={"power_limit_mw": limits_mw[gpu.uuid]})
        if gpu.energy_mj is None:
            return gpu
        grown_mj = (gpu.power_mw or 0) * (self._clock() - self._loaded_at_s)
        return gpu.model_copy(update={"energy_mj": gpu.energy_mj + int(grown_mj)})

    def _strike(self, whose: str, fault: Fault | None, name: str) -> int | None:
        """Apply `fault`: return None for nothing, a return code, or -1 for an odd value."""
        if fault is None:
            return None
        seen = self._calls[whose, name] = self._calls.get((whose, name), 0) + 1
        if seen <= fault.after:
            return None
        if fault.kind == "hang":
            threading.Event().wait()
        if fault.kind == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        return RETURN_CODES.get(fault.kind, -1)


def kept_limits(path: Path) -> dict[str, int]:
    """Return the limits that were set, by device, milliwatts."""
    try:
        limits_mw: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return limits_mw


def keep_limits(path: Path, limits_mw: Mapping[str, int]) -> None:
    """Set limits for the fakes of all processes, milliwatts, as `nvidia-smi -pl` would."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(kept_limits(path) | dict(limits_mw)), encoding="utf-8")
    temporary.replace(path)


def _out(reference: Any) -> Any:
    """Return the object behind ctypes.byref, to which the library would write."""
    return reference._obj


def _give_handle(target: Any, number: int) -> int:
    """Write a handle: nobody dereferences the pointer, so it is a number."""
    address = ctypes.c_void_p(number)
    ctypes.memmove(target, ctypes.byref(address), ctypes.sizeof(address))
    return 0


def _give(target: Any, attribute: str, value: int | None, odd: int | None) -> int:
    if value is None:
        return RETURN_CODES["not_supported"]
    setattr(target, attribute, value if odd is None else odd)
    return 0


def _give_text(buffer: Any, text: str) -> int:
    buffer.value = text.encode()
    return 0


_TEXTS: Mapping[str, Callable[[FakeGpu], str]] = {
    "nvmlDeviceGetUUID": lambda gpu: gpu.uuid,
    "nvmlDeviceGetName": lambda gpu: gpu.name,
}
_IN_64_BITS = frozenset({"nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetMemoryInfo"})
"""An absurd temperature is a common number of millijoules or bytes."""


def _mig_mode(gpu: FakeGpu) -> int | None:
    return None if gpu.mig is None else int(bool(gpu.mig))


_NUMBERS: Mapping[str, tuple[tuple[int, str, Callable[[FakeGpu], int | None]], ...]] = {
    "nvmlDeviceGetArchitecture": ((0, "value", lambda gpu: gpu.architecture),),
    "nvmlDeviceGetTemperatureV": ((0, "temperature", lambda gpu: gpu.temperature_c),),
    "nvmlDeviceGetTemperature": ((1, "value", lambda gpu: gpu.temperature_c),),
    "nvmlDeviceGetMarginTemperature": ((0, "marginTemperature", lambda gpu: gpu.tlimit_c),),
    "nvmlDeviceGetTemperatureThreshold": ((1, "value", lambda gpu: gpu.slowdown_c),),
    "nvmlDeviceGetPowerUsage": ((0, "value", lambda gpu: gpu.power_mw),),
    "nvmlDeviceGetEnforcedPowerLimit": ((0, "value", lambda gpu: gpu.power_limit_mw),),
    "nvmlDeviceGetPowerManagementLimit": ((0, "value", lambda gpu: gpu.power_limit_mw),),
    "nvmlDeviceGetPowerManagementLimitConstraints": (
        (0, "value", lambda gpu: gpu.power_limit_min_mw),
        (1, "value", lambda gpu: gpu.power_limit_max_mw),
    ),
    "nvmlDeviceGetUtilizationRates": ((0, "gpu", lambda gpu: gpu.utilization),),
    "nvmlDeviceGetCurrentClocksEventReasons": ((0, "value", lambda gpu: gpu.throttle_mask),),
    "nvmlDeviceGetCurrentClocksThrottleReasons": ((0, "value", lambda gpu: gpu.throttle_mask),),
    "nvmlDeviceGetMemoryInfo": (
        (0, "used", lambda gpu: gpu.memory_used_bytes),
        (0, "total", lambda gpu: gpu.memory_total_bytes),
    ),
    "nvmlDeviceGetClockInfo": ((1, "value", lambda gpu: gpu.clock_mhz),),
    "memory clock": ((1, "value", lambda gpu: gpu.memory_clock_mhz),),
    "nvmlDeviceGetMigMode": ((0, "value", _mig_mode), (1, "value", _mig_mode)),
    "nvmlDeviceGetMaxMigDeviceCount": (
        (0, "value", lambda gpu: None if gpu.mig is None else len(gpu.mig)),
    ),
    "nvmlDeviceGetTotalEnergyConsumption": ((0, "value", lambda gpu: gpu.energy_mj),),
}
"""By function: position and attribute of each output, and its value."""
