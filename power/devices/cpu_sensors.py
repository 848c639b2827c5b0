"""Adapter for the CPU's sensors through psutil: the same readings as of a GPU, for heavy CPU work.

A CPU package is a device here (`cpu-0`): its temperature, its margin to the threshold that the chip
reports, its energy if the kernel has RAPL counters, and its utilization. A thread reads, so that a
slow sensor never blocks a caller; then the readings grow old. Nothing is decided: what cannot be
read is None, with the reason and a remedy.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import psutil  # type: ignore[import-untyped]  # it publishes no types

from power.core import device_readings
from power.core.device_readings import DeviceReading, DeviceSnapshot
from power.devices.device import Device, Missing, unreadable

CPU_CHIPS: Final = (
    "coretemp",
    "k10temp",
    "zenpower",
    "cpu_thermal",
    "cpu-thermal",
    "x86_pkg_temp",
    "soc_thermal",
    "acpitz",
)
"""The kernel's names of chips that measure CPUs; the first one found is used.

The last one is a laptop's thermal zone, for machines that show no chip of the CPU.
"""
POWERCAP: Final = Path("/sys/class/powercap")
_ONE_PER_SOCKET: Final = frozenset({"k10temp", "zenpower"})
_PACKAGE: Final = re.compile(r"(?:package id|physical id) (\d+)", re.IGNORECASE)
_LEAST_THRESHOLD_C, _MOST_THRESHOLD_C = 40.0, 130.0
"""A threshold outside this range is none: 0 and 65261.8 have been seen."""
_SENSOR_TROUBLE: Final = (OSError, RuntimeError, ValueError, AttributeError, psutil.Error)
_SET_MAXIMUM: Final = "set max_temperature_c in [gate]"


class Package(NamedTuple):
    """One CPU package by its sensor. `odd` counts impossible values."""

    number: int
    name: str
    temperature_c: float | None
    threshold_c: float | None
    odd: int


class CpuSensorAdapter:
    """Reads the CPU packages. A context manager, or call `close`.

    `tool` is psutil or a fake of it; `powercap` is the kernel's folder of RAPL counters. `clock` is
    the clock of `now_s`. `first_answer_s` bounds the only wait, in the first survey; seconds.
    """

    def __init__(
        self,
        *,
        tool: Any = psutil,
        powercap: Path = POWERCAP,
        clock: Callable[[], float] = time.monotonic,
        poll_s: float = 1.0,
        first_answer_s: float = 2.0,
    ) -> None:
        self._chips = _Chips(tool, powercap, clock)
        self._clock, self._poll_s, self._first_answer_s = clock, poll_s, first_answer_s
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._round: _Round | None = None
        self._shown: _Round | None = None
        self._readings: tuple[DeviceReading, ...] = ()
        self._devices: tuple[Device, ...] = ()
        self._waited = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def start(self) -> None:
        """Start reading, without waiting for a result. A survey starts it too."""
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._keep_reading, daemon=True)
            self._thread.start()

    def survey(self, now_s: float) -> DeviceSnapshot:
        """Return the last readings. Only the first call waits."""
        if self._stop.is_set():
            return DeviceSnapshot(driver="unreadable", because="this door is closed")
        self.start()
        if not self._waited:
            self._waited = True
            self.wait_for_news(self._first_answer_s)
        with self._news:
            newest = self._round
        if newest is None:
            return DeviceSnapshot(
                driver="unreadable", because="the CPU's sensors have not answered yet"
            )
        if newest is not self._shown:
            self._shown = newest
            self._show(newest, now_s)
        if newest.trouble is None:
            count = f"{len(newest.devices)} CPU package{'' if len(newest.devices) == 1 else 's'}"
            because = f"psutil, {count}"
            return DeviceSnapshot(driver="present", because=because, readings=self._readings)
        # Sensors that disappeared are unreadable, not absent.
        driver = "unreadable" if self._readings or not newest.none_there else "absent"
        return DeviceSnapshot(driver=driver, because=newest.trouble, readings=self._readings)

    def devices(self) -> tuple[Device, ...]:
        """Return the packages of the last survey, with what they did not report."""
        return self._devices

    def wait_for_news(self, timeout_s: float) -> bool:
        """Wait for readings that no survey has returned; False after `timeout_s` seconds."""
        with self._news:
            return self._news.wait_for(lambda: self._round is not self._shown, timeout_s)

    def close(self) -> None:
        """Stop reading, without waiting: the thread ends with the process at the latest."""
        self._stop.set()

    def _keep_reading(self) -> None:
        while not self._stop.is_set():
            newest = self._chips.read()
            with self._news:
                self._round = newest
                self._news.notify_all()
            self._stop.wait(self._poll_s)

    def _show(self, newest: _Round, now_s: float) -> None:
        """Give a round's readings their moment once, so that a repetition is the same reading."""
        before = {reading.uuid: reading.read_at_s for reading in self._readings}
        devices = {device.uuid: device for device in newest.devices}
        why = newest.trouble or "its sensor is no longer shown"
        lost = [unreadable(uuid, None, why, "load the driver of its sensor") for uuid in before]
        self._devices = tuple(({each.uuid: each for each in lost} | devices).values())
        at_s = min(newest.at_s, now_s)
        self._readings = tuple(
            each.reading(max(at_s, math.nextafter(before.get(each.uuid, -math.inf), math.inf)))
            for each in self._devices
        )


class _Round(NamedTuple):
    """The result of reading all sensors once."""

    at_s: float
    devices: tuple[Device, ...]
    trouble: str | None
    none_there: bool


class _Chips:
    """The sensors of this machine; they are read one after the other."""

    def __init__(self, tool: Any, powercap: Path, clock: Callable[[], float]) -> None:
        self._tool, self._clock = tool, clock
        self._meters = {meter.number: meter for meter in meters(powercap)}
        self._busy_since_s: float | None = None

    def read(self) -> _Round:
        at_s = self._clock()
        try:
            # psutil has this function only where the platform has sensors.
            shown: Mapping[str, Sequence[Any]] = getattr(self._tool, "sensors_temperatures", dict)()
        except _SENSOR_TROUBLE as error:
            trouble = f"psutil cannot read the sensors ({error}); see whether `sensors` can"
            return _Round(at_s, (), trouble, none_there=False)
        found = packages(shown)
        if not found:
            names = ", ".join(sorted(shown)) or "none"
            trouble = (
                f"psutil shows no sensor of a CPU (chips: {names}), as in most virtual machines "
                f"and containers; load its driver (coretemp, k10temp), or read another source"
            )
            return _Round(at_s, (), trouble, none_there=True)
        shared = self._shared(at_s)
        return _Round(at_s, tuple(self._device(each, shared, at_s) for each in found), None, False)

    def _shared(self, at_s: float) -> dict[str, Any]:
        """Return the metrics that psutil has for all packages together."""
        metrics: dict[str, Any] = {}
        busy = _unless_trouble(lambda: self._tool.cpu_percent(interval=None))
        # The first value covers no time.
        if self._busy_since_s is not None and at_s > self._busy_since_s:
            metrics["utilization"] = busy
        self._busy_since_s = at_s
        clock = _unless_trouble(self._tool.cpu_freq)
        if clock is not None and clock.current > 0:
            metrics["clock_mhz"] = clock.current
        memory = _unless_trouble(self._tool.virtual_memory)
        if memory is not None:
            metrics["memory_total_bytes"] = memory.total
            metrics["memory_used_bytes"] = memory.total - memory.available
        return metrics

    def _device(self, package: Package, shared: Mapping[str, Any], at_s: float) -> Device:
        metrics = dict(shared)
        missing = [
            Missing(
                what="throttle_reasons", why="psutil does not report it", remedy="use the margin"
            )
        ]
        temperature_c, threshold_c = package.temperature_c, package.threshold_c
        if temperature_c is not None and threshold_c is not None:
            metrics |= {"margin_c": threshold_c - temperature_c, "margin_source": "threshold"}
        else:
            what = "temperature" if temperature_c is None else "threshold"
            why = f"{package.name} reports no usable {what}"
            missing.append(Missing(what="margin_c", why=why, remedy=_SET_MAXIMUM))
        meter = self._meters.get(package.number)
        if meter is None:
            why, remedy = "the kernel shows no RAPL counter", "load intel_rapl_msr, if it has one"
            missing.append(Missing(what="energy_j, power_w", why=why, remedy=remedy))
        else:
            power, lacks = meter.read(at_s)
            metrics |= power
            missing += lacks
        return Device(
            uuid=f"cpu-{package.number}",
            name=package.name,
            temperature_c=temperature_c,
            threshold_c=threshold_c,
            discarded=package.odd,
            missing=tuple(missing),
            **metrics,
        )


def packages(shown: Mapping[str, Sequence[Any]]) -> tuple[Package, ...]:
    """Return the CPU packages in psutil's sensors: chip -> (label, current, high, critical).

    Labels of packages are used where a chip has them; AMD's chips have several sensors per socket;
    of any other chip, the entry closest to its threshold represents all.
    """
    chip = next((name for name in CPU_CHIPS if shown.get(name)), None)
    if chip is None:
        return ()
    entries = shown[chip]
    labelled = [(match, each) for each in entries if (match := _PACKAGE.match(each.label or ""))]
    if labelled:
        return tuple(_package(chip, int(match[1]), [each]) for match, each in labelled)
    sockets: list[list[Any]] = []
    for each in entries:
        # On a chip with sensors per socket, each socket begins with the same label.
        begins = chip in _ONE_PER_SOCKET and each.label == entries[0].label
        if begins or not sockets:
            sockets.append([])
        sockets[-1].append(each)
    return tuple(_package(chip, number, row) for number, row in enumerate(sockets))


def _package(chip: str, number: int, entries: Sequence[Any]) -> Package:
    """Return the package by the entry that is closest to its threshold."""
    odd, known = 0, list[tuple[str, float, float | None]]()
    for each in entries:
        shown = {limit for limit in (each.high, each.critical) if limit is not None}
        limits = {limit for limit in shown if _LEAST_THRESHOLD_C <= limit <= _MOST_THRESHOLD_C}
        odd += len(shown) - len(limits)
        if device_readings.plausible(each.current, "temperature_c") is None:
            odd += 1
        else:
            # The lower threshold counts: the other one may be that of a shutdown.
            known.append((each.label or "", each.current, min(limits, default=None)))
    if not known:
        return Package(number, chip, None, None, odd)
    # Without a threshold, the hottest entry counts.
    label, now_c, most_c = max(
        known, key=lambda entry: entry[1] - (_MOST_THRESHOLD_C if entry[2] is None else entry[2])
    )
    return Package(number, f"{chip}, {label}" if label else chip, now_c, most_c, odd)


class Meter:
    """One package's RAPL counter, which wraps around when it is full."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self._folder = folder
        self._last: tuple[float, float, float] | None = None
        """Of the last reading: the count and the total in joules, and the moment in seconds."""
        self._rounds_j = 0.0

    def read(self, at_s: float) -> tuple[dict[str, float | bool], list[Missing]]:
        """Return energy, power (from the second call on) and limits, and what is missing."""
        metrics: dict[str, float | bool] = {
            name: watts
            for name, file in (
                ("power_limit_w", "constraint_0_power_limit_uw"),
                ("power_limit_max_w", "constraint_0_max_power_uw"),
            )
            if (watts := _micro(self._folder / file))
        }
        limit = self._folder / "constraint_0_power_limit_uw"
        metrics["may_set_limit"] = os.access(limit, os.W_OK)
        counter = self._folder / "energy_uj"
        counted_j = device_readings.plausible_j(_micro(counter))
        if counted_j is None:
            remedy = f"let this user read {counter} (it is root's by default)"
            why = "its RAPL counter cannot be read"
            return metrics, [Missing(what="energy_j, power_w", why=why, remedy=remedy)]
        before = self._last
        if before is not None and counted_j < before[0]:
            self._rounds_j += _micro(self._folder / "max_energy_range_uj") or 0.0
        total_j = self._rounds_j + counted_j
        self._last = (counted_j, total_j, at_s)
        metrics["energy_j"] = total_j
        if before is not None and at_s > before[2] and total_j >= before[1]:
            metrics["power_w"] = (total_j - before[1]) / (at_s - before[2])
        return metrics, []


def meters(powercap: Path) -> list[Meter]:
    """Return the counters of whole packages in the kernel's folder."""
    found = []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (folder / "name").read_text(encoding="ascii").strip()
        except OSError:
            continue
        match = re.fullmatch(r"package-(\d+)", name)
        if match:
            found.append(Meter(folder, int(match[1])))
    return found


def _micro(path: Path) -> float | None:
    """Return the number in a file divided by a million; None if it cannot be read."""
    try:
        return int(path.read_text(encoding="ascii")) / 1e6
    except (OSError, ValueError):
        return None


def _unless_trouble(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except _SENSOR_TROUBLE:
        return None
