"""What a door tells of one device: its numbers, what it did not tell, and what to do about it.

Pure: a shape that every door fills, so that `gpu probe` shows all devices alike, and the protocols
that doors keep, so that another maker's devices are one more file.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field

from observability.core.errors import ThermodriftError
from power.core.device_readings import PLAUSIBLE, GpuReading, Survey, Telling

_MOST_W: Final = PLAUSIBLE["power_limit_w"][1]


class Missing(BaseModel):
    """Something that a device did not tell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    why: str
    remedy: str


class Device(Telling):
    """One device as it was read. None is unknown."""

    uuid: str
    name: str | None = Field(default=None, description="Its model, or the chip that measures it.")
    read_s_ago: float = Field(default=0.0, ge=0, description="Seconds before it was told.")
    may_set_limit: bool = Field(
        default=False, description="Whether this process has the privilege to set a power limit."
    )
    missing: tuple[Missing, ...] = ()

    def reading(self, read_at_s: float) -> GpuReading:
        """What the gate needs of it, stamped with a moment of the gate's clock."""
        told = {name: getattr(self, name) for name in Telling.model_fields}
        return GpuReading(uuid=self.uuid, read_at_s=read_at_s, **told)


class Door(Protocol):
    """What reads the devices of one maker; a context manager.

    `survey` is called with a moment of the door's clock and answers at once with the last that was
    read: only the first call may wait, for a bounded time. It raises nothing for a device that does
    not answer: that one's reading is `unreadable`, and a machine without any is a survey whose
    driver is absent.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *raised: object) -> None: ...

    def survey(self, now_s: float) -> Survey:
        """The last readings, none of them later than `now_s`."""
        ...

    def devices(self) -> tuple[Device, ...]:
        """The devices of the last survey, with what they did not tell."""
        ...

    def wait_for_news(self, timeout_s: float) -> bool:
        """Wait until something was read that no survey has shown; False after `timeout_s`."""
        ...


class PowerLimit(BaseModel):
    """The power limit that a device is set to, watts, and the range that it takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit_w: float = Field(
        gt=0, le=_MOST_W, description="What it is set to; a lower one may be enforced."
    )
    least_w: float = Field(gt=0, le=_MOST_W, description="The lowest that the device takes.")
    most_w: float = Field(gt=0, le=_MOST_W, description="The highest that the device takes.")

    def is_at(self, limit_w: float) -> bool:
        """Whether it is set to `limit_w`: within a watt, since drivers may round."""
        return abs(self.limit_w - limit_w) <= SAME_LIMIT_W


class LimitChange(NamedTuple):
    """A device's limit before somebody wanted it changed, and after it."""

    before: PowerLimit
    after: PowerLimit


class LimitRefused(ThermodriftError, OSError):
    """A power limit could not be read or set: says of which device, why, and what to do."""


class LimitSetter(Protocol):
    """What sets the power limits of one maker's devices. Both raise LimitRefused, in bounded time.

    A device's limit outlives the process that set it, and there is no way back to what it was but
    to know it.
    """

    def read(self, uuid: str) -> PowerLimit:
        """What the device `uuid` is set to."""
        ...

    def change(self, uuid: str, from_w: float, to_w: float) -> LimitChange:
        """Set it to `to_w`, if it is at `from_w`; else leave it as somebody else set it."""
        ...


SAME_LIMIT_W: Final = 1.0
PRIVILEGE: Final = "run it as root, with CAP_SYS_ADMIN in a container"
RESET: Final = "reset the device, or reboot the machine"


def unanswered(uuid: str, name: str | None, why: str, remedy: str = RESET) -> Device:
    """A device that tells nothing, and why."""
    lost = Missing(what="device", why=why, remedy=remedy)
    return Device(uuid=uuid, name=name, unreadable=why, missing=(lost,))
