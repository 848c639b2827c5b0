"""What a first look at a stream finds, and the schema that follows from it.

Pure: names, kinds and a sample's labels in; a schema, or an error that names file, key and column,
out.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import columns
from models.example import Column, Kind, LabelKind, Schema, Task
from models.intake import BadStream, StreamChanged, StreamOptions

_MOST_NAMES = 20


@dataclass(frozen=True)
class Survey:
    """The columns of a file in its order, what each seems to be, and the labels of a sample."""

    names: tuple[str, ...]
    kinds: dict[str, Kind]
    """Of the features; one that is in neither `kinds` nor `odd` was ignored."""
    odd: dict[str, str]
    """Features that are neither number nor category, and what they are: nested, timestamp, ..."""
    labels: Sequence[Any]
    odd_target: str | None = None


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


def check_pinned(path: Path, names: Sequence[str], schema: Schema, options: StreamOptions) -> None:
    """The file has the columns that the pipeline began with. Raises StreamChanged."""
    here = {*names} - {*options.ignore}
    there = {*schema.names, schema.target}
    if here == there:
        return
    gone, new = sorted(there - here), sorted(here - there)
    parts = [
        f"missing now: {_listed(gone)}" if gone else "",
        f"new: {_listed(new)}" if new else "",
    ]
    raise StreamChanged(
        f"{path}: the columns are not those that this pipeline learned from "
        f"({'; '.join(filter(None, parts))}). Bring the old columns back, name new ones in "
        "stream.ignore, or start a pipeline under another name"
    )


def schema_of(path: Path, survey: Survey, task: Task, options: StreamOptions) -> Schema:
    """The schema that the sample and the options give. Raises BadStream."""
    kinds: dict[str, Kind] = {
        **survey.kinds,
        **dict.fromkeys(options.numbers, "number"),
        **dict.fromkeys(options.categories, "category"),
    }
    names = features_of(survey.names, options)
    for name in names:
        if name in survey.odd:
            raise BadStream(
                f"{path}: column {name!r} holds {survey.odd[name]}, neither numbers nor "
                f"categories: name it in stream.ignore, or turn it into one of them"
            )
    return Schema(
        columns=tuple(Column(name=name, kind=kinds[name]) for name in names),
        target=options.target,
        task=task,
        label_kind=_label_kind(path, survey, task, options),
    )


def _label_kind(path: Path, survey: Survey, task: Task, options: StreamOptions) -> LabelKind:
    target = f"{path}: stream.target {options.target!r}"
    if survey.odd_target is not None:
        raise BadStream(f"{target} holds {survey.odd_target}, neither numbers nor classes")
    kind = columns.kind_of_labels(survey.labels, task == "regression")
    if kind is None:
        raise BadStream(
            f"{target} has no label in the first {len(survey.labels)} records: "
            "fill it in, raise stream.sample, or name another column"
        )
    if kind == "float" and not columns.are_numbers(survey.labels):
        raise BadStream(
            f'{target} holds text, and the task is regression: use task = "classification", '
            "or name a column of numbers"
        )
    return kind


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
