"""Adapter for NVIDIA's management library (NVML): readings of all GPUs, even if one misbehaves.

NVML calls can hang for ever or crash their process. So each device is read by a process of its own
(`nvml_worker`), which exits when a call does not return; the adapter returns the last report of
each process and restarts those that ended. If a process hangs or dies, only its device is
unreadable, with the reason. `NvmlLimitSetter` sets power limits, each change in a process of its
own. Nothing here blocks for longer than a short bound, and nothing is decided.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ValidationError

from power.core.device_readings import DeviceReading, DeviceSnapshot, Driver
from power.devices.device import Device, LimitChange, LimitRefused, PowerLimit, unreadable
from power.devices.fake_nvml import FakeNvml
from power.devices.nvml_worker import (
    ASK_NVIDIA_SMI,
    LimitCommand,
    LimitReport,
    Report,
    WorkerConfig,
)
from power.devices.supervised_process import ChildProcess, Supervisor

Message = TypeVar("Message", bound=BaseModel)

_PROGRAM: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from power.devices import nvml_worker as reader; getattr(reader, sys.argv[2])(sys.argv[3])"
)
_ROOT: Final = str(Path(__file__).resolve().parents[2])
_LATER_S: Final = 2.0
"""The worker's own watchdog comes first, because it can name the call that hangs."""


class Listed(NamedTuple):
    """A device that the driver lists; its identifier is None until the worker reports it."""

    uuid: str | None
    mig: tuple[str, ...] = ()


class NvmlAdapter:
    """Reads all devices, each in a process of its own. A context manager, or call `close`.

    `visible` is the value of CUDA_VISIBLE_DEVICES, if it restricts the job. `twin` is a fake
    library for tests and demonstrations. `clock` is the clock of `now_s`. `first_answer_s` bounds
    the only wait, in the first survey. If a call takes longer than `hang_s` (`start_s` until the
    first reading), its process exits and is restarted. All times are in seconds.
    """

    def __init__(
        self,
        *,
        visible: str | None = None,
        twin: FakeNvml | None = None,
        clock: Callable[[], float] = time.monotonic,
        poll_s: float = 1.0,
        first_answer_s: float = 2.0,
        hang_s: float = 10.0,
        start_s: float = 30.0,
    ) -> None:
        self._visible, self._twin, self._clock = visible, twin, clock
        self._poll_s, self._hang_s, self._start_s = poll_s, hang_s, start_s
        self._first_answer_s = first_answer_s
        self._news = threading.Condition()
        self._readers: list[_Reader] = []
        self._seen: dict[str, _Seen] = {}
        self._devices: tuple[Device, ...] = ()
        self._waited = self._closed = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """The ids of the reading processes, in the order of their devices."""
        return tuple(pid for each in self._readers if (pid := each.watched.pid) is not None)

    def start(self) -> None:
        """Start reading, without waiting for a report. A survey starts it too."""
        if not _shows_none(self._visible):
            self._look(self._clock())

    def survey(self, now_s: float) -> DeviceSnapshot:
        """Return the last readings and the state of the driver. Only the first call waits."""
        if self._closed:
            return DeviceSnapshot(driver="unreadable", because="this door is closed")
        if _shows_none(self._visible):
            because = f"CUDA_VISIBLE_DEVICES = {self._visible!r} shows this process no device"
            return DeviceSnapshot(driver="absent", because=because)
        self._look(now_s)
        if not self._waited:
            self._waited = True
            ends_s = time.monotonic() + self._first_answer_s
            while not all(each.has_answered for each in self._readers):
                left_s = ends_s - time.monotonic()
                if left_s <= 0 or not self.wait_for_news(left_s):
                    break
                self._look(now_s)
        return self._snapshot(now_s)

    def devices(self) -> tuple[Device, ...]:
        """Return the devices of the last survey, with what they did not report."""
        return self._devices

    def wait_for_news(self, timeout_s: float) -> bool:
        """Wait for a report that no survey has returned; False after `timeout_s` seconds."""
        with self._news:
            return self._news.wait_for(self._has_news, timeout_s)

    def close(self, patience_s: float = 2.0) -> None:
        """Stop the reading processes. Waits at most twice `patience_s` for each that hangs."""
        self._closed = True
        for each in self._readers:
            each.watched.request_stop()
        for each in self._readers:
            each.watched.close(patience_s)

    def _has_news(self) -> bool:
        return any(each.watched.has_news() for each in self._readers if not each.hidden)

    def _look(self, now_s: float) -> None:
        """Take the last report of each process; start missing processes and stop hidden ones."""
        for each in self._readers:
            if not each.hidden:
                each.look(now_s)
        count = max((each.count for each in self._readers), default=1)
        for index in range(len(self._readers), count):
            errand = WorkerConfig(
                index=index,
                twin=self._twin,
                poll_s=self._poll_s,
                hang_s=self._hang_s,
                start_s=self._start_s,
            )
            watched = Supervisor(
                _command("serve", errand),
                lambda line: _parsed(Report, line),
                lambda report: report.is_well,
                clock=self._clock,
                hang_s=self._hang_s + _LATER_S,
                start_s=self._start_s + _LATER_S,
                news=self._news,
            )
            self._readers.append(_Reader(watched))
            self._readers[index].look(now_s)
        # Devices that CUDA_VISIBLE_DEVICES hides are not read, once all identifiers are known.
        listed = [each.listed for each in self._readers]
        shown = shown_devices(listed, self._visible)
        all_named = all(each.uuid is not None for each in listed)
        for index, each in enumerate(self._readers):
            each.shown = index in shown
            # The first process is kept until it has reported the number of devices.
            if all_named and not each.shown and len(self._readers) == each.count:
                each.hidden = True
                each.watched.request_stop()
                self._seen.pop(each.listed.uuid or "", None)

    def _snapshot(self, now_s: float) -> DeviceSnapshot:
        shown = [each for each in self._readers if each.shown and not each.hidden]
        well = {each.device.uuid: each for each in shown if each.device is not None}
        for uuid, each in well.items():
            self._see(uuid, each, now_s)
        # By identifier, or by number before the identifier is known.
        troubles = {
            each.listed.uuid or f"device {self._readers.index(each)}": each.trouble
            for each in shown
            if each.device is None and each.listed.uuid not in well and each.trouble is not None
        }
        for uuid in self._seen.keys() - well.keys():
            self._miss(uuid, troubles.get(uuid, "the driver no longer lists it"), now_s)
        for uuid, why in troubles.items():
            if uuid in {each.listed.uuid for each in shown} and uuid not in self._seen:
                self._miss(uuid, why, now_s)
        numbers = {each.listed.uuid: number for number, each in enumerate(self._readers)}
        last = len(numbers)
        self._seen = dict(sorted(self._seen.items(), key=lambda kept: numbers.get(kept[0], last)))
        self._devices = tuple(seen.device for seen in self._seen.values())
        driver: Driver = "present" if well else "unreadable"
        # A driver that disappeared from known devices is not an absent one.
        if not well and not self._seen and all(each.says_absent for each in self._readers):
            driver = "absent"
        return DeviceSnapshot(
            driver=driver,
            because=self._because(len(well), troubles, now_s),
            readings=tuple(seen.reading for seen in self._seen.values()),
        )

    def _see(self, uuid: str, reader: _Reader, now_s: float) -> None:
        """Store the newest reading of a device; a repeated report keeps its moment.

        The moment is never later than `now_s`, because the first survey waits for newer readings,
        and always later than that of the previous reading.
        """
        before, device = self._seen.get(uuid), reader.device
        if device is None or (before is not None and before.told_by is reader.report):
            return
        at_s = min(reader.heard_at_s, now_s) - device.read_s_ago
        reading = device.reading(_after(before, at_s))
        self._seen[uuid] = _Seen(reader.report, None, device, reading)

    def _miss(self, uuid: str, why: str, now_s: float) -> None:
        """Store a device as unreadable, so that it closes at once; a repetition changes nothing."""
        before = self._seen.get(uuid)
        if before is not None and before.trouble == why:
            return
        device = unreadable(uuid, None if before is None else before.device.name, why)
        self._seen[uuid] = _Seen(None, why, device, device.reading(_after(before, now_s)))

    def _because(self, well: int, troubles: dict[str, str], now_s: float) -> str:
        if not self._readers[0].count and not self._seen:
            return self._readers[0].trouble_now(now_s)
        said = [f"{name} cannot be read: {why}" for name, why in troubles.items()]
        if well:
            parts = sum(len(seen.device.mig) for seen in self._seen.values())
            mig = f" with {parts} MIG instances, whose heat is the whole device's" if parts else ""
            return "; ".join([f"NVML, {well} device{'' if well == 1 else 's'}{mig}", *said])
        if said:
            return "; ".join(said)
        hidden = [each.listed.uuid for each in self._readers if not each.shown]
        if any(hidden):
            names = ", ".join(uuid for uuid in hidden if uuid)
            return f"CUDA_VISIBLE_DEVICES = {self._visible!r} names none of {names}; correct it"
        return self._readers[0].trouble_now(now_s)


class NvmlLimitSetter:
    """Reads and sets power limits; implements `power.devices.device.LimitSetter`.

    A call that takes longer than `hang_s` seconds ends its process. Each method waits that long at
    most, and some seconds for the process to start and exit. `twin` is a fake library.
    """

    def __init__(self, *, twin: FakeNvml | None = None, hang_s: float = 5.0) -> None:
        self._twin, self._hang_s = twin, hang_s

    def read(self, uuid: str) -> PowerLimit:
        """Return the limit of a device. Raises LimitRefused."""
        return self._run(LimitCommand(uuid=uuid, hang_s=self._hang_s, twin=self._twin)).after

    def change(self, uuid: str, from_w: float, to_w: float) -> LimitChange:
        """Set the limit to `to_w` if it is at `from_w`; both watts. Raises LimitRefused."""
        errand = LimitCommand(
            uuid=uuid, from_w=from_w, to_w=to_w, hang_s=self._hang_s, twin=self._twin
        )
        return self._run(errand)

    def _run(self, errand: LimitCommand) -> LimitChange:
        said: list[LimitReport] = []
        ends: list[str] = []
        over = threading.Event()

        def heard(line: str) -> bool:
            report = _parsed(LimitReport, line)
            if report is not None:
                said.append(report)
            return report is not None

        def ended(code: int, last_words: str) -> None:
            ends.append(last_words or f"the process that asks it died (exit code {code})")
            over.set()

        try:
            child = ChildProcess(_command("limit", errand), heard, ended)
        except OSError as error:
            raise _refused(errand, f"no process can be started to ask it ({error})") from error
        in_time = False
        try:
            in_time = over.wait(self._hang_s + _LATER_S)
        finally:
            # Also after a signal: a process that still runs might set the limit later.
            child.stop(_LATER_S)
        report = said[-1] if said else LimitReport()
        if report.change is not None:
            return report.change
        silent = f"it sent nothing for {self._hang_s + _LATER_S:.1f} s and was stopped"
        why = report.trouble or f"{ends[-1] if in_time else silent}; {ASK_NVIDIA_SMI}"
        raise _refused(errand, why)


def _refused(errand: LimitCommand, why: str) -> LimitRefused:
    done = "read" if errand.to_w is None else f"set to {errand.to_w:g} W"
    return LimitRefused(f"the power limit of {errand.uuid} cannot be {done}: {why}")


def _command(function: str, errand: WorkerConfig | LimitCommand) -> list[str]:
    """Return the command of a process that runs `function` of `nvml_worker`."""
    return [sys.executable, "-P", "-c", _PROGRAM, _ROOT, function, errand.model_dump_json()]


class _Seen(NamedTuple):
    """The last state of a device: the report that it came from, or why it was unreadable."""

    told_by: Report | None
    trouble: str | None
    device: Device
    reading: DeviceReading


class _Reader:
    """One reading process, and the meaning of its last report."""

    def __init__(self, watched: Supervisor[Report]) -> None:
        self.watched = watched
        self.report: Report | None = None
        self.listed = Listed(None)
        self.count = 0
        self.heard_at_s = 0.0
        self.trouble: str | None = None
        self.shown, self.hidden = True, False
        self._failure: str | None = None

    def look(self, now_s: float) -> None:
        """Take the last report of the process. Starts and stops it; never waits."""
        heard = self.watched.look(now_s)
        self.report, self.heard_at_s, self._failure = heard.message, heard.at_s, heard.failure
        report = heard.message
        if report is not None:
            self.count = self.count if report.count is None else report.count
            if report.uuid is not None:
                self.listed = Listed(report.uuid, report.mig)
        if heard.failure is not None:
            self.trouble = f"the process that reads it: {heard.failure}; {ASK_NVIDIA_SMI}"
        elif report is not None and (report.trouble is not None or report.is_well):
            self.trouble = report.trouble
        elif self.trouble is None:
            self.trouble = f"it has not answered yet; {ASK_NVIDIA_SMI}"

    @property
    def device(self) -> Device | None:
        """The device as it was last read; None if the last reading failed."""
        if self._failure is not None or self.report is None or not self.report.is_well:
            return None
        return self.report.device

    @property
    def has_answered(self) -> bool:
        """Whether the device was read, or cannot be read: there is nothing to wait for."""
        said = self.report is not None and (self.report.is_well or self.report.trouble is not None)
        return self.hidden or said or self._failure is not None

    @property
    def says_absent(self) -> bool:
        """Whether the last report says that the machine has no driver."""
        return self._failure is None and self.report is not None and self.report.driver == "absent"

    def trouble_now(self, now_s: float) -> str:
        """Return a sentence why there is no device at all."""
        if self.has_answered and self.trouble is not None:
            return self.trouble
        return f"the GPUs have not answered yet, after {now_s - self.heard_at_s:.1f} s"


def shown_devices(listed: Sequence[Listed], visible: str | None) -> frozenset[int]:
    """Return the numbers of the devices that CUDA_VISIBLE_DEVICES = `visible` shows; None: all.

    As in CUDA, entries are numbers or prefixes of the identifiers of devices or MIG instances, and
    the first entry without a match ends the list. Numbers are in PCI order, as in CUDA with
    CUDA_DEVICE_ORDER=PCI_BUS_ID. A MIG instance shows its device. While the identifier of a device
    is unknown, an entry without a match may be its own, so it does not end the list.
    """
    if visible is None:
        return frozenset(range(len(listed)))
    shown: set[int] = set()
    nameless = any(each.uuid is None for each in listed)
    for entry in (part.strip() for part in visible.split(",")):
        fits = _fitting(entry, listed)
        may_be_nameless = nameless and entry.startswith(("GPU-", "MIG-"))
        if len(fits) != 1 and not (may_be_nameless and not fits):
            break
        shown.update(fits)
    return frozenset(shown)


def _fitting(entry: str, listed: Sequence[Listed]) -> set[int]:
    if entry.isdecimal():
        return {int(entry)} & set(range(len(listed)))
    if entry.startswith("GPU-"):
        return {n for n, each in enumerate(listed) if each.uuid and each.uuid.startswith(entry)}
    if entry.startswith("MIG-GPU-"):
        # The older notation of an instance: MIG-<device>/<GPU instance>/<compute instance>.
        device = entry.removeprefix("MIG-").partition("/")[0]
        return {n for n, each in enumerate(listed) if each.uuid == device}
    if entry.startswith("MIG-"):
        return {n for n, each in enumerate(listed) if any(m.startswith(entry) for m in each.mig)}
    return set()


def _shows_none(visible: str | None) -> bool:
    return visible is not None and visible.strip() in {"", "-1"}


def _after(before: _Seen | None, at_s: float) -> float:
    shown_s = -math.inf if before is None else before.reading.read_at_s
    return max(at_s, math.nextafter(shown_s, math.inf))


def _parsed(kind: type[Message], line: str) -> Message | None:
    """Return the report in a line, or None for a line that a library printed."""
    try:
        return kind.model_validate_json(line)
    except ValidationError:
        return None
