"""The product's online members and its blend, as the laboratory shares them between policies.

What an online member answers does not depend on when a batch model is fitted, so it is computed
once for a stream. Only these functions know how the product's learner and blend are called.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flows.laboratory.records import Floats, StreamRecords
from flows.run import bootstrap
from models.core.prediction import Answer
from models.core.record_schema import Features, Label
from models.online import learner, learning_health, online_model
from models.online.blend import ClassBlend, ValueBlend
from models.online.learner import BASELINE, MEDIAN
from models.online.online_model import OnlineMembers

CHAMPION = learner.BATCH


@dataclass(frozen=True, eq=False)
class Members:
    """The answers of each online member and each baseline, by name."""

    answers: Mapping[str, Floats]
    """Each of shape (n, classes), or (n,) in regression."""

    @property
    def names(self) -> list[str]:
        """Their names, the baselines last."""
        return sorted(self.answers, key=lambda name: name in (BASELINE, MEDIAN))


class _Heard(OnlineMembers):
    """Online members whose answers are kept as they gave them, before the blend completes them."""

    def __init__(self, of: OnlineMembers) -> None:
        super().__init__(of.members, of.imputer)
        self.answers: dict[str, list[Answer]] = {name: [] for name in of.members}

    def run(
        self,
        rows: Sequence[Features],
        labels: Sequence[Label | None],
        stop: Callable[[], bool] = bool,
    ) -> dict[str, list[Answer]]:
        answers = super().run(rows, labels, stop)
        for name, each in answers.items():
            self.answers[name] += each
        return answers


def learn(records: StreamRecords) -> Members:
    """Let the members of the pipeline file predict and learn the whole stream.

    As in a run, a member that diverged begins anew after the batch. Raises RecordRefused.
    """
    stream = bootstrap.open_stream(records.file, schema=records.schema)
    fresh = bootstrap.fresh(records.file, stream).learner
    naive, median = copy.deepcopy((fresh.baseline, fresh.median))
    fresh.online = heard = _Heard(fresh.online)
    for batch in _batches(records):
        fresh.learn(records.rows[batch], records.labels[batch], None)
        _reset(records, fresh, batch.stop)
    answers = {name: records.array_of(each) for name, each in heard.answers.items()}
    answers[BASELINE] = records.array_of(naive.run(records.labels))
    if median is not None:
        answers[MEDIAN] = median.run(records.values)
    return Members(answers)


def _batches(records: StreamRecords) -> Iterator[slice]:
    """The rows of each batch that the product learns at once."""
    size = records.file.pipeline.stream.batch
    for begin in range(0, records.last, size):
        yield slice(records.row_at(begin), records.row_at(begin + size))


def _reset(records: StreamRecords, fresh: learner.Learner, row: int) -> None:
    pipeline = records.file.pipeline
    for name, member in [*fresh.online.members.items()]:
        if learning_health.must_be_reset(name, member.non_finite_count, fresh.divergences[name]):
            anew = online_model.build_member(
                name,
                pipeline.online,
                records.schema,
                pipeline.pipeline.measure,
                records.file.folder,
            )
            fresh.replace(name, anew, row)


def serve(records: StreamRecords, members: Members, champion: Floats | None) -> Floats:
    """What the product's blend serves of these members and a champion, record by record.

    Where errors are counted, the class that is served has the whole probability: it has the most
    votes, and is not always the likeliest one.
    """
    pipeline, task = records.file.pipeline, records.schema.task
    given = {**members.answers, CHAMPION: records.unanswered() if champion is None else champion}
    columns = [given[name] for name in learner.names(pipeline.online.members, task)[2:]]
    if not records.classes:
        values = ValueBlend(len(columns), pipeline.blend, pipeline.pipeline.measure)
        return values.run(np.stack(columns, axis=1), records.values).served
    blended = ClassBlend(len(columns), pipeline.blend).run(
        [_answers(records, column) for column in columns], records.labels
    )
    codes = np.array([records.classes.index(label) for label in blended.classes])
    served = records.unanswered()
    if records.loss != "accuracy":
        served[:, codes] = blended.served
        return served
    answered = np.flatnonzero(blended.voted >= 0)
    served[answered] = np.eye(len(records.classes))[codes[blended.voted[answered]]]
    return served


def _answers(records: StreamRecords, array: Floats) -> Sequence[Answer]:
    """The answers of one member as the product has them: without the classes unknown to it."""
    answers: list[Answer] = []
    for row in array.tolist():
        named = {
            label: share
            for label, share in zip(records.classes, row, strict=True)
            if share == share
        }
        answers.append(named or None)
    return answers
