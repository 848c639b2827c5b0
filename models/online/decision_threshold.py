"""Chooses the probability from which the rarer of two classes is predicted.

Pure computation. For metrics that depend on it (F1, balanced accuracy), the threshold is the best
one on the newest labelled predictions, each of which was made before its label was known. For
other metrics, the likeliest class is predicted. Only records are counted, and no time, so that a
resumed run decides exactly like an uninterrupted one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from models.core import metrics
from models.core.metrics import Measure
from models.core.prediction import Answer
from models.core.record_schema import Label
from models.online.prediction_rows import MemberRows
from observability.core.decision import Decision

RECENT = 5_000
"""Labelled predictions that a threshold is chosen on."""
EVERY = 250
"""Records between two choices."""
FEWEST = 5
"""Predictions of each class, among the recent ones, below which nothing is chosen."""
LEAST_SKILL = 0.1
"""Least skill of a threshold (see `metrics.ThresholdResult`); below it, the likeliest class is
served."""
FAR = 0.1
"""A threshold that moved this far is reported."""


class Threshold:
    """Decides the served class; learns from labels if the metric depends on the threshold."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.value = measure.threshold
        """Probability of `rarer` from which it is served; None: the likeliest class is served."""
        self.rarer: Label | None = None
        """The rarer of two classes so far; None if there are not exactly two."""
        self.reported = self.value
        """The threshold that was reported last."""
        self._counts: dict[Label, int] = {}
        self._recent: deque[tuple[float, bool]] = deque(maxlen=RECENT)
        """Probability of the first class of the stream, and whether the label was that class."""
        self._learned = 0

    def decide(self, answer: Answer, likeliest: Label | None) -> Label | None:
        """The class that is served for `answer`; `likeliest` is its likeliest class."""
        if self.value is None or self.rarer is None or not isinstance(answer, Mapping):
            return likeliest
        if likeliest is None:
            return None
        if answer.get(self.rarer, 0.0) >= self.value:
            return self.rarer
        return next(label for label in self._counts if label != self.rarer)

    def serve(
        self,
        rows: MemberRows,
        labels: Sequence[Label | None],
        decided: Collection[int] = (),
    ) -> None:
        """Decide the class of each record in place, and learn its label; None is not learned.

        The class was `decided` already at these places.
        """
        whole = rows.whole
        assert whole is not None
        assert whole.probabilities is not None
        shares = whole.probabilities.tolist()
        for index, (likeliest, label) in enumerate(zip(rows.predicted, labels, strict=True)):
            answer = None
            if likeliest is not None:
                answer = dict(zip(whole.labels, shares[index], strict=True))
                served = likeliest if index in decided else self.decide(answer, likeliest)
                if served is not None and served != likeliest:
                    rows.predicted[index] = served
                    rows.probabilities[index] = answer.get(served, 0.0)
            if label is not None:
                self.learn(answer, label)

    def moved(self) -> Decision:
        """Has the threshold moved, by 0.1 or by a factor of 2 in odds, since the last report?"""
        before, now = (0.5 if each is None else each for each in (self.reported, self.value))
        far = self.value != self.reported and (
            abs(now - before) >= FAR or abs(_log_odds(now) - _log_odds(before)) >= math.log(2)
        )
        was = (
            "where it is the likelier" if self.reported is None else f"from {self.reported:.3g} on"
        )
        served = (
            "where it is the likelier"
            if self.value is None
            else f"from a probability of {self.value:.3g} on"
        )
        return Decision(
            question="threshold",
            yes=far,
            because=f"the class {self.rarer!r} is served {served}, before {was}: that is best for "
            f"{self.measure.name} on the newest labelled predictions",
            facts={"threshold": self.value, "before": self.reported, "metric": self.measure.name},
        )

    def learn(self, answer: Answer, label: Label) -> None:
        """Learn the label of the record that was decided last."""
        self._counts[label] = self._counts.get(label, 0) + 1
        self._learned += 1
        if self._learned % EVERY == 0 or self._counts[label] == 1:
            self.rarer = metrics.positive(self._counts)
        if self.measure.threshold is not None:
            return
        first = next(iter(self._counts))
        if isinstance(answer, Mapping):
            self._recent.append((float(answer.get(first, 0.0)), label == first))
        if self._learned % EVERY:
            return
        if self.rarer is None:
            self.value = None
            return
        turned = self.rarer != first
        shares = [1.0 - share if turned else share for share, _ in self._recent]
        truth = [is_first != turned for _, is_first in self._recent]
        fewer = min(sum(truth), len(truth) - sum(truth))
        best = metrics.best_threshold(truth, shares, self.measure.name) if fewer >= FEWEST else None
        # With uninformative probabilities, F1 is largest if every record is predicted as the rarer
        # class: such a threshold has no skill.
        self.value = best.at if best is not None and best.skill >= LEAST_SKILL else None


def _log_odds(probability: float) -> float:
    bounded = min(max(probability, 1e-9), 1.0 - 1e-9)
    return math.log(bounded / (1.0 - bounded))


def start(measure: Measure) -> Threshold | None:
    """A new threshold; None if the likeliest class is always served."""
    return Threshold(measure) if measure.task == "classification" and measure.cuts else None
