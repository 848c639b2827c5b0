"""Records per second of a run's learning, over a bare river loop of the same members.

    python -m benchmarks.online [--records 20000] [--rounds 5] [--whole]

All go through the same records of elec2, turn by turn in one process. The bare loop gets
ready-made dicts and does for each member what river's own progressive validation does: predict,
score, learn. The *learner* gets the same dicts, and the answers of a stand-in for a champion: it
imputes, blends, tests errors, and weighs the champion. The *run* does all that it does in earnest,
drift checks and retrains apart: reads and checks Parquet, logs, checkpoints with fsync, writes its
history. Prints one JSON line with the ratios for each set of online members: the median over the
rounds, each of neighbours in time.

With `--whole`, the whole command is measured too, drift checks, retrains and all, on all of elec2:
`whole_s` is from its first record to its end, `command_s` includes starting Prefect and Python.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flows.config import pipeline
from flows.learning import learn_batch
from flows.run.progress import Display
from flows.run.session import opened
from flows.run.shutdown import Stop
from models.core.metrics import Measure
from models.core.prediction import BatchPrediction
from models.core.record_schema import Features, Label, Schema
from models.online import online_model, recipes
from models.online.blend import BlendConfig
from models.online.learner import Learner
from models.online.naive_baseline import NoChange
from models.online.online_model import DEFAULT_MEMBERS, OnlineConfig
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
    parser.add_argument("--whole", action="store_true", help="measure the whole command too")
    asked = parser.parse_args()
    figures = {
        name: compare(
            members, asked.records if SLOW not in members else asked.records // 5, asked.rounds
        )
        for name, members in SETS.items()
    }
    if asked.whole:
        figures["whole"] = whole()
    print(json.dumps({"benchmark": "online", "records": asked.records, **figures}))  # noqa: T201 - the figure is the output


def compare(members: Sequence[str], records: int, rounds: int) -> dict[str, float]:
    """Rates of all, and the ratios of the learner and of a run over the bare loop."""
    options = StreamOptions(path=str(STREAM), target="class")
    stream = Stream(STREAM, "classification", options)
    batch = stream.read(Cursor(), records).labelled()
    rates = [
        (
            bare(members, batch.rows, batch.labels, stream.schema),
            learner(members, batch.rows, batch.labels, stream.schema),
            in_earnest(members, records),
        )
        for _ in range(rounds)
    ]
    return {
        "ratio": round(statistics.median(run / bare for bare, _, run in rates), 3),
        "learner_ratio": round(statistics.median(learns / bare for bare, learns, _ in rates), 3),
        "bare_per_s": round(statistics.median(bare for bare, _, _ in rates)),
        "learner_per_s": round(statistics.median(learns for _, learns, _ in rates)),
        "run_per_s": round(statistics.median(run for _, _, run in rates)),
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


def learner(
    members: Sequence[str], rows: list[dict[str, Any]], labels: Sequence[Label], schema: Schema
) -> float:
    """Records per second of the learner, in batches of a thousand, with a champion's answers."""
    config = OnlineConfig(members=tuple(members))
    made = Learner(online_model.build(config, schema), "classification", BlendConfig())
    shares = np.random.default_rng(0).uniform(0.1, 0.9, len(rows))
    classes = tuple(sorted(set(labels)))
    began_s = time.perf_counter()
    for first in range(0, len(rows), 1_000):
        here = slice(first, first + 1_000)
        both = np.stack([shares[here], 1.0 - shares[here]], axis=1)
        likeliest = [classes[index] for index in both.argmax(axis=1)]
        champion = BatchPrediction(likeliest, both, classes)
        made.learn(rows[here], labels[here], champion, positions=range(len(rows))[here])
    return len(rows) / (time.perf_counter() - began_s)


def whole() -> dict[str, float]:
    """Seconds of the whole command on all of elec2, over those of the bare loop."""
    options = StreamOptions(path=str(STREAM), target="class")
    stream = Stream(STREAM, "classification", options)
    batch = stream.read(Cursor(), 10**9).labelled()
    records = len(batch.rows)
    bare_s = records / bare(DEFAULT_MEMBERS, batch.rows, batch.labels, stream.schema)
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "thermodrift", "--home", home, "run", "--json"]
        began_s = time.perf_counter()
        done = subprocess.run(
            [*command, str(STREAM.with_suffix(".toml"))],
            check=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        command_s = time.perf_counter() - began_s
    run_s = json.loads(done.stdout)["run"]["seconds"]
    return {
        "records": records,
        "bare_s": round(bare_s, 2),
        "whole_s": round(run_s, 2),
        "command_s": round(command_s, 2),
        "whole_over_bare": round(run_s / bare_s, 2),
    }


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
