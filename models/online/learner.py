"""What learns record by record, in one piece: online member, baseline, blend, tripwire, tallies.

Maths: no disk, no clock. One object is checkpointed whole, so that what it has learned and what it
has counted can never disagree. `learn` goes through one batch of positions; the same records in the
same order always leave the same learner and the same log.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.core import metrics, scoring
from models.core.metrics import Measure
from models.core.prediction import Answer, BatchPrediction
from models.core.record_schema import Features, Label, Task
from models.online import decision_threshold, novelty, prequential, stacking
from models.online.decision_threshold import Threshold
from models.online.naive_baseline import NoChange
from models.online.online_model import OnlineMember
from models.online.stacking import BlendConfig

MEMBERS = ("online", "batch", "baseline")
"""Whose predictions enter the blend, in its order."""

FIRST_WEIGHTS = (1.0, 0.0, 0.0)
"""The online member is trusted at first; the others earn their say."""


class RecordRefused(Exception):
    """A model raised while it learned a record: the learner is spoilt and must be restored.

    river's `learn_one` is not atomic, so the caller goes back to its checkpoint and goes through
    the batch again without this record.
    """

    def __init__(self, index: int, cause: BaseException) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.index = index


@dataclass
class Tally:
    """How often a member answered, and how well: hits for classes, absolute errors for values."""

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


@dataclass
class PredictionRows:
    """What was predicted over one batch, a list entry per record; a label is None where there is
    none yet."""

    labels: list[Label | None] = field(default_factory=list)
    predicted: dict[str, list[Label | None]] = field(
        default_factory=lambda: {name: [] for name in (*MEMBERS, "served")}
    )
    probabilities: dict[str, list[float | None]] = field(
        default_factory=lambda: {name: [] for name in (*MEMBERS, "served")}
    )
    answers: dict[str, list[Answer]] = field(
        default_factory=lambda: {name: [] for name in (*MEMBERS, "served")}
    )
    """Whole, for the scores of the batch; the log on disk has the likeliest alone."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def learned(self) -> int:
        """Records that had a label, and were learned."""
        return len(self.labels) - self.labels.count(None)

    def labelled(self) -> PredictionRows:
        """The log of those records alone that have a label."""
        kept = [index for index, label in enumerate(self.labels) if label is not None]
        if len(kept) == len(self.labels):
            return self
        return PredictionRows(
            [self.labels[index] for index in kept],
            {name: [each[index] for index in kept] for name, each in self.predicted.items()},
            {name: [each[index] for index in kept] for name, each in self.probabilities.items()},
            {name: [each[index] for index in kept] for name, each in self.answers.items()},
        )

    def add(self, label: Label | None, *answers: Answer) -> None:
        """One more record; answers in the members' order, then what was served."""
        self.labels.append(label)
        for answer, predicted, probabilities, whole in zip(
            answers,
            self.predicted.values(),
            self.probabilities.values(),
            self.answers.values(),
            strict=True,
        ):
            best, probability = _best(answer)
            predicted.append(best)
            probabilities.append(probability)
            whole.append(answer)

    def serve(self, cut: Threshold, answer: Answer) -> None:
        """Let the threshold decide what was served for the record that was added last."""
        predicted, probabilities = self.predicted["served"], self.probabilities["served"]
        decided = cut.decide(answer, predicted[-1])
        if decided != predicted[-1] and decided is not None and isinstance(answer, Mapping):
            predicted[-1], probabilities[-1] = decided, answer.get(decided, 0.0)


class Learner:
    """The part of a pipeline that changes with every record."""

    def __init__(
        self,
        online: OnlineMember,
        task: Task,
        rules: BlendConfig,
        detector_delta: float,
        measure: Measure | None = None,
    ) -> None:
        from river import drift

        self.task = task
        self.online = online
        self.baseline = NoChange(task)
        self.blend = stacking.start(task, FIRST_WEIGHTS, rules)
        self.drift_detector: Any = drift.ADWIN(delta=detector_delta)
        self.drift_detected = False
        """Whether the served error has risen since the last look; the looker clears it."""
        self.novelty = novelty.Novelty(task)
        self.tallies = {name: Tally() for name in (*MEMBERS, "served")}
        self._spread = Tally()
        self.judge_by(measure or metrics.measure("auto", task))

    def judge_by(self, measure: Measure) -> None:
        """Count by this measure from now on, and decide as it asks; nothing learned is lost."""
        self.measure = measure
        self.judged = {name: prequential.start(measure) for name in (*MEMBERS, "served")}
        self.threshold = decision_threshold.start(measure)

    def learn(
        self,
        rows: Sequence[Features],
        labels: Sequence[Label | None],
        batch: BatchPrediction | None,
        stop: Callable[[], bool] = bool,
    ) -> PredictionRows:
        """Predict and then learn each record; returns what was predicted.

        A record whose label is None is predicted, and neither learned nor scored: what comes after
        it is answered as if it had not come. `batch` is the champion's prediction for `rows`, or
        None while there is no champion. Where `stop` says yes, the rest of the records is left
        alone: the log is as long as what was gone through. Raises RecordRefused where a model
        raises; the learner is spoilt then.
        """
        by_online = self._by_online(rows, labels, stop)
        done = len(by_online)
        by_batch = _batch_answers(batch, len(rows))[:done]
        log = self._blended(labels[:done], by_online, by_batch)
        for name in log.predicted:
            self._count(name, log)
        return log

    def _by_online(
        self, rows: Sequence[Features], labels: Sequence[Label | None], stop: Callable[[], bool]
    ) -> list[Answer]:
        """The online member goes first, alone: it needs none of the others' answers.

        One loop that does it all was a sixth slower: a tree's code drives the blend's out of
        the processor's cache with every record.
        """
        member = self.online
        answers: list[Answer] = []
        for index, (record, label) in enumerate(zip(rows, labels, strict=True)):
            if stop():
                break
            try:
                answers.append(member.predict(record))
                if label is not None:
                    member.learn(record, label)
            except MemoryError:
                # The machine's fault and not the record's: nothing is rejected for it.
                raise
            except (Exception, SystemExit) as error:
                raise RecordRefused(index, error) from error
        return answers

    def _blended(
        self,
        labels: Sequence[Label | None],
        by_online: Sequence[Answer],
        by_batch: Sequence[Answer],
    ) -> PredictionRows:
        log = PredictionRows()
        baseline, blended, cut = self.baseline, self.blend, self.threshold
        for label, online, batch in zip(labels, by_online, by_batch, strict=True):
            unchanged = baseline.predict()
            served = blended.predict((online, batch, unchanged))
            if label is not None:
                baseline.learn(label)
                blended.learn(label)
                self.novelty.learn(label)
            log.add(label, online, batch, unchanged, served)
            if cut is not None:
                log.serve(cut, served)
                if label is not None:
                    cut.learn(served, label)
        return log

    def _count(self, name: str, log: PredictionRows) -> None:
        tally, judged = self.tallies[name], self.judged[name]
        for whole, answer, label in zip(
            log.answers[name], log.predicted[name], log.labels, strict=True
        ):
            if answer is None or label is None:
                continue
            score = scoring.point(self.task, answer, label)
            tally.add(score)
            judged.add(whole, answer, label)
            if name == "served":
                self._watch(score)

    def _watch(self, score: float) -> None:
        """Feed the tripwire an error between 0 and 1."""
        if self.task == "classification":
            error = 1.0 - score
        else:
            # ADWIN's bound holds for errors in [0, 1]: 4 times the usual error counts as 1.
            self._spread.add(score)
            usual = self._spread.mean or 0.0
            error = min(1.0, score / (4.0 * usual)) if usual > 0.0 else 0.0
        before = self.drift_detector.estimation
        self.drift_detector.update(error)
        # ADWIN hears an error that falls as well: a learner that gets better is no alarm.
        if self.drift_detector.drift_detected and self.drift_detector.estimation > before:
            self.drift_detected = True


def _batch_answers(batch: BatchPrediction | None, count: int) -> Sequence[Answer]:
    if batch is None:
        return [None] * count
    if batch.probabilities is None:
        return [float(value) for value in batch.values]
    classes = batch.labels
    return [dict(zip(classes, row, strict=True)) for row in batch.probabilities.tolist()]


def _best(answer: Answer) -> tuple[Label | None, float | None]:
    """The predicted label and the probability given to it; (value, None) in regression."""
    if not isinstance(answer, Mapping):
        return (answer if answer is not None and math.isfinite(answer) else None), None
    best: Label | None = None
    highest = -1.0
    for label, probability in answer.items():
        # river keeps classes in sets, whose order differs from process to process.
        tie = probability == highest and best is not None and _before(label, best)
        if probability > highest or tie:
            best, highest = label, probability
    if best is None:
        return None, None
    # river's binary models answer True and False: these are the classes 1 and 0.
    return (int(best) if isinstance(best, bool) else best), highest


def _before(label: Label, other: Label) -> bool:
    return (str(type(label)), label) < (str(type(other)), other)
