"""The interface of device adapters: a device with its metrics, and the protocols for reading it.

Pure: every adapter fills the same shape, so that `gpu probe` shows all devices alike. Devices of
another maker need one more file.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol, Self

from pydantic import Field

from observability.core.errors import ThermodriftError
from power.core.device_readings import PLAUSIBLE, DeviceMetrics, DeviceReading, DeviceSnapshot
from power.core.frozen_model import FrozenModel

_MOST_W: Final = PLAUSIBLE["power_limit_w"][1]


class Missing(FrozenModel):
    """A metric that a device did not report, with the reason and a remedy."""

    what: str
    why: str
    remedy: str


class Device(DeviceMetrics):
    """One device as it was last read. None is unknown."""

    uuid: str
    name: str | None = Field(default=None, description="Its model, or the chip that measures it.")
    read_s_ago: float = Field(default=0.0, ge=0, description="Seconds from reading to report.")
    may_set_limit: bool = Field(
        default=False, description="Whether this process has the privilege to set a power limit."
    )
    missing: tuple[Missing, ...] = ()

    def reading(self, read_at_s: float) -> DeviceReading:
        """Return its metrics for the gate, at a moment of the gate's clock (seconds)."""
        metrics = {name: getattr(self, name) for name in DeviceMetrics.model_fields}
        return DeviceReading(uuid=self.uuid, read_at_s=read_at_s, **metrics)


class DeviceAdapter(Protocol):
    """Reads the devices of one maker; a context manager.

    `survey` gets a moment of the adapter's clock and returns the last readings at once: only the
    first call may wait, for a bounded time. It raises nothing for a device that does not answer:
    that reading is `unreadable`; without any device, the driver is absent.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *raised: object) -> None: ...

    def survey(self, now_s: float) -> DeviceSnapshot:
        """Return the last readings, none of them later than `now_s`."""
        ...

    def devices(self) -> tuple[Device, ...]:
        """Return the devices of the last survey, with what they did not report."""
        ...

    def wait_for_news(self, timeout_s: float) -> bool:
        """Wait for readings that no survey has returned; False after `timeout_s` seconds."""
        ...


class PowerLimit(FrozenModel):
    """The power limit of a device, and the range that it accepts; all in watts."""

    limit_w: float = Field(gt=0, le=_MOST_W, description="The limit that was set.")
    least_w: float = Field(gt=0, le=_MOST_W, description="The lowest accepted limit.")
    most_w: float = Field(gt=0, le=_MOST_W, description="The highest accepted limit.")

    def is_at(self, limit_w: float) -> bool:
        """Whether it is set to `limit_w`, within a watt, because drivers may round."""
        return abs(self.limit_w - limit_w) <= SAME_LIMIT_W


class LimitChange(NamedTuple):
    """A device's limit before and after a requested change."""

    before: PowerLimit
    after: PowerLimit


class LimitRefused(ThermodriftError, OSError):
    """A power limit could not be read or set; the message names the device, why and a remedy."""


class PowerLimitSetter(Protocol):
    """Sets power limits of one maker's devices. Both methods raise LimitRefused, in bounded time.

    A device's limit outlives the process that set it, and only a record of the old limit makes it
    possible to restore it.
    """

    def read(self, uuid: str) -> PowerLimit:
        """Return the limit of the device `uuid`."""
        ...

    def change(self, uuid: str, from_w: float, to_w: float) -> LimitChange:
        """Set it to `to_w` watts if it is at `from_w`; else somebody else set it, so leave it."""
        ...


SAME_LIMIT_W: Final = 1.0
PRIVILEGE: Final = "run it as root, with CAP_SYS_ADMIN in a container"
RESET: Final = "reset the device, or reboot the machine"


def unreadable(uuid: str, name: str | None, why: str, remedy: str = RESET) -> Device:
    """Return a device that could not be read, with the reason."""
    lost = Missing(what="device", why=why, remedy=remedy)
    return Device(uuid=uuid, name=name, unreadable=why, missing=(lost,))
