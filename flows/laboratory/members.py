"""The product's online members and its blend, as the laboratory shares them between policies.

What an online member answers does not depend on when a batch model is fitted, so it is computed
once for a stream. Only these functions know how the product's learner and blend are called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flows.laboratory.records import Floats, StreamRecords
from flows.run import bootstrap
from models.core.prediction import Answer
from models.core.record_schema import Label
from models.online import learner, stacking

CHAMPION = "batch"
BASELINE = "baseline"
_CHUNK = 1000


@dataclass(frozen=True, eq=False)
class Members:
    """The answers of each online member, the baseline among them, by name."""

    answers: Mapping[str, Floats]
    """Each of shape (n, classes), or (n,) in regression."""

    @property
    def names(self) -> list[str]:
        """Their names, the baseline last."""
        return sorted(self.answers, key=lambda name: name == BASELINE)


def learn(records: StreamRecords) -> Members:
    """Let the online members of the pipeline file predict and learn the whole stream."""
    stream = bootstrap.open_stream(records.file, records.schema)
    fresh = bootstrap.fresh(records.file, stream).learner
    known: dict[str, list[Answer]] = {}
    for begin in range(0, len(records), _CHUNK):
        chunk = slice(begin, begin + _CHUNK)
        log = fresh.learn(records.rows[chunk], records.labels[chunk], None)
        for name, answers in log.answers.items():
            if name not in (CHAMPION, "served"):
                known.setdefault(name, []).extend(answers)
    return Members({name: records.array_of(answers) for name, answers in known.items()})


def serve(records: StreamRecords, members: Members, champion: Floats | None) -> Floats:
    """What the product's blend serves of these members and a champion, record by record."""
    given = {**members.answers, CHAMPION: records.unanswered() if champion is None else champion}
    columns = [_answers(records, given[name]) for name in learner.MEMBERS]
    blend = stacking.start(records.schema.task, learner.FIRST_WEIGHTS, records.file.pipeline.blend)
    served: list[Answer] = []
    for label, *answers in zip(records.labels, *columns, strict=True):
        served.append(blend.predict(answers))
        blend.learn(label)
    return records.array_of(served)


def _answers(records: StreamRecords, array: Floats) -> Sequence[Answer]:
    """The answers of one member as the product has them."""
    if not records.classes:
        return [float(value) if np.isfinite(value) else None for value in array]
    # Classes come in the order of the stream, as the product's own answers have them.
    order: list[Label] = list(dict.fromkeys(records.labels))
    codes = [records.classes.index(label) for label in order]
    answers: list[Answer] = []
    for row in array[:, codes].tolist():
        named = {label: share for label, share in zip(order, row, strict=True) if share == share}
        answers.append(named or None)
    return answers
