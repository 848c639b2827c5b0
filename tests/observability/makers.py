"""Makers of the ground floor's records: one sensible default each, overridden by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from observability.drift import drift
from observability.drift.error_monitor import ErrorFinding
from observability.worth import worth


def make_column(**overrides: Any) -> drift.ColumnDrift:
    """A feature of numbers that has not moved."""
    default = {
        "name": "load",
        "role": "feature",
        "kind": "number",
        "method": "wasserstein",
        "score": 0.01,
        "larger_is_drift": True,
        "enough": True,
    }
    return drift.ColumnDrift(**default | overrides)


def make_label(**overrides: Any) -> drift.ColumnDrift:
    """A target of categories that has not moved."""
    default = {
        "name": "class",
        "role": "target",
        "kind": "category",
        "method": "jensenshannon",
    }
    return make_column(**default | overrides)


def make_reading(**overrides: Any) -> drift.DriftReading:
    """Four steady features over full windows."""
    default = {
        "reference_rows": 2000,
        "current_rows": 1000,
        "columns": tuple(make_column(name=name) for name in ("a", "b", "c", "d")),
    }
    return drift.DriftReading(**default | overrides)


def make_finding(**overrides: Any) -> ErrorFinding:
    """The champion errs twice as often as it did, since position 4,000."""
    default = {
        "kind": "errors",
        "member": "batch",
        "evidence": 50_000.0,
        "threshold": 20_000.0,
        "seen_at": 4_200,
        "change": 4_000,
        "mean_before": 0.1,
        "mean_allowed": 0.12,
        "mean_now": 0.2,
        "records_now": 200,
    }
    return ErrorFinding(**default | overrides)


def make_performance(**overrides: Any) -> drift.Performance:
    """An accuracy that has stayed what it was."""
    default = {
        "metric": "accuracy",
        "reference": 0.85,
        "current": 0.85,
        "larger_is_better": True,
    }
    return drift.Performance(**default | overrides)


def make_evidence(**overrides: Any) -> worth.RetrainFacts:
    """A drift alarm over an old champion with plenty of new rows: worth a retrain."""
    default = {
        "drift_alarm": True,
        "drift_because": "3 of 4 features drifted",
        "rows_available": 5000,
        "new_rows": 3000,
        "champion_present": True,
        "champion_age_records": 3000,
        "records_since_retrain": 3000,
    }
    return worth.RetrainFacts(**default | overrides)


def make_worth(**overrides: Any) -> worth.RetrainFacts:
    """No alarm; a champion that loses a tenth of the baseline's loss, after a change long ago."""
    default = {
        "drift_alarm": False,
        "rows_available": 5000,
        "new_rows": 1000,
        "champion_present": True,
        "champion_age_records": 3000,
        "records_since_retrain": 1000,
        "lost": 0.1,
        "lost_error": 0.01,
        "records_since_level": 1000,
        "rows_then": 4000.0,
        "rows_now": 4000.0,
        "rows_most": 4000.0,
        "curve_scale": 1.0,
        "curve_exponent": 0.1,
        "records_seen": 10_000,
        "changes_known": 1,
        "concept_age_records": 3000,
        "fit_cost_s": 2.0,
    }
    return worth.RetrainFacts(**default | overrides)


def make_window(rows: int = 400, shift: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """A window with two numbers (`load` shifted by `shift`), a category and a target."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "load": rng.normal(shift, 1.0, rows),
            "price": rng.normal(0.0, 1.0, rows),
            "region": rng.choice(np.array(["north", "south"], dtype=object), rows),
            "class": rng.integers(0, 2, rows),
        }
    )
