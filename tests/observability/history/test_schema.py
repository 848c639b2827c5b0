"""The schema of the history: one number, tables as the records are, one type for all labels."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from observability.history import schema
from observability.history.records import Record
from observability.history.store import History
from tests.observability.history.makers import rows_of

DIGEST = "b31cf111d113"
"""Of the schema's statements. If it changed, raise `SCHEMA_VERSION` by one, then change this."""


def test_a_changed_schema_has_a_new_number() -> None:
    """A home of the schema before is refused by its number, so the number must not be forgotten."""
    statements = "; ".join(schema.STATEMENTS).encode()
    assert (10, DIGEST) == (
        schema.SCHEMA_VERSION,
        hashlib.sha256(statements).hexdigest()[:12],
    )


def test_tables_have_the_columns_and_types_of_their_records(tmp_path: Path) -> None:
    """Each field is a column: text, numbers, times and facts have types of their own."""
    found = rows_of(
        History(tmp_path),
        "SELECT table_name, list(column_name ORDER BY column_index) AS columns, "
        "list(data_type ORDER BY column_index) AS types "
        "FROM duckdb_columns() WHERE table_name LIKE '%\\_rows' ESCAPE '\\' GROUP BY table_name",
    )
    expected = {kind.table: list(kind.model_fields) for kind in Record.__subclasses__()}
    assert expected == {row["table_name"]: row["columns"] for row in found}
    types = {row["table_name"]: row["types"] for row in found}
    when, text, number = "TIMESTAMP WITH TIME ZONE", "VARCHAR", "BIGINT"
    assert [when, text, text, number, text, "BOOLEAN", text, "JSON"] == types["decision_rows"]
    assert [when, text, text, text, number, text, text] == types["run_rows"][:7]
    assert [number, number, number, "DOUBLE", "DOUBLE"] == types["run_rows"][7:12]


def test_no_table_has_a_key_or_an_index(tmp_path: Path) -> None:
    """An index on a column that is updated went corrupt with DuckDB 1.5: there is none."""
    history = History(tmp_path)
    assert [] == rows_of(history, "FROM duckdb_indexes()")
    assert [] == rows_of(history, "FROM duckdb_constraints()")


def test_a_new_history_has_one_number(tmp_path: Path) -> None:
    """The number is stored with the time of the creation."""
    (row,) = rows_of(History(tmp_path), "FROM schema_version")
    assert schema.SCHEMA_VERSION == row["number"]
    assert row["created_at"].utcoffset() is not None


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
