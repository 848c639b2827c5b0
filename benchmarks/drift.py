"""Drift checks against evidently's own Report: what each costs, and whether they agree.

Run it as ``python -m benchmarks.drift``; it prints one line of JSON. Cost: 21 columns (16 numbers,
5 of categories), 1,000 and 5,000 rows on each side, the same methods and thresholds, the median of
`REPEATS` runs taken in turns; the thresholds take `thresholds_s`, once per champion. Agreement:
`PAIRS` random pairs of frames over all supported methods; a pair agrees when every column's score
and verdict and the frame's verdict are the same. Imports of the library are not counted on either
side.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
import typing
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from observability.drift import drift, evidently_adapter

NUMBERS, CATEGORIES, REPEATS, PAIRS = 16, 5, 5, 200
SAME_SCORE = 1e-9


def frames(
    rng: np.random.Generator, rows: int, numbers: int, categories: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A reference and a current window; some columns shift a little, some a lot, some not."""
    reference: dict[str, Any] = {}
    current: dict[str, Any] = {}
    for column in range(numbers):
        shift, scale = rng.choice([0, 0.1, 0.3, 1.0]), rng.choice([1.0, 1.0, 2.0])
        reference[f"n{column}"] = _holed(rng, rng.normal(size=rows))
        current[f"n{column}"] = _holed(rng, rng.normal(shift, scale, size=rows))
    for column in range(categories):
        kinds = rng.integers(2, 9)
        before = rng.dirichlet(np.full(kinds, 5.0))
        now = before if rng.random() < 0.5 else rng.dirichlet(np.full(kinds, 5.0))
        names = np.array([f"k{name}" for name in range(kinds)], dtype=object)
        reference[f"c{column}"] = rng.choice(names, rows, p=before)
        current[f"c{column}"] = rng.choice(names, rows, p=now)
    return pd.DataFrame(reference), pd.DataFrame(current)


def ours(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    tolerance: drift.DriftConfig,
    thresholds: Mapping[str, float],
) -> tuple[bool, dict[str, tuple[float, bool]]]:
    """The frame's verdict, and each column's score and verdict."""
    reading = evidently_adapter.measure(
        reference, current, _watched(reference), tolerance, thresholds=thresholds
    )
    decision = drift.judge(reading, tolerance)
    return decision.yes, {
        column.name: (
            math.nan if column.score is None else column.score,
            bool(drift.drifted(column, tolerance)),
        )
        for column in reading.columns
    }


def theirs(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    tolerance: drift.DriftConfig,
    thresholds: Mapping[str, float],
) -> tuple[bool, dict[str, tuple[float, bool]]]:
    """The same from evidently's Report, read from its dict and its tests."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(
        numerical_columns=[name for name in map(str, reference) if name.startswith("n")],
        categorical_columns=[name for name in map(str, reference) if name.startswith("c")],
    )
    preset = DataDriftPreset(
        # One drifted column is enough.
        drift_share=0.5 / len(reference.columns),
        num_method=tolerance.number_method,
        cat_method=tolerance.category_method,
        per_column_threshold=dict(thresholds),
    )
    before, now = (Dataset.from_pandas(frame, definition) for frame in (reference, current))
    found = Report([preset], include_tests=True).run(now, before).dict()
    failed = {
        test["metric_config"]["metric_id"] for test in found["tests"] if test["status"] == "FAIL"
    }
    whole, *single = found["metrics"]
    return whole["id"] in failed, {
        metric["config"]["column"]: (float(metric["value"]), metric["id"] in failed)
        for metric in single
    }


def cost(rng: np.random.Generator, rows: int) -> dict[str, float]:
    """Seconds of both over frames of `rows`, and how many times cheaper ours is."""
    reference, current = frames(rng, rows, NUMBERS, CATEGORIES)
    tolerance = drift.DriftConfig()
    # The first call pays for imports.
    _thresholds(reference.head(200), current.head(200), tolerance)
    began = time.perf_counter()
    thresholds = _thresholds(reference, current, tolerance)
    thresholds_s = time.perf_counter() - began
    seconds: dict[Any, list[float]] = {ours: [], theirs: []}
    for _ in range(REPEATS + 1):
        for check, taken in seconds.items():
            began = time.perf_counter()
            check(reference, current, tolerance, thresholds)
            taken.append(time.perf_counter() - began)
    # The first round pays for imports.
    ours_s, theirs_s = (statistics.median(taken[1:]) for taken in seconds.values())
    return {
        "rows": rows,
        "thermodrift_s": round(ours_s, 4),
        "evidently_s": round(theirs_s, 4),
        "thresholds_s": round(thresholds_s, 4),
        "ratio": round(theirs_s / ours_s, 1),
    }


def agreement(rng: np.random.Generator) -> dict[str, float]:
    """How many of the random pairs agree, and the largest difference of two scores."""
    agreed, alarms, worst = 0, 0, 0.0
    for pair in range(PAIRS):
        tolerance = _tolerance(pair)
        reference, current = frames(rng, int(rng.integers(300, 800)), 3, 2)
        thresholds = _thresholds(reference, current, tolerance)
        (mine, my_columns), (other, other_columns) = (
            check(reference, current, tolerance, thresholds) for check in (ours, theirs)
        )
        gap = max(abs(my_columns[name][0] - other_columns[name][0]) for name in other_columns)
        same = mine == other and gap <= SAME_SCORE and my_columns.keys() == other_columns.keys()
        verdicts = all(my_columns[name][1] == other_columns[name][1] for name in other_columns)
        agreed += same and verdicts
        alarms += other
        worst = max(worst, gap)
    return {"pairs": PAIRS, "agreed": agreed, "alarms": alarms, "largest_score_gap": worst}


def _thresholds(
    reference: pd.DataFrame, current: pd.DataFrame, tolerance: drift.DriftConfig
) -> Mapping[str, float]:
    return evidently_adapter.noise_thresholds(reference, current, _watched(reference), tolerance)


def _tolerance(pair: int) -> drift.DriftConfig:
    """Half of the pairs by the default methods, the others by each combination in its turn."""
    if pair % 2 == 0:
        return drift.DriftConfig(rows_per_category=1)
    numbers, categories = (
        typing.get_args(methods) for methods in (drift.NumberMethod, drift.CategoryMethod)
    )
    return drift.DriftConfig(
        number_method=numbers[pair // 2 % len(numbers)],
        category_method=categories[pair // 2 % len(categories)],
        rows_per_category=1,
    )


def _watched(frame: pd.DataFrame) -> tuple[drift.WatchedColumn, ...]:
    kinds: dict[str, drift.Kind] = {
        name: "number" if name.startswith("n") else "category" for name in map(str, frame)
    }
    return drift.watched(kinds, label_kind="category")


def _holed(rng: np.random.Generator, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The values with one in fifty missing."""
    return np.where(rng.random(len(values)) < 0.02, np.nan, values)


def main() -> None:
    """Measure and print."""
    os.environ["DO_NOT_TRACK"] = "1"
    # evidently warns of divisions by zero in its own plots.
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(20261120)
    costs = [cost(rng, rows) for rows in (1_000, 5_000)]
    result = {
        "benchmark": "drift",
        "columns": NUMBERS + CATEGORIES,
        "cost": costs,
        "smallest_ratio": min(each["ratio"] for each in costs),
        "agreement": agreement(rng),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
