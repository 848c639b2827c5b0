"""Infers the schema of a stream from a sample.

Pure: names and cells of a sample in; a schema, or an error that names file, key and column, out.
`models.stream.parsing.column_inference` infers single columns.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from models.core import number_format
from models.core.number_format import PLAIN, Decimal, NumberFormat
from models.core.record_schema import Column, LabelKind, Schema, SeenColumn, Task
from models.stream.batches import BadStream, StreamChanged, StreamOptions
from models.stream.parsing import cells, column_inference, timestamps
from models.stream.parsing.column_inference import InferredColumn, NumberMarks, Unclear

T = TypeVar("T")

RARE_KEY = 0.05
"""Share of the sample's objects below which a JSON key is no column."""
_MOST_NAMES = 20
_NO_HEADER = (
    ". Where that is no header, take away the lines above it, or name the delimiter: delimiter = "
    '";" under [stream]'
)
_PLAIN_TYPES = frozenset({None, "number", "category"})


@dataclass(frozen=True)
class SchemaSample:
    """The head of a file: its columns in order, and some cells of each."""

    names: tuple[str, ...]
    cells: Mapping[str, Sequence[Any]]
    """Cells of the features and the target: texts in CSV, else values (None: missing)."""
    delimiter: str | None = None
    """The delimiter of a CSV file; None if cells are values."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Types of the file, if it has any: number, category, time, or a name that is no feature."""
    rare: Mapping[str, str] = field(default_factory=dict)
    """Keys that are no columns, and why."""


def features_of(names: Sequence[str], options: StreamOptions) -> list[str]:
    """The columns to learn from: all but the target and the ignored."""
    return [name for name in names if name != options.target and name not in options.ignore]


def named(path: Path, header: Sequence[str], options: StreamOptions) -> tuple[str, ...]:
    """The names in a header, each once. A blank N-th name becomes unnamed_N and must be ignored,
    except for the first, which is an index that pandas wrote. Raises BadStream."""
    names = [name or f"unnamed_{place}" for place, name in enumerate(header, 1)]
    for place, (name, written) in enumerate(zip(names, header, strict=True), 1):
        if not written and not _is_index(name) and name not in options.ignore:
            raise BadStream(
                f"{path}: column {place} has no name: give it one in the header line, or put "
                f"{name!r} into stream.ignore"
            )
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise BadStream(
            f"{path}: column {twice[0]!r} is there {names.count(twice[0])} times; "
            "a record could not say which is which: rename all but one in the file"
        )
    return tuple(names)


def _is_index(name: str) -> bool:
    """Whether a column is the index of a data frame, in CSV or in Parquet."""
    return name == "unnamed_1" or name.startswith("__index_level_")


def check_names(path: Path, names: Sequence[str], options: StreamOptions) -> None:
    """Check that all columns in the options exist, and that features remain. Raises BadStream."""
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
                    f"{_NO_HEADER if len(names) == 1 else ''}"
                )
    if not features_of(names, options):
        raise BadStream(
            f"{path}: nothing is left to learn from: besides stream.target ({options.target!r}) "
            "and stream.ignore the file has no column"
        )


def check_pinned(
    path: Path, names: Sequence[str], schema: Schema, options: StreamOptions
) -> list[str]:
    """Check that the file has the columns that the pipeline began with; returns the new ones.

    Raises StreamChanged if one is gone, or if new ones must not be ignored; BadStream if
    stream.ignore names an unknown column.
    """
    here, there = {*names}, {*schema.sources, schema.target} - {*options.ignore}
    gone = sorted(there - here)
    if gone:
        raise StreamChanged(
            f"{path}: the columns are not those that this pipeline learned from (missing now: "
            f"{_listed(gone)}). Bring them back, or name them in stream.ignore, which makes them "
            "missing values from here on"
        )
    for name in options.ignore:
        if name not in here and name not in schema.known:
            raise BadStream(
                f"{path}: stream.ignore names the column {name!r}, which is not in the file"
                f"{_nearest(name, names)}"
            )
    known = schema.known.union(options.ignore)
    new = [name for name in names if name not in known]
    if new and options.new_columns != "ignore":
        raise StreamChanged(
            f"{path}: the columns are not those that this pipeline learned from (new: "
            f'{_listed(new)}), and stream.new_columns is "{options.new_columns}". Name them in '
            "stream.ignore, or start a pipeline under another name to learn from them"
        )
    return new


def check_options(path: Path, schema: Schema, options: StreamOptions) -> None:
    """Check that the options agree with the columns as learned. Raises BadStream."""
    kinds = {each.source: "time" if each.part else each.kind for each in schema.columns}
    named = {
        **dict.fromkeys(options.numbers, "number"),
        **dict.fromkeys(options.categories, "category"),
        **dict.fromkeys(options.times, "time"),
    }
    keys = {"number": "numbers", "category": "categories", "time": "times"}
    for name, wanted in named.items():
        if name == schema.target:
            learned = {"str": "category"}.get(schema.label_kind, "number")
        else:
            learned = kinds.get(name) or ("ignored" if name in options.ignore else "left out")
        if learned != wanted:
            raise BadStream(
                f"{path}: stream.{keys[wanted]} names the column {name!r}, which this pipeline "
                f"began with as {learned}, and its models know it so. Take it out of "
                f"stream.{keys[wanted]}, or start a pipeline under another name"
            )


def with_number_formats(schema: Schema, options: StreamOptions) -> Schema:
    """The schema with the number formats of the options; those that are 'auto' stay."""
    if options.decimal == options.thousands == "auto":
        return schema

    def by_hand(spelt: NumberFormat) -> NumberFormat:
        decimal = spelt.decimal if options.decimal == "auto" else options.decimal
        thousands = spelt.thousands if options.thousands == "auto" else options.thousands
        if thousands == decimal:
            # The mark that is not configured changes.
            if options.decimal == "auto":
                decimal = "," if decimal == "." else "."
            else:
                thousands = ""
        return NumberFormat(decimal=decimal, thousands=thousands, sign=spelt.sign)

    columns = tuple(
        each.model_copy(update={"spelling": by_hand(each.spelling)}) for each in schema.columns
    )
    label = by_hand(schema.label_spelling)
    return schema.model_copy(update={"columns": columns, "label_spelling": label})


def schema_of(path: Path, sample: SchemaSample, task: Task, options: StreamOptions) -> Schema:
    """The schema that the sample and the options give. Raises BadStream."""
    first = _Inference(path, sample, task, options)
    names = features_of(sample.names, options)
    found = {name: first.understood(name) for name in names}
    if all(each.read_as == "left out" for each in found.values()):
        # Nothing is left to learn from: numbers that only count records are features then.
        back = {
            name: InferredColumn(
                "number", f"there is no other column; it may be {each.because}", each.spelling
            )
            for name, each in found.items()
            if each.counts
        }
        if not back:
            reasons = "; ".join(f"{name!r}: {each.because}" for name, each in found.items())
            raise BadStream(
                f"{path}: nothing is left to learn from ({reasons}): name a column in "
                "stream.numbers, stream.categories or stream.times to take it all the same, if the "
                "file has one record a line"
            )
        found |= back
    target, label_kind, label_spelling = first.target()
    columns = [column for name in names for column in _features(name, found[name], sample.names)]
    return Schema(
        columns=tuple(columns),
        target=options.target,
        task=task,
        label_kind=label_kind,
        label_spelling=label_spelling,
        seen=(
            *(
                _seen(name, found.get(name, target), sample, columns, label_kind)
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


def sample_of_objects(
    path: Path, records: Sequence[dict[str, Any]], options: StreamOptions
) -> SchemaSample:
    """The sample of JSON objects; a rare key is no column, unless the options name it."""
    seen = Counter(name for record in records for name in record)
    check_names(path, [*seen, *(set(options.ignore) - set(seen))], options)
    named = {options.target, *options.numbers, *options.categories, *options.times}
    rare = {
        name: f"only {count} of {len(records)} records have this key"
        for name, count in seen.items()
        if name not in named and name not in options.ignore and count < RARE_KEY * len(records)
    }
    # A lone surrogate is no text: it cannot be written into a schema or the history.
    rare |= {repr(name): "its name is no text" for name in seen if not _is_text(name)}
    names = tuple(name for name in seen if name not in rare and _is_text(name))
    wanted = [*features_of(names, options), options.target]
    cells = {name: [record.get(name) for record in records] for name in wanted}
    return SchemaSample(names, cells, rare=rare)


def _is_text(name: str) -> bool:
    return name == name.encode("utf-8", "ignore").decode()


class _Inference:
    """The inference of a file's columns."""

    def __init__(
        self, path: Path, sample: SchemaSample, task: Task, options: StreamOptions
    ) -> None:
        self.path = path
        self.sample = sample
        self.task = task
        self.options = options
        self.marks = NumberMarks(
            None if options.decimal == "auto" else options.decimal,
            None if options.thousands == "auto" else options.thousands,
            sample.delimiter,
            self._common_decimal(),
        )

    def _common_decimal(self) -> Decimal | None:
        """The decimal mark on which the columns agree; None if no cell has a comma."""
        if self.sample.delimiter is None or self.options.decimal != "auto":
            return None
        columns = [
            column_inference.numbers_present(cells_of)
            for name, cells_of in self.sample.cells.items()
            if name not in self.options.categories
        ]
        if not any("," in text for column in columns for text in column):
            return None
        return column_inference.decimal_of(map(number_format.NumberSample, columns))

    def understood(self, name: str) -> InferredColumn:
        """Infer a feature: from the options, else from the file's types, else from its cells.

        Raises BadStream.
        """
        column, of_type = self.sample.cells[name], self.sample.types.get(name)
        for key in ("numbers", "categories"):
            if name in getattr(self.options, key) and of_type not in _PLAIN_TYPES:
                raise BadStream(
                    f"{self.path}: stream.{key} names the column {name!r}, which holds {of_type}: "
                    "take it out of there, or turn it into numbers or texts in the file"
                )
        if name in self.options.numbers:
            return InferredColumn("number", "stream.numbers names it", self._spelt(name, column))
        if name in self.options.categories:
            return InferredColumn("category", "stream.categories names it")
        if name in self.options.times:
            return self._named_time(name, column, of_type)
        if _is_index(name):
            return InferredColumn("left out", "the index of a data frame, without a name")
        if of_type == "time":
            seconds = [value for value in column if value is not None]
            return column_inference.of_moments(seconds, "times, by the file's type", "iso")
        if of_type not in _PLAIN_TYPES:
            return InferredColumn("left out", f"{of_type} is neither a number nor a category")
        is_text = self.sample.delimiter is not None
        infer = column_inference.of_texts if is_text else column_inference.of_values
        found = self._clearly(name, lambda: infer(name, column, self.marks))
        if of_type == "number" and found.read_as == "category":
            return InferredColumn("number", "numbers, by the file's type")
        if of_type == "category" and found.read_as == "number" and found.spelling == PLAIN:
            return InferredColumn("category", "text, by the file's type")
        return found

    def _spelt(self, name: str, column: Sequence[Any]) -> NumberFormat:
        """The number format of the target, or of a column of numbers by the options."""
        texts = [
            value for value in column_inference.numbers_present(column) if isinstance(value, str)
        ]
        if not texts:
            return PLAIN
        found = self._clearly(
            name,
            lambda: column_inference.spelling_of(number_format.NumberSample(texts), self.marks),
        )
        return found or PLAIN

    def _clearly(self, name: str, read: Callable[[], T]) -> T:
        try:
            return read()
        except Unclear as error:
            raise BadStream(
                f"{self.path}: column {name!r} holds {cells.shown(error.cell)}, which can be a "
                'thousand or a fraction, and no other cell says which: write decimal = "." or '
                'decimal = "," under [stream]'
            ) from error

    def _named_time(self, name: str, column: Sequence[Any], of_type: str | None) -> InferredColumn:
        because = "stream.times names it"
        present = column_inference.numbers_present(column)
        if of_type == "time":
            return column_inference.of_moments([float(each) for each in present], because, "iso")
        moments = [column_inference.moment_of(value) for value in present]
        known = [moment for moment in moments if moment is not None]
        if present and len(known) >= column_inference.NEARLY_ALL * len(present):
            return column_inference.of_moments(known, because, "iso")
        found = [column_inference.number_of(value) for value in present]
        numbers = [number for number in found if number]
        enough = len(numbers) >= column_inference.NEARLY_ALL * len(present)
        form = timestamps.form_of_numbers(numbers) if enough else None
        if form is None:
            came = cells.shown(present[0]) if present else "nothing"
            raise BadStream(
                f"{self.path}: stream.times names the column {name!r}, and {came} came: ISO 8601 "
                "(as 2026-03-01T12:00:00Z), or seconds, ms, us or ns since 1970 were expected"
            )
        return column_inference.of_moments(
            [each / timestamps.UNITS[form] for each in numbers], because, form
        )

    def target(self) -> tuple[InferredColumn, LabelKind, NumberFormat]:
        """The kind of the target's labels, and their number format. Raises BadStream."""
        name = self.options.target
        target, of_type = f"{self.path}: stream.target {name!r}", self.sample.types.get(name)
        if of_type not in _PLAIN_TYPES:
            raise BadStream(f"{target} holds {of_type}, neither numbers nor classes")
        labels = self.sample.cells[name]
        if any(isinstance(label, list | dict) for label in labels):
            raise BadStream(f"{target} holds lists or objects, neither numbers nor classes")
        present = (
            column_inference.numbers_present(labels)
            if self.task == "regression"
            else column_inference.labels_present(labels)
        )
        if not present:
            raise BadStream(
                f"{target} has no label in the first {len(labels)} records: "
                "fill it in, raise stream.sample, or name another column"
            )
        spelt = self._spelt(name, present)
        if self.task == "regression":
            return self._values(target, present, spelt)
        return self._classes(target, labels, present, spelt)

    def _values(
        self, target: str, present: Sequence[Any], spelt: NumberFormat
    ) -> tuple[InferredColumn, LabelKind, NumberFormat]:
        odd = [label for label in present if column_inference.number_of(label, spelt) is None]
        if len(odd) > (1 - column_inference.NEARLY_ALL) * len(present):
            raise BadStream(
                f"{target} holds {cells.shown(odd[0])}, and the task is regression: say under "
                "[stream] how its numbers are written (decimal, thousands), use "
                'task = "classification", or name a column of numbers'
            )
        because = f"numbers ({spelt.description})" if spelt.description else "numbers"
        if odd:
            because += f"; {len(odd)} of {len(present)} are none, as {cells.shown(odd[0])}"
        return InferredColumn("target", because), "float", spelt

    def _classes(
        self, target: str, labels: Sequence[Any], present: Sequence[Any], spelt: NumberFormat
    ) -> tuple[InferredColumn, LabelKind, NumberFormat]:
        name = self.options.target
        if name in self.options.categories:
            return InferredColumn("target", "stream.categories names it"), "str", PLAIN
        if name in self.options.numbers:
            whole = column_inference.numbers_present(present)
            odd = next((each for each in whole if not cells.is_whole(each)), None)
            if odd is not None:
                raise BadStream(
                    f"{target} holds {cells.shown(odd)}, and classes that are numbers are whole: "
                    "take it out of stream.numbers to read it as text"
                )
            return InferredColumn("target", "stream.numbers names it"), "int", PLAIN
        if why := column_inference.no_classes(present, spelt):
            raise BadStream(
                f"{target} holds {why}, as {cells.shown(present[0])}, and the task is "
                'classification: use task = "regression", name another column, or name it in '
                "stream.categories if these are classes all the same"
            )
        kind = column_inference.kind_of_labels(labels) or "str"
        because = "classes that are whole numbers" if kind == "int" else "classes that are text"
        alike = column_inference.alike(present) if kind == "str" else ""
        return InferredColumn("target", f"{because}; {alike}" if alike else because), kind, PLAIN


def _features(name: str, understood: InferredColumn, taken: Sequence[str]) -> list[Column]:
    if understood.read_as == "time":
        columns = []
        for part in understood.parts:
            own = f"{name}.{part}"
            while own in taken:
                own += "_"
            columns.append(
                Column(name=own, kind="number", origin=name, time=understood.time, part=part)
            )
        return columns
    if understood.read_as == "number" or understood.read_as == "category":
        return [
            Column(
                name=name,
                kind=understood.read_as,
                spelling=understood.spelling,
                mixed=understood.mixed,
            )
        ]
    return []


def _seen(
    name: str,
    understood: InferredColumn,
    sample: SchemaSample,
    columns: Sequence[Column],
    label_kind: LabelKind,
) -> SeenColumn:
    column = sample.cells[name]
    if understood.read_as == "target":
        present = (
            column_inference.labels_present(column)
            if label_kind == "str"
            else column_inference.numbers_present(column)
        )
    elif understood.read_as in {"number", "time"}:
        present = column_inference.numbers_present(column)
    else:
        present = [value for value in column if not column_inference.is_missing(value)]
    example = understood.example if understood.example is not None else next(iter(present), None)
    if example is not None:
        is_time = sample.types.get(name) == "time"
        example = timestamps.describe(example) if is_time else cells.shown(example).strip("'")
    return SeenColumn(
        name=name,
        read_as=understood.read_as,
        because=understood.because,
        features=tuple(each.name for each in columns if each.source == name),
        missing_share=1.0 - len(present) / len(column) if column else None,
        example=example,
    )


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
