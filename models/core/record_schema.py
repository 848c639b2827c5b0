"""An example and its shapes: a dict per record for river, a frame per batch for scikit-learn.

Maths: no disk. A schema says what each column is; it is pinned when a stream is first read, so that
a value of another type is a reject and never a surprise in a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.core.number_format import PLAIN, Spelling

if TYPE_CHECKING:
    import pandas as pd

Task = Literal["classification", "regression"]
Kind = Literal["number", "category"]
LabelKind = Literal["int", "str", "float"]
TimeForm = Literal["iso", "s", "ms", "us", "ns"]
"""How a time is written: ISO 8601 text, or a number since 1970 in this unit."""
Part = Literal["hour", "weekday", "month"]
"""What of a time comes again, and can be learned from."""

Cell = float | str | None
"""A number is a finite float, a category is text, and a missing value is None."""
Features = Mapping[str, Cell]
Label = int | str | float
"""A class (int or str) or, in regression, a finite float."""


class Column(BaseModel):
    """One feature: what models see. A column of times in the file gives several."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    kind: Kind
    origin: str | None = Field(
        default=None, description="The column of the file that it is made from; None: its own name."
    )
    spelling: Spelling = Field(default=PLAIN, description="How its numbers are written as text.")
    time: TimeForm | None = Field(default=None, description="How its times are written, of a time.")
    part: Part | None = Field(default=None, description="Which part of a time it is.")
    mixed: bool = Field(
        default=False, description="Whether numbers stand among its texts and are read as text."
    )

    @property
    def source(self) -> str:
        """The column of the file."""
        return self.origin or self.name


ReadAs = Literal["number", "category", "time", "target", "ignored", "left out"]


class SeenColumn(BaseModel):
    """One column of the file as it was understood when the stream was first read."""

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
    """What a stream's records look like: the features in file order, and the target."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    columns: tuple[Column, ...] = Field(description="The features, in the order of the file.")
    target: str
    task: Task
    label_kind: LabelKind
    label_spelling: Spelling = Field(
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
        """Every column of the file that was there when the stream was first read."""
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


def frame(rows: Sequence[Features], schema: Schema) -> pd.DataFrame:
    """Records as a frame of shape (records, features): float64, or object with None for missing.

    Columns come in the schema's order whatever the order of the dicts. The index is 0, 1, ...
    """
    import numpy as np
    import pandas as pd

    columns = {
        column.name: (
            np.array([row[column.name] for row in rows], dtype=np.float64)
            if column.kind == "number"
            else pd.Series([row[column.name] for row in rows], dtype=object)
        )
        for column in schema.columns
    }
    return pd.DataFrame(columns, columns=schema.names)
