"""What is served: a mixture of all members and stacks that tracks the best of them.

Pure computation over blocks of records: the state after a block does not depend on how the records
were divided into blocks. Members and stacks (`models.online.stacking`) are the experts of
`models.online.tracking`. A member whose answer is no probability, or no finite number, does not
predict that record; a value is cut to the range of the labels so far. So no member can do more harm
than the bound in docs/guarantees.md says.

For classes, the probabilities track the best expert by the Brier score, and the class has the most
votes by weights that track the best expert by hits alone: the model with the best probabilities
often misses the best model's hits by some tenths of a point. Each expert has one vote, however sure
it is: a weighted majority misses at most twice as much as its weights do, and a sure liar would
outweigh an honest expert that is hardly sure. For values, the pipeline's metric is
tracked, in units of how far the members are apart.

Beside what is served, the blend computes what it would serve without the champion, from the other
members and stacks of their own: so it is known, record by record, what the champion adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.core.metrics import Measure
from models.core.prediction import Answer
from models.core.record_schema import Label
from models.online.stacking import MEMORY, ClassStacks, ValueStacks
from models.online.tracking import Flags, Floats, Mixture

Codes = NDArray[np.intp]

BRIER_RATES = (0.5, 2.0, 8.0)
"""Half the Brier score is exp-concave at 1/2, where the bound is the best; larger rates follow
faster where some member is clearly the best."""
BRIER_LAST_RATE = 0.5
HIT_RATES = (0.5, 2.0)
HIT_LAST_RATE = 0.1
VALUE_RATES = (0.1, 0.5, 2.0)
VALUE_LAST_RATE = 0.5
_MOST = 1e300
"""Losses are cut here, so that a square that overflows is a number."""
_CEILING = 1.0 + 1e-9


class BlendConfig(BaseModel):
    """The configuration of the blend: the table [blend] of a pipeline file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    learning_rates: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.05, 0.02, 0.005),
        min_length=1,
        description="One online stack over all members learns at each of these rates: a larger one "
        "follows faster, and forgets faster. The blend tracks which one suits the stream.",
    )


@dataclass(frozen=True, eq=False)
class BlendedClasses:
    """The predictions of n records over the `classes` known by then; NaN where nobody predicts."""

    classes: tuple[Label, ...]
    members: Floats
    """Shape (n, members, classes)."""
    served: Floats
    """Shape (n, classes)."""
    voted: Codes
    """The served class by its place among the classes; -1: none. Shape (n,)."""
    losses: Floats
    """Half the Brier score of each member, shape (n, members); NaN where unknown."""
    served_losses: Floats
    """Half the Brier score of what is served, shape (n,); NaN where unknown."""
    rest: Floats
    """What would be served without the champion, shape (n, classes)."""
    rest_voted: Codes
    """Its class, as `voted`. Without a champion among the members both are those served."""


@dataclass(frozen=True, eq=False)
class BlendedValues:
    """The predictions of n records; NaN where nobody predicts."""

    members: Floats
    """Shape (n, members), cut to the range of the labels before each record."""
    served: Floats
    """Shape (n,)."""
    losses: Floats
    """The tracked loss of each member, shape (n, members); NaN where unknown."""
    rest: Floats
    """What would be served without the champion, shape (n,); what is served where none is a member.
    """


class Groups:
    """Whom each group of the blend hears: all members first, and then all but the champion."""

    def __init__(self, members: int, stacks: int, champion: int | None) -> None:
        self.members = np.ones((1 if champion is None else 2, members), dtype=bool)
        """Shape (groups, members)."""
        if champion is not None:
            self.members[1, champion] = False
        own = np.eye(len(self.members), dtype=bool)
        self.experts = np.concatenate([self.members, np.repeat(own, stacks, axis=1)], axis=1)
        """Members, and then the stacks of each group; shape (groups, experts)."""
        self.voters = np.concatenate([self.experts, own], axis=1)
        """Experts, and then the mean of each group."""


class ClassBlend:
    """The blend of classes, which are added in the order of the stream: a replay repeats it.

    `champion` is the champion's place among the members; None: none of them is one.
    """

    def __init__(self, members: int, config: BlendConfig, champion: int | None = None) -> None:
        self.members = members
        self.classes: list[Label] = []
        self.groups = Groups(members, len(config.learning_rates), champion)
        self.stacks = ClassStacks(config.learning_rates, self.groups.members)
        self.mixture = Mixture(self.groups.experts, BRIER_RATES, BRIER_LAST_RATE)
        self.vote = Mixture(self.groups.voters, HIT_RATES, HIT_LAST_RATE)
        self._codes: dict[Label, int] = {}

    @property
    def weights(self) -> Floats:
        """The present weight of each member and then of each stack, in the mixture."""
        return np.asarray(self.mixture.weights[0, self.groups.experts[0]])

    def run(
        self, answers: Sequence[Sequence[Answer]], labels: Sequence[Label | None]
    ) -> BlendedClasses:
        """Predict and then learn each of n records; a label of None is not learned.

        `answers` has one sequence of n answers per member.
        """
        parts: list[BlendedClasses] = []
        first = 0

        def run_to(end: int) -> None:
            nonlocal first
            if end > first:
                rows = slice(first, end)
                parts.append(self._run([each[rows] for each in answers], labels[rows]))
                first = end

        for index, label in enumerate(labels):
            unknown = self._unknown(each[index] for each in answers)
            if unknown:
                run_to(index)
                self._add(unknown)
            if label is not None and label not in self._codes:
                run_to(index + 1)
                self._add([label])
        run_to(len(labels))
        return _joined(parts, tuple(self.classes), self.members)

    def _unknown(self, answers: Iterable[Answer]) -> list[Label]:
        """Classes that only these answers know, in an order that depends on no set."""
        new: set[Label] = set()
        for answer in answers:
            if isinstance(answer, Mapping) and not answer.keys() <= self._codes.keys():
                new |= answer.keys() - self._codes.keys()
        return sorted(new, key=lambda label: (str(type(label)), label))

    def _add(self, labels: Sequence[Label]) -> None:
        for label in labels:
            self._codes[label] = len(self.classes)
            # river's binary models answer True and False: these are the classes 1 and 0.
            self.classes.append(int(label) if isinstance(label, bool) else label)
            self.stacks.add_class()

    def _run(
        self, answers: Sequence[Sequence[Answer]], labels: Sequence[Label | None]
    ) -> BlendedClasses:
        """The same for records of which every class is known, or becomes known with its label."""
        count, classes = len(labels), len(self.classes)
        members = np.full((count, self.members, classes), np.nan)
        for member, each in enumerate(answers):
            members[:, member] = self._table(each)
        awake: Flags = (
            np.isfinite(members).all(axis=2) if classes else np.zeros(members.shape[:2], dtype=bool)
        )
        # The label of the last record may be a class that nobody knew when it was predicted.
        codes: Codes = np.array(
            [-1 if each is None else self._codes.get(each, -2) for each in labels], dtype=np.intp
        )
        learned: Flags = codes != -1
        if not classes:
            voted = np.full(count, -1, np.intp)
            nobody, nothing = np.full((count, self.members), np.nan), np.full((count, 0), np.nan)
            return BlendedClasses((), members, nothing, voted, nobody, nobody[:, 0], nothing, voted)
        truth = np.zeros((count, 1, classes))
        known: Flags = codes >= 0
        truth[np.flatnonzero(known), 0, codes[known]] = 1.0

        def brier(shares: Floats) -> Floats:
            # A class that is unknown yet is a place beyond: its square is that of a sure miss.
            beyond = np.where(codes == -2, 1.0, 0.0)[:, None]
            return np.asarray((((shares - truth) ** 2).sum(axis=2) + beyond) / 2.0)

        def miss(votes: Floats) -> Floats:
            # The weight of those who miss; it may leave the range in the last bit.
            return np.asarray(np.clip(1.0 - (votes * truth).sum(axis=2), 0.0, 1.0))

        somebody = np.asarray(awake.any(axis=1))
        stacked = self.stacks.run(members, awake, np.where(somebody, np.maximum(codes, -1), -1))
        experts = np.concatenate([members, stacked], axis=1)
        # A group predicts where one of its members does, and so do its stacks.
        groups = np.asarray((awake[:, None, :] & self.groups.members).any(axis=2))
        present = np.repeat(groups, stacked.shape[1] // groups.shape[1], axis=1)
        heard = np.concatenate([awake, present], axis=1)
        # A sum of products may exceed 1 in the last bit, which scikit-learn refuses.
        mixed = np.minimum(self.mixture.run(experts, heard, learned, brier), 1.0)
        voters = np.concatenate([experts, mixed], axis=1)
        votes = self.vote.run(_firm(voters), np.concatenate([heard, groups], axis=1), learned, miss)
        losses = np.where(awake & learned[:, None], brier(members), np.nan)
        voted = np.where(groups, np.nan_to_num(votes).argmax(axis=2), -1)
        served_losses = np.where(somebody & learned, brier(mixed)[:, 0], np.nan)
        return BlendedClasses(
            classes=tuple(self.classes),
            members=members,
            served=mixed[:, 0],
            voted=voted[:, 0],
            losses=losses,
            served_losses=served_losses,
            rest=mixed[:, -1],
            rest_voted=voted[:, -1],
        )

    def _table(self, answers: Sequence[Answer]) -> Floats:
        """One member's probabilities, shape (n, classes); NaN where it has none."""
        unknown = [np.nan] * len(self.classes)
        rows = [
            [answer.get(label, 0.0) for label in self.classes]
            if isinstance(answer, Mapping) and answer
            else unknown
            for answer in answers
        ]
        table = np.array(rows, dtype=np.float64).reshape(len(answers), len(self.classes))
        with np.errstate(invalid="ignore"):
            total = table.sum(axis=1, keepdims=True)
            valid = ((table >= 0.0) & (table <= _CEILING)).all(axis=1, keepdims=True)
            valid &= (total > 0.0) & (total < np.inf)
            return np.where(valid, table / np.where(valid, total, 1.0), np.nan)


class ValueBlend:
    """The blend of values; `champion` is as in `ClassBlend`."""

    def __init__(
        self,
        members: int,
        config: BlendConfig,
        measure: Measure,
        champion: int | None = None,
    ) -> None:
        self.members = members
        self.measure = measure
        quantile = measure.quantile if measure.name == "pinball" else 0.5
        self.groups = Groups(members, len(config.learning_rates), champion)
        self.stacks = ValueStacks(config.learning_rates, self.groups.members, quantile)
        self.mixture = Mixture(self.groups.experts, VALUE_RATES, VALUE_LAST_RATE)
        self._low, self._high = np.inf, -np.inf
        self._spread = 0.0
        self._seen = 0

    def track(self, measure: Measure) -> None:
        """Track the best by this measure from now on."""
        if measure != self.measure:
            # Its losses may have another unit.
            self.measure, self._spread, self._seen = measure, 0.0, 0

    @property
    def weights(self) -> Floats:
        """The present weight of each member and then of each stack, in the mixture."""
        return np.asarray(self.mixture.weights[0, self.groups.experts[0]])

    def run(self, answers: Floats, labels: Floats) -> BlendedValues:
        """Predict and then learn each of n records; a label of NaN is not learned.

        `answers` has the shape (n, members), `labels` (n,).
        """
        learned = ~np.isnan(labels)
        low = np.fmin.accumulate(np.concatenate([[self._low], labels]))
        high = np.fmax.accumulate(np.concatenate([[self._high], labels]))
        self._low, self._high = float(low[-1]), float(high[-1])
        low, high = low[:-1, None], high[:-1, None]
        open_range = low > high

        def cut(values: Floats) -> Floats:
            return np.asarray(np.where(open_range, values, np.clip(values, low, high)))

        awake = np.isfinite(answers)
        members = np.where(awake, cut(answers), np.nan)
        stacked = self.stacks.run(members, awake, labels)
        experts = np.concatenate([members, cut(stacked)], axis=1)
        awake = np.isfinite(experts)

        def loss(values: Floats) -> Floats:
            return self._loss(labels[:, None] - values[:, :, 0])

        # Before the first label nothing could be cut: such a loss may be of any size, and would be
        # the measure of all later ones.
        counted = awake & learned[:, None] & ~open_range
        losses = np.where(counted, self._loss(labels[:, None] - experts), np.nan)
        # How far apart they are is that of the members and stacks that are served.
        scale = self._scale(losses[:, self.groups.experts[0]], learned)
        mixed = self.mixture.run(experts[:, :, None], awake, learned, loss, scale)[:, :, 0]
        for place, group in enumerate(self.groups.experts):
            # A mean of equal values may differ from them in the last bit.
            own = experts[:, group]
            mixed[:, place] = np.clip(
                mixed[:, place], np.fmin.reduce(own, axis=1), np.fmax.reduce(own, axis=1)
            )
        return BlendedValues(members, mixed[:, 0], losses[:, : self.members], mixed[:, -1])

    def _loss(self, gaps: Floats) -> Floats:
        """The loss of predictions that are `gaps` below the labels."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self.measure.name in ("rmse", "r2"):
                found = gaps * gaps
            elif self.measure.name == "pinball":
                share = self.measure.quantile
                found = np.maximum(share * gaps, (share - 1.0) * gaps)
            else:
                found = np.abs(gaps)
        return np.minimum(found, _MOST)

    def _scale(self, losses: Floats, learned: Flags) -> Floats:
        """How far the losses were apart, in the mean of the records before; infinite: unknown."""
        scale = np.full(len(losses), np.inf)
        for index in range(len(losses)):
            if self._spread > 0.0:
                scale[index] = self._spread
            if not learned[index]:
                continue
            here = losses[index][np.isfinite(losses[index])]
            if len(here):
                self._seen += 1
                apart = float(here.max() - here.min())
                self._spread += (apart - self._spread) / min(self._seen, MEMORY)
        return scale


def _firm(experts: Floats) -> Floats:
    """Each expert's whole vote for its likeliest class, in the same shape."""
    firm = np.zeros_like(experts)
    likeliest = np.nan_to_num(experts).argmax(axis=2)
    np.put_along_axis(firm, likeliest[:, :, None], 1.0, axis=2)
    return firm


def _joined(
    parts: Sequence[BlendedClasses], classes: tuple[Label, ...], members: int
) -> BlendedClasses:
    """The parts as one; a class has the probability 0 before it was known."""

    def padded(table: Floats) -> Floats:
        missing = len(classes) - table.shape[-1]
        unknown = np.zeros((*table.shape[:-1], missing))
        if table.shape[-1]:
            unknown[np.isnan(table[..., 0])] = np.nan
        else:
            unknown[:] = np.nan
        return np.concatenate([table, unknown], axis=-1)

    if not parts:
        nobody, nothing, codes = np.empty((0, members)), np.empty(0), np.empty(0, np.intp)
        shares = np.empty((0, len(classes)))
        return BlendedClasses(
            classes,
            np.empty((0, members, len(classes))),
            shares,
            codes,
            nobody,
            nothing,
            shares,
            codes,
        )
    return BlendedClasses(
        classes,
        np.concatenate([padded(part.members) for part in parts]),
        np.concatenate([padded(part.served) for part in parts]),
        np.concatenate([part.voted for part in parts]),
        np.concatenate([part.losses for part in parts]),
        np.concatenate([part.served_losses for part in parts]),
        np.concatenate([padded(part.rest) for part in parts]),
        np.concatenate([part.rest_voted for part in parts]),
    )
