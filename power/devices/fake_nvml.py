"""A stand-in for NVIDIA's library, with faults on demand: what tests and demonstrations talk to.

`StandInNvml` takes the place of the loaded shared library, so that the real Python binding and the
whole door run over it. It fills the C structures that it is handed and answers return codes, as the
library does. It imports no GPU tool and simulates no physics: its devices say the same for ever,
but for the energy counter, which grows by their power, and for power limits that are set. Each
process has a stand-in of its own; what one sets the others see where a file for that is named.
THERMODRIFT_STAND_IN names a file of one for whole commands and deployed runs.
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

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from observability.core.errors import BadConfiguration

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
"""A temperature that a driver in production has really reported."""
BLANK = 0x7FFFFFF0
"""What NVIDIA's tools write where there is no value."""
_FIELD_MEMORY_TEMPERATURE, _FIELD_SLOWDOWN = 82, 194
_SIGNED_INT = 5
_MEMORY_CLOCK = 2
_MIG_STEP = 1_000
"""Between the handles of two devices, where those of their MIG instances lie."""
_INVALID_ARGUMENT, _NOT_FOUND = 2, 6
_SET_LIMIT = "nvmlDeviceSetPowerManagementLimit"


class Fault(BaseModel):
    """What goes wrong in one function of the library."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FaultKind
    after: int = Field(default=0, ge=0, description="Calls that still go well before it begins.")


class StandInGpu(BaseModel):
    """One pretended device. None: the device does not support telling it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uuid: str
    name: str = "Stand-in H100"
    architecture: int = Field(default=9, description="NVML's number: 7 Ampere, 8 Ada, 9 Hopper.")
    temperature_c: int | None = 45
    memory_temperature_c: int | None = 50
    tlimit_c: int | None = Field(default=40, description="T.Limit, degrees.")
    slowdown_tlimit_c: int | None = Field(
        default=-2, description="T.Limit at which the hardware slows down."
    )
    slowdown_c: int | None = Field(default=None, description="The older slowdown threshold.")
    power_mw: int | None = 120_000
    power_limit_mw: int | None = Field(
        default=700_000, description="The limit that it has until one is set."
    )
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
    energy_mj: int | None = Field(
        default=5_000_000_000, description="The energy counter when the library is loaded."
    )
    faults: Mapping[str, Fault] = Field(
        default_factory=dict, description="By name of a function; '*' for all of this device."
    )


class StandIn(BaseModel):
    """A pretended library: its devices, and its faults by name of a function."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpus: tuple[StandInGpu, ...] = ()
    faults: Mapping[str, Fault] = Field(default_factory=dict)
    limits_kept_in: str | None = Field(
        default=None,
        description="File of the limits that were set, JSON, for the stand-ins of all processes; "
        "None: a limit is forgotten with the process that set it.",
    )
    may_set_limit: bool | None = Field(
        default=None, description="Whether a process counts as privileged; None: as it is."
    )

    @classmethod
    def load(cls, path: Path) -> Self:
        """What the JSON file at `path` pretends. Raises BadConfiguration."""
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


class StandInNvml:
    """What the binding looks its functions up on, in place of the shared library."""

    def __init__(self, spec: StandIn, clock: Callable[[], float] = time.monotonic) -> None:
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
            return self._hand_out_named(arguments[0].value.decode(), arguments[1])
        index, slot = _index(arguments[0])
        gpu = self._spec.gpus[index]
        if slot is not None:
            return self._answer_instance(gpu, name, arguments[1:], slot)
        if name == "nvmlDeviceGetMigDeviceHandleByIndex":
            return self._hand_out_instance(gpu, index, arguments[1].value, arguments[2])
        fault = gpu.faults.get(name, gpu.faults.get("*"))
        return self._answer(gpu, name, arguments[1:], fault)

    def _hand_out(self, index: int, target: Any) -> int:
        gpu = self._spec.gpus[index]
        code = self._strike(gpu.uuid, gpu.faults.get("nvmlDeviceGetHandleByIndex_v2"), "handle")
        if code is not None:
            return code
        return _give_handle(target, (index + 1) * _MIG_STEP)

    def _hand_out_named(self, uuid: str, target: Any) -> int:
        uuids = [gpu.uuid for gpu in self._spec.gpus]
        return self._hand_out(uuids.index(uuid), target) if uuid in uuids else _NOT_FOUND

    def _hand_out_instance(self, gpu: StandInGpu, index: int, slot: int, target: Any) -> int:
        if gpu.mig is None or gpu.mig[slot] is None:
            return _NOT_FOUND
        return _give_handle(target, (index + 1) * _MIG_STEP + slot + 1)

    def _answer_instance(
        self, gpu: StandInGpu, name: str, arguments: tuple[Any, ...], slot: int
    ) -> int:
        """An instance has a name; what is measured belongs to its device."""
        if gpu.mig is None or name != "nvmlDeviceGetUUID":
            return RETURN_CODES["not_supported"]
        return _give_text(arguments[0], str(gpu.mig[slot]))

    def _answer(
        self, gpu: StandInGpu, name: str, arguments: tuple[Any, ...], fault: Fault | None
    ) -> int:
        code = self._strike(gpu.uuid, fault, name)
        if code is not None and code >= 0:
            return code
        if name == _SET_LIMIT:
            # Odd, for one that sets, is to say that all went well, and to do nothing.
            return 0 if code == -1 else self._set_limit(gpu, arguments[0].value)
        fill = _FILLS.get(name)
        if fill is None:
            return RETURN_CODES["missing"]
        odd = {"absurd": ABSURD, "blank": BLANK}.get(fault.kind) if code == -1 and fault else None
        return fill(self._by_now(gpu), arguments, odd)

    def _set_limit(self, gpu: StandInGpu, limit_mw: int) -> int:
        least_mw, most_mw = gpu.power_limit_min_mw, gpu.power_limit_max_mw
        if gpu.power_limit_mw is None or least_mw is None or most_mw is None:
            return RETURN_CODES["not_supported"]
        if not least_mw <= limit_mw <= most_mw:
            return _INVALID_ARGUMENT
        self._limits_mw[gpu.uuid] = limit_mw
        if self._spec.limits_kept_in is not None:
            keep_limits(Path(self._spec.limits_kept_in), {gpu.uuid: limit_mw})
        return 0

    def _by_now(self, gpu: StandInGpu) -> StandInGpu:
        """The device with the limit that it was set to, and the energy that it has used."""
        kept_in = self._spec.limits_kept_in
        limits_mw = self._limits_mw if kept_in is None else kept_limits(Path(kept_in))
        if gpu.uuid in limits_mw:
            gpu = gpu.model_copy(update={"power_limit_mw": limits_mw[gpu.uuid]})
        if gpu.energy_mj is None:
            return gpu
        grown_mj = (gpu.power_mw or 0) * (self._clock() - self._loaded_at_s)
        return gpu.model_copy(update={"energy_mj": gpu.energy_mj + int(grown_mj)})

    def _strike(self, whose: str, fault: Fault | None, name: str) -> int | None:
        """Do what `fault` says: None for nothing, a return code, or -1 for an odd value."""
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
    """By device the limit that it was set to, milliwatts; none where none was."""
    try:
        limits_mw: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return limits_mw


def keep_limits(path: Path, limits_mw: Mapping[str, int]) -> None:
    """Set limits for the stand-ins of all processes, milliwatts, as `nvidia-smi -pl` would."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(kept_limits(path) | dict(limits_mw)), encoding="utf-8")
    aside.replace(path)


def _out(reference: Any) -> Any:
    """The object behind ctypes.byref: what the library would write to."""
    return reference._obj


def _index(handle: Any) -> tuple[int, int | None]:
    """The device that a handle stands for, and the slot of its MIG instance."""
    device, slot = divmod(ctypes.cast(handle, ctypes.c_void_p).value or 0, _MIG_STEP)
    return device - 1, slot - 1 if slot else None


def _give_handle(target: Any, number: int) -> int:
    """Write a handle: a pointer that nobody looks behind, so a number will do."""
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


def _give_fields(gpu: StandInGpu, values: Any, odd: int | None) -> int:
    known = {
        _FIELD_MEMORY_TEMPERATURE: gpu.memory_temperature_c,
        _FIELD_SLOWDOWN: gpu.slowdown_tlimit_c,
    }
    for field in values:
        value = known.get(field.fieldId)
        field.valueType = _SIGNED_INT
        field.nvmlReturn = _give(field.value, "siVal", value, odd)
    return 0


def _give_pair(
    targets: tuple[tuple[Any, str], tuple[Any, str]],
    values: tuple[int | None, int | None],
    odd: int | None,
) -> int:
    codes = [
        _give(target, attribute, value, odd)
        for (target, attribute), value in zip(targets, values, strict=True)
    ]
    return max(codes)


def _give_limits(gpu: StandInGpu, to: tuple[Any, ...], odd: int | None) -> int:
    return _give_pair(
        ((_out(to[0]), "value"), (_out(to[1]), "value")),
        (gpu.power_limit_min_mw, gpu.power_limit_max_mw),
        odd,
    )


def _give_memory(gpu: StandInGpu, to: tuple[Any, ...], odd: int | None) -> int:
    memory = _out(to[0])
    return _give_pair(
        ((memory, "used"), (memory, "total")),
        (gpu.memory_used_bytes, gpu.memory_total_bytes),
        # In 64 bits, what is absurd for a temperature is a common count of bytes.
        ABSURD**2 if odd == ABSURD else odd,
    )


def _give_clock(gpu: StandInGpu, to: tuple[Any, ...], odd: int | None) -> int:
    clock = gpu.memory_clock_mhz if to[0].value == _MEMORY_CLOCK else gpu.clock_mhz
    return _give(_out(to[1]), "value", clock, odd)


def _give_mig_mode(gpu: StandInGpu, to: tuple[Any, ...], odd: int | None) -> int:
    if gpu.mig is None:
        return RETURN_CODES["not_supported"]
    enabled = int(bool(gpu.mig))
    return _give_pair(((_out(to[0]), "value"), (_out(to[1]), "value")), (enabled, enabled), odd)


_FILLS: Mapping[str, Callable[[StandInGpu, tuple[Any, ...], int | None], int]] = {
    "nvmlDeviceGetUUID": lambda gpu, to, odd: _give_text(to[0], gpu.uuid),
    "nvmlDeviceGetName": lambda gpu, to, odd: _give_text(to[0], gpu.name),
    "nvmlDeviceGetArchitecture": lambda gpu, to, odd: _give(
        _out(to[0]), "value", gpu.architecture, odd
    ),
    "nvmlDeviceGetTemperatureV": lambda gpu, to, odd: _give(
        _out(to[0]), "temperature", gpu.temperature_c, odd
    ),
    "nvmlDeviceGetTemperature": lambda gpu, to, odd: _give(
        _out(to[1]), "value", gpu.temperature_c, odd
    ),
    "nvmlDeviceGetMarginTemperature": lambda gpu, to, odd: _give(
        _out(to[0]), "marginTemperature", gpu.tlimit_c, odd
    ),
    "nvmlDeviceGetTemperatureThreshold": lambda gpu, to, odd: _give(
        _out(to[1]), "value", gpu.slowdown_c, odd
    ),
    "nvmlDeviceGetFieldValues": lambda gpu, to, odd: _give_fields(gpu, _out(to[1]), odd),
    "nvmlDeviceGetPowerUsage": lambda gpu, to, odd: _give(_out(to[0]), "value", gpu.power_mw, odd),
    "nvmlDeviceGetEnforcedPowerLimit": lambda gpu, to, odd: _give(
        _out(to[0]), "value", gpu.power_limit_mw, odd
    ),
    "nvmlDeviceGetPowerManagementLimit": lambda gpu, to, odd: _give(
        _out(to[0]), "value", gpu.power_limit_mw, odd
    ),
    "nvmlDeviceGetUtilizationRates": lambda gpu, to, odd: _give(
        _out(to[0]), "gpu", gpu.utilization, odd
    ),
    "nvmlDeviceGetCurrentClocksEventReasons": lambda gpu, to, odd: _give(
        _out(to[0]), "value", gpu.throttle_mask, odd
    ),
    "nvmlDeviceGetCurrentClocksThrottleReasons": lambda gpu, to, odd: _give(
        _out(to[0]), "value", gpu.throttle_mask, odd
    ),
    "nvmlDeviceGetPowerManagementLimitConstraints": _give_limits,
    "nvmlDeviceGetMemoryInfo": _give_memory,
    "nvmlDeviceGetClockInfo": _give_clock,
    "nvmlDeviceGetMigMode": _give_mig_mode,
    "nvmlDeviceGetMaxMigDeviceCount": lambda gpu, to, odd: _give(
        _out(to[0]), "value", None if gpu.mig is None else len(gpu.mig), odd
    ),
    # In its 64 bits, what is absurd for a temperature is a common count of millijoules.
    "nvmlDeviceGetTotalEnergyConsumption": lambda gpu, to, odd: _give(
        _out(to[0]), "value", gpu.energy_mj, ABSURD**2 if odd == ABSURD else odd
    ),
}
