"""An example and its shapes: a dict per record for river, a frame per batch for scikit-learn.

Maths: no disk. A schema says what each column is; it is pinned when a stream is first read, so that
a value of another type is a reject and never a surprise in a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import pandas as pd

Task = Literal["classification", "regression"]
Kind = Literal["number", "category"]
LabelKind = Literal["int", "str", "float"]

Cell = float | str | None
"""A number is a finite float, a category is text, and a missing value is None."""
Features = Mapping[str, Cell]
Label = int | str | float
"""A class (int or str) or, in regression, a finite float."""


class Column(BaseModel):
    """One feature of the stream."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    kind: Kind


class Schema(BaseModel):
    """What a stream's records look like: the features in file order, and the target."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    columns: tuple[Column, ...] = Field(description="The features, in the order of the file.")
    target: str
    task: Task
    label_kind: LabelKind

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
