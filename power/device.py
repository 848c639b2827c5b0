"""What a door tells of one device: its numbers, what it did not tell, and what to do about it.

Pure: a shape that every door fills, so that `gpu probe` shows all devices alike, and the protocol
that a door keeps, so that another maker's devices are one more file.
"""

from __future__ import annotations

from typing import Final, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field

from power.gate import GpuReading, Survey, Telling


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


RESET: Final = "reset the device, or reboot the machine"


def unanswered(uuid: str, name: str | None, why: str, remedy: str = RESET) -> Device:
    """A device that tells nothing, and why."""
    lost = Missing(what="device", why=why, remedy=remedy)
    return Device(uuid=uuid, name=name, unreadable=why, missing=(lost,))
