"""What one cell may be, and that whole columns follow the same rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.core.record_schema import LabelKind
from models.stream.parsing import cells, columns
from models.stream.parsing.cells import InvalidCell
from models.stream.parsing.columns import Plan, Read
from tests.models.makers import make_schema

LARGEST = 1e100

odd_texts = st.sampled_from(
    [
        "",
        " ",
        "nan",
        "NA",
        "?",
        "inf",
        "-Infinity",
        "1e999",
        "1e101",
        "1_0",
        "0x1",
        "\u0661",
        "\xa01",
        "x",
    ]
)
texts = st.lists(st.one_of(st.floats().map(repr), odd_texts, st.text(max_size=5)), max_size=8)
values = st.lists(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.just(10**400),
        st.floats(),
        odd_texts,
        st.just([1]),
        st.just({"a": 1}),
        st.just("\ud800"),
    ),
    max_size=8,
)


def read_number(text: str) -> float | str | None:
    """The number, None for missing, or "unfit"."""
    try:
        return cells.number_from_text(text, LARGEST)
    except InvalidCell:
        return "unfit"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.5", 1.5),
        (" -2e3\t", -2000.0),
        ("+.5", 0.5),
        ("", None),
        ("   ", None),
        ("NaN", None),
        ("-nan", None),
        ("N/A", None),
        ("Null", None),
        ("?", None),
        ("inf", "unfit"),
        ("-Infinity", "unfit"),
        ("1e999", "unfit"),
        ("1e101", "unfit"),
        ("1e100", 1e100),
        ("1_000", "unfit"),
        ("0x10", "unfit"),
        ("\u0661", "unfit"),
        ("1,5", "unfit"),
        ("true", "unfit"),
    ],
)
def test_a_text_is_a_plain_finite_number_or_missing_or_unfit(
    text: str, expected: float | str | None
) -> None:
    """Spellings that only Python accepts, infinities and the implausibly large are refused."""
    assert expected == read_number(text)


@pytest.mark.parametrize("value", [True, "5", [5], {"a": 5}, math.inf, -math.inf, 10**400, 2e100])
def test_a_json_value_that_is_no_plausible_number_is_unfit(value: object) -> None:
    """A truth, a text, a list, an infinity: none is quietly turned into a number."""
    with pytest.raises(InvalidCell, match="was expected"):
        cells.number_from_value(value, LARGEST)


def test_a_column_named_a_number_by_a_person_may_hold_texts_that_spell_numbers() -> None:
    """stream.numbers is for columns whose type hides numbers."""
    assert 5.0 == cells.number_from_value("5", LARGEST, from_text=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("  ", None),
        (" red ", "red"),
        ("nan", "nan"),
        (True, "true"),
        (False, "false"),
        (5, "5"),
        (5.0, "5"),
        (0.5, "0.5"),
        (math.nan, None),
    ],
)
def test_a_category_is_a_text_a_truth_or_where_asked_a_number(
    value: object, expected: str | None
) -> None:
    """5 and 5.0 are one category; blank and null are missing; "nan" is a name like any other."""
    assert expected == cells.category_from_value(value, from_number=True)


@pytest.mark.parametrize("value", [5, 0.5, ["a"], {}, b"a", "a\0b", "\ud800", "x" * 10_001])
def test_what_is_no_short_clean_text_is_no_category(value: object) -> None:
    """Numbers, nested values, NUL, half characters and documents are refused, saying so."""
    with pytest.raises(InvalidCell, match="expected"):
        cells.category_from_value(value)


def test_an_infinite_code_is_no_category() -> None:
    """Even where numbers may code categories."""
    with pytest.raises(InvalidCell, match="finite"):
        cells.category_from_value(math.inf, from_number=True)


@pytest.mark.parametrize("value", ["1", "1.0", " +1 ", "1e0", 1, 1.0])
def test_a_whole_number_however_written_is_the_same_class(value: object) -> None:
    """One class does not become two because a file was rewritten with decimals."""
    label = cells.class_from_value(value, "int")
    assert (1, int) == (label, type(label))


@pytest.mark.parametrize(
    "value",
    ["x", "1.5", 1.5, True, math.inf, 2**60, "9" * 30, "1_0", [1]],
)
def test_what_is_no_whole_number_is_no_int_class(value: object) -> None:
    """Other kinds of label and numbers beyond 2^53 are refused."""
    with pytest.raises(InvalidCell):
        cells.class_from_value(value, "int")


@pytest.mark.parametrize("value", ["", " ", "nan", "NULL", "?", None, math.nan])
def test_a_label_that_is_missing_is_none(value: object) -> None:
    """Its record is predicted and waits for its label; among whole numbers NULL is no class."""
    assert cells.class_from_value(value, "int") is None
    if value not in {"NULL", "?"}:
        assert cells.class_from_value(value, "str") is None


@pytest.mark.parametrize(
    ("value", "expected"), [("up", "up"), (True, "true"), (3, "3"), (1.5, "1.5")]
)
def test_a_class_that_is_text_takes_what_can_be_written(value: object, expected: str) -> None:
    """A sample of mixed labels makes them texts, so that all of them must have one."""
    assert expected == cells.class_from_value(value, "str")


def test_a_reason_says_what_was_allowed_and_what_came() -> None:
    """And cuts what came, so that a log line stays a line."""
    with pytest.raises(InvalidCell, match=r"^a number was expected, 'x{59}\.\.\. came$"):
        cells.number_from_text("x" * 500, LARGEST)


def agree(read: Callable[[list[Any]], Read], column: list[Any]) -> None:
    """A column read at once gives what its cells give, in values and in reasons."""
    whole = read(column)
    each = [read([cell]) for cell in column]
    assert repr([one.values[0].as_py() for one in each]) == repr(whole.values.to_pylist())
    assert {i: one.faults[0] for i, one in enumerate(each) if one.faults} == whole.faults


@given(texts)
def test_a_column_of_texts_reads_as_its_cells_do(column: list[str]) -> None:
    """Reading in bulk is a faster way to the same values."""
    agree(lambda some: columns.numbers_from_texts(some, "c", LARGEST), column)
    agree(lambda some: columns.categories_from_texts(some, "c"), column)


@given(values, st.booleans(), st.sampled_from(["int", "str", "float"]))
def test_a_column_of_values_reads_as_its_cells_do(
    column: list[Any], free: bool, kind: LabelKind
) -> None:
    """Also where 1, 1.0 and True meet in one column, which are equal to a dict."""
    plan = Plan(make_schema(label_kind=kind), LARGEST)
    agree(lambda some: columns.numbers_from_values(some, "c", LARGEST, from_text=free), column)
    agree(lambda some: columns.categories_from_values(some, "c", from_number=free), column)
    agree(lambda some: columns.labels_from_values(plan, some), column)


@given(values)
def test_a_value_read_is_never_nan_or_infinite(column: list[Any]) -> None:
    """One NaN makes an online model answer NaN for ever: none gets through."""
    read = columns.numbers_from_values(column, "c", LARGEST, from_text=True)
    assert all(value is None or abs(value) <= LARGEST for value in read.values.to_pylist())
