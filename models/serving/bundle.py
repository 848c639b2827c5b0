"""A bundle: what answers predictions, all of it from one checkpoint and one champion.

Pure computation. A bundle never changes: its learner predicts and learns nothing, so its answers
are those that the loop would serve from that checkpoint until the next label. Its learner and its
champion belong to it alone; one thread at a time may ask it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import ThreadpoolController

from models.batch.batch_model import BatchAnswersNothing, BatchModel
from models.core import record_schema
from models.core.answered import REST
from models.core.prediction import BatchPrediction
from models.core.record_schema import Label, Schema
from models.online.learner import SERVED, Learner
from models.online.online_model import RecordRefused
from models.online.prediction_rows import MemberRows, PredictionRows
from models.serving import request_rows
from models.serving.request_rows import FieldFault, NewColumns
from models.stream.parsing.columns import Plan

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Predicted:
    """The prediction of one record."""

    value: Label | None
    """What is served; None where no member knows anything yet."""
    probabilities: Mapping[str, float] | None
    """Of each class, as text; None in regression."""
    members: Mapping[str, Mapping[str, Any]]
    """By the member's name, "served" among them: its `value` and its `probabilities`, or None.
    Where there is a champion, "rest" is what would be served without it."""
    left_out: tuple[str, ...] = ()
    """Keys of the record that the stream does not have, and that were left out."""


@dataclass(frozen=True)
class Refused:
    """A record without a prediction, and why: it has at least one fault."""

    faults: tuple[FieldFault, ...]


RowAnswer = Predicted | Refused


@dataclass(frozen=True, eq=False)
class Bundle:
    """A learner and a champion that predict together."""

    pipeline: str
    plan: Plan
    """How records are parsed; the schema is in it."""
    learner: Learner
    """It is used for predicting only."""
    champion: BatchModel | None
    champion_version: str | None
    position: int
    """The position of the checkpoint: so many records of the stream were consumed."""
    lineage: str = ""
    """Distinguishes the pipeline from an earlier one of the same name."""
    new_columns: NewColumns = "ignore"

    @property
    def schema(self) -> Schema:
        """The features and the target."""
        return self.plan.schema

    @cached_property
    def versions(self) -> dict[str, Any]:
        """What identifies this bundle, for JSON."""
        return {
            "champion": self.champion_version,
            "position": self.position,
            "lineage": self.lineage,
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The names by which a request may ask for this very bundle: champion and position."""
        champion = () if self.champion_version is None else (self.champion_version,)
        return (*champion, str(self.position))

    def predict(self, records: Sequence[Mapping[str, Any]]) -> list[RowAnswer]:
        """Predict records of JSON values by column, as they came; an answer for each, in order.

        A record is refused where a field of it is invalid, or where an online member raises on it.
        """
        rows = request_rows.parse(self.plan, records, self.new_columns)
        fit = [index for index in range(len(records)) if index not in rows.faults]
        table = rows.table if len(fit) == len(records) else rows.table.take(np.array(fit, np.int64))
        # A request is too small for several threads, which would wait for one another.
        with self._threads.limit(limits=1):
            predicted = dict(zip(fit, self._predict(table), strict=True))
        return [
            Refused(rows.faults[index])
            if index in rows.faults
            else _with_left_out(predicted[index], rows.left_out.get(index, ()))
            for index in range(len(records))
        ]

    def warm(self) -> None:
        """Predict one record of missing values, so that nothing slow is left for the first request.

        Raises what the models raise.
        """
        self.predict([dict.fromkeys(self.schema.sources)])

    @cached_property
    def _threads(self) -> ThreadpoolController:
        """The numerical libraries of this process; what the models need is loaded by now."""
        return ThreadpoolController()

    def _predict(self, table: pa.Table) -> list[RowAnswer]:
        if table.num_rows == 0:
            return []
        try:
            batch = self._champion_answers(table)
            rows = record_schema.dicts(table, self.schema.names)
            log = self.learner.learn(rows, [None] * len(rows), batch)
            if batch is not None and log.rest is not None:
                log.by[REST] = log.rest
        except (BatchAnswersNothing, RecordRefused) as error:
            if table.num_rows == 1:
                return [Refused((FieldFault(None, f"a model cannot predict it: {error}"),))]
            # One record must not change the answers to others that came with it by chance.
            each = (self._predict(table.slice(index, 1)) for index in range(table.num_rows))
            return [answer for answers in each for answer in answers]
        return _answers(log)

    def _champion_answers(self, table: pa.Table) -> BatchPrediction | None:
        """The champion's prediction. Where it fails on one record, the others predict alone.

        Raises BatchAnswersNothing where it fails on several.
        """
        if self.champion is None:
            return None
        try:
            return self.champion.predict(record_schema.frame(table, self.schema))
        except BatchAnswersNothing:
            if table.num_rows > 1:
                raise
            return None


def _with_left_out(answer: RowAnswer, left_out: tuple[str, ...]) -> RowAnswer:
    if not left_out or isinstance(answer, Refused):
        return answer
    return Predicted(answer.value, answer.probabilities, answer.members, left_out)


def _answers(log: PredictionRows) -> list[RowAnswer]:
    """The predictions of a batch, record by record."""
    by_member = {name: _member_answers(rows) for name, rows in log.by.items()}
    found: list[RowAnswer] = []
    for index in range(len(log)):
        members = {name: answers[index] for name, answers in by_member.items()}
        served = members[SERVED]
        found.append(Predicted(served["value"], served["probabilities"], members))
    return found


def _member_answers(rows: MemberRows) -> list[dict[str, Any]]:
    """The value and the probabilities of one member for each record, for JSON."""
    whole = rows.whole
    if whole is None or whole.probabilities is None:
        return [{"value": value, "probabilities": None} for value in rows.predicted]
    names = [str(label) for label in whole.labels]
    return [
        {
            "value": value,
            "probabilities": None if value is None else dict(zip(names, shares, strict=True)),
        }
        for value, shares in zip(rows.predicted, whole.probabilities.tolist(), strict=True)
    ]
