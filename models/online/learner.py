"""The learner, one object: online member, baseline, blend, error tests and tallies.

Pure computation: no disk, no clock. The object is checkpointed as a whole, so that its models and
its counters always agree. `learn` processes one batch of positions; the same records in the same
order always give the same learner and the same log.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from models.core import metrics, scoring
from models.core.metrics import Measure
from models.core.prediction import Answer, BatchPrediction
from models.core.record_schema import Features, Label, Task
from models.online import decision_threshold, novelty, prequential, stacking
from models.online.decision_threshold import Threshold
from models.online.naive_baseline import NoChange
from models.online.online_model import OnlineMember
from models.online.stacking import BlendConfig
from observability.drift.error_monitor import ErrorMonitor

MEMBERS = ("online", "batch", "baseline")
"""The members whose predictions enter the blend, in its order."""

FIRST_WEIGHTS = (1.0, 0.0, 0.0)
"""The blend begins with the online member alone; the other weights are learned."""


class RecordRefused(Exception):
    """A model raised while it learned a record: the learner is invalid and must be restored.

    river's `learn_one` is not atomic, so the caller goes back to its checkpoint and processes the
    batch again without this record.
    """

    def __init__(self, index: int, cause: BaseException) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.index = index


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


@dataclass
class PredictionRows:
    """The predictions for one batch, a list entry per record; a label is None if not yet known."""

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
    """All probabilities, for the scores of the batch; the log on disk has the likeliest only."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def learned(self) -> int:
        """How many records had a label and were learned."""
        return len(self.labels) - self.labels.count(None)

    def labelled(self) -> PredictionRows:
        """The log of the records that have a label."""
        known = [index for index, label in enumerate(self.labels) if label is not None]
        if len(known) == len(self.labels):
            return self
        return PredictionRows(
            [self.labels[index] for index in known],
            {name: [each[index] for index in known] for name, each in self.predicted.items()},
            {name: [each[index] for index in known] for name, each in self.probabilities.items()},
            {name: [each[index] for index in known] for name, each in self.answers.items()},
        )

    def add(self, label: Label | None, *answers: Answer) -> None:
        """Add a record; answers in the members' order, then the served one."""
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
        """Let the threshold decide what is served for the record that was added last."""
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
        errors: ErrorMonitor | None = None,
        measure: Measure | None = None,
    ) -> None:
        self.task = task
        self.online = online
        self.baseline = NoChange(task)
        self.blend = stacking.start(task, FIRST_WEIGHTS, rules)
        self.errors = errors or ErrorMonitor(bounded=task == "classification")
        """Whether the errors of any member have risen; a drift check looks at it."""
        self.novelty = novelty.Novelty(task)
        self.tallies = {name: Tally() for name in (*MEMBERS, "served")}
        self.judge_by(measure or metrics.measure("auto", task))

    def judge_by(self, measure: Measure) -> None:
        """Use this measure from now on, with new counts; the models are unchanged."""
        self.measure = measure
        self.judged = {name: prequential.start(measure) for name in (*MEMBERS, "served")}
        self.threshold = decision_threshold.start(measure)

    def learn(
        self,
        rows: Sequence[Features],
        labels: Sequence[Label | None],
        batch: BatchPrediction | None,
        stop: Callable[[], bool] = bool,
        positions: Sequence[int] = (),
    ) -> PredictionRows:
        """Predict and then learn each record; returns what was predicted.

        A record whose label is None is predicted, and neither learned nor scored: it does not
        change later predictions. `batch` is the champion's prediction for `rows`, or None if there
        is no champion. When `stop` returns true, the remaining records are left out, and the log
        is shorter. `positions` are those of the rows; without them the records came too late for
        their place, and their errors are no evidence of a change. Raises RecordRefused where a
        model raises; the learner is invalid then.
        """
        # The online member goes first, alone, since it needs no other answers. One loop for all
        # was a sixth slower: with every record, the tree's code displaces that of the blend from
        # the processor's cache.
        member = self.online
        by_online: list[Answer] = []
        for index, (record, label) in enumerate(zip(rows, labels, strict=True)):
            if stop():
                break
            try:
                by_online.append(member.predict(record))
                if label is not None:
                    member.learn(record, label)
            except MemoryError:
                # The machine's fault and not the record's, which is not rejected for it.
                raise
            except (Exception, SystemExit) as error:
                raise RecordRefused(index, error) from error
        done = len(by_online)
        by_batch: Sequence[Answer] = [None] * done if batch is None else batch.answers(done)
        log = PredictionRows()
        baseline, blended, cut = self.baseline, self.blend, self.threshold
        for label, online, champion in zip(labels[:done], by_online, by_batch, strict=True):
            unchanged = baseline.predict()
            served = blended.predict((online, champion, unchanged))
            if label is not None:
                baseline.learn(label)
                blended.learn(label)
                self.novelty.learn(label)
            log.add(label, online, champion, unchanged, served)
            if cut is not None:
                log.serve(cut, served)
                if label is not None:
                    cut.learn(served, label)
        for name in log.predicted:
            tally, judged = self.tallies[name], self.judged[name]
            rows_of = zip(log.answers[name], log.predicted[name], log.labels, strict=True)
            for whole, answer, label in rows_of:
                if answer is None or label is None:
                    continue
                tally.add(scoring.point(self.task, answer, label))
                judged.add(whole, answer, label)
        if positions:
            self._test_errors(positions, log)
        return log

    def _test_errors(self, positions: Sequence[int], log: PredictionRows) -> None:
        """Let the tests hear what each member's answers cost, where a label is known."""
        labels = {index: label for index, label in enumerate(log.labels) if label is not None}
        losses = {
            name: [
                scoring.loss(self.task, answers[index], label) for index, label in labels.items()
            ]
            for name, answers in log.answers.items()
        }
        self.errors.observe([positions[index] for index in labels], losses)


def _best(answer: Answer) -> tuple[Label | None, float | None]:
    """The predicted label and its probability; (value, None) in regression."""
    if not isinstance(answer, Mapping):
        return (answer if answer is not None and math.isfinite(answer) else None), None
    best: Label | None = None
    highest = -1.0
    for label, probability in answer.items():
        # river keeps classes in sets, whose order differs from process to process: of equal
        # probabilities, the first class in sorted order wins.
        tie = probability == highest and best is not None
        if probability > highest or (tie and (str(type(label)), label) < (str(type(best)), best)):
            best, highest = label, probability
    if best is None:
        return None, None
    # river's binary models answer True and False: these are the classes 1 and 0.
    return (int(best) if isinstance(best, bool) else best), highest
