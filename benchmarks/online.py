"""Records per second of a run's learning, over a bare river loop of the same members.

    python -m benchmarks.online [--records 20000] [--rounds 5]

Both go through the same records of elec2, turn by turn in one process. The bare loop gets
ready-made dicts and does for each member what river's own progressive validation does: predict,
score, learn. The run does all that it does in earnest, drift checks and retrains apart: reads and
checks Parquet, imputes, blends, logs, checkpoints with fsync, writes its history. Prints one JSON
line with a ratio for each set of online members: the median over the rounds, each a pair of
neighbours in time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.config import pipeline
from flows.learning import learn_batch
from flows.run.progress import Display
from flows.run.session import opened
from flows.run.shutdown import Stop
from models.core.metrics import Measure
from models.core.record_schema import Features, Label, Schema
from models.online import recipes
from models.online.naive_baseline import NoChange
from models.online.online_model import DEFAULT_MEMBERS
from models.stream.source import Cursor, Stream, StreamOptions

ROOT = Path(__file__).resolve().parent.parent
STREAM = ROOT / "examples" / "elec2.parquet"
SLOW = "adaptive_random_forest"
SETS: dict[str, tuple[str, ...]] = {
    "default": DEFAULT_MEMBERS,
    "linear": ("linear",),
    "forest": (*DEFAULT_MEMBERS, SLOW),
}
"""The online members that are measured together."""


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    figures = {
        name: compare(
            members, asked.records if SLOW not in members else asked.records // 5, asked.rounds
        )
        for name, members in SETS.items()
    }
    print(json.dumps({"benchmark": "online", "records": asked.records, **figures}))  # noqa: T201 - the figure is the output


def compare(members: Sequence[str], records: int, rounds: int) -> dict[str, float]:
    """Rates of both, and the ratio of a run over the bare loop."""
    options = StreamOptions(path=str(STREAM), target="class")
    stream = Stream(STREAM, "classification", options)
    batch = stream.read(Cursor(), records).labelled()
    pairs = [
        (bare(members, batch.rows, batch.labels, stream.schema), in_earnest(members, records))
        for _ in range(rounds)
    ]
    return {
        "ratio": round(statistics.median(run / bare for bare, run in pairs), 3),
        "bare_per_s": round(statistics.median(bare for bare, _ in pairs)),
        "run_per_s": round(statistics.median(run for _, run in pairs)),
    }


def bare(
    members: Sequence[str], rows: list[dict[str, Any]], labels: Sequence[Label], schema: Schema
) -> float:
    """Records per second of all members in a loop: predict, score, learn."""
    from river import metrics

    brier = Measure("brier")
    models: list[Any] = [recipes.RECIPES[name](schema, 0, {}, brier) for name in members]
    last = NoChange("classification")
    scores = [metrics.Accuracy() for _ in range(len(models) + 1)]
    began_s = time.perf_counter()
    record: Features
    for record, label in zip(rows, labels, strict=True):
        for model, score in zip(models, scores, strict=False):
            score.update(label, model.predict_one(record))
            model.learn_one(record, label)
        answer = last.predict()
        scores[-1].update(
            label, max(answer, key=answer.__getitem__) if isinstance(answer, dict) else None
        )
        last.learn(label)
    return len(rows) / (time.perf_counter() - began_s)


def in_earnest(members: Sequence[str], records: int) -> float:
    """Records per second of a run's learning tasks on a fresh home."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.toml"
        path.write_text(
            '[pipeline]\nname = "bench"\ntask = "classification"\n'
            f'[stream]\npath = "{STREAM}"\ntarget = "class"\n'
            f'[online]\nmembers = {json.dumps(members)}\n[gate]\nsource = "off"\n'
        )
        file = pipeline.read(path)
        display = Display("bench")
        with opened(file, Path(folder) / "home", Stop(), display, records) as work:
            work.commit([])
            began_s = time.perf_counter()
            while work.records < records:
                learn_batch.learn.fn(work)
            work.wait()
            return records / (time.perf_counter() - began_s)


if __name__ == "__main__":
    main()
