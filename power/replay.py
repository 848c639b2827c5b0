"""Door to recorded GPU traces: the same readings as from a driver, out of a CSV.

For demonstrations, tests and machines without a GPU. It decides nothing and repairs nothing: a
blank cell is unknown, an absurd number stays absurd for the gate to judge, and a file that is not a
trace is refused. After the last row there is nothing more to read, so readings grow old and the
gate closes by itself.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from observability.errors import ThermodriftError
from power.gate import GpuReading, Survey

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
ENERGY = "energy_j"
"""The column that a trace may have as its last: joules since the driver was loaded."""
_NO_NUMBERS = frozenset({"elapsed_s", "uuid", "throttle_reasons"})


class TraceUnreadable(ThermodriftError, OSError):
    """A file is not a recorded trace: names the file, the row, the column, and what came."""


@dataclass(frozen=True)
class Trace:
    """A recorded trace: its readings in the order of the file, `read_at_s` being elapsed_s."""

    path: Path
    readings: tuple[GpuReading, ...]

    @classmethod
    def load(cls, path: Path) -> Trace:
        """Read the CSV at `path`. Raises TraceUnreadable where it is not a trace."""
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
        """Elapsed seconds of the newest reading; 0 for a trace without rows."""
        return max((reading.read_at_s for reading in self.readings), default=0.0)

    def between(self, after_s: float, until_s: float) -> tuple[GpuReading, ...]:
        """Readings taken later than `after_s` and not later than `until_s`, in seconds elapsed."""
        return tuple(each for each in self.readings if after_s < each.read_at_s <= until_s)

    def survey(self, after_s: float, until_s: float) -> Survey:
        """What a driver would have said between two moments; `until_s` is now."""
        return Survey(
            readings=self.between(after_s, until_s),
            driver="present",
            because=f"the trace {self.path.name} until {until_s:g} s",
        )


def _readings(path: Path, rows: Iterator[list[str]]) -> Iterator[GpuReading]:
    header = next(rows, None)
    columns = tuple(header or ())
    if columns not in (COLUMNS, (*COLUMNS, ENERGY)):
        raise TraceUnreadable(
            f"the trace {path} must begin with the header {','.join(COLUMNS)}, after which "
            f"{ENERGY} may follow; came: {','.join(columns) or 'nothing'}"
        )
    for number, cells in enumerate(rows, start=2):
        # Editors like to end a file with an empty line; it says nothing.
        if cells:
            yield _reading(f"the trace {path}, row {number}", columns, cells)


def _reading(where: str, columns: Sequence[str], cells: Sequence[str]) -> GpuReading:
    if len(cells) != len(columns):
        raise TraceUnreadable(
            f"{where}: has {len(cells)} cells, must have {len(columns)} ({','.join(columns)})"
        )
    row = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
    numbers = {name: _number(where, name, row[name]) for name in columns if name not in _NO_NUMBERS}
    elapsed_s = _number(where, "elapsed_s", row["elapsed_s"])
    if elapsed_s is None or not math.isfinite(elapsed_s):
        raise _bad(where, "elapsed_s", "a finite number of seconds", row["elapsed_s"])
    if not row["uuid"]:
        raise _bad(where, "uuid", "the device's name", row["uuid"])
    reasons = row["throttle_reasons"] or None
    return GpuReading(uuid=row["uuid"], read_at_s=elapsed_s, throttle_reasons=reasons, **numbers)


def _number(where: str, column: str, cell: str) -> float | None:
    if not cell:
        return None
    try:
        return float(cell)
    except ValueError as error:
        raise _bad(where, column, "a number, or blank for unknown", cell) from error


def _bad(where: str, column: str, allowed: str, came: str) -> TraceUnreadable:
    return TraceUnreadable(f"{where}, column {column}: must be {allowed}; came: {came!r}")
