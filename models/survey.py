"""What a first look at a stream finds, and the schema that follows from it.

Pure: names and a sample's cells in; a schema, or an error that names file, key and column, out.
What a single column is, `models.inference` says.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models import cells, inference, spelling, times
from models.example import Column, LabelKind, Schema, SeenColumn, Task
from models.inference import Marks, Understood
from models.intake import BadStream, StreamChanged, StreamOptions
from models.spelling import PLAIN, Decimal, Spelling

_MOST_NAMES = 20
_MISSING_TEXTS = cells.MISSING_NUMBERS


@dataclass(frozen=True)
class Sample:
    """The head of a file: its columns in order, and some cells of each."""

    names: tuple[str, ...]
    cells: Mapping[str, Sequence[Any]]
    """Of the features and the target: texts of a CSV file, else values (None: missing)."""
    delimiter: str | None = None
    """Of a CSV file; None where cells are values."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Of a file that has types: number, category, time, or what it is that can be no feature."""
    rare: Mapping[str, str] = field(default_factory=dict)
    """Keys that are no columns, and why."""


def features_of(names: Sequence[str], options: StreamOptions) -> list[str]:
    """The columns to learn from: all but the target and the ignored."""
    return [name for name in names if name != options.target and name not in options.ignore]


def named(path: Path, header: Sequence[str], options: StreamOptions) -> tuple[str, ...]:
    """The names in a header: each once. The N-th, if blank, is unnamed_N and must be ignored, and
    so must an index that pandas wrote along. Raises BadStream."""
    names = [name or f"unnamed_{place}" for place, name in enumerate(header, 1)]
    for place, (name, written) in enumerate(zip(names, header, strict=True), 1):
        unnamed = not written or written.startswith("__index_level_")
        if unnamed and name not in options.ignore:
            raise BadStream(
                f"{path}: column {place} has no name (an index that was written along?): give it "
                f"one in the header line, or put {name!r} into stream.ignore"
            )
    _check_once(path, names)
    return tuple(names)


def check_names(path: Path, names: Sequence[str], options: StreamOptions) -> None:
    """What the options name is in the file, and features are left. Raises BadStream."""
    asked = {
        "target": (options.target,),
        "ignore": options.ignore,
        "numbers": options.numbers,
        "categories": options.categories,
        "times": options.times,
    }
    for key, wanted in asked.items():
        for name in wanted:
            if name not in names:
                raise BadStream(
                    f"{path}: stream.{key} names the column {name!r}, which is not in the file"
                    f"{_nearest(name, names)}; its columns are: {_listed(names)}"
                )
    if not features_of(names, options):
        raise BadStream(
            f"{path}: nothing is left to learn from: besides stream.target ({options.target!r}) "
            "and stream.ignore the file has no column"
        )


def check_pinned(
    path: Path, names: Sequence[str], schema: Schema, options: StreamOptions
) -> list[str]:
    """The file has the columns that the pipeline began with; the new ones that it has besides.

    Raises StreamChanged where one is gone, or where new ones are not to be ignored.
    """
    here, there = {*names}, {*schema.sources, schema.target} - {*options.ignore}
    gone = sorted(there - here)
    if gone:
        raise StreamChanged(
            f"{path}: the columns are not those that this pipeline learned from (missing now: "
            f"{_listed(gone)}). Bring them back, or name them in stream.ignore, which makes them "
            "missing values from here on"
        )
    new = [name for name in names if name not in schema.known and name not in options.ignore]
    if new and options.new_columns != "ignore":
        raise StreamChanged(
            f"{path}: the columns are not those that this pipeline learned from (new: "
            f'{_listed(new)}), and stream.new_columns is "{options.new_columns}". Name them in '
            "stream.ignore, or start a pipeline under another name to learn from them"
        )
    return new


def schema_of(path: Path, sample: Sample, task: Task, options: StreamOptions) -> Schema:
    """The schema that the sample and the options give. Raises BadStream."""
    marks = Marks(
        None if options.decimal == "auto" else options.decimal,
        None if options.thousands == "auto" else options.thousands,
    )
    decimal = _decimal(path, sample, options, marks)
    names = features_of(sample.names, options)
    found = {name: _understood(path, name, sample, decimal, marks, options) for name in names}
    found = _something_left(path, found)
    label_kind, label_spelling = _label(path, sample, task, options, decimal, marks)
    columns = [column for name in names for column in _features(name, found[name], sample.names)]
    target = Understood("target", _told_of(label_kind, label_spelling))
    return Schema(
        columns=tuple(columns),
        target=options.target,
        task=task,
        label_kind=label_kind,
        label_spelling=label_spelling,
        seen=(
            *(
                _seen(name, found.get(name, target), sample, columns)
                if name not in options.ignore
                else SeenColumn(name=name, read_as="ignored", because="stream.ignore names it")
                for name in sample.names
            ),
            *(
                SeenColumn(name=name, read_as="left out", because=why)
                for name, why in sample.rare.items()
            ),
        ),
    )


def _decimal(path: Path, sample: Sample, options: StreamOptions, marks: Marks) -> Decimal:
    """The decimal mark of the file. Raises BadStream where a number can be read two ways."""
    if sample.delimiter is None:
        return marks.decimal or "."
    if marks.decimal is not None:
        return marks.decimal
    if marks.thousands in {",", "."}:
        return "." if marks.thousands == "," else ","
    texts = {name: sample.cells[name] for name in sample.cells if name not in options.categories}
    decimal = inference.decimal_of(texts.values(), sample.delimiter)
    if sample.delimiter in {",", ";"} or marks.thousands is not None:
        return decimal
    # Neither another cell nor the delimiter says what the comma is, and a thousandth is no trifle.
    for name, column in texts.items():
        present = [text for text in column if text.strip().casefold() not in _MISSING_TEXTS]
        value = spelling.ambiguous(present)
        numbers = present and inference.spelling_of(present, decimal, marks) not in {None, PLAIN}
        if value is not None and numbers and not spelling.decisive(present):
            raise BadStream(
                f"{path}: column {name!r} holds {cells.shown(value)}, which can be a thousand or a "
                'fraction: say stream.decimal = "." or stream.decimal = ","'
            )
    return decimal


def _understood(
    path: Path,
    name: str,
    sample: Sample,
    decimal: Decimal,
    marks: Marks,
    options: StreamOptions,
) -> Understood:
    """What a feature is: a person's word first, then the file's types, then its cells."""
    column, of_type = sample.cells[name], sample.types.get(name)
    if name in options.numbers:
        return Understood("number", "stream.numbers names it", _spelt(column, decimal, marks))
    if name in options.categories:
        return Understood("category", "stream.categories names it")
    if name in options.times:
        return _named_time(path, name, column, of_type)
    if of_type not in {None, "number", "category", "time"}:
        return Understood("left out", f"{of_type} is neither a number nor a category")
    if of_type == "time":
        seconds = [value for value in column if value is not None]
        return inference.of_moments(seconds, "times, by the file's type", "iso")
    if sample.delimiter is not None:
        return inference.of_texts(name, column, decimal, marks)
    understood = inference.of_values(name, column)
    if of_type == "number" and understood.read_as == "category":
        return Understood("number", "numbers, by the file's type")
    if of_type == "category" and understood.read_as == "number":
        return Understood("category", "text, by the file's type")
    return understood


def _named_time(path: Path, name: str, column: Sequence[Any], of_type: str | None) -> Understood:
    told = "stream.times names it"
    present = [value for value in column if str(value).strip().casefold() not in _MISSING_TEXTS]
    if of_type == "time":
        return inference.of_moments([float(each) for each in present], told, "iso")
    moments = [inference.moment_of(value) for value in present]
    known = [moment for moment in moments if moment is not None]
    if present and len(known) >= inference.NEARLY_ALL * len(present):
        return inference.of_moments(known, told, "iso")
    numbers = [number for value in present if (number := inference.number_of(value)) is not None]
    form = times.form_of_numbers(numbers) if len(numbers) == len(present) else None
    if form is None:
        came = cells.shown(present[0]) if present else "nothing"
        raise BadStream(
            f"{path}: stream.times names the column {name!r}, and {came} came: ISO 8601 (as "
            "2026-03-01T12:00:00Z), or seconds, ms, us or ns since 1970 were expected"
        )
    unit = times.UNITS[form]
    return inference.of_moments([number / unit for number in numbers], told, form)


def _spelt(column: Sequence[Any], decimal: Decimal, marks: Marks) -> Spelling:
    texts = [value for value in column if isinstance(value, str)]
    present = [text for text in texts if text.strip().casefold() not in _MISSING_TEXTS]
    return (inference.spelling_of(present, decimal, marks) if present else None) or PLAIN


def _something_left(path: Path, found: Mapping[str, Understood]) -> dict[str, Understood]:
    """As found; where nothing is left to learn from, numbers that only count come back."""
    if any(each.read_as != "left out" for each in found.values()):
        return dict(found)
    back = {
        name: Understood(
            "number", f"there is no other column; it may be {each.because}", each.spelling
        )
        for name, each in found.items()
        if each.counts
    }
    if not back:
        told = "; ".join(f"{name!r}: {each.because}" for name, each in found.items())
        raise BadStream(
            f"{path}: nothing is left to learn from ({told}): name a column in stream.numbers, "
            "stream.categories or stream.times to take it all the same"
        )
    return {**found, **back}


def _features(name: str, understood: Understood, taken: Sequence[str]) -> list[Column]:
    if understood.read_as == "time":
        return [
            Column(
                name=_free_name(f"{name}.{part}", taken),
                kind="number",
                origin=name,
                time=understood.time,
                part=part,
            )
            for part in understood.parts
        ]
    if understood.read_as in {"number", "category"}:
        return [Column(name=name, kind=understood.read_as, spelling=understood.spelling)]
    return []


def _free_name(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _seen(
    name: str, understood: Understood, sample: Sample, columns: Sequence[Column]
) -> SeenColumn:
    column = sample.cells[name]
    textual = sample.delimiter is not None
    present = [
        value
        for value in column
        if not (
            value is None
            or value != value
            or (isinstance(value, str) and not value.strip())
            or (
                textual
                and understood.read_as != "category"
                and value.strip().casefold() in _MISSING_TEXTS
            )
        )
    ]
    return SeenColumn(
        name=name,
        read_as=understood.read_as,
        because=understood.because,
        features=tuple(each.name for each in columns if each.source == name),
        missing_share=1.0 - len(present) / len(column) if column else None,
        example=_example(present[0], sample.types.get(name)) if present else None,
    )


def _example(value: Any, of_type: str | None) -> str:
    if of_type == "time":
        return times.told(value)
    return cells.shown(value).strip("'")


def _told_of(kind: LabelKind, spelt: Spelling) -> str:
    told = {"int": "classes that are whole numbers", "str": "classes that are text"}
    return told.get(kind, f"numbers ({spelt.told})" if spelt.told else "numbers")


def _label(
    path: Path,
    sample: Sample,
    task: Task,
    options: StreamOptions,
    decimal: Decimal,
    marks: Marks,
) -> tuple[LabelKind, Spelling]:
    """What the target's labels are, and how they are written. Raises BadStream."""
    name = options.target
    target, of_type = f"{path}: stream.target {name!r}", sample.types.get(name)
    if of_type not in {None, "number", "category"}:
        raise BadStream(f"{target} holds {of_type}, neither numbers nor classes")
    labels = sample.cells[name]
    present = inference.present_labels(labels)
    if not present:
        raise BadStream(
            f"{target} has no label in the first {len(labels)} records: "
            "fill it in, raise stream.sample, or name another column"
        )
    spelt = _spelt(present, decimal, marks)
    numbers = [label for label in present if inference.number_of(label, spelt) is not None]
    if task == "regression":
        if len(numbers) < inference.NEARLY_ALL * len(present):
            odd = next(label for label in present if label not in numbers)
            raise BadStream(
                f"{target} holds {cells.shown(odd)}, and the task is regression: say how its "
                "numbers are written by stream.decimal and stream.thousands, use "
                'task = "classification", or name a column of numbers'
            )
        return "float", spelt
    if name in options.categories:
        return "str", PLAIN
    if name in options.numbers:
        odd = next((each for each in present if not cells.is_whole(each)), None)
        if odd is not None:
            raise BadStream(
                f"{target} holds {cells.shown(odd)}, and classes that are numbers are whole: take "
                "it out of stream.numbers to read it as text"
            )
        return "int", PLAIN
    if why := inference.no_classes(present, spelt):
        raise BadStream(
            f"{target} holds {why}, as {cells.shown(present[0])}, and the task is classification: "
            'use task = "regression", name another column, or name it in stream.categories if '
            "these are classes all the same"
        )
    return inference.kind_of_labels(labels) or "str", PLAIN


def _check_once(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise BadStream(
            f"{path}: column {twice[0]!r} is there {names.count(twice[0])} times; "
            "a record could not say which is which: rename all but one in the file"
        )


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
