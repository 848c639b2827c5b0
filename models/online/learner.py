"""The learner, one object: members, baselines, blend, error tests and tallies.

Pure computation: no disk, no clock. The object is checkpointed as a whole, so that its models and
its counters always agree. `learn` processes one batch of positions; the same records in the same
order always give the same learner and the same log.

A record that a service was asked about before its label was known is scored by what was answered
then: by every member, and of what was served. The models of now only learn it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.core import metrics, scoring
from models.core.answered import Answered
from models.core.metrics import Measure
from models.core.prediction import Answer, BatchPrediction, GivenAnswers
from models.core.record_schema import Features, Label, Task
from models.online import decision_threshold, novelty, prediction_rows, prequential
from models.online.blend import BlendConfig, ClassBlend, ValueBlend
from models.online.calibration import Reliability
from models.online.champion_value import ChampionValue
from models.online.learning_health import Divergence
from models.online.naive_baseline import NoChange, RecentMedian
from models.online.online_model import OnlineMember, OnlineMembers
from models.online.prediction_rows import PredictionRows
from models.online.tracking import Floats
from observability.drift.error_monitor import ErrorMonitor

ONLINE = "online"
"""The online member with the smallest loss over the last records, for each record."""
BATCH, BASELINE, MEDIAN, SERVED = "batch", "baseline", "median", "served"
RECENT = 200
"""Records over which the recent loss of a member is weighted, exponentially."""


def names(online: Sequence[str], task: Task) -> tuple[str, ...]:
    """Everybody who is scored: what is served, the best online member, and then the members."""
    naive = (BASELINE,) if task == "classification" else (BASELINE, MEDIAN)
    return (SERVED, ONLINE, *online, BATCH, *naive)


@dataclass
class Tally:
    """Count and total score of a member: hits for classes, absolute errors for values."""

    count: int = 0
    total: float = 0.0

    def add(self, value: float) -> None:
        """One more scored record."""
        self.count += 1
        self.total += value

    @property
    def mean(self) -> float | None:
        """Accuracy, or mean absolute error; None before the first answer."""
        return self.total / self.count if self.count else None


class RecentLosses:
    """The exponentially weighted mean loss of each member over about `RECENT` records."""

    def __init__(self, members: int) -> None:
        self._sums = np.zeros((2, members))
        """Of the weighted losses, and of their weights."""

    def run(self, losses: Floats) -> Floats:
        """The mean before each of n records and after the last, shape (n + 1, members).

        `losses` has the shape (n, members), with NaN where unknown. A mean of nothing is infinite.
        A record of which no loss is known changes nothing: otherwise a hundred thousand records
        without labels would round all weights to zero.
        """
        known = np.isfinite(losses)
        any_known: list[bool] = np.any(known, axis=1).tolist()
        added = np.stack([np.where(known, losses, 0.0), known], axis=1) / RECENT
        sums = np.empty((len(losses) + 1, *self._sums.shape))
        sums[0] = self._sums
        for index in range(len(losses)):
            kept = 1.0 - 1.0 / RECENT if any_known[index] else 1.0
            sums[index + 1] = sums[index] * kept + added[index]
        self._sums = sums[-1].copy()
        total, weight = sums[:, 0], sums[:, 1]
        return np.where(weight > 0.0, total / np.where(weight > 0.0, weight, 1.0), np.inf)


class Learner:
    """The part of a pipeline that changes with every record."""

    def __init__(
        self,
        online: OnlineMembers,
        task: Task,
        config: BlendConfig,
        errors: ErrorMonitor | None = None,
        measure: Measure | None = None,
    ) -> None:
        self.task = task
        self.online = online
        measure = measure or metrics.measure("auto", task)
        self.baseline = NoChange(task)
        quantile = measure.quantile if measure.name == "pinball" else 0.5
        self.median = RecentMedian(quantile) if task == "regression" else None
        count, champion = len(self.members), self.members.index(BATCH)
        self.blend: ClassBlend | ValueBlend = (
            ClassBlend(count, config, champion)
            if task == "classification"
            else ValueBlend(count, config, measure, champion)
        )
        self.champion_value = ChampionValue()
        """What the blend loses with the champion that serves now, and without it."""
        self.recent = RecentLosses(count)
        self.reliability = Reliability() if task == "classification" else None
        """Of what is served; None in regression."""
        self.divergences = {name: Divergence() for name in online.members}
        self.errors = errors or ErrorMonitor(bounded=task == "classification")
        """Whether the errors of any member have risen; a drift check looks at it."""
        self.novelty = novelty.Novelty(task)
        self.tallies = {name: Tally() for name in self.names}
        self.judge_by(measure)

    @property
    def members(self) -> tuple[str, ...]:
        """The members whose predictions enter the blend, in its order."""
        return names(tuple(self.online.members), self.task)[2:]

    @property
    def names(self) -> tuple[str, ...]:
        """Everybody who is scored: what is served, the best online member, and the members."""
        return names(tuple(self.online.members), self.task)

    def judge_by(self, measure: Measure) -> None:
        """Use this measure from now on, with new counts; the online members are unchanged."""
        self.measure = measure
        if isinstance(self.blend, ValueBlend):
            self.blend.track(measure)
        self.champion_value.begin_anew()
        self.judged = {name: prequential.start(measure) for name in self.names}
        self.threshold = decision_threshold.start(measure)

    def replace(self, name: str, member: OnlineMember, position: int) -> None:
        """Begin this online member anew, from `position` on."""
        member.since = position
        self.online.members[name] = member
        self.divergences[name].begin_anew()
        self.errors.reset(name, position)

    def learn(
        self,
        rows: Sequence[Features],
        labels: Sequence[Label | None],
        batch: BatchPrediction | None,
        stop: Callable[[], bool] = bool,
        positions: Sequence[int] = (),
        given: Sequence[GivenAnswers | None] = (),
        champion: str | None = None,
    ) -> PredictionRows:
        """Predict and then learn each record; returns what was predicted.

        A record whose label is None is predicted, and neither learned nor scored: it does not
        change later predictions. `batch` is the champion's prediction for `rows`, or None if there
        is no champion. When `stop` returns true, the remaining records are left out, and the log
        is shorter. `positions` are those of the rows; without them the records came too late for
        their place, and their errors are no evidence of a change.

        `given` is what a service answered for each record when it was asked (None, or nothing at
        all: it was not). That is logged and scored then; who did not answer sleeps. The errors of
        the champion are those of the version `champion` alone. Raises RecordRefused where a model
        raises; the learner is invalid then.
        """
        online = self.online.run(rows, labels, stop)
        done = len(next(iter(online.values())))
        labels = labels[:done]
        if not done:
            # Rejects alone leave no trace, not even an equal array in another place.
            return prediction_rows.nothing(self.names)
        answered = Answered(given[:done], self.members, self._since(), champion)
        log = (
            self._learn_classes(online, labels, batch, positions, answered)
            if isinstance(self.blend, ClassBlend)
            else self._learn_values(online, labels, batch, positions, answered)
        )
        for label in labels:
            if label is not None:
                self.novelty.learn(label)
        self._score(log)
        return log

    def _since(self) -> dict[str, int]:
        """From which position on each online member is the model that it is now."""
        return {name: member.since for name, member in self.online.members.items()}

    def _learn_classes(
        self,
        online: dict[str, list[Answer]],
        labels: Sequence[Label | None],
        batch: BatchPrediction | None,
        positions: Sequence[int],
        answered: Answered,
    ) -> PredictionRows:
        assert isinstance(self.blend, ClassBlend)
        champion: list[Answer] = [None] * len(labels)
        if batch is not None:
            champion = batch.answers(len(labels))
        answers = answered.heard([*online.values(), champion, self.baseline.run(labels)])
        blended = self.blend.run(answers, labels)
        leaders = self._leaders(blended.losses, len(online))
        log, classes = PredictionRows([*labels]), blended.classes
        log.by[SERVED] = prediction_rows.of_classes(blended.served, classes, blended.voted)
        best = np.take_along_axis(blended.members, leaders[:, None, None], axis=1)[:, 0]
        log.by[ONLINE] = prediction_rows.of_classes(best, classes)
        for index, name in enumerate(self.members):
            log.by[name] = prediction_rows.of_classes(blended.members[:, index], classes)
        log.rest = prediction_rows.of_classes(blended.rest, classes, blended.rest_voted)
        log.put(answered)
        self._value_champion(log, answered)
        self._test_errors(positions, blended.losses, blended.served_losses, log, answered)
        if self.threshold is not None:
            self.threshold.serve(log.by[SERVED], labels, answered.places)
        return log

    def _learn_values(
        self,
        online: dict[str, list[Answer]],
        labels: Sequence[Label | None],
        batch: BatchPrediction | None,
        positions: Sequence[int],
        answered: Answered,
    ) -> PredictionRows:
        assert isinstance(self.blend, ValueBlend)
        assert self.median is not None
        known = np.array(
            [np.nan if label is None else float(label) for label in labels], dtype=np.float64
        )
        count = len(labels)
        columns = answered.heard(
            [
                *online.values(),
                [None] * count if batch is None else batch.answers(count),
                self.baseline.run(labels),
                self.median.run(known).tolist(),
            ]
        )
        answers = np.array(
            [
                [float(each) if isinstance(each, (int, float)) else np.nan for each in column]
                for column in columns
            ],
            dtype=np.float64,
        ).reshape(len(columns), count)
        blended = self.blend.run(answers.T, known)
        gaps = np.abs(blended.members - known[:, None])
        leaders = self._leaders(blended.losses, len(online))
        log = PredictionRows([*labels])
        log.by[SERVED] = prediction_rows.of_values(blended.served)
        best = np.take_along_axis(blended.members, leaders[:, None], axis=1)[:, 0]
        log.by[ONLINE] = prediction_rows.of_values(best)
        for index, name in enumerate(self.members):
            log.by[name] = prediction_rows.of_values(blended.members[:, index])
        log.rest = prediction_rows.of_values(blended.rest)
        log.put(answered)
        self._test_errors(positions, gaps, np.abs(blended.served - known), log, answered)
        self._value_champion(log, answered)
        return log

    def _value_champion(self, log: PredictionRows, answered: Answered) -> None:
        """Let the champion's value hear what was lost with it, and would have been without it."""
        assert log.rest is not None
        by = {
            "served": log.by[SERVED],
            "rest": log.rest,
            "champion": log.by[BATCH],
        }
        labels = [*log.labels]
        for place in answered.other_champion:
            labels[place] = None
        self.champion_value.learn(labels, by, self.measure)

    def _leaders(self, losses: Floats, online: int) -> NDArray[np.intp]:
        """The online member with the smallest recent loss before each record, by its place.

        Updates the recent losses, and whether a member diverges: `losses` has the shape
        (n, members), with NaN where unknown.
        """
        recent = self.recent.run(losses)
        known = np.isfinite(losses).any(axis=1)
        naive = recent[1:, online + 1 :].min(axis=1)[known]
        for place, name in enumerate(self.online.members):
            self.divergences[name].learn(recent[1:, place][known], naive, self.task)
        return np.asarray(recent[:-1, :online].argmin(axis=1), dtype=np.intp)

    def _score(self, log: PredictionRows) -> None:
        """Add the labelled predictions to the tallies, the judged metric and the reliability."""
        for name, rows in log.by.items():
            scored = [
                index
                for index, (answered, label) in enumerate(
                    zip(rows.predicted, log.labels, strict=True)
                )
                if answered is not None and label is not None
            ]
            picked = rows if len(scored) == len(rows) else rows.at(scored)
            labels = [label for index in scored if (label := log.labels[index]) is not None]
            self.judged[name].add(picked, labels)
            if name == SERVED and self.reliability is not None:
                self.reliability.add(picked, labels)
            tally = self.tallies[name]
            for answered, label in zip(picked.predicted, labels, strict=True):
                if answered is None:
                    continue
                tally.add(scoring.point(self.task, answered, label))

    def _test_errors(
        self,
        positions: Sequence[int],
        losses: Floats,
        served: Floats,
        log: PredictionRows,
        answered: Answered,
    ) -> None:
        """Let the tests hear what each member's answers cost, and what was served.

        `losses` has the shape (n, members) and `served` (n,), with NaN where unknown; what was
        served when a service was asked costs what it did then.
        """
        if answered.places:
            losses, served = losses.copy(), served.copy()
            losses[answered.other_champion, self.members.index(BATCH)] = np.nan
            for place, given in answered.places.items():
                label, told = log.labels[place], given.members.get(SERVED)
                served[place] = np.nan
                if label is not None and told is not None:
                    served[place] = scoring.loss(self.task, told.answer, label)
        known = np.flatnonzero(np.isfinite(losses).any(axis=1))
        if not len(positions) or not len(known):
            return
        by_member = dict(zip(self.members, losses[known].T, strict=True))
        heard = {SERVED: served[known], **by_member}
        self.errors.observe(np.asarray(positions, dtype=np.int64)[known], heard)
