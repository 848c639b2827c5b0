"""What a sample says a column is, and why."""

from __future__ import annotations

import math
import uuid
from typing import Any

import pytest

from models.core import number_format
from models.core.number_format import PLAIN, NumberFormat
from models.stream.parsing import column_inference
from models.stream.parsing.column_inference import InferredColumn, NumberMarks

COUNT = 60


def of_texts(texts: list[str], name: str = "x") -> InferredColumn:
    """A column of a CSV file."""
    return column_inference.of_texts(name, texts, NumberMarks(delimiter=","))


def of_values(values: list[Any], name: str = "x") -> InferredColumn:
    """A column of JSON values."""
    return column_inference.of_values(name, values, NumberMarks())


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1", "2", "", "nan"], "number"),
        (["1"] * 9 + ["x"], "number"),
        (["1"] * 8 + ["x"] * 2, "category"),
        (["true", "false"], "category"),
        (["", "?"], "number"),
        (["\\N", "-", "1.5"], "number"),
        (["1,234.50", "12"], "number"),
        (["$5", "$7"], "number"),
        (["5 kg", "7 kg"], "category"),
    ],
)
def test_nearly_all_cells_of_a_sample_must_be_numbers_to_make_a_number(
    texts: list[str], expected: str
) -> None:
    """Missing cells do not count, and one bad cell in ten does not turn the column."""
    assert expected == of_texts(texts).read_as


def test_digits_with_a_leading_zero_are_text() -> None:
    """As numbers 0123, 123 and 00123 would be one; 0 and 0.5 are numbers."""
    found = of_texts(["123", "0123", "00123"])
    assert ("category", True) == (found.read_as, "'0123'" in found.because)
    assert "number" == of_texts(["0", "0.5", "-0.25", "10"]).read_as


@pytest.mark.parametrize(
    ("texts", "name", "says"),
    [
        ([str(7 + place) for place in range(COUNT)], "x", "a row number"),
        ([str(5 * place) for place in range(COUNT)], "x", "plus 5"),
        ([str(place + place // 3) for place in range(COUNT)], "x", "grow with every record"),
        ([str(place // 2 * 50) for place in range(COUNT)], "order_id", "an id by its name"),
        (
            [str(place * 7919 % 100_003) for place in range(COUNT)],
            "customer_id",
            "an id by its name",
        ),
        ([str(place * 7919 % 100_003) for place in range(COUNT)], "orderId", "an id by its name"),
        ([f"ORD-{place}" for place in range(COUNT)], "x", "an id or free text"),
        ([str(uuid.UUID(int=place)) for place in range(COUNT)], "x", "60 different ones in 60"),
    ],
)
def test_what_tells_records_apart_is_left_out(texts: list[str], name: str, says: str) -> None:
    """An id or a row number teaches a model nothing that holds for the next record."""
    found = of_texts(texts, name)
    assert ("left out", True) == (found.read_as, says in found.because), found


@pytest.mark.parametrize(
    ("texts", "name"),
    [
        ([str(place * 7919 % 100_003) for place in range(COUNT)], "price"),
        ([str(place * 7919 % 100_003) for place in range(COUNT)], "nasdaq_index"),
        ([str(place * place + 30 * place) for place in range(COUNT)], "odometer_km"),
        ([str(COUNT - place) for place in range(COUNT)], "remaining_cycles"),
        ([str(place % 7) for place in range(COUNT)], "store_id"),
        ([str(place / 2) for place in range(COUNT)], "x"),
        (["7"] * COUNT, "x"),
        ([str(place) for place in range(40)], "x"),
    ],
)
def test_numbers_that_may_mean_something_stay(texts: list[str], name: str) -> None:
    """Values that come again, that grow by more than one a record, fractions, constants, and what
    is too short to tell."""
    assert "number" == of_texts(texts, name).read_as


@pytest.mark.parametrize(
    ("texts", "name", "form", "parts"),
    [
        (
            [f"2026-03-01 {place % 24:02}:00:00" for place in range(COUNT)],
            "x",
            "iso",
            ("hour", "weekday", "month"),
        ),
        (
            [f"2026-03-{place % 28 + 1:02}" for place in range(COUNT)],
            "x",
            "iso",
            ("weekday", "month"),
        ),
        (
            [str(1_700_000_000_000 + place * 60_000) for place in range(COUNT)],
            "x",
            "ms",
            ("hour", "weekday", "month"),
        ),
        (
            [str(1_700_000_000 + place * 7919 % 50_000) for place in range(COUNT)],
            "created_at",
            "s",
            ("hour", "weekday", "month"),
        ),
        (
            ["0" if place % 20 == 0 else f"{1_700_000_000 + place}.25" for place in range(COUNT)],
            "ts",
            "s",
            ("hour", "weekday", "month"),
        ),
    ],
)
def test_times_give_their_parts(texts: list[str], name: str, form: str, parts: Any) -> None:
    """ISO 8601; and numbers since 1970 that grow, or whose name says that they are times."""
    found = of_texts(texts, name)
    assert ("time", form, parts) == (found.read_as, found.time, found.parts)


@pytest.mark.parametrize(
    ("start", "step", "name"),
    [
        (1_700_000_000, 79_190_003, "phone"),
        (1_500_000_000, 4_096, "bytes_total"),
        (1_600_000_000, 7, "candidate_votes"),
        (1_300_000_000, 999, "response_time_ns"),
        (1_700_000_000_000_000_000, 4_194_304, "user"),
    ],
)
def test_numbers_of_the_size_of_moments_are_numbers_unless_their_name_says_time(
    start: int, step: int, name: str
) -> None:
    """Counters, telephone numbers and ids of social networks grow, too."""
    texts = [str(start + place * step) for place in range(COUNT)]
    assert "time" != of_texts(texts, name).read_as


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ([["0,189", "12,5"], ["a", "b"]], ","),
        ([["0.189", "12.5"]], "."),
        ([["1,234", "2"]], None),
        ([["1,234", "2"], ["0,5", "1,25"]], ","),
        ([["0.5"], ["0,5"]], None),
        ([["1,5 and more"]], None),
    ],
)
def test_columns_agree_on_a_decimal_mark_or_there_is_none(
    columns: list[list[str]], expected: str | None
) -> None:
    """Texts with a comma have no voice."""
    assert expected == column_inference.decimal_of(map(number_format.NumberSample, columns))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2.5, None], "number"),
        ([True, None], "category"),
        (["a", "b"], "category"),
        ([[1], {}], "left out"),
        ([None], "number"),
        ([10**400, 2.0], "number"),
        (["", 2.0, 3.0], "number"),
        (["a", 2.0, 3.0], "category"),
    ],
)
def test_json_values_are_what_their_type_says(values: list[Any], expected: str) -> None:
    """Lists and objects are neither numbers nor categories."""
    assert expected == of_values(values).read_as


def test_json_texts_that_spell_numbers_are_texts_and_that_is_said() -> None:
    """The type says text, and the knob is named; fractions are no codes, and numbers."""
    found = of_values(["12", "13"])
    assert ("category", True) == (found.read_as, "stream.numbers" in found.because)
    assert "number" == of_values(["12.5", "13"]).read_as
    assert "category" == of_values(["012.5", "0123"]).read_as


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["1", "2.0", ""], "int"),
        (["1", "NULL", "0"], "int"),
        (["1", "1.5"], "str"),
        (["01067", "1067"], "str"),
        ([1, 0, None], "int"),
        ([True, False], "str"),
        (["none"], "str"),
        (["NULL"], None),
        (["", "nan", None, math.nan], None),
    ],
)
def test_labels_are_whole_numbers_only_if_all_of_the_sample_are(
    labels: list[Any], expected: str | None
) -> None:
    """One other label, or a leading zero, makes them texts; none at all leaves the kind unknown."""
    assert expected == column_inference.kind_of_labels(labels)


@pytest.mark.parametrize(
    ("labels", "spelt", "says"),
    [
        ([f"{place / 7:.3f}" for place in range(50)], PLAIN, "decimal numbers"),
        ([f"{place},5" for place in range(50)], NumberFormat(decimal=","), "decimal numbers"),
        ([float(place) / 7 for place in range(50)], PLAIN, "decimal numbers"),
        ([f"u{place}" for place in range(300)], PLAIN, "300 different labels in 300 records"),
        ([str(place % 7) for place in range(300)], PLAIN, ""),
        (["1.3", "1.7", "2.0"] * 20, PLAIN, ""),
        ([str(place) for place in range(90)], PLAIN, ""),
    ],
)
def test_labels_that_can_be_no_classes_are_found(
    labels: list[Any], spelt: NumberFormat, says: str
) -> None:
    """A fit with a class per record takes minutes; grades and digits are classes."""
    found = column_inference.no_classes(labels, spelt)
    assert says in found
    assert bool(says) == bool(found)
