"""The throughput budgets: a short measure of each beside its bound, in half a minute of two cores.

    python -m benchmarks.budgets

A figure over its budget is printed as such and fails nothing, since machines differ and are busy:
it is a reason to run the whole benchmark that the line names. Ratios are over the plain loop that a
person would write, which runs in turn with ours; the budgets leave half again of what was measured.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Budget(NamedTuple):
    """One figure and its bound: the most that it may be, or the least."""

    what: str
    benchmark: str
    bound: float
    at_least: bool
    measure: Callable[[], float]


def stream_ratio(kind: str) -> Callable[[], float]:
    """Records per second of the stream's reader over a loop that checks nothing."""

    def measure() -> float:
        from benchmarks import intake

        write, loop = intake.KINDS[kind]
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder), intake.made(10_000, columns=8))
            return intake.compare(path, loop, rounds=2)["ratio"]

    return measure


def learning_ratio() -> float:
    """Records per second of a run's learning over river's own loop, for the default members."""
    from benchmarks import online

    return online.compare(online.SETS["default"], 2_000, rounds=2)["ratio"]


def gate_us(which: str) -> Callable[[], float]:
    """Microseconds to learn from one reading, or to answer one job."""

    def measure() -> float:
        from benchmarks import gate

        return gate.times()[which]

    return measure


def drift_check_s() -> float:
    """Seconds of a drift check over 1,000 rows of 21 columns."""
    from benchmarks import drift

    return drift.cost(np.random.default_rng(1), 1_000)["thermodrift_s"]


def commit_ms() -> float:
    """Milliseconds until a commit of five rows is durable, one writer alone: the median."""
    from benchmarks import crew
    from observability.history.store import History

    with tempfile.TemporaryDirectory() as home:
        history, taken = History(Path(home)), []
        for number in range(30):
            began_s = time.perf_counter()
            history.commit(crew.rows("writer-0", number), f"writer-0.{number}")
            taken.append(time.perf_counter() - began_s)
    return 1e3 * statistics.median(taken)


BUDGETS = (
    Budget("CSV records/s over csv.reader", "intake", 0.4, True, stream_ratio("csv")),
    Budget("JSON lines records/s over json.loads", "intake", 0.3, True, stream_ratio("jsonl")),
    Budget("Parquet records/s over to_pylist", "intake", 0.5, True, stream_ratio("parquet")),
    Budget("learning records/s over river's loop", "online", 0.4, True, learning_ratio),
    Budget("learn from a reading, µs", "gate", 300, False, gate_us("learn_us")),
    Budget("answer a job that must wait, µs", "gate", 900, False, gate_us("judge_us")),
    Budget("drift check of 21 columns, s", "drift", 0.3, False, drift_check_s),
    Budget("durable commit, ms", "history", 20, False, commit_ms),
)


def lines() -> Iterator[str]:
    """A line for each budget: the figure, the bound, and whether it is kept."""
    for each in BUDGETS:
        bound = f"{'at least' if each.at_least else 'at most'} {each.bound:g}"
        try:
            figure = each.measure()
        except Exception:  # noqa: BLE001 - no figure is a reason to fail, a broken one is told
            yield f"{each.what:40} broken ({bound}):\n{traceback.format_exc()}"
            continue
        kept = figure >= each.bound if each.at_least else figure <= each.bound
        verdict = "kept" if kept else f"OVER: see python -m benchmarks.{each.benchmark}"
        yield f"{each.what:40} {figure:9.3g}  {bound:14} {verdict}"


def main() -> None:
    """Print the lines as they come."""
    for line in lines():
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
