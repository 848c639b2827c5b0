"""The batch models that a schedule could fit: one at each position, by the product's own fit.

A candidate is fitted once, and its answers for the rest of the stream are kept in a file, so that
every policy is a cheap choice among them, and an experiment that was killed goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from flows.laboratory.records import Floats, LabConfig, StreamRecords
from models.batch import evaluation
from models.batch.batch_model import BatchAnswersNothing, BatchCannotLearn, TooLittleToLearn
from models.batch.recipe_config import BatchRecipe
from models.core.record_schema import Column, LabelKind, Schema, Task


@dataclass(frozen=True, eq=False)
class FittedCandidate:
    """A model by its answers; `answers` begins at `row` and reaches to the end of the stream."""

    position: int
    row: int
    fit_s: float
    """Processor seconds of fitting and comparing, which other work does not change."""
    answers: Floats

    def ready(self, config: LabConfig) -> int:
        """The first row that it can predict, when records go on arriving while it is fitted."""
        return ready(self.row, self.fit_s, config)


def ready(row: int, fit_s: float, config: LabConfig) -> int:
    """The first row that a model predicts whose fit was asked for at `row`."""
    return row + math.ceil((fit_s + config.wait_s) * config.records_per_s)


def positions(records: StreamRecords, config: LabConfig) -> list[int]:
    """Where candidates are fitted: every so many records, as soon as a fit has enough of them."""
    fewest = max(records.file.pipeline.batch.min_rows, records.file.pipeline.worth.min_rows)
    return [
        position
        for position in range(config.every, records.last, config.every)
        if records.row_at(position) >= fewest
    ]


@cache
def warm_up(recipes: tuple[str, ...], task: Task) -> None:
    """Import what the first fit of a process imports, so that no fit is measured with it."""
    import pandas as pd

    plain = tuple(recipe for recipe in recipes if ":" not in recipe)
    if not plain:
        return
    column = Column(name="x", kind="number")
    kind: LabelKind = "int" if task == "classification" else "float"
    evaluation.evaluate(
        pd.DataFrame({"x": np.arange(100.0)}),
        [each % 2 for each in range(100)],
        recipe=BatchRecipe(recipes=plain, min_rows=50),
        schema=Schema(columns=(column,), target="y", task=task, label_kind=kind),
        clock=time.perf_counter,
    )


def fit(records: StreamRecords, position: int) -> FittedCandidate | None:
    """The challenger that the product would fit at this position; None where it gives no model.

    A schedule promotes whatever it fits. So it is fitted again on its hold-out too, as each model
    of the product is that is promoted.
    """
    warm_up(records.file.pipeline.batch.recipes, records.schema.task)
    row, recipe = records.row_at(position), records.file.pipeline.batch
    first = max(row - recipe.window, 0)
    began_s = time.process_time()
    try:
        challenge = evaluation.evaluate(
            records.frame.iloc[first:row].reset_index(drop=True),
            list(records.labels[first:row]),
            recipe=recipe,
            schema=records.schema,
            clock=time.perf_counter,
            beside=records.file.folder,
            measure=records.file.pipeline.pipeline.measure,
            promotes=lambda _: True,
        )
        fit_s = time.process_time() - began_s
        prediction = challenge.model.predict(records.frame.iloc[row:].reset_index(drop=True))
    except (TooLittleToLearn, BatchCannotLearn, BatchAnswersNothing):
        return None
    return FittedCandidate(position, row, fit_s, records.array_of_batch(prediction))


def to_arrays(candidate: FittedCandidate | None) -> Iterator[tuple[str, Floats]]:
    """A candidate as named arrays for a file; none where there is no model."""
    if candidate is not None:
        yield "of", np.array([candidate.position, candidate.row, candidate.fit_s])
        yield "answers", candidate.answers


def from_arrays(arrays: dict[str, Floats]) -> FittedCandidate | None:
    """The candidate that `to_arrays` has named."""
    if "of" not in arrays:
        return None
    position, row, fit_s = arrays["of"].tolist()
    return FittedCandidate(int(position), int(row), fit_s, arrays["answers"])
