"""Kill runs at random instants until they are through, and compare them with an undisturbed one.

    python -m benchmarks.kills [--kills 50] [--records 12000] [--seed 0]

Prints one JSON line: how many kills and runs there were, and how many logged values, decisions and
models differ from the undisturbed run, all runs together (all must be 0). Each kill is a SIGKILL of
the whole command at a random moment of its life, start-up included.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from models.persistence.signing import SigningKey
from models.prediction_log import prediction_log
from models.registry.registry import Registry
from observability.core.paths import Places
from observability.history.store import History

ROOT = Path(__file__).resolve().parent.parent
NAME = "elec2"


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--records", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), asked.kills, asked.records, asked.seed)))  # noqa: T201 - the figure is the output


def measure(folder: Path, kills: int, records: int, seed: int) -> dict[str, object]:
    """Run once undisturbed and once with `kills` kills; count what differs."""
    pipeline = _pipeline(folder, records)
    began_s = time.monotonic()
    _finish(pipeline, folder / "undisturbed")
    undisturbed_s = time.monotonic() - began_s
    chance = random.Random(seed)
    found: Counter[str] = Counter()
    left = kills
    while left:
        # A run that is through is compared, and the next one begins on a home of its own.
        home = folder / f"killed{found['runs']}"
        while left and _killed(pipeline, home, chance.uniform(0.5, undisturbed_s)):
            left -= 1
        _finish(pipeline, home)
        found.update(_differences(folder / "undisturbed", home, records), runs=1)
    return {"benchmark": "kills", "kills": kills, "records": records, **found}


def _pipeline(folder: Path, records: int) -> Path:
    """The example on its first records, in small batches, so that there is much to interrupt."""
    from pyarrow import parquet

    table = parquet.read_table(ROOT / "examples" / "elec2.parquet").slice(0, records)
    parquet.write_table(table, folder / "elec2.parquet", row_group_size=2_000)
    (folder / "elec2-gpu.csv").write_bytes((ROOT / "examples" / "elec2-gpu.csv").read_bytes())
    path = folder / "elec2.toml"
    path.write_text(
        (ROOT / "examples" / "elec2.toml")
        .read_text()
        .replace('target = "class"', 'target = "class"\nbatch = 250')
    )
    return path


def _command(pipeline: Path, home: Path) -> list[str]:
    return [sys.executable, "-m", "thermodrift", "--home", str(home), "run", str(pipeline)]


def _finish(pipeline: Path, home: Path) -> None:
    subprocess.run(_command(pipeline, home), cwd=ROOT, check=True, capture_output=True)


def _killed(pipeline: Path, home: Path, after_s: float) -> bool:
    """Start a run and kill it after so many seconds; False where it was through before that."""
    process = subprocess.Popen(
        _command(pipeline, home), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def _differences(expected: Path, actual: Path, records: int) -> dict[str, int]:
    def log(home: Path) -> list[dict[str, object]]:
        folder = Places(home).pipeline(NAME).predictions
        rows: list[dict[str, object]] = prediction_log.read(folder, 0, records).to_pylist()
        return rows

    def models(home: Path) -> list[dict[str, object]]:
        # Not the bytes: a pickle's depend on which texts happen to be one object in memory.
        store = Registry(Places(home).pipeline(NAME), SigningKey.open(Places(home).key))
        measured = {"created_at", "fit_s", "sha256", "size_bytes"}
        return [each.model_dump(exclude=measured) for each in store.ls()]

    def decided(home: Path) -> list[tuple[object, ...]]:
        rows = History(home).ask(
            "SELECT position, question, yes, because FROM decisions ORDER BY ALL"
        )
        return [tuple(row.values()) for row in rows.to_pylist()]

    before, after = log(expected), log(actual)
    return {
        "logged_expected": len(before),
        "logged": len(after),
        "values_different": sum(
            left[name] != right[name]
            for left, right in zip(before, after, strict=False)
            for name in left
        ),
        "models_different": int(models(expected) != models(actual)),
        "decisions_lost_or_double": len(set(decided(expected)) ^ set(decided(actual)))
        + abs(len(decided(expected)) - len(decided(actual))),
    }


if __name__ == "__main__":
    main()
