"""Records of requests are parsed by the rules of the stream, and what is wrong names its field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.core import record_schema
from models.core.record_schema import Column, Schema
from models.serving import request_rows
from models.serving.request_rows import FieldFault
from models.stream.batches import StreamOptions
from models.stream.parsing.cells import InvalidCell
from models.stream.parsing.columns import Plan
from models.stream.source import Cursor, Stream

SCHEMA = Schema(
    columns=(
        Column(name="load", kind="number"),
        Column(name="site", kind="category"),
        Column(name="at hour", kind="number", origin="at", time="iso", part="hour"),
        Column(name="at weekday", kind="number", origin="at", time="iso", part="weekday"),
    ),
    target="label",
    task="classification",
    label_kind="str",
)
PLAN = Plan(SCHEMA, largest=1e100)


def rows(record: dict[str, Any], plan: Plan = PLAN) -> dict[str, Any]:
    """The features of a record that has no fault."""
    found = request_rows.parse(plan, [record], "ignore")
    assert {} == found.faults
    return record_schema.dicts(found.table, plan.schema.names)[0]


def faults(record: dict[str, Any], plan: Plan = PLAN) -> tuple[FieldFault, ...]:
    """What is wrong with a record."""
    return request_rows.parse(plan, [record], "ignore").faults.get(0, ())


def test_what_is_left_out_is_missing() -> None:
    """An absent key and null are the same; a time gives its parts."""
    expected = {"load": 1.5, "site": None, "at hour": 12.5, "at weekday": 6.0}
    assert expected == rows({"load": 1.5, "at": "2026-11-29T12:30:00Z"})
    assert expected == rows({"load": 1.5, "site": None, "at": "2026-11-29T12:30:00Z"})


def test_an_unknown_category_is_a_category() -> None:
    """The models have their own answer to what they never saw."""
    assert "never seen" == rows({"site": " never seen "})["site"]


def test_a_value_of_another_kind_names_its_field_once() -> None:
    """Each field has its reason; a time that gives two features has one."""
    assert faults({"load": [1], "site": 5, "at": "noon"}) == (
        FieldFault("load", "a number was expected, a list came"),
        FieldFault("site", "a text was expected, the number 5 came"),
        FieldFault("at", "a time in ISO 8601 was expected, 'noon' came"),
    )


def test_the_pipeline_file_may_take_them_as_missing() -> None:
    """`unfit_cells = "missing"` counts for requests as for the stream."""
    assert rows({"load": "x", "site": "a"}, Plan(SCHEMA, 1e100, unfit_is_missing=True)) == {
        "load": None,
        "site": "a",
        "at hour": None,
        "at weekday": None,
    }


def test_a_record_without_any_column_is_no_record() -> None:
    """Else a misspelt key would be a record of missing values."""
    (fault,) = faults({"laod": 1})
    assert fault.field is None
    assert fault.reason.startswith("an object with columns of the schema was expected ('load', ")


def test_the_target_is_left_out() -> None:
    """Whoever sends a row with its label gets a prediction, whatever the label is."""
    assert rows({"load": 1}) == rows({"load": 1, "label": {"no": "label"}})


def test_an_unknown_column_is_told_where_the_stream_leaves_it_out() -> None:
    """Left out, and named, so that a typing error is seen."""
    found = request_rows.parse(PLAN, [{"load": 1}, {"load": 1, "x": 2}], "ignore")
    assert ({}, {1: ("x",)}) == (found.faults, found.left_out)


@pytest.mark.parametrize("new_columns", ["reject", "stop"])
def test_an_unknown_column_is_a_fault_where_the_stream_rejects_it(new_columns: Any) -> None:
    """The stream would not learn such a record either."""
    found = request_rows.parse(PLAN, [{"load": 1, "x": 2}], new_columns)
    (fault,) = found.faults[0]
    assert "x" == fault.field
    assert "is not in the schema" in fault.reason


@pytest.mark.parametrize(
    ("value", "expected"), [("busy", "busy"), (" busy ", "busy"), (5, "5"), (True, "true")]
)
def test_a_label_is_read_as_the_streams(value: Any, expected: str) -> None:
    """A class of text."""
    assert expected == request_rows.label(PLAN, value)


@pytest.mark.parametrize("value", [None, "", "nan", [1], float("nan")])
def test_no_label_is_no_label(value: Any) -> None:
    """What a stream takes as missing is no outcome."""
    with pytest.raises(InvalidCell, match="expected"):
        request_rows.label(PLAN, value)


def test_a_label_of_numbers_is_a_number() -> None:
    """In regression; a number written as text is one."""
    plan = Plan(SCHEMA.model_copy(update={"label_kind": "float", "task": "regression"}), 1e100)
    assert (1.5, 1.5) == (request_rows.label(plan, 1.5), request_rows.label(plan, "1.5"))
    with pytest.raises(InvalidCell, match="a number was expected, a list came"):
        request_rows.label(plan, [])


CELLS = st.one_of(
    st.none(),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from(["", " a ", "b", "1.5", "2026-11-29", "NaN", "?", "x y"]),
    st.booleans(),
    st.just([]),
)


@given(st.lists(st.fixed_dictionaries({"load": CELLS, "site": CELLS, "at": CELLS}), max_size=6))
def test_a_request_is_read_as_a_file_of_json_lines(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    """What the stream accepts is accepted with the same cells; what it rejects is refused."""
    path = tmp_path_factory.mktemp("lines") / "stream.jsonl"
    path.write_text("".join(json.dumps({**each, "label": "a"}) + "\n" for each in records))
    options = StreamOptions(path="stream.jsonl", target="label", rejected_share=1)
    batch = Stream(path, "classification", options, SCHEMA).read(Cursor(), 10)
    found = request_rows.parse(PLAN, records, "ignore")
    assert {each.position for each in batch.rejects} == set(found.faults)
    cells = record_schema.dicts(found.table, SCHEMA.names)
    assert batch.rows == [cells[position] for position in batch.positions]


def test_no_record_is_no_row() -> None:
    """A request of nothing is a table without rows, of the schema's columns."""
    table = request_rows.parse(PLAN, [], "ignore").table
    assert (0, [*SCHEMA.names, "label"]) == (table.num_rows, table.column_names)
