"""Makes docs/laboratory.md: what the defaults do on every stream of the laboratory.

Run it as ``python -m benchmarks.laboratory`` (or ``make lab``); it takes a while, and goes on where
it was stopped. Beside the page it writes the figures (docs/laboratory.json) and a picture
(docs/laboratory.svg), and brings the figures up to date that other pages name between marks::

    <!-- lab: elec2 worth score -->0.891<!-- /lab -->

The three words are a stream, a policy and a figure of docs/laboratory.json. Real streams are taken
whole and generated ones of `GENERATED` records, so that two cores need a quarter of an hour or so.
``--quick`` takes 2,000 records of each stream, ``--streams`` some of them, and ``--to`` another
folder than docs.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.cli import lab_commands, lab_picture, lab_report
from flows.config import settings
from flows.laboratory import compare, drift_trial, records, streams
from flows.laboratory.records import LabConfig

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".thermodrift-lab"
GENERATED = 12_000
"""Records of a generated stream."""
SEEDS = 5
QUICK = (
    "`python -m benchmarks.laboratory --quick`, which takes 2,000 records of each stream and one "
    "seed: too few to say more than that nothing is broken. `make lab` measures in earnest"
)
DIGITS = 6
"""Significant digits of a figure."""
MARKED = re.compile(r"<!-- lab: (\S+) (\S[^>]*?) (\w+) -->([^<]*)<!-- /lab -->")


def main() -> None:
    """Measure, and write the page, the figures and the picture."""
    parser = argparse.ArgumentParser(description="Make docs/laboratory.md.")
    parser.add_argument("--quick", action="store_true", help="2,000 records of each stream")
    parser.add_argument("--streams", help="streams, with commas between them")
    parser.add_argument("--jobs", type=int, help="processes at once")
    parser.add_argument("--home", type=Path, default=HOME, help="where finished pieces are kept")
    parser.add_argument("--to", type=Path, default=ROOT / "docs", help="folder to write into")
    asked = parser.parse_args()
    settings.silence_telemetry()
    write(measured(asked), asked.to)
    if asked.to == ROOT / "docs":
        for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
            page.write_text(filled(page.read_text("utf-8"), read(asked.to)), "utf-8")


def measured(asked: argparse.Namespace) -> dict[str, Any]:
    """The figures of all comparisons and trials."""
    home = records.folder(asked.home.resolve())
    most = lab_commands.QUICK_RECORDS if asked.quick else None
    shipped = [
        each if each.worlds is None else each.shortened(most or GENERATED)
        for each in lab_commands.shipped(asked.streams, most)
    ]
    config = LabConfig(records=most)
    files = lab_commands.written(shipped, home)
    compared = lab_commands.done(compare.works(home, files, config), asked.jobs)
    tried = [
        each.shortened(most or GENERATED)
        for each in streams.named(",".join(drift_trial.STREAMS))
        if asked.streams is None or each.name in {one.name for one in shipped}
    ]
    seeds = 1 if asked.quick else SEEDS
    trials = lab_commands.done(drift_trial.works(home, tried, seeds), asked.jobs)
    return {
        "made_on": datetime.now(UTC).date().isoformat(),
        "made_by": QUICK if asked.quick else "`make lab`",
        "compared": lab_report.compared(shipped, compared, config),
        "drift": lab_report.tried(trials),
    }


def write(document: dict[str, Any], folder: Path) -> None:
    """Write the figures, the page that is rendered from them, and the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_rounded(document), indent=None, separators=(",", ":"))
    # A line for each policy, so that a change of one can be seen.
    text = text.replace('{"policy"', '\n{"policy"').replace('{"stream"', '\n{"stream"')
    (folder / "laboratory.json").write_text(text + "\n", "utf-8")
    figures = read(folder)
    (folder / "laboratory.md").write_text(lab_report.page(figures), "utf-8")
    picture = lab_picture.over_time(figures["compared"]["streams"])
    (folder / "laboratory.svg").write_text(picture, "utf-8")
    sys.stdout.write(f"wrote {folder / 'laboratory.md'}\n")


def read(folder: Path) -> dict[str, Any]:
    """The figures that were written."""
    found: dict[str, Any] = json.loads((folder / "laboratory.json").read_text("utf-8"))
    return found


def filled(text: str, document: dict[str, Any]) -> str:
    """A page with its marked figures as they are now, to as many digits as it had."""

    def figure(mark: re.Match[str]) -> str:
        shown = shown_as(document, mark[1], mark[2], mark[3], mark[4])
        return f"<!-- lab: {mark[1]} {mark[2]} {mark[3]} -->{shown}<!-- /lab -->"

    return MARKED.sub(figure, text)


def shown_as(document: dict[str, Any], stream: str, policy: str, name: str, like: str) -> str:
    """A figure to the digits of another one; with % it is a hundred times as large.

    Raises KeyError where there is no such figure.
    """
    for each in document["compared"]["streams"]:
        for row in each["policies"]:
            if (each["stream"], row["policy"]) == (stream, policy):
                percent = like.strip().endswith("%")
                _, _, digits = like.strip(" %").partition(".")
                value = row[name] * (100 if percent else 1)
                return f"{value:.{len(digits)}f}" + (" %" if percent else "")
    raise KeyError(f"the laboratory has no figure {stream} {policy} {name}")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


if __name__ == "__main__":
    main()
