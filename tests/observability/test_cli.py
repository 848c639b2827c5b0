"""`thermodrift history`: a table for people, one JSON document for machines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from observability.cli import history_app
from observability.core.cli_output import CliContext
from observability.history import schema
from observability.history.store import BadQuestion, History
from tests import ROOT
from tests.observability.history.makers import make_decision, make_run, make_score


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which two runs and a score are committed, and not folded yet."""
    ended = make_run(event="ended", position=900, records=900, seconds=3.0)
    records = [make_run(), ended, make_run(run_id="run-2"), make_score(), make_decision()]
    History(tmp_path).commit(records, "a")
    return tmp_path


def said(home: Path, *arguments: str) -> str:
    """What a command of the desk prints."""
    result = CliRunner().invoke(history_app, arguments, obj=CliContext(home=home))
    if result.exception is not None:
        raise result.exception
    return result.stdout


def answered(home: Path, *arguments: str) -> Any:
    """What a command of the desk answers to a machine."""
    return json.loads(said(home, *arguments, "--json"))


def test_tables_lists_every_view_with_its_rows(home: Path) -> None:
    """Both ways of answering have all views, rows and columns."""
    views = {view["view"]: view for view in answered(home, "tables")}
    assert list(schema.PUBLIC_VIEWS) == list(views)
    assert (2, 1, 0) == tuple(views[name]["rows"] for name in ("runs", "scores", "rejects"))
    assert "DOUBLE" == views["scores"]["columns"]["value"]
    assert all(name in said(home, "tables") for name in schema.PUBLIC_VIEWS)


def test_sql_answers_machines_with_plain_objects(home: Path) -> None:
    """Sums are numbers, times ISO 8601, NULL null."""
    question = (
        "SELECT sum(records) AS n, 0.5::DECIMAL(9, 2) AS half, min(started_at) AS t, "
        "max(because) AS why FROM runs"
    )
    expected = {"n": 900, "half": 0.5, "t": "2026-03-01T12:00:00+00:00", "why": None}
    assert [expected] == answered(home, "sql", question)


def test_columns_of_one_name_are_all_answered(home: Path) -> None:
    """A join has some twice: the second gets a number, and hides no other column."""
    question = "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a"
    assert [{"a": 1, "a_2": 2, "a_1": 3, "a_3": 4}] == answered(home, "sql", question)


@pytest.mark.parametrize("what", ["TIMESTAMP 'infinity'", "DATE '-4000-01-01'", "(1, 2)"])
def test_a_value_that_cannot_be_shown_is_a_bad_question(home: Path, what: str) -> None:
    """Python has no such time, and no mapping without names: it says what to ask instead."""
    with pytest.raises(BadQuestion, match="VARCHAR"):
        said(home, "sql", f"SELECT {what}")


def test_sql_without_rows_is_an_empty_list(home: Path) -> None:
    """Nothing found is an answer."""
    assert [] == answered(home, "sql", "FROM rejects")


def test_sql_answers_people_with_a_table(home: Path) -> None:
    """The columns' names head it."""
    text = said(home, "sql", "SELECT run_id, outcome FROM runs ORDER BY run_id")
    assert all(word in text for word in ("run_id", "outcome", "run-1", "run-2", "running"))


def test_a_bad_question_is_raised_to_the_command_line(home: Path) -> None:
    """The front desk turns it into a message and exit code 2."""
    with pytest.raises(BadQuestion, match="nope"):
        said(home, "sql", "SELECT nope FROM runs")


def test_export_says_what_it_wrote(home: Path, tmp_path: Path) -> None:
    """One file per view, in the format asked for."""
    files = answered(home, "export", str(tmp_path / "out"), "--format", "csv")["files"]
    assert [f"{view}.csv" for view in schema.PUBLIC_VIEWS] == [Path(f).name for f in files]
    assert all(Path(file).is_file() for file in files)
    assert "runs.parquet" in "".join(said(home, "export", str(tmp_path / "p")).split())


def test_the_command_line_imports_nothing_slow() -> None:
    """Help must answer at once: DuckDB and Arrow are imported when they are asked for."""
    script = (
        "import sys, observability.cli; print('duckdb' in sys.modules, 'pyarrow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "False False\n" == done.stdout
