"""The schema of a stream, and its records as Arrow tables, dicts (river) and frames (scikit-learn).

Nothing here touches the disk. A schema says what each column is. It is fixed when a stream is
first read, so that a value of another type is rejected and never reaches a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.core.number_format import PLAIN, NumberFormat

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Task = Literal["classification", "regression"]
ColumnKind = Literal["number", "category"]
LabelKind = Literal["int", "str", "float"]
TimeForm = Literal["iso", "s", "ms", "us", "ns"]
"""The format of a time: ISO 8601 text, or a number since 1970 in this unit."""
TimePart = Literal["hour", "weekday", "month"]
"""The recurring parts of a time, from which a model can learn."""

Cell = float | str | None
"""A number is a finite float, a category is text, and a missing value is None."""
Features = Mapping[str, Cell]
Label = int | str | float
"""A class (int or str) or, in regression, a finite float."""


class Column(BaseModel):
    """One feature of the models. A column of times in the file gives several features."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    kind: ColumnKind
    origin: str | None = Field(
        default=None, description="The column of the file that it is made from; None: its own name."
    )
    spelling: NumberFormat = Field(
        default=PLAIN, description="How its numbers are written as text."
    )
    time: TimeForm | None = Field(default=None, description="How its times are written, of a time.")
    part: TimePart | None = Field(default=None, description="Which part of a time it is.")
    mixed: bool = Field(
        default=False, description="Whether numbers stand among its texts and are read as text."
    )

    @property
    def source(self) -> str:
        """The column of the file that it is made from."""
        return self.origin or self.name


ReadAs = Literal["number", "category", "time", "target", "ignored", "left out"]


class SeenColumn(BaseModel):
    """One column of the file, as it was interpreted when the stream was first read."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    read_as: ReadAs
    because: str = Field(description="What of the sample, or of the pipeline file, says so.")
    features: tuple[str, ...] = Field(default=(), description="The features that it gives.")
    missing_share: float | None = Field(
        default=None, description="Share of the sample without a value; None: not looked at."
    )
    example: str | None = Field(default=None, description="A value of the sample, cut short.")


class Schema(BaseModel):
    """The features of a stream, in the order of the file, and the target."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    columns: tuple[Column, ...] = Field(description="The features, in the order of the file.")
    target: str
    task: Task
    label_kind: LabelKind
    label_spelling: NumberFormat = Field(
        default=PLAIN, description="How a target of numbers is written."
    )
    seen: tuple[SeenColumn, ...] = Field(
        default=(), description="Every column of the file as it was understood, in its order."
    )

    @property
    def sources(self) -> list[str]:
        """The columns of the file that features are made from, each once, in order."""
        return list(dict.fromkeys(column.source for column in self.columns))

    @property
    def known(self) -> frozenset[str]:
        """Every column that the file had when the stream was first read."""
        return frozenset((*self.sources, self.target, *(each.name for each in self.seen)))

    @property
    def names(self) -> list[str]:
        """Names of the features, in order."""
        return [column.name for column in self.columns]

    @property
    def numbers(self) -> list[str]:
        """Names of the numeric features."""
        return [column.name for column in self.columns if column.kind == "number"]

    @property
    def categories(self) -> list[str]:
        """Names of the categorical features."""
        return [column.name for column in self.columns if column.kind == "category"]


def arrow_schema(schema: Schema) -> pa.Schema:
    """The columns of a table of records: the features in the schema's order, then the target."""
    import pyarrow as pa

    types = {"number": pa.float64(), "category": pa.string()}
    fields = [(column.name, types[column.kind]) for column in schema.columns]
    return pa.schema([*fields, (schema.target, arrow_label(schema.label_kind))])


def arrow_label(kind: LabelKind) -> pa.DataType:
    """The Arrow type of a column of labels."""
    import pyarrow as pa

    return {"int": pa.int64(), "str": pa.string(), "float": pa.float64()}[kind]


def frame(table: pa.Table, schema: Schema) -> pd.DataFrame:
    """The features as a frame: float64 with NaN, or object with None, for missing values.

    Columns come in the schema's order, whatever their order in the table. The index is 0, 1, ...
    """
    import pandas as pd

    columns = {
        column.name: (
            table[column.name].to_numpy()
            if column.kind == "number"
            else pd.Series(table[column.name].to_numpy(), dtype=object)
        )
        for column in schema.columns
    }
    return pd.DataFrame(columns, columns=schema.names)


def cells(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column as Python objects, None for null.

    It takes a twentieth of the time of pyarrow's `to_pylist`.
    """
    import pyarrow as pa

    if pa.types.is_string(column.type) or not column.null_count:
        values: list[Any] = column.to_numpy().tolist()
        return values
    values = column.fill_null(0).to_numpy().tolist()
    for index in column.is_null().to_numpy().nonzero()[0].tolist():
        values[index] = None
    return values


def dicts(table: pa.Table, names: Sequence[str]) -> list[dict[str, Cell]]:
    """Each record as a dict of these columns, in their order, as river takes it."""
    blank: dict[str, Cell] = dict.fromkeys(names)
    rows = [blank.copy() for _ in range(table.num_rows)]
    # Filling column by column is three times as fast as zipping every row with its names.
    for name in names:
        for row, value in zip(rows, cells(table[name]), strict=True):
            row[name] = value
    return rows
