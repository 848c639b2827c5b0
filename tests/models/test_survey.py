"""A first look at whole files: what is read, what is left out, and what is asked of a person."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from models.example import Schema
from models.stream import BadStream, Cursor
from tests.models.makers import make_stream

COUNT = 120


def make_csv(columns: dict[str, list[str]], delimiter: str = ",") -> str:
    """A CSV file of these columns, cells as they are, and a class y of two words."""
    columns = {**columns, "y": columns.get("y") or ["yes", "no"] * (COUNT // 2)}
    lines = [delimiter.join(columns)]
    lines += [delimiter.join(cells) for cells in zip(*columns.values(), strict=True)]
    return "\n".join(lines) + "\n"


def some(form: str, seed: int = 0) -> list[str]:
    """Numbers written as `form` says."""
    rng = random.Random(seed)
    return [form.format(rng.uniform(-50, 50)) for _ in range(COUNT)]


def read_as(schema: Schema) -> dict[str, str]:
    """What each column of the file is."""
    return {each.name: each.read_as for each in schema.seen}


def test_decimal_commas_between_semicolons_are_numbers(tmp_path: Path) -> None:
    """As German and French programs write them; the value is that of the point."""
    body = make_csv({"x": [text.replace(".", ",") for text in some("{:.3f}")]}, ";")
    stream = make_stream(tmp_path / "s.csv", body)
    assert [float(text) for text in some("{:.3f}")] == [
        row["x"] for row in stream.read(Cursor()).rows
    ]
    assert "decimal comma" in stream.schema.seen[0].because


@pytest.mark.parametrize("form", ["{:.1f} %", "{:.2f}€", "$ {:.2f}", " {:.2f} "])
def test_percent_signs_currencies_and_spaces_are_no_part_of_a_number(
    tmp_path: Path, form: str
) -> None:
    """The value is the number beside them."""
    stream = make_stream(tmp_path / "s.csv", make_csv({"x": some(form)}))
    values = [row["x"] for row in stream.read(Cursor()).rows]
    assert [float(text.strip(" %€$")) for text in some(form)] == values


def test_a_target_is_read_as_it_is_written(tmp_path: Path) -> None:
    """Thousands and a decimal comma in the labels of a regression."""
    prices = [f'"{1000 + place},5"' for place in range(COUNT)]
    body = make_csv({"x": some("{:.3f}"), "y": prices})
    stream = make_stream(tmp_path / "s.csv", body, task="regression")
    assert 1000.5 == stream.read(Cursor()).labels[0]


def test_a_number_that_can_be_two_things_is_asked_about(tmp_path: Path) -> None:
    """Between tabs nothing says what the comma of 1,234 is; the knob settles it."""
    body = make_csv({"x": [f"{place},{place + 100}" for place in range(10, 10 + COUNT)]}, "\t")
    path = tmp_path / "s.csv"
    with pytest.raises(BadStream, match=r"'x' holds '10,110'.*stream\.decimal"):
        _ = make_stream(path, body).schema
    assert {"x": 10.11} == make_stream(path, decimal=",").read(Cursor()).rows[0]
    assert {"x": 10110.0} == make_stream(path, decimal=".").read(Cursor()).rows[0]
    assert {"x": 10110.0} == make_stream(path, thousands=",").read(Cursor()).rows[0]


def test_a_regression_on_text_shows_a_value_and_the_knobs(tmp_path: Path) -> None:
    """Exit code 78, before anything is fitted."""
    body = make_csv({"x": some("{:.3f}")})
    with pytest.raises(BadStream, match=r"holds 'yes'.*stream\.decimal.*classification"):
        _ = make_stream(tmp_path / "s.csv", body, task="regression").schema


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([f"{place / 7:.2f}" for place in range(COUNT)], "120 different labels"),
        ([f"{place % 40 / 7:.2f}" for place in range(COUNT)], "decimal numbers, 40 different"),
    ],
)
def test_decimal_labels_are_no_classes(tmp_path: Path, labels: list[str], says: str) -> None:
    """A fit would take minutes; where a person says that they are classes they are."""
    body = make_csv({"x": some("{:.3f}"), "y": labels})
    path = tmp_path / "s.csv"
    with pytest.raises(BadStream, match=f"{says}.*regression.*stream.categories") as caught:
        _ = make_stream(path, body).schema
    assert 78 == caught.value.exit_code
    assert "str" == make_stream(path, categories=("y",)).schema.label_kind


def test_a_target_with_leading_zeros_is_text_and_a_knob_says_otherwise(tmp_path: Path) -> None:
    """01067 and 1067 are two places; 0 and 1 are two numbers unless a person says text."""
    zips = ["01067", "1067"] * (COUNT // 2)
    path = tmp_path / "s.csv"
    stream = make_stream(path, make_csv({"x": some("{:.3f}"), "y": zips}))
    assert {"01067", "1067"} == set(stream.read(Cursor()).labels)
    assert {1067} == set(make_stream(path, numbers=("y",)).read(Cursor()).labels)
    make_stream(path, make_csv({"x": some("{:.3f}"), "y": ["0", "1"] * (COUNT // 2)}))
    assert {"0", "1"} == set(make_stream(path, categories=("y",)).read(Cursor()).labels)
    with pytest.raises(BadStream, match=r"holds 'yes'.*stream\.numbers"):
        _ = make_stream(path, make_csv({"x": some("{:.3f}")}), numbers=("y",)).schema


def make_file(tmp_path: Path, kind: str, columns: dict[str, list[Any]]) -> Path:
    """The same columns as CSV or JSON lines."""
    path = tmp_path / f"s.{kind}"
    columns = {**columns, "y": ["yes", "no"] * (COUNT // 2)}
    records = [
        dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)
    ]
    if kind == "jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        path.write_text(
            make_csv({name: list(map(str, column)) for name, column in columns.items()})
        )
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_ids_go_and_times_become_their_parts(tmp_path: Path, kind: str) -> None:
    """What was left out, and why, stands in the schema; the models see what comes again."""
    path = make_file(
        tmp_path,
        kind,
        {
            "order": [f"ORD-{place}" for place in range(COUNT)],
            "row": list(range(COUNT)),
            "ts": [1_700_000_000_000 + 60_000 * place for place in range(COUNT)],
            "when": [f"2026-03-02T{place % 24:02}:30:00Z" for place in range(COUNT)],
            "x": [float(text) for text in some("{:.3f}")],
        },
    )
    stream = make_stream(path)
    assert {
        "order": "left out",
        "row": "left out",
        "ts": "time",
        "when": "time",
        "x": "number",
        "y": "target",
    } == read_as(stream.schema)
    parts = [f"{name}.{part}" for name in ("ts", "when") for part in ("hour", "weekday", "month")]
    assert [*parts, "x"] == stream.schema.names
    row = stream.read(Cursor(), 4).rows[3]
    assert (3.5, 0.0, 3.0) == (row["when.hour"], row["when.weekday"], row["when.month"])
    assert row["ts.hour"] == pytest.approx(22 + 16 / 60 + 20 / 3600)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_person_settles_the_kind_of_any_column(tmp_path: Path, kind: str) -> None:
    """stream.numbers, categories and times win over every rule."""
    path = make_file(
        tmp_path,
        kind,
        {
            "order": [f"ORD-{place}" for place in range(COUNT)],
            "row": list(range(COUNT)),
            "seconds": [1_700_000_000 + place * 7919 % 50_000 for place in range(COUNT)],
            "x": [float(text) for text in some("{:.3f}")],
        },
    )
    schema = make_stream(
        path, categories=("order",), numbers=("row",), times=("seconds",), ignore=("x",)
    ).schema
    assert {
        "order": "category",
        "row": "number",
        "seconds": "time",
        "x": "ignored",
        "y": "target",
    } == read_as(schema)
    with pytest.raises(BadStream, match=r"stream\.times names the column 'x'"):
        _ = make_stream(path, times=("x",)).schema


def test_where_nothing_else_is_left_a_counter_is_a_feature(tmp_path: Path) -> None:
    """A series over its own index can be learned; a stream of ids cannot."""
    rows = make_csv({"row": [str(place) for place in range(COUNT)]})
    stream = make_stream(tmp_path / "s.csv", rows)
    assert ("number", True) == (
        stream.schema.seen[0].read_as,
        "a row number" in stream.schema.seen[0].because,
    )
    ids = make_csv({"order": [f"ORD-{place}" for place in range(COUNT)]})
    with pytest.raises(BadStream, match=r"nothing is left.*ORD|nothing is left.*'order'"):
        _ = make_stream(tmp_path / "t.csv", ids).schema


def test_a_part_of_a_time_takes_no_name_that_is_there(tmp_path: Path) -> None:
    """A column that is already called when.hour keeps its name."""
    path = make_file(
        tmp_path,
        "csv",
        {
            "when": [f"2026-03-02T{place % 24:02}:30" for place in range(COUNT)],
            "when.hour": [float(text) for text in some("{:.3f}")],
        },
    )
    names = make_stream(path).schema.names
    assert ["when.hour_", "when.weekday", "when.month", "when.hour"] == names


def test_an_unfit_cell_is_missing_where_a_person_says_so(tmp_path: Path) -> None:
    """Else its record is a reject; as a missing value it is told, once a column."""
    numbers = some("{:.3f}")
    numbers[70:73] = ["broken", "", "worse"]
    path = tmp_path / "s.csv"
    body = make_csv({"x": numbers})
    assert [70, 72] == [each.position for each in make_stream(path, body).read(Cursor()).rejects]
    batch = make_stream(path, unfit_cells="missing").read(Cursor())
    assert [] == batch.rejects
    assert {None} == {batch.rows[place]["x"] for place in (70, 71, 72)}
    (notice,) = batch.notices
    assert ("unfit cell", "x", 70, 2) == (notice.kind, notice.column, notice.position, notice.count)
    assert "'broken' came" in notice.example


def test_a_leading_zero_that_comes_later_is_told(tmp_path: Path) -> None:
    """The column began as numbers, which 0123 and 123 are both; a person should know."""
    numbers = [str(place % 9 + 100) for place in range(COUNT)]
    path = tmp_path / "s.csv"
    body = make_csv({"x": numbers})
    schema = make_stream(path, body).schema
    with path.open("a") as file:
        file.write("0123,yes\n123,no\n")
    batch = make_stream(path, schema=schema).read(Cursor())
    assert [("leading zeros", "x", COUNT, 1)] == [
        (each.kind, each.column, each.position, each.count) for each in batch.notices
    ]


def test_every_column_says_what_is_missing_and_shows_a_value(tmp_path: Path) -> None:
    """For the table that a run begins with."""
    numbers = some("{:.3f}")
    numbers[::4] = ["NA"] * (COUNT // 4)
    schema = make_stream(tmp_path / "s.csv", make_csv({"x": numbers})).schema
    x, y = schema.seen
    assert (0.25, numbers[1]) == (x.missing_share, x.example)
    assert (0.0, "yes", "classes that are text") == (y.missing_share, y.example, y.because)


def test_a_column_without_name_and_values_is_told(tmp_path: Path) -> None:
    """Many programs end each line with a delimiter, the header's too."""
    schema = make_stream(tmp_path / "s.csv", "a,y,\n" + "1.5,0,\n2.5,1,\n" * 3).schema
    assert ["a"] == schema.names
    assert ("(column 3)", "left out") == (schema.seen[-1].name, schema.seen[-1].read_as)
