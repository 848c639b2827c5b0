"""The laboratory's optimum against the exact planner of the distribution retrainopt.

Run it as ``python -m benchmarks.optimum`` where retrainopt is installed too (0.4.2 was; it is no
dependency): it solves random cases with both, prints whether they agree, and writes the cases with
retrainopt's answers into tests/flows/laboratory/retrainopt.json, by which the tests go.

Source: Yang and Mathioudakis, "Automated Retraining for Cost-Optimal ML", ECML PKDD 2026.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from flows.laboratory import optimum
from flows.laboratory.optimum import Candidate

CASES, LARGEST, SEED = 25, 10, 3
FILE = Path(__file__).resolve().parents[1] / "tests" / "flows" / "laboratory" / "retrainopt.json"


def main() -> None:
    """Solve all cases, compare, and write."""
    try:
        planner: Any = importlib.import_module("retrainopt.core")
        of = version("retrainopt")
    except (ImportError, PackageNotFoundError):
        sys.exit("retrainopt is not installed here: pip install retrainopt into an environment")
    generator = np.random.default_rng(SEED)
    cases = [_solved(planner, generator) for _ in range(CASES)]
    agreed = sum(map(_agrees, cases))
    document = {"retrainopt": of, "seed": SEED, "cases": cases}
    FILE.write_text(json.dumps(document) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps({"retrainopt": of, "cases": CASES, "agree": agreed}) + "\n")


def _solved(planner: Any, generator: np.random.Generator) -> dict[str, Any]:
    """One random case with retrainopt's answer: model -1 is the stand-in, model t is trained at t.

    Losses have so many digits that no two schedules cost the same.
    """
    steps = int(generator.integers(1, LARGEST + 1))
    price = round(float(generator.uniform(0.0, 12.0)), 6)
    stand_in = generator.uniform(0.0, 9.0, steps).round(6).tolist()
    losses = [generator.uniform(0.0, 9.0, steps - step).round(6).tolist() for step in range(steps)]
    costs: dict[tuple[int, int], dict[str, Any]] = {
        (-1, 0): {"future_losses": dict(enumerate(stand_in))}
    }
    for step, each in enumerate(losses):
        costs[step, 1] = {
            "training_cost": price,
            "future_losses": {step + index: loss for index, loss in enumerate(each)},
        }
    cost, decisions, _, _ = planner.solve_exact_schedule(steps, costs, loss_cost_weight=1.0)
    retrained = [
        step for step, each in enumerate(decisions) if "retrain" in each.action.value.lower()
    ]
    return {
        "price": price,
        "stand_in": stand_in,
        "losses": losses,
        "cost": cost,
        "retrained_at": retrained,
    }


def _agrees(case: dict[str, Any]) -> bool:
    found = [Candidate(step, step, np.array(each)) for step, each in enumerate(case["losses"])]
    best = optimum.cheapest(np.array(case["stand_in"]), found, case["price"])
    same = list(best.chosen) == case["retrained_at"]
    return same and math.isclose(best.cost, case["cost"], rel_tol=1e-12)


if __name__ == "__main__":
    main()
