"""Brings the records of a request into the shape of a stream, by the stream's own rules.

Pure. A record of a request is a JSON object. Its cells are parsed as those of a stream of JSON
lines: an absent key and null are missing values, a category that was never seen is a category, and
a value of another kind is a fault (or a missing value, where the pipeline file says so). A key that
the stream did not begin with is left out or a fault, as for the stream. The target is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from models.core.record_schema import Label, Schema, arrow_label
from models.stream.parsing import cells, columns
from models.stream.parsing.cells import InvalidCell
from models.stream.parsing.columns import Plan, Read

if TYPE_CHECKING:
    import pyarrow as pa

NewColumns = Literal["ignore", "reject", "stop"]


class FieldFault(NamedTuple):
    """Why a record is refused: its field (None: the record as a whole), and the reason."""

    field: str | None
    reason: str


@dataclass(frozen=True)
class RequestRows:
    """The records of a request as columns, and the faults of those that are invalid."""

    table: pa.Table
    """All records, in the schema's order, then the target, which is null in each."""
    faults: Mapping[int, tuple[FieldFault, ...]]
    """By the index of the record, in the order of the schema."""
    left_out: Mapping[int, tuple[str, ...]]
    """Unknown keys that were left out, by the index of the record."""


def parse(plan: Plan, records: Sequence[Mapping[str, Any]], new_columns: NewColumns) -> RequestRows:
    """Parse `records` by the rules of the stream that `plan` describes."""
    faults, left_out = _check_keys(plan, records, new_columns)
    reads = _features(plan, records)
    if not plan.unfit_is_missing:
        for column, read in zip(plan.schema.columns, reads, strict=True):
            for index, fault in read.faults.items():
                reason = fault.reason.partition(": ")[2]
                found = FieldFault(column.source, reason)
                # A column of times gives several features, and each has the same fault.
                if found not in faults.get(index, ()):
                    faults.setdefault(index, []).append(found)
    return RequestRows(_table(plan, reads, len(records)), _frozen(faults), left_out)


def label(plan: Plan, value: Any) -> Label:
    """The label of a JSON value, by the rules of the stream. Raises InvalidCell, also for none."""
    schema = plan.schema
    found: Label | None
    if schema.label_kind == "float":
        found = cells.number_from_value(
            value, plan.largest, from_text=True, spelling=schema.label_spelling
        )
    else:
        found = cells.class_from_value(value, schema.label_kind)
    if found is None:
        raise InvalidCell(f"a label was expected, {cells.shown(value)} came, which means none")
    return found


def unknown_keys(plan: Plan, record: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of a record that the stream does not have."""
    return tuple(sorted(record.keys() - plan.schema.known - plan.ignored))


def _check_keys(
    plan: Plan, records: Sequence[Mapping[str, Any]], new_columns: NewColumns
) -> tuple[dict[int, list[FieldFault]], dict[int, tuple[str, ...]]]:
    """The faults of the records' keys, and the unknown keys that are left out."""
    sources = frozenset(plan.schema.sources)
    faults: dict[int, list[FieldFault]] = {}
    left_out: dict[int, tuple[str, ...]] = {}
    for index, record in enumerate(records):
        if sources and sources.isdisjoint(record):
            faults[index] = [FieldFault(None, _no_column(plan.schema))]
            continue
        unknown = unknown_keys(plan, record)
        if not unknown:
            continue
        if new_columns == "ignore":
            left_out[index] = unknown
        else:
            faults[index] = [FieldFault(name, _unknown_column(plan.schema)) for name in unknown]
    return faults, left_out


def _no_column(schema: Schema) -> str:
    named = ", ".join(map(repr, schema.sources))
    return f"an object with columns of the schema was expected ({named}), one without any came"


def _unknown_column(schema: Schema) -> str:
    named = ", ".join(map(repr, schema.sources))
    return (
        f"this column is not in the schema ({named}); "
        'stream.new_columns = "ignore" leaves out all such'
    )


def _features(plan: Plan, records: Sequence[Mapping[str, Any]]) -> list[Read]:
    """A column per feature, with the faults of its cells."""
    values = {name: [record.get(name) for record in records] for name in plan.schema.sources}
    return columns.features(
        plan,
        len(records),
        lambda column: columns.feature_from_values(plan, column, values[column.source]),
        lambda source, form: columns.moments(
            values[source], f"column {source!r}", form, plan.largest, cells.moment_from_value
        ),
    )


def _table(plan: Plan, reads: Sequence[Read], count: int) -> pa.Table:
    """All records as a table; an invalid cell is null."""
    import pyarrow as pa

    no_labels = pa.nulls(count, arrow_label(plan.schema.label_kind))
    return pa.Table.from_arrays(
        [*(read.values for read in reads), no_labels],
        [*plan.schema.names, plan.schema.target],
    )


def _frozen(
    faults: Mapping[int, Sequence[FieldFault]],
) -> dict[int, tuple[FieldFault, ...]]:
    return {index: tuple(each) for index, each in faults.items()}
