"""The predictions of a member: for one record, for a batch, and as a service gave them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.core.record_schema import Label, LabelKind


@dataclass(frozen=True)
class BatchPrediction:
    """Predictions for n rows: n values, and for classes probabilities of shape (n, classes)."""

    values: list[Label]
    probabilities: NDArray[np.float64] | None
    labels: tuple[Label, ...] = ()

    def answers(self, count: int | None = None) -> list[Answer]:
        """The predictions of the first `count` rows, record by record; None: of all."""
        if self.probabilities is None:
            return [float(value) for value in self.values[:count]]
        shares = self.probabilities[:count].tolist()
        return [dict(zip(self.labels, row, strict=True)) for row in shares]


Answer = Mapping[Label, float] | float | None
"""Prediction for one record: probabilities by class, a value in regression, or None."""


_INFINITE = 1e308
"""No value of a member is so large: whole numbers of JSON may be larger than any float."""


class MemberAnswer(NamedTuple):
    """What one member answered for one record."""

    value: Label
    """What it predicted; of what is served, the class that was served."""
    answer: Answer
    """Its probabilities, or the value again."""


@dataclass(frozen=True)
class GivenAnswers:
    """What a service answered for one record when it was asked for it."""

    members: Mapping[str, MemberAnswer]
    """By the member's name, "served" among them. Who answered nothing is absent."""
    champion: str | None
    """The version that answered as "batch"."""
    position: int
    """Of the checkpoint that answered."""
    lineage: str
    """Of the pipeline that answered."""


def given_answers(
    answers: Mapping[str, Any], versions: Mapping[str, Any], kind: LabelKind
) -> GivenAnswers:
    """The answers from JSON values; what cannot be an answer for labels of this kind is absent."""
    read = {name: _member_answer(answer, kind) for name, answer in answers.items()}
    champion, position = versions.get("champion"), versions.get("position")
    return GivenAnswers(
        {name: answer for name, answer in read.items() if answer is not None},
        champion if isinstance(champion, str) else None,
        position if isinstance(position, int) else 0,
        str(versions.get("lineage")),
    )


def _member_answer(given: object, kind: LabelKind) -> MemberAnswer | None:
    if not isinstance(given, Mapping):
        return None
    value, shares = given.get("value"), given.get("probabilities")
    if kind == "float":
        if not isinstance(value, int | float) or not abs(value) < _INFINITE:
            return None
        return MemberAnswer(float(value), float(value))
    if not isinstance(value, int if kind == "int" else str) or not isinstance(shares, Mapping):
        return None
    if not all(isinstance(share, int | float) for share in shares.values()):
        return None
    try:
        by_label = {int(text) if kind == "int" else text: each for text, each in shares.items()}
    except ValueError:
        return None
    return MemberAnswer(value, by_label) if value in by_label else None
