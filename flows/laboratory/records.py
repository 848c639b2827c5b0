"""A stream in memory, answers as arrays, and what they cost: the numbers that every policy shares.

Classes are columns in sorted order. A class that a member does not know yet, and a record that it
does not answer, are NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from flows.config.overrides import over
from flows.config.pipeline import PipelineFile
from flows.run import bootstrap
from models.core import record_schema
from models.core.prediction import Answer, BatchPrediction
from models.core.record_schema import Features, Label, Schema
from observability.core.errors import BadConfiguration
from power.core.gate_config import GateConfig

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Loss = Literal["accuracy", "brier", "mae"]
"""What is summed over the records: errors, half the squared error of probabilities, or the
absolute error."""
FEWEST = 1000
"""Fewest labelled records from which the laboratory tells anything."""
_ALL = 2**62


class LabConfig(BaseModel):
    """The conditions of an experiment: the same for every policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    records_per_s: float = Field(
        default=100.0,
        ge=0,
        allow_inf_nan=False,
        description="How fast records arrive: a fit that takes a second serves so many later.",
    )
    wait_s: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that each retrain waits for its machine before it begins.",
    )
    every: int = Field(
        default=500, ge=20, description="Records between two candidates of the simulated policies."
    )
    fit_price: float = Field(
        default=20.0,
        ge=0,
        allow_inf_nan=False,
        description="What a fit costs beside its seconds: the loss of the baseline in so many "
        "records.",
    )
    cpu_watts: float = Field(
        default=15.0,
        gt=0,
        allow_inf_nan=False,
        description="Watts of one busy core, from which joules are estimated.",
    )
    records: int | None = Field(
        default=None, ge=FEWEST, description="Records of each stream at most; left out: all."
    )


@dataclass(frozen=True, eq=False)
class StreamRecords:
    """The labelled records of a stream: n rows, in order."""

    file: PipelineFile
    schema: Schema
    rows: Sequence[Features]
    frame: pd.DataFrame
    labels: Sequence[Label]
    positions: NDArray[np.int64]
    classes: tuple[Label, ...]
    """Sorted; empty in regression."""
    loss: Loss

    def __len__(self) -> int:
        return len(self.labels)

    def row_at(self, position: int) -> int:
        """The first row from this position of the stream on."""
        return int(np.searchsorted(self.positions, position))

    @property
    def last(self) -> int:
        """The position behind the last record."""
        return int(self.positions[-1]) + 1

    def unanswered(self) -> Floats:
        """Answers for every row, all of them unknown."""
        shape = (len(self), len(self.classes)) if self.classes else (len(self),)
        return np.full(shape, np.nan)

    def array_of(self, answers: Sequence[Answer]) -> Floats:
        """Answers of the product, record by record from the first one on, as an array."""
        array = self.unanswered()[: len(answers)]
        codes = {label: code for code, label in enumerate(self.classes)}
        for row, answer in enumerate(answers):
            if isinstance(answer, Mapping):
                for label, probability in answer.items():
                    # river's binary models answer True and False for 1 and 0, which are equal.
                    code = codes.get(label)
                    if code is not None:
                        array[row, code] = probability
            elif answer is not None:
                array[row] = answer
        return array

    def array_of_batch(self, prediction: BatchPrediction) -> Floats:
        """A batch model's answers, as an array with all classes of the stream."""
        if prediction.probabilities is None:
            return np.asarray(prediction.values, dtype=np.float64)
        array = np.full((len(prediction.values), len(self.classes)), np.nan)
        codes = {label: code for code, label in enumerate(self.classes)}
        array[:, [codes[label] for label in prediction.labels]] = prediction.probabilities
        return array

    def losses(self, answers: Floats, instead: Floats | None = None) -> Floats:
        """The loss of each record; `instead` holds those of records without an answer.

        Without it, such a record counts as a whole error, or as answered with 0. A value is cut to
        the range of the labels before, as the product cuts that of every member.
        """
        if not self.classes:
            unknown: NDArray[np.bool_] = ~np.isfinite(answers)
            lost = np.abs(self._cut(answers) - self.values)
        else:
            unknown = np.asarray(np.isnan(answers).all(axis=1))
            known = np.nan_to_num(answers, nan=0.0)
            truth = self.codes
            if self.loss == "accuracy":
                lost = (known.argmax(axis=1) != truth).astype(np.float64)
            else:
                lost = 0.5 * ((known - np.eye(len(self.classes))[truth]) ** 2).sum(axis=1)
        if instead is None:
            instead = np.ones(len(lost)) if self.classes else np.abs(self.values)
        return np.where(unknown, instead, lost)

    def _cut(self, values: Floats) -> Floats:
        before = np.concatenate([[np.nan], self.values[:-1]])
        low, high = np.fmin.accumulate(before), np.fmax.accumulate(before)
        return np.where(np.isnan(low), values, np.clip(values, low, high))

    @property
    def values(self) -> Floats:
        """The targets, in regression."""
        return np.asarray(self.labels, dtype=np.float64)

    @property
    def codes(self) -> NDArray[np.intp]:
        """The column of each record's class."""
        known = {label: code for code, label in enumerate(self.classes)}
        return np.array([known[label] for label in self.labels], dtype=np.intp)

    def score(self, mean_loss: float) -> float:
        """What people call it: the accuracy, or the mean loss itself."""
        return 1.0 - mean_loss if self.loss == "accuracy" else mean_loss

    @property
    def larger_is_better(self) -> bool:
        """Whether a larger score is better."""
        return self.loss == "accuracy"


def for_the_lab(file: PipelineFile) -> PipelineFile:
    """The pipeline as the laboratory runs it: no device is asked."""
    return over(file, gate=GateConfig(source="off"))


def read(file: PipelineFile, config: LabConfig) -> StreamRecords:
    """Read a pipeline's whole stream. Raises BadConfiguration, and what its reader raises."""
    stream = bootstrap.open_stream(file)
    records = stream.between(0, config.records or _ALL).labelled()
    if len(records.labels) < FEWEST:
        raise BadConfiguration(
            f"{file.path}: the stream has {len(records.labels)} labelled records, and the "
            f"laboratory needs {FEWEST} to tell anything"
        )
    labels: list[Label] = list(records.labels)
    classifies = stream.schema.task == "classification"
    metric = file.pipeline.pipeline.metric
    loss: Loss = "mae"
    if classifies:
        loss = "brier" if metric not in ("auto", "accuracy") else "accuracy"
    return StreamRecords(
        file=file,
        schema=stream.schema,
        rows=records.rows,
        frame=record_schema.frame(records.table, stream.schema),
        labels=labels,
        positions=np.asarray(records.positions, dtype=np.int64),
        classes=tuple(sorted(set(labels))) if classifies else (),
        loss=loss,
    )


def folder(home: Path) -> Path:
    """Where the laboratory keeps its pieces, in a home."""
    return home / "laboratory"
