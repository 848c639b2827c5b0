"""The predictions for one batch: of each member, and what was served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from models.core.answered import REST, Answered
from models.core.prediction import BatchPrediction, MemberAnswer
from models.core.record_schema import Label


@dataclass(frozen=True)
class MemberRows:
    """The predictions of one member, a list entry per record; None where it has none."""

    predicted: list[Label | None]
    probabilities: list[float | None]
    """Of the predicted class; None in regression."""
    whole: BatchPrediction | None = field(default=None, compare=False)
    """All probabilities with NaN where there are none, for the scores of the batch; the log on disk
    has the predicted class's only. None: they were dropped."""

    def __len__(self) -> int:
        return len(self.predicted)

    def at(self, indexes: Sequence[int]) -> MemberRows:
        """The rows at these places."""
        whole = self.whole
        if whole is not None:
            shares = whole.probabilities
            whole = BatchPrediction(
                [whole.values[index] for index in indexes],
                None if shares is None else shares[list(indexes)],
                whole.labels,
            )
        return MemberRows(
            [self.predicted[index] for index in indexes],
            [self.probabilities[index] for index in indexes],
            whole,
        )


@dataclass
class PredictionRows:
    """The predictions for one batch; a label is None if it is not yet known."""

    labels: list[Label | None] = field(default_factory=list)
    by: dict[str, MemberRows] = field(default_factory=dict)
    """By the name of the member, "served" among them."""
    rest: MemberRows | None = field(default=None, compare=False)
    """What would have been served without the champion; None: it is not known any more."""
    asleep: Counter[str] = field(default_factory=Counter)
    """Records that a service had answered and this member had not, or another model in its name."""

    def __len__(self) -> int:
        return len(self.labels)

    def put(self, answered: Answered) -> None:
        """Put what a service answered then in the places of what would be answered now."""
        if not answered.places:
            return
        for name, rows in self.by.items():
            self.by[name] = given(rows, answered.by(name))
        if self.rest is not None:
            self.rest = given(self.rest, answered.by(REST))
        self.asleep.update(answered.asleep())

    @property
    def learned(self) -> int:
        """How many records had a label and were learned."""
        return len(self.labels) - self.labels.count(None)

    def labelled(self) -> PredictionRows:
        """The predictions for the records that have a label."""
        known = [index for index, label in enumerate(self.labels) if label is not None]
        if len(known) == len(self.labels):
            return self
        labels: list[Label | None] = [self.labels[index] for index in known]
        by = {name: rows.at(known) for name, rows in self.by.items()}
        return replace(self, labels=labels, by=by, rest=None)

    def without_wholes(self) -> PredictionRows:
        """The same without what the log on disk does not have."""
        by = {
            name: MemberRows(rows.predicted, rows.probabilities) for name, rows in self.by.items()
        }
        return replace(self, by=by, rest=None)


def nothing(names: Sequence[str]) -> PredictionRows:
    """The predictions of these members for no record."""
    return PredictionRows([], {name: MemberRows([], []) for name in names})


def of_values(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> MemberRows:
    """A member's rows in regression, from values of the shape (n,); NaN is none."""
    predicted: list[Label | None] = [
        None if missing else value
        for value, missing in zip(values.tolist(), np.isnan(values).tolist(), strict=True)
    ]
    return MemberRows(predicted, [None] * len(predicted), BatchPrediction([*values.tolist()], None))


def of_classes(
    shares: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    classes: tuple[Label, ...],
    codes: np.ndarray[tuple[int], np.dtype[np.intp]] | None = None,
) -> MemberRows:
    """A member's rows, from probabilities of the shape (n, classes); NaN is none.

    `codes` are the places of the predicted classes; left out: the likeliest ones, of which the
    first of `classes` in sorted order is taken where several are equally likely.
    """
    if not classes:
        nothing = [None] * len(shares)
        return MemberRows([*nothing], [*nothing], BatchPrediction([], shares, classes))
    missing = np.isnan(shares[:, 0])
    if codes is None:
        order = sorted(range(len(classes)), key=lambda code: _rank(classes[code]))
        codes = np.array(order)[np.nan_to_num(shares)[:, order].argmax(axis=1)]
    picked = shares[np.arange(len(shares)), codes]
    predicted = [
        None if absent else classes[code]
        for code, absent in zip(codes.tolist(), missing.tolist(), strict=True)
    ]
    probabilities = [
        None if absent else share
        for share, absent in zip(picked.tolist(), missing.tolist(), strict=True)
    ]
    values = [classes[code] for code in codes.tolist()]
    return MemberRows(predicted, probabilities, BatchPrediction(values, shares, classes))


def given(rows: MemberRows, answers: Mapping[int, MemberAnswer | None]) -> MemberRows:
    """The same rows, with other answers at some places; None: it had none there."""
    whole = rows.whole
    assert whole is not None
    predicted, probabilities, values = [*rows.predicted], [*rows.probabilities], [*whole.values]
    shares = None if whole.probabilities is None else whole.probabilities.copy()
    for place, each in answers.items():
        by_label = each.answer if each is not None else None
        predicted[place] = None if each is None else each.value
        if each is not None and place < len(values):
            values[place] = each.value
        if shares is None:
            values[place] = np.nan if each is None else each.value
        elif each is not None and isinstance(by_label, Mapping):
            probabilities[place] = by_label.get(each.value)
            shares[place] = [by_label.get(label, 0.0) for label in whole.labels]
        else:
            probabilities[place] = None
            shares[place] = np.nan
    return MemberRows(predicted, probabilities, BatchPrediction(values, shares, whole.labels))


def _rank(label: Label) -> tuple[str, Label]:
    return str(type(label)), label
