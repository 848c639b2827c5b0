"""`history.open(home)`: the past as Arrow and pandas, for people who work in notebooks."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from observability.core.errors import BadConfiguration
from observability.history import notebook, store
from observability.history.store import History
from tests.observability.history.makers import (
    at,
    make_decision,
    make_model,
    make_run,
    make_score,
    write_predictions,
)


@pytest.fixture
def past(tmp_path: Path) -> History:
    """Two pipelines, a row of each kind in each, committed and not folded yet."""
    for number, pipeline in enumerate(("elec2", "wind")):
        write_predictions(tmp_path, pipeline, position=[2, 3, 4], label=[0, 1, 1])
        records = [
            make(pipeline=pipeline) for make in (make_run, make_decision, make_model, make_score)
        ]
        History(tmp_path).commit([*records, make_score(pipeline=pipeline, at=at(9))], f"a{number}")
    return store.open(str(tmp_path))


def test_every_kind_of_the_past_is_a_table(past: History) -> None:
    """Arrow by itself, pandas in one step, with the columns of the view of that name."""
    tables = {
        "runs": (past.runs(), 2),
        "decisions": (past.decisions(), 2),
        "models": (past.models(), 2),
        "scores": (past.scores(), 4),
        "predictions": (past.predictions(), 6),
    }
    columns = {view.name: list(view.columns) for view in past.views()}
    for name, (table, rows) in tables.items():
        assert isinstance(table, pa.Table)
        assert (rows, columns[name]) == (table.num_rows, table.column_names)
        assert rows == len(table.to_pandas())


def test_one_pipeline_may_be_asked_for(past: History) -> None:
    """By its name; one that never was has an empty past."""
    for ask in (past.runs, past.decisions, past.models, past.scores, past.predictions):
        assert {"wind"} == set(ask("wind")["pipeline"].to_pylist())
        assert 0 == ask("never").num_rows


def test_predictions_come_by_position(past: History) -> None:
    """A log may be long: a range of it is enough, its end exclusive."""
    assert [3, 4] == past.predictions("elec2", first=3)["position"].to_pylist()
    assert [2, 3] == past.predictions("elec2", last=4)["position"].to_pylist()
    assert [3] == past.predictions("elec2", 3, 4)["position"].to_pylist()


def test_a_typing_error_makes_no_new_home(tmp_path: Path) -> None:
    """A folder that is not there is said not to be there."""
    with pytest.raises(BadConfiguration, match=r"there is no home at .*typo"):
        store.open(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_a_file_of_somebody_else_is_no_prediction(tmp_path: Path) -> None:
    """What lies among the log's files under another name is not read, whatever is in it."""
    path = write_predictions(tmp_path, position=[0, 1], label=[0, 1])
    for name in ("notes.parquet", "copy of 000000000000-000000000001.parquet", "1-2.parquet"):
        (path.parent / name).write_bytes(b"not Parquet at all")
    assert [0, 1] == store.open(tmp_path).predictions()["label"].to_pylist()


def test_a_merge_that_was_cut_short_shows_no_row_twice(tmp_path: Path) -> None:
    """While a merged file and its parts lie side by side, each record is seen once."""
    parts = [write_predictions(tmp_path, position=[n, n + 1], label=[0, 1]) for n in (0, 2)]
    names = ("000000000000-000000000002.parquet", "000000000002-000000000004.parquet")
    for part, name in zip(parts, names, strict=True):
        part.rename(part.with_name(name))
    merged = write_predictions(tmp_path, position=[0, 1, 2, 3], label=[0, 1, 0, 1])
    merged.rename(merged.with_name("000000000000-000000000004.parquet"))
    past = store.open(tmp_path)
    assert [0, 1, 2, 3] == past.predictions()["position"].to_pylist()
    for name in names:
        (merged.parent / name).unlink()
    assert [0, 1, 2, 3] == past.predictions()["position"].to_pylist()


def test_the_history_shows_itself_as_its_views(past: History) -> None:
    """In a notebook; each view with its rows and columns."""
    text = past._repr_html_()
    assert "<td>scores</td><td>4</td>" in text
    assert f"The history in {past.where}" in text


def test_a_history_that_is_busy_shows_why(past: History) -> None:
    """A cell that shows it must not end in a traceback."""
    with History(past._places.home).exclusive():
        past._timeout_s = 0.0
        assert "is open in" in past._repr_html_()


def test_a_table_shows_its_first_rows_and_escapes_them() -> None:
    """Reasons and columns are named by others."""
    table = pa.table({"<b>": ["<script>", None, *["x"] * 30]})
    text = notebook.arrow_html(table)
    assert "32 rows, the first 20 shown" in text
    assert 21 == text.count("<tr>")
    assert "<script>" not in text
    assert "<b>" not in text
    assert "<td></td>" in text
