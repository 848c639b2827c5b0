"""The page of the laboratory is made by its script, and no page names another figure of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import laboratory
from flows.cli import lab_picture, lab_report
from flows.laboratory import drift_trial, streams
from tests import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
FIGURE = re.compile(r"(?<![\w.,-])(?:\d+\.\d+|\.\d+|\d+(?:\.\d+)? ?%)")
"""A score or a share; counts of records and seeds are no figures of the laboratory."""


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """What `make lab` has measured."""
    return laboratory.read(DOCS)


def test_the_page_and_the_picture_are_made_from_the_figures(figures: dict[str, Any]) -> None:
    """Write them again with: make lab."""
    assert lab_report.page(figures) == (DOCS / "laboratory.md").read_text("utf-8")
    drawn = lab_picture.over_time(figures["compared"]["streams"])
    assert drawn == (DOCS / "laboratory.svg").read_text("utf-8")


def test_the_page_has_every_stream_and_every_method(figures: dict[str, Any]) -> None:
    """No stream was left out because its figures are not pleasant."""
    compared = [each["stream"] for each in figures["compared"]["streams"]]
    assert [each.name for each in streams.STREAMS] == compared
    tried = {(row["stream"], row["method"]) for row in figures["drift"]["methods"]}
    methods = [drift_trial.PRODUCT, *drift_trial.detectors()]
    assert {(name, method) for name in drift_trial.STREAMS for method in methods} == tried
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", figures["made_on"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_marked_figures_are_those_of_the_laboratory(page: Path, figures: dict[str, Any]) -> None:
    """`make lab` brings them up to date; a mark of a figure that there is not fails here."""
    text = page.read_text("utf-8")
    assert text == laboratory.filled(text, figures)


def unmarked(text: str) -> list[str]:
    """Paragraphs that speak of the laboratory and name a figure without a mark."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    plain = re.sub(r"`[^`\n]*`", "", laboratory.MARKED.sub("", plain))
    return [
        part for part in re.split(r"\n\s*\n", plain) if "laborator" in part and FIGURE.search(part)
    ]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "laboratory.md"], ids=lambda page: page.name
)
def test_no_page_names_a_figure_of_the_laboratory_that_no_script_makes(page: Path) -> None:
    """Put it between marks, as benchmarks/laboratory.py says, and the script keeps it true."""
    assert [] == unmarked(page.read_text("utf-8"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The laboratory tells .8910 on elec2.", 1),
        ("In [the laboratory](laboratory.md) it saves 43 % of the seconds.", 1),
        ("In the laboratory it is <!-- lab: elec2 worth score -->0.9<!-- /lab --> there.", 0),
        ("The laboratory has 18 streams of 20,000 records.", 0),
        ("Elsewhere it was .8910.\n\nThe laboratory is fine.", 0),
        ("`lab compare --wait-s 2.5` is of the laboratory.", 0),
    ],
)
def test_the_search_finds_what_it_should(text: str, expected: int) -> None:
    """A search that finds nothing would prove nothing."""
    assert expected == len(unmarked(text))


DOCUMENT = {
    "compared": {
        "streams": [
            {"stream": "s", "policies": [{"policy": "every 500", "score": 0.12345, "saved": 0.4}]}
        ]
    }
}


def test_a_marked_figure_is_filled_in_to_its_digits() -> None:
    """As many as it had; a share in percent stays one; nothing else changes."""
    text = (
        "a <!-- lab: s every 500 score -->0.99<!-- /lab --> "
        "b <!-- lab: s every 500 saved -->7.0 %<!-- /lab --> 0.5"
    )
    assert (
        "a <!-- lab: s every 500 score -->0.12<!-- /lab --> "
        "b <!-- lab: s every 500 saved -->40.0 %<!-- /lab --> 0.5"
    ) == laboratory.filled(text, DOCUMENT)
    with pytest.raises(KeyError, match="worth"):
        laboratory.filled("<!-- lab: s worth score -->1<!-- /lab -->", DOCUMENT)


def test_figures_are_written_in_a_form_that_reads_back(tmp_path: Path) -> None:
    """NaN is no JSON, and six digits are enough."""
    document = {
        "made_on": "2026-11-29",
        "made_by": "`make lab`",
        "compared": {"conditions": {}, "streams": [], "summary": []},
        "drift": {"tolerance": 1000, "methods": [], "x": [0.1234567891, float("nan")]},
    }
    document["compared"]["conditions"] = {  # type: ignore[index]
        "records_per_s": 100.0,
        "fit_price": 20.0,
        "cpu_watts": 15.0,
    }
    laboratory.write(document, tmp_path)
    assert [0.123457, None] == laboratory.read(tmp_path)["drift"]["x"]
    assert json.loads((tmp_path / "laboratory.json").read_text())
    assert "2026-11-29" in (tmp_path / "laboratory.md").read_text()
