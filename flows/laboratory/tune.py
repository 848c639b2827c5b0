"""Propose knobs: what a small seeded search finds on the front of loss against joules.

Every trial is a run of the product with other knobs, so nothing is approximated. The first trial is
the file as it is. The search sees the stream's past; how the future will be it cannot know.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from flows.config import pipeline
from flows.laboratory import compare, product_run
from flows.laboratory.crew import Work
from flows.laboratory.records import LabConfig
from observability.core import atomic_file
from observability.core.errors import BadConfiguration, TryAgainLater

CHOICES: Mapping[str, Sequence[float]] = {
    "worth.fit_second_pays": (0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
    "worth.most_horizon_records": (5000, 20_000, 80_000),
    "worth.min_new_rows": (100, 200, 500, 1000),
    "drift.every": (1000, 2000, 4000),
    "drift.error_false_alarm_records": (5000, 20_000, 80_000),
    "batch.window": (2000, 5000, 10_000),
    "batch.recent_share": (0.25, 0.5, 1.0),
}
"""The knobs that are tried, and their values."""
WITHIN = 0.01
"""Of the trials whose loss is within this share of the least one, the cheapest is proposed."""

Knobs = Mapping[str, float]
"""Values by TABLE.KNOB."""


class FileChanged(TryAgainLater):
    """The pipeline file is not as it was when the search began."""


def trials(count: int, seed: int) -> list[Knobs]:
    """So many different sets of knobs, the first one empty: the file as it is."""
    chance = Random(seed)
    found: list[Knobs] = [{}]
    # With so few trials of so many sets, this ends soon.
    while len(found) < count:
        drawn = {name: chance.choice(values) for name, values in CHOICES.items()}
        if drawn not in found:
            found.append(drawn)
    return found


def works(
    home: Path, files: Sequence[Path], config: LabConfig, tried: Sequence[Knobs]
) -> list[Work[dict[str, Any]]]:
    """A run for each file and each set of knobs, the file's sets one after the other."""
    return [
        Work(pipeline.read(path).name, [], partial(measured, home, path, config, dict(knobs)))
        for path in files
        for knobs in tried
    ]


def measured(home: Path, path: Path, config: LabConfig, knobs: Knobs) -> dict[str, Any]:
    """What the product loses and spends on this pipeline with these knobs."""
    pieces, read = compare.opened(home, path, config)
    name = "tune-" + hashlib.sha256(json.dumps(knobs, sort_keys=True).encode()).hexdigest()[:12]

    def made() -> dict[str, Any]:
        run = compare.of_product(pieces, read, name, tables(knobs))
        bench = compare.Bench(read, compare.online(pieces, read), config)
        losses = bench.served(compare.champion_of(bench, run))
        fit_s = sum(each.fit_s for each in run.fits)
        return {
            "stream": read.file.name,
            "score": read.score(float(losses.mean())),
            "loss": float(losses.mean()),
            "retrains": len(run.fits),
            "fit_s": fit_s,
            "joules": fit_s * config.cpu_watts,
        }

    return pieces.document(name, made)


def tables(knobs: Knobs) -> product_run.Knobs:
    """The knobs by table, as in a pipeline file."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in knobs.items():
        table, _, knob = name.rpartition(".")
        found.setdefault(table, {})[knob] = value
    return found


def judged(tried: Sequence[Knobs], found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All trials, those on the front, and the one that is proposed.

    `found` has, stream by stream, a document for each trial. The loss of a trial is the mean over
    the streams of its loss relative to that of the file as it is. `proposed` is a number of a
    trial; 0 proposes to leave the file as it is.
    """
    streams = [found[begin : begin + len(tried)] for begin in range(0, len(found), len(tried))]
    rows: list[dict[str, Any]] = []
    for number, knobs in enumerate(tried):
        of_all = [each[number] for each in streams]
        shares = [
            each[number]["loss"] / each[0]["loss"] if each[0]["loss"] > 0 else 1.0
            for each in streams
        ]
        rows.append(
            {
                "trial": number,
                "knobs": dict(knobs),
                "relative_loss": sum(shares) / len(shares),
                "score": of_all[0]["score"] if len(of_all) == 1 else None,
                "retrains": sum(each["retrains"] for each in of_all),
                "fit_s": sum(each["fit_s"] for each in of_all),
                "joules": sum(each["joules"] for each in of_all),
            }
        )
    for row in rows:
        row["on_front"] = not any(_dominates(other, row) for other in rows)
    least = min(row["relative_loss"] for row in rows)
    good = [row for row in rows if row["relative_loss"] <= least * (1.0 + WITHIN)]
    proposed = min(good, key=lambda row: (row["joules"], row["relative_loss"], row["trial"]))
    return {"proposed": proposed["trial"], "trials": rows}


def _dominates(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether one trial is as good as another in both, and better in one."""
    ours, theirs = (
        (one["relative_loss"], one["joules"]),
        (other["relative_loss"], other["joules"]),
    )
    return ours != theirs and ours[0] <= theirs[0] and ours[1] <= theirs[1]


def write(path: Path, before: bytes, knobs: Knobs) -> None:
    """Write these knobs into the pipeline file, whose comments stay.

    `before` is what the file held when the search began. Raises FileChanged if it holds something
    else now, and BadConfiguration where the file writes its tables in a form that is not edited.
    """
    if path.read_bytes() != before:
        raise FileChanged(
            f"{path} was changed while the search ran, so nothing was written: run it again"
        )
    try:
        text = edited(before.decode("utf-8-sig"), knobs)
    except ValueError as error:
        shown = "; ".join(f"{name} = {_toml(value)}" for name, value in knobs.items())
        raise BadConfiguration(
            f"{path}: its tables are in a form that is not edited ({error}), so nothing was "
            f"written; write these by hand: {shown}"
        ) from error
    # What would be written must be a pipeline file, before it replaces one.
    product_run.with_knobs(pipeline.read(path), tables(knobs))
    atomic_file.write(path, text.encode())


def edited(text: str, knobs: Knobs) -> str:
    """The text of a TOML file with these values; nothing else in it changes.

    Raises ValueError where a table is not written with a header of its own, or a value goes over
    several lines.
    """
    expected = tomllib.loads(text)
    lines = text.split("\n")
    for name, value in knobs.items():
        table, _, knob = name.rpartition(".")
        expected.setdefault(table, {})[knob] = value
        _set(lines, table, knob, _toml(value))
    changed = "\n".join(lines)
    if tomllib.loads(changed) != expected:
        raise ValueError("no header of its own, or a value over several lines")
    return changed


def _set(lines: list[str], table: str, knob: str, value: str) -> None:
    """Set one knob in these lines: in its line, below the header of its table, or at the end."""
    header = re.compile(rf"\s*\[\s*{re.escape(table)}\s*\]\s*(#.*)?$")
    begins = next((at for at, line in enumerate(lines) if header.match(line)), None)
    if begins is None:
        while lines and not lines[-1].strip():
            lines.pop()
        lines += ["", f"[{table}]", f"{knob} = {value}", ""]
        return
    assigned = re.compile(rf"(\s*{re.escape(knob)}\s*=\s*)([^#]*?)(\s*#.*)?$")
    for at in range(begins + 1, len(lines)):
        if lines[at].lstrip().startswith("["):
            break
        found = assigned.match(lines[at])
        if found:
            lines[at] = f"{found[1]}{value}{found[3] or ''}"
            return
    lines.insert(begins + 1, f"{knob} = {value}")


def _toml(value: float) -> str:
    return repr(value)
