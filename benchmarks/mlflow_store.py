"""Metric rows into MLflow's local stores and back: run by a Python that has MLflow, by its path.

    PYTHON benchmarks/mlflow_store.py FOLDER COMMITS ROWS METRICS

For `history_versus`. It imports MLflow and nothing of ours, and prints one JSON line.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Measure each of the stores."""
    os.environ.update(MLFLOW_ALLOW_FILE_STORE="true", MLFLOW_DISABLE_TELEMETRY="true")
    folder, shape = Path(sys.argv[1]).absolute(), [int(each) for each in sys.argv[2:]]
    stores = {
        "mlflow_sqlite": f"sqlite:///{folder / 'mlflow.db'}",
        "mlflow_files": (folder / "mlruns").as_uri(),
    }
    figures = {name: through(uri, folder, *shape) for name, uri in stores.items()}
    version = importlib.import_module("mlflow").__version__
    print(json.dumps({"version": version, **figures}))  # noqa: T201 - the figure is the output


def through(uri: str, folder: Path, commits: int, rows: int, metrics: int) -> dict[str, Any]:
    """Seconds to log so many commits of so many rows each, one call each, and to read one metric.

    The store is made beforehand. `durability` is what its database says of itself.
    """
    metric = importlib.import_module("mlflow.entities").Metric
    client = importlib.import_module("mlflow.tracking").MlflowClient(uri)
    experiment = client.create_experiment("versus", artifact_location=str(folder / "artifacts"))
    run_id = client.create_run(experiment).info.run_id
    began_s = time.perf_counter()
    for commit in range(commits):
        logged = [
            metric(f"m{row % metrics}", 0.84, 1_800_000_000_000, commit * rows + row)
            for row in range(rows)
        ]
        client.log_batch(run_id, logged)
    log_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    found = client.get_metric_history(run_id, "m0")
    read_s = time.perf_counter() - began_s
    durability = (
        _durability(folder / "mlflow.db")
        if "sqlite" in uri
        else "appended to a file per metric, no fsync"
    )
    return {"log_s": log_s, "read_s": read_s, "read_rows": len(found), "durability": durability}


def _durability(file: Path) -> str:
    """As MLflow's own connections have it: it sets neither, so they are the file's defaults."""
    import sqlite3

    with sqlite3.connect(file) as connection:
        journal, synchronous = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous")
        )
    return f"one transaction per call, journal_mode={journal}, synchronous={synchronous}"


if __name__ == "__main__":
    main()
