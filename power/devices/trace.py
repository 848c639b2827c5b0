"""Adapter for recorded GPU traces: the same readings as from a driver, from a CSV file.

It is for demonstrations, tests and machines without a GPU. It decides and repairs nothing: a blank
cell is unknown, an impossible number is left to the gate, and a file that is not a trace is
refused. After the last row there is nothing to read, so readings grow old and the gate closes.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from observability.core.errors import ThermodriftError
from power.core.device_readings import DeviceReading, DeviceSnapshot

COLUMNS = (
    "elapsed_s",
    "uuid",
    "temperature_c",
    "memory_temperature_c",
    "margin_c",
    "power_w",
    "power_limit_w",
    "utilization",
    "throttle_reasons",
)
OPTIONAL = (
    "energy_j",
    "margin_source",
    "threshold_c",
    "clock_mhz",
    "memory_clock_mhz",
    "memory_used_bytes",
    "memory_total_bytes",
    "power_limit_min_w",
    "power_limit_max_w",
)
"""Columns that may follow those, each once, in any order."""
_WORDS = frozenset({"uuid", "throttle_reasons", "margin_source"})


class TraceUnreadable(ThermodriftError, OSError):
    """A file is not a recorded trace; the message has the file, row, column and value."""


@dataclass(frozen=True)
class Trace:
    """A recorded trace: its readings in the order of the file; `read_at_s` is elapsed_s."""

    path: Path
    readings: tuple[DeviceReading, ...]

    @classmethod
    def load(cls, path: Path) -> Trace:
        """Read the CSV at `path`. Raises TraceUnreadable if it is not a trace."""
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                return cls(path, tuple(_readings(path, csv.reader(file, strict=True))))
        except OSError as error:
            if isinstance(error, TraceUnreadable):
                raise
            raise TraceUnreadable(
                f"the trace {path} cannot be read ({error.strerror or error}); "
                f"check its path and that you may read it"
            ) from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise TraceUnreadable(
                f"the trace {path} is not a CSV in UTF-8 ({error}); record it again"
            ) from error

    @property
    def ends_at_s(self) -> float:
        """Elapsed seconds of the newest reading; 0 without rows."""
        return max((reading.read_at_s for reading in self.readings), default=0.0)

    def between(self, after_s: float, until_s: float) -> tuple[DeviceReading, ...]:
        """Return the readings later than `after_s` and up to `until_s`, elapsed seconds."""
        return tuple(each for each in self.readings if after_s < each.read_at_s <= until_s)

    def survey(self, after_s: float, until_s: float) -> DeviceSnapshot:
        """Return what a driver would have reported between two moments; `until_s` is now."""
        return DeviceSnapshot(
            readings=self.between(after_s, until_s),
            driver="present",
            because=f"the trace {self.path.name} until {until_s:g} s",
        )


def _readings(path: Path, rows: Iterator[list[str]]) -> Iterator[DeviceReading]:
    header = next(rows, None)
    columns = tuple(header or ())
    required, others = columns[: len(COLUMNS)], columns[len(COLUMNS) :]
    if required != COLUMNS or set(others) - set(OPTIONAL) or len(set(others)) < len(others):
        raise TraceUnreadable(
            f"the trace {path} must begin with the header {','.join(COLUMNS)}, after which any of "
            f"{','.join(OPTIONAL)} may follow, each once; came: {','.join(columns) or 'nothing'}"
        )
    for number, cells in enumerate(rows, start=2):
        # Editors may add an empty line at the end.
        if cells:
            yield _reading(f"the trace {path}, row {number}", columns, cells)


def _reading(where: str, columns: Sequence[str], cells: Sequence[str]) -> DeviceReading:
    if len(cells) != len(columns):
        raise TraceUnreadable(
            f"{where}: has {len(cells)} cells, must have {len(columns)} ({','.join(columns)})"
        )
    row = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
    elapsed_s = _number(where, "elapsed_s", row.pop("elapsed_s"))
    if elapsed_s is None or not math.isfinite(elapsed_s):
        raise _bad(where, "elapsed_s", "a finite number of seconds", cells[0])
    told = {
        name: (cell or None) if name in _WORDS else _number(where, name, cell)
        for name, cell in row.items()
    }
    if told["uuid"] is None:
        raise _bad(where, "uuid", "the device's name", "")
    # A blank margin source follows from the margin, as in traces that have no such column.
    if told.get("margin_source") is None:
        told.pop("margin_source", None)
    try:
        return DeviceReading.model_validate({"read_at_s": elapsed_s, **told})
    except ValidationError as error:
        first = error.errors()[0]
        raise _bad(where, str(first["loc"][0]), first["msg"], str(first["input"])) from error


def _number(where: str, column: str, cell: str) -> float | None:
    if not cell:
        return None
    try:
        return float(cell)
    except ValueError as error:
        raise _bad(where, column, "a number, or blank for unknown", cell) from error


def _bad(where: str, column: str, allowed: str, came: str) -> TraceUnreadable:
    return TraceUnreadable(f"{where}, column {column}: must be {allowed}; came: {came!r}")
