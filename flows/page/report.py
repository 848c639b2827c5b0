"""The report of pipelines: the page as one file without a network, or as Markdown, a model card.

It reads the history once for each pipeline, and needs no service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from flows.config import pipeline as pipelines
from flows.page import drawing, present, rendering
from models.persistence.signing import SigningKey
from models.registry.registry import Manifest, Registry
from observability.core.errors import BadConfiguration, ThermodriftError
from observability.core.paths import Places
from observability.history.store import History
from observability.story import past, story
from observability.story.limits import limits
from observability.story.past import Decided, Mark
from observability.story.story import Story

MOST_BYTES = 500_000
"""What a mail still takes."""
STEPS = 240
"""Steps of the axis: a report is printed, and sent by mail."""
MOST_DETAILS = 24
"""Decisions that are reported with all their numbers, over all pipelines of a report."""


@dataclass(frozen=True)
class Report:
    """What is reported of one pipeline."""

    story: Story
    manifest: Manifest | None
    """Of the champion; None: there is none that can be verified."""
    limits: Sequence[str]
    details: Mapping[str, Decided]
    """Decisions with all their numbers, by key."""


def collect(home: Places, words: Sequence[str], now: datetime, reach: str = "all") -> list[Report]:
    """The reports of the pipelines that `words` name, directly or as TOML files.

    Raises BadConfiguration for what is no pipeline of the home, and as `History.ask` does.
    """
    found = [_named(home, word) for word in words]
    return [_report(home, name, file, now, reach, len(found)) for name, file in found]


def document(report: Report) -> dict[str, Any]:
    """A report for programs."""
    manifest = report.manifest
    return {
        **story.document(report.story),
        "limits": list(report.limits),
        "champion": None if manifest is None else manifest.model_dump(mode="json"),
    }


def html(reports: Sequence[Report], now: datetime) -> str:
    """One HTML file that loads nothing, below `MOST_BYTES` unless it is of very many pipelines.

    Where it would be longer, decisions are without their numbers, and it says so.
    """
    whole = _html(reports, now, left_out=False)
    if len(whole.encode()) <= MOST_BYTES:
        return whole
    return _html([replace(each, details={}) for each in reports], now, left_out=True)


def _html(reports: Sequence[Report], now: datetime, *, left_out: bool) -> str:
    shown = [
        {
            "report": each,
            "past": each.story.past,
            "picture": _picture(each),
            "caption": rendering.caption(each.story.past),
            "tables": rendering.tables(each.story.past),
            "link": _link(each),
            "numbers": _numbers(each),
        }
        for each in reports
    ]
    return (
        rendering.templates()
        .get_template("report.html")
        .render(
            title=", ".join(each.story.pipeline for each in reports),
            style=rendering.asset_path("page.css").read_text(encoding="utf-8"),
            now=now,
            reports=shown,
            left_out=left_out,
        )
    )


def markdown(reports: Sequence[Report], now: datetime) -> str:
    """Model cards as Markdown. What others have named is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(rendering.HERE / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_escaped,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "shown": rendering.shown,
        "words": lambda name: str(name).replace("_", " "),
        "code": _code,
    }
    cards = [
        environment.get_template("report.md").render(
            report=each,
            story=each.story,
            past=each.story.past,
            now=now,
            numbers=_numbers(each),
            features=_features(each),
        )
        for each in reports
    ]
    return "\n".join(cards)


def _named(home: Places, word: str) -> tuple[str, Path | None]:
    """The name of a pipeline of the home, and its file where that was given."""
    file = pipelines.read(Path(word)) if word.endswith(".toml") else None
    name = word if file is None else file.name
    there = sorted(each.name for each in home.pipelines.glob("*") if each.is_dir())
    if name not in there:
        raise BadConfiguration(
            f"the home {home.home} has no pipeline {name!r}; there are: "
            f"{', '.join(there) or 'none, run one first'}"
        )
    return name, None if file is None else file.path


def _report(
    home: Places, name: str, file: Path | None, now: datetime, reach: str, count: int
) -> Report:
    live = present.look(home, name, now, file)
    history = History(home.home)
    found = past.read(history, name, live.metric, now, reach, STEPS)
    told = story.tell(found, live, now)
    kept = found.newest[: max(MOST_DETAILS // count, 1)]
    details = past.decisions(history, name, kept)
    return Report(told, _manifest(home, told), limits(told), details)


def _manifest(home: Places, told: Story) -> Manifest | None:
    """The verified manifest of the champion."""
    champion = told.past.first("champion")
    if champion is None or not home.key.exists():
        return None
    with suppress(ThermodriftError):
        registry = Registry(home.pipeline(told.pipeline), SigningKey.open(home.key))
        return registry.manifest(champion["version"])
    return None


def _numbers(report: Report) -> list[dict[str, Any]]:
    """Each member's score, over the newest records and over all."""
    return [
        {
            "member": row["member"],
            "newest": row["newest"],
            "newest records": row["newest_records"],
            "over all": row["overall"],
            "records": row["records"],
        }
        for row in report.story.past.rows["now"]
    ]


def _features(report: Report) -> str:
    """The features of the champion, with their kinds."""
    columns = () if report.manifest is None else report.manifest.record_schema.columns
    return ", ".join(f"{each.name} ({each.kind})" for each in columns)


def _link(report: Report) -> drawing.Linked:
    """Where a mark leads in the file itself: to its decision, or to the list."""
    name = report.story.pipeline

    def link(mark: Mark) -> str:
        return f"#{name}-{mark.key if mark.key in report.details else 'decisions'}"

    return link


def _picture(report: Report) -> str:
    better = "higher" if report.story.live.larger_is_better else "lower"
    name = f"{report.story.pipeline}-picture"
    return drawing.picture(report.story.past, drawing.WIDE, _link(report), better, name)


class _Code(str):
    """Markdown that is escaped already."""

    __slots__ = ()


def _code(text: str) -> _Code:
    """A block of code, whose fence is longer than any in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return _Code(f"{fence}\n{text.strip()}\n{fence}")


def _escaped(value: object) -> object:
    """A value as plain text of Markdown: one line, and no letter of it means anything."""
    if isinstance(value, _Code) or not isinstance(value, str):
        return value
    text = " ".join(value.split())
    for letter in "\\`*_[]<>|#~!":
        text = text.replace(letter, f"\\{letter}")
    return text.replace("&", "&amp;")
