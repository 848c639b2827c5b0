"""The report: the same values as the page, in a file that loads nothing and may be mailed."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

import thermodrift
from flows.page import report
from observability.core.errors import BadConfiguration
from observability.history.store import History, HistoryBusy
from tests.flows.api.makers import Learned
from tests.flows.makers import NAME
from tests.flows.page.makers import HOSTILE, add_hostile
from tests.observability.history.makers import make_decision, make_gpu_row, make_score

NOW = datetime.now(UTC)


def reports(told: Learned) -> list[report.Report]:
    """The report of the pipeline."""
    return report.collect(told.places, [NAME], NOW)


def test_the_file_has_the_answers_and_loads_nothing(told_once: Learned) -> None:
    """No address, no script; its own policy forbids both."""
    found = reports(told_once)
    text = report.html(found, NOW)
    for each in found[0].story.answers:
        assert each.question in text
    assert "<svg" in text
    assert [] == re.findall(r"https?://|<script|<link|@import|url\(|<img| src=", text)
    assert "default-src 'none'" in text


def test_every_link_of_the_file_leads_into_the_file(told_once: Learned) -> None:
    """A mark leads to its decision where that is reported, else to the list."""
    text = report.html(reports(told_once), NOW)
    targets, ids = set(re.findall(r'href="#([^"]+)"', text)), set(re.findall(r'id="([^"]+)"', text))
    assert targets <= ids
    assert any(each.endswith("-promotion") for each in targets)
    assert [] == re.findall(r'href="(?!#)', text)


def test_a_model_card_has_what_it_is_asked_for(told_once: Learned) -> None:
    """Task, training data, scores against baselines, drift, cost, limits, people, SQL."""
    (found,) = reports(told_once)
    text = report.markdown([found], NOW)
    assert [
        *("In short", "Intended task", "What serves", "Scores against baselines", "Drift"),
        *("Energy and cost", "Limits", "Decisions by people", "The SQL"),
    ] == re.findall("^## (.*)$", text, re.M)
    assert "It predicts label (classification), judged by brier" in text
    champion = found.story.past.first("champion")
    assert champion is not None
    assert f"| version | {champion['version']} |" in text
    assert f"| SHA-256 | {champion['sha256']} |" in text
    assert "is unknown, and in no sum" in text
    rows = [each for each in text.splitlines() if each.startswith("|")]
    assert all(each.endswith("|") for each in rows)


def test_hostile_values_are_text_in_both(told: Learned) -> None:
    """Neither HTML nor Markdown may become anything else by them."""
    add_hostile(told)
    found = reports(told)
    page, card = report.html(found, NOW), report.markdown(found, NOW)
    assert "<script" not in page
    assert "<img" not in page
    outside = re.sub(r"^(```+)\n.*?\n\1$", "", card, flags=re.S | re.M)
    assert "<script" not in outside.replace("\\<", "")
    assert HOSTILE not in outside


@pytest.mark.parametrize("text", ["a | b", "*x*", "[a](b)", "<b>", "# x", "`x`", "a\nb", "![i](u)"])
def test_markdown_of_others_is_plain(text: str) -> None:
    """Each letter that means something is escaped, and a line stays one."""
    escaped = str(report._escaped(text))
    assert "\n" not in escaped
    assert not re.search(r"(?<!\\)[|*\[\]<>#`!]", escaped)


def test_a_fence_is_longer_than_what_it_holds() -> None:
    """SQL with a fence in it stays one block."""
    assert str(report._code("a ``` b")).startswith("````\n")


@pytest.mark.slow
def test_a_long_history_stays_below_half_a_megabyte(told: Learned) -> None:
    """With eight devices, thousands of decisions, and reasons as long as a page."""
    history = History(told.home)
    moments = [NOW - timedelta(minutes=each) for each in range(2_000)]
    facts = {f"feature:{each}": 0.123456789 for each in range(100)}
    readings = [
        make_gpu_row(pipeline=NAME, at=at, uuid=f"GPU-{device}", margin_c=float(number % 37))
        for number, at in enumerate(moments[::4])
        for device in range(8)
    ]
    decisions = [
        make_decision(
            pipeline=NAME, decided_at=at, question=question, yes=True, because="why " * 500,
            facts=facts,
        )
        for at in moments
        for question in ("drift", "worth", "admission", "promotion")
    ]  # fmt: skip
    scores = [
        make_score(pipeline=NAME, at=at, position_from=number, member=member, metric="brier")
        for number, at in enumerate(moments)
        for member in ("served", "online", "batch", "baseline")
    ]
    history.commit([*readings, *decisions, *scores], "many")
    text = report.html(reports(told), NOW)
    assert len(text.encode()) < report.MOST_BYTES
    assert "are left out, so that this file stays short" in text


def test_what_is_no_pipeline_is_named(told_once: Learned, tmp_path: Path) -> None:
    """With those that there are."""
    with pytest.raises(BadConfiguration, match=f"no pipeline 'nobody'; there are: {NAME}"):
        report.collect(told_once.places, ["nobody"], NOW)


def test_a_busy_history_is_no_report(told: Learned, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report of half the truth would be kept for years."""
    monkeypatch.setattr(report, "History", partial(History, timeout_s=0.0))
    with History(told.home).exclusive(), pytest.raises(HistoryBusy):
        report.collect(told.places, [NAME], NOW)


def run(told: Learned, folder: Path, *words: str) -> str:
    """What the command prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = CliRunner().invoke(thermodrift.app, ["--home", str(told.home), "report", *words])
    assert 0 == done.exit_code, done.output
    return done.output


def test_the_command_writes_a_file_named_for_the_pipeline(
    told_once: Learned, tmp_path: Path
) -> None:
    """HTML, or Markdown, or where it was told to."""
    assert f"wrote {NAME}-report.html" in run(told_once, tmp_path, NAME)
    run(told_once, tmp_path, str(told_once.file), "--markdown")
    run(told_once, tmp_path, NAME, "--output", "here.html", "--range", "hour")
    assert ["here.html", f"{NAME}-report.html", f"{NAME}-report.md"] == sorted(
        each.name for each in tmp_path.iterdir()
    )


def test_the_command_prints_the_values_of_the_page(told_once: Learned, tmp_path: Path) -> None:
    """One document, and no file."""
    (found,) = json.loads(run(told_once, tmp_path, NAME, "--json"))
    assert [] == list(tmp_path.iterdir())
    assert (NAME, 10) == (found["pipeline"], len(found["answers"]))
    assert found["champion"]["version"] == found["rows"]["champion"][0]["version"]
    assert found["limits"]
