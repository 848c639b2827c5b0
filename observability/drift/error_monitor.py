"""Whose errors have risen: the tests of all members, and of the champion against each other one.

Pure. It is told the losses of every member, batch by batch, and never decides what follows: `drift`
does. Two kinds of evidence are kept apart, each with the false-alarm rate that is asked for:

- *errors*: the mean loss of a member is above its own reference. The champion's reference is its
  hold-out; that of a member that learns online, or that has no hold-out, is what it lost in the
  records before, first of all in its first ones.
- *relative errors*: the champion loses more than another member does on the same records, which it
  did not on its hold-out. A champion that a simpler model beats is stale, whatever became of its
  errors and of the features.

Each kind is one e-detector, a weighted mean of its tests (a mean of e-detectors is one): so
its rate does not depend on how many members there are. The champion has half of the weight of
`errors`, because a retrain replaces it alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from observability.drift import error_test
from observability.drift.error_test import Floats, Moments, RiseTest

ErrorKind = Literal["errors", "relative errors"]
KINDS: tuple[ErrorKind, ...] = ("errors", "relative errors")

CHAMPION = "batch"
"""The member that a retrain replaces."""
SERVED = "served"
"""The blend of all members: compared with its own past, and not with the champion inside it."""
FEWEST_REFERENCE = 100
"""Losses that a reference needs at least."""
BASELINES = ("baseline", "median")
"""No change, and the recent median. They learn nothing, so their own errors are no evidence; but a
champion beats them."""
REFERENCES_KEPT = 5
"""A member that learns online is compared with so many references' records before."""
OUTLIERS = 0.95
"""In regression the absolute error at this quantile of a reference counts as 1, like any larger."""
FADED = 0.1
"""Evidence that was enough stands until it has faded to this share of the threshold.

So that it is not found again and again while it fades.
"""
MOST_EVIDENCE = 100.0
"""Evidence grows up to so many thresholds, and fades from there when a rise is over."""


class ErrorFinding(BaseModel):
    """A mean loss that has risen, or a lead over the champion that has."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ErrorKind
    member: str
    against: str = Field(default="", description="The member that it was paired with; empty: none.")
    evidence: float = Field(description="The value of the member's e-detector now.")
    threshold: float = Field(
        description="What it reaches by chance once in so many records, at most."
    )
    seen_at: int = Field(description="Position at which the kind of evidence was enough.")
    change: int = Field(description="Position where the change is estimated to have begun.")
    mean_before: float = Field(description="The mean loss (or difference) of the reference.")
    mean_allowed: float = Field(description="Its upper confidence bound.")
    mean_now: float | None = Field(description="The mean since `change`; None: nothing is known.")
    records_now: int = Field(description="Losses since `change`.")

    @property
    def because(self) -> str:
        """A phrase with the numbers."""
        before, now = f"{self.mean_before:.4g}", f"{self.mean_now or 0.0:.4g}"
        since = f"over {self.records_now} records since position {self.change}"
        chance = f"by chance once in {self.threshold:g} records at most"
        if self.against:
            return (
                f"the loss of {self.member} less that of {self.against} went from {before} to "
                f"{now} {since} ({chance})"
            )
        return f"the mean loss of {self.member} went from {before} to {now} {since} ({chance})"


class _Recent:
    """The newest losses of all members, as they came; NaN is not known."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.positions = np.zeros(0, dtype=np.int64)
        self.losses: dict[str, Floats] = {}

    def add(self, positions: NDArray[np.int64], losses: Mapping[str, Floats]) -> None:
        before, new = len(self.positions), len(positions)
        self.positions = np.concatenate([self.positions, positions])[-self.most :]
        for name in dict.fromkeys([*self.losses, *losses]):
            parts = [
                part if part is not None else np.full(count, math.nan)
                for part, count in ((self.losses.get(name), before), (losses.get(name), new))
            ]
            self.losses[name] = np.concatenate(parts)[-self.most :]

    def since(self, name: str, position: int, most: int) -> Floats:
        """Of the newest `most` records, the losses of a member from `position` on."""
        of = self.losses.get(name, np.full(len(self.positions), math.nan))
        return np.where(self.positions >= position, of, math.nan)[-most:]

    def at(self, name: str, positions: NDArray[np.int64]) -> Floats:
        """The losses of a member at `positions`; NaN where they are not kept."""
        found = np.full(len(positions), math.nan)
        if name not in self.losses or not len(self.positions):
            return found
        places = np.searchsorted(self.positions, positions).clip(max=len(self.positions) - 1)
        kept = self.positions[places] == positions
        found[kept] = self.losses[name][places[kept]]
        return found


class ErrorMonitor:
    """Sequential tests of every member's losses. It is checkpointed with the models that it hears.

    Losses of classes are in [0, 1]; absolute errors of a regression have any size, and are counted
    in units of a reference's own. Between two false alarms of each kind are at least
    `false_alarm_records` records in the mean. A reference has `reference_records` losses where it
    is not a hold-out.
    """

    def __init__(
        self, *, bounded: bool, false_alarm_records: int = 20_000, reference_records: int = 1000
    ) -> None:
        self.bounded = bounded
        self.threshold = float(false_alarm_records)
        self.reference_records = reference_records
        self.seen = 0
        """Records until now."""
        self.position = 0
        """The next one's."""
        self.tests: dict[tuple[str, str], RiseTest] = {}
        """By member, and the one that it is paired with; empty: none."""
        self.scales: dict[str, float] = {}
        """The absolute error of each member that counts as 1."""
        self.began: dict[str, int] = {}
        """Position from which each member is the model that it is now."""
        self.standing: dict[ErrorKind, int] = {}
        """The kinds whose evidence is enough now, and since when."""
        self.fired: dict[ErrorKind, tuple[ErrorFinding, ...]] = {}
        """What was found since somebody looked, as it was when the evidence became enough."""
        self._recent = _Recent(3 * reference_records)

    def observe(
        self,
        positions: Sequence[int] | NDArray[np.int64],
        losses: Mapping[str, Sequence[float] | Floats],
    ) -> None:
        """Hear the losses of each member at `positions`, which ascend; NaN: it gave no answer.

        The same records lead to the same state, to the last bit, however they are batched.
        """
        places = np.asarray(positions, dtype=np.int64)
        heard = {name: np.asarray(each, dtype=np.float64) for name, each in losses.items()}
        for name in heard if len(places) else ():
            # Before the first answer of anybody there is nothing to hear.
            self.began.setdefault(name, int(places[0]))
        start = 0
        while start < len(places):
            until = start + self.reference_records - self.seen % self.reference_records
            part = {name: each[start:until] for name, each in heard.items()}
            self._hear(places[start:until], part)
            start = until

    def reset(
        self,
        member: str,
        position: int,
        reference_positions: Sequence[int] = (),
        reference_losses: Sequence[float] = (),
    ) -> None:
        """Forget what was known of a member: from `position` on another model answers in its name.

        The reference is what that model lost on rows that it did not learn from. Without one, it
        is compared with its first losses, once there are enough of them.
        """
        self.began[member] = position
        self.position = max(self.position, position)
        for pair in [pair for pair in self.tests if member in pair]:
            del self.tests[pair]
        for kind, findings in tuple(self.fired.items()):
            others = tuple(each for each in findings if member not in {each.member, each.against})
            self.fired[kind] = others
            if not others:
                del self.fired[kind]
        places = np.asarray(reference_positions, dtype=np.int64)
        losses = np.asarray(reference_losses, dtype=np.float64)
        self._begin(member, losses)
        if member == CHAMPION:
            for other in self._rivals():
                self._begin_pair(other, losses, self._recent.at(other, places))
        self._judge()

    def acknowledge(self) -> None:
        """Somebody looked. What stands is found again at the next look, and is not news until then.

        A member that learns online adapts to the change: it is compared with its next losses.
        """
        if "errors" in {*self.standing, *self.fired}:
            for (member, against), test in tuple(self.tests.items()):
                if not against and member != CHAMPION and test.evidence >= self.threshold:
                    del self.tests[member, against]
                    self.began[member] = self.position
        self.fired = {}
        self._judge()

    def evidence(self) -> tuple[ErrorFinding, ...]:
        """Return what stands now or was found since somebody looked, the strongest first."""
        findings: list[ErrorFinding] = []
        for kind in KINDS:
            if kind in self.standing:
                findings += self._findings(kind)
            else:
                findings += self.fired.get(kind, ())
        return tuple(sorted(findings, key=lambda found: (-found.evidence, found.member)))

    def untested(self) -> tuple[str, ...]:
        """Return the members that have no reference yet, so that nothing is known of a rise."""
        return tuple(sorted(each for each in self._tested() if (each, "") not in self.tests))

    def _hear(self, positions: NDArray[np.int64], heard: Mapping[str, Floats]) -> None:
        if pairs := [pair for pair in self.tests if {*pair} - {""} <= heard.keys()]:
            losses = np.stack([self._losses(pair, heard) for pair in pairs], axis=1)
            before = {pair: copy.copy(self.tests[pair]) for pair in pairs}
            tests, most = [self.tests[pair] for pair in pairs], MOST_EVIDENCE * self.threshold
            course = error_test.observe(tests, positions, losses, most)
            enough = self._enough(len(positions), dict(zip(pairs, course.T, strict=True)))
            changes = [
                np.flatnonzero(each != (kind in self.standing)) for kind, each in enough.items()
            ]
            first = min((int(each[0]) for each in changes if len(each)), default=len(positions))
            if first + 1 < len(positions):
                # What is found is kept as it is at that record, so hear only up to it, then the
                # rest.
                self.tests.update(before)
                for part in (slice(0, first + 1), slice(first + 1, None)):
                    rest = {name: each[part] for name, each in heard.items()}
                    self._hear(positions[part], rest)
                return
            for kind, each in enough.items():
                self._latch(kind, int(positions[-1]), is_enough=bool(each[-1]))
        self._recent.add(positions, heard)
        self.seen += len(positions)
        self.position = int(positions[-1]) + 1
        if self.seen % self.reference_records == 0:
            self._refer()

    def _enough(
        self, records: int, courses: Mapping[tuple[str, str], Floats]
    ) -> dict[ErrorKind, NDArray[np.bool_]]:
        """After which records the evidence of each kind is enough to be found, or to stand."""
        found = {}
        for kind in KINDS:
            whole = np.zeros(records)
            for pair, weight in self._weights(kind).items():
                whole += weight * courses.get(pair, self.tests[pair].evidence)
            found[kind] = whole >= self.threshold * (FADED if kind in self.standing else 1.0)
        return found

    def _latch(self, kind: ErrorKind, position: int, *, is_enough: bool) -> None:
        """Keep whether the evidence of a kind is enough now; what is found then, until a look."""
        if not is_enough:
            self.standing.pop(kind, None)
        elif kind not in self.standing:
            self.standing[kind] = position
            self.fired.setdefault(kind, self._findings(kind))

    def _judge(self) -> None:
        """Take back what no longer stands, after tests have gone."""
        for kind in tuple(self.standing):
            if not self._enough(1, {})[kind][0]:
                del self.standing[kind]

    def _weights(self, kind: ErrorKind) -> dict[tuple[str, str], float]:
        """The weight of each test in the mean that is this kind of evidence."""
        pairs = [pair for pair in self.tests if bool(pair[1]) is (kind == "relative errors")]
        champion = (CHAMPION, "")
        others = len(pairs) - (champion in pairs)
        if not others or champion not in pairs:
            return {pair: 1.0 / len(pairs) for pair in pairs}
        return {pair: 0.5 if pair == champion else 0.5 / others for pair in pairs}

    def _tested(self) -> list[str]:
        """The members whose own errors are tested."""
        return [name for name in self.began if name not in BASELINES]

    def _rivals(self) -> list[str]:
        """The members that the champion is compared with."""
        return [name for name in self.began if name not in {CHAMPION, SERVED}]

    def _losses(self, pair: tuple[str, str], heard: Mapping[str, Floats]) -> Floats:
        member, against = pair
        if not against:
            return self._scaled(heard[member], member)
        return self._lead(heard[member], heard[against])

    def _scaled(self, losses: Floats, member: str) -> Floats:
        """Losses in [0, 1], in units of a member's scale; NaN stays."""
        return np.minimum(losses / self.scales[member], 1.0)

    def _lead(self, losses: Floats, others: Floats) -> Floats:
        """The champion's loss less another's on the same records, moved from [-1, 1] to [0, 1]."""
        difference = self._scaled(losses, CHAMPION) - self._scaled(others, CHAMPION)
        return (difference + 1.0) / 2.0

    def _begin(self, member: str, losses: Floats) -> None:
        """Begin a member's test, where its reference has enough losses."""
        known = losses[~np.isnan(losses)]
        if len(known) < FEWEST_REFERENCE:
            return
        scale = 1.0 if self.bounded else float(np.quantile(known, OUTLIERS))
        # A reference without an error: whatever is wrong now counts in full.
        self.scales[member] = scale if 0.0 < scale < math.inf else float(np.finfo(float).tiny)
        self.tests[member, ""] = RiseTest(Moments.of(self._scaled(known, member)), self.position)

    def _begin_pair(self, other: str, losses: Floats, others: Floats) -> None:
        """Begin the champion's test against another member, where both have enough losses."""
        known = ~(np.isnan(losses) | np.isnan(others))
        if known.sum() >= FEWEST_REFERENCE and (CHAMPION, "") in self.tests:
            lead = Moments.of(self._lead(losses[known], others[known]))
            # The champion must be worse now, and not merely less ahead than it was.
            self.tests[CHAMPION, other] = RiseTest(lead, self.position, floor=0.5)

    def _refer(self) -> None:
        """At the end of as many records as a reference has: begin tests, and renew references."""
        newest = {
            name: self._recent.since(name, began, self.reference_records)
            for name, began in self.began.items()
        }
        for member in self._tested():
            test, losses = self.tests.get((member, "")), newest[member]
            learned = self.position - self.began[member] > self.reference_records
            if test is None:
                # What learns online learns most in its first records, and those tell little of it.
                if learned or member == CHAMPION:
                    self._begin(member, losses)
            elif test.is_quiet:
                known = losses[~np.isnan(losses)]
                if len(known) >= FEWEST_REFERENCE:
                    # The champion does not change, so all that it ever lost quietly is comparable.
                    most = REFERENCES_KEPT * self.reference_records
                    test.refer_to(
                        test.reference.plus(
                            Moments.of(self._scaled(known, member)),
                            math.inf if member == CHAMPION else most,
                        )
                    )
        for other in self._rivals():
            if CHAMPION in newest and (CHAMPION, other) not in self.tests:
                self._begin_pair(other, newest[CHAMPION], newest[other])

    def _findings(self, kind: ErrorKind) -> tuple[ErrorFinding, ...]:
        """The tests of a kind that have found something now: the one that weighs most, at least."""
        weights = self._weights(kind)
        most = max(weights, key=lambda pair: weights[pair] * self.tests[pair].evidence)
        return tuple(
            self._finding(kind, pair)
            for pair in weights
            if pair == most or self.tests[pair].evidence >= self.threshold
        )

    def _finding(self, kind: ErrorKind, pair: tuple[str, str]) -> ErrorFinding:
        test, (member, against) = self.tests[pair], pair
        means = test.reference.mean, test.bound, test.mean_since
        # Of a pair, back from [0, 1] to differences.
        before, allowed, now = (
            mean if mean is None or not against else 2.0 * mean - 1.0 for mean in means
        )
        assert before is not None
        assert allowed is not None
        return ErrorFinding(
            kind=kind,
            member=member,
            against=against,
            evidence=test.evidence,
            threshold=self.threshold,
            seen_at=self.standing[kind],
            change=test.change,
            mean_before=before,
            mean_allowed=allowed,
            mean_now=now,
            records_now=test.count_since,
        )
