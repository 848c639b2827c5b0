"""The history's shape: steps in order, tables as the records are, one type for all labels."""

from __future__ import annotations

from pathlib import Path

import duckdb
from hypothesis import given
from hypothesis import strategies as st

from observability.history import schema
from observability.history.records import Record
from observability.history.store import History
from tests.observability.history_makers import rows_of


def test_steps_are_numbered_from_one_without_a_gap() -> None:
    """A step's number is its place: the version of a file is the last one it had."""
    numbers = [step.number for step in schema.MIGRATIONS]
    assert list(range(1, len(numbers) + 1)) == numbers


def test_pending_steps_are_those_after_the_version() -> None:
    """A file gets what it has not had, in order."""
    steps = schema.MIGRATIONS
    assert list(steps) == schema.pending(steps, 0)
    assert [steps[-1]] == schema.pending(steps, steps[-1].number - 1)
    assert [] == schema.pending(steps, steps[-1].number)


def test_tables_have_the_columns_of_their_records(tmp_path: Path) -> None:
    """A field that is added to a record and not to its table fails here, not at a user's."""
    found = rows_of(
        History(tmp_path),
        "SELECT table_name, list(column_name ORDER BY column_index) AS columns "
        "FROM duckdb_columns() WHERE table_name LIKE '%\\_rows' ESCAPE '\\' GROUP BY table_name",
    )
    expected = {kind.table: list(kind.model_fields) for kind in Record.__subclasses__()}
    assert expected == {row["table_name"]: row["columns"] for row in found}


def test_no_table_has_a_key_or_an_index(tmp_path: Path) -> None:
    """An index on a column that is updated went corrupt with DuckDB 1.5: there is none."""
    history = History(tmp_path)
    assert [] == rows_of(history, "FROM duckdb_indexes()")
    assert [] == rows_of(history, "FROM duckdb_constraints()")


def test_the_steps_that_a_file_had_are_recorded(tmp_path: Path) -> None:
    """The table `migrations` says which steps were applied, and when."""
    rows = rows_of(History(tmp_path), "FROM migrations ORDER BY number")
    assert [(s.number, s.name) for s in schema.MIGRATIONS] == [
        (row["number"], row["name"]) for row in rows
    ]
    assert all(row["applied_at"].utcoffset() is not None for row in rows)


def test_what_fits_cost_before_it_was_counted_in_money_is_kept(tmp_path: Path) -> None:
    """A file of before has its rows as they were, and what it could not know is NULL."""
    rows_of(History(tmp_path, steps=schema.MIGRATIONS[:5]), "SELECT 1")
    with duckdb.connect(str(tmp_path / "history.duckdb")) as connection:
        connection.execute(
            "INSERT INTO cost_rows BY NAME SELECT 'elec2' AS pipeline, 'run-1' AS run_id,"
            " 'fit' AS work, 2.0 AS seconds, 300.0 AS joules"
        )
    (row,) = rows_of(History(tmp_path), "FROM costs")
    assert (2.0, 300.0, 150.0) == (row["seconds"], row["joules"], row["mean_power_w"])
    newer = list(row)[list(row).index("energy_source") + 1 :]
    assert 15 == len(newer)
    assert {None} == {row[name] for name in newer}
    assert [] == rows_of(History(tmp_path), "FROM forecasts")


def test_labels_share_the_narrowest_type_that_holds_them_all() -> None:
    """Whole numbers, fractions, text: each widens the ones before."""
    assert "BIGINT" == schema.widest([])
    assert "BIGINT" == schema.widest(["INTEGER", "BIGINT"])
    assert "DOUBLE" == schema.widest(["BIGINT", "FLOAT"])
    assert "VARCHAR" == schema.widest(["BIGINT", "DOUBLE", "VARCHAR"])
    assert "VARCHAR" == schema.widest(["BOOLEAN"])


@given(st.text())
def test_a_quoted_text_cannot_leave_its_quotes(text: str) -> None:
    """Every quote inside is doubled, so a folder's name cannot become SQL."""
    quoted = schema.quoted(text)
    assert ("'", "'") == (quoted[0], quoted[-1])
    assert text == quoted[1:-1].replace("''", "'")
    assert 0 == quoted[1:-1].replace("''", "").count("'")
