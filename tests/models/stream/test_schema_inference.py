"""A first look at whole files: what is read, what is left out, and what is asked of a person."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from models.core.record_schema import Schema
from models.stream.source import BadStream, Cursor
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
    with pytest.raises(BadStream, match=r"'x' holds '10,110'.*decimal = \",\" under \[stream\]"):
        _ = make_stream(path, body).schema
    assert {"x": 10.11} == make_stream(path, decimal=",").read(Cursor()).rows[0]
    assert {"x": 10110.0} == make_stream(path, decimal=".").read(Cursor()).rows[0]
    assert {"x": 10110.0} == make_stream(path, thousands=",").read(Cursor()).rows[0]


def test_a_regression_on_text_shows_a_value_and_the_knobs(tmp_path: Path) -> None:
    """Exit code 78, before anything is fitted."""
    body = make_csv({"x": some("{:.3f}")})
    with pytest.raises(BadStream, match=r"holds 'yes'.*\(decimal, thousands\).*classification"):
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


def amounts(form: str) -> list[str]:
    """Numbers of which one in twenty is larger than a thousand."""
    return [form.format(n * (97.0 if n % 20 == 0 else 1.0)) for n in range(1, COUNT + 1)]


def test_the_few_that_are_large_enough_for_a_separator_are_read_too(tmp_path: Path) -> None:
    """Else just the largest values would be lost, and few enough that nobody is told."""
    cells_of = [f'"{text}"' for text in amounts("{:,.1f}")]
    stream = make_stream(tmp_path / "s.csv", make_csv({"x": cells_of}))
    batch = stream.read(Cursor())
    assert ([], [float(text.replace(",", "")) for text in amounts("{:,.1f}")]) == (
        batch.rejects,
        [row["x"] for row in batch.rows],
    )
    assert "thousands" in stream.schema.seen[0].because


def test_each_column_is_written_in_its_own_way(tmp_path: Path) -> None:
    """A program's coordinates beside a person's prices, in one file."""
    body = make_csv(
        {"lat": some("{:.5f}"), "price": [text.replace(".", ",") for text in some("{:.2f}", 1)]},
        ";",
    )
    batch = make_stream(tmp_path / "s.csv", body).read(Cursor())
    assert [
        (float(a), float(b)) for a, b in zip(some("{:.5f}"), some("{:.2f}", 1), strict=True)
    ] == [(row["lat"], row["price"]) for row in batch.rows]


def test_another_column_tells_what_a_comma_is(tmp_path: Path) -> None:
    """Between tabs 1,234 is a thousand where the next column has 1.5; lists lead to a question."""
    turnover = [f"{place * 37 % 90 + 10},{place + 110}" for place in range(COUNT)]
    body = make_csv({"x": turnover, "z": some("{:.1f}")}, "\t")
    assert 10110.0 == make_stream(tmp_path / "s.csv", body).read(Cursor()).rows[0]["x"]
    tags = [f"{place % 9},{place % 7}" for place in range(COUNT)]
    body = make_csv({"x": [f'"{text}"' for text in turnover], "tags": [f'"{tag}"' for tag in tags]})
    with pytest.raises(BadStream, match=r"'x' holds '10,110'"):
        _ = make_stream(tmp_path / "t.csv", body).schema


def test_three_decimals_between_semicolons_are_asked_about(tmp_path: Path) -> None:
    """23.456 may be twenty-three thousand; one cell of another form would tell."""
    body = make_csv({"x": [f"{place}.{place + 100}" for place in range(10, 10 + COUNT)]}, ";")
    path = tmp_path / "s.csv"
    with pytest.raises(BadStream, match=r"'10\.110'"):
        _ = make_stream(path, body).schema
    body = body.replace("10.110", "10.1")
    assert {"x": 10.1} == make_stream(path, body).read(Cursor()).rows[0]


@pytest.mark.parametrize("word", ["NULL", "\\N", "nan", ""])
def test_words_for_nothing_are_no_labels(tmp_path: Path, word: str) -> None:
    """Neither of classes nor of values; the table counts them as missing."""
    labels = [word if place % 4 == 0 else "stay" for place in range(COUNT - 1)] + ["churn"]
    stream = make_stream(tmp_path / "s.csv", make_csv({"x": some("{:.3f}"), "y": labels}))
    assert {"stay", "churn", None} == set(stream.read(Cursor()).labels)
    assert 0.25 == stream.schema.seen[-1].missing_share
    values = [word if place % 4 == 0 else f"{place}.5" for place in range(COUNT)]
    body = make_csv({"x": some("{:.3f}"), "y": values})
    stream = make_stream(tmp_path / "t.csv", body, task="regression")
    assert 30 == len(stream.read(Cursor()).unlabelled().positions)
    assert 0.25 == stream.schema.seen[-1].missing_share


def test_a_class_may_be_a_sign_or_a_word_for_nothing(tmp_path: Path) -> None:
    """Of texts, - and none are classes, and the table does not call them missing."""
    body = make_csv({"x": some("{:.3f}"), "y": ["-", "none"] * (COUNT // 2)})
    stream = make_stream(tmp_path / "s.csv", body)
    assert {"-", "none"} == set(stream.read(Cursor()).labels)
    assert 0.0 == stream.schema.seen[-1].missing_share


def test_classes_that_differ_in_case_are_told(tmp_path: Path) -> None:
    """They stay two classes: a person decides."""
    body = make_csv({"x": some("{:.3f}"), "y": ["yes", "Yes", "no"] * (COUNT // 3)})
    assert (
        "'yes' and 'Yes' are two" in make_stream(tmp_path / "s.csv", body).schema.seen[-1].because
    )


def test_what_is_no_number_among_numbers_is_told_with_a_cell_that_fits(tmp_path: Path) -> None:
    """A tenth of the records would be rejected; the table says so before they are."""
    numbers = some("{:.3f}")
    numbers[::20] = ["<5"] * (COUNT // 20)
    seen = make_stream(tmp_path / "s.csv", make_csv({"x": numbers})).schema.seen[0]
    assert (numbers[1], True) == (seen.example, "6 of 120 are none, as '<5'" in seen.because)


@pytest.mark.parametrize("key", ["numbers", "categories", "times"])
def test_a_knob_that_comes_too_late_is_refused(tmp_path: Path, key: str) -> None:
    """The models know the column as it was; in silence nothing would change."""
    body = make_csv({"x": some("{:.3f}"), "c": ["a", "b"] * (COUNT // 2)})
    path = tmp_path / "s.csv"
    schema = make_stream(path, body).schema
    name = "c" if key == "numbers" else "x"
    with pytest.raises(BadStream, match=rf"stream\.{key} names the column '{name}'.*another name"):
        make_stream(path, None, "classification", schema, **{key: (name,)}).read(Cursor())
    kept = make_stream(path, schema=schema, numbers=("x",), categories=("c",))
    assert COUNT == len(kept.read(Cursor()).rows)


def test_a_decimal_mark_that_comes_later_can_be_named_later(tmp_path: Path) -> None:
    """Whole numbers between semicolons tell nothing; a person does, and the records fit again."""
    path = tmp_path / "s.csv"
    schema = make_stream(
        path, make_csv({"x": [str(place % 7) for place in range(COUNT)]}, ";")
    ).schema
    with path.open("a") as file:
        file.write("0.5;yes\n")
    assert 1 == len(make_stream(path, schema=schema).read(Cursor()).rejects)
    batch = make_stream(path, schema=schema, decimal=".").read(Cursor())
    assert ([], 0.5) == (batch.rejects, batch.rows[-1]["x"])


def test_ignoring_what_never_was_a_column_is_a_slip(tmp_path: Path) -> None:
    """Also where the pipeline has begun."""
    path = tmp_path / "s.csv"
    schema = make_stream(path, make_csv({"note": some("{:.1f}"), "x": some("{:.3f}")})).schema
    with pytest.raises(BadStream, match=r"ignore names the column 'nota'.*did you mean 'note'"):
        make_stream(path, schema=schema, ignore=("nota",)).read(Cursor())


def test_a_column_that_is_empty_from_some_record_on_is_told(tmp_path: Path) -> None:
    """It may have been renamed; its values are missing meanwhile."""
    path = tmp_path / "s.jsonl"
    record = {"x": 1.5, "c": "a", "y": "yes"}
    path.write_text("".join(json.dumps(record) + "\n" for _ in range(COUNT)))
    stream = make_stream(path)
    first = stream.read(Cursor())
    with path.open("a") as file:
        file.write("".join(json.dumps({"c": "a", "y": "no"}) + "\n" for _ in range(COUNT)))
    (notice,) = make_stream(path, schema=stream.schema).read(first.after).notices
    assert ("empty column", "x", COUNT, COUNT) == (
        notice.kind,
        notice.column,
        notice.position,
        notice.count,
    )


def test_a_blank_text_is_missing_among_json_numbers(tmp_path: Path) -> None:
    """As it is in CSV."""
    path = tmp_path / "s.jsonl"
    records = [{"x": "" if place % 3 == 0 else place % 7, "y": place % 2} for place in range(COUNT)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    stream = make_stream(path)
    assert "number" == stream.schema.seen[0].read_as
    assert (None, 1.0) == tuple(row["x"] for row in stream.read(Cursor()).rows[:2])


def test_texts_and_numbers_that_are_mixed_are_read_as_text_and_told(tmp_path: Path) -> None:
    """An id that is 17 in one record and "17b" in the next."""
    path = tmp_path / "s.jsonl"
    records = [{"x": "b" if place % 3 == 0 else 17, "y": place % 2} for place in range(COUNT)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    stream = make_stream(path)
    assert ("category", True) == (
        stream.schema.seen[0].read_as,
        "mixed" in stream.schema.seen[0].because,
    )
    assert ["b", "17"] == [row["x"] for row in stream.read(Cursor()).rows[:2]]


def test_fractions_that_json_has_as_text_are_numbers(tmp_path: Path) -> None:
    """As many interfaces write decimals; whole numbers as text may be codes, and stay text."""
    path = tmp_path / "s.jsonl"
    records = [
        {"price": f"{place / 7:.4f}", "code": str(place % 5), "y": place % 2}
        for place in range(COUNT)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    stream = make_stream(path)
    assert {"price": "number", "code": "category", "y": "target"} == read_as(stream.schema)
    assert "stream.numbers" in stream.schema.seen[1].because
    assert 0.1429 == stream.read(Cursor()).rows[1]["price"]


def test_whole_numbers_that_json_has_as_text_are_numbers_where_they_are_no_codes(
    tmp_path: Path,
) -> None:
    """Hundreds of different ones: as categories they would teach nothing."""
    path = tmp_path / "s.jsonl"
    records = [{"qty": str(place * 7919 % 1009), "y": place % 2} for place in range(COUNT)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    stream = make_stream(path)
    assert ("number", "numbers, written as text") == (
        stream.schema.seen[0].read_as,
        stream.schema.seen[0].because,
    )
    assert 7919 % 1009 == stream.read(Cursor()).rows[1]["qty"]


def test_a_key_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    """JSON can spell half of a pair of surrogates; no file of ours could."""
    path = tmp_path / "s.jsonl"
    path.write_text('{"a":1.5,"\\ud800":2,"y":1}\n' * 3)
    stream = make_stream(path)
    assert (["a"], 3) == (stream.schema.names, len(stream.read(Cursor()).rows))
    assert stream.schema.model_dump_json()


def test_a_name_in_quotes_may_hold_delimiters_and_line_ends(tmp_path: Path) -> None:
    """What stands outside of the quotes tells the delimiter."""
    body = '"a;b;c;d","size\n(cm)",y\n' + "red,1.5,0\nblue,2.5,1\n" * 5
    assert ["a;b;c;d", "size\n(cm)"] == make_stream(tmp_path / "s.csv", body).schema.names


def test_a_title_above_the_header_is_asked_about(tmp_path: Path) -> None:
    """The message says what may be wrong."""
    with pytest.raises(BadStream, match="take away the lines above it"):
        _ = make_stream(tmp_path / "s.csv", "Sales of March\na,b,y\n1,2,3\n").schema


def test_the_first_number_with_groups_may_come_late(tmp_path: Path) -> None:
    """1,234.50 can be read one way; of 1,234 a person says what it is."""
    path = tmp_path / "s.csv"
    schema = make_stream(path, make_csv({"x": some("{:.2f}")})).schema
    with path.open("a") as file:
        file.write('"1,234.50",yes\n"2,345",no\n')
    batch = make_stream(path, schema=schema).read(Cursor())
    assert (1234.5, [COUNT + 1]) == (
        batch.rows[-1]["x"],
        [reject.position for reject in batch.rejects],
    )
    assert 2345.0 == make_stream(path, schema=schema, thousands=",").read(Cursor()).rows[-1]["x"]
